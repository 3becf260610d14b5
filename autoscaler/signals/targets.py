"""Whom the scraper asks, and for what: frozen values that the caller renews with every tick."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from yarl import URL

from autoscaler.model.signal import Signal, SignalSpec
from autoscaler.model.workload import Engine

MAX_PATH_CHARACTERS = 1_024
REPUBLISHED = (Signal.CONCURRENCY, Signal.THROUGHPUT, Signal.LATENCY)  # what the measures are made of


@dataclass(frozen=True, slots=True)
class PodAddress:
    """One Ready pod. The uid is its identity: an IP is handed to the next pod within seconds."""

    name: str
    uid: str
    ip: str
    created: str = ""  # RFC 3339; "" where nobody knows


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """One workload's Ready pods and what to read from them."""

    port: int
    path: str
    engine: Engine
    signals: tuple[SignalSpec, ...]
    pods: tuple[PodAddress, ...]
    republish: bool = False  # read what is republished, too
    revision: str = ""  # whose pods they are
    counters: bool = False  # count their requests, too: WorkloadSignals.requests

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of all signals to read."""
        names = tuple(spec.name for spec in self.signals)
        return (*names, *(each for each in REPUBLISHED if each not in names)) if self.republish else names


def page_url(target: ScrapeTarget, pod: PodAddress) -> URL | None:
    """The address of a pod's metrics page; None where it would not be on that pod."""
    return pod_url(pod, target.port, target.path)


def pod_url(pod: PodAddress, port: int, path: str) -> URL | None:
    """An address on a pod; None where it would not be on that pod.

    Port and path come from a tenant, so both are checked here, at the one place that builds such an address: the host
    is the pod's IP literal, never a name, and whatever the path holds stays behind it.
    """
    if not path.startswith("/") or len(path) > MAX_PATH_CHARACTERS or not path.isprintable() or " " in path:
        return None
    if not 1 <= port <= 65_535:
        return None
    try:
        address = ipaddress.ip_address(pod.ip)
    except ValueError:
        return None
    if "%" in pod.ip:  # an IPv6 scope names an interface of ours
        return None
    host = f"[{address}]" if address.version == 6 else str(address)
    return URL(f"http://{host}:{port}{path}")
