"""What was decided, with its inputs, arithmetic and every rule that changed a number.

`explain`, the log line, the conditions, the events and the metrics all print these records; nothing recomputes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from autoscaler.model.resources import ResourceVector
from autoscaler.model.signal import Activation, Direction, Quality, WorkloadSignals
from autoscaler.model.workload import WorkloadKey


class Action(StrEnum):
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    NONE = "none"


class Rule(StrEnum):
    """The closed set of reasons for a replica count. Frozen: dashboards and tests name them."""

    POLICY = "Policy"  # the policy's own answer stood
    STOPPED = "Stopped"  # desiredPhase: Stopped
    MANUAL = "Manual"  # spec.replicas is set
    PAUSED = "Paused"  # mode: paused
    INITIAL = "InitialReplicas"  # first start, or the initial count was not reached yet
    ACTIVATED = "Activated"  # from zero: a request waits, or the minimum is above zero again
    AT_ZERO = "AtZero"  # no replica, and nothing waits
    NO_DATA = "NoData"  # the policy had nothing to go by: the count is held
    UNTRUSTED = "UntrustedData"  # a lower count was refused: not every ready pod has a fresh page
    WARMING_UP = "WindowsWarmingUp"  # a lower count was refused: whole data for less than a stable window
    DIRECTION = "Direction"  # a lower count was refused: every signal may only raise
    LOADING = "ReplicasLoading"  # not to zero while a pod loads
    NOT_IDLE = "NotIdle"  # not to zero without proof of idleness
    WAITING = "RequestsWaiting"  # not to zero: the activation page shows a waiting request
    ACTIVATION_UNKNOWN = "ActivationUnknown"  # not to zero: the page that would wake it is missing
    NO_WAKER = "NothingWakesIt"  # not to zero: no activation is configured, so nothing could wake it
    RETENTION = "Retention"  # not to zero before the retention is over
    MIN = "MinReplicas"
    MAX = "MaxReplicas"
    CEILING = "Ceiling"  # the operator's limit for every workload


class Adjustment(msgspec.Struct, frozen=True):
    """One rule that changed a number."""

    rule: Rule
    before: int
    after: int
    detail: str = ""  # the numbers, e.g. "idle 12 of 300 s"


class SignalInput(msgspec.Struct, frozen=True):
    """One signal as the policy read it."""

    name: str
    value: float | None  # the newest total (LEVEL: the level)
    target: float  # per replica
    quality: Quality
    age_s: float | None
    stable: float | None = None  # averages over the policy's windows, as totals
    panic: float | None = None
    pods_fresh: int = 0
    pods_expected: int = 0
    direction: Direction = Direction.BOTH
    desired: int | None = None  # the policy's answer for this signal alone; None: nothing to go by
    arithmetic: str = ""  # how it came about


@dataclass(frozen=True, slots=True)
class Observation:
    """What `decide` may know of one workload at one instant."""

    applied: int | None  # the count that we last wrote, else spec.replicas of the object; None: there is none yet
    ready: int | None  # ready replicas; None: the listing is not in sync
    starting: int = 0  # live, not ready, not terminating
    terminating: int = 0
    initialized: bool = True  # the initial count was reached once
    signals: WorkloadSignals | None = None  # None: nothing is scraped (no ready pod)
    activation: Activation = Activation.NOT_CONFIGURED


class ScalingDecision(msgspec.Struct, frozen=True):
    """How many replicas a workload should have, before quota, and why."""

    at_s: float
    current: int  # applied when this was decided
    desired: int
    rule: Rule  # the rule that bound the number
    recommended: int | None  # the policy's answer; None: it had none, or was not asked
    signal: str = ""  # whose count that is, the highest of all; "" where there is none
    arithmetic: str = ""  # e.g. "ceil(41 / 7) = 6"
    inputs: tuple[SignalInput, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    panicking: bool = False
    quality: Quality | None = None  # the worst among the signals that may lower; None: none is wanted or read
    faults: tuple[str, ...] = ()  # "pod-a: http 500"
    lower_at_s: float | None = None  # a clock keeps a lower count back until then, Unix seconds; None: none does

    @property
    def action(self) -> Action:
        if self.desired > self.current:
            return Action.SCALE_UP
        return Action.SCALE_DOWN if self.desired < self.current else Action.NONE


@dataclass(frozen=True, slots=True)
class Grant:
    """What quota left of what a workload wants."""

    key: WorkloadKey
    granted: int
    desired: int
    short: ResourceVector = field(default_factory=dict)  # what the refused replicas would still need, in thousandths
    free: ResourceVector = field(default_factory=dict)  # of the domain, after this grant
    limit: ResourceVector = field(default_factory=dict)  # of the domain; empty: unlimited
    unheld: str = ""  # why what quota allows is not granted yet: its hold is not in the ledger
    others_unknown: bool = False  # nor what pods of others leave of the quota: then nobody knows what is short

    @property
    def clipped(self) -> bool:
        return self.granted < self.desired
