"""How many replicas one workload should have: `decide`, a function of spec, state, observation and time.

Order: what the user fixed (stopped, manual, paused, first start, zero), then the policy, asked once for each signal,
of whose counts the highest wins, then the guards against lowering on bad data, then the way to zero, then the bounds.
Quota comes after, in `rollouts.quota`. Every rule that changed the number is in the decision. Never acts, never reads a
clock.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from autoscaler.model.decision import Adjustment, Observation, Rule, ScalingDecision, SignalInput
from autoscaler.model.signal import Activation, Direction, Quality, Reading, WorkloadSignals, worst
from autoscaler.model.workload import DesiredPhase, Mode, ScalingSpec, WorkloadSpec
from autoscaler.scaling.policy import Answer, PolicyState, ask


class ScalingState(msgspec.Struct, frozen=True):
    """What one decision leaves for the next. A fresh one, as after a restart, lowers nothing until it is warm."""

    policies: tuple[PolicyState, ...] = ()  # one a signal, in the spec's order
    zero_wanted_since: float | None = None  # idleness proven and zero wanted by the policy, without a break
    waking: bool = False  # a request waited at zero and no replica was applied yet, e.g. for want of quota

    def recalling(self, recalled: tuple[PolicyState, ...]) -> ScalingState:
        """With what somebody else kept of the same signals, where that has been whole for longer."""
        if [each.signal for each in self.policies] != [each.signal for each in recalled]:
            return self
        return replace(self, policies=tuple(map(_longer_whole, self.policies, recalled)))


class _Answer(msgspec.Struct, frozen=True):
    """The highest of the policy's answers. `desired` None: nothing to go by."""

    desired: int | None
    signal: str = ""  # whose it is
    arithmetic: str = ""
    inputs: tuple[SignalInput, ...] = ()
    panicking: bool = False
    held_until: float | None = None  # by the policy's memory alone


class _Trail:
    """A number, the rules that changed it, in order, and the clock that holds it up."""

    def __init__(self, value: int, rule: Rule) -> None:
        self.value = value
        self.rule = rule
        self.until: float | None = None
        self.adjustments: list[Adjustment] = []

    def change(self, value: int, rule: Rule, detail: str = "", until: float | None = None) -> None:
        if value != self.value:
            self.adjustments.append(Adjustment(rule, self.value, value, detail))
            self.value, self.rule, self.until = value, rule, until


def decide(
    spec: WorkloadSpec, state: ScalingState, seen: Observation, now: float
) -> tuple[ScalingDecision, ScalingState]:
    """The replica count that this workload should have at `now` (Unix seconds), before quota.

    10 requests in flight, target 7 a replica, 1 applied, 1..8: the policy says ceil(10 / 7) = 2.
    """
    current = seen.applied or 0
    waking = current == 0 and (state.waking or seen.activation is Activation.WAITING)
    fixed = _fixed(spec, seen, current, waking)
    if fixed is not None:
        at_zero = current == 0
        trail = _Trail(fixed[0], fixed[1])
        _ceiling(spec.scaling, trail)
        watched, answer = ((), None) if at_zero else _ask_all(spec.scaling, state.policies, seen, now)
        return _decision(trail, current, seen, answer, now), ScalingState(watched, waking=waking)
    policies, answer = _ask_all(spec.scaling, state.policies, seen, now)
    trail = _Trail(current, Rule.NO_DATA)
    if answer.desired is not None:
        trail = _Trail(answer.desired, Rule.POLICY)
        trail.until = answer.held_until if answer.desired >= current else None
        _guard_lowering(spec.scaling, trail, current, seen, policies, now)
    zero_since = _toward_zero(spec.scaling, trail, current, seen, state, now)
    _bounds(spec.scaling, trail, seen)
    if trail.value <= spec.scaling.min_replicas:
        trail.until = None  # it is not a clock that keeps it there
    return _decision(trail, current, seen, answer, now), ScalingState(policies, zero_since)


def _fixed(spec: WorkloadSpec, seen: Observation, current: int, waking: bool) -> tuple[int, Rule] | None:
    """Counts that no policy is asked for."""
    scaling = spec.scaling
    if spec.desired_phase is DesiredPhase.STOPPED:
        return 0, Rule.STOPPED
    if spec.mode is Mode.PAUSED and seen.applied is not None:
        return current, Rule.PAUSED
    if scaling.manual_replicas is not None:
        return scaling.manual_replicas, Rule.MANUAL
    if current > 0:
        return None
    if not seen.initialized:
        return max(scaling.initial_replicas, scaling.min_replicas), Rule.INITIAL
    return _from_zero(scaling, seen, waking)


