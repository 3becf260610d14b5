"""The workloads to look at: what they want measured, and the pods that serve them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import (
    CONTROLLER_REVISIONS,
    PODS,
    WORKLOAD_LABEL,
    WORKLOADS,
    ControllerRevision,
    ListMetadata,
    Pod,
    Resource,
    Scale,
)
from autoscaler.cluster.scalable import is_ready, serves
from autoscaler.controller.specs import Operator, Unresolved, of_revision, resolve
from autoscaler.doctor.findings import Finding, Level
from autoscaler.model.workload import WorkloadKey, WorkloadSpec
from autoscaler.signals.sources import of_pods
from autoscaler.signals.targets import PodAddress, ScrapeTarget

PAGE_ITEMS: Final = 500
CHECK: Final = "workload"

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Patient:
    """One workload that has something to measure."""

    spec: WorkloadSpec
    target: ScrapeTarget  # its signals by names of ours or of the pods
    elsewhere: tuple[str, ...] = ()  # signals that are not the pods': queries, and what GPUs show

    @property
    def key(self) -> WorkloadKey:
        return self.spec.key

    @property
    def name(self) -> str:
        return f"{self.key.namespace}/{self.key.name}"


async def find_patients(
    api: KubeApi, namespaces: Sequence[str], name: str | None, operator: Operator
) -> tuple[list[Patient], list[Finding]]:
    """Those with pods, and what is to be said of the others. `namespaces`: none is all. Raises ApiError."""
    patients: list[Patient] = []
    found: list[Finding] = []
    for place in namespaces or ("",):
        workloads = [
            each
            for each in await _list(api, WORKLOADS, InferenceWorkload, place)
            if name in (None, each.metadata.name) and not each.metadata.deletion_timestamp
        ]
        if not workloads:
            continue
        pods = await _list(api, PODS, Pod, place, WORKLOAD_LABEL)
        kept = await _list(api, CONTROLLER_REVISIONS, ControllerRevision, place, WORKLOAD_LABEL)
        contents = {(each.metadata.namespace, each.metadata.name): each.data or {} for each in kept}
        for workload in sorted(workloads, key=lambda each: (each.metadata.namespace, each.metadata.name)):
            theirs = await _pods_of_target(api, workload, operator)
            looked = theirs if isinstance(theirs, Finding) else _look(workload, theirs, pods, contents, operator)
            if isinstance(looked, Patient):
                patients.append(looked)
            else:
                found.append(looked)
    if not patients and not found:
        where = ", ".join(namespaces) or "any namespace"
        says = f"there is none{f' called {name}' if name else ''} in {where}"
        level = Level.ERROR if name else Level.SKIPPED
        found.append(Finding(level, CHECK, name or "all", says, "look elsewhere with -n NAMESPACE or -A"))
    return patients, found


def _look(
    workload: InferenceWorkload,
    theirs: Sequence[Pod] | None,
    pods: Sequence[Pod],
    contents: Mapping[tuple[str, str], Mapping[str, Any]],
    operator: Operator,
) -> Patient | Finding:
    """`theirs`: pods of its target, if it has one. `contents` of the stored revisions: what runs may be older than what
    is written."""
    meta = workload.metadata
    subject = f"{meta.namespace}/{meta.name}"
    spec = resolve(workload, operator)
    if isinstance(spec, Unresolved):
        fix = f"kubectl get iw {meta.name} -n {meta.namespace} -o yaml | tidegate validate -"
        return Finding(Level.ERROR, CHECK, subject, f"{spec.reason}: {spec.message}", fix)
    current = workload.status.current_revision if workload.status else None
    if content := contents.get((meta.namespace, current or "")):
        spec = of_revision(spec, content, None)
    if not spec.scaling.signals:
        return Finding(Level.OK, CHECK, subject, "has a fixed size: nothing is measured")
    own = [pod for pod in pods if _is_of(pod, workload)] if theirs is None else theirs
    serves_now = serves if theirs is None else is_ready
    serving = sorted((pod for pod in own if serves_now(pod)), key=lambda pod: pod.metadata.name)
    if not serving and not own:
        return Finding(Level.SKIPPED, CHECK, subject, "has no pod at present: nothing to measure")
    if not serving:
        fix = f"kubectl describe pods -n {meta.namespace} -l {WORKLOAD_LABEL}={meta.name}"
        return Finding(Level.WARNING, CHECK, subject, f"none of its {len(own)} pods is ready: nothing to measure", fix)
    addresses = tuple(PodAddress(pod.metadata.name, pod.metadata.uid, pod.status.pod_ip or "") for pod in serving)
    asked = spec.serving
    target = ScrapeTarget(asked.metrics_port, asked.metrics_path, asked.engine, spec.scaling.signals, addresses)
    read = of_pods(target)
    names = {each.name for each in read.signals}
    return Patient(spec, read, tuple(each.name for each in spec.scaling.signals if each.signal not in names))


def _is_of(pod: Pod, workload: InferenceWorkload) -> bool:
    meta = workload.metadata
    return pod.metadata.namespace == meta.namespace and (pod.metadata.labels or {}).get(WORKLOAD_LABEL) == meta.name


async def _pods_of_target(
    api: KubeApi, workload: InferenceWorkload, operator: Operator
) -> Sequence[Pod] | Finding | None:
    """None where what serves is ours."""
    spec, meta = resolve(workload, operator), workload.metadata
    target = None if isinstance(spec, Unresolved) else spec.target
    if target is None:
        return None
    resource = Resource(target.api_version, target.resource, target.kind)
    try:
        path = resource.path(meta.namespace, target.name, "scale")
        selector = msgspec.json.decode(await api.call("GET", path), type=Scale).status.selector
    except ApiError as error:
        fix = f"does {target} exist, and may we get its scale? kubectl get {target} -n {meta.namespace}"
        return Finding(Level.ERROR, CHECK, f"{meta.namespace}/{meta.name}", str(error.message), fix)
    if not selector:
        fix = "its kind must tell the selector of its pods in /scale (labelSelectorPath in its definition)"
        return Finding(Level.ERROR, CHECK, f"{meta.namespace}/{meta.name}", f"{target} tells no selector", fix)
    return await _list(api, PODS, Pod, meta.namespace, selector)


class _List(msgspec.Struct):
    items: list[msgspec.Raw]
    metadata: ListMetadata = ListMetadata()


async def _list(api: KubeApi, resource: Resource, kind: type[T], namespace: str, labels: str = "") -> list[T]:
    found: list[T] = []
    params = {"limit": str(PAGE_ITEMS)} | ({"labelSelector": labels} if labels else {})
    while True:
        answer = msgspec.json.decode(await api.call("GET", resource.path(namespace or None), params=params), type=_List)
        found += [msgspec.json.decode(item, type=kind) for item in answer.items]
        if not answer.metadata.next:
            return found
        params["continue"] = answer.metadata.next
