"""Every version of the status that the API server ever had says one thing: the words are those of the record."""

from __future__ import annotations

from typing import Any

from autoscaler.controller.updates import WORDS
from rollouts.record import Phase
from tests.cli.desk import Desk
from tests.e2e.auditing import Followed
from tests.e2e.conftest import StartDaemon
from tests.e2e.updating import (
    KINDS,
    NEVER_READY_S,
    apply,
    bounds,
    edited,
    of_the_team,
    rollout,
    verb,
    wait_phase,
    wait_served,
)
from tests.realcluster.cluster import Cluster


def contradictions(status: dict[str, Any]) -> list[str]:
    """Between the record and what is told of it."""
    conditions = {each["type"]: each for each in status["conditions"]}
    update, told = status.get("rollout"), status.get("rolloutMessage")
    stalled, pending = conditions["Stalled"]["status"], conditions["UpdatePending"]
    begins = f"Update {update['revision']} {WORDS.get(Phase(update['phase']), update['phase'])}" if update else ""
    expected = {
        "rolloutMessage": told is None if update is None else str(told).startswith(begins),
        "phaseMessage": status["phaseMessage"].startswith(told) if told else "Update" not in status["phaseMessage"],
        "UpdatePending": pending["status"] == str(bool(status.get("updateRevision"))),
        "its reason": pending["status"] == "False" or pending["reason"] == (update["phase"] if update else "Noticed"),
        "Stalled": stalled == str(update is not None and update["phase"] == "Failed"),
    }
    return [name for name, holds in expected.items() if not holds]


def test_what_is_told_is_never_older_than_the_record(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, tmp_path: Any
) -> None:
    """An update that completes, one that fails at its deadline, its second try, and the template of before."""
    start_daemon(**of_the_team(namespace, gpus=6))
    kind, clocks = KINDS["deployment"], rollout(progressDeadlineSeconds=3)
    body = kind.manifest("llama", bounds(2))
    followed = Followed(cluster, f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads")
    try:
        workload = kind.start(cluster, namespace, body)
        good = edited(body, "2")
        apply(workload, good)
        served = wait_served(workload, "2", 2)
        apply(workload, edited(good, "3", ready_after_s=NEVER_READY_S, rollout=clocks))
        failed = wait_phase(workload, "Failed", "ProgressDeadlineExceeded")
        verb(workload, "retry", failed["revision"])
        wait_phase(workload, "Starting", revision=failed["revision"])
        wait_phase(workload, "Failed", "ProgressDeadlineExceeded")
        desk = Desk(cluster, namespace, tmp_path)
        ended = desk.run("status", "llama")
        said = f"Update {failed['revision']} failed: it did not serve within the progress deadline; {served} goes on"
        assert (ended.status, ended.out) == (3, f"llama degraded: {said}\n")
        apply(workload, good)
        assert wait_served(workload, "2", 2) == served
        ended = desk.run("status", "llama", "--timeout", "60")
        assert (ended.status, ended.out.startswith("llama ok: Running: 2 of 2 replicas ready")) == (0, True), ended
        followed.catch_up()
    finally:
        followed.close()
    told = [
        each.body["status"] for each in followed.changes if each.body and "conditions" in each.body.get("status", {})
    ]
    wrong = [(found, status) for status in told if (found := contradictions(status))]
    phases = {(status.get("rollout") or {}).get("phase") for status in told}
    print(f"{len(told)} versions, phases {sorted(map(str, phases))}, {len(wrong)} contradict themselves")
    assert {"Starting", "Draining", "RollingBack", "Failed", None} <= phases
    assert wrong == []
