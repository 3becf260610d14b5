"""All that `step` may know: the cluster as last seen, and the workload's numbers.

Observations may be late but must contain our own writes.
Unknown is None and never proves anything: what is unknown keeps waiting, and a deadline ends the waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaler.model.resources import EMPTY, ResourceVector
from autoscaler.model.rollout import RolloutSpec
from rollouts.quota import Verdict
from rollouts.revision import Revision
from rollouts.verbs import VerbRequest


@dataclass(frozen=True, slots=True)
class ObservedRevision:
    """The objects of one revision as last seen. Counts are replicas: pods, or whole groups.

    What is said of requests comes from its serving pods' pages, one a second and pod. An instant is that of the page
    which first showed a thing: it happened between that page and the one before.
    """

    name: str
    replicas: int | None  # spec.replicas of its object; None: there is no object
    ready: int = 0
    starting: int = 0  # live, not ready, not terminating
    unscheduled: int = 0  # of the starting ones, without a node
    terminating: int = 0
    epoch: int | None = None  # of the leader that last stamped its object
    warm: int = 0  # of the ready ones, those that answered all their warm-up requests
    serving: frozenset[str] = frozenset()  # names of the ready pods that Services may select (groups: leaders)
    in_flight: int | None = (
        None  # requests running and waiting, over all its serving pods; None: not known of every one
    )
    last_request_at: float | None = (
        None  # the newest page that showed a request begun since the page before; None: none
    )
    settled: bool = (
        True  # its controller has acted on the present spec (or it is gone), and the pods are seen since then
    )
    counted_at: float | None = None  # every serving pod's counters are known up to then; None: of some they are not
    counted_from: float = 0.0  # and from then on without a gap: after a restart of ours, only since; 0.0: always
    busy_at: float | None = None  # the newest page that showed a request in flight, or that one had come or ended

    @property
    def live(self) -> int:
        """Pods that hold resources."""
        return self.ready + self.starting + self.terminating

    @property
    def gone(self) -> bool:
        return self.replicas is None and self.live == 0 and self.settled


@dataclass(frozen=True, slots=True)
class ObservedService:
    """One of the workload's two Services as last seen."""

    name: str
    exists: bool
    selects: str | None = None  # value of the revision key of its selector
    endpoints: frozenset[str] | None = None  # names of the pods that its EndpointSlices call ready; None: unknown


@dataclass(frozen=True, slots=True)
class ObservedRoute:
    """The one rule of the HTTPRoute that is ours."""

    weight: int | None  # percent to the update Service; None: neither gets anything, or our two refs are not in it
    accepted: bool  # every parent has Accepted and ResolvedRefs at the generation that carries this weight
    timely: bool = True  # its time-out of requests is the one that the workload asks for
    usable: bool = True  # False: it is missing (then nobody gets anything by it), or not ours to write


@dataclass(frozen=True, slots=True)
class ObservedHold:
    """What the ledger of one node pool holds for one revision of the workload."""

    revision: str
    pool: str
    vector: ResourceVector  # thousandths


@dataclass(frozen=True, slots=True)
class Observed:
    """The cluster, as far as it concerns one workload."""

    newest: Revision  # of the template as stored now
    collision_count: int  # that the newest revision's name needed
    saved: frozenset[str]  # names of stored revisions
    current: ObservedRevision | None  # of the record's current revision; None: no record yet
    service: ObservedService
    update_service: ObservedService
    others: tuple[ObservedRevision, ...] = ()  # the workload's other revisions with an object or a pod
    route: ObservedRoute | None = None  # None: no httpRoute, the selector is the switch
    holds: tuple[ObservedHold, ...] = ()
    per_replica: Mapping[str, ResourceVector] = field(default_factory=dict)  # by revision; what is missing is unknown
    desired: int | None = None  # what the whole demand needs, both revisions' pods together; None: as granted
    update_desired: int = 0  # what the update's own share of the demand needs
    verdict: Verdict | None = None  # on `machine.ask` of this cycle; None: nothing was asked

    def of(self, revision: str) -> ObservedRevision:
        """What was seen of it; an empty one where there is nothing."""
        there = (self.current, *self.others) if self.current is not None else self.others
        return next((each for each in there if each.name == revision), ObservedRevision(revision, None))

    def hold(self, revision: str) -> ObservedHold | None:
        return next((each for each in self.holds if each.revision == revision), None)

    def verdict_on(self, revision: str) -> Verdict | None:
        return self.verdict if self.verdict is not None and self.verdict.revision == revision else None

    def held(self, revision: str) -> ResourceVector:
        """In thousandths."""
        hold = self.hold(revision)
        return hold.vector if hold is not None else EMPTY


@dataclass(frozen=True, slots=True)
class Limits:
    """The workload's numbers that a step needs."""

    initial_replicas: int
    initialization_timeout_s: float | None = None
    stopped: bool = False  # wanted at zero by the user: time does not count against it
    epoch: int | None = None  # of the present leader; None: nobody to be fenced off from (a simulated world)
    may_lower: bool = True  # False until every object carries that epoch: a late write may still raise another
    verb: VerbRequest | None = None  # the annotation, if it can be understood


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that one step of a workload decides on."""

    limits: Limits
    spec: RolloutSpec
    observed: Observed
    granted: int  # for the current revision, after policy, bounds and quota
    now: float

    @property
    def desired(self) -> int:
        return self.observed.desired if self.observed.desired is not None else self.granted
