"""What `tidegate plan` foretells, and that it changes nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.cli.edits import differences, merge_patch
from rollouts.revision import digest_of, identity_of
from tests.cli.desk import AT, Desk, Ended, rollout
from tests.e2e.updating import take_gpus
from tests.e2e.workload import group_manifest, manifest

GPU = "nvidia.com/gpu"


def whole(least: int = 3, most: int = 3, image: str = "example/vllm:1", **spec: Any) -> dict[str, Any]:
    bounds = {"minReplicas": least, "maxReplicas": most, "metric": "concurrency", "metricThreshold": 10}
    body = manifest("llama", bounds, project="ml-team", **spec)
    body["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["image"] = image
    return body


def name_of(body: dict[str, Any]) -> str:
    return f"llama-{digest_of(identity_of(body['spec']['serving']))[:8]}"


class Planner:
    """A workload that runs with 3 replicas of one GPU, in a project with a limit."""

    def __init__(self, desk: Desk, tmp_path: Path) -> None:
        self.desk = desk
        self._file = tmp_path / "llama.yaml"

    def runs(self, body: dict[str, Any], limit: int, free: int, **more: Any) -> None:
        """Applied by kubectl, as people do."""
        self.desk.cluster.kubectl("apply", "-n", self.desk.namespace, "-f", "-", input=json.dumps(body))
        stored, count = self.desk.object("llama"), more.pop("replicas", 3)
        current = name_of(stored)
        self.desk.revision(
            stored, current, stored["spec"]["serving"], digest_of(identity_of(stored["spec"]["serving"]))
        )
        revision = {"name": current, "role": "Current", "replicas": count, "ready": count, "nodePool": "default"}
        status: dict[str, Any] = {
            "phase": "Running",
            "currentRevision": current,
            "counts": {"desired": count, "granted": count, "applied": count, "ready": count},
            "record": {"phase": "Complete", "servedAt": AT, "startedAt": AT},
            "revisions": [{**revision, "held": {GPU: count * 1000}}],
            "quota": {"project": "ml-team", "nodePool": "default", "gpusLimit": limit * 1000, "gpusFree": free * 1000},
        }
        status["revisions"] += more.pop("revisions", [])
        self.desk.tell("llama", {**status, **more})

    def plan(self, *bodies: dict[str, Any], output: str = "table", **environ: str) -> Ended:
        self._file.write_text(yaml.safe_dump_all(bodies))
        return self.desk.run("plan", "-f", str(self._file), "-o", output, **environ)

    def told(self, body: dict[str, Any]) -> dict[str, Any]:
        ended = self.plan(body, output="json")
        [plan] = json.loads(ended.out)["plans"]
        return {**plan, "status": ended.status}


@pytest.fixture
def planner(desk: Desk, tmp_path: Path) -> Planner:
    return Planner(desk, tmp_path)


def test_an_update_asks_for_all_its_gpus_beside_those_of_the_old_one(planner: Planner) -> None:
    """The case of the issue: template and bounds 3 -> 8 need 8 more, and 7 are free, as somebody else has 2."""
    planner.runs(whole(), limit=12, free=7)
    before = planner.desk.object("llama")
    edited = whole(8, 8, "example/vllm:2")
    ended = planner.plan(edited)
    assert ended.status == 3
    assert ended.out == (
        f"{planner.desk.namespace}/llama: an update: a new revision {name_of(edited)} beside {name_of(whole())}\n"
        "  edits:     spec.autoscaling.maxReplicas: 3 -> 8\n"
        "             spec.autoscaling.minReplicas: 3 -> 8\n"
        "             spec.serving.deployment.template.spec.containers[vllm].image: "
        '"example/vllm:1" -> "example/vllm:2"\n'
        "  replicas:  8 of the update at once, 1 GPU each, beside 3 of the current revision\n"
        "  GPUs:      asks for 8 more, 11 at the peak\n"
        "  quota:     1 short on node pool default: 7 of 12 free in project ml-team; the update waits for all of it\n"
        "  traffic:   100 %\n"
    )
    assert planner.desk.object("llama") == before, "a plan changes nothing"


def test_bounds_alone_apply_in_place_and_ask_for_the_difference(planner: Planner) -> None:
    planner.runs(whole(), limit=12, free=9)
    told = planner.told(whole(8, 8))
    assert (told["status"], told["change"], told["revision"]) == (0, "InPlace", name_of(whole()))
    assert (told["replicas"], told["gpus"], told["fits"]) == (8, {"each": 1, "asked": 5, "peak": 8}, True)


def test_an_update_that_fits_says_where(planner: Planner) -> None:
    planner.runs(whole(), limit=12, free=9)
    steps = [{"weight": 10, "pause": "2m"}, {"weight": 50}]
    edited = whole(image="example/vllm:2", rollout={"steps": steps}, traffic={"httpRoute": {"name": "models"}})
    ended = planner.plan(edited)
    assert ended.status == 0
    assert "  quota:     fits on node pool default: 9 of 12 free in project ml-team\n" in ended.out
    assert "  traffic:   10 % for 2m, 50 %, 100 %\n" in ended.out


def test_what_can_never_fit_is_told_apart_from_what_is_short_now(planner: Planner) -> None:
    planner.runs(whole(), limit=10, free=7)
    told = planner.told(whole(8, 8, "example/vllm:2"))
    assert (told["fits"], told["neverFits"]) == (False, True), "8 and the 3 that must stay are above 10"
    ended = planner.plan(whole(8, 8, "example/vllm:2"))
    assert "never fits on node pool default: 10 is the limit" in ended.out


def test_refusing_updates_do_not_wait(planner: Planner) -> None:
    planner.runs(whole(1, 3), limit=4, free=1)
    ended = planner.plan(whole(1, 3, "example/vllm:2", rollout={"whenQuotaShort": "refuse"}))
    assert ended.status == 3
    assert "2 short on node pool default: 1 of 4 free in project ml-team; the update fails at once" in ended.out


def test_what_is_free_and_not_told_is_not_taken_for_nothing(planner: Planner) -> None:
    """The status tells what is free only while the workload waits for it."""
    told_of = {"project": "nobody-has-a-ledger", "nodePool": "default", "gpusLimit": 8000}
    planner.runs(whole(), limit=8, free=0, quota=told_of)
    told = planner.told(whole(image="example/vllm:2"))
    assert (told["fits"], told["status"], told["nodePools"][0]["free"]) == (None, 0, None)
    told = planner.told(whole(6, 6, "example/vllm:2"))
    assert (told["fits"], told["neverFits"]) == (False, True), "6 and 3 are above the limit, whatever is free"
    assert "nobody-has-a-ledger, node pool default: limit of 8 GPUs\n" in planner.desk.run("get", "llama").out


def test_several_node_pools_are_each_told_as_far_as_they_are_known(planner: Planner) -> None:
    planner.runs(whole(1, 3), limit=4, free=1)
    told = planner.told(whole(1, 3, "example/vllm:2", nodePools=["default", "h100"]))
    assert told["nodePools"] == [
        {"name": "default", "fits": False, "limit": 4, "free": 1, "short": 2},
        {"name": "h100", "fits": None, "limit": None, "free": None, "short": None},
    ]
    assert (told["fits"], told["status"]) == (None, 0)


# --- GPU pods of others, which the daemon takes off too ---


class Project:
    """One of its own, 12 GPUs on the default pool, of which its ledger holds the 3 of the workload; a pod of somebody
    else has 2 more. The daemon's configuration is where the chart puts it."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.desk = planner, planner.desk
        self.name = f"team-{self.desk.namespace}"
        running = self.edited(3, "example/vllm:1")
        quota = {"project": self.name, "nodePool": "default", "gpusLimit": 12000}
        planner.runs(running, limit=12, free=0, quota=quota)
        take_gpus(self.desk.cluster, self.desk.namespace, "notebook", 2)
        path = f"/api/v1/namespaces/{self.desk.namespace}/pods/notebook"
        self.desk.cluster.wait_for(lambda: self.desk.cluster.get(path)["spec"].get("nodeName"), "the pod to be placed")
        labels = {"tidegate.dev/project": self.name, "tidegate.dev/node-pool": "default"}
        hold = {"owner": f"{self.desk.namespace}/llama", "revision": name_of(running), "vector": {GPU: 3000}}
        spec = {"limit": {GPU: 12000}, "holds": [hold]}
        collection = f"/apis/tidegate.dev/v1alpha1/namespaces/{self.desk.namespace}/quotaledgers"
        body = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "QuotaLedger", "spec": spec}
        self.desk.cluster.create(collection, {**body, "metadata": {"name": "team.default", "labels": labels}})

    def edited(self, least: int, image: str) -> dict[str, Any]:
        body = whole(least, least, image)
        body["spec"]["project"] = self.name
        return body

    def configured(self) -> None:
        project = {"namespaces": [self.desk.namespace], "quota": {"limits": {"default": {GPU: 12}}}}
        data = {"config.yaml": yaml.safe_dump({"projects": {self.name: project}})}
        meta = {"name": "tidegate", "labels": {"app.kubernetes.io/name": "tidegate"}}
        self.desk.cluster.create(
            f"/api/v1/namespaces/{self.desk.namespace}/configmaps", {"metadata": meta, "data": data}
        )

    def quota_line(self, edited: dict[str, Any], status: int, **environ: str) -> str:
        ended = self.planner.plan(edited, **environ)
        assert ended.status == status, ended
        [line] = [each for each in ended.out.splitlines() if each.startswith("  quota:")]
        return line.removeprefix("  quota:     ").replace(self.name, "PROJECT")


