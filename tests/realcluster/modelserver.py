"""Imitated model servers for tests on the real control plane. An imitation: no model, no GPU, no vLLM.

KWOK's pods are real objects without containers. One process per test opens every Ready pod's own address and port and
serves there what vLLM would serve: a metrics page, completions, health. What the pages show follows from the load that
the test offers (load.py) and the faults that it sets (modelserver_page.PageFault).

    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        servers.set_load(namespace, "llama", concurrency=40, slots=8, service_time_s=2)
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.realcluster.load import Offer
from tests.realcluster.modelserver_page import PageFault
from tests.realcluster.modelserver_watch import ApiAccess

START_S = 20.0


class ModelServers:
    """Starts the process, steers it, ends it. Pods are those with the label tidegate.dev/workload.

    Two processes must not serve the same pods, so a test that shares a cluster names its namespace. A pod's port is
    its annotation modelserver.test/port, else its first containerPort, else 8000. All instants are Unix seconds.
    """

    def __init__(
        self, url: str, token: str, ca_path: Path | str | None, namespace: str | None = None, log: Path | None = None
    ) -> None:
        self._access = ApiAccess(url, token, str(ca_path) if ca_path else None, namespace)
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def start(self) -> Self:
        """Returns when the process answers; listeners open as pods become Ready."""
        log = self._log.open("a") if self._log else None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.realcluster.modelserver_process"],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        finally:
            if log is not None:
                log.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(self._access)) + "\n")
        self._process.stdin.flush()
        self._port = int(json.loads(self._process.stdout.readline())["port"])
        return self

    def stop(self) -> None:
        """End the process; every listener closes."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def gateway_url(self) -> str:
        """The imitated gateway's page: gauge gateway_pending_requests{namespace,workload} and counter
        gateway_requests_total{namespace,workload}."""
        return f"http://127.0.0.1:{self._port}/gateway/metrics"

    def set_load(
        self,
        namespace: str,
        workload: str,
        *,
        rps: float = 0.0,
        concurrency: int | None = None,
        slots: int = 8,
        service_time_s: float = 1.0,
        prompt_tokens: int = 100,
        output_tokens: int = 50,
        slowdown: float = 0.0,
        refuses: bool = False,
    ) -> float:
        """Offer this load from now on, instead of any other; returns the instant just before. See load.Offer."""
        offer = Offer(rps, concurrency, slots, service_time_s, prompt_tokens, output_tokens, slowdown, refuses)
        before = time.time()
        self._ask("POST", "/load", {"namespace": namespace, "workload": workload, **asdict(offer)})
        return before

    def set_fault(
        self,
        namespace: str,
        workload: str,
        kind: PageFault | str,
        pods: int | float | Sequence[str] | None = None,
    ) -> None:
        """Set a fault on all pods and those to come (None), the first n by name, a share below 1.0, or those named.

        "ok" ends it; "reset" lets counters begin anew at once and is no lasting state.
        """
        chosen = pods if pods is None or isinstance(pods, int | float) else list(pods)
        body = {"namespace": namespace, "workload": workload, "kind": PageFault(kind).value, "pods": chosen}
        self._ask("POST", "/fault", body)

    def state(self) -> dict[str, Any]:
        """Per "namespace/workload": pods → {running, waiting, served, listening, fault}, gateway_pending,
        gateway_total, lost: requests that were in flight on pods that went away, refused: those that found a full
        cache, slowest_s: what the slowest finished one took, and worker_pages: how often a page of
        a group's worker was asked for, which gets no request and shows 50 all the same."""
        answer: dict[str, Any] = self._ask("GET", "/state")
        return answer

    def history(self, namespace: str, workload: str, since: float = 0.0) -> list[tuple[float, str, int]]:
        """Every good page served: (instant, pod, in flight over the newest page of each pod, this one included)."""
        query = urlencode({"namespace": namespace, "workload": workload, "since": since})
        return [(at, pod, shown) for at, pod, shown in self._ask("GET", f"/history?{query}")]

    def first_page_with(
        self, namespace: str, workload: str, predicate: Callable[[int], bool], since: float = 0.0
    ) -> float | None:
        """When a page was first served after which readers could know that predicate(requests in flight) holds.

        first_page_with(ns, "llama", lambda in_flight: in_flight > 80): reaction time is counted from here.
        """
        return next((at for at, _, shown in self.history(namespace, workload, since) if predicate(shown)), None)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode(errors='replace')[:500]}")
        return json.loads(text)
