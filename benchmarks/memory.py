"""What the daemon keeps of 1,000 workloads of 3 pods: resident memory, stage by stage, without a control plane.

One process has the daemon's parts (all its modules, client, local copies, cycle, scraper) and is measured; another one
imitates the API server (benchmarks/cycle.Server over HTTP, lists in pages of 500, without watches: the copies list
anew) with objects as long as real ones; a third serves the pods' pages (benchmarks/pages). Not in it: TLS, watches, the
Lease, the daemon's own pages. benchmarks/scale.py has them all, and takes ten times as long.

Prints lines `figure value unit`; takes about 1 min. `--long`: templates with 30 variables, 20 arguments and 5 volumes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web

import autoscaler.cli.run  # noqa: F401 - all that the daemon imports
from autoscaler.cluster.client import connect
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.store import Store
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.specs import Operator
from autoscaler.daemon import SEARCH_EVERY
from autoscaler.signals.scraper import PodScraper
from benchmarks import pages
from benchmarks.cycle import AUTOSCALING, NAMESPACE, PODS, WORKLOADS, NoPages, Server, long_template
from tests.e2e.workload import manifest

LISTED: Final = 500  # objects in a page of a list
MANAGERS: Final = (("tidegate", 40), ("tidegate", 1), ("kube-controller-manager", 15))  # fields that each wrote
POD_CONDITIONS: Final = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
PAGES_CARRY: Final = 30  # 70 % of it is more than the pages' 16 requests in flight: nothing scales
SCRAPED_S: Final = 24.0
BAR_MIB: Final = 200 * 1e6 / 2**20  # 200 MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=1000)
    parser.add_argument("--long", action="store_true", help="templates as long as real ones")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    parent, child = multiprocessing.Pipe()
    helpers = [
        spawn.Process(target=serve_api, args=(child, options.workloads, options.long), daemon=True),
        spawn.Process(target=pages.serve, args=(child,), daemon=True),
    ]
    try:
        for each in helpers:
            each.start()
        child.close()  # so that helpers that die are an end of file here
        port = next(said for said in (parent.recv(), parent.recv()) if said != "ready")
        daemon = spawn.Process(target=daemon_parts, args=(port, options.workloads))
        daemon.start()
        daemon.join()
    finally:
        for each in helpers:
            each.kill()


# --- the API server, imitated ---


def serve_api(ready: Connection, workloads: int, long: bool) -> None:
    server = Server()
    for number in range(workloads):
        body = manifest(f"model-{number:04}", {**AUTOSCALING, "metricThreshold": PAGES_CARRY})
        body["spec"]["serving"]["metrics"] = {"port": pages.PORT}
        if long:
            body["spec"]["serving"]["deployment"]["template"] |= long_template(body)
        server.put(f"{WORKLOADS}/{body['metadata']['name']}", body)

    async def answer(request: web.Request) -> web.Response:
        body = json.loads(await request.read()) if request.can_read_body else None
        path = request.path
        if request.method == "GET" and path not in server.objects and not path.endswith("/scale"):
            found = _listed(server, path, int(request.query.get("continue", 0)))
        else:
            found = await server.call(request.method, path, body=body)
        return web.Response(body=found, content_type="application/json")

    async def run() -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def _listed(server: Server, path: str, start: int) -> bytes:
    kind = path.rpartition("/")[2]
    items = [each for at, each in server.objects.items() if at.rpartition("/")[0].endswith(f"/{kind}")]
    some = [_as_long_as_real(kind, each, start + number) for number, each in enumerate(items[start : start + LISTED])]
    more = {"continue": str(start + LISTED)} if start + LISTED < len(items) else {}
    return json.dumps({"metadata": {"resourceVersion": str(server.version), **more}, "items": some}).encode()


def _as_long_as_real(kind: str, item: Mapping[str, Any], number: int) -> dict[str, Any]:
    """With what a real API server adds to it."""
    created = {"creationTimestamp": "2026-11-21T20:00:00Z", "managedFields": list(_managed(number))}
    metadata = {**item["metadata"], **created, "uid": f"{number:08x}-7c54-4f7e-a4b9-3ed6ad8b4343"}
    if kind != "pods":
        return {**item, "metadata": {**metadata, "uid": item["metadata"]["uid"]}}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": metadata["name"], "uid": metadata["uid"]}
    metadata["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
    conditions = [
        {"type": each, "status": "True", "lastTransitionTime": "2026-11-21T20:00:00Z"} for each in POD_CONDITIONS
    ]
    return {
        **item,
        "metadata": metadata,
        "status": {**item["status"], "podIP": pages.address(number), "conditions": conditions},
    }


def _managed(number: int) -> Iterable[dict[str, Any]]:
    for manager, fields in MANAGERS:
        wrote: dict[str, Any] = {"f:spec": {f"f:field{each}": {} for each in range(fields)}}
        yield {"manager": manager, "operation": "Update", "time": "2026-11-21T20:00:00Z", "fieldsV1": wrote}


# --- the daemon's parts, measured ---


def daemon_parts(port: int, workloads: int) -> None:
    pages.allow_open_files()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCH_EVERY)
    show("memory, all modules read", memory_mib("VmRSS"), "MiB")
    asyncio.run(measured(port, workloads))


async def measured(port: int, workloads: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        client = await connect(kubeconfig(Path(directory), port))
    store, tenure = Store(client, [NAMESPACE], lambda: None), Tenure(1, client)
    scraper = PodScraper(time.time, period_s=pages.PERIOD_S)
    events, nobody = EventWriter(client, "bench"), NoPages()
    cycle = Cycle(lambda: tenure, store, scraper, nobody, events, Operator(), time.time, 1_000_000)
    while sum(1 for _ in store.pods.every()) < workloads * PODS:
        for copy in store.copies:
            await copy._list()
        await cycle.run()
        await cycle.queue.settle(cycle.queue.keys(), 120)
    show("pods", sum(1 for _ in store.pods.every()), "count")
    show("memory, all objects known and decided on", memory_mib("VmRSS"), "MiB")
    scraping = asyncio.create_task(scraper.run())
    end = time.monotonic() + SCRAPED_S
    while time.monotonic() < end:
        await cycle.run()
        await asyncio.sleep(pages.TICK_S)
        for copy in store.copies:
            await copy._list()
    show("pages read", scraper.pages_total["ok"], "count")
    show("pods at the end", sum(1 for _ in store.pods.every()), "count")
    show("memory, all pods scraped", memory_mib("VmRSS"), "MiB", bar=BAR_MIB)
    show("memory, the most at any time", memory_mib("VmHWM"), "MiB", bar=BAR_MIB)
    await cycle.queue.abandon()
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)
    await client.close()


def kubeconfig(directory: Path, port: int) -> Path:
    path = directory / "kubeconfig"
    named = {"name": "bench"}
    cluster = {**named, "cluster": {"server": f"http://127.0.0.1:{port}"}}
    user, context = {**named, "user": {"token": "none"}}, {**named, "context": {"cluster": "bench", "user": "bench"}}
    document = {"apiVersion": "v1", "kind": "Config", "current-context": "bench"}
    path.write_text(json.dumps({**document, "clusters": [cluster], "users": [user], "contexts": [context]}))
    return path


def memory_mib(which: str) -> float:
    """VmHWM: the most that was resident at any time; VmRSS: now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def show(figure: str, value: float, unit: str, bar: float | None = None) -> None:
    judged = "" if bar is None else f"  (bar {bar:.4g}: {'met' if value <= bar else 'MISSED'})"
    print(f"{figure:45} {value:10.4g} {unit}{judged}", flush=True)


if __name__ == "__main__":
    main()
