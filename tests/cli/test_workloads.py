"""list, get, status and history against the real API server: what people see, what programs read, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import yaml

from tests.cli.desk import AT, Desk, masked, rollout
from tests.e2e.workload import group_manifest, manifest

BOUNDS = {"minReplicas": 3, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}
OLD, NEW = "llama-1a2b3c4d", "llama-7f3a91c2"
GPU = "nvidia.com/gpu"

RUNNING: dict[str, Any] = {
    "phase": "Running",
    "phaseMessage": "3 of 3 replicas ready",
    "scalingMode": "Auto",
    "counts": {"desired": 3, "granted": 3, "applied": 3, "ready": 3, "starting": 0, "terminating": 0},
    "currentRevision": OLD,
    "signals": [{"name": "concurrency", "value": "21", "target": "7", "recommended": 3, "quality": "fresh"}],
    "traffic": [{"revisionName": OLD, "percent": 100}],
    "revisions": [
        {"name": OLD, "role": "Current", "replicas": 3, "ready": 3, "trafficPercent": 100, "nodePool": "default"}
        | {"held": {GPU: 3000}}
    ],
    "quota": {"project": "ml-team", "nodePool": "default", "gpusLimit": 12000, "gpusFree": 9000},
    "record": {"phase": "Complete", "servedAt": AT, "startedAt": AT},
}
SHORT = "Update llama-7f3a91c2 queued: 1 GPU short in project ml-team (7 of 8 free)"
QUEUED: dict[str, Any] = {
    **RUNNING,
    "phaseMessage": SHORT,
    "updateRevision": NEW,
    "rollout": rollout(NEW, "Queued", reason="WaitingForQuota", queueDeadlineAt="2126-05-01T10:00:00.000000Z"),
    "rolloutMessage": "1 GPU short on node pool default",
    "quota": {"project": "ml-team", "nodePool": "default", "gpusLimit": 8000, "gpusFree": 7000, "gpusShort": 1000},
}
SHIFTING: dict[str, Any] = {
    **RUNNING,
    "updateRevision": NEW,
    "rollout": rollout(
        NEW,
        "Paused",
        step=1,
        weight=10,
        verified=10,
        heldAt=AT,
        progressDeadlineAt=AT,
        pause={"by": "step", "since": AT, "until": "2126-05-01T10:00:00.000000Z", "resumes": "Shifting"},
    ),
    "traffic": [{"revisionName": OLD, "percent": 90}, {"revisionName": NEW, "percent": 10}],
    "revisions": [
        {**RUNNING["revisions"][0], "trafficPercent": 90},
        {"name": NEW, "role": "Update", "replicas": 3, "ready": 2, "trafficPercent": 10, "nodePool": "h100"}
        | {"held": {GPU: 3000}},
    ],
}
FAILED: dict[str, Any] = {
    **RUNNING,
    "updateRevision": NEW,
    "rollout": rollout(NEW, "Failed", reason="ProgressDeadlineExceeded"),
    "rolloutMessage": "not all replicas were ready within 10m",
}


def whole(name: str = "llama", **spec: Any) -> dict[str, Any]:
    return manifest(name, BOUNDS, priority="high", project="ml-team", **spec)


# --- list ---


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
    assert header[-6:] == ["KIND", "MODE", "PRIORITY", "PROJECT", "QUOTA-FREE", "LAST-SCALE"]
    assert row[-6:] == ["deployment", "Auto", "high", "ml-team", "9/12", "2>3,0s"]
    assert row[1:4] == ["Running,Paused", "1a2b3c4d>7f3a91c2", "90/10"]
    assert row[9] == "6", "GPUs of both revisions"


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


# --- get ---


def test_get_shows_the_update_its_clock_and_the_pods_of_each_revision(desk: Desk) -> None:
    steps = [{"weight": 10, "pause": "2m"}, {"weight": 50}]
    desk.create(whole(rollout={"steps": steps}, traffic={"httpRoute": {"name": "models"}}), SHIFTING)
    for letter in "abc":
        desk.pod("llama", OLD, f"old-{letter}")
    desk.pod("llama", NEW, "new-a")
    desk.pod("llama", NEW, "new-b", annotations={"pod-ready.stage.kwok.x-k8s.io/delay": "24h"})
    desk.pod("llama", NEW, "new-c", gpus=1000)
    ready, starting, unplaced = ("Ready", "True"), ("PodScheduled", "True"), ("PodScheduled", "False")
    desk.await_pods(old_a=ready, old_b=ready, old_c=ready, new_a=ready, new_b=starting, new_c=unplaced)
    ended = desk.run("get", "llama")
    assert (ended.status, ended.err) == (0, "")
    shown = masked(ended.out).replace(desk.namespace, "team")
    years = "36524d" in ended.out or "left" in ended.out
    assert years
    expected = f"""\
