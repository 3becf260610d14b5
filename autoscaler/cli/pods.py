"""The pods of a workload as `tidegate get` shows them: one word for each, and what holds it up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.cluster.resources import OWNER_REVISION_LABEL, Condition, Metadata, Struct
from autoscaler.cluster.workloads.leaderworkerset import GROUP_LABEL, MEMBER_LABEL


class Waiting(Struct, frozen=True):
    reason: str | None = None
    message: str | None = None


class Terminated(Struct, frozen=True):
    reason: str | None = None
    exit_code: int | None = None


class ContainerState(Struct, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodSpec(Struct, frozen=True):
    node_name: str | None = None


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class PodSeen(Struct, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> Condition | None:
        return next((each for each in self.status.conditions or () if each.type == kind), None)

    def label(self, name: str) -> str:
        return (self.metadata.labels or {}).get(name, "")

    @property
    def revision(self) -> str:
        return self.label(OWNER_REVISION_LABEL)


@dataclass(frozen=True, slots=True)
class State:
    """A word, and the detail beside it."""

    word: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod, or the pods of one group, the leader first."""

    name: str  # of its only pod, or "group 0"
    pods: tuple[PodSeen, ...]

    @property
    def is_group(self) -> bool:
        return bool(self.pods[0].label(GROUP_LABEL))

    @property
    def state(self) -> State:
        """A group is as ready as its least ready pod."""
        states = [state_of(pod) for pod in self.pods]
        if not self.is_group:
            return states[0]
        ready = sum(1 for state in states if state.word == "Ready")
        worst = next((state for state in states if state.word != "Ready"), State("Ready"))
        return State(worst.word, f"{ready} of {len(states)} pods ready")


def state_of(pod: PodSeen) -> State:
    """What a pod is doing: Ready, Terminating, Failed, Unplaced, or what it waits for."""
    if pod.metadata.deletion_timestamp:
        return State("Terminating")
    if pod.status.phase in ("Failed", "Succeeded"):
        return State("Failed", pod.status.reason or f"it ended ({pod.status.phase})")
    ready = pod.condition("Ready")
    if ready is not None and ready.status == "True":
        restarts = sum(each.restart_count for each in pod.status.container_statuses or ())
        return State("Ready", f"{restarts} restart{'' if restarts == 1 else 's'}" if restarts else "")
    placed = pod.condition("PodScheduled")
    if pod.spec.node_name is None:
        return State("Unplaced", placed.message if placed is not None and placed.status == "False" else "")
    return _starting(pod)


def _starting(pod: PodSeen) -> State:
    for container in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting, ended = container.state.waiting, container.state.terminated or container.last_state.terminated
        if waiting is not None and waiting.reason and waiting.reason not in ("PodInitializing", "ContainerCreating"):
            return State("Failed", _said(container.name, waiting.reason, waiting.message))
        if ended is not None and ended.exit_code:
            restarts = f"exit code {ended.exit_code}, {container.restart_count} restarts"
            return State("Restarted", _said(container.name, ended.reason or "ended", restarts))
    return State("Starting")


def _said(container: str, reason: str, message: str | None) -> str:
    return f"{container}: {reason}{f' ({message})' if message else ''}"


def replicas_of(pods: Sequence[PodSeen]) -> list[Replica]:
    """By name; pods of a group together, the leader first."""
    groups: dict[str, list[PodSeen]] = {}
    for pod in pods:
        group = pod.label(GROUP_LABEL)
        groups.setdefault(f"group {group}" if group else pod.metadata.name, []).append(pod)
    return [
        Replica(name, tuple(sorted(members, key=_member)))
        for name, members in sorted(groups.items(), key=lambda item: _group(item[1][0], item[0]))
    ]


def _group(pod: PodSeen, name: str) -> tuple[int, str]:
    index = pod.label(GROUP_LABEL)
    return (int(index) if index.isdigit() else 0, name)


def _member(pod: PodSeen) -> tuple[int, str]:
    index = pod.label(MEMBER_LABEL)
    return (int(index) if index.isdigit() else 0, pod.metadata.name)