@pytest.fixture
def project(planner: Planner) -> Project:
    return Project(planner)


def test_pods_of_others_are_taken_off_what_the_ledgers_leave(project: Project) -> None:
    """12 - 3 - 2 = 7. That 11 were free a while ago, as the status says, counts for nothing beside that."""
    quota = {"project": project.name, "nodePool": "default", "gpusLimit": 12000, "gpusFree": 11000}
    project.desk.tell("llama", {"quota": quota})
    project.configured()
    eight, seven = (project.edited(count, "example/vllm:2") for count in (8, 7))
    short = "1 short on node pool default: 7 of 12 free in project PROJECT; the update waits for all of it"
    assert project.quota_line(eight, status=3) == short
    assert project.quota_line(seven, status=0) == "fits on node pool default: 7 of 12 free in project PROJECT"


def test_pods_of_others_that_may_not_be_listed_are_not_taken_for_none(project: Project) -> None:
    project.configured()
    cluster, place = project.desk.cluster, ("-n", project.desk.namespace)
    resources = "--resource=inferenceworkloads.tidegate.dev,controllerrevisions.apps,configmaps"
    cluster.kubectl(*place, "create", "role", "planner", "--verb=get,list,patch", resources)
    subject = f"--serviceaccount={project.desk.namespace}:default"
    cluster.kubectl(*place, "create", "rolebinding", "planner", "--role=planner", subject)
    role = f"ledgers-{project.desk.namespace}"
    cluster.kubectl("create", "clusterrole", role, "--verb=list", "--resource=quotaledgers.tidegate.dev")
    cluster.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", subject)
    token = cluster.service_account_token(project.desk.namespace, "default")
    mine = {"KUBECONFIG": str(project.desk.kubeconfig_of(token, "planner"))}
    edited = project.edited(8, "example/vllm:2")
    why = f"pods of others are not counted: you may not list pods in namespace {project.desk.namespace}"
    try:
        cluster.wait_for(
            lambda: project.planner.plan(edited, **mine).out.find("free in") > 0, "the roles to take effect"
        )
        may = "may fit on node pool default: 9 of 12 free in project PROJECT"
        assert project.quota_line(edited, status=0, **mine) == f"{may}; {why}"
    finally:
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", role)


