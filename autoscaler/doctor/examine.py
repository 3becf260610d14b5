"""All checks in their order, each within its time. One that cannot be made is a finding, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError
from autoscaler.controller.specs import Operator
from autoscaler.doctor.cluster import Lease, check_definitions, check_rights, check_server
from autoscaler.doctor.findings import Finding, Level
from autoscaler.doctor.kept import SeriesCheck
from autoscaler.doctor.pages import check_pages
from autoscaler.doctor.patients import CHECK, Patient, find_patients
from autoscaler.doctor.prometheus import check_prometheus
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access
from autoscaler.signals.range_reader import RangeReader

CHECK_WITHIN_S: Final = 20.0
ASK_WITHIN_S: Final = 5.0  # each question to Prometheus; a person waits, a tick does not


@dataclass(frozen=True, slots=True)
class Asked:
    """What to examine, in plain values."""

    host: str  # of the API server
    namespaces: tuple[str, ...]  # whose workloads; none is all
    watched: tuple[str, ...]  # by the daemon; none is all
    lease: Lease
    operator: Operator
    definition: Mapping[str, Any]  # the schema of InferenceWorkload in this version
    access: Access | None
    labels: Labels
    interval_s: float
    by_prometheus: bool  # signals.source
    page_timeout_s: float
    page_most_bytes: int
    workload: str | None = None
    service_account: str | None = None


@dataclass(slots=True)
class Examination:
    """`begins` is told what is looked at; `findings` grow meanwhile, so that a run that is cut short has some."""

    api: KubeApi
    asked: Asked
    begins: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    late: bool = False  # some check was not done in its time

    async def run(self) -> None:
        asked, api = self.asked, self.api
        server = await self._check("API server", asked.host, check_server(api, asked.host))
        reachable = bool(server) and not _failed(server)
        if reachable:
            await self._check("definitions", "InferenceWorkload", check_definitions(api, asked.definition))
            whose = asked.service_account or "ours"
            targets = [
                (version.rpartition("/")[0], plural) for (version, _), plural in asked.operator.target_kinds.items()
            ]
            nodes = any(asked.operator.node_pools.values())
            made = check_rights(api, asked.watched, asked.lease, targets, asked.service_account, nodes)
            await self._check("rights", whose, made)
        reader = RangeReader(asked.access, ASK_WITHIN_S) if asked.access is not None else None
        try:
            await self._signals(reader, reachable)
        finally:
            if reader is not None:
                reader.close()

    async def _signals(self, reader: RangeReader | None, reachable: bool) -> None:
        asked = self.asked
        answers = False
        if reader is None or asked.access is None:
            message = "none is configured: windows begin anew with every start of the daemon"
            fix = "set prometheus.url"
            self.findings.append(Finding(Level.SKIPPED, "Prometheus", "prometheus.url", message, fix))
        else:
            found = await self._check("Prometheus", asked.access.url, check_prometheus(reader, asked.access))
            answers = bool(found) and not _failed(found)
        if not reachable:
            return
        patients: list[Patient] = []
        await self._check("workload", asked.workload or "all", self._find(patients))
        if not patients:
            return
        page_level = Level.WARNING if asked.by_prometheus else Level.ERROR
        pages = check_pages(patients, asked.page_timeout_s, asked.page_most_bytes, page_level)
        await self._check("pages", "all", pages)
        if reader is not None and answers:
            kept_level = Level.ERROR if asked.by_prometheus else Level.WARNING
            series = SeriesCheck(reader, asked.labels, asked.interval_s, kept_level)
            await self._check("series", "all", series.check(patients))

    async def _find(self, patients: list[Patient]) -> list[Finding]:
        asked = self.asked
        found, findings = await find_patients(self.api, asked.namespaces, asked.workload, asked.operator)
        patients += (each for each in found if each.target.signals)
        return [*findings, *(_elsewhere(each) for each in found if each.elsewhere)]

    async def _check(self, check: str, subject: str, made: Awaitable[list[Finding]]) -> Sequence[Finding]:
        self.begins(check)
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                found = await made
        except TimeoutError:
            self.late = True
            message = f"not done within {CHECK_WITHIN_S:.0f} s"
            found = [
                Finding(Level.ERROR, check, subject, message, "try one workload: tidegate doctor NAME -n NAMESPACE")
            ]
        except ApiError as error:
            fix = "use a kubeconfig that may do this, or run it as the daemon does"
            found = [Finding(Level.ERROR, check, subject, str(error.message), fix)]
        self.findings += found
        return found


def _elsewhere(patient: Patient) -> Finding:
    names = ", ".join(patient.elsewhere)
    fix = f"kubectl get iw {patient.key.name} -n {patient.key.namespace} -o jsonpath='{{.status.signals}}'"
    return Finding(Level.SKIPPED, CHECK, patient.name, f"{names}: from a query or from GPUs, not looked at here", fix)


def _failed(findings: Sequence[Finding]) -> bool:
    return any(each.level is Level.ERROR for each in findings)
