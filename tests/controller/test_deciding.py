"""The memory of decisions over an update: the windows of the update are its own, and go with it when it takes over."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.controller.deciding import Memory, decide_all
from autoscaler.controller.subject import Coming, Subject
from autoscaler.model.signal import Quality, Reading, Sample, WorkloadSignals
from autoscaler.model.workload import WorkloadKey
from rollouts.record import Phase, Rollout
from tests.controller.test_conflicts import KEY, NOW, snapshot, subject

UPDATE = "chat-2"


def signals(load: float, at_s: float) -> WorkloadSignals:
    reading = Reading("concurrency", load, Quality.FRESH, (Sample(at_s, load),), 0.5, 2, 2)
    return WorkloadSignals({"concurrency": reading}, reading)


def seen(at_s: float, coming_load: float | None) -> Subject:
    """The current revision carries 10 requests, the update this many."""
    base = subject()
    base = replace(base, observation=replace(base.observation, signals=signals(10.0, at_s)))
    if coming_load is None:
        return base
    rollout = Rollout(UPDATE, 0.0, 1e9, 0.0, Phase.SHIFTING, weight=50, verified=50, served=True, pool="default")
    observation = replace(base.observation, signals=signals(coming_load, at_s))
    record = replace(base.record, rollout=rollout)
    return replace(base, record=record, coming=Coming(base.spec, observation))


def after(seconds: int, coming_load: float) -> dict[WorkloadKey, Memory]:
    memory: dict[WorkloadKey, Memory] = {}
    for second in range(seconds):
        at_s = NOW + second
        found = decide_all(snapshot(seen(at_s, coming_load), at_s=at_s), memory, {})
        memory = dict(found.memory)
    return memory


def test_each_revision_is_decided_on_by_its_own_load() -> None:
    found = decide_all(snapshot(seen(NOW, 55.0)), {}, {})
    assert found.of_current[KEY].inputs[0].value == 10.0
    assert found.of_coming[KEY].inputs[0].value == 55.0


def test_the_updates_windows_become_the_current_ones() -> None:
    memory = after(70, 55.0)
    current, coming = memory[KEY].scaling, memory[KEY].coming
    assert coming is not None
    assert coming[0] == UPDATE
    takes_over = seen(NOW + 70, None)
    takes_over = replace(takes_over, record=replace(takes_over.record, current=UPDATE))
    found = decide_all(snapshot(takes_over, at_s=NOW + 70), memory, {})
    kept = found.memory[KEY]
    assert (kept.revision, kept.coming) == (UPDATE, None)
    stable = found.of_current[KEY].inputs[0].stable
    assert stable is not None
    assert stable > 50, "its last minute, not that of the one before"
    assert kept.scaling != current


def test_another_update_begins_with_windows_of_its_own() -> None:
    memory = after(70, 55.0)
    other = seen(NOW + 70, 5.0)
    assert other.record.rollout is not None
    other = replace(other, record=replace(other.record, rollout=replace(other.record.rollout, revision="chat-3")))
    found = decide_all(snapshot(other, at_s=NOW + 70), memory, {})
    assert found.of_coming[KEY].inputs[0].stable == 5.0


def test_of_a_revision_that_nobody_knows_nothing_is_remembered() -> None:
    memory = after(3, 55.0)
    gone = seen(NOW + 3, None)
    gone = replace(gone, record=replace(gone.record, current="chat-9"))
    found = decide_all(snapshot(gone, at_s=NOW + 3), memory, {})
    assert found.of_current[KEY].inputs[0].stable == 10.0
