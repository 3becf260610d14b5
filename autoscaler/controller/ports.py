"""What the cycle needs besides the store and the API server. Satisfied by shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import ActivationQuery, ActivationSpec, TargetKey
from autoscaler.signals.targets import ScrapeTarget


class Signals(Protocol):
    """What is measured of workloads that have pods."""

    @property
    def effective_period_s(self) -> float:
        """Seconds between two pages of a pod."""

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        """Scrape exactly these pods from now on."""

    def readings(self, now_s: float) -> Mapping[TargetKey, WorkloadSignals]:
        """What is known of every target."""


class Activations(Protocol):
    """Pages and queries that say whether a request waits for a workload at zero."""

    def state(self, spec: ActivationSpec | ActivationQuery, now_s: float) -> Activation: ...
