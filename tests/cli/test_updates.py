"""promote, pause, resume, abort, retry and set image against the real API server, with rights that people have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from autoscaler.cli import images, verbs
from autoscaler.cluster.inferenceworkload import Serving
from rollouts.verbs import Verb, VerbRequest, parse
from tests.cli.desk import AT, Desk, rollout
from tests.e2e.workload import group_manifest, manifest

OLD, NEW = "llama-1a2b3c4d", "llama-7f3a91c2"
BOUNDS = {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}
STATUS = {"phase": "Running", "currentRevision": OLD, "updateRevision": NEW}
PAUSE = {"by": "step", "since": AT, "until": AT, "resumes": "Shifting"}
SHIFTING = rollout(NEW, "Shifting", weight=10)
PAUSED = rollout(NEW, "Paused", weight=10, pause=PAUSE)
FAILED = rollout(NEW, "Failed", reason="ProgressDeadlineExceeded")


def told(name: str, update: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return manifest(name, BOUNDS), {**STATUS, "rollout": update}


@pytest.mark.parametrize(
    ("command", "update", "verb", "said"),
    [
        (["promote"], PAUSED, Verb.PROMOTE, f"asked to end the pause of the update {NEW}; it goes on Shifting"),
        (
            ["promote", "--full"],
            SHIFTING,
            Verb.PROMOTE_FULL,
            f"asked to take the update {NEW} to 100 % without further steps",
        ),
        (["pause"], SHIFTING, Verb.PAUSE, f"asked to pause the update {NEW} (Shifting); resume lets it go on"),
        (["resume"], PAUSED, Verb.RESUME, f"asked to end the pause of the update {NEW}; it goes on Shifting"),
        (
            ["abort"],
            SHIFTING,
            Verb.ABORT,
            f"asked to abort the update {NEW} and take its traffic back; the current revision stays",
        ),
        (
            ["retry"],
            FAILED,
            Verb.RETRY,
            f"asked to try the update {NEW}, which failed (ProgressDeadlineExceeded), once more",
        ),
    ],
    ids=lambda each: "-".join(each).replace("--", "") if isinstance(each, list) else "",
)
def test_a_verb_is_one_annotation_that_the_daemon_understands(
    desk: Desk, command: list[str], update: dict[str, Any], verb: Verb, said: str
) -> None:
    desk.create(*told("llama", update))
    before = desk.object("llama")
    ended = desk.run(*command, "llama")
    assert (ended.status, ended.out, ended.err) == (0, f"llama: {said}\n", "")
    after = desk.object("llama")
    text = after["metadata"].pop("annotations")["tidegate.dev/rollout"]
    assert parse(text) == VerbRequest(verb, NEW, text)
    for each in (before, after):
        del each["metadata"]["managedFields"], each["metadata"]["resourceVersion"]
    assert after == before


@pytest.mark.parametrize(
    ("command", "update", "said"),
    [
        (
            "promote",
            SHIFTING,
            f"nothing to promote: the update {NEW} is Shifting, not paused; --full leaves the remaining steps out",
        ),
        ("resume", SHIFTING, f"nothing to resume: the update {NEW} is Shifting, not paused"),
        ("pause", FAILED, f"nothing to pause: the update {NEW} is Failed (ProgressDeadlineExceeded)"),
        (
            "abort",
            rollout(NEW, "Draining"),
            f"the update {NEW} has all the traffic, proven: it is past aborting; apply the old template to go back",
        ),
        ("retry", SHIFTING, f"nothing to retry: the update {NEW} is Shifting; only a failed one can be tried again"),
    ],
    ids=["promote", "resume", "pause", "abort", "retry"],
)
def test_where_there_is_nothing_to_act_on_nothing_is_written(
    desk: Desk, command: str, update: dict[str, Any], said: str
) -> None:
    desk.create(*told("llama", update))
    before = desk.object("llama")
    ended = desk.run(command, "llama")
    assert (ended.status, ended.out, ended.err) == (1, "", f"Error: llama: {said}\n")
    assert desk.object("llama") == before


CHANGED = "Error: llama was changed or made anew meanwhile, nothing was done; look again: tidegate get llama\n"


def test_a_workload_of_the_same_name_that_came_meanwhile_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted and made anew between the look and the patch."""
    desk.create(*told("llama", SHIFTING))
    whole = verbs.patch

    def late(uid: str, text: str) -> dict[str, Any]:
        desk.cluster.request("DELETE", desk._path("llama"))
        desk.create(*told("llama", SHIFTING))
        return whole(uid, text)

    monkeypatch.setattr(verbs, "patch", late)
    ended = desk.run("abort", "llama")
    assert (ended.status, ended.err) == (1, CHANGED)
    assert "annotations" not in desk.object("llama")["metadata"]


