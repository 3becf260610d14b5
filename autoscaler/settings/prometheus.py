"""The blocks `prometheus` and `queries` of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from autoscaler.model.signal import Shape
from autoscaler.settings.autoscaling import LABEL_NAME, QUERY_NAME
from autoscaler.settings.rules import Refusal, broken_rules
from autoscaler.settings.scalars import Duration, page_url, refused
from autoscaler.settings.section import Section
from autoscaler.signals.promql import PLACEHOLDERS, NotAQuery, read_query

MOST_QUERIES: Final = 64
ABSOLUTE_PATH: Final = r"^/[!-~]*$"
_OWN_SERIES: Final = re.compile(r"(?<![\w:])tidegate_\w*")


def _prometheus_url(text: str) -> str:
    if urlsplit(page_url(text)).query:
        raise refused(f"value {text!r} has a query; allowed: the address alone, e.g. http://prometheus.monitoring:9090")
    return text


PrometheusUrl = Annotated[str, Field(max_length=2048), AfterValidator(_prometheus_url)]
FileName = Annotated[str, Field(min_length=2, max_length=4096, pattern=ABSOLUTE_PATH)]
LabelName = Annotated[str, Field(max_length=128, pattern=LABEL_NAME)]
LabelValue = Annotated[str, Field(max_length=256)]
QueryName = Annotated[str, Field(pattern=QUERY_NAME, max_length=63)]


class BasicAuth(Section):
    username: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^:\s]+$")] | None = None
    password_file: FileName | None = None

    @model_validator(mode="after")
    def _are_a_pair(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise refused("only one of username and passwordFile is set; allowed: both or none")
        return self


class Tls(Section):
    ca_file: FileName | None = None
    """null is the system's authorities."""
    cert_file: FileName | None = None
    """Shows who we are."""
    key_file: FileName | None = None
    """null: the key stands in certFile."""

    @model_validator(mode="after")
    def _a_key_needs_its_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise broken_rules([Refusal("keyFile", "is set without certFile; allowed: together with it")])
        return self


class PrometheusLabels(Section):
    """What the labels are called that name a pod."""

    namespace: LabelName = "namespace"
    pod: LabelName = "pod"

    @model_validator(mode="after")
    def _name_a_pod(self) -> Self:
        broken = []
        if self.namespace == self.pod:
            broken.append(Refusal("pod", f"value {self.pod!r} is the label of the namespace too; allowed: another one"))
        for field, name in self:
            if name in ("le", "tidegate_part") or name.startswith("__"):
                says = f"value {name!r} is taken; allowed: a label that scraped series carry, such as namespace or pod"
                broken.append(Refusal(field, says))
        if broken:
            raise broken_rules(broken)
        return self


class DcgmLabels(PrometheusLabels):
    """What the labels are called that name the pod that uses a GPU."""

    namespace: LabelName = "exported_namespace"
    pod: LabelName = "exported_pod"


class Dcgm(Section):
    """The series of NVIDIA's exporter, for the signals gpu-utilization and gpu-memory."""

    labels: DcgmLabels = DcgmLabels()
    """exported_… where Prometheus keeps the names for the exporter's own pod; with honorLabels: namespace and pod."""
    match: Annotated[Mapping[LabelName, LabelValue], Field(max_length=16)] | None = None
    """Labels that every series must have; null: those of the pods' series."""
    scrape_interval: Annotated[float, Duration("1s", "5m")] | None = None
    """How often the exporter is scraped; null: as often as the pods."""


class Prometheus(Section):
    """A Prometheus, or what answers like one, that scrapes the pods. All files are read again when they change."""

    url: PrometheusUrl | None = None
    """Without /api/v1; null is none."""
    timeout: Annotated[float, Duration("100ms", "30s")] = 2.0
    """How long one query may take."""
    scrape_interval: Annotated[float, Duration("1s", "5m")] = 15.0
    """How often it scrapes the pods; samples older than three of these lower nothing."""
    bearer_token_file: FileName | None = None
    basic_auth: BasicAuth = BasicAuth()
    tls: Tls = Tls()
    labels: PrometheusLabels = PrometheusLabels()
    match: Annotated[Mapping[LabelName, LabelValue], Field(max_length=16)] = {}
    """Labels that every series must have, e.g. cluster: gpu-1 where one Prometheus has several clusters."""
    dcgm: Dcgm = Dcgm()

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        broken = []
        if self.bearer_token_file is not None and self.basic_auth.username is not None:
            broken.append(Refusal("bearerTokenFile", "is set beside basicAuth; allowed: one of them"))
        if any(file is not None for _, file in self.tls) and not (self.url or "https:").startswith("https:"):
            broken.append(Refusal("tls", "is set, and the URL begins with http://; allowed: with https:// only"))
        if broken:
            raise broken_rules(broken)
        return self


def _template(text: str) -> str:
    allowed = f"allowed: PromQL with {', '.join(f'{{{name}}}' for name in sorted(PLACEHOLDERS))} in its matchers"
    try:
        read_query(text)
    except NotAQuery as error:
        raise refused(f"{error}; {allowed}") from None
    own = _OWN_SERIES.search(text)
    if own is not None:
        raise refused(f"{own[0]} is a series of Tidegate's own, which would feed its decisions back; {allowed}")
    return text


class NamedQuery(Section):
    """PromQL that workloads name as a metric or for their activation. It must give one series."""

    query: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_template)]
    """With {namespace}, {workload}, {revision} in matchers, and {pods} after =~ and !~."""
    shape: Shape = Shape.TOTAL
    """total: of all replicas together, e.g. requests; level: each has the same scale, e.g. a share or seconds."""
    interval: Annotated[float, Duration("1s", "5m")] | None = None
    """How often it is asked and its samples are taken; null: prometheus.scrapeInterval. Older than three is stale."""
