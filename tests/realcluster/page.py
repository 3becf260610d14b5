"""Metrics pages that a test writes itself: an imitated DCGM exporter, an imitated gateway.

Prometheus scrapes them as static targets (`Prometheus(..., more_jobs=(page.job("dcgm"),))`). What stands on them is
made anew for every scrape, so a test changes it by changing what `text` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

Gpu = tuple[float, float]  # busy percent, MiB in use


def dcgm_page(pods: Mapping[tuple[str, str], Sequence[Gpu]]) -> str:
    """As NVIDIA's exporter prints: a line for each GPU, with the namespace and pod that use it."""
    utilization, memory = ["# TYPE DCGM_FI_DEV_GPU_UTIL gauge"], ["# TYPE DCGM_FI_DEV_FB_USED gauge"]
    for (namespace, pod), gpus in pods.items():
        for number, (percent, mebibytes) in enumerate(gpus):
            user = f'namespace="{namespace}",pod="{pod}",container="vllm"'
            labels = f'gpu="{number}",UUID="GPU-{pod}-{number}",{user}'
            utilization.append(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {percent:g}")
            memory.append(f"DCGM_FI_DEV_FB_USED{{{labels}}} {mebibytes:g}")
    return "\n".join([*utilization, *memory]) + "\n"


class Page:
    """One page on loopback."""

    def __init__(self, text: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def job(self, name: str) -> dict[str, Any]:
        """A scrape job as the Prometheus Operator writes it: `namespace` and `pod` are those of the exporter's pod."""
        labels = {"namespace": "monitoring", "pod": f"{name}-0"}
        return {"job_name": name, "static_configs": [{"targets": [self.address], "labels": labels}]}

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
