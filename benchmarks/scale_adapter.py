"""An imitation of prometheus-adapter for benchmarks/scale.py: the API custom.metrics.k8s.io/v1beta2, behind the real
aggregation layer.

It flatters the HorizontalPodAutoscaler: the real adapter asks a Prometheus that scraped the pods some time ago; this
one answers with each pod's true value of this instant. It knows one metric and selectors of one label, and trusts
whoever reaches it (the real one would check the front proxy's certificate).
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from benchmarks.scale_pods import SERVE, Imitation, Loads, control, follow, listen, started_with
from tests.realcluster import pki
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver_watch import ApiAccess, PodWatch

GROUP: Final = "custom.metrics.k8s.io"
VERSION: Final = "v1beta2"
METRIC: Final = "requests_in_flight"
SERVICE: Final = "imitated-prometheus-adapter"


def adapter(access: ApiAccess, directory: Path) -> Imitation:
    """The process, with a certificate for its Service in `directory`; enter it, then `register` it."""
    authority = pki.new_authority("imitated-adapter-ca")
    authority.write(directory, "adapter-ca")
    certificate, key = pki.issue(authority, SERVICE, hosts=(_host(str(access.namespace)),)).write(directory, "adapter")
    log = directory / "adapter.log"
    return Imitation("benchmarks.scale_adapter", access, log, certificate=str(certificate), key=str(key))


def register(cluster: Cluster, namespace: str, port: int, directory: Path) -> None:
    """Service (a name for this machine) and APIService; returns when the API server trusts what it finds there."""
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": SERVICE}, "spec": spec})
    name = f"{VERSION}.{GROUP}"
    body = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": namespace, "name": SERVICE, "port": port},
            "caBundle": base64.b64encode((directory / "adapter-ca.crt").read_bytes()).decode(),
        },
    }
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    cluster.create(path, body)

    def available() -> bool:
        conditions = cluster.get(f"{path}/{name}").get("status", {}).get("conditions", ())
        assert [each["status"] for each in conditions if each["type"] == "Available"] == ["True"], conditions
        return True

    cluster.wait_for(available, f"APIService {name} to be available", timeout_s=60)


def _host(namespace: str) -> str:
    return f"{SERVICE}.{namespace}.svc"


def api(loads: Loads) -> web.Application:
    """What the HorizontalPodAutoscaler's client asks for."""

    async def resources(_: web.Request) -> web.Response:
        metric = {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True}
        metric |= {"kind": "MetricValueList", "verbs": ["get"]}
        answer = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
        return web.json_response({**answer, "resources": [metric]})

    async def values(request: web.Request) -> web.Response:
        _, _, workload = request.query.get("labelSelector", "").partition("=")
        namespace = request.match_info["namespace"]
        loads.shown(workload)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            value_of(namespace, pod.name, loads.in_flight[workload, pod.name], now) for pod in loads.pods_of(workload)
        ]
        answer = {"kind": "MetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}
        return web.json_response(answer)

    app = web.Application()
    root = f"/apis/{GROUP}/{VERSION}"
    app.add_routes([web.get(root, resources), web.get(f"{root}/namespaces/{{namespace}}/pods/*/{METRIC}", values)])
    return app


def value_of(namespace: str, pod: str, value: int, now: str) -> dict[str, Any]:
    return {
        "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "apiVersion": "/v1"},
        "metric": {"name": METRIC},
        "timestamp": now,
        "value": str(value),
    }


async def main() -> None:
    given = started_with()
    watch, loads = PodWatch(ApiAccess(**given["access"])), Loads()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(given["certificate"], given["key"])
    runner = web.AppRunner(api(loads), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    ports = {"control": await listen(control(loads)), "api": runner.addresses[0][1]}
    print(json.dumps(ports), flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run())
        group.create_task(follow(watch, loads))


if __name__ == "__main__" and SERVE in sys.argv:  # started by scale.py; alone it measures nothing
    asyncio.run(main())
