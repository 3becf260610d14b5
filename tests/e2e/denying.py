"""A real admission webhook that refuses the objects of one kind with one image in one namespace."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.realcluster import pki
from tests.realcluster.cluster import Cluster

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@contextmanager
def denying(
    cluster: Cluster, namespace: str, directory: Path, image: str, resource: str = "v1/pods"
) -> Iterator[list[str]]:
    """Names (or their beginnings) of what was refused so far. `resource`: e.g. apps/v1/deployments."""
    refused: list[str] = []
    authority = pki.new_authority("tidegate-test-denying-ca")
    certificate, key = pki.issue(authority, "denying", hosts=("127.0.0.1",)).write(directory, "denying")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(image, refused))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, name="denying")
    thread.start()
    name = f"denying-{namespace}"
    try:
        _register(cluster, name, namespace, f"https://127.0.0.1:{server.server_port}/", authority.pem, resource)
        yield refused
    finally:
        cluster.request("DELETE", f"{HOOKS}/{name}")
        server.shutdown()
        server.server_close()
        thread.join()


def _register(cluster: Cluster, name: str, namespace: str, url: str, ca: str, resource: str) -> None:
    group_version, _, plural = resource.rpartition("/")
    group, _, version = group_version.rpartition("/")
    hook = {
        "name": "denying.test.tidegate.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "clientConfig": {"url": url, "caBundle": base64.b64encode(ca.encode()).decode()},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [{"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE"], "resources": [plural]}],
    }
    cluster.create(HOOKS, {"metadata": {"name": name}, "webhooks": [hook]})


def _handler(image: str, refused: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(_answer(review["request"], image, refused)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    return Handler


def _answer(request: dict[str, Any], image: str, refused: list[str]) -> dict[str, Any]:
    made = request["object"]
    allowed = json.dumps(image) not in json.dumps(made)
    response: dict[str, Any] = {"uid": request["uid"], "allowed": allowed}
    if not allowed:
        refused.append(made["metadata"].get("name") or made["metadata"].get("generateName", ""))
        response["status"] = {"message": f"{image} is not allowed here"}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