Name:     team/llama
Status:   ✔ Running: 3 of 3 replicas ready
Update:   ॥ Paused {NEW}; step 1 of 2; weight 10 %, 10 % proven
Clock:    paused by a step, LEFT left; deadlines wait
Replicas: 3 desired, 3 granted, 3 written, 3 ready, 0 starting, 0 terminating (min 3, max 8, Auto)
Signal:   concurrency 21 (target 7 a replica, fresh), asks for 3
Quota:    project ml-team, node pool default: 9 of 12 GPUs free
Image:    vllm=example/vllm:1

llama
├── {OLD}  Current  90 % of traffic  3 of 3 ready  3 GPUs on default
│   ├── ✔ Ready  old-a  AGE
│   ├── ✔ Ready  old-b  AGE
│   └── ✔ Ready  old-c  AGE
└── {NEW}  Update (Paused)  10 % of traffic  2 of 3 ready  3 GPUs on h100
    ├── ✔ Ready  new-a  AGE
    ├── ◌ Starting  new-b  AGE
    └── ⚠ Unplaced  new-c  AGE  """
    head, told = shown.rsplit("AGE  ", 1)
    assert _without_left(head + "AGE  ") == expected
    assert "Insufficient nvidia.com/gpu" in told


def _without_left(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(
        f"{line.partition(', ')[0]}, LEFT left;{line.partition(';')[2]}" if line.startswith("Clock:") else line
        for line in lines
    )


def test_get_shows_groups_with_their_pods_and_what_holds_them_up(desk: Desk) -> None:
    body = group_manifest("llama", {"minReplicas": 1, "maxReplicas": 1})
    desk.create(body, {**RUNNING, "revisions": [{"name": OLD, "role": "Current", "replicas": 2, "ready": 1}]})
    domain = "leaderworkerset.sigs.k8s.io"
    for group, member in ((0, 0), (0, 1), (1, 0), (1, 1)):
        labels = {f"{domain}/group-index": str(group), f"{domain}/worker-index": str(member)}
        broken = (group, member) == (1, 1)
        stuck = {"pod-ready.stage.kwok.x-k8s.io/delay": "24h"} if broken else {}
        desk.pod("llama", OLD, f"g-{group}-{member}", labels=labels, annotations=stuck)
    ready = ("Ready", "True")
    desk.await_pods(g_0_0=ready, g_0_1=ready, g_1_0=ready, g_1_1=("PodScheduled", "True"))
    path = f"/api/v1/namespaces/{desk.namespace}/pods/g-1-1/status"
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example/vllm:1"'}}
    container = {"name": "vllm", "state": waiting, "ready": False, "restartCount": 0, "image": "", "imageID": ""}

    def broken_now() -> bool:
        """KWOK writes that status once, too, when it gives the pod its address."""
        desk._patch(path, {"status": {"containerStatuses": [container]}})
        return "ImagePullBackOff" in desk.run("get", "llama").out

    desk.cluster.wait_for(broken_now, "the image to be told as missing")
    tree = masked(desk.run("get", "llama").out.partition("\n\n")[2])
    assert (
        tree
        == f"""\
