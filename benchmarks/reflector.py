"""What the copies of the cluster cost: 10,000 pods listed, then events followed, beside kubernetes_asyncio's own.

Prints lines `figure value unit`. Takes about 30 s. The imitated API server runs in a process of its own and sends
answers made beforehand; each client runs in a fresh process, so that peak memory is its own.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from kubernetes_asyncio import client as kubernetes_client
from kubernetes_asyncio import watch as kubernetes_watch

from autoscaler.cluster.client import KubernetesClient
from autoscaler.cluster.resources import OWNER_REVISION_LABEL, WORKLOAD_LABEL
from autoscaler.cluster.store import Store

PODS: Final = 10_000
PEERS_PODS: Final = 1_000  # the peer needs 10 s for 10,000
REVISIONS: Final = 1_000
NAMESPACE: Final = "models"
EVENTS: Final = 30_000
ROUNDS: Final = 5
PEERS_EVENTS: Final = 3_000
BLOCK: Final = 64  # events in one HTTP chunk
ROUND: Final = b"@@"
SPAWN: Final = multiprocessing.get_context("spawn")

Result = dict[str, float]


def main() -> None:
    parent, child = SPAWN.Pipe()
    server = SPAWN.Process(target=serve, args=(child,), daemon=True)
    server.start()
    port, pod_bytes = parent.recv()
    try:
        show("size of a pod", pod_bytes / 1024, "KiB")
        ours = measured(follow_with_store, port)
        theirs = measured(follow_with_peer, port)
    finally:
        server.kill()
        server.join()
    show(f"listing {PODS} pods", ours["list_s"], "s")
    show(f"listing {PODS} pods, CPU", ours["list_cpu_s"], "s")
    show(f"peak memory of the process, {PODS} pods listed", ours["list_mib"], "MiB")
    show("memory of the process before", ours["start_mib"], "MiB")
    show("watch events, index maintained", ours["events_per_s"], "1/s")
    show("CPU per watch event", ours["event_us"], "us")
    show("longest time that the loop stood still", ours["lag_ms"], "ms")
    show(f"listing {PODS} pods again, none changed", ours["relist_s"], "s")
    show("peak memory of the process after that", ours["relist_mib"], "MiB")
    show(f"listing {PODS} pods again, all changed", ours["renewal_s"], "s")
    show("peak memory of the process after all", ours["renewal_mib"], "MiB")
    show(f"pods_by_revision() at {PODS} pods", ours["index_us"], "us")
    show(f"pods_by_revision() and the pods of {REVISIONS} revisions", ours["look_ups_us"], "us")
    show(f"kubernetes_asyncio: listing {PEERS_PODS} pods, typed", theirs["list_s"], "s")
    show(f"kubernetes_asyncio: peak memory of the process, {PEERS_PODS} pods", theirs["list_mib"], "MiB")
    show(f"kubernetes_asyncio: watch events, typed, {PEERS_EVENTS} of them", theirs["events_per_s"], "1/s")
    show("listing per pod, kubernetes_asyncio / ours", PODS * theirs["list_s"] / PEERS_PODS / ours["list_s"], "times")
    show("watch events, ours / kubernetes_asyncio", ours["events_per_s"] / theirs["events_per_s"], "times")


def measured(what: Callable[[int, Connection], None], port: int) -> Result:
    """What it sends from a process of its own."""
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=what, args=(port, child))
    process.start()
    child.close()
    result: Result = parent.recv()
    process.join()
    return result


# --- ours ---


def follow_with_store(port: int, results: Connection) -> None:
    results.send(asyncio.run(_follow_with_store(port)))


async def _follow_with_store(port: int) -> Result:
    """A whole store; the other kinds have no objects. Of times the best round: other processes only make it slower."""
    result: Result = {"start_mib": peak_mib()}
    client = KubernetesClient(kubernetes_client.ApiClient(configuration(port)))
    store, *first = await listed(client)
    result["list_mib"] = peak_mib()
    [pods] = store.pods.values()
    result |= {"relist_s": await took_s(pods._list()), "relist_mib": peak_mib()}
    result |= await followed(store)
    result |= index_costs(store)
    result |= {"renewal_s": await took_s(pods._list()), "renewal_mib": peak_mib()}
    rounds = [first, *[(await listed(client))[1:] for _ in range(ROUNDS - 1)]]
    result |= {"list_s": min(wall_s for wall_s, _ in rounds), "list_cpu_s": min(cpu_s for _, cpu_s in rounds)}
    await client.close()
    return result


async def listed(client: KubernetesClient) -> tuple[Store, float, float]:
    """A store that has just been synced; the seconds it took, and those of CPU."""
    store = Store(client, (), lambda: None)
    [pods] = store.pods.values()
    began, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(store.run())
    await pods.synced.wait()
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await stop(running)
    assert len(pods) == PODS
    return store, took_s, cpu_s


async def followed(store: Store) -> Result:
    [pods] = store.pods.values()
    running = asyncio.create_task(store.run())
    lags = asyncio.create_task(longest_lag_s())
    await until(lambda: pods.events >= BLOCK)  # the watch is open and the server sends
    rates, costs_us = [], []
    for _ in range(ROUNDS):
        events, began, cpu = pods.events, time.perf_counter(), time.process_time()
        await until(lambda end=events + EVENTS: pods.events >= end)  # type: ignore[misc]
        events = pods.events - events
        rates.append(events / (time.perf_counter() - began))
        costs_us.append(1e6 * (time.process_time() - cpu) / events)
    lags.cancel()
    await stop(running)
    return {"events_per_s": max(rates), "event_us": min(costs_us), "lag_ms": 1000 * await lags}


async def stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def took_s(work: Coroutine[Any, Any, None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def index_costs(store: Store) -> Result:
    """Once a cycle, and with every group looked up."""
    assert sum(len(group) for group in store.pods_by_revision().values()) == PODS
    keys = [(NAMESPACE, revision_name(number)) for number in range(REVISIONS)]

    def look_up() -> None:
        grouped = store.pods_by_revision()
        for key in keys:
            grouped.get(key, [])

    return {"index_us": best_us(store.pods_by_revision), "look_ups_us": best_us(look_up)}


async def longest_lag_s() -> float:
    """How late a timer of 1 ms ever came, until cancelled."""
    longest_s = 0.0
    try:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.perf_counter() - began - 0.001)
    except asyncio.CancelledError:
        return longest_s


async def until(predicate: Callable[[], bool]) -> None:
    while not predicate():  # noqa: ASYNC110 - an event would cost what is measured
        await asyncio.sleep(0.001)


# --- the peer ---


def follow_with_peer(port: int, results: Connection) -> None:
    results.send(asyncio.run(_follow_with_peer(port)))


async def _follow_with_peer(port: int) -> Result:
    """kubernetes_asyncio's typed list, one page, and its typed Watch."""
    api = kubernetes_client.ApiClient(configuration(port))
    pods = kubernetes_client.CoreV1Api(api)
    began = time.perf_counter()
    listed = await pods.list_pod_for_all_namespaces(limit=PEERS_PODS)
    result: Result = {"list_s": time.perf_counter() - began, "list_mib": peak_mib()}
    assert len(listed.items) == PEERS_PODS
    watch = kubernetes_watch.Watch()
    events = 0
    version = listed.metadata.resource_version
    async for _ in watch.stream(pods.list_pod_for_all_namespaces, resource_version=version, timeout_seconds=60):
        if events == 0:
            began = time.perf_counter()
        events += 1
        if events > PEERS_EVENTS:
            break
    result["events_per_s"] = PEERS_EVENTS / (time.perf_counter() - began)
    await watch.close()
    await api.close()
    return result


