"""Puts kept values through the policy, second by second, so that a new process goes on where the old one was.

Only the policies' state comes of it: windows, panic, delay, and since when the windows hold nothing but the truth. The
retention clock does not, because nobody kept what the activation page said. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from autoscaler.model.past import Moment
from autoscaler.model.signal import Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import ScalingSpec
from autoscaler.scaling.policy import PolicyState, ask

_NO_ACTIVITY = Reading("", None, Quality.ABSENT)


def wanted_s(scaling: ScalingSpec) -> float:
    """How much of the past makes the state that of a process that always ran: in the first stable window it is in
    panic, in the second it leaves it, and what the delay holds on to goes back further."""
    return 2 * scaling.kpa.stable_window_s + scaling.scale_down_delay_s


def warmed(scaling: ScalingSpec, past: Sequence[Moment]) -> tuple[PolicyState, ...]:
    """The policies' states after these moments, which follow each other in time; () where there is none."""
    if not past:
        return ()
    return tuple(_through(scaling, signal, past) for signal in scaling.signals)


def _through(scaling: ScalingSpec, signal: SignalSpec, past: Sequence[Moment]) -> PolicyState:
    state: PolicyState | None = None
    for moment in past:
        signals = WorkloadSignals({signal.name: _reading(signal.name, moment)}, _NO_ACTIVITY)
        state, _ = ask(scaling, signal, state, signals, moment.ready, moment.at_s)
    assert state is not None
    return _held(scaling, state, past)


def _reading(name: str, moment: Moment) -> Reading:
    value = moment.values.get(name)
    if value is None:
        return Reading(name, None, Quality.ABSENT, pods_expected=moment.ready)
    quality = Quality.FRESH if name in moment.whole else Quality.PARTIAL
    return Reading(name, value, quality, (Sample(moment.at_s, value),), pods_expected=moment.ready)


def _held(scaling: ScalingSpec, state: PolicyState, past: Sequence[Moment]) -> PolicyState:
    """What may have begun before the first moment holds what is there now: a panic that lasts, and a delay that reaches
    back further than what was kept."""
    memory, last = state.memory, past[-1]
    if memory.panicking:
        memory = replace(memory, panic_peak=max(memory.panic_peak, last.ready))
    known_s = last.at_s - past[0].at_s - scaling.kpa.stable_window_s
    if memory.delay is not None and known_s < scaling.scale_down_delay_s:
        memory = replace(memory, delay=memory.delay.record(last.at_s, last.ready))
    return replace(state, memory=memory)
