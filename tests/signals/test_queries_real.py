"""What a real Prometheus answers to queries of the configuration, and to questions for GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.model.signal import Quality, Reading, Shape, SignalSpec
from autoscaler.model.workload import Engine, WorkloadKey
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access, Answer, Failure, PrometheusClient
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.queries import MAX_SERIES, NamedQuery, Outcome, judged, named_query, question
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.realcluster.cluster import Cluster
from tests.realcluster.page import Gpu, Page, dcgm_page
from tests.realcluster.prometheus import Prometheus
from tests.signals.pods import until

OLD_S = 60.0
KEY = WorkloadKey("ml", "llama")


def gateway_page() -> str:
    """Ten services of one namespace, one value that is no number, and one that says itself that it is old."""
    old_ms = round((time.time() - OLD_S) * 1000)
    lines = [f'pending{{ns="ml",service="s-{number}"}} {number}' for number in range(10)]
    return "\n".join([*lines, 'odd{ns="ml"} NaN', 'below{ns="ml"} -2', f'late{{ns="ml"}} 7 {old_ms}']) + "\n"


class Dcgm:
    """Which pods use which GPUs."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], list[Gpu]] = {}

    def page(self) -> str:
        return dcgm_page(self.pods)


@pytest.fixture
def dcgm() -> Dcgm:
    return Dcgm()


@pytest.fixture
def scraping(cluster: Cluster, namespace: str, tmp_path: Path, dcgm: Dcgm) -> Iterator[Prometheus]:
    with Page(gateway_page) as gateway, Page(dcgm.page) as exporter:
        jobs = (gateway.job("gateway"), exporter.job("dcgm"))
        with Prometheus(cluster, namespace, tmp_path / "scraping", more_jobs=jobs) as running:
            cluster.wait_for(lambda: len(running.query("pending")) == 10, "the gateway's series")
            yield running


async def ask(prometheus: Prometheus, query: NamedQuery) -> tuple[Answer | Failure, Outcome]:
    names = {"namespace": "ml", "workload": "s-3", "revision": "s-3-1"}
    text = question(query, names, ["p-0"])
    assert isinstance(text, str)
    client = PrometheusClient(Access(prometheus.url, timeout_s=10.0))
    try:
        asked_at_s = time.time()
        answer = await client.query(text, query.options)
        return answer, judged(query, answer, asked_at_s)
    finally:
        await client.close()


async def test_one_series_is_a_value_and_several_are_refused(scraping: Prometheus) -> None:
    for template, value in (
        ('pending{ns="{namespace}", service="{workload}"}', 3.0),
        ('sum(pending{ns="{namespace}"})', 45.0),
        ('scalar(sum(pending{ns="{namespace}"}))', 45.0),
        ('max(max_over_time(pending{service="{workload}"}[1m])) or vector(0)', 3.0),
        ('sum(nobody{ns="{namespace}"}) or vector(0)', 0.0),
    ):
        answer, outcome = await ask(scraping, named_query(template, Shape.TOTAL, 2.0))
        assert (outcome.value, outcome.fault) == (value, None), (template, answer)
    for template in ('pending{ns="{namespace}"}', 'pending{ns="{namespace}"} * 2'):
        answer, outcome = await ask(scraping, named_query(template, Shape.TOTAL, 2.0))
        assert outcome.fault == "Prometheus: more than one series; aggregate the query, e.g. with sum() or max()"
        assert isinstance(answer, Answer)
        assert len(answer.series) <= MAX_SERIES, "of ten or twenty"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ('nobody{ns="{namespace}"}', "no samples"),
        ('sum(nobody{ns="{namespace}"})', "no samples"),
        ('odd{ns="{namespace}"}', "not a number"),
        ("sum(odd)", "not a number"),
        ("below", "negative"),
        ("sum(pending) / 0", "infinite"),
        ("sum(pending", "query refused"),
        ('pending{ns="{namespace}"}[1m]', "not an answer of Prometheus"),
    ],
)
async def test_what_is_no_value_is_a_fault(scraping: Prometheus, template: str, fault: str) -> None:
    _, outcome = await ask(scraping, named_query(template, Shape.TOTAL, 2.0))
    assert outcome == Outcome(fault=f"Prometheus: {fault}")


async def test_old_samples_are_not_seen_or_show_their_age(scraping: Prometheus) -> None:
    for template in ('late{ns="{namespace}"}', "sum(late)"):
        _, outcome = await ask(scraping, named_query(template, Shape.TOTAL, 10.0))
        assert outcome.fault == "Prometheus: no samples", "older than three intervals"
    _, outcome = await ask(scraping, named_query('late{ns="{namespace}"}', Shape.TOTAL, 30.0))
    assert outcome.value == 7.0
    assert outcome.at_s is not None
    assert OLD_S - 5 < time.time() - outcome.at_s < OLD_S + 10


@pytest.fixture
async def gpus(scraping: Prometheus) -> PrometheusPods:
    labels = Labels("exported_namespace", "exported_pod")
    reader = PrometheusPods(time.time, Access(scraping.url, timeout_s=10.0), labels, 1.0)
    signals = tuple(SignalSpec(name, 1, 1) for name in ("gpu-utilization", "gpu-memory"))
    pods = tuple(PodAddress(name, f"uid-{name}", "10.0.0.1") for name in ("p-0", "p-1"))
    reader.set_targets({KEY: ScrapeTarget(8000, "/metrics", Engine.CUSTOM, signals, pods)})
    return reader


async def test_gpus_of_a_pod_are_a_mean_share_and_a_sum_of_bytes(dcgm: Dcgm, gpus: PrometheusPods) -> None:
    def reading(name: str) -> Reading:
        return gpus.readings(time.time())[KEY].readings[f"gpu-{name}"]

    dcgm.pods = {("ml", "p-0"): [(20, 1024), (60, 3072)], ("ml", "p-1"): [(80, 2048)], ("other", "p-0"): [(99, 9999)]}
    running = asyncio.create_task(gpus.run())
    try:
        await until(lambda: reading("utilization").value is not None and reading("utilization").pods_fresh == 2, 15)
        await until(lambda: reading("utilization").value == pytest.approx((0.4 + 0.8) / 2), 5)
        await until(lambda: reading("memory").value == pytest.approx((4096 + 2048) / 2 * 1024**2), 5)
        assert (reading("utilization").quality, reading("memory").quality) == (Quality.FRESH, Quality.FRESH)
        del dcgm.pods["ml", "p-1"]
        await until(lambda: reading("utilization").quality is Quality.PARTIAL, 15)
        lacking = reading("utilization")
        assert lacking.value == pytest.approx((0.4 + 0.8) / 2), "missing is not idle"
        assert [(fault.pod, fault.reason) for fault in lacking.faults] == [("p-1", "Prometheus: no samples")]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
