"""What the operator wrote, in the words of the rooms: seconds, ratios, thousandths, names."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from autoscaler.cluster.inferenceworkload import Spec
from autoscaler.cluster.lease import Terms
from autoscaler.controller.recall import Kept
from autoscaler.controller.specs import Operator
from autoscaler.model.quota import Domain
from autoscaler.model.resources import ResourceVector
from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.model.workload import KpaParameters
from autoscaler.settings.config import Config, LeaderElection, Source
from autoscaler.settings.prometheus import Prometheus
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access
from autoscaler.signals.queries import NamedQuery, named_query

STATUS_SHARE: Final = 0.5  # of a tick's write budget; the rest is for counts, records and events
# What other parts were built with: listening, copies of namespaces, the log's chain, the scraper's workers,
# who brings the signals.
NEEDS_RESTART: Final = (
    "signals.source",
    "api.bind",
    "api.port",
    "watch.namespaces",
    "log.format",
    "scrape.concurrency",
    "leader_election.lease_duration",
    "leader_election.renew_deadline",
    "leader_election.retry_period",
    "leader_election.resource_name",
    "leader_election.resource_namespace",
)


class ScrapeLimits(TypedDict):
    """What PodScraper can change while it runs."""

    period_s: float
    timeout_s: float
    max_page_bytes: int
    pages_per_s: float


def operator_of(config: Config) -> Operator:
    """The configuration as the controller reads it: seconds, ratios, thousandths."""
    defaults = config.defaults.model_dump(mode="json", by_alias=True, exclude_none=True)
    limits: dict[Domain, ResourceVector] = {
        (name, pool): dict(limit)
        for name, project in config.projects.items()
        for pool, limit in project.quota.limits.items()
        if limit  # without one there is nothing to keep a ledger of
    }
    return Operator(
        defaults=msgspec.convert(defaults, Spec),
        kpa=KpaParameters(
            stable_window_s=config.kpa.stable_window,
            panic_window_percent=config.kpa.panic_window_percentage,
            panic_threshold_ratio=config.kpa.panic_threshold_percentage / 100,
            max_scale_up_rate=config.kpa.max_scale_up_rate,
            max_scale_down_rate=config.kpa.max_scale_down_rate,
        ),
        projects={namespace: name for name, project in config.projects.items() for namespace in project.namespaces},
        limits=limits,
        node_pools={DEFAULT_POOL: {}, **{name: dict(pool.node_selector) for name, pool in config.node_pools.items()}},
        project_pools={name: project.own_pools for name, project in config.projects.items() if project.own_pools},
        pages=frozenset(config.activation_pages),
        ceiling_replicas=config.ceilings.max_replicas,
        queries=queries_of(config),
        target_kinds={(each.api_version, each.kind): each.resource for each in config.target_kinds},
        republish=config.metrics.republish,
    )


def terms_of(election: LeaderElection, environment: Mapping[str, str]) -> Terms:
    """The identity lives as long as a pod: a container that starts anew need not wait for its own Lease to run out."""
    pod, uid = environment.get("POD_NAME"), environment.get("POD_UID")
    identity = f"{pod}_{uid}" if pod and uid else f"{pod or socket.gethostname()}_{uuid.uuid4()}"
    return Terms(
        namespace=election.resource_namespace or environment.get("POD_NAMESPACE") or "default",
        name=election.resource_name,
        identity=identity,
        duration_s=election.lease_duration,
        renew_deadline_s=election.renew_deadline,
        retry_s=election.retry_period,
    )


def waits_for_restart(running: Config, changed: Config) -> tuple[str, ...]:
    """Keys whose new values a running daemon cannot take."""
    return tuple(key for key in NEEDS_RESTART if attrgetter(key)(running) != attrgetter(key)(changed))


def scrape_limits(config: Config) -> ScrapeLimits:
    scrape = config.scrape
    return ScrapeLimits(
        period_s=scrape.period,
        timeout_s=scrape.timeout,
        max_page_bytes=scrape.max_page_size,
        pages_per_s=scrape.pages_per_second,
    )


def access_of(prometheus: Prometheus) -> Access | None:
    """Where Prometheus is and who we are to it; None where there is none."""
    if prometheus.url is None:
        return None
    return Access(
        url=prometheus.url,
        timeout_s=prometheus.timeout,
        bearer_token_file=_path(prometheus.bearer_token_file),
        username=prometheus.basic_auth.username,
        password_file=_path(prometheus.basic_auth.password_file),
        ca_file=_path(prometheus.tls.ca_file),
        cert_file=_path(prometheus.tls.cert_file),
        key_file=_path(prometheus.tls.key_file),
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def labels_of(prometheus: Prometheus) -> Labels:
    return Labels(prometheus.labels.namespace, prometheus.labels.pod, tuple(sorted(prometheus.match.items())))


def gpu_labels_of(prometheus: Prometheus) -> Labels:
    """How Prometheus names the pod that uses a GPU."""
    dcgm = prometheus.dcgm
    match = prometheus.match if dcgm.match is None else dcgm.match
    return Labels(dcgm.labels.namespace, dcgm.labels.pod, tuple(sorted(match.items())))


def gpu_interval_s(prometheus: Prometheus) -> float:
    return prometheus.dcgm.scrape_interval or prometheus.scrape_interval


def queries_of(config: Config) -> dict[str, NamedQuery]:
    every_s = config.prometheus.scrape_interval
    return {name: named_query(it.query, it.shape, it.interval or every_s) for name, it in config.queries.items()}


def kept_of(config: Config) -> Kept | None:
    """Where the past of the workloads is kept; None where nobody keeps it."""
    prometheus = config.prometheus
    access = access_of(prometheus)
    by_pages = config.signals.source is Source.PODS
    return None if access is None else Kept(access, labels_of(prometheus), prometheus.scrape_interval, by_pages)


def page_urls(config: Config) -> dict[str, str]:
    return {name: page.url for name, page in config.activation_pages.items()}


def statuses_per_cycle(config: Config) -> int:
    return max(1, int(config.writes.budget_per_second * config.tick * STATUS_SHARE))
