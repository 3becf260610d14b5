"""How many replicas one workload should have: `decide`, a function of spec, state, observation and time.

Order: what the user fixed (stopped, manual, paused, first start, zero), then the policy, then the guards against
lowering on bad data, then the way to zero, then the bounds. Quota comes after, in `allocation`. Every rule that changed
the number is in the decision. Never acts, never reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from autoscaler.model.decision import Adjustment, Observation, Rule, ScalingDecision, SignalInput
from autoscaler.model.signal import Activation, Quality, Reading, Shape, SignalSpec, WorkloadSignals
from autoscaler.model.workload import DesiredPhase, Mode, ScalingSpec, WorkloadSpec
from autoscaler.scaling import kpa

SAMPLE_IS_NEW_S: Final = 2.0  # samples come once a second
GAP_S: Final = 2.0  # a longer silence between two samples leaves a hole in the windows


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Windows and memory of the policy for one signal."""

    signal: SignalSpec
    windows: kpa.KpaWindows
    memory: kpa.KpaState
    delay_s: float  # that the memory was made for
    last_sample_at: float | None = None
    trusted_since: float | None = None  # every ready pod fresh and no hole since then


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What one decision leaves for the next. A fresh one, as after a restart, lowers nothing until it is warm."""

    policy: PolicyState | None = None
    zero_wanted_since: float | None = None  # idleness proven and zero wanted by the policy, without a break
    waking: bool = False  # a request waited at zero and no replica was applied yet, e.g. for want of quota


@dataclass(frozen=True, slots=True)
class _Answer:
    """The policy's answer. `desired` None: nothing to go by."""

    desired: int | None
    arithmetic: str = ""
    inputs: tuple[SignalInput, ...] = ()
    panicking: bool = False


class _Trail:
    """A number and the rules that changed it, in order."""

    def __init__(self, value: int, rule: Rule) -> None:
        self.value = value
        self.rule = rule
        self.adjustments: list[Adjustment] = []

    def change(self, value: int, rule: Rule, detail: str = "") -> None:
        if value != self.value:
            self.adjustments.append(Adjustment(rule, self.value, value, detail))
            self.value, self.rule = value, rule


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
        watched, answer = (None, None) if at_zero else _ask_policy(spec.scaling, state.policy, seen, now)
        return _decision(trail, current, seen, answer, now), ScalingState(watched, waking=waking)
    policy, answer = _ask_policy(spec.scaling, state.policy, seen, now)
    trail = _Trail(current, Rule.NO_DATA)
    if answer.desired is not None:
        trail = _Trail(answer.desired, Rule.POLICY)
        _guard_lowering(spec.scaling, trail, current, seen, policy, now)
    zero_since = _toward_zero(spec.scaling, trail, current, seen, state, now)
    _bounds(spec.scaling, trail, seen)
    return _decision(trail, current, seen, answer, now), ScalingState(policy, zero_since)


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


def _ask_policy(
    scaling: ScalingSpec, state: PolicyState | None, seen: Observation, now: float
) -> tuple[PolicyState | None, _Answer]:
    """Feeds the new samples into the windows and asks the policy. Fixed-size workloads have none."""
    signal = scaling.signal
    if signal is None:
        return None, _Answer(scaling.min_replicas)
    if seen.ready is None:
        return state, _Answer(None)
    reading = seen.signals.readings.get(signal.name) if seen.signals else None
    kept = None if _clock_set_back(state, reading) else state
    state = _record(_fitted(scaling, signal, kept, seen.ready, now), reading, seen.ready)
    averages = state.windows.averages(_as_of(state, now))
    stable, panic = averages if averages else (None, None)
    result, memory = kpa.scale(_kpa_spec(scaling, signal), state.memory, seen.ready, stable, panic, now)
    answer = _Answer(
        result.desired, _arithmetic(signal, result), _inputs(signal, reading, stable, panic), memory.panicking
    )
    return replace(state, memory=memory), answer


def _clock_set_back(state: PolicyState | None, reading: Reading | None) -> bool:
    """Do the samples come from before those in the windows? Then the windows begin anew, which holds the count."""
    if state is None or state.last_sample_at is None or reading is None or not reading.samples:
        return False
    return reading.samples[-1].at_s < state.last_sample_at - SAMPLE_IS_NEW_S


def _as_of(state: PolicyState, now: float) -> float:
    """When to read the windows: at the newest sample, as long as it is one.

    Samples come on whole seconds and a tick may fall just before one. Reading at the tick's own time would then find
    the present bucket empty, and a panic window of one bucket would never see anything.
    """
    last = state.last_sample_at
    return last if last is not None and now - last < SAMPLE_IS_NEW_S else now


def _kpa_spec(scaling: ScalingSpec, signal: SignalSpec) -> kpa.KpaSpec:
    parameters = scaling.kpa
    return kpa.KpaSpec(
        target_value=signal.target,
        total_value=signal.threshold,
        max_scale_up_rate=parameters.max_scale_up_rate,
        max_scale_down_rate=parameters.max_scale_down_rate,
        target_burst_capacity=0.0,  # there is no activator in the request path
        panic_threshold_ratio=parameters.panic_threshold_ratio,
        stable_window_s=parameters.stable_window_s,
        scale_down_delay_s=scaling.scale_down_delay_s,
        activation_scale=scaling.activation_replicas if scaling.min_replicas == 0 else 0,
    )