def test_an_image_is_not_set_in_a_template_that_changed_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container has the place of the one that was meant."""
    desk.create(manifest("llama", BOUNDS))
    whole = images.operations

    def late(serving: Serving, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        template = desk.object("llama")["spec"]["serving"]["deployment"]["template"]
        template["spec"]["containers"].insert(0, {"name": "proxy", "image": "envoy:1"})
        desk.patch("llama", {"spec": {"serving": {"deployment": {"template": template}}}})
        return whole(serving, wanted)

    monkeypatch.setattr(images, "operations", late)
    ended = desk.run("set", "image", "llama", "vllm=example/vllm:2")
    assert (ended.status, ended.err) == (1, CHANGED)
    containers = desk.object("llama")["spec"]["serving"]["deployment"]["template"]["spec"]["containers"]
    assert [each["image"] for each in containers] == ["envoy:1", "example/vllm:1"]


def test_the_rights_are_the_callers_own(desk: Desk) -> None:
    """Somebody who may look may look, and no more."""
    desk.create(*told("llama", SHIFTING))
    kubectl, place = desk.cluster.kubectl, ("-n", desk.namespace)
    resources = "--resource=inferenceworkloads.tidegate.dev,pods,controllerrevisions.apps"
    kubectl(*place, "create", "role", "looker", "--verb=get,list", resources)
    kubectl(*place, "create", "rolebinding", "looker", "--role=looker", f"--serviceaccount={desk.namespace}:default")
    token = desk.cluster.service_account_token(desk.namespace, "default")
    mine = {"KUBECONFIG": str(desk.kubeconfig_of(token, "looker"))}
    desk.cluster.wait_for(lambda: desk.run("get", "llama", **mine).status == 0, "the role to take effect")
    for looks in (["list"], ["status", "llama"], ["history", "llama"]):
        assert desk.run(*looks, **mine).err in ("", "llama has no revisions\n")
    for changes in (["abort", "llama"], ["set", "image", "llama", "vllm=example/vllm:2"]):
        ended = desk.run(*changes, **mine)
        assert ended.status == 1
        assert ended.err.startswith("Error: the API server refuses it: ")
        assert "cannot patch resource" in ended.err
    everywhere = desk.run("list", "-A", **mine)
    assert (everywhere.status, everywhere.out) == (1, "")
    assert "at the cluster scope" in everywhere.err


def test_documents_and_names_are_for_programs(desk: Desk) -> None:
    desk.create(*told("llama", SHIFTING))
    assert desk.run("pause", "llama", "-o", "name").out == "inferenceworkload.tidegate.dev/llama\n"
    shown = json.loads(desk.run("abort", "llama", "-o", "json").out)
    assert shown["metadata"]["annotations"]["tidegate.dev/rollout"].startswith(f"abort {NEW} ")


# --- set image ---


def test_set_image_changes_the_image_and_nothing_else(desk: Desk) -> None:
    desk.create(manifest("llama", BOUNDS))
    before = desk.object("llama")["spec"]
    ended = desk.run("set", "image", "llama", "vllm=example/vllm:2")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "llama: image set to vllm=example/vllm:2; follow the update: tidegate get llama -w\n"
    container = before["serving"]["deployment"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example/vllm:1"
    container["image"] = "example/vllm:2"
    assert desk.object("llama")["spec"] == before
    again = desk.run("set", "image", "llama", "vllm=example/vllm:2")
    assert (again.status, again.out) == (0, "llama: has these images already; nothing was changed\n")


def test_set_image_of_a_group_reaches_leader_and_workers(desk: Desk) -> None:
    desk.create(group_manifest("llama", {"minReplicas": 1, "maxReplicas": 1}))
    assert desk.run("set", "image", "llama", "vllm=example/vllm:2").status == 0
    groups = desk.object("llama")["spec"]["serving"]["leaderWorkerSet"]
    for template in ("leaderTemplate", "workerTemplate"):
        assert groups[template]["spec"]["containers"][0]["image"] == "example/vllm:2"


def test_a_container_that_is_not_there_is_refused_with_those_that_are(desk: Desk) -> None:
    desk.create(manifest("llama", BOUNDS))
    ended = desk.run("set", "image", "llama", "vllm=example/vllm:2", "proxy=envoy:1")
    assert (ended.status, ended.err) == (1, "Error: llama: no container proxy; there are: vllm\n")
    assert desk.object("llama")["metadata"]["generation"] == 1


@pytest.mark.parametrize("wrong", ["vllm", "vllm=", "=image", "vllm= image"])
def test_what_is_no_assignment_is_wrong_usage(desk: Desk, wrong: str) -> None:
    ended = desk.run("set", "image", "llama", wrong)
    assert ended.status == 2
    assert f"{wrong!r} is not CONTAINER=IMAGE" in ended.err
