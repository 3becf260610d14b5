"""The demo's scenario: two models, twelve GPUs, forty minutes of published arrivals.

Data, nothing decided: what an operator would write into two InferenceWorkloads and the configuration, resolved.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from autoscaler.model.resources import GPU
from autoscaler.model.rollout import DEFAULT_POOL, RolloutSpec
from autoscaler.model.signal import Signal, SignalSpec
from autoscaler.model.workload import (
    ActivationSpec,
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
from autoscaler.simulator import traces
from autoscaler.simulator.traces import Request
from autoscaler.simulator.world import Server

PROJECT: Final = "demo"
UTILIZATION_RATIO: Final = 0.7  # metricThresholdPercentage's default


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its resolved workload, its imitated server, its arrivals."""

    spec: WorkloadSpec
    server: Server
    arrivals: tuple[Request, ...]
    trace: tuple[str, ...]  # what the arrivals are: lines of words

    @property
    def name(self) -> str:
        return self.spec.key.name

    @property
    def target(self) -> float:
        """Requests in flight that one replica should carry."""
        return self.spec.scaling.signal.target if self.spec.scaling.signal else float(self.server.slots)

    @property
    def gateway(self) -> bool:
        return self.spec.scaling.activation is not None

    def need(self, from_s: float, to_s: float) -> float:
        """Replicas whose targets carry the mean number of requests in service, if none ever waited."""
        work = sum(self.server.service_s(each) for each in self.arrivals if from_s <= each.at_s < to_s)
        return work / (to_s - from_s) / self.target


@dataclass(frozen=True, slots=True)
class Scenario:
    """`gpus` is the project's quota."""

    models: tuple[Model, ...]
    gpus: int
    duration_s: int
    tick_s: int = 2  # the daemon's default
    slo_wait_s: float = 2.0
    seed: int = 0


def demo(seed: int) -> Scenario:
    """Chat on a large model all the time; a small one that is idle, stormed, and idle again."""
    chance = random.Random(f"{seed} arrivals")
    duration_s = 2400
    large = Model(
        workload_spec("chat-70b", gpus=2, slots=32, least=1, most=6, created_at=-200.0),
        Server(gpus=2, slots=32, start_s=110.0, prefill_tokens_per_s=3000.0, token_s=0.045),
        traces.load("azure2023_conv_m10_m50.csv.gz"),
        ("arrivals: Azure LLM inference trace 2023, conversation, as recorded",),
    )
    small = Model(
        workload_spec("chat-8b", gpus=1, slots=16, least=0, most=8, created_at=-100.0),
        Server(gpus=1, slots=16, start_s=60.0, prefill_tokens_per_s=8000.0, token_s=0.02),
        traces.copied(traces.load("servegen_tenantA_h65m55_h66m35.csv.gz"), 2, duration_s, chance),
        (
            "arrivals: Alibaba ServeGen, one tenant, drawn from published counts",
            "and fits; every request twice, the copy within 30 s",
        ),
    )
    return Scenario((large, small), gpus=12, duration_s=duration_s, seed=seed)


def workload_spec(name: str, gpus: int, slots: int, least: int, most: int, created_at: float) -> WorkloadSpec:
    """Built-in defaults, but for two fields that steady a bursty model: the scale-down delay and the retention."""
    return WorkloadSpec(
        key=WorkloadKey("demo", name),
        uid=name,
        generation=1,
        created_at=created_at,
        desired_phase=DesiredPhase.RUNNING,
        mode=Mode.ACTIVE,
        project=PROJECT,
        node_pool=DEFAULT_POOL,
        priority=Priority.VERY_HIGH,
        serving=ServingSpec(8000, Protocol.HTTP, 8000, "/metrics", Engine.VLLM),
        scaling=ScalingSpec(
            min_replicas=least,
            max_replicas=most,
            initial_replicas=max(1, least),
            activation_replicas=max(1, least),
            signal=SignalSpec(Signal.CONCURRENCY, float(slots), slots * UTILIZATION_RATIO),
            scale_down_delay_s=120.0,
            retention_s=60.0 if least == 0 else 0.0,
            activation=ActivationSpec("gateway", "waiting_requests") if least == 0 else None,
        ),
        per_replica={GPU: gpus * 1000},
        rollout=RolloutSpec(least, most),
        service=name,
        own_service=True,
    )