def _fitted(scaling: ScalingSpec, signal: SignalSpec, state: PolicyState | None, ready: int, now: float) -> PolicyState:
    """The state for these parameters: made anew for another signal, resized for other windows."""
    stable_s = scaling.kpa.stable_window_s
    panic_s = max(1.0, float(int(stable_s * scaling.kpa.panic_window_percent / 100 + 0.5)))
    if state is None or state.signal.name != signal.name:
        memory = kpa.start(_kpa_spec(scaling, signal), ready, now)
        return PolicyState(signal, kpa.KpaWindows.empty(stable_s, panic_s), memory, scaling.scale_down_delay_s)
    if state.delay_s != scaling.scale_down_delay_s:
        delay = kpa.start(_kpa_spec(scaling, signal), ready, now).delay
        state = replace(state, memory=replace(state.memory, delay=delay), delay_s=scaling.scale_down_delay_s)
    windows = state.windows.resized(stable_s, panic_s, now)
    same = signal == state.signal and windows.stable is state.windows.stable and windows.panic is state.windows.panic
    return state if same else replace(state, signal=signal, windows=windows)


def _record(state: PolicyState, reading: Reading | None, ready: int) -> PolicyState:
    """Adds the samples that are newer than the last one recorded. A level counts once per ready replica.

    Also keeps how long the windows have held nothing but the truth: a hole reads as zeros, and samples without some
    pod's share read low, for as long as they are in the window.
    """
    if reading is None or reading.quality is Quality.ABSENT:
        return replace(state, trusted_since=None)
    windows, last, since = state.windows, state.last_sample_at, state.trusted_since
    factor = ready if state.signal.shape is Shape.LEVEL else 1
    for sample in reading.samples:
        if last is None or sample.at_s > last:
            windows = windows.record(sample.at_s, sample.value * factor)
            since = None if last is not None and sample.at_s - last > GAP_S else since
            last = sample.at_s
    whole = reading.quality is Quality.FRESH and reading.pods_expected >= ready
    since = (last if since is None else since) if whole else None
    return replace(state, windows=windows, last_sample_at=last, trusted_since=since)


def _guard_lowering(
    scaling: ScalingSpec, trail: _Trail, current: int, seen: Observation, policy: PolicyState | None, now: float
) -> None:
    """Absent is not zero: a lower count needs a fresh page of every ready pod, and a stable window of such pages.

    Replicas that are not ready, or not seen, show no load of theirs: they count as full.
    """
    if trail.value >= current or policy is None:
        return
    reading = seen.signals.readings.get(policy.signal.name) if seen.signals else None
    if reading is None or reading.quality is not Quality.FRESH or reading.pods_expected < (seen.ready or 0):
        quality, fresh, expected = ("absent", 0, seen.ready or 0) if reading is None else _trust(reading)
        trail.change(current, Rule.UNTRUSTED, f"{quality}: {fresh} of {expected} pods have a fresh page")
        return
    age = now - policy.trusted_since if policy.trusted_since is not None else 0.0
    if age < scaling.kpa.stable_window_s:
        trail.change(current, Rule.WARMING_UP, f"whole data for {age:.0f} of {scaling.kpa.stable_window_s:.0f} s")
        return
    missing = max(0, current - (seen.ready or 0))
    if missing:
        full = min(current, trail.value + missing)
        trail.change(full, Rule.LOADING, f"{missing} of {current} replicas are not ready and count as full")


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
        trail.change(1, Rule.RETENTION, f"idle {now - since:.0f} of {scaling.retention_s:.0f} s")
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
        return Rule.ACTIVATION_UNKNOWN, "the activation page is missing"
    if seen.activation is Activation.WAITING:
        return Rule.WAITING, "a request waits at the activation page"
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


def _arithmetic(signal: SignalSpec, result: kpa.KpaResult) -> str:
    numbers = result.arithmetic
    if numbers is None:
        return ""
    text = f"stable ceil({numbers.stable.average:.4g} / {signal.target:.4g}) = {numbers.stable.raw}"
    if numbers.panicking:
        text += f"; panic ceil({numbers.panic.average:.4g} / {signal.target:.4g}) = {numbers.panic.raw}"
    return f"{text}; {', '.join(result.reasons)}"


def _inputs(
    signal: SignalSpec, reading: Reading | None, stable: float | None, panic: float | None
) -> tuple[SignalInput, ...]:
    if reading is None:
        return (SignalInput(signal.name, None, signal.target, Quality.ABSENT, None, stable, panic),)
    return (
        SignalInput(
            signal.name,
            reading.value,
            signal.target,
            reading.quality,
            reading.age_s,
            stable,
            panic,
            reading.pods_fresh,
            reading.pods_expected,
        ),
    )


def _decision(trail: _Trail, current: int, seen: Observation, answer: _Answer | None, now: float) -> ScalingDecision:
    inputs = answer.inputs if answer else ()
    faults: tuple[str, ...] = ()
    if seen.signals:
        everything = [*seen.signals.readings.values(), seen.signals.activity]
        faults = tuple(sorted({f"{fault.pod}: {fault.reason}" for reading in everything for fault in reading.faults}))
    return ScalingDecision(
        at_s=now,
        current=current,
        desired=trail.value,
        rule=trail.rule,
        recommended=answer.desired if answer else None,
        arithmetic=answer.arithmetic if answer else "",
        inputs=inputs,
        adjustments=tuple(trail.adjustments),
        panicking=answer.panicking if answer else False,
        quality=inputs[0].quality if inputs and seen.ready else None,
        faults=faults[:5],
    )
