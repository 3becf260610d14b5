"""The page /metrics, made from the board at each scrape."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from autoscaler.api.board import Board, Bounds, Configuration, Leader, Totals
from autoscaler.model.foreign import FOREIGN_SERIES, Measure
from autoscaler.model.report import CycleReport, QuotaReport, Status, WorkloadReport
from autoscaler.model.resources import GPU
from autoscaler.model.workload import Mode

WORKLOAD = ("namespace", "workload")


class _Collected(Collector):
    """Metric families that have been made already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def families(board: Board) -> tuple[Metric, ...]:
    """The board as metric families."""
    return tuple(_families(board))


def _families(board: Board) -> Iterator[Metric]:
    yield _gauge("tidegate_build_info", "Version of the daemon", ("version",), [((board.version,), 1.0)])
    results = [((result,), float(n)) for result, n in sorted(board.cycles.items())]
    yield _counter("tidegate_reconcile", "Cycles by result", ("result",), results)
    yield from _configuration(board.configuration)
    yield from _leader(board.leader())
    totals = board.totals()
    yield from _totals(totals)
    yield from _bounds(totals.bounds)
    decisions = [(key, float(n)) for key, n in sorted(board.decisions.items())]
    yield _counter("tidegate_decisions", "Decisions", (*WORKLOAD, "action", "reason"), decisions)
    operations = [(key, float(n)) for key, n in sorted(board.scale_operations.items())]
    yield _counter("tidegate_scale_operations", "Replica counts written", WORKLOAD, operations)
    ended = [(key, float(n)) for key, n in sorted(board.updates.items())]
    yield _counter("tidegate_rollouts", "Updates that ended, by result", (*WORKLOAD, "result"), ended)
    took = sorted(board.update_seconds.items())
    yield _counter("tidegate_rollout_duration_seconds", "From queued to the end", (*WORKLOAD, "result"), took)
    yield from _process()
    if board.report is not None:
        yield from _report(board.report)


