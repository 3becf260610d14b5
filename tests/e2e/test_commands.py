"""An update steered by the commands alone, with the real daemon on the real control plane."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.desk import Desk
from tests.e2e.conftest import StartDaemon
from tests.e2e.updating import KINDS, of_the_team
from tests.realcluster.cluster import Cluster


def test_an_update_is_foretold_begun_held_taken_back_and_tried_again(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """3 replicas and 1 of another workload on 6 GPUs: 2 are free for an update of 3, until the other one goes."""
    start_daemon(**of_the_team(namespace, gpus=6))
    desk, bounds = Desk(cluster, namespace, tmp_path), {"minReplicas": 3, "maxReplicas": 3}
    kind = KINDS["deployment"]
    kind.start(cluster, namespace, kind.manifest("llama", bounds))
    other = kind.start(cluster, namespace, kind.manifest("other", {"minReplicas": 1, "maxReplicas": 1}))
    assert desk.run("status", "llama", "--timeout", "60").status == 0

    edited = kind.manifest("llama", bounds)
    edited["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["image"] = "example/vllm:2"
    plan = desk.run("plan", "-f", "-", "-o", "json", stdin=json.dumps(edited))
    [told] = json.loads(plan.out)["plans"]
    assert (plan.status, told["change"], told["fits"]) == (3, "Update", False), plan
    assert (told["gpus"], told["nodePools"][0]["short"]) == ({"each": 1, "asked": 3, "peak": 6}, 1)

    assert desk.run("set", "image", "llama", "vllm=example/vllm:2").status == 0
    cluster.wait_for(lambda: "Queued" in desk.run("list", "--no-headers").out, "the update to be listed")
    assert desk.object("llama")["status"]["rollout"]["revision"] == told["revision"], "as the plan named it"
    shown = desk.run("get", "llama").out
    assert "◌ Queued" in shown
    assert "Clock:    queue timeout in " in shown

    assert desk.run("pause", "llama").status == 0
    cluster.wait_for(lambda: "॥ Paused" in desk.run("get", "llama").out, "the pause")
    assert desk.run("resume", "llama").status == 0
    cluster.wait_for(lambda: "◌ Queued" in desk.run("get", "llama").out, "the end of the pause")
    assert desk.run("abort", "llama").status == 0
    ended = desk.run("status", "llama", "--timeout", "60")
    assert (ended.status, "failed: it was aborted; " in ended.out) == (3, True), ended
    assert desk.run("abort", "llama").status == 1, "there is nothing to abort any more"

    cluster.request("DELETE", desk._path(other.name))
    assert desk.run("retry", "llama").status == 0
    ended = desk.run("status", "llama", "--timeout", "120")
    assert (ended.status, ended.out.startswith("llama ok: Running")) == (0, True), ended
    [current] = [each for each in _history(desk) if each["state"] == "Current"]
    assert (current["name"], current["images"], current["ready"]) == (told["revision"], ["vllm=example/vllm:2"], 3)


def _history(desk: Desk) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(desk.run("history", "llama", "-o", "json").out)["revisions"]
    return found
