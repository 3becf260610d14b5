"""Replays recorded decisions of the Knative Pod Autoscaler with the production code.

Every case holds inputs and what Knative's own code answered (tests/data/kpa/README.md). Prints what
agrees, per file and kind, and the first differences; the exit status is 1 below 100 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from autoscaler.scaling import knative_annotations as notes
from autoscaler.scaling import knative_compat as compat
from autoscaler.scaling.knative_config import InvalidKnativeConfig, KnativeConfig, parse_config
from autoscaler.scaling.knative_values import NANOSECONDS
from autoscaler.scaling.kpa import KpaResult, KpaSpec, KpaState, KpaWindows, NoReadyCount, Ready, scale, start
from autoscaler.scaling.windows import (
    Aggregation,
    AverageWindow,
    MaximumWindow,
    milliseconds,
    rounded,
    smoothing_coefficient,
)

DATA: Final = Path(__file__).parent / "data" / "kpa"
SHOWN: Final = 10  # differences printed
WIDTH: Final = 300  # characters of one printed value
POW_TOLERANCE: Final = 1e-9  # relative: what went through pow, which is not correctly rounded anywhere
OLD_REASON: Final = "r"  # the recorder gave this reason to every earlier condition of generated cases

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of ours beside the recorded one."""

    step: str
    expected: object
    got: object
    tolerance: float = 0.0  # relative


@dataclass(frozen=True, slots=True)
class Difference:
    case: str
    step: str
    expected: object
    got: object

    def __str__(self) -> str:
        return f"{self.case}, {self.step}:\n  expected {_shortened(self.expected)}\n  got      {_shortened(self.got)}"


@dataclass(slots=True)
class SetReport:
    """What came of one file."""

    name: str
    passed: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)  # the first one of each failed case

    @property
    def complete(self) -> bool:
        return self.total.total() > 0 and self.passed == self.total


def replay_file(path: Path) -> SetReport:
    """Replays every case of one file of JSON lines (gzip)."""
    report = SetReport(path.name)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            case: Case = json.loads(line)
            difference = first_difference(case)
            report.total[case["kind"]] += 1
            if difference is None:
                report.passed[case["kind"]] += 1
            else:
                report.differences.append(difference)
    return report