def _from_zero(scaling: ScalingSpec, seen: Observation, waking: bool) -> tuple[int, Rule]:
    wake = min(max(scaling.activation_replicas, scaling.min_replicas, 1), scaling.max_replicas)
    if scaling.min_replicas > 0 or waking:
        return wake, Rule.ACTIVATED
    if seen.activation is Activation.NOT_CONFIGURED:
        return wake, Rule.NO_WAKER  # left at zero it would stay there for ever
    return 0, Rule.ACTIVATION_UNKNOWN if seen.activation is Activation.UNKNOWN else Rule.AT_ZERO


def _ask_all(
    scaling: ScalingSpec, states: tuple[PolicyState, ...], seen: Observation, now: float
) -> tuple[tuple[PolicyState, ...], _Answer]:
    """Asks the policy for each signal. Fixed-size workloads have none."""
    if not scaling.signals:
        return (), _Answer(scaling.min_replicas)
    if seen.ready is None:
        return states, _Answer(None)
    known = {state.signal.name: state for state in states}
    asked = [ask(scaling, each, known.get(each.name), seen.signals, seen.ready, now) for each in scaling.signals]
    return tuple(state for state, _ in asked), _highest([answer for _, answer in asked], seen.applied or 0)


def _highest(answers: list[Answer], current: int) -> _Answer:
    """The highest count wins; of equals the signal that stands first.

    A signal that may only lower counts at most as the present count, so that it holds and never raises. One that may
    only raise counts as it is: it lowers nothing by itself, but a count that others lower stops where it would be
    raised again.
    """
    inputs = tuple(answer.read for answer in answers)
    panicking = any(answer.panicking for answer in answers)
    best: tuple[int, Answer] | None = None
    for answer in answers:
        read = answer.read
        if read.desired is None:
            continue
        count = min(read.desired, current) if read.direction is Direction.DOWN else read.desired
        if best is None or count > best[0]:
            best = count, answer
    if best is None:
        return _Answer(None, inputs=inputs, panicking=panicking)
    count, read = best[0], best[1].read
    held = f"; may only lower: {count}" if count != read.desired else ""
    return _Answer(count, read.name, read.arithmetic + held, inputs, panicking, best[1].held_until)


def _guard_lowering(
    scaling: ScalingSpec,
    trail: _Trail,
    current: int,
    seen: Observation,
    policies: tuple[PolicyState, ...],
    now: float,
) -> None:
    """Absent is not zero: a lower count needs a fresh page of every ready pod, and a stable window of such pages.

    That holds for every signal that may lower. Replicas that are not ready, or not seen, show no load of theirs: they
    count as full.
    """
    if trail.value >= current or not policies:
        return
    lowering = [policy for policy in policies if policy.signal.direction is not Direction.UP]
    if not lowering:
        trail.change(current, Rule.DIRECTION, "every signal may only raise")
        return
    for policy in lowering:
        reading = seen.signals.readings.get(policy.signal.name) if seen.signals else None
        if reading is None or reading.quality is not Quality.FRESH or reading.pods_expected < (seen.ready or 0):
            quality, fresh, expected = ("absent", 0, seen.ready or 0) if reading is None else _trust(reading)
            detail = f"{quality}: {fresh} of {expected} pods have a fresh page"
            trail.change(current, Rule.UNTRUSTED, _of(policy, policies, detail))
            return
    age, policy = min(((_trusted_for_s(each, now), each) for each in lowering), key=lambda pair: pair[0])
    if age < scaling.kpa.stable_window_s:
        detail = f"whole data for {age:.0f} of {scaling.kpa.stable_window_s:.0f} s"
        warm_at = now - age + scaling.kpa.stable_window_s
        trail.change(current, Rule.WARMING_UP, _of(policy, policies, detail), warm_at)
        return
    missing = max(0, current - (seen.ready or 0))
    if missing:
        full = min(current, trail.value + missing)
        trail.change(full, Rule.LOADING, f"{missing} of {current} replicas are not ready and count as full")


