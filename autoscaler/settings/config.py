"""What the operator may set: the one YAML document that the daemon reads, with every default and range.

Loading it, with the environment's overrides, is `load`. Values arrive here as seconds, bytes and thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from autoscaler.model.aliases import ALIASES
from autoscaler.model.signal import Signal
from autoscaler.settings.defaults import Defaults
from autoscaler.settings.projects import POOLS_MAX, NodePool, Project, misnamed_pools, uneven_limits
from autoscaler.settings.prometheus import MOST_QUERIES, NamedQuery, Prometheus, QueryName
from autoscaler.settings.rules import Refusal, broken_rules
from autoscaler.settings.scalars import (
    DNS_1035,
    DNS_1123,
    DnsName,
    Duration,
    PageUrl,
    Percent,
    Port,
    Positive,
    Size,
    refused,
)
from autoscaler.settings.section import Section, without_nulls
from autoscaler.settings.serving import KNATIVE, ApiVersion, KindName

ENVIRONMENT_PREFIX: Final = "TIDEGATE__"  # two underscores: a Service named tidegate injects TIDEGATE_PORT=tcp://…
LeaseName = Annotated[str, Field(pattern=DNS_1123, max_length=63)]


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise refused(
            f"value {text!r} is no IP address; allowed: an address such as 0.0.0.0, 127.0.0.1 or ::"
        ) from None
    return text


Address = Annotated[str, AfterValidator(_address)]


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"  # console on a terminal, else json
    JSON = "json"
    CONSOLE = "console"


class Scrape(Section):
    """Reading the metrics pages of the pods."""

    period: Annotated[float, Duration("200ms", "1m")] = 1.0
    """How often every ready pod is read."""
    timeout: Annotated[float, Duration("100ms", "1m")] = 1.5
    """How long one page may take."""
    max_page_size: Annotated[int, Size("1Ki", "64Mi")] = 4 * 1024**2
    """A larger page counts as a fault of its pod."""
    concurrency: Annotated[int, Field(strict=True, ge=1, le=1024)] = 64
    """Pages in flight at once."""
    pages_per_second: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    """Above this, the period grows."""


class Source(StrEnum):
    PODS = "pods"
    PROMETHEUS = "prometheus"


class Signals(Section):
    """Where the values of all workloads come from."""

    source: Source = Source.PODS
    """pods: the daemon reads their pages. prometheus: it asks the one below, which does."""


class Api(Section):
    """The daemon's own HTTP server: health, metrics, JSON."""

    bind: Address = "0.0.0.0"
    port: Port = 8080


class Metrics(Section):
    """The daemon's page /metrics."""

    republish: Annotated[bool, Field(strict=True)] = True
    """Also what the pods show, for each workload under the names that guides use: inference_request_count and others,
    at most nine series a workload. Workloads of a fixed size are read for it, too."""


class Log(Section):
    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO
    """auto is console on a terminal and json elsewhere."""


class Watch(Section):
    namespaces: tuple[DnsName, ...] = ()
    """Namespaces whose workloads are managed; empty is all."""


class Writes(Section):
    budget_per_second: Annotated[int, Field(strict=True, ge=1, le=1000)] = 50
    """Writes to the API server, at most."""


class LeaderElection(Section):
    """One daemon of several writes: the holder of a Lease. Names and defaults are those of Kubernetes' components."""

    lease_duration: Annotated[float, Duration("2s", "5m", whole_seconds=True)] = 15.0
    """How long the others wait after the last renewal that they saw."""
    renew_deadline: Annotated[float, Duration("1s", "5m")] = 10.0
    """The leader stops writing when it could not renew for this long; shorter than leaseDuration."""
    retry_period: Annotated[float, Duration("200ms", "1m")] = 2.0
    """How often it renews, and the others look; at most half of renewDeadline."""
    resource_name: LeaseName = "tidegate"
    resource_namespace: DnsName | None = None
    """null is the namespace of the daemon's pod; outside a cluster, default."""

    @model_validator(mode="after")
    def _each_leaves_time_for_the_next(self) -> Self:
        broken = []
        if not self.renew_deadline < self.lease_duration:
            says = f"value {self.renew_deadline:g}s; allowed: less than leaseDuration ({self.lease_duration:g}s)"
            broken.append(Refusal("renewDeadline", says))
        if not self.retry_period <= self.renew_deadline / 2:
            says = f"value {self.retry_period:g}s; allowed: at most half of renewDeadline ({self.renew_deadline:g}s)"
            broken.append(Refusal("retryPeriod", says))
        if broken:
            raise broken_rules(broken)
        return self


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Kpa(Section):
    """The policy kpa: names, defaults and ranges of Knative's config-autoscaler."""

    model_config = ConfigDict(alias_generator=_kebab)

    stable_window: Annotated[float, Duration("6s", "1h", whole_seconds=True)] = 60.0
    """Averaging window in calm times."""
    panic_window_percentage: Percent = 10.0
    """Length of the panic window, in percent of the stable window."""
    panic_threshold_percentage: Annotated[float, Field(strict=True, ge=110, le=1000)] = 200.0
    """Panic once the panic window wants this many percent of the ready replicas."""
    max_scale_up_rate: Annotated[float, Field(strict=True, gt=1)] = 1000.0
    """At most this times the ready replicas, per decision."""
    max_scale_down_rate: Annotated[float, Field(strict=True, gt=1)] = 2.0
    """At least the ready replicas divided by this, per decision."""


class ActivationPage(Section):
    url: PageUrl
    """Page in the Prometheus text format, e.g. of a gateway."""