def test_without_the_daemons_configuration_nobody_knows_whose_pods_count(project: Project) -> None:
    edited = project.edited(8, "example/vllm:2")
    why = f"there is no configuration of the daemon in namespace {project.desk.namespace}"
    line = project.quota_line(edited, status=0)
    assert line == (
        f"may fit on node pool default: 9 of 12 free in project PROJECT; pods of others are not counted: {why}"
    )
    [told] = json.loads(project.planner.plan(edited, output="json").out)["plans"]
    pool = {"name": "default", "fits": None, "limit": 12, "free": 9, "short": 0}
    assert (told["fits"], told["nodePools"]) == (None, [pool | {"notCounted": f"pods of others: {why}"}])


def test_an_update_that_runs_gives_way_and_gives_back(planner: Planner) -> None:
    running = {"name": "llama-0badcafe", "role": "Update", "replicas": 4, "held": {GPU: 4000}, "nodePool": "default"}
    planner.runs(
        whole(),
        limit=8,
        free=1,
        revisions=[running],
        rollout=rollout("llama-0badcafe", "Starting"),
        updateRevision="llama-0badcafe",
    )
    told = planner.told(whole(image="example/vllm:3"))
    assert told["nodePools"] == [{"name": "default", "fits": True, "limit": 8, "free": 5, "short": 0}]
    assert told["notes"] == ["the update llama-0badcafe gives way; this one starts when its pods are gone"]
    assert told["gpus"] == {"each": 1, "asked": 3, "peak": 6}


