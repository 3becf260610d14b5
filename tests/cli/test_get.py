"""get against the real API server: the header, the tree down to the pods, and the watch."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from tests.cli.desk import Desk, masked
from tests.cli.told import NEW, OLD, QUEUED, RUNNING, SHIFTING, SHORT, whole
from tests.e2e.workload import group_manifest


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
    assert f"Update:   ◌ Queued {NEW}; WaitingForQuota; {SHORT}\n" in out
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


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}], ids=["colours", "none"])
def test_on_a_terminal_the_picture_moves(desk: Desk, environ: dict[str, str]) -> None:
    """A pseudo-terminal; what was drawn before is drawn over."""
    desk.create(whole(), QUEUED)
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **environ}
    command = [sys.executable, "-c", "from autoscaler.cli.main import main; main()", "get", "llama", "-w"]
    arguments = ["--kubeconfig", str(desk.kubeconfig)]
    drawn = bytearray()
    with subprocess.Popen(
        [*command, *arguments], stdout=follower, stderr=follower, stdin=follower, env=environment
    ) as it:
        os.close(follower)
        reading = threading.Thread(target=_read_all, args=(leader, drawn), daemon=True)
        reading.start()
        try:
            desk.cluster.wait_for(lambda: "◌ Queued".encode() in drawn, "the first picture")
            before = len(drawn)
            desk.tell("llama", SHIFTING)
            desk.cluster.wait_for(lambda: "॥ Paused".encode() in drawn[before:], "the second picture")
            it.send_signal(signal.SIGINT)
            assert it.wait(timeout=30) == 0, "Ctrl-C is how a watch ends"
        finally:
            it.kill()
    reading.join(timeout=10)
    assert b"\x1b[1A" in drawn, "the cursor goes back up"
    assert (b"\x1b[35m" in drawn) == (not environ), "magenta is for what is held"


def _read_all(terminal: int, into: bytearray) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 4096):
            into += data