def first_difference(case: Case) -> Difference | None:
    """The first answer of ours that is not the recorded one; None if all agree."""
    step = "start"
    try:
        for answer in REPLAYS[case["kind"]](case):
            step = answer.step
            if not _same(answer.expected, answer.got, answer.tolerance):
                return Difference(case["id"], step, answer.expected, answer.got)
    except Exception as error:  # a crash on one case is a difference like any other
        return Difference(case["id"], f"after {step}", "an answer", f"{type(error).__name__}: {error}")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Replays a directory and prints the report; 0 at 100 %, 1 below, 2 if there is nothing to replay."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Replay recorded decisions of the Knative Pod Autoscaler with the production code.",
        epilog="Exit status: 0 = every case agrees, 1 = some do not, 2 = nothing to replay.",
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="directory with *.jsonl.gz (default: %(default)s)"
    )
    parser.add_argument(
        "--show", type=int, default=SHOWN, metavar="N", help="differences to print (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    paths = sorted(options.data.glob("*.jsonl.gz"))
    if not paths:
        print(f"no *.jsonl.gz in {options.data}", file=sys.stderr)
        return 2
    reports = [replay_file(path) for path in paths]
    _print_reports(reports, options.show)
    return 0 if all(report.complete for report in reports) else 1


def _print_reports(reports: Sequence[SetReport], shown: int) -> None:
    for report in reports:
        print(f"{report.name:<20} {report.passed.total():>5}/{report.total.total()}")
        for kind in sorted(report.total):
            print(f"  {kind:<18} {report.passed[kind]:>5}/{report.total[kind]}")
    differences = [difference for report in reports for difference in report.differences]
    if differences:
        print(f"\nfirst differences ({min(shown, len(differences))} of {len(differences)} cases):")
        for difference in differences[:shown]:
            print(difference)
    passed = sum(report.passed.total() for report in reports)
    total = sum(report.total.total() for report in reports)
    print(f"\ntotal {passed}/{total} ({100.0 * passed / total if total else 0.0:.2f} %)")


def _shortened(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


def _same(expected: object, got: object, tolerance: float) -> bool:
    """Equal, where an int equals the same float but never a bool; floats within a relative tolerance."""
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return expected == got or abs(expected - got) <= tolerance * abs(expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(_same, expected, got, [tolerance] * len(got)))
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(_same(expected[key], got[key], tolerance) for key in expected)
    return expected == got


# What the data writes and what the code takes


def _unknown_if_negative(count: int) -> int | None:
    return None if count < 0 else count


def _negative_if_unknown(count: int | None) -> int:
    return -1 if count is None else count


def _ready(count: int | None) -> Ready:
    if count is None:
        return NoReadyCount.UNREADABLE
    return NoReadyCount.NOT_FOUND if count < 0 else count


def _spec(fields: Case) -> KpaSpec:
    given = {key: value for key, value in fields.items() if key != "metric"}
    given["panic_threshold_ratio"] = given.pop("panic_threshold")
    return KpaSpec(**given)


def _panic_state(state: KpaState) -> list[object]:
    return [None if state.panic_at_ms is None else state.panic_at_ms / 1000, state.panic_peak]


def _result(result: KpaResult) -> list[object]:
    return [result.desired or 0, result.excess_burst_capacity or 0, result.valid]


_CONFIG_NAMES: Final = {
    "container_concurrency_target_fraction": "container_concurrency_target_ratio",
    "target_utilization": "rps_target_ratio",
    "panic_window_percentage": "panic_window_percent",
    "panic_threshold_percentage": "panic_threshold_percent",
    "stable_window_s": "stable_window_ns",
    "scale_down_delay_s": "scale_down_delay_ns",
    "scale_to_zero_grace_period_s": "scale_to_zero_grace_period_ns",
    "scale_to_zero_pod_retention_period_s": "scale_to_zero_pod_retention_ns",
}


def _config(differences: Case) -> KnativeConfig:
    """The defaults with the case's differences."""
    ours = {_CONFIG_NAMES.get(name, name): value for name, value in differences.items()}
    return replace(
        KnativeConfig(),
        **{name: round(value * NANOSECONDS) if name.endswith("_ns") else value for name, value in ours.items()},
    )


def _recorded_config(config: KnativeConfig, names: Sequence[str]) -> Case:
    """Our configuration in the data's names and seconds."""
    values = {name: getattr(config, _CONFIG_NAMES.get(name, name)) for name in names}
    return {name: value / NANOSECONDS if name.endswith("_s") else value for name, value in values.items()}


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NANOSECONDS


def _revision(case: Case) -> compat.Revision:
    reachability = notes.Reachability(case["reachability"])
    return compat.Revision(case["annotations"], reachability, case["initialized"], _config(case["config"]))


# The kinds


def _replay_scale(case: Case) -> Iterator[Answer]:
    fields = dict(case["spec"])
    updates: dict[int, Case] = dict(case.get("updates", []))
    forced = {index: (panic_at, pods) for index, panic_at, pods in case.get("set_state", [])}
    state = start(_spec(fields), _ready(case["initial_ready"]), case["created_at"])
    yield Answer("creation", case["expect_initial"], _panic_state(state))
    for index, (at_s, ready, stable, panic) in enumerate(case["steps"]):
        fields |= updates.get(index, {})
        if index in forced:
            panic_at, pods = forced[index]
            state = KpaState(None if panic_at is None else milliseconds(panic_at), pods, state.delay)
        result, state = scale(_spec(fields), state, _ready(ready), stable, panic, at_s)
        yield Answer(f"step {index} at {at_s} s", case["expect"][index], [*_result(result), *_panic_state(state)])


def _replay_pipeline(case: Case) -> Iterator[Answer]:
    """Samples, windows and, in `pipeline` cases, decisions."""
    size = dict(case["windows"])
    windows = _empty_windows(size)
    tolerance = POW_TOLERANCE if size["aggregation"] == Aggregation.WEIGHTED_EXPONENTIAL else 0.0
    fields = dict(case.get("spec", {}))
    state = start(_spec(fields), _ready(case["initial_ready"]), case["created_at"]) if fields else None
    if state is not None:
        yield Answer("creation", case["expect_initial"], _panic_state(state))
    for index, (event, expected) in enumerate(zip(case["events"], case["expect"], strict=True)):
        kind, at_s, *rest = event
        step = f"event {index} at {at_s} s"
        if kind == "r":
            windows = _with_sample(windows, at_s, rest)
        elif kind == "u":
            fields |= rest[0]
        elif kind == "w":
            size |= rest[0]
            windows = _with_size(windows, at_s, size)
        elif kind == "c":
            averages = windows["rps" if rest[0] == "rps" else "concurrency"].averages(at_s)
            yield Answer(step, expected, list(averages or (None, None)), tolerance)
        elif state is not None:
            averages = windows["rps" if fields["metric"] == "rps" else "concurrency"].averages(at_s)
            stable, panic = averages if averages is not None and rest[0] is not None else (None, None)
            result, state = scale(_spec(fields), state, _ready(rest[0]), stable, panic, at_s)
            yield Answer(f"{step}, averages", expected[:2], [stable, panic], tolerance)
            yield Answer(f"{step}, decision", expected[2:], [*_result(result), *_panic_state(state)])


def _empty_windows(size: Case) -> dict[str, KpaWindows]:
    aggregation = Aggregation(size["aggregation"])
    empty = KpaWindows.empty(size["stable_window_s"], size["panic_window_s"], aggregation, size["scraped"])
    return {"concurrency": empty, "rps": empty}


def _with_sample(windows: dict[str, KpaWindows], at_s: float, row: Sequence[float]) -> dict[str, KpaWindows]:
    """What the activator proxied it reports itself, so that part is taken off."""
    sample = compat.Stat(*row)
    return {
        "concurrency": windows["concurrency"].record(at_s, sample.concurrency - sample.proxied_concurrency),
        "rps": windows["rps"].record(at_s, sample.requests - sample.proxied_requests),
    }


def _with_size(windows: dict[str, KpaWindows], at_s: float, size: Case) -> dict[str, KpaWindows]:
    stable_s, panic_s, scraped = size["stable_window_s"], size["panic_window_s"], size["scraped"]
    return {
        name: msgspec.structs.replace(pair.resized(stable_s, panic_s, at_s), scraped=scraped)
        for name, pair in windows.items()
    }


def _replay_buckets(case: Case) -> Iterator[Answer]:
    aggregation = Aggregation(case["aggregation"])
    weighted = aggregation is Aggregation.WEIGHTED_EXPONENTIAL
    window = AverageWindow.empty(case["window_s"], case["granularity_s"], aggregation)
    if "smoothing_coefficient" in case:
        ours = smoothing_coefficient(len(window.values))
        yield Answer("smoothing coefficient", case["smoothing_coefficient"], ours, POW_TOLERANCE)
    for index, (operation, expected) in enumerate(zip(case["ops"], case["expect"], strict=True)):
        kind, at_s, *rest = operation
        if kind == "r":
            window = window.record(at_s, rest[0])
        elif kind == "z":
            window = window.resized(rest[0], at_s)
        else:
            got = [window.average(at_s), window.is_empty(at_s)]
            yield Answer(f"operation {index} at {at_s} s", expected, got, POW_TOLERANCE if weighted else 0.0)


def _replay_max_window(case: Case) -> Iterator[Answer]:
    window = MaximumWindow.empty(case["window_s"], case["granularity_s"])
    for index, ((at_s, value), expected) in enumerate(zip(case["ops"], case["expect"], strict=True)):
        window = window.record(at_s, value)
        yield Answer(f"operation {index} at {at_s} s", expected, window.maximum)


def _replay_decider(case: Case) -> Iterator[Answer]:
    reachability = notes.Reachability(case["reachability"])
    ours = notes.resolve(case["annotations"], case["container_concurrency"], reachability, _config(case["config"]))
    renamed = {"class": "class_name", "panic_threshold": "panic_threshold_ratio"}
    got: Case = {}
    for name in case["expect"]:
        if name.endswith("_s"):
            got[name] = _seconds(getattr(ours, name[:-1] + "ns"))
        else:
            got[name] = getattr(ours, renamed.get(name, name))
    yield Answer("decider", case["expect"], got)


def _annotation(accessor: str, texts: Case) -> object | None:
    """What one of upstream's accessors is for, asked of ours."""
    floats = {
        "Target": notes.TARGET,
        "TargetBC": notes.TARGET_BURST_CAPACITY,
        "PanicWindowPercentage": notes.PANIC_WINDOW,
        "PanicThresholdPercentage": notes.PANIC_THRESHOLD,
    }
    durations = {
        "Window": notes.WINDOW,
        "ScaleDownDelay": notes.SCALE_DOWN_DELAY,
        "ScaleToZeroPodRetention": notes.POD_RETENTION,
        "ProgressDeadline": notes.PROGRESS_DEADLINE,
    }
    integers = {"InitialScale": notes.INITIAL_SCALE, "ActivationScale": notes.ACTIVATION_SCALE}
    if accessor in floats:
        return notes.read_float(texts, floats[accessor])
    if accessor in durations:
        return _seconds(notes.read_duration_ns(texts, durations[accessor]))
    if accessor in integers:
        return notes.read_int(texts, integers[accessor])
    others: dict[str, Callable[[Case], object | None]] = {
        "Class": notes.class_of,
        "Metric": notes.metric_of,
        "TargetUtilization": notes.target_utilization_ratio,
    }
    return others[accessor](texts)


def _replay_annotation(case: Case) -> Iterator[Answer]:
    value = _annotation(case["accessor"], case["annotations"])
    yield Answer(case["accessor"], case["expect"], {"set": value is not None, "value": value})


def _replay_validate(case: Case) -> Iterator[Answer]:
    problems = notes.problems_of(case["annotations"], _config(case["config"]))
    yield Answer("validation", case["expect"]["valid"], not problems)


def _replay_config(case: Case) -> Iterator[Answer]:
    recorded = case["expect"].get("config")
    try:
        config = parse_config(case["data"])
    except InvalidKnativeConfig as error:
        yield Answer("configuration", recorded, None if recorded is None else f"refused: {error}")
        return
    got = "accepted" if recorded is None else _recorded_config(config, list(recorded))
    yield Answer("configuration", recorded, got)


def _replay_scale_target(case: Case) -> Iterator[Answer]:
    active, sks = case["active"], case["sks"]
    outcome = compat.scale_target(
        compat.ScaleTarget(
            revision=_revision(case),
            desired=_unknown_if_negative(case["desired"]),
            active=None if active is None else compat.ActiveStatus(active["status"]),
            active_for_s=0.0 if active is None else active["for_s"],
            service_mode=compat.ServiceMode(sks["mode"]),
            proxy_for_s=sks["proxy_for_s"] or 0.0,
            probe=compat.Probe(case["activator_probe"]),
            current_replicas=case.get("current_replicas", 1),
            progress_deadline_s=case["progress_deadline_s"],
        )
    )
    got = {
        "result": _negative_if_unknown(outcome.result),
        "patched_replicas": outcome.write,
        "requeue_after_s": [] if outcome.requeue_after_s is None else [outcome.requeue_after_s],
        "activator_probes": int(outcome.probed),
        "async_probe_offers": int(outcome.probe_later),
    }
    yield Answer("outcome", case["expect"], got)


def _replay_active(case: Case) -> Iterator[Answer]:
    before = None
    if case["active"] is not None:
        before = compat.ActiveCondition(compat.ActiveStatus(case["active"]["status"]), OLD_REASON)
    want = _unknown_if_negative(case["want"])
    after, initialized = compat.active_condition(_revision(case), before, want, case["ready"], case["service_name"])
    got = {"status": str(after.status), "reason": str(after.reason), "initialized": initialized}
    yield Answer("condition", case["expect"], got)


def _replay_service_mode(case: Case) -> Iterator[Answer]:
    mode = compat.service_mode(_unknown_if_negative(case["want"]), case["excess_burst_capacity"])
    yield Answer("mode", case["expect"]["mode"], str(mode))


def _replay_activators(case: Case) -> Iterator[Answer]:
    names = ("ready", "total_value", "target_burst_capacity", "activator_capacity")
    yield Answer("activators", case["expect"], compat.activator_count(*(case[name] for name in names)))


def _replay_initial_status(case: Case) -> Iterator[Answer]:
    spec = case["spec"]
    burst = compat.initial_excess_burst_capacity(
        spec["target_burst_capacity"], spec["total_value"], spec["initial_scale"]
    )
    yield Answer("status", case["expect"], {"desired": _negative_if_unknown(None), "ebc": burst})


def _replay_status_update(case: Case) -> Iterator[Answer]:
    before, after = _unknown_if_negative(case["desired_before"]), _unknown_if_negative(case["desired"])
    notify = compat.must_notify(before, case["ebc_before"], after, case["ebc"])
    yield Answer("notification", case["expect"]["notify"], notify)


def _replay_sample_size(case: Case) -> Iterator[Answer]:
    yield Answer("size", case["expect"], compat.sample_size(case["population"]))


def _replay_stat_average(case: Case) -> Iterator[Answer]:
    stats = [compat.Stat(*row) for row in case["stats"]]
    yield Answer("average", case["expect"], list(compat.averaged(stats, case["sample"], case["total"])))


def _replay_round(case: Case) -> Iterator[Answer]:
    yield Answer("rounded", case["expect"], rounded(case["value"], case["digits"]))


def _replay_smoothing(case: Case) -> Iterator[Answer]:
    yield Answer("coefficient", case["expect"], smoothing_coefficient(case["buckets"]), POW_TOLERANCE)


REPLAYS: Final[dict[str, Callable[[Case], Iterator[Answer]]]] = {
    "scale": _replay_scale,
    "pipeline": _replay_pipeline,
    "collector": _replay_pipeline,
    "buckets": _replay_buckets,
    "max_window": _replay_max_window,
    "decider": _replay_decider,
    "annotation": _replay_annotation,
    "validate": _replay_validate,
    "config": _replay_config,
    "scale_target": _replay_scale_target,
    "active": _replay_active,
    "sks_mode": _replay_service_mode,
    "num_activators": _replay_activators,
    "initial_status": _replay_initial_status,
    "status_update": _replay_status_update,
    "sample_size": _replay_sample_size,
    "stat_average": _replay_stat_average,
    "round": _replay_round,
    "smoothing": _replay_smoothing,
}


if __name__ == "__main__":
    raise SystemExit(main())
