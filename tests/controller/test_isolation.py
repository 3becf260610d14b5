"""One odd object stops nobody else: what our own code cannot work on is left alone and said so."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from structlog.testing import capture_logs

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.status import record_of
from autoscaler.controller.backoff import BackOff
from autoscaler.controller.reporting import Trouble
from autoscaler.controller.specs import Operator, Unresolved, resolve
from autoscaler.controller.steps import Fences, step_of
from autoscaler.model.workload import WorkloadKey
from rollouts.commands import HaveReplicas
from rollouts.machine import Step
from rollouts.record import Phase, Record, Rollout
from tests.controller.test_conflicts import NOW, snapshot
from tests.controller.test_quotas import TWELVE, of_team, shared, with_update

KEY = WorkloadKey("ml", "llama")
TROUBLE = Trouble("TemplateInvalid", "no")


def stored(threshold: str = "10", gpus: str = "1", phase: str = "Complete") -> InferenceWorkload:
    template = {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": gpus}}}]}}
    body = {
        "metadata": {"name": "llama", "namespace": "ml", "uid": "u"},
        "spec": {
            "serving": {"port": 8000, "deployment": {"template": template}},
            "autoscaling": {"maxReplicas": 4, "metric": "latency", "metricThreshold": threshold},
        },
        "status": {"currentRevision": "llama-1", "record": {"phase": phase, "servedAt": "2026-01-01T00:00:00Z"}},
    }
    return msgspec.convert(body, InferenceWorkload)


@pytest.mark.parametrize(("threshold", "gpus"), [("1e999", "1"), ("5e-324", "1"), ("10", "1e400")])
def test_numbers_out_of_all_range_are_told_and_not_raised(threshold: str, gpus: str) -> None:
    assert isinstance(resolve(stored(threshold, gpus), Operator()), Unresolved)


def test_a_phase_of_a_newer_version_reads_as_complete_where_it_served() -> None:
    assert record_of(stored(phase="Queued")).phase is Phase.COMPLETE


def step(replicas: int) -> Step:
    return Step(Record(), (HaveReplicas("llama-1", replicas, 1),))


def test_a_step_that_fails_waits_twice_as_long_each_time_up_to_five_minutes() -> None:
    back_off, now, waits = BackOff(), 0.0, []
    for _ in range(10):
        back_off.failed(KEY, step(2), TROUBLE, now)
        wait = next(s for s in range(1000) if back_off.held(KEY, step(2), now + s) is None)
        waits.append(wait)
        now += wait
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_another_step_is_tried_at_once_and_success_forgets() -> None:
    back_off = BackOff()
    back_off.failed(KEY, step(2), TROUBLE, 0.0)
    assert back_off.held(KEY, step(2), 1.0) == TROUBLE
    assert back_off.held(KEY, step(3), 1.0) is None
    back_off.succeeded(KEY)
    assert back_off.held(KEY, step(2), 1.0) is None


def test_the_servers_wish_to_wait_is_kept() -> None:
    back_off = BackOff()
    back_off.failed(KEY, step(2), TROUBLE, 0.0, retry_after_s=30.0)
    assert back_off.held(KEY, step(2), 29.0) == TROUBLE


def test_a_conflict_is_trouble_only_when_it_happens_every_time() -> None:
    back_off = BackOff()
    assert [back_off.overtaken(KEY, "x") is None for _ in range(10)] == [True] * 9 + [False]


def test_an_update_whose_record_makes_no_sense_is_left_as_it_is_and_the_others_go_on() -> None:
    """Superseded from a phase that no update is superseded from: a bug of ours, wherever it may have come from."""
    odd = with_update(of_team(replicas=3), 8)
    odd = replace(odd, record=replace(odd.record, rollout=Rollout("chat-3", NOW, NOW, NOW, phase=Phase.COMPLETE)))
    shares = shared(snapshot(odd, of_team("other", 2)), {"other": 5}, TWELVE)
    assert shares.verdicts == {}
    assert shares.grants[WorkloadKey("ml", "other")].granted == 5
    frozen = step_of(odd, 3, Fences(1), NOW)
    assert (frozen.record, frozen.commands) == (odd.stored, ())
    assert frozen.broken is not None
    assert "IllegalMove" in frozen.broken.detail
    with capture_logs() as told:
        assert step_of(odd, 3, Fences(1), NOW, before=frozen) == frozen
        assert told == [], "the log has it from the cycle before"
        step_of(odd, 3, Fences(1), NOW, before=Step(odd.stored))
    assert [each["event"] for each in told] == ["step.undecided"]
