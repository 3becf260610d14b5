"""status and history against the real API server."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tests.cli.desk import AT, Desk
from tests.cli.told import FAILED, LATE, NEW, OLD, QUEUED, RUNNING, SHIFTING, SHORT, whole

CONFLICT = {"type": "Conflict", "status": "True", "reason": "HPA", "message": "m", "lastTransitionTime": AT}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (RUNNING, 0, "llama ok: Running: 3 of 3 replicas ready\n"),
        (QUEUED, 4, f"llama underway: {SHORT}\n"),
        (SHIFTING, 4, f"llama underway: Update {NEW} is Paused\n"),
        (
            FAILED,
            3,
            f"llama degraded: {LATE}\n",
        ),
        ({**FAILED, "conditions": [CONFLICT, *FAILED["conditions"]]}, 3, "llama degraded: Conflict (HPA): m\n"),
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
        ({**RUNNING, "conditions": [CONFLICT]}, 3, "llama degraded: Conflict (HPA): m\n"),
    ],
    ids=[
        "runs",
        "queued",
        "paused",
        "failed",
        "failed and in conflict",
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
    assert ended.out.startswith("llama underway (after 2s): Update llama-7f3a91c2 queued: 1 GPU short")


def test_an_asking_that_is_not_handled_yet_is_waited_for(desk: Desk) -> None:
    desk.create(whole(), QUEUED)
    assert desk.run("pause", "llama").status == 0
    said = desk.run("status", "llama").out
    assert said.startswith(f'llama underway: "pause {NEW} ')
    assert said.endswith('" is not handled yet\n')


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
