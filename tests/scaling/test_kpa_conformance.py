"""The production code answers every recorded case of Knative's autoscaler as Knative did."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoscaler.scaling import knative_annotations, knative_compat
from autoscaler.scaling.knative_config import InvalidKnativeConfig, KnativeConfig, parse_config
from autoscaler.scaling.knative_values import parse_bool, parse_duration_ns, parse_float, parse_int
from tests.conformance import DATA, main, replay_file


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("pipeline.jsonl.gz", 60),
        ("scale.jsonl.gz", 140),
        ("tables.jsonl.gz", 2897),
        ("upstream.jsonl.gz", 575),
        ("windows.jsonl.gz", 150),
    ],
)
def test_every_case_of_the_file_agrees(name: str, cases: int) -> None:
    report = replay_file(DATA / name)
    assert [str(difference) for difference in report.differences] == []
    assert report.total.total() == cases
    assert report.complete


def _first_case(name: str, kind: str) -> dict[str, Any]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        cases = (json.loads(line) for line in lines if line.strip())
        found: dict[str, Any] = next(case for case in cases if case["kind"] == kind)
        return found


def _store(directory: Path, *cases: dict[str, Any]) -> None:
    with gzip.open(directory / "one.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(case) + "\n" for case in cases)


def _other_number(case: dict[str, Any]) -> None:
    case["expect"][3][0] += 1


def _flag_as_number(case: dict[str, Any]) -> None:
    case["expect"][3][2] = 1  # true


def _nearly_the_same_average(case: dict[str, Any]) -> None:
    index = next(index for index, answer in enumerate(case["expect"]) if answer and answer[0])
    case["expect"][index][0] += 0.000001


def _missing_answer(case: dict[str, Any]) -> None:
    case["expect"].pop()


def _unknown_kind(case: dict[str, Any]) -> None:
    case["kind"] = "future"


@pytest.mark.parametrize(
    ("name", "kind", "corrupt", "printed"),
    [
        ("scale.jsonl.gz", "scale", _other_number, "step 3"),
        ("scale.jsonl.gz", "scale", _flag_as_number, "step 3"),
        ("scale.jsonl.gz", "scale", _missing_answer, "IndexError"),
        ("windows.jsonl.gz", "buckets", _nearly_the_same_average, "operation"),
        ("windows.jsonl.gz", "buckets", _missing_answer, "ValueError"),
        ("tables.jsonl.gz", "decider", _unknown_kind, "KeyError"),
    ],
)
def test_a_corrupted_case_fails_the_run_and_is_printed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
    corrupt: Callable[[dict[str, Any]], None],
    printed: str,
) -> None:
    sound, broken = _first_case(name, kind), _first_case(name, kind)
    corrupt(broken)
    _store(tmp_path, sound, broken)

    assert main(["--data", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "total 1/2 (50.00 %)" in output
    assert f"{broken['id']}, " in output
    assert printed in output


def test_only_the_first_differences_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = _first_case("scale.jsonl.gz", "scale")
    _other_number(case)
    _store(tmp_path, *(case | {"id": f"case-{number}"} for number in range(5)))

    assert main(["--data", str(tmp_path), "--show", "2"]) == 1
    output = capsys.readouterr().out
    assert "first differences (2 of 5 cases)" in output
    assert "case-1" in output
    assert "case-2" not in output


def test_a_sound_directory_ends_with_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _store(tmp_path, _first_case("scale.jsonl.gz", "scale"))
    assert main(["--data", str(tmp_path)]) == 0
    assert "total 1/1 (100.00 %)" in capsys.readouterr().out


def test_an_empty_directory_is_not_a_success(tmp_path: Path) -> None:
    assert main(["--data", str(tmp_path)]) == 2


# What the recorded cases leave open: texts that Go reads, and numbers that Python would stumble over


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1_000.5e1_0", 10005000000000.0),
        ("0x_1.8p1", 3.0),
        ("-Infinity", float("-inf")),
        ("1__0", None),
        ("_1", None),
        ("1_.5", None),
        ("+nan", None),
        ("0x1p99999", None),
        ("", None),
        (".", None),
        ("1e", None),
        ("\u0661", None),
    ],
)
def test_floats_are_read_as_go_reads_them(text: str, value: float | None) -> None:
    assert parse_float(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2147483648", -2147483648),
        ("-2147483649", None),
        ("0000000000000000000000007", 7),
        ("9" * 5000, None),
        ("+", None),
        ("1\n", None),
    ],
)
def test_integers_are_read_as_go_reads_them(text: str, value: int | None) -> None:
    assert parse_int(text) == value


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("+0", 0),
        ("1h2m3.5s", 3723500000000),
        ("1.0000000009s", 1000000000),
        ("1\u03bcs", 1000),
        ("-2562047h47m16.854775808s", -9223372036854775808),
        ("2562047h47m16.854775808s", None),
        ("9" * 5000 + "s", None),
        ("", None),
        ("-", None),
        ("s", None),
        (".s", None),
        ("1s ", None),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, nanoseconds: int | None) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize(("text", "value"), [("T", True), ("False", False), ("tRUE", None), (" true", None)])
def test_switches_are_read_as_go_reads_them(text: str, value: bool | None) -> None:
    assert parse_bool(text) is value


def test_an_infinite_target_is_legal_in_knative_and_stops_nothing() -> None:
    infinite = {"autoscaling.knative.dev/target": "inf", "autoscaling.knative.dev/panic-window-percentage": "inf"}
    reachable = knative_annotations.Reachability.REACHABLE
    decider = knative_annotations.resolve(infinite, 0, reachable, KnativeConfig())
    assert (decider.total_value, decider.panic_window_ns) == (float("inf"), 1_000_000_000)
    assert knative_compat.activator_count(3, decider.total_value, 0.5, 100.0) == 2147483647
    assert knative_compat.initial_excess_burst_capacity(211.0, decider.total_value, 0) == 0


def test_a_configuration_is_refused_with_every_problem_at_once() -> None:
    with pytest.raises(InvalidKnativeConfig) as refusal:
        parse_config({"stable-window": "5s", "max-scale-up-rate": "1", "min-scale": "-1"})
    assert str(refusal.value).splitlines() == [
        "max-scale-up-rate is 1, must be above 1",
        "stable-window is 5 s, must be in [6, 3600] s",
        "min-scale is -1, must be at least 0",
    ]


def test_annotations_are_refused_with_every_problem_at_once() -> None:
    annotations = {"autoscaling.knative.dev/minScale": "x", "autoscaling.knative.dev/window": "1d"}
    assert knative_annotations.problems_of(annotations, KnativeConfig()) == (
        "autoscaling.knative.dev/minScale is 'x', must be a whole number in [0, 2147483647]",
        "autoscaling.knative.dev/window is '1d', must be whole seconds in [6s, 1h]",
    )
