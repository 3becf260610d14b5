"""Each fault once, against the real API server: what the server got, what the client got, what was recorded."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import (
    WRITES,
    Answer,
    CommitThenTimeOut,
    Delay,
    Drop,
    Duplicate,
    Fault,
    HangUp,
    Hold,
    Rule,
    Skew,
)


class Client:
    """Asks through the proxy, as admin, with a short patience."""

    def __init__(self, proxy: FaultProxy, cluster: Cluster, namespace: str) -> None:
        self._proxy = proxy
        self._cluster = cluster
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"

    def ask(self, method: str, path: str, body: object = None, timeout_s: float = 5.0) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(str(urlsplit(self._proxy.url).netloc), timeout=timeout_s)
        headers = {"Authorization": f"Bearer {self._cluster.admin_token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        return connection.getresponse()

    def create(self, name: str, timeout_s: float = 5.0) -> tuple[int, dict[str, Any]]:
        answer = self.ask("POST", self.path, {"metadata": {"name": name}}, timeout_s)
        return answer.status, json.loads(answer.read())

    def stored(self, name: str) -> bool:
        """Past the proxy: has the server got it?"""
        return self._cluster.request("GET", f"{self.path}/{name}")[0] == 200


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.url, cluster.ca_path) as running:
        yield running


@pytest.fixture
def client(proxy: FaultProxy, cluster: Cluster, namespace: str) -> Client:
    return Client(proxy, cluster, namespace)


def on_create(fault: Fault, **more: Any) -> Rule:
    return Rule(fault, methods=WRITES, path="/configmaps", **more)


def test_without_a_rule_everything_passes_and_is_recorded(proxy: FaultProxy, client: Client) -> None:
    assert client.create("a")[0] == 201
    assert client.ask("GET", f"{client.path}/a?pretty=false").status == 200
    assert client.ask("GET", f"{client.path}/none").status == 404
    first, second, third = proxy.exchanges()
    assert (first.method, first.path, first.json()) == ("POST", client.path, {"metadata": {"name": "a"}})
    assert (first.is_write, first.status, first.server_status, first.fault) == (True, 201, 201, "")
    assert (second.path, second.query, second.is_write) == (f"{client.path}/a", "pretty=false", False)
    assert (third.status, third.ended_at is not None) == (404, True)
    proxy.forget()
    assert proxy.exchanges() == ()


def test_an_answer_is_made_up_and_the_server_never_hears(proxy: FaultProxy, client: Client) -> None:
    for status in (409, 410, 500, 503):
        proxy.arm(on_create(Answer(status, "Made")))
        found, body = client.create("a")
        assert (found, body["kind"], body["code"], body["reason"]) == (status, "Status", status, "Made")
    proxy.arm(on_create(Answer(429, "TooManyRequests", retry_after_s=3)))
    told = client.ask("POST", client.path, {"metadata": {"name": "a"}})
    assert (told.status, told.headers["Retry-After"]) == (429, "3")
    assert not client.stored("a")
    assert client.create("a")[0] == 201, "each rule strikes once"
    assert [each.server_status for each in proxy.exchanges()] == [None] * 5 + [201]


def test_a_dropped_write_is_lost_on_the_way(proxy: FaultProxy, client: Client) -> None:
    called = threading.Event()
    armed = proxy.arm(on_create(Drop(then=called.set)))
    with pytest.raises(TimeoutError):
        client.create("a", timeout_s=0.5)
    ended = armed.wait_over()
    assert (ended.server_status, ended.status, ended.fault) == (None, None, "Drop")
    assert called.is_set()
    assert not client.stored("a")


def test_a_commit_that_times_out_is_done_and_unknown(proxy: FaultProxy, client: Client) -> None:
    stored: list[bool] = []
    armed = proxy.arm(on_create(CommitThenTimeOut(then=lambda: stored.append(client.stored("a")))))
    with pytest.raises(TimeoutError):
        client.create("a", timeout_s=1)
    ended = armed.wait_over()
    assert (ended.server_status, ended.status) == (201, None)
    assert stored == [True]


def test_hanging_up_with_and_without_a_commit(proxy: FaultProxy, client: Client) -> None:
    for name, commit in (("done", True), ("lost", False)):
        proxy.arm(on_create(HangUp(commit)))
        with pytest.raises(ConnectionError):
            client.create(name)
        assert client.stored(name) is commit


def test_a_held_write_goes_on_when_released_even_without_its_client(proxy: FaultProxy, client: Client) -> None:
    armed = proxy.arm(on_create(Hold()))
    with pytest.raises(TimeoutError):
        client.create("a", timeout_s=0.5)
    assert armed.wait_struck().server_status is None
    assert not client.stored("a")
    armed.release()
    assert armed.wait_over().server_status == 201
    assert client.stored("a")


def test_a_delayed_write_arrives_late(proxy: FaultProxy, client: Client) -> None:
    proxy.arm(on_create(Delay(0.7)))
    began = time.monotonic()
    assert client.create("a")[0] == 201
    assert 0.7 <= time.monotonic() - began < 3


def test_a_duplicate_reaches_the_server_twice(proxy: FaultProxy, client: Client) -> None:
    proxy.arm(on_create(Duplicate()))
    assert client.create("a")[0] == 201
    (exchange,) = proxy.exchanges()
    assert (exchange.status, exchange.server_status) == (201, 409), "the second one met the first one's object"


def test_a_rule_strikes_the_nth_match_and_no_other(proxy: FaultProxy, client: Client) -> None:
    proxy.arm(on_create(Answer(500), nth=2, times=2, where=lambda exchange: b"counted" in exchange.body))
    names = ("counted-1", "other", "counted-2", "counted-3", "counted-4")
    assert [client.create(name)[0] for name in names] == [201, 201, 500, 500, 201]
    for_ever = proxy.arm(on_create(Answer(503), times=None))
    assert [client.create("x")[0] for _ in range(3)] == [503] * 3
    proxy.disarm(for_ever)
    assert client.create("x")[0] == 201


def test_a_watch_is_streamed_as_it_comes_and_can_be_cut(proxy: FaultProxy, client: Client) -> None:
    watch = f"{client.path}?watch=true&fieldSelector=metadata.name%3Da"
    streams = [client.ask("GET", watch) for _ in range(2)]
    client.create("a")
    for stream in streams:
        event = json.loads(stream.readline())
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert proxy.cut_watches("/secrets") == 0
    assert proxy.cut_watches("/configmaps", gone=True) == 2
    for stream in streams:
        event = json.loads(stream.readline())
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert stream.readline() == b""
    again = client.ask("GET", watch)
    assert proxy.cut_watches() == 1
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        again.read()


def test_a_door_that_is_closed_refuses_and_is_opened_at_the_same_address(proxy: FaultProxy, client: Client) -> None:
    stream = client.ask("GET", f"{client.path}?watch=true&fieldSelector=metadata.name%3Da")
    held = proxy.arm(on_create(Hold()))
    with pytest.raises(TimeoutError):
        client.create("a", timeout_s=0.5)
    assert proxy.refuse() >= 1
    assert proxy.refuse() == 0
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        stream.read()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            client.create("b")
    held.release()
    assert held.wait_over().server_status == 201, "what was asked before arrives"
    proxy.accept()
    assert client.create("b")[0] == 201
    assert [each.status for each in proxy.exchanges() if each.is_write] == [201, 201], "what was refused was not asked"


@pytest.mark.parametrize("ahead_s", [300, -300])
def test_a_skewed_server_dates_everything_by_its_own_clock(proxy: FaultProxy, client: Client, ahead_s: float) -> None:
    stored = client.create("a")[1]["metadata"]
    proxy.arm(Rule(Skew(ahead_s), times=None))
    answer = client.ask("GET", f"{client.path}/a")
    body = json.loads(answer.read())

    def ahead_of(instant: str, other: str) -> float:
        return (datetime.fromisoformat(instant) - datetime.fromisoformat(other)).total_seconds()

    assert ahead_of(body["metadata"]["creationTimestamp"], stored["creationTimestamp"]) == ahead_s
    assert {**body["metadata"], "creationTimestamp": ""} == {**stored, "creationTimestamp": ""}
    dated = parsedate_to_datetime(str(answer.headers["Date"])).timestamp()
    assert abs(dated - time.time() - ahead_s) < 60
    watch = client.ask("GET", f"{client.path}?watch=true&fieldSelector=metadata.name%3Da")
    shown = json.loads(watch.readline())["object"]["metadata"]
    assert shown == body["metadata"]
    client.create("other")
    proxy.disarm()
    assert json.loads(client.ask("GET", f"{client.path}/a").read())["metadata"] == stored


def test_a_server_that_is_gone_is_no_answer(client: Client, proxy: FaultProxy, cluster: Cluster) -> None:
    with FaultProxy("https://127.0.0.1:9", cluster.ca_path) as lonely:
        elsewhere = Client(lonely, cluster, "default")
        with pytest.raises(ConnectionError):
            elsewhere.create("a")
        assert lonely.exchanges()[0].server_status is None
