"""Each signal comes from where it is, and has the name that the user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autoscaler.model.foreign import Measure
from autoscaler.model.signal import Activation, Quality, Reading, RequestCounts, Shape, SignalSpec, WorkloadSignals
from autoscaler.model.workload import ActivationQuery, ActivationSpec, Engine, RevisionKey, TargetKey, WorkloadKey
from autoscaler.signals.activation import ActivationPages
from autoscaler.signals.prometheus import Access
from autoscaler.signals.queries import Outcome, named_query
from autoscaler.signals.query_poller import QueryPoller
from autoscaler.signals.sources import SignalSources
from autoscaler.signals.targets import PodAddress, ScrapeTarget

KEY = WorkloadKey("ml", "llama")
ACTIVITY = Reading("activity", 1.0, Quality.FRESH)
QUERY = SignalSpec("pending", 20, 20, query=Shape.TOTAL)
ALIAS = SignalSpec("inference_active_requests", 10, 7, stands_for="concurrency")
GPU = SignalSpec("gpu_utilization", 0.7, 0.7, stands_for="gpu-utilization")
OWN = SignalSpec("jobs", 1, 1)


class Reader:
    """What a reader was asked for, and a reading of 3.0 for each of it."""

    effective_period_s = 1.0

    def __init__(self, requests: RequestCounts | None = None) -> None:
        self.requests = requests
        self.targets: Mapping[TargetKey, ScrapeTarget] = {}

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        self.targets = targets

    def readings(self, now_s: float) -> dict[TargetKey, WorkloadSignals]:
        return {
            key: WorkloadSignals(
                {s.name: Reading(s.name, 3.0, Quality.FRESH) for s in target.signals}, ACTIVITY, requests=self.requests
            )
            for key, target in self.targets.items()
        }

    def asked(self) -> list[str]:
        return [spec.name for target in self.targets.values() for spec in target.signals]


class Scene:
    def __init__(self, has_prometheus: bool = True, apart: bool = False) -> None:
        queries = {"pending": named_query("sum(pending)", Shape.TOTAL, 15.0)} if has_prometheus else {}
        self.pods, self.gpus, self.counters = Reader(), Reader(), Reader(RequestCounts(in_flight=4))
        self.queries = QueryPoller(lambda: 100.0, Access("http://prometheus.test"), queries)
        self.sources = SignalSources(
            self.pods, self.gpus, self.queries, ActivationPages({}, lambda: 100.0), self.counters if apart else None
        )
        self.sources.has_prometheus = has_prometheus

    def aim(self, *signals: SignalSpec) -> dict[str, Reading]:
        pods = (PodAddress("p-0", "uid-0", "10.0.0.1"),)
        self.sources.set_targets({KEY: ScrapeTarget(8000, "/metrics", Engine.VLLM, signals, pods, revision="llama-1")})
        found = self.sources.readings(100.0)[KEY]
        assert found.activity is ACTIVITY
        return dict(found.readings)


def test_each_reader_is_asked_for_what_it_has_by_our_names() -> None:
    scene = Scene()
    found = scene.aim(ALIAS, GPU, QUERY, OWN)
    assert (scene.pods.asked(), scene.gpus.asked()) == (["concurrency", "jobs"], ["gpu-utilization"])
    assert scene.gpus.targets[KEY].engine is Engine.CUSTOM, "an exporter's series do not depend on the engine"
    assert [(name, reading.name) for name, reading in found.items()] == [
        (spec.name, spec.name) for spec in (ALIAS, GPU, QUERY, OWN)
    ]
    assert found["inference_active_requests"].value == 3.0
    assert found["pending"].faults[0].reason == "no answer yet"


def test_pods_are_read_for_their_activity_where_every_signal_is_elsewhere() -> None:
    scene = Scene()
    scene.aim(QUERY)
    assert scene.pods.targets[KEY].signals == ()


@pytest.mark.parametrize("spec", [GPU, SignalSpec("gpu-memory", 1, 1)])
def test_without_a_prometheus_gpus_are_absent_and_it_is_said_what_to_set(spec: SignalSpec) -> None:
    scene = Scene(has_prometheus=False)
    reading = scene.aim(spec, ALIAS)[spec.name]
    assert (reading.value, reading.quality, reading.pods_expected, reading.pods_fresh) == (None, Quality.ABSENT, 1, 0)
    assert [(fault.pod, fault.reason) for fault in reading.faults] == [
        ("all pods", "needs a Prometheus: set prometheus.url in the configuration")
    ]
    assert not scene.gpus.targets


def test_an_activation_is_asked_of_its_page_or_its_query() -> None:
    scene = Scene()
    assert scene.sources.state(ActivationSpec("gone", "waiting"), 100.0) is Activation.UNKNOWN
    asked = ActivationQuery("pending", KEY)
    assert scene.sources.state(asked, 100.0) is Activation.UNKNOWN
    scene.queries._uses[KEY, "pending"].track.enter(Outcome(2.0, 100.0))
    assert scene.sources.state(asked, 100.0) is Activation.WAITING


def test_gpus_of_every_workload_are_read_where_they_are_republished() -> None:
    scene = Scene()
    pods = tuple(PodAddress(f"p-{n}", f"uid-{n}", "10.0.0.1") for n in range(2))
    scene.sources.set_targets({KEY: ScrapeTarget(8000, "/metrics", Engine.VLLM, (OWN,), pods, republish=True)})
    assert (scene.pods.asked(), scene.gpus.asked()) == (["jobs"], ["gpu-memory", "gpu-utilization"])
    assert not scene.gpus.targets[KEY].republish, "the exporter has nothing of engines"
    found = scene.sources.readings(100.0)[KEY]
    assert (list(found.readings), found.measures) == (
        ["jobs"],
        {Measure.GPU_UTILIZATION: 300.0, Measure.GPU_MEMORY: 6.0},
    )


def test_requests_are_counted_on_the_pods_own_pages_whoever_brings_the_signals() -> None:
    scene = Scene(apart=True)
    pods = (PodAddress("p-0", "uid-0", "10.0.0.1"),)
    plain = ScrapeTarget(8000, "/metrics", Engine.VLLM, (OWN, GPU), pods, republish=True, revision="llama-1")
    update, other = RevisionKey(KEY, "llama-2"), WorkloadKey("ml", "other")
    counted = replace(plain, counters=True)
    scene.sources.set_targets({KEY: counted, update: replace(counted, revision="llama-2"), other: plain})
    assert scene.counters.asked() == [], "no signal is read there"
    assert [(key, target.republish) for key, target in scene.counters.targets.items()] == [
        (KEY, False),
        (update, False),
    ]
    assert not any(target.counters for target in scene.gpus.targets.values())
    found = scene.sources.readings(100.0)
    assert {key: signals.requests for key, signals in found.items()} == {
        KEY: RequestCounts(in_flight=4),
        update: RequestCounts(in_flight=4),
        other: None,
    }
    assert list(found[update].readings) == ["jobs", "gpu_utilization"]


def test_where_the_pods_bring_the_signals_they_bring_the_counts_with_them() -> None:
    scene = Scene()
    scene.pods.requests = RequestCounts(in_flight=2)
    pods = (PodAddress("p-0", "uid-0", "10.0.0.1"),)
    target = ScrapeTarget(8000, "/metrics", Engine.VLLM, (ALIAS, QUERY), pods, counters=True)
    scene.sources.set_targets({KEY: target})
    assert scene.pods.targets[KEY].counters
    assert scene.sources.readings(100.0)[KEY].requests == RequestCounts(in_flight=2)