def _trusted_for_s(policy: PolicyState, now: float) -> float:
    return now - policy.trusted_since if policy.trusted_since is not None else 0.0


def _of(policy: PolicyState, policies: tuple[PolicyState, ...], detail: str) -> str:
    """The detail, with the signal's name where there are several."""
    return f"{policy.signal.name}: {detail}" if len(policies) > 1 else detail


def _longer_whole(live: PolicyState, recalled: PolicyState) -> PolicyState:
    if recalled.trusted_since is None or live.trusted_since is None:
        return live
    return recalled if recalled.trusted_since < live.trusted_since else live


def _trust(reading: Reading) -> tuple[str, int, int]:
    return reading.quality.value, reading.pods_fresh, reading.pods_expected


def _toward_zero(
    scaling: ScalingSpec, trail: _Trail, current: int, seen: Observation, state: ScalingState, now: float
) -> float | None:
    """Lets the count become zero only on proof, and after the retention. Returns since when zero is wanted."""
    if trail.value > 0 or current == 0 or scaling.min_replicas > 0 or scaling.signal is None:
        return None
    refusal = _no_proof_of_idleness(seen)
    if refusal is not None:
        trail.change(1, *refusal)
        return None
    since = state.zero_wanted_since if state.zero_wanted_since is not None else now
    if now - since < scaling.retention_s:
        detail = f"idle {now - since:.0f} of {scaling.retention_s:.0f} s"
        trail.change(1, Rule.RETENTION, detail, since + scaling.retention_s)
    return since


def _no_proof_of_idleness(seen: Observation) -> tuple[Rule, str] | None:
    activity = _activity(seen.signals)
    if seen.starting > 0 or not seen.ready:
        return Rule.LOADING, f"{seen.starting} loading"
    if activity is None or activity.quality is not Quality.FRESH or activity.value is None:
        return Rule.UNTRUSTED, "no fresh proof of idleness"
    if activity.value > 0:
        return Rule.NOT_IDLE, f"{activity.value:g} requests"
    if seen.activation is Activation.NOT_CONFIGURED:
        return Rule.NO_WAKER, "set autoscaling.activation"
    if seen.activation is Activation.UNKNOWN:
        return Rule.ACTIVATION_UNKNOWN, "the activation page or query says nothing"
    if seen.activation is Activation.WAITING:
        return Rule.WAITING, "a request waits, the activation page or query says"
    return None


def _activity(signals: WorkloadSignals | None) -> Reading | None:
    return signals.activity if signals else None


def _bounds(scaling: ScalingSpec, trail: _Trail, seen: Observation) -> None:
    if not seen.initialized and trail.value < scaling.initial_replicas:
        trail.change(scaling.initial_replicas, Rule.INITIAL, f"{seen.ready or 0} ready")
    if trail.value < scaling.min_replicas:
        trail.change(scaling.min_replicas, Rule.MIN)
    if trail.value > scaling.max_replicas:
        trail.change(scaling.max_replicas, Rule.MAX)
    _ceiling(scaling, trail)


def _ceiling(scaling: ScalingSpec, trail: _Trail) -> None:
    if scaling.ceiling_replicas is not None and trail.value > scaling.ceiling_replicas:
        trail.change(scaling.ceiling_replicas, Rule.CEILING)


def _decision(trail: _Trail, current: int, seen: Observation, answer: _Answer | None, now: float) -> ScalingDecision:
    inputs = answer.inputs if answer else ()
    faults: tuple[str, ...] = ()
    if seen.signals and inputs:  # else the pages are read for others
        everything = [*seen.signals.readings.values(), seen.signals.activity]
        faults = tuple(sorted({f"{fault.pod}: {fault.reason}" for reading in everything for fault in reading.faults}))
    return ScalingDecision(
        at_s=now,
        current=current,
        desired=trail.value,
        rule=trail.rule,
        recommended=answer.desired if answer else None,
        signal=answer.signal if answer else "",
        arithmetic=answer.arithmetic if answer else "",
        inputs=inputs,
        adjustments=tuple(trail.adjustments),
        panicking=answer.panicking if answer else False,
        quality=worst(each.quality for each in inputs if each.direction is not Direction.UP) if seen.ready else None,
        faults=faults[:5],
        lower_at_s=trail.until,
    )
