"""One signal's way to a replica count: its windows, its memory, and what the policy says of them.

Knows nothing of other signals, guards and bounds: `decision` puts the answers together. Reads no clock and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from autoscaler.model.decision import SignalInput
from autoscaler.model.signal import Quality, Reading, Sample, Shape, SignalSpec, WorkloadSignals
from autoscaler.model.workload import KpaParameters, ScalingSpec
from autoscaler.scaling import cliffs, kpa

SAMPLE_IS_NEW_S: Final = 2.0  # samples come once a second


class PolicyState(msgspec.Struct, frozen=True):
    """Windows and memory of the policy for one signal."""

    signal: SignalSpec
    windows: kpa.KpaWindows
    memory: kpa.KpaState
    delay_s: float  # that the memory was made for
    last_sample_at: float | None = None
    last_value: float = 0.0  # as recorded then
    trusted_since: float | None = None  # every ready pod fresh and no hole since then
    ready: int = 0  # at the last decision
    fewer_since: float | None = None  # when that number last became smaller


class Answer(msgspec.Struct, frozen=True):
    """The policy's answer for one signal. The count is `read.desired`; None: nothing to go by."""

    read: SignalInput
    panicking: bool
    held_until: float | None = None  # the policy's memory alone keeps the count up until then, Unix seconds


def ask(
    scaling: ScalingSpec,
    signal: SignalSpec,
    state: PolicyState | None,
    signals: WorkloadSignals | None,
    ready: int,
    now: float,
) -> tuple[PolicyState, Answer]:
    """Feeds the new samples into the windows and asks the policy."""
    reading = signals.readings.get(signal.name) if signals else None
    kept = None if _clock_set_back(state, reading) else state
    fitted = _fitted(scaling, signal, kept, ready, now)
    windows, last, value, since = _recorded(fitted, reading, ready)
    averages = windows.averages(_as_of(last, now))
    stable, panic = averages if averages else (None, None)
    fewer_since = now if ready < fitted.ready else fitted.fewer_since
    samples = reading.samples if reading and not _took_over(scaling, fewer_since, now) else ()
    demand = cliffs.demand(signal, averages, samples, ready, now) if averages else None
    fed = demand.value if demand else None
    wanted = _kpa_spec(scaling, signal)
    result, memory = kpa.scale(wanted, fitted.memory, ready, fed, panic, now)
    read = SignalInput(
        name=signal.name,
        value=reading.value if reading else None,
        target=signal.target,
        quality=reading.quality if reading else Quality.ABSENT,
        age_s=reading.age_s if reading else None,
        stable=stable,
        panic=panic,
        pods_fresh=reading.pods_fresh if reading else 0,
        pods_expected=reading.pods_expected if reading else 0,
        direction=signal.direction,
        desired=result.desired,
        arithmetic=_arithmetic(signal, result, demand.origin if demand else ""),
    )
    known = PolicyState(fitted.signal, windows, memory, fitted.delay_s, last, value, since, ready, fewer_since)
    return known, Answer(read, memory.panicking, kpa.held_until(wanted, memory, result))


def _clock_set_back(state: PolicyState | None, reading: Reading | None) -> bool:
    """Do the samples come from before those in the windows? Then the windows begin anew, which holds the count."""
    if state is None or state.last_sample_at is None or reading is None or not reading.samples:
        return False
    return reading.samples[-1].at_s < state.last_sample_at - SAMPLE_IS_NEW_S


def _took_over(scaling: ScalingSpec, fewer_since: float | None, now: float) -> bool:
    """Has a replica left lately? The others take over what it carried: their levels rise, and that is no growth."""
    return fewer_since is not None and now - fewer_since < scaling.kpa.stable_window_s


def _as_of(last: float | None, now: float) -> float:
    """When to read the windows: at the newest sample, as long as it is one.

    Samples come on whole seconds and a tick may fall just before one. Reading at the tick's own time would then find
    the present bucket empty, and a panic window of one bucket would never see anything.
    """
    return last if last is not None and now - last < SAMPLE_IS_NEW_S else now