def test_an_update_is_taken_back_by_the_template_before_it(planner: Planner) -> None:
    """The edit that is stored began an update; the file brings the old template back."""
    planner.runs(whole(), limit=8, free=1)
    told = planner.desk.object("llama")["status"]
    planner.desk.cluster.kubectl(
        "apply", "-n", planner.desk.namespace, "-f", "-", input=json.dumps(whole(image="example/vllm:2"))
    )
    new = name_of(whole(image="example/vllm:2"))
    planner.desk.tell("llama", {**told, "rollout": rollout(new, "Shifting"), "updateRevision": new})
    plan = planner.told(whole())
    assert (plan["change"], plan["gpus"]["asked"]) == ("InPlace", 0)
    assert plan["notes"] == [f"the update {new} is taken back: the template is the current revision's again"]


def test_a_revision_that_failed_before_is_not_tried_again_by_itself(planner: Planner) -> None:
    edited = whole(image="example/vllm:2")
    planner.runs(whole(), limit=8, free=5, rollout=rollout(name_of(edited), "Failed", reason="Aborted"))
    assert planner.told(edited)["notes"] == [
        f"{name_of(edited)} has failed before and is not tried again: tidegate retry llama"
    ]


def test_at_zero_the_new_revision_is_current_at_once_and_asks_for_nothing(planner: Planner) -> None:
    body = whole(0, 3)
    planner.runs(body, limit=8, free=8, replicas=0)
    told = planner.told(whole(0, 3, "example/vllm:2"))
    assert (told["change"], told["replicas"], told["gpus"]["asked"], told["fits"]) == ("AtZero", 0, 0, True)


def test_a_revision_that_never_served_hands_its_gpus_over(planner: Planner) -> None:
    planner.runs(whole(), limit=3, free=0, record={"phase": "Starting", "startedAt": AT})
    told = planner.told(whole(image="example/vllm:2"))
    assert (told["change"], told["gpus"]) == ("HandOver", {"each": 1, "asked": 3, "peak": 3})
    assert told["fits"] is True, "the 3 that it holds are given back"


