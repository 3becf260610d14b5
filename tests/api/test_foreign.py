"""The series under others' names, made from the report: those that have a value, and no line of those without one."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.api.board import Board, Leader, Totals
from autoscaler.api.exposition import families, render
from autoscaler.model.foreign import FOREIGN_SERIES, Measure
from autoscaler.model.report import CycleReport, WorkloadReport
from autoscaler.model.workload import WorkloadKey

LISTED = {  # as the guides list them
    "inference_request_count",
    "inference_request_latency",
    "inference_throughput",
    "inference_active_requests",
    "gpu_utilization",
    "gpu_memory_used",
    "replica_count",
}
MOST_SERIES = 9  # of a workload
ORDER = ("namespace", "workload", "quantile")


def page(**measures: dict[Measure, float]) -> str:
    """The page of workloads with these measures."""
    totals = Totals({}, "api", {}, 0.0, 1.0, 0)
    board = Board(2.0, lambda: 0.0, lambda: True, Leader, lambda: totals, "0.0.0")
    keys = {name: WorkloadKey("ml", name) for name in measures}
    board.take(
        CycleReport(
            1.0,
            workloads={
                key: WorkloadReport(key, "Running", "", "Auto", measures=measures[name]) for name, key in keys.items()
            },
        )
    )
    return render(families(board)).decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, namespace, workload, quantile) -> value."""
    return {
        (sample.name, *(sample.labels[each] for each in ORDER if each in sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in LISTED
    }


def test_the_seven_names_of_the_guides_are_there_in_nine_series() -> None:
    shown = samples(page(llama={measure: float(number) for number, measure in enumerate(Measure)}))
    assert {name for name, *_ in shown} == LISTED
    assert len(shown) == len(Measure) == MOST_SERIES
    assert shown["inference_request_count", "ml", "llama"] == 0.0
    assert {key[3]: value for key, value in shown.items() if key[0] == "inference_request_latency"} == {
        "0.5": 1.0,
        "0.95": 2.0,
        "0.99": 3.0,
    }
    assert shown["replica_count", "ml", "llama"] == 8.0


@pytest.mark.parametrize("measure", Measure, ids=lambda measure: measure.name)
def test_what_nobody_measured_has_no_line_not_even_a_type(measure: Measure) -> None:
    text = page(llama={each: 1.0 for each in Measure if each is not measure})
    name = FOREIGN_SERIES[measure].name
    others = [each for each, series in FOREIGN_SERIES.items() if series.name == name and each is not measure]
    assert len([key for key in samples(text) if key[0] == name]) == len(others)
    assert (f"# TYPE {name} " in text) is bool(others)


def test_a_value_of_one_workload_gives_none_to_another() -> None:
    shown = samples(page(busy={Measure.ACTIVE: 4.0}, blind={}, idle={Measure.ACTIVE: 0.0}))
    assert shown == {
        ("inference_active_requests", "ml", "busy"): 4.0,
        ("inference_active_requests", "ml", "idle"): 0.0,
    }


def test_a_report_without_measures_has_none_of_the_names() -> None:
    assert not [name for name in LISTED if name in page(llama={})]
