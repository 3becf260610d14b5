"""The workload as the cores see it: resolved, in seconds and ratios, defaults merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from autoscaler.model.resources import ResourceVector
from autoscaler.model.rollout import RolloutSpec, RouteSpec
from autoscaler.model.signal import SignalSpec


class WorkloadKey(NamedTuple):
    """Names one InferenceWorkload. Sorts by namespace, then name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def workload(self) -> WorkloadKey:
        return self


class RevisionKey(NamedTuple):
    """Names one revision of a workload, where its pods are looked at beside those of the current one.

    It is never the key of a workload. Sort mixed keys by `str`.
    """

    workload: WorkloadKey
    revision: str

    def __str__(self) -> str:
        return f"{self.workload} {self.revision}"

    @property
    def namespace(self) -> str:
        return self.workload.namespace

    @property
    def name(self) -> str:
        """Of the workload."""
        return self.workload.name


TargetKey = WorkloadKey | RevisionKey


class DesiredPhase(StrEnum):
    RUNNING = "Running"
    STOPPED = "Stopped"


class Mode(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"  # counts held, healing goes on
    OBSERVE = "observe"  # decided and told, nothing written; only of an object that somebody else made


class Engine(StrEnum):
    AUTO = "auto"  # recognised from the page
    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    NIM = "nim"
    TRITON = "triton"
    TENSORRT_LLM = "tensorrt-llm"
    DYNAMO = "dynamo"
    CUSTOM = "custom"  # the pods expose the metric by its own name


class Protocol(StrEnum):
    HTTP = "http"
    GRPC = "grpc"


class Priority(StrEnum):
    """Run:ai's names, lowest first; `rank` orders them."""

    VERY_LOW = "very-low"
    LOW = "low"
    MEDIUM_LOW = "medium-low"
    MEDIUM = "medium"
    MEDIUM_HIGH = "medium-high"
    HIGH = "high"
    VERY_HIGH = "very-high"

    @property
    def rank(self) -> int:
        """0 for very-low up to 6 for very-high."""
        return list(Priority).index(self)


@dataclass(frozen=True, slots=True)
class KpaParameters:
    """The block `kpa` of the configuration: upstream's names and defaults (config-autoscaler)."""

    stable_window_s: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold_ratio: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """Which series of which operator-configured page says that requests wait for this workload."""

    page: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ActivationQuery:
    """Which query of the configuration says, by a value above 0, that requests wait for this workload."""

    query: str
    workload: WorkloadKey


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """How many replicas a workload may have and what each should carry."""

    min_replicas: int
    max_replicas: int
    initial_replicas: int
    activation_replicas: int
    signal: SignalSpec | None  # the first one; None only where min == max
    retention_s: float = 0.0  # idle this long before zero
    scale_down_delay_s: float = 0.0
    manual_replicas: int | None = None  # spec.replicas; wins over all but ceilings and quota
    activation: ActivationSpec | ActivationQuery | None = None
    kpa: KpaParameters = KpaParameters()
    ceiling_replicas: int | None = None  # the operator's; no workload may exceed it
    further_signals: tuple[SignalSpec, ...] = ()  # each of another name; the highest count wins

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        """All signals, in the order in which they were written."""
        return (self.signal, *self.further_signals) if self.signal is not None else ()


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """Where a replica serves and where it shows its metrics."""

    port: int
    protocol: Protocol
    metrics_port: int
    metrics_path: str
    engine: Engine


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """An object with a scale that somebody else owns, in the workload's namespace."""

    api_version: str
    resource: str  # plural
    kind: str
    name: str

    def __str__(self) -> str:
        """As kubectl names it: "statefulsets.apps/llama"."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.resource}.{group}/{self.name}" if slash else f"{self.resource}/{self.name}"


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """One workload, resolved."""

    key: WorkloadKey
    uid: str
    generation: int
    created_at: float  # Unix seconds
    desired_phase: DesiredPhase
    mode: Mode
    project: str
    node_pool: str  # the first of rollout.node_pools
    priority: Priority
    serving: ServingSpec
    scaling: ScalingSpec
    per_replica: ResourceVector  # thousandths
    service: str  # name of the Service that clients use
    own_service: bool  # ours to create; else an existing one whose one selector key we patch
    orphan: bool = False  # deletionPolicy: Orphan
    initialization_timeout_s: float | None = None
    target: TargetSpec | None = None  # None: what serves is ours
    rollout: RolloutSpec = field(default_factory=RolloutSpec)
    route: RouteSpec | None = None  # carries the traffic weights; None: the Service's selector is the switch
    request_timeout_s: int | None = None  # of one request, where the route can keep it