def test_groups_cost_what_their_leader_and_workers_cost(planner: Planner) -> None:
    """A leader with one GPU and a worker with two."""
    body = group_manifest("llama", {"minReplicas": 2, "maxReplicas": 2}, project="ml-team")
    told = planner.told(body)
    assert (told["change"], told["currentRevision"]) == ("First", None)
    assert told["gpus"] == {"each": 3, "asked": 6, "peak": 6}
    assert (told["fits"], told["nodePools"]) == (None, [])
    assert planner.desk.cluster.request("GET", planner.desk._path("llama"))[0] == 404


def test_an_edit_that_changes_nothing_says_so(planner: Planner) -> None:
    planner.runs(whole(), limit=12, free=9)
    ended = planner.plan(whole())
    assert (ended.status, ended.out) == (0, f"{planner.desk.namespace}/llama: nothing changes\n")


def test_what_the_api_server_would_refuse_is_said_in_its_words(planner: Planner) -> None:
    planner.runs(whole(), limit=12, free=9)
    ended = planner.plan(whole(5, 3))
    assert ended.status == 1
    assert ended.err.startswith("Error: llama would be refused: ")
    assert "maxReplicas" in ended.err


def test_a_count_that_kubectl_scale_wrote_stays_and_a_field_that_is_gone_goes(planner: Planner) -> None:
    """As kubectl apply does it: the file is compared with what it said before, too."""
    with_delay = whole(1, 8)
    with_delay["spec"]["autoscaling"]["scaleDownDelaySeconds"] = 60
    planner.runs(with_delay, limit=12, free=9)
    planner.desk.patch("llama", {"spec": {"replicas": 4}})
    edits = planner.told(whole(2, 8))["edits"]
    assert edits == [
        {"path": "spec.autoscaling.minReplicas", "before": 1, "after": 2},
        {"path": "spec.autoscaling.scaleDownDelaySeconds", "before": 60, "after": None},
    ]
    planner.desk.cluster.kubectl("apply", "-n", planner.desk.namespace, "-f", "-", input=json.dumps(whole(2, 8)))
    spec = planner.desk.object("llama")["spec"]
    assert (spec["replicas"], "scaleDownDelaySeconds" in spec["autoscaling"]) == (4, False), "kubectl did the same"


def test_each_workload_of_a_file_has_its_plan_and_other_objects_are_left_alone(planner: Planner) -> None:
    planner.runs(whole(), limit=12, free=9)
    other = copy.deepcopy(whole())
    other["metadata"]["name"] = "other"
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    plans = json.loads(planner.plan(whole(8, 8), service, other, output="json").out)["plans"]
    assert [(each["name"], each["change"]) for each in plans] == [("llama", "InPlace"), ("other", "First")]
    assert planner.plan(service).err.endswith("llama.yaml: no InferenceWorkload in it\n")


# --- the pure parts ---


def test_a_merge_of_three_ways() -> None:
    before = {"a": 1, "gone": {"x": 1}, "block": {"kept": 1, "dropped": 2}}
    wanted = {"a": 2, "block": {"kept": 1}, "list": [1]}
    stored = {"a": 1, "gone": {"x": 1}, "block": {"kept": 1, "dropped": 2, "foreign": 3}, "list": [1, 2]}
    assert merge_patch(before, wanted, stored) == {"gone": None, "a": 2, "block": {"dropped": None}, "list": [1]}
    assert merge_patch(wanted, wanted, wanted) == {}


def test_differences_are_named_by_path_and_by_name() -> None:
    before = {"c": [{"name": "a", "image": "1"}, {"name": "b"}], "n": [1], "same": {"x": 1}}
    after = {"c": [{"name": "a", "image": "2"}], "n": [1, 2], "same": {"x": 1}}
    assert [str(each) for each in differences(before, after)] == [
        'spec.c[a].image: "1" -> "2"',
        'spec.c[b]: {"name": "b"} -> unset',
        "spec.n: [1] -> [1, 2]",
    ]