def configuration(port: int) -> Any:
    made = kubernetes_client.Configuration()
    made.host = f"http://127.0.0.1:{port}"
    return made


# --- the imitated server ---


def serve(ready: Connection) -> None:
    """Answers lists page by page; a watch of pods gets events as fast as it reads them."""
    pods = [json.dumps(pod(number, str(number + 1)), separators=(",", ":")).encode() for number in range(PODS)]
    blocks = list(_blocks())

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.writable = asyncio.Event()
            self.writable.set()
            self.sending: asyncio.Task[None] | None = None

        def pause_writing(self) -> None:
            self.writable.clear()

        def resume_writing(self) -> None:
            self.writable.set()

        def connection_lost(self, error: Exception | None) -> None:
            self.writable.set()

        def data_received(self, data: bytes) -> None:
            target = urlsplit(data.split(b" ", 2)[1].decode())
            query = {key: values[0] for key, values in parse_qs(target.query).items()}
            of_pods = target.path.endswith("/pods")
            if "watch" not in query:
                self.transport.write(_page(pods if of_pods else [], query))
                return
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if of_pods:
                self.sending = asyncio.create_task(self.send())

        async def send(self) -> None:
            for each in range(10, 100):
                for block in blocks:
                    await self.writable.wait()
                    if self.transport.is_closing():
                        return
                    self.transport.write(block.replace(ROUND, b"%d" % each))

    async def listen() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        ready.send((server.sockets[0].getsockname()[1], len(pods[0])))
        await asyncio.Event().wait()

    asyncio.run(listen())