def render(collected: Sequence[Metric]) -> bytes:
    """The page in the Prometheus text format, about this process, too.

    Takes half a second for a thousand workloads, so it is made beside the loop: `collected` does not change any more.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(collected))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


def _configuration(configuration: Configuration) -> Iterator[Metric]:
    results = [(("failure",), float(configuration.failures)), (("success",), float(configuration.successes))]
    yield _counter("tidegate_config_reloads", "Changed configuration files by result", ("result",), results)
    applied = [((), configuration.read_at_s)]
    name = "tidegate_config_last_reload_success_timestamp_seconds"
    yield _gauge(name, "When the configuration that applies was loaded", (), applied)
    yield _gauge("tidegate_config_info", "The configuration that applies", ("sha256",), [((configuration.short,), 1.0)])


def _bounds(bounds: Bounds) -> Iterator[Metric]:
    gauges = (
        ("tidegate_events_queue_length", "Events that wait to be written", bounds.events_queued),
        ("tidegate_events_queue_capacity", "More are dropped", bounds.events_queue_most),
        ("tidegate_scrape_period_asked_seconds", "Longer in effect: too many pods", bounds.scrape_period_asked_s),
        ("tidegate_write_budget_per_second", "Writes to the API server, at most", bounds.writes_per_s),
        ("tidegate_steps_queue_length", "Writes on workloads that run or wait", bounds.steps_queued),
        ("tidegate_steps_queue_capacity", "More are asked for again by a later cycle", bounds.steps_queue_most),
        ("tidegate_steps_oldest_seconds", "Age of the oldest of them", bounds.step_longest_s),
        ("tidegate_watch_silent_seconds", "Of the kind that heard nothing for longest", bounds.watch_silent_s),
        ("tidegate_status_writes_deferred", "Left for later cycles by the last one", bounds.statuses_deferred),
    )
    for name, text, value in gauges:
        yield _gauge(name, text, (), [((), float(value))])
    refused = [((), float(bounds.steps_refused))]
    yield _counter("tidegate_steps_refused", "Found the queue full", (), refused)
    waits = [((), bounds.write_waits_s)]
    yield _counter("tidegate_write_budget_wait_seconds", "Waited by writes for the budget", (), waits)


def _leader(leader: Leader) -> Iterator[Metric]:
    leads = float(leader.epoch is not None)
    yield _gauge("leader_election_master_status", "1 where this process leads", ("name",), [((leader.name,), leads)])
    if leader.epoch is not None:
        epoch = [((), float(leader.epoch))]
        yield _gauge("tidegate_leader_epoch", "Of this process's tenure: the Lease's transitions", (), epoch)
        unstamped = [((), float(leader.unstamped))]
        yield _gauge("tidegate_objects_unstamped", "Wait for that epoch; until 0 nothing is lowered", (), unstamped)


def _totals(totals: Totals) -> Iterator[Metric]:
    requests = [
        ((code, method, totals.api_host), float(n)) for (method, code), n in sorted(totals.api_requests.items())
    ]
    yield _counter("rest_client_requests", "Requests to the API server", ("code", "method", "host"), requests)
    pages = [((outcome,), float(n)) for outcome, n in sorted(_folded(totals.pages).items())]
    yield _counter("tidegate_scrape_pages", "Metrics pages by outcome", ("outcome",), pages)
    answers = [((outcome,), float(n)) for outcome, n in sorted(_folded(totals.answers).items())]
    yield _counter("tidegate_query_answers", "Answers of Prometheus by outcome: GPUs, queries", ("outcome",), answers)
    yield _counter("tidegate_scrape_seconds", "Seconds spent waiting for pages", (), [((), totals.scrape_seconds)])
    yield _gauge("tidegate_scrape_period_seconds", "Between two pages of a pod", (), [((), totals.scrape_period_s)])
    yield _gauge("tidegate_clock_behind_seconds", "Behind the machine's clock", (), [((), totals.clock_behind_s)])
    yield _counter("tidegate_events_dropped", "Events not written", (), [((), float(totals.events_dropped))])


def _process() -> Iterator[Metric]:
    """What tells a leak before the resident memory does."""
    yield _gauge("tidegate_tasks", "Tasks of the event loop that have not ended", (), [((), float(_tasks()))])
    blocks = float(sys.getallocatedblocks())  # walks the pools: 0.05 ms for 1.7 million blocks
    yield _gauge("tidegate_memory_blocks", "Small objects alive, counted by Python's allocator", (), [((), blocks)])


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop runs in this thread: there is no task
        return 0


def _folded(pages: Mapping[str, int]) -> Counter[str]:
    """A pod may answer any status; a label may not take any value: "http 503" counts as "http 5xx"."""
    folded: Counter[str] = Counter()
    for outcome, number in pages.items():
        folded[f"http {outcome[5]}xx" if outcome.startswith("http ") else outcome] += number
    return folded


def _report(report: CycleReport) -> Iterator[Metric]:
    each = sorted(report.workloads.values(), key=lambda workload: workload.key)
    yield _gauge("tidegate_loop_last_success_timestamp_seconds", "Last finished cycle", (), [((), report.at_s)])
    yield _gauge("tidegate_reconcile_duration_seconds", "Last cycle", (), [((), report.duration_s)])
    yield from _replicas(each)
    yield from _signals(each)
    yield from _updates(each)
    for name, kind, text in (
        ("tidegate_fallback_active", "Fallback", "1 while some ready pod is not measured: nothing is lowered"),
        ("tidegate_paused", "Paused", "1 while mode is paused"),
    ):
        yield _gauge(name, text, WORKLOAD, [(w.key, float(_is_true(w, kind))) for w in each])
    observed = [(w.key, float(w.spec.mode is Mode.OBSERVE)) for w in each if w.spec]
    yield _gauge(
        "tidegate_observe_only", "1 while mode is observe: counts are decided and not written", WORKLOAD, observed
    )
    limited = [((*w.key, c.reason), 1.0) for w in each for c in w.conditions if _limits(c.type, c.status)]
    yield _gauge("tidegate_scaling_limited", "1 while a bound or quota binds", (*WORKLOAD, "reason"), limited)
    yield _gauge("tidegate_gpus", "GPUs by state of their replica", (*WORKLOAD, "state"), list(_gpus(each)))
    quota = [
        ((q.project, q.node_pool, kind), value / 1000)
        for q in report.quota
        if q.resource == GPU
        for kind, value in _of_quota(q)
    ]
    yield _gauge("tidegate_quota_gpus", "GPUs of a project on a node pool", ("project", "node_pool", "type"), quota)
    yield from _foreign(each)


def _of_quota(quota: QuotaReport) -> Iterator[tuple[str, int]]:
    """What is not known has no series."""
    yield "limit", quota.limit
    if quota.used is not None:
        yield "used", quota.used
        yield "free", max(0, quota.limit - quota.used)


def _replicas(workloads: Sequence[WorkloadReport]) -> Iterator[Metric]:
    resolved = [w for w in workloads if w.spec is not None and w.decision is not None]
    values = {
        "recommended": [(_labels(w), float(number)) for w in resolved if (number := _recommended(w)) is not None],
        "desired": [(_labels(w), float(w.counts.desired)) for w in resolved],
        "granted": [(_labels(w), float(w.counts.granted)) for w in resolved],
        "current": [(_labels(w), float(w.counts.applied)) for w in resolved],
        "ready": [(_labels(w), float(w.counts.ready)) for w in resolved],
        "min": [(_labels(w), float(w.spec.scaling.min_replicas)) for w in resolved if w.spec],
        "max": [(_labels(w), float(w.spec.scaling.max_replicas)) for w in resolved if w.spec],
    }
    for kind, samples in values.items():
        yield _gauge(f"tidegate_replicas_{kind}", f"Replicas, {kind}", (*WORKLOAD, "revision"), samples)


def _updates(workloads: Sequence[WorkloadReport]) -> Iterator[Metric]:
    """Of workloads whose revisions are ours."""
    shares = [((*w.key, name), share / 100) for w in workloads for name, share in sorted(w.updating.percents.items())]
    labels = (*WORKLOAD, "revision")
    yield _gauge("tidegate_revision_traffic_ratio", "Share of the traffic", labels, shares)
    running = [w for w in workloads if w.updating.phase]
    phases = [((*w.key, w.updating.phase), 1.0) for w in running]
    yield _gauge("tidegate_rollout_phase", "1 for the phase of the update", (*WORKLOAD, "phase"), phases)
    steps = [(w.key, float(w.updating.step)) for w in running]
    yield _gauge("tidegate_rollout_step", "Steps of the update that are done", WORKLOAD, steps)
    surge = [(w.key, w.updating.surge_gpus) for w in running]
    yield _gauge("tidegate_rollout_surge_gpus", "Held beside those of the current revision", WORKLOAD, surge)


def _recommended(workload: WorkloadReport) -> int | None:
    return workload.decision.recommended if workload.decision else None


def _labels(workload: WorkloadReport) -> tuple[str, str, str]:
    return (*workload.key, workload.revision or "")


def _signals(workloads: Sequence[WorkloadReport]) -> Iterator[Metric]:
    """A signal that nobody saw has no value series: absent is not zero."""
    labels = (*WORKLOAD, "signal")
    read = [((*w.key, each.name), each) for w in workloads if w.decision for each in w.decision.inputs]
    values = [(key, each.value) for key, each in read if each.value is not None]
    ages = [(key, each.age_s) for key, each in read if each.age_s is not None]
    yield _gauge("tidegate_signal_value", "Newest value over all ready replicas", labels, values)
    yield _gauge(
        "tidegate_signal_target", "Value that one replica should carry", labels, [(k, s.target) for k, s in read]
    )
    yield _gauge("tidegate_signal_age_seconds", "Age of the oldest page used", labels, ages)
    fresh = [((*key, s.quality.value), 1.0) for key, s in read]
    yield _gauge("tidegate_signal_quality", "1 for the present quality", (*labels, "quality"), fresh)


def _foreign(workloads: Sequence[WorkloadReport]) -> Iterator[Metric]:
    """What is republished, under others' names. Of a name that nobody has a value for there is no line at all.

    The count of requests has no type: as a counter its name would have to end in _total.
    """
    families: dict[str, GaugeMetricFamily | UnknownMetricFamily] = {}
    for measure, series in FOREIGN_SERIES.items():
        extra, values = [label for label, _ in series.labels], [value for _, value in series.labels]
        kind = UnknownMetricFamily if measure is Measure.REQUESTS else GaugeMetricFamily
        samples = [((*w.key, *values), w.measures[measure]) for w in workloads if measure in w.measures]
        if samples and series.name not in families:
            families[series.name] = kind(series.name, series.text, labels=(*WORKLOAD, *extra))
        for labels, value in samples:
            families[series.name].add_metric(labels, value)
    yield from families.values()


def _gpus(workloads: Sequence[WorkloadReport]) -> Iterator[tuple[tuple[str, ...], float]]:
    for each in workloads:
        gpus = (each.spec.per_replica.get(GPU, 0) if each.spec else 0) / 1000
        counts = each.counts
        for state, n in (("ready", counts.ready), ("starting", counts.starting), ("draining", counts.terminating)):
            yield (*each.key, state), n * gpus


def _is_true(workload: WorkloadReport, kind: str) -> bool:
    found = workload.condition(kind)
    return found is not None and found.status is Status.TRUE


def _limits(kind: str, status: Status) -> bool:
    return kind == "ScalingLimited" and status is Status.TRUE


def _gauge(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
