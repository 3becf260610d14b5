"""Every state of pods and ledgers that the API server ever had, not only those that somebody looked at.

All objects of a control plane share one sequence of versions, so the changes of pods and of ledgers, each watched by
itself, can be put into the order in which they were made.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.updating import GPU, OWNER_REVISION
from tests.realcluster.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Change:
    """One object as it was from this version on; None: it is gone."""

    version: int
    uid: str
    body: dict[str, Any] | None


class Followed:
    """All changes of one collection, from its first list on."""

    def __init__(self, cluster: Cluster, path: str) -> None:
        self._cluster, self._path = cluster, path
        first = cluster.wait_for(lambda: cluster.get(path), f"{path} to be listed")
        self.since = self.until = int(first["metadata"]["resourceVersion"])
        self.changes = [Change(self.since, each["metadata"]["uid"], each) for each in first["items"]]
        self._socket, self._response = cluster.wait_for(self._watch, f"{path} to be watched")
        self._thread = threading.Thread(target=self._follow, name=path)
        self._thread.start()

    def _watch(self) -> tuple[socket.socket, http.client.HTTPResponse]:
        """AssertionError where the server is not ready for it."""
        address = urlsplit(self._cluster.url)
        tls = ssl.create_default_context(cafile=str(self._cluster.ca_path))
        connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls)
        connection.connect()
        target = f"{self._path}{'&' if '?' in self._path else '?'}watch=true&resourceVersion={self.since}"
        connection.request("GET", target, headers={"Authorization": f"Bearer {self._cluster.admin_token}"})
        response = connection.getresponse()
        if response.status != 200:
            connection.close()
        assert response.status == 200, f"{target}: {response.status}"
        return connection.sock, response

    def _follow(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):  # it was ended
            while line := self._response.readline():
                event = json.loads(line)
                assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
                meta = event["object"]["metadata"]
                body = None if event["type"] == "DELETED" else event["object"]
                self.changes.append(Change(int(meta["resourceVersion"]), meta["uid"], body))

    def catch_up(self) -> None:
        """Returns when everything up to now is known."""
        listed = self._cluster.wait_for(lambda: self._cluster.get(self._path), f"{self._path} to be listed")
        now = {each["metadata"]["uid"]: int(each["metadata"]["resourceVersion"]) for each in listed["items"]}

        def followed() -> bool:
            known = list(self.changes)
            last = {each.uid: each.version for each in known if each.body is not None}
            gone = {each.uid for each in known if each.body is None}
            seen = all(uid in gone or last.get(uid, 0) >= version for uid, version in now.items())
            return seen and last.keys() <= gone | now.keys()

        self._cluster.wait_for(followed, f"all changes of {self._path}")
        self.until = int(listed["metadata"]["resourceVersion"])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._response.close()
        self._socket.close()


class Audit:
    """Of a namespace, from its beginning until `end`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._pods = Followed(cluster, f"/api/v1/namespaces/{namespace}/pods?labelSelector={OWNER_REVISION}")
        self._ledgers = Followed(cluster, f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/quotaledgers")

    def catch_up(self) -> None:
        self._pods.catch_up()
        self._ledgers.catch_up()

    def close(self) -> None:
        self._pods.close()
        self._ledgers.close()

    def states(self) -> list[tuple[Counter[str], Counter[str]]]:
        """GPUs of pods and GPUs held, by revision, after every change up to when both were last caught up with."""
        since, until = max(self._pods.since, self._ledgers.since), min(self._pods.until, self._ledgers.until)
        pods: dict[str, dict[str, Any]] = {}
        ledgers: dict[str, dict[str, Any]] = {}
        found = []
        tagged = [(each, pods) for each in self._pods.changes] + [(each, ledgers) for each in self._ledgers.changes]
        for change, into in sorted(tagged, key=lambda each: each[0].version):
            if change.body is None:
                into.pop(change.uid, None)
            else:
                into[change.uid] = change.body
            if since < change.version <= until:
                found.append((in_pods(pods.values()), in_ledgers(ledgers.values())))
        return found


def in_pods(pods: Iterable[dict[str, Any]]) -> Counter[str]:
    """GPUs of pods that have not ended, by revision."""
    found = Counter[str]()
    for pod in pods:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            limits = (each.get("resources", {}).get("limits", {}) for each in pod["spec"]["containers"])
            found[pod["metadata"]["labels"][OWNER_REVISION]] += sum(int(each.get(GPU, 0)) for each in limits)
    return found


def in_ledgers(ledgers: Iterable[dict[str, Any]]) -> Counter[str]:
    """GPUs held, by revision."""
    found = Counter[str]()
    for hold in (hold for each in ledgers for hold in each["spec"].get("holds") or ()):
        found[hold["revision"]] += hold["vector"].get(GPU, 0) // 1000
    return found
