"""What the policy remembers of a signal is of that quantity alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.signal import Quality, Reading, Sample, Shape, SignalSpec, WorkloadSignals
from autoscaler.model.workload import ScalingSpec
from autoscaler.scaling.policy import ask

SIGNAL = SignalSpec("pending", 10.0, 10.0, query=Shape.TOTAL)


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        (replace(SIGNAL, query=Shape.LEVEL), True),
        (replace(SIGNAL, query=None, stands_for="kv-cache"), True),
        (replace(SIGNAL, threshold=20.0, target=20.0), False),
    ],
    ids=["another shape", "another signal of the name", "another threshold"],
)
def test_windows_begin_anew_where_a_name_means_something_else(changed: SignalSpec, anew: bool) -> None:
    scaling = ScalingSpec(1, 100, 1, 1, SIGNAL)
    samples = tuple(Sample(float(at), 40.0) for at in range(100, 116))
    activity = Reading("activity", 1.0, Quality.FRESH)
    reading = Reading("pending", 40.0, Quality.FRESH, samples, 0.5, 2, 2)
    state, _ = ask(scaling, SIGNAL, None, WorkloadSignals({"pending": reading}, activity), 2, 116.0)
    assert state.trusted_since is not None
    nothing = WorkloadSignals({"pending": replace(reading, samples=())}, activity)
    _, answer = ask(scaling, changed, state, nothing, 2, 116.0)
    assert (answer.read.desired is None) is anew