def _kpa_spec(scaling: ScalingSpec, signal: SignalSpec) -> kpa.KpaSpec:
    activation = scaling.activation_replicas if scaling.min_replicas == 0 else 0
    return _remembered_spec(scaling.kpa, signal.target, signal.threshold, cliffs.delay_s(signal, scaling), activation)


@lru_cache(maxsize=4096)
def _remembered_spec(
    parameters: KpaParameters, target: float, threshold: float, delay_s: float, activation: int
) -> kpa.KpaSpec:
    return kpa.KpaSpec(
        target_value=target,
        total_value=threshold,
        max_scale_up_rate=parameters.max_scale_up_rate,
        max_scale_down_rate=parameters.max_scale_down_rate,
        target_burst_capacity=0.0,  # there is no activator in the request path
        panic_threshold_ratio=parameters.panic_threshold_ratio,
        stable_window_s=parameters.stable_window_s,
        scale_down_delay_s=delay_s,
        activation_scale=activation,
    )


def _fitted(scaling: ScalingSpec, signal: SignalSpec, state: PolicyState | None, ready: int, now: float) -> PolicyState:
    """The state for these parameters: made anew for another signal, resized for other windows."""
    stable_s = scaling.kpa.stable_window_s
    panic_s = max(1.0, float(int(stable_s * scaling.kpa.panic_window_percent / 100 + 0.5)))
    delay_s = cliffs.delay_s(signal, scaling)
    if state is None or (signal is not state.signal and _measured(state.signal) != _measured(signal)):
        memory = kpa.start(_kpa_spec(scaling, signal), ready, now)
        return PolicyState(signal, kpa.KpaWindows.empty(stable_s, panic_s), memory, delay_s)
    if state.delay_s != delay_s:
        delay = kpa.start(_kpa_spec(scaling, signal), ready, now).delay
        state = replace(state, memory=replace(state.memory, delay=delay), delay_s=delay_s)
    windows = state.windows.resized(stable_s, panic_s, now)
    same = windows is state.windows and (signal is state.signal or signal == state.signal)
    return state if same else replace(state, signal=signal, windows=windows)


def _measured(signal: SignalSpec) -> tuple[str, str, Shape]:
    """What the windows hold: under one name an operator may put another query, and an author another signal."""
    return signal.name, signal.signal, signal.shape


def _recorded(
    state: PolicyState, reading: Reading | None, ready: int
) -> tuple[kpa.KpaWindows, float | None, float, float | None]:
    """(windows with the new samples, time and value of the newest, trusted since). A level counts once per replica.

    Also keeps how long the windows have held nothing but the truth: a hole reads as zeros, and samples without some
    pod's share read low, for as long as they are in the window.
    """
    if reading is None or reading.quality is Quality.ABSENT:
        return state.windows, state.last_sample_at, state.last_value, None
    windows, last, since = state.windows, state.last_sample_at, state.trusted_since
    value = state.last_value
    factor = ready if state.signal.shape is Shape.LEVEL else 1
    for sample in _newer(reading.samples, last):
        if last is not None and 1.0 < sample.at_s - last <= cliffs.GAP_S:
            windows = windows.record(last + 1.0, value)  # a second that we slept through is not one of nothing
        since = None if last is not None and sample.at_s - last > cliffs.GAP_S else since
        last, value = sample.at_s, sample.value * factor
        windows = windows.record(last, value)
    whole = reading.quality is Quality.FRESH and reading.pods_expected >= ready
    since = (last if since is None else since) if whole else None
    return windows, last, value, since


def _newer(samples: Sequence[Sample], than: float | None) -> Sequence[Sample]:
    """Times rise, and of many samples the last one or two are new."""
    first = len(samples)
    while first and (than is None or samples[first - 1].at_s > than):
        first -= 1
    return samples[first:]


def _arithmetic(signal: SignalSpec, result: kpa.KpaResult, origin: str) -> str:
    numbers = result.arithmetic
    if numbers is None:
        return ""
    text = f"{origin} ceil({numbers.stable.average:.4g} / {signal.target:.4g}) = {numbers.stable.raw}"
    if numbers.panicking:
        text += f"; panic ceil({numbers.panic.average:.4g} / {signal.target:.4g}) = {numbers.panic.raw}"
    return f"{text}; {', '.join(result.reasons)}"
