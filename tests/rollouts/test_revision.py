"""Revision identity: content names it; upgrading Tidegate must not."""

from __future__ import annotations

from typing import Any

import pytest

from rollouts.revision import digest_of, identify, identity_of

SERVING: dict[str, Any] = {
    "port": 8000,
    "initializationTimeoutSeconds": 600,
    "deployment": {
        "template": {
            "metadata": {"labels": {"team": "ml"}},
            "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11", "args": ["--model", "llama"]}]},
        }
    },
}

GROUPS: dict[str, Any] = {
    "port": 8000,
    "leaderWorkerSet": {
        "size": 2,
        "workerTemplate": SERVING["deployment"]["template"],
        "restartPolicy": "RecreateGroupOnPodRestart",
    },
}

GOLDEN = {
    "0.1.0": "llama-3-70b-afe3c12c",
}
GOLDEN_GROUPS = {
    "0.1.0": "llama-3-70b-54be5a07",
}
TOPOLOGY = "leaderworkerset.sigs.k8s.io/exclusive-topology"


def test_the_golden_name_of_each_release_never_changes() -> None:
    revision, collisions = identify("llama-3-70b", identity_of(SERVING), {}, 0)
    assert collisions == 0
    assert set(GOLDEN.values()) == {revision.name}
    groups, _ = identify("llama-3-70b", identity_of(GROUPS, {"other": "x"}), {}, 0)
    assert set(GOLDEN_GROUPS.values()) == {groups.name}


@pytest.mark.parametrize(
    "change",
    [
        {"port": 9000},
        {"protocol": "grpc"},
        {"engine": "vllm"},
        {"metrics": {"path": "/m"}},
        {"deployment": {"template": {"spec": {"containers": []}}}},
    ],
)
def test_what_makes_a_model_server_makes_a_revision(change: dict[str, Any]) -> None:
    assert digest_of(identity_of({**SERVING, **change})) != digest_of(identity_of(SERVING))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 3},
        {"leaderTemplate": {"spec": {"containers": []}}},
        {"workerTemplate": {"spec": {"containers": []}}},
        {"startupPolicy": "LeaderReady"},
        {"restartPolicy": "None"},
        {"subGroupPolicy": {"subGroupSize": 2}},
        {"networkConfig": {"subdomainPolicy": "Shared"}},
    ],
)
def test_what_makes_a_group_makes_a_revision(change: dict[str, Any]) -> None:
    changed = {**GROUPS, "leaderWorkerSet": {**GROUPS["leaderWorkerSet"], **change}}
    assert digest_of(identity_of(changed)) != digest_of(identity_of(GROUPS))


def test_where_a_group_is_placed_makes_a_revision_and_no_other_annotation_does() -> None:
    placed = identity_of(GROUPS, {TOPOLOGY: "rack", "other": "x"})
    assert placed == {**GROUPS, "annotations": {TOPOLOGY: "rack"}}
    assert identity_of(GROUPS, {"other": "x"}) == identity_of(GROUPS)
    assert identity_of(SERVING, {TOPOLOGY: "rack"}) == identity_of(SERVING), "no group, no placement of one"


def test_a_timeout_alone_makes_no_revision() -> None:
    assert identity_of({**SERVING, "initializationTimeoutSeconds": 5}) == identity_of(SERVING)


def test_unset_and_null_are_the_same_and_key_order_does_not_matter() -> None:
    shuffled = dict(reversed(SERVING.items())) | {"engine": None}
    assert digest_of(identity_of(shuffled)) == digest_of(identity_of(SERVING))


def test_a_name_that_another_content_holds_is_passed_over_and_the_count_kept() -> None:
    first, _ = identify("w", {"port": 1}, {}, 0)
    second, collisions = identify("w", {"port": 1}, {first.name: "another digest"}, 0)
    assert (collisions, second.name) != (0, first.name)
    assert identify("w", {"port": 1}, {first.name: "another digest", second.name: second.digest}, collisions) == (
        second,
        1,
    )
