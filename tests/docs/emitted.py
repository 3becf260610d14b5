"""What the daemon can show, found in the code: conditions with their reasons, events, and the metrics of one page."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.api.board import Board, Leader, Totals
from autoscaler.api.exposition import families, render
from autoscaler.controller import events
from autoscaler.model.decision import Grant, Rule, ScalingDecision, SignalInput
from autoscaler.model.foreign import Measure
from autoscaler.model.report import (
    ConditionReport,
    Counts,
    CycleReport,
    QuotaReport,
    Status,
    UpdateReport,
    WorkloadReport,
)
from autoscaler.model.resources import GPU
from autoscaler.model.signal import Quality, SignalSpec
from autoscaler.model.workload import (
    DesiredPhase,
    Engine,
    Mode,
    Priority,
    Protocol,
    ScalingSpec,
    ServingSpec,
    WorkloadKey,
    WorkloadSpec,
)

ROOT = Path(__file__).parents[2]
CONTROLLER = ROOT / "autoscaler" / "controller"
KEY = WorkloadKey("ml-team", "llama")
# call -> positions of the condition's type and of its reasons
_SAYS: dict[str, tuple[int, tuple[int, ...]]] = {
    "ConditionReport": (0, (2,)),
    "_flag": (0, (2, 4)),
    "_Wrong": (0, (1,)),
    "Unresolved": (0, (1,)),
    "Trouble": (0, ()),
}


_OF_STALLED = frozenset({"ServiceUnusable", "RouteUnusable", "Frozen"})  # troubles that are reasons of that condition


@cache
def _calls(*modules: str) -> tuple[ast.Call, ...]:
    trees = [ast.parse((CONTROLLER / f"{module}.py").read_text()) for module in modules]
    return tuple(node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _texts(node: ast.expr) -> Iterator[str]:
    """The texts that an argument can be: a literal, or either side of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def conditions() -> dict[str, set[str]]:
    """Type -> the reasons that stand in the code as texts. Reasons that are phases or rules are not among them."""
    found: dict[str, set[str]] = {kind: set() for kind in _of_errors()}
    for call in _calls("conditions", "reporting", "specs", "cycle", "snapshot"):
        if _name(call) not in _SAYS or not call.args:
            continue
        at, reasons = _SAYS[_name(call)]
        for kind in _texts(call.args[at]):
            texts = found.setdefault(kind, set())
            texts |= {text for place in reasons if place < len(call.args) for text in _texts(call.args[place])}
    return {kind: reasons for kind, reasons in found.items() if kind not in _OF_STALLED}


def _of_errors() -> set[str]:
    """Conditions that errors of the API server turn into."""
    told = {text for call in _calls("backoff") if _name(call) == "Trouble" for text in _texts(call.args[0])}
    return told - _OF_STALLED


def event_reasons() -> dict[str, bool]:
    """Reason -> is it a warning."""
    found = dict(events._EDGES.values())
    for call in _calls("events", "reporting", "updates"):
        if _name(call) == "EventReport":
            named = [each.value for each in call.keywords if each.arg == "warning"]
            warning = any(isinstance(each, ast.Constant) and each.value is True for each in (*call.args[2:], *named))
            found |= dict.fromkeys(_texts(call.args[0]), warning)
    return found


def metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> (type, labels), from a page with one workload that has everything."""
    found = {}
    for family in text_string_to_metric_families(render(families(_board())).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.samples, f"the report of this test gives {name} no sample, so its labels stay unknown"
        found[name] = (family.type, tuple(sorted(family.samples[0].labels)))
    return found


def _board() -> Board:
    totals = Totals({("GET", "200"): 1}, "api", {"ok": 1}, 0.1, 1.0, 0, answers={"ok": 1})
    board = Board(2.0, lambda: 0.0, lambda: True, lambda: Leader("tidegate", "pod", 1), lambda: totals, "0.0.0")
    board.take(CycleReport(1.0, workloads={KEY: _workload()}, quota=(QuotaReport("ml-team", "default", GPU, 12, 2),)))
    return board


def _workload() -> WorkloadReport:
    signal = SignalInput("concurrency", 12.0, 7.0, Quality.FRESH, 0.5)
    return WorkloadReport(
        key=KEY,
        phase="Running",
        phase_message="",
        scaling_mode="Auto",
        conditions=(ConditionReport("ScalingLimited", Status.TRUE, "QuotaLimited"),),
        counts=Counts(ready=1),
        revision="llama-01234567",
        spec=workload_spec(ScalingSpec(1, 8, 1, 1, SignalSpec("concurrency", 10.0, 7.0))),
        decision=ScalingDecision(1.0, 1, 2, Rule.POLICY, 2, inputs=(signal,)),
        grant=Grant(KEY, 2, 2),
        scaled=(1, 2),
        measures=dict.fromkeys(Measure, 1.0),
        updating=UpdateReport("Starting", None, 1, {"llama-01234567": 100}, 8.0, "Promoted", 60.0),
    )


def workload_spec(scaling: ScalingSpec) -> WorkloadSpec:
    """A workload of one GPU a replica."""
    return WorkloadSpec(
        key=KEY,
        uid="u",
        generation=1,
        created_at=0.0,
        desired_phase=DesiredPhase.RUNNING,
        mode=Mode.ACTIVE,
        project="ml-team",
        node_pool="default",
        priority=Priority.HIGH,
        serving=ServingSpec(8000, Protocol.HTTP, 8000, "/metrics", Engine.VLLM),
        scaling=scaling,
        per_replica={GPU: 1000},
        service="llama",
        own_service=True,
    )
