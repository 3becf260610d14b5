"""Where each signal of a workload comes from: the pods, the exporter of GPU metrics, or a query of the configuration.

Signals of pods come from whoever reads them (`scraper` or `prometheus_pods`), which knows a signal by its own name
only; the names that users write are put back here. GPU signals and queries need a Prometheus, whoever reads the pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from autoscaler.model.foreign import Measure
from autoscaler.model.signal import (
    GPU_SIGNALS,
    Activation,
    PodFault,
    Quality,
    Reading,
    Signal,
    SignalSpec,
    WorkloadSignals,
)
from autoscaler.model.workload import ActivationQuery, ActivationSpec, Engine, TargetKey
from autoscaler.signals.activation import ActivationPages
from autoscaler.signals.faults import Fault
from autoscaler.signals.query_poller import QueryPoller
from autoscaler.signals.targets import ScrapeTarget

_REPUBLISHED: Final = tuple(SignalSpec(name, 1.0, 1.0) for name in sorted(GPU_SIGNALS))


class Readers(Protocol):
    """PodScraper, PrometheusPods."""

    @property
    def effective_period_s(self) -> float: ...

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None: ...

    def readings(self, now_s: float) -> Mapping[TargetKey, WorkloadSignals]: ...


class SignalSources:
    """Satisfies the cycle's ports `Signals` and `Activations`."""

    def __init__(
        self,
        pods: Readers,
        gpus: Readers,
        queries: QueryPoller,
        pages: ActivationPages,
        counters: Readers | None = None,
    ) -> None:
        """`gpus`: one that reads GPU signals by way of Prometheus, once `has_prometheus` is set. `counters`: one that
        reads the pods' own pages, to count their requests; None where `pods` does."""
        self.has_prometheus = False
        self._pods = pods
        self._gpus = gpus
        self._counters = counters
        self._queries = queries
        self._pages = pages
        self._targets: Mapping[TargetKey, ScrapeTarget] = {}

    @property
    def effective_period_s(self) -> float:
        """Of the pods' own signals."""
        return self._pods.effective_period_s

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        """Read exactly these from now on."""
        self._targets = targets
        self._pods.set_targets({key: of_pods(target) for key, target in targets.items()})
        if self._counters is not None:
            counted = {key: _of_counters(target) for key, target in targets.items() if target.counters}
            self._counters.set_targets(counted)
        gpus = {key: of_gpus for key, target in targets.items() if (of_gpus := _of_gpus(target)) is not None}
        self._gpus.set_targets(gpus if self.has_prometheus else {})
        queries = {key: of_queries for key, target in targets.items() if (of_queries := _of_queries(target))}
        self._queries.set_targets(queries)

    def readings(self, now_s: float) -> dict[TargetKey, WorkloadSignals]:
        """What is known of each workload at this instant of the clock, by the names that users wrote."""
        of_pods, of_gpus = self._pods.readings(now_s), self._gpus.readings(now_s)
        found = {
            key: self._whole(key, target, of_pods[key], of_gpus.get(key), now_s)
            if not plain(target) or key in of_gpus
            else of_pods[key]
            for key, target in self._targets.items()
            if key in of_pods
        }
        counted = self._counters.readings(now_s) if self._counters is not None else {}
        for key in counted.keys() & found.keys():
            found[key] = replace(found[key], requests=counted[key].requests)
        return found

    def state(self, spec: ActivationSpec | ActivationQuery, now_s: float) -> Activation:
        """Does a request wait?"""
        if isinstance(spec, ActivationQuery):
            return self._queries.state(spec, now_s)
        return self._pages.state(spec, now_s)

    def _whole(
        self,
        key: TargetKey,
        target: ScrapeTarget,
        of_pods: WorkloadSignals,
        of_gpus: WorkloadSignals | None,
        now_s: float,
    ) -> WorkloadSignals:
        found: dict[str, Reading] = {}
        for spec in target.signals:
            if spec.query is not None:
                found[spec.name] = self._queries.reading(key, spec.name, len(target.pods), now_s)
                continue
            readings = of_pods.readings if spec.signal not in GPU_SIGNALS else of_gpus.readings if of_gpus else {}
            reading = readings.get(spec.signal)
            if reading is None and spec.signal in GPU_SIGNALS:
                reading = _absent(Fault.NO_ANSWER_YET if self.has_prometheus else Fault.NO_PROMETHEUS, target)
            if reading is not None:
                found[spec.name] = replace(reading, name=spec.name)
        return replace(of_pods, readings=found, measures={**of_pods.measures, **_measures(target, of_gpus)})


def plain(target: ScrapeTarget) -> bool:
    """Do all its signals come from the pods, by names of ours or of the pods?"""
    return not any(spec.query or spec.stands_for or spec.signal in GPU_SIGNALS for spec in target.signals)


def of_pods(target: ScrapeTarget) -> ScrapeTarget:
    """What to read from the pods; nothing but their activity where all signals are elsewhere."""
    if plain(target):
        return target
    return replace(target, signals=_own_names(spec for spec in target.signals if not _elsewhere(spec)))


def _of_gpus(target: ScrapeTarget) -> ScrapeTarget | None:
    """The GPUs of the pods that serve: of a group the leader's, with which the others work in step."""
    gpus = _own_names(spec for spec in target.signals if spec.signal in GPU_SIGNALS)
    if target.republish:
        gpus += tuple(spec for spec in _REPUBLISHED if spec.name not in {each.name for each in gpus})
    return replace(target, signals=gpus, engine=Engine.CUSTOM, republish=False, counters=False) if gpus else None


def _of_counters(target: ScrapeTarget) -> ScrapeTarget:
    """Nothing but the requests: a few pods while an update runs, whoever brings the signals."""
    return replace(target, signals=(), republish=False)


def _measures(target: ScrapeTarget, of_gpus: WorkloadSignals | None) -> dict[Measure, float]:
    """What is republished of GPUs: percent and the bytes of all of them, where every pod's are known."""
    found: dict[Measure, float] = {}
    if target.republish and of_gpus is not None:
        for signal, measure, factor in (
            (Signal.GPU_UTILIZATION, Measure.GPU_UTILIZATION, 100.0),
            (Signal.GPU_MEMORY, Measure.GPU_MEMORY, float(len(target.pods))),
        ):
            reading = of_gpus.readings.get(signal)
            if reading is not None and reading.quality is Quality.FRESH and reading.value is not None:
                found[measure] = reading.value * factor
    return found


def _of_queries(target: ScrapeTarget) -> ScrapeTarget | None:
    queries = tuple(spec for spec in target.signals if spec.query is not None)
    return replace(target, signals=queries) if queries else None


def _elsewhere(spec: SignalSpec) -> bool:
    return spec.query is not None or spec.signal in GPU_SIGNALS


def _own_names(specs: Iterable[SignalSpec]) -> tuple[SignalSpec, ...]:
    return tuple(replace(spec, name=spec.signal, stands_for="") for spec in specs)


def _absent(reason: Fault, target: ScrapeTarget) -> Reading:
    return Reading("", None, Quality.ABSENT, pods_expected=len(target.pods), faults=(PodFault("all pods", reason),))
