"""Label selectors: what they find is what the real API server finds."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from autoscaler.cluster.selectors import MOST_CHARACTERS, matches, parse
from tests.realcluster.cluster import Cluster

LABELS: dict[str, dict[str, str]] = {
    "bare": {},
    "nim": {"app": "nim"},
    "old-nim": {"app": "nim", "old": ""},
    "gpu": {"app": "vllm", "tier": "gpu", "example.com/zone": "a.b_c-1"},
    "cpu": {"app": "vllm", "tier": "cpu"},
    "numbered": {"app": "vllm", "rank": "5"},
    "named": {"rank": "five"},
}
FOUND = {
    "app=nim": {"nim", "old-nim"},
    "app==nim,!old": {"nim"},
    "app = vllm , tier": {"gpu", "cpu"},
    "app!=nim": {"bare", "gpu", "cpu", "numbered", "named"},
    "tier in (gpu, cpu)": {"gpu", "cpu"},
    "tier in (gpu),app in (vllm,nim)": {"gpu"},
    "tier notin (gpu)": {"bare", "nim", "old-nim", "cpu", "numbered", "named"},
    "old=": {"old-nim"},
    "example.com/zone=a.b_c-1": {"gpu"},
    "!app": {"bare", "named"},
    "rank>4": {"numbered"},
    "rank < 5": set(),
    "app=nim,app=vllm": set(),
}


@pytest.mark.parametrize("text", FOUND)
def test_a_selector_finds(text: str) -> None:
    selector = parse(text)
    assert {name for name, labels in LABELS.items() if matches(selector, labels)} == FOUND[text]


def test_pods_without_any_label_are_read_as_such() -> None:
    assert matches(parse("!app"), None)
    assert not matches(parse("app"), None)


@pytest.mark.parametrize(
    "text", ["", "  ", "a=b c", "a in b", "=x", "a,,b", "a>x", "a=b;c", "a=" + "b" * MOST_CHARACTERS]
)
def test_what_is_no_selector_is_refused_and_selects_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"selector|requirement"):
        parse(text)


def test_the_api_server_finds_the_same(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name, labels in LABELS.items():
        cluster.create(path, {"metadata": {"name": name, "labels": labels}})
    for text, found in FOUND.items():
        items = cluster.get(f"{path}?labelSelector={quote(text)}")["items"]
        assert {each["metadata"]["name"] for each in items} - {"kube-root-ca.crt"} == found, text