def _blocks() -> Iterator[bytes]:
    """HTTP chunks of one event per pod, in which ROUND stands for the first two digits of the versions."""
    for first in range(0, PODS, BLOCK):
        lines = b"".join(_event(number) for number in range(first, min(PODS, first + BLOCK)))
        yield f"{len(lines):x}\r\n".encode() + lines + b"\r\n"


def _event(number: int) -> bytes:
    """A pod that changed; in the first round every hundredth one changes its revision, too."""
    changed = pod(number, f"{ROUND.decode()}{number:08}", moved=int(number % 100 == 0))
    return json.dumps({"type": "MODIFIED", "object": changed}, separators=(",", ":")).encode() + b"\n"


def _page(items: list[bytes], query: dict[str, str]) -> bytes:
    first, limit = int(query.get("continue", "0")), int(query["limit"])
    following = str(first + limit) if first + limit < len(items) and limit != PEERS_PODS else ""
    metadata = json.dumps({"resourceVersion": str(PODS), "continue": following}).encode()
    page = items[first : first + limit]
    body = b'{"kind":"PodList","apiVersion":"v1","metadata":' + metadata + b',"items":[' + b",".join(page) + b"]}"
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def revision_name(number: int) -> str:
    return f"workload-{number}-5d8f7c9b4"


def pod(number: int, version: str, moved: int = 0) -> dict[str, Any]:
    """A pod of about 7 KB, as an inference server's is: most of it is what we do not decode."""
    revision = (number + moved) % REVISIONS
    labels = {WORKLOAD_LABEL: f"workload-{revision}", OWNER_REVISION_LABEL: revision_name(revision)}
    conditions = ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": f"{revision_name(number % REVISIONS)}-{number}",
            "namespace": NAMESPACE,
            "uid": f"00000000-0000-4000-8000-{number:012}",
            "resourceVersion": version,
            "creationTimestamp": "2026-11-21T12:00:00Z",
            "labels": labels,
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
            ],
            "managedFields": [
                {"manager": "m", "operation": "Update", "fieldsV1": {f"f:field-{n}": {} for n in range(60)}}
            ],
        },
        "spec": {
            "nodeName": f"gpu-{number % 500}",
            "containers": [
                {
                    "name": "engine",
                    "image": "vllm",
                    "args": [f"--option-{n}=value" for n in range(40)],
                    "env": [{"name": f"VARIABLE_{n}", "value": "some value of it"} for n in range(85)],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": "2026-11-21T12:00:00Z"} for each in conditions
            ],
        },
    }


# --- measuring ---


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best_us(call: Callable[[], object]) -> float:
    """The best of twenty calls, in microseconds: other processes only ever make it slower."""
    took = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return 1e6 * min(took)


def show(figure: str, value: float, unit: str) -> None:
    print(f"{figure} {value:.3g} {unit}" if value < 1000 else f"{figure} {value:.0f} {unit}", flush=True)


if __name__ == "__main__":
    main()
