"""Kind `leaderWorkerSet`: a replica is a group of a leader and its workers, a revision's object is a LeaderWorkerSet.

A group counts as ready when all of it is: the leader alone may answer and still be of no use. Groups are told apart by
the labels of LeaderWorkerSet's own controller, and their size is the one that it noted on the pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, TypeVar

from autoscaler.cluster.fencing import epoch_of
from autoscaler.cluster.resources import LEADER_WORKER_SETS, REVISION_LABEL, Pod, Scalable
from autoscaler.cluster.scalable import (
    Content,
    Kind,
    NodeLabels,
    Shape,
    is_live,
    is_ready,
    is_settled,
    pod_template,
    serves,
)
from rollouts.observed import ObservedRevision

_DOMAIN: Final = "leaderworkerset.sigs.k8s.io"
NAME_LABEL: Final = f"{_DOMAIN}/name"
GROUP_LABEL: Final = f"{_DOMAIN}/group-index"
MEMBER_LABEL: Final = f"{_DOMAIN}/worker-index"  # "0" is the leader
SIZE_ANNOTATION: Final = f"{_DOMAIN}/size"
LEADER: Final = "0"
SIZE_DIGITS: Final = 9  # a size is a number of 32 bits
_OF_THE_GROUP: Final = ("size", "restartPolicy", "subGroupPolicy")  # in leaderWorkerTemplate; the others stand above it
_OF_THE_SET: Final = ("startupPolicy", "networkConfig")

P = TypeVar("P", bound=Pod)


class _State(Enum):
    READY = auto()
    STARTING = auto()
    UNSCHEDULED = auto()  # starting, and some pod has no node
    TERMINATING = auto()


def spec(content: Content, own: Mapping[str, str], revision: str, nodes: NodeLabels) -> dict[str, Any]:
    """The LeaderWorkerSet's spec. Only leaders serve, so a leader template is always there. A group is in one pool."""
    worker = content["workerTemplate"]
    leader = content.get("leaderTemplate") or worker
    return {
        **{key: content[key] for key in _OF_THE_SET if content.get(key) is not None},
        "leaderWorkerTemplate": {
            **{key: content[key] for key in _OF_THE_GROUP if content.get(key) is not None},
            "leaderTemplate": pod_template(leader, {**own, REVISION_LABEL: revision}, nodes),
            "workerTemplate": pod_template(worker, own, nodes),
        },
    }


def observe(name: str, there: Scalable | None, pods: Iterable[Pod]) -> ObservedRevision:
    """How the groups of a revision are. One group is in one state, whatever its pods are in."""
    every = list(pods)
    live = [pod for pod in every if is_live(pod)]
    states = [_state(group) for group in _groups(live).values()]
    leaders = [pod for pod in every if _member(pod) == LEADER]
    staying = sum(1 for pod in leaders if is_live(pod) and not pod.metadata.deletion_timestamp)
    unscheduled = states.count(_State.UNSCHEDULED)
    return ObservedRevision(
        name=name,
        replicas=there.spec.replicas if there else None,
        ready=states.count(_State.READY),
        starting=states.count(_State.STARTING) + unscheduled,
        unscheduled=unscheduled,
        terminating=states.count(_State.TERMINATING),
        epoch=epoch_of(there.metadata) if there else None,
        serving=frozenset(pod.metadata.name for pod in live if serves(pod)),
        settled=is_settled(there, live, staying, len(leaders)),  # a StatefulSet counts all that is there
    )


def _state(group: Sequence[Pod]) -> _State:
    """A group without a leader that stays is what is left of one: leaders come first and take their workers along."""
    staying = [pod for pod in group if not pod.metadata.deletion_timestamp]
    leader = next((pod for pod in staying if _member(pod) == LEADER), None)
    if leader is None:
        return _State.TERMINATING
    if _is_whole(leader, [pod for pod in staying if is_ready(pod)]):
        return _State.READY
    return _State.STARTING if all(pod.spec.node_name for pod in staying) else _State.UNSCHEDULED


def _is_whole(leader: Pod, ready: Sequence[Pod]) -> bool:
    """Is every member among these? A worker older than its leader belongs to the group before, and is about to go."""
    since = leader.metadata.creation_timestamp or ""
    indices = {_number(_member(pod)) for pod in ready if (pod.metadata.creation_timestamp or "") >= since}
    size = _number((leader.metadata.annotations or {}).get(SIZE_ANNOTATION, ""))
    return size is not None and size > 0 and sum(1 for each in indices if each is not None and each < size) == size


def _member(pod: Pod) -> str:
    return (pod.metadata.labels or {}).get(MEMBER_LABEL, "")


def _number(text: str) -> int | None:
    """Labels and annotations of pods may hold anything."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= SIZE_DIGITS else None


def _groups(pods: Iterable[P]) -> dict[str, list[P]]:
    groups: dict[str, list[P]] = {}
    for pod in pods:
        groups.setdefault((pod.metadata.labels or {}).get(GROUP_LABEL, pod.metadata.name), []).append(pod)
    return groups


def _leads(pod: Pod) -> bool:
    """Ready, and the leader of its group, of a LeaderWorkerSet that somebody else made."""
    return _member(pod) == LEADER and is_ready(pod)


SHAPE: Final = Shape(
    selector=lambda name, told: f"{NAME_LABEL}={name}",  # a scale tells leaders alone, and a group is all of its pods
    observe=observe,
    serves=_leads,
    replicas=lambda pods: list(_groups(pods).values()),
)
KIND: Final = Kind("leaderWorkerSet", LEADER_WORKER_SETS, spec, observe)