class TargetKind(Section):
    """A kind of object that workloads may name by targetRef."""

    api_version: ApiVersion
    """Group and version, e.g. apps/v1."""
    kind: KindName
    resource: Annotated[str, Field(pattern=DNS_1035, max_length=63)]
    """Its plural, as in its URLs and in rights, e.g. statefulsets."""


TARGET_KINDS: Final = (
    TargetKind.model_validate({"apiVersion": "apps/v1", "kind": "Deployment", "resource": "deployments"}),
    TargetKind.model_validate({"apiVersion": "apps/v1", "kind": "StatefulSet", "resource": "statefulsets"}),
    TargetKind.model_validate(
        {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "resource": "leaderworkersets"}
    ),
)


def _can_be_scaled(kinds: tuple[TargetKind, ...]) -> tuple[TargetKind, ...]:
    seen: set[tuple[str, str]] = set()
    for each in kinds:
        title = f"{each.api_version} {each.kind}"
        if each.api_version.startswith((KNATIVE, "tidegate.dev/")):
            raise refused(f"value '{title}' has an autoscaler of its own; allowed: a kind that nobody else scales")
        if (each.api_version, each.kind) in seen:
            raise refused(f"value '{title}' stands there twice; allowed: each kind once")
        seen.add((each.api_version, each.kind))
    return kinds


class Ceilings(Section):
    """What no workload may exceed, whatever it asks for."""

    max_replicas: Positive | None = None
    """null is none."""


class Config(BaseSettings):
    """The configuration of the daemon. Unset keys take their defaults; unknown keys are refused."""

    model_config = SettingsConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        validate_default=False,  # the defaults are seconds and bytes already
    )

    tick: Annotated[float, Duration("200ms", "1m")] = 2.0
    """How often every workload is decided."""
    signals: Signals = Signals()
    scrape: Scrape = Scrape()
    prometheus: Prometheus = Prometheus()
    api: Api = Api()
    metrics: Metrics = Metrics()
    log: Log = Log()
    watch: Watch = Watch()
    writes: Writes = Writes()
    leader_election: LeaderElection = LeaderElection()
    defaults: Defaults = Defaults()
    kpa: Kpa = Kpa()
    projects: Mapping[DnsName, Project] = {}
    node_pools: Annotated[Mapping[DnsName, NodePool], Field(max_length=POOLS_MAX)] = {}
    """Parts of the cluster by name, beside default, which is every node."""
    activation_pages: Mapping[DnsName, ActivationPage] = {}
    """Pages that show waiting requests of workloads at 0 replicas, by the name that workloads use."""
    queries: Annotated[Mapping[QueryName, NamedQuery], Field(max_length=MOST_QUERIES)] = {}
    """What workloads may name as a metric or activation, by the name that they use. Needs prometheus.url."""
    ceilings: Ceilings = Ceilings()
    target_kinds: Annotated[tuple[TargetKind, ...], Field(max_length=32), AfterValidator(_can_be_scaled)] = TARGET_KINDS
    """Kinds of objects that workloads may name by targetRef; the chart gives the rights for exactly these."""

    _null_is_unset = model_validator(mode="before")(without_nulls)

    @model_validator(mode="after")
    def _namespaces_have_one_owner(self) -> Self:
        owner: dict[str, str] = {}
        broken = []
        for project in sorted(self.projects):
            for namespace in self.projects[project].namespaces:
                other = owner.setdefault(namespace, project)
                if other != project:
                    says = f"namespace {namespace} is in project {other} already; allowed: one project per namespace"
                    broken.append(Refusal(f"projects.{project}.namespaces", says))
        if broken:
            raise broken_rules(broken)
        return self

    @model_validator(mode="after")
    def _node_pools_are_known(self) -> Self:
        broken = list(misnamed_pools(self.projects, self.node_pools)) or list(uneven_limits(self.projects))
        if broken:
            raise broken_rules(broken)
        return self

    @model_validator(mode="after")
    def _a_source_has_an_address(self) -> Self:
        if self.signals.source is Source.PROMETHEUS and self.prometheus.url is None:
            raise broken_rules([Refusal("prometheus.url", "is not set, and signals.source is prometheus; set it")])
        return self

    @model_validator(mode="after")
    def _queries_can_be_named_and_asked(self) -> Self:
        taken = dict.fromkeys(ALIASES, "another name of a signal") | dict.fromkeys(map(str, Signal), "a signal")
        broken = [
            Refusal(f"queries.{name}", f"the name {name} is {taken[name]}; allowed: another one")
            for name in sorted(self.queries)
            if name in taken
        ]
        if self.queries and self.prometheus.url is None:
            broken.append(Refusal("prometheus.url", "is not set, and queries need it; set it"))
        metric = self.defaults.autoscaling.metric or ""
        if "-" in metric and metric not in (*Signal, *self.queries):
            known = ", ".join([*Signal, *sorted(self.queries)])
            says = f"value {metric!r} is no signal and no query; allowed: {known}, or a metric of the pods"
            broken.append(Refusal("defaults.autoscaling.metric", says))
        if broken:
            raise broken_rules(broken)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`Config()` is the defaults whatever the process's environment says; `load` brings the sources."""
        return (init_settings,)


def json_schema() -> dict[str, Any]:
    """The document as JSON Schema 2020-12, for editors and for the chart."""
    schema = _tidied(Config.model_json_schema(by_alias=True, mode="serialization"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tidegate configuration", **schema}


def _tidied(node: Any) -> Any:
    """Without pydantic's titles, which repeat the keys, and with maps closed to names that match no pattern."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _tidied(below) for key, below in node.items() if key != "title" or isinstance(below, dict)}
    return {**kept, "additionalProperties": False} if "patternProperties" in kept else kept