llama
└── {OLD}  Current  100 % of traffic  1 of 2 ready
    ├── ✔ Ready  group 0  2 of 2 pods ready
    │   ├── ✔ Ready  g-0-0  AGE
    │   └── ✔ Ready  g-0-1  AGE
    └── ✖ Failed  group 1  1 of 2 pods ready
        ├── ✔ Ready  g-1-0  AGE
        └── ✖ Failed  g-1-1  AGE  vllm: ImagePullBackOff (Back-off pulling image "example/vllm:1")
"""
    )
    assert (
        "Image:    leader vllm=example/vllm:1\nImage:    worker vllm=example/vllm:1\n" in desk.run("get", "llama").out
    )


def test_get_names_what_runs_out_while_an_update_waits_for_quota(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    out = desk.run("get", "llama").out
    assert f"Status:   ✔ Running: {SHORT}\n" in out
    assert f"Update:   ◌ Queued {NEW}; WaitingForQuota; 1 GPU short on node pool default\n" in out
    assert "\nClock:    queue timeout in " in out
    assert "Quota:    project ml-team, node pool default: 7 of 8 GPUs free, 1 GPU short\n" in out


def test_get_of_a_workload_that_nobody_has_looked_at_says_so(desk: Desk) -> None:
    desk.create(whole())
    assert "Status:   ◌ Unknown: the daemon has written no status yet\n" in desk.run("get", "llama").out


def test_the_watch_shows_each_change_until_its_time_is_over(desk: Desk) -> None:
    """In a pipe each change is another picture; on a terminal it moves."""
    desk.create(whole(), QUEUED)
    command = [sys.executable, "-c", "from autoscaler.cli.main import main; main()", "get", "llama", "-w"]
    arguments = ["--timeout", "60", "--kubeconfig", str(desk.kubeconfig)]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(iter(watching.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
        reading.start()
        try:
            desk.cluster.wait_for(lambda: any("◌ Queued" in line for line in lines), "the first picture")
            desk.tell("llama", SHIFTING)
            desk.cluster.wait_for(lambda: any("॥ Paused" in line for line in lines), "the second picture")
            desk.cluster.request("DELETE", desk._path("llama"))
            assert watching.wait(timeout=30) == 1
        finally:
            watching.kill()
        assert watching.stderr is not None
        assert watching.stderr.read().startswith("Error: there is no InferenceWorkload llama in namespace")


def test_a_watch_is_no_document(desk: Desk) -> None:
    ended = desk.run("get", "llama", "-w", "-o", "json")
    assert ended.status == 2
    assert "a picture that moves is no json; use -o table or wide" in ended.err


# --- status ---


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (RUNNING, 0, "llama ok: Running: 3 of 3 replicas ready\n"),
        (QUEUED, 4, f"llama underway: update {NEW} Queued (WaitingForQuota): 1 GPU short on node pool default\n"),
        (SHIFTING, 4, f"llama underway: update {NEW} Paused\n"),
        (
            FAILED,
            3,
            f"llama degraded: update {NEW} Failed (ProgressDeadlineExceeded): not all replicas were ready within 10m\n",
        ),
        ({**RUNNING, "phase": "Failed", "phaseMessage": "m"}, 3, "llama degraded: Failed: m\n"),
        ({**RUNNING, "phase": "Degraded", "phaseMessage": "m"}, 3, "llama degraded: Degraded: m\n"),
        ({**RUNNING, "phase": "Initializing", "phaseMessage": "m"}, 4, "llama underway: Initializing: m\n"),
        ({**RUNNING, "phase": "Stopped", "phaseMessage": "m"}, 0, "llama ok: Stopped: m\n"),
        ({**RUNNING, "updateRevision": NEW}, 4, f"llama underway: update {NEW} has not begun\n"),
        (
            {**RUNNING, "observedGeneration": 0},
            4,
            "llama underway: the daemon has not seen generation 1 yet, only 0\n",
        ),
        (
            {
                **RUNNING,
                "conditions": [
                    {"type": "Conflict", "status": "True", "reason": "HPA", "message": "m", "lastTransitionTime": AT}
                ],
            },
            3,
            "llama degraded: Conflict (HPA): m\n",
        ),
    ],
    ids=[
        "runs",
        "queued",
        "paused",
        "failed",
        "init",
        "degraded",
        "starts",
        "stopped",
        "pending",
        "unseen",
        "conflict",
    ],
)
def test_status_tells_in_its_exit_status_how_it_stands(
    desk: Desk, status: dict[str, Any], code: int, said: str
) -> None:
    desk.create(whole(), status)
    ended = desk.run("status", "llama")
    assert (ended.status, ended.out) == (code, said)


def test_status_waits_until_the_update_is_over(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    done = threading.Event()

    def finish() -> None:
        done.wait(timeout=60)
        time.sleep(1.5)  # so that it looks more than once
        over = {**RUNNING, "currentRevision": NEW, "updateRevision": None, "rollout": None, "phaseMessage": "over"}
        desk.tell("llama", over)

    daemon = threading.Thread(target=finish)
    daemon.start()
    done.set()
    ended = desk.run("status", "llama", "--timeout", "60", "-o", "json")
    daemon.join()
    assert ended.status == 0
    told = json.loads(ended.out)
    assert (told["status"], told["message"], told["revision"], told["update"]) == ("ok", "Running: over", NEW, None)


def test_status_ends_when_its_time_is_over(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    ended = desk.run("status", "llama", "--timeout", "2")
    assert ended.status == 4
    assert ended.out.startswith("llama underway (after 2s): update llama-7f3a91c2 Queued (WaitingForQuota)")


def test_an_asking_that_is_not_handled_yet_is_waited_for(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    assert desk.run("pause", "llama").status == 0
    said = desk.run("status", "llama").out
    assert said.startswith(f'llama underway: "pause {NEW} ')
    assert said.endswith('" is not handled yet\n')


# --- history ---


def test_history_tells_what_each_revision_is(desk: Desk) -> None:
    leaving = [{"revision": "llama-00000003", "since": AT, "served": True, "drained": False}]
    status = {**FAILED, "record": {**RUNNING["record"], "leaving": leaving, "previous": "llama-00000004"}}
    made = desk.create(whole(), status)
    template = whole()["spec"]["serving"]
    for name in (OLD, NEW, "llama-00000003", "llama-00000004", "llama-00000005"):
        desk.revision(made, name, template)
    other = desk.create(whole("other"))
    desk.revision(other, "other-00000001", template)
    ended = desk.run("history", "llama")
    header, *rows = (line.split() for line in ended.out.splitlines())
    assert header == ["NAME", "TRAFFIC", "STATE", "READY/DESIRED", "IMAGE", "AGE", "REASON"]
    found = {row[0]: [*row[1:5], row[6]] for row in rows}
    image = "vllm=example/vllm:1"
    assert found == {
        OLD: ["100", "Current", "3/3", image, "-"],
        NEW: ["-", "Failed", "-/-", image, "ProgressDeadlineExceeded"],
        "llama-00000003": ["-", "Leaving", "-/-", image, "-"],
        "llama-00000004": ["-", "Previous", "-/-", image, "-"],
        "llama-00000005": ["-", "Stored", "-/-", image, "-"],
    }
    told = json.loads(desk.run("history", "llama", "-o", "json").out)["revisions"]
    [current] = [each for each in told if each["state"] == "Current"]
    assert (current["name"], current["trafficPercent"], current["gpus"], current["nodePool"]) == (
        OLD,
        100,
        3,
        "default",
    )
    names = desk.run("history", "llama", "-o", "name").out.splitlines()
    assert sorted(names) == sorted(f"controllerrevision.apps/{name}" for name in found)


# --- what goes wrong ---


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
