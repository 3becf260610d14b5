"""list against the real API server: what people see, what programs read, how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from autoscaler.cli.listing import next_eligible
from autoscaler.cli.seen import read, seconds_of
from tests.cli.desk import AT, Desk, masked
from tests.cli.told import OLD, QUEUED, RUNNING, SHIFTING, whole


def test_list_shows_a_line_for_each_workload(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    limited = [{"type": "ScalingLimited", "status": "True", "reason": "QuotaLimited", "message": "m"}]
    limited[0]["lastTransitionTime"] = AT
    desk.create(whole("mixtral"), {"phase": "Pending", "counts": {"desired": 3, "ready": 0}, "conditions": limited})
    desk.create(whole("new"))
    ended = desk.run("list")
    assert (ended.status, ended.err) == (0, "")
    assert masked(ended.out) == (
        "NAME      STATUS           REV                 TRAFFIC   READY   DESIRED   MIN/MAX   SIGNAL        "
        "VALUE/TARGET   GPUS   LIMITED-BY     AGE\n"
        "llama     Running,Queued   1a2b3c4d>7f3a91c2   100       3       3         3/8       concurrency   "
        "21/7           3      -              AGE\n"
        "mixtral   Pending          -                   -         0       3         3/8       -             "
        "-              -      QuotaLimited   AGE\n"
        "new       Unknown          -                   -         -       -         3/8       -             "
        "-              -      -              AGE\n"
    )


def test_wide_adds_who_decides_who_pays_and_what_is_free(desk: Desk) -> None:
    desk.create(whole(), {**SHIFTING, "lastScale": {"at": "2126-05-01T10:00:00Z", "from": 2, "to": 3}})
    ended = desk.run("list", "-o", "wide")
    header, row = (line.split() for line in ended.out.splitlines())
    assert header[-7:] == ["KIND", "MODE", "PRIORITY", "PROJECT", "QUOTA-FREE", "LAST-SCALE", "NEXT-ELIGIBLE"]
    assert row[-7:] == ["deployment", "Auto", "high", "ml-team", "9/12", "2>3,0s", "-"]
    assert row[1:4] == ["Running,Paused", "1a2b3c4d>7f3a91c2", "90/10"]
    assert row[9] == "6", "GPUs of both revisions"


ABLE = [{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "m"}]
HELD = [ABLE[0] | {"reason": "ScaleDownStabilized"}]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "now"),
        ({"nextEligibleAt": "2026-05-01T10:01:30Z"}, "1m30s"),
        ({"nextEligibleAt": "2026-05-01T10:01:30Z", "conditions": HELD}, "1m30s"),
        ({"nextEligibleAt": "2026-05-01T09:59:00Z"}, "now"),
        ({"nextEligibleAt": "2026-05-01T09:59:00Z", "conditions": HELD}, "-"),
        ({"conditions": HELD}, "-"),
        ({"scalingMode": "Manual"}, "-"),
        ({"signals": None}, "-"),
    ],
    ids=["free", "a clock", "a clock of a guard", "over", "over, and held", "held", "by hand", "fixed"],
)
def test_when_there_may_be_fewer_replicas(told: dict[str, Any], shown: str) -> None:
    now = seconds_of("2026-05-01T10:00:00Z")
    assert now is not None
    body = {**whole(), "status": {**RUNNING, "conditions": ABLE, **told}}
    assert next_eligible(read(body).seen, now) == shown


def test_list_of_all_namespaces_names_them(desk: Desk) -> None:
    desk.create(whole(), RUNNING)
    ended = desk.run("list", "-A")
    assert ended.out.split()[0] == "NAMESPACE"
    [row] = [line.split() for line in ended.out.splitlines() if line.split()[0] == desk.namespace]
    assert row[1:3] == ["llama", "Running"]
    bare = desk.run("list", "-A", "--no-headers").out
    assert "NAMESPACE" not in bare
    assert desk.namespace in bare


def test_a_namespace_without_workloads_is_no_mistake(desk: Desk) -> None:
    ended = desk.run("list")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"No InferenceWorkloads in namespace {desk.namespace}; see: tidegate list -A\n"


@pytest.mark.parametrize("arguments", [["-n", "NAMESPACE"], []], ids=["by its name", "of the context"])
def test_the_namespace_is_the_one_named_else_the_contexts(desk: Desk, arguments: list[str]) -> None:
    desk.create(whole(), RUNNING)
    named = [each.replace("NAMESPACE", desk.namespace) for each in arguments]
    context = ["--context", "elsewhere"] if named else []
    assert desk.run("list", "-o", "name", *named, *context).out == "inferenceworkload.tidegate.dev/llama\n"
    assert desk.run("list", "-o", "name", "--context", "elsewhere").out == ""


def test_documents_are_the_objects_as_kubectl_has_them(desk: Desk) -> None:
    desk.create(whole(), RUNNING)
    stored = desk.object("llama")
    del stored["metadata"]["managedFields"]
    listed = json.loads(desk.run("list", "-o", "json").out)
    assert listed == {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [stored]}
    assert yaml.safe_load(desk.run("list", "-o", "yaml").out) == listed
    assert json.loads(desk.run("get", "llama", "-o", "json").out) == stored
    assert yaml.safe_load(desk.run("get", "llama", "-o", "yaml").out) == stored
    assert desk.run("get", "llama", "-o", "name").out == "inferenceworkload.tidegate.dev/llama\n"


def test_what_is_not_there_is_named_with_its_namespace(desk: Desk) -> None:
    for command in (["get", "no"], ["status", "no"], ["history", "no"], ["pause", "no"], ["set", "image", "no", "a=b"]):
        ended = desk.run(*command)
        assert ended.status == 1
        assert ended.err == (
            f"Error: there is no InferenceWorkload no in namespace {desk.namespace}; see: tidegate list -A\n"
        )


def test_a_server_that_is_not_there_is_named(desk: Desk) -> None:
    broken = desk.kubeconfig.with_name("broken")
    broken.write_text(desk.kubeconfig.read_text().replace(desk.cluster.url, "https://127.0.0.1:1"))
    ended = desk.run("list", "--kubeconfig", str(broken))
    assert ended.status == 1
    assert ended.err.startswith("Error: the API server does not answer: GET ")
    ended = desk.run("list", "--context", "nobody")
    assert ended.status == 1
    assert ended.err.startswith("Error: no access to a cluster: ")


def test_colours_are_for_terminals_and_only_where_they_are_wanted(desk: Desk) -> None:
    desk.create(whole(), RUNNING)
    assert "\x1b[" not in desk.run("list").out
    assert "\x1b[" in desk.run("list", FORCE_COLOR="1").out
    assert "\x1b[" not in desk.run("list", FORCE_COLOR="1", NO_COLOR="1").out
    assert "\x1b[" not in desk.run("list", "--no-color", FORCE_COLOR="1").out


def test_what_others_wrote_does_not_steer_the_terminal(desk: Desk) -> None:
    """A pod's message or an image may hold an escape sequence; documents escape it by themselves."""
    evil = "\x1b]0;owned\x07 \x9b2J \u202e"
    body = whole()
    body["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["image"] = f"a{evil}"
    desk.create(body, {**QUEUED, "phaseMessage": evil, "rolloutMessage": evil})
    desk.revision(desk.object("llama"), OLD, body["spec"]["serving"])
    for arguments in (["get", "llama"], ["status", "llama"], ["history", "llama"], ["list", "-o", "wide"]):
        out = desk.run(*arguments).out
        assert out.replace("\n", "").isprintable(), out
    assert "\x1b" not in desk.run("get", "llama", "-o", "json").out
