"""What an installation would create, read offline."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from autoscaler.settings.load import ConfigError, parse
from autoscaler.wiring import NEEDS_RESTART, terms_of
from tests.chart.derived import CHART, CRDS, ROOT
from tests.chart.render import (
    ACCOUNT_OF_OTHERS,
    NAMESPACE,
    WATCHED,
    Object,
    Refused,
    Values,
    container,
    helm,
    one,
    render,
)

CLUSTER_WIDE = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "FlowSchema"}
DIGEST = "sha256:" + "0123456789abcdef" * 4
EVERYTHING: Values = {
    "fullnameOverride": "gate",
    "config": yaml.safe_load((ROOT / "config" / "defaults.yaml").read_text()),
    "replicas": 3,
    "flowSchema": {"priorityLevel": "workload-low", "matchingPrecedence": 7000},
    "serviceAccount": {"name": "gate-daemon", "annotations": {"example.com/role": "gate"}},
    "image": {
        "registry": "mirror.example.com:5000",
        "tag": "1.2.3",
        "digest": DIGEST,
        "pullPolicy": "Always",
        "pullSecrets": [{"name": "pull"}],
    },
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "2Gi"}},
    "extraEnv": [
        {"name": "TIDEGATE__LOG__LEVEL", "value": "debug"},
        {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
    ],
    "extraVolumes": [{"name": "prometheus", "secret": {"secretName": "prometheus-access"}}],
    "extraVolumeMounts": [{"name": "prometheus", "mountPath": "/etc/prometheus", "readOnly": True}],
    "podSecurityContext": {"fsGroup": 10001, "supplementalGroups": [1000680000]},
    "podLabels": {"team": "serving"},
    "podAnnotations": {"example.com/inject": "false"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 60}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "control", "operator": "Exists"}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "minDomains": 2,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["serving"]}]},
            "matchLabelKeys": ["pod-template-hash"],
            "nodeTaintsPolicy": "Honor",
        }
    ],
    "priorityClassName": "system-cluster-critical",
    "service": {"annotations": {"example.com/scrape": "true"}},
    "global": {"anything": 1},
    "enabled": True,
}
MATRIX: dict[str, Values] = {
    "defaults": {},
    "named namespaces": WATCHED,
    "node pools": {"config": {"nodePools": {"h100": {"nodeSelector": {"gpu": "h100"}}}}},
    "everything": EVERYTHING,
    "nothing but the daemon": {
        **ACCOUNT_OF_OTHERS,
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
        "flowSchema": {"create": False},
        "podDisruptionBudget": {"create": False},
    },
}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_helm_finds_nothing_to_complain_about(values: Values) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=values)


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_satisfies_the_published_schema(values: Values, version: str) -> None:
    objects = render(values, f"--kube-version={version}")
    assert objects
    for rendered in objects:
        kubernetes_validate.validate(rendered, version, strict=True)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_of_a_namespace_names_it(values: Values) -> None:
    for rendered in render(values):
        assert (rendered["kind"] in CLUSTER_WIDE) is ("namespace" not in rendered["metadata"])


def test_what_a_default_installation_consists_of() -> None:
    assert sorted((each["kind"], each["metadata"]["name"]) for each in render()) == [
        ("ClusterRole", "tidegate:tidegate-system"),
        ("ClusterRole", "tidegate:tidegate-system:edit"),
        ("ClusterRole", "tidegate:tidegate-system:view"),
        ("ClusterRoleBinding", "tidegate:tidegate-system"),
        ("ConfigMap", "tidegate"),
        ("CustomResourceDefinition", "inferenceworkloads.tidegate.dev"),
        ("CustomResourceDefinition", "quotaledgers.tidegate.dev"),
        ("Deployment", "tidegate"),
        ("FlowSchema", "tidegate-leases.tidegate-system"),
        ("FlowSchema", "tidegate.tidegate-system"),
        ("PodDisruptionBudget", "tidegate"),
        ("Role", "tidegate-leases"),
        ("RoleBinding", "tidegate-leases"),
        ("Service", "tidegate-metrics"),
        ("ServiceAccount", "tidegate"),
    ]


def roles(values: Values) -> list[tuple[str, str, str]]:
    """Kind, namespace and name of all but those for people."""
    return sorted(
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in render({**values, "rbac": {"aggregate": False}})
        if "Role" in each["kind"]
    )


def test_named_namespaces_get_a_role_each_and_the_cluster_none() -> None:
    assert roles(WATCHED) == [
        ("Role", "ml-team", "tidegate"),
        ("Role", NAMESPACE, "tidegate-leases"),
        ("Role", "vision", "tidegate"),
        ("RoleBinding", "ml-team", "tidegate"),
        ("RoleBinding", NAMESPACE, "tidegate-leases"),
        ("RoleBinding", "vision", "tidegate"),
    ]


def test_a_namespace_that_is_named_twice_gets_one_role() -> None:
    once, twice = ({"config": {"watch": {"namespaces": ["ml-team"] * count}}} for count in (1, 2))
    assert roles(twice) == roles(once)


def test_namespaces_and_leases_that_look_like_numbers_stay_text() -> None:
    election = {"resourceName": "10", "resourceNamespace": "30"}
    rendered = render({"config": {"watch": {"namespaces": ["20"]}, "leaderElection": election}})
    found = {each["metadata"]["namespace"] for each in rendered if each["kind"] == "Role"}
    assert found == {"20", "30"}
    for each in rendered:
        kubernetes_validate.validate(each, "1.30", strict=True)


def test_switched_off_parts_are_left_out() -> None:
    kinds = sorted(each["kind"] for each in render(MATRIX["nothing but the daemon"]))
    assert kinds == ["ConfigMap", "Deployment", "Service"]


def test_crds_are_the_shipped_ones_and_survive_the_release() -> None:
    rendered = {
        each["spec"]["names"]["plural"]: each for each in render() if "spec" in each and "names" in each["spec"]
    }
    shipped = {path.stem: yaml.safe_load(path.read_text()) for path in CRDS.glob("*.yaml")}
    assert rendered == shipped
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in rendered.values()} == {"keep"}


def test_older_clusters_are_refused() -> None:
    with pytest.raises(
        Refused, match=r"requires kubeVersion: >=1\.30\.0-0 which is incompatible with Kubernetes v1\.29"
    ):
        render({}, "--kube-version=1.29.14")


@pytest.mark.parametrize("provider", ["1.32.1-gke.100", "1.31.2+k3s1", "1.30.0-eks-036c24b"])
def test_versions_with_a_provider_s_suffix_are_accepted(provider: str) -> None:
    assert render({}, f"--kube-version={provider}")


# --- the configuration ---


@pytest.mark.parametrize("file", ["defaults.yaml", "examples/config.yaml", "examples/node-pools.yaml"])
def test_the_daemon_reads_the_configuration_that_the_operator_wrote(file: str) -> None:
    written = (ROOT / "config" / file).read_text()
    document = one(render({"config": yaml.safe_load(written)}), "ConfigMap")["data"]["config.yaml"]
    assert parse(document.encode(), {}, name="rendered").config == parse(written.encode(), {}, name=file).config


def test_an_empty_configuration_is_one() -> None:
    document = one(render(), "ConfigMap")["data"]["config.yaml"]
    assert parse(document.encode(), {}, name="rendered").config == parse(b"", {}, name="empty").config


def test_large_numbers_stay_whole() -> None:
    scrape = {"maxPageSize": 67108864, "pagesPerSecond": 100000}
    assert one(render({"config": {"scrape": scrape}}), "ConfigMap")["data"]["config.yaml"] == (
        "scrape:\n  maxPageSize: 67108864\n  pagesPerSecond: 100000\n"
    )


def test_the_configuration_is_mounted_as_a_directory() -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "config", "configMap": {"name": "tidegate"}}]
    assert container()["volumeMounts"] == [{"name": "config", "mountPath": "/etc/tidegate", "readOnly": True}]
    assert container()["command"] + container()["args"] == ["tidegate", "run", "--config", "/etc/tidegate/config.yaml"]


def test_credentials_are_mounted_beside_the_configuration() -> None:
    volume = {"name": "prometheus", "secret": {"secretName": "prometheus-access"}}
    mount = {"name": "prometheus", "mountPath": "/etc/prometheus", "readOnly": True}
    pod = one(render({"extraVolumes": [volume], "extraVolumeMounts": [mount]}), "Deployment")["spec"]["template"][
        "spec"
    ]
    assert pod["volumes"][1:] == [volume]
    assert pod["containers"][0]["volumeMounts"][1:] == [mount]


def checksum(values: Values) -> str:
    """Of what restarts the daemons."""
    annotations = one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["checksum/config"])


RESTARTS: dict[str, object] = {
    "api.bind": "::",
    "api.port": 9000,
    "watch.namespaces": ["ml-team"],
    "log.format": "json",
    "scrape.concurrency": 7,
    "leader_election": {"leaseDuration": "30s"},
    "signals": {"source": "prometheus"},
}


def test_the_daemon_names_the_same_keys() -> None:
    """A section stands for all of its keys."""
    named = {next((each for each in RESTARTS if f"{key}.".startswith(f"{each}.")), key) for key in NEEDS_RESTART}
    assert named == set(RESTARTS), "tidegate.restartKeys in _helpers.tpl and the README follow, too"


@pytest.mark.parametrize("key", RESTARTS)
def test_what_a_running_daemon_cannot_take_restarts_it(key: str) -> None:
    assert checksum({"config": _nested(key, RESTARTS[key])}) != checksum({})


def test_nothing_else_restarts_it() -> None:
    config = yaml.safe_load((ROOT / "config" / "defaults.yaml").read_text())
    changed = {
        **config,
        "tick": "3s",
        "kpa": {},
        "projects": {},
        "defaults": {},
        "writes": {"budgetPerSecond": 9},
        "ceilings": {},
        "log": {**config["log"], "level": "debug"},
        "scrape": {"concurrency": config["scrape"]["concurrency"], "period": "7s"},
    }
    assert checksum({"config": changed}) == checksum({"config": config})
    assert checksum({"podAnnotations": {"checksum/config": "mine", "a": "b"}, "replicas": 3}) == checksum({})


def _nested(key: str, value: object) -> object:
    """`_nested("log.format", "json") == {"log": {"format": "json"}}`."""
    first, _, rest = key.partition(".")
    return {"leaderElection" if first == "leader_election" else first: _nested(rest, value) if rest else value}


def test_the_port_follows_the_configuration() -> None:
    values = {"config": {"api": {"port": 9000}}}
    assert container(values)["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert one(render(values), "Service")["spec"]["ports"] == [
        {"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}
    ]


# --- the pod ---


def test_two_daemons_stand_apart_and_one_stays_through_a_drain() -> None:
    objects = render()
    spec, budget = one(objects, "Deployment")["spec"], one(objects, "PodDisruptionBudget")["spec"]
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert (spec["replicas"], budget["maxUnavailable"]) == (2, 1)
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"] == budget["selector"] == spec["selector"]


def test_a_single_daemon_has_nothing_that_would_block_a_drain() -> None:
    objects = render({"replicas": 1})
    assert not [each for each in objects if each["kind"] == "PodDisruptionBudget"]
    spec = one(objects, "Deployment")["spec"]
    assert "topologySpreadConstraints" not in spec["template"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


@pytest.mark.parametrize(
    ("values", "lease", "namespace"),
    [
        ({}, None, NAMESPACE),
        ({"fullnameOverride": "gate"}, "gate", NAMESPACE),
        ({"config": {"leaderElection": {"resourceName": "mine", "resourceNamespace": "locks"}}}, "mine", "locks"),
    ],
    ids=["the daemon's default", "another release's name", "the operator's"],
)
def test_the_lease_of_the_configuration_is_the_one_with_rights(
    values: dict[str, Any], lease: str | None, namespace: str
) -> None:
    objects = render(values)
    (role,) = [each for each in objects if each["kind"] == "Role" and each["metadata"]["name"].endswith("-leases")]
    assert role["metadata"]["namespace"] == namespace
    assert role["rules"][1]["resourceNames"] == [lease or "tidegate"]
    document = one(objects, "ConfigMap")["data"]["config.yaml"]
    assert yaml.safe_load(document).get("leaderElection", {}).get("resourceName") == lease
    terms = terms_of(parse(document.encode(), {}, name="rendered").config.leader_election, {"POD_NAMESPACE": NAMESPACE})
    assert (terms.namespace, terms.name) == (namespace, lease or "tidegate")
    schema = flow_schemas(objects)["leader-election"]
    assert schema["rules"][0]["resourceRules"][0]["namespaces"] == [namespace]


ADAPTERS = {
    "apiVersion": "nvidia.com/v1alpha1",
    "kind": "DynamoGraphDeploymentScalingAdapter",
    "resource": "dynamographdeploymentscalingadapters",
}


@pytest.mark.parametrize(
    "config",
    [{}, {"targetKinds": []}, {"targetKinds": [ADAPTERS]}],
    ids=["the daemon's default", "none", "the operator's"],
)
@pytest.mark.parametrize("watch", [{}, {"watch": {"namespaces": ["ml-team"]}}], ids=["everywhere", "in namespaces"])
def test_the_kinds_of_targets_that_the_daemon_takes_are_those_that_it_has_rights_for(
    config: dict[str, Any], watch: dict[str, Any]
) -> None:
    objects = render({"config": {**config, **watch}})
    document = one(objects, "ConfigMap")["data"]["config.yaml"]
    kinds = parse(document.encode(), {}, name="rendered").config.target_kinds
    roles = [each for each in objects if each["kind"] in ("Role", "ClusterRole") and "aggregat" not in str(each)]
    (role,) = [each for each in roles if not each["metadata"]["name"].endswith("-leases")]
    rules = [(rule["apiGroups"][0], rule["resources"][0], set(rule["verbs"])) for rule in role["rules"]]
    targets = [(group, name, verbs) for group, name, verbs in rules if verbs == {"list", "watch"}]
    wanted = [(each.api_version.partition("/")[0], each.resource) for each in kinds]
    others = [
        ("discovery.k8s.io", "endpointslices"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("keda.sh", "scaledobjects"),
    ]
    assert sorted((group, name) for group, name, _ in targets) == sorted(wanted + others)
    for group, resource in wanted:
        assert (group, f"{resource}/scale", {"get", "patch"}) in rules


def test_kinds_of_targets_that_scale_themselves_are_refused() -> None:
    for version, kind in (("serving.knative.dev/v1", "Service"), ("tidegate.dev/v1alpha1", "InferenceWorkload")):
        text = f"targetKinds: [{{apiVersion: {version}, kind: {kind}, resource: things}}]"
        with pytest.raises(ConfigError, match=f"targetKinds: value '{version} {kind}' has an autoscaler of its own"):
            parse(text.encode(), {}, name="config.yaml")


def flow_schemas(objects: list[Object]) -> dict[str, Object]:
    """Their specs by priority level."""
    specs = [each["spec"] for each in objects if each["kind"] == "FlowSchema"]
    return {spec["priorityLevelConfiguration"]["name"]: spec for spec in specs}


def test_requests_of_the_daemon_s_account_alone_go_first_and_the_lease_s_before_them() -> None:
    specs = flow_schemas(render({**ACCOUNT_OF_OTHERS, "flowSchema": {"priorityLevel": "mine"}}))
    assert {level: spec["matchingPrecedence"] for level, spec in specs.items()} == {"leader-election": 899, "mine": 900}
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": "theirs", "namespace": NAMESPACE}}
    assert [rule["subjects"] for spec in specs.values() for rule in spec["rules"]] == [[account]] * 2


def test_the_pod_is_probed_stopped_and_identified() -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    daemon = container()
    assert (pod["terminationGracePeriodSeconds"], pod["automountServiceAccountToken"]) == (10, True)
    assert pod["enableServiceLinks"] is False
    assert daemon["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert daemon["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in daemon["env"]} == {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }


def test_the_operator_s_settings_reach_the_pod() -> None:
    template = one(render(EVERYTHING), "Deployment")["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["labels"].items() >= {"team": "serving", "app.kubernetes.io/name": "tidegate"}.items()
    assert template["metadata"]["annotations"]["example.com/inject"] == "false"
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "topologySpreadConstraints"):
        assert pod[key] == EVERYTHING[key]
    assert pod["serviceAccountName"] == "gate-daemon"
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["securityContext"]["supplementalGroups"] == [1000680000]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["containers"][0]["resources"] == EVERYTHING["resources"]


def test_labels_that_select_the_pod_cannot_be_overwritten() -> None:
    deployment = one(render({"podLabels": {"app.kubernetes.io/name": "other"}}), "Deployment")
    assert deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "tidegate"


def test_null_takes_a_default_out() -> None:
    pod = one(render({"podSecurityContext": {"runAsUser": None}}), "Deployment")["spec"]["template"]["spec"]
    assert "runAsUser" not in pod["securityContext"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "tidegate/tidegate:0.1.0"),
        ({"tag": "edge"}, "tidegate/tidegate:edge"),
        ({"registry": "mirror.example.com:5000"}, "mirror.example.com:5000/tidegate/tidegate:0.1.0"),
        ({"repository": "team/gate", "digest": DIGEST}, f"team/gate:0.1.0@{DIGEST}"),
    ],
)
def test_image_references(image: dict[str, str], reference: str) -> None:
    assert container({"image": image})["image"] == reference


API_SERVER = "$(KUBERNETES_SERVICE_HOST)"


@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        ({}, {}),
        ({"NO_PROXY": "10.0.0.0/8"}, {"NO_PROXY": "10.0.0.0/8"}),
        ({"HTTPS_PROXY": "p"}, {"HTTPS_PROXY": "p", "NO_PROXY": API_SERVER}),
        ({"http_proxy": "p"}, {"http_proxy": "p", "NO_PROXY": API_SERVER}),
        (
            {"HTTPS_PROXY": "p", "NO_PROXY": "10.0.0.0/8"},
            {"HTTPS_PROXY": "p", "NO_PROXY": f"10.0.0.0/8,{API_SERVER}"},
        ),
        (
            {"HTTPS_PROXY": "p", "NO_PROXY": "a", "no_proxy": "b"},
            {"HTTPS_PROXY": "p", "NO_PROXY": f"a,{API_SERVER}", "no_proxy": f"b,{API_SERVER}"},
        ),
    ],
)
def test_the_api_server_is_never_reached_through_a_proxy(given: dict[str, str], rendered: dict[str, str]) -> None:
    env = container({"extraEnv": [{"name": name, "value": value} for name, value in given.items()]})["env"]
    assert {each["name"]: each["value"] for each in env if "value" in each} == rendered


@pytest.mark.parametrize("release", ["tidegate", "prod", "a-tidegate-b", "x" * 53])
def test_names_are_legal_and_the_service_injects_no_variable_of_ours(release: str) -> None:
    objects = render({}, release=release)
    service = one(objects, "Service")["metadata"]["name"]
    assert len(service) <= 63
    assert not service.upper().replace("-", "_").startswith("TIDEGATE__")
    assert one(objects, "Deployment")["spec"]["selector"]["matchLabels"] == one(objects, "Service")["spec"]["selector"]


def test_two_releases_of_one_name_share_no_object_but_crds() -> None:
    def names(namespace: str) -> set[tuple[str, ...]]:
        objects = render({}, f"--namespace={namespace}")
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in objects}

    assert {kind for kind, *_ in names("one") & names("two")} == {"CustomResourceDefinition"}


# --- refusals ---


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replica": 2}, "at '': additional properties 'replica' not allowed"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"replicas": 6}, "at '/replicas': maximum: got 6, want 5"),
        ({"replicas": "2"}, "at '/replicas': got string, want integer"),
        ({"podDisruptionBudget": {"create": "no"}}, "at '/podDisruptionBudget/create': got string, want boolean"),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "at '/podDisruptionBudget': additional properties"),
        ({"flowSchema": {"matchingPrecedence": 1}}, "at '/flowSchema/matchingPrecedence': minimum: got 1, want 2"),
        ({"flowSchema": {"matchingPrecedence": 9000}}, "at '/flowSchema/matchingPrecedence': maximum: got 9,000"),
        ({"flowSchema": {"priorityLevel": "Mine"}}, "at '/flowSchema/priorityLevel': 'Mine' does not match pattern"),
        ({"flowSchema": {"priorityLevel": ""}}, "at '/flowSchema/priorityLevel': '' does not match pattern"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "at '/topologySpreadConstraints/0': missing properties"),
        ({"image": {"tagg": "1"}}, "at '/image': additional properties 'tagg' not allowed"),
        ({"image": {"digest": "sha256:1"}}, "at '/image/digest': 'sha256:1' does not match pattern"),
        ({"image": {"registry": "https://mirror.example.com"}}, "at '/image/registry': "),
        ({"image": {"pullPolicy": "never"}}, "at '/image/pullPolicy': value must be one of"),
        ({"securityContext": {"readOnlyRootFileSystem": True}}, "at '/securityContext': additional properties"),
        ({"podLabels": {"a": 1}}, "at '/podLabels/a': got number, want string"),
        ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
        ({"extraVolumes": [{"name": "config", "secret": {}}]}, "at '/extraVolumes/0/name': 'not' failed"),
        ({"extraVolumes": [{"name": "a", "hostPath": {}}]}, "additional properties 'hostPath' not allowed"),
        ({"tolerations": [{"effect": "Never"}]}, "at '/tolerations/0/effect': value must be one of"),
        ({"config": {"scrap": {}}}, "at '/config': additional properties 'scrap' not allowed"),
        ({"config": {"tick": "fast"}}, "at '/config/tick': "),
        ({"config": {"scrape": {"concurrency": 5000}}}, "at '/config/scrape/concurrency': "),
        ({"config": {"watch": {"namespaces": ["A"]}}}, "at '/config/watch/namespaces/0': "),
        ({"config": {"log": {"level": "loud"}}}, "at '/config/log/level': "),
        ({"config": {"leaderElection": {"resourceName": "A"}}}, "at '/config/leaderElection/resourceName': 'A' does"),
        (
            {"config": {"projects": {"A_b": {"namespaces": ["x"]}}}},
            "at '/config/projects': additional properties 'A_b'",
        ),
        (
            {"config": {"api": {"bind": "127.0.0.1"}}},
            "config.api.bind: 127.0.0.1 cannot be reached by the kubelet's probes; allowed here: 0.0.0.0 or ::",
        ),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name: required where serviceAccount.create is false"),
        (
            {"extraEnv": [{"name": "TIDEGATE__WATCH__NAMESPACES", "value": "[a]"}]},
            "extraEnv: TIDEGATE__WATCH__NAMESPACES: set it in config instead",
        ),
        (
            {"extraEnv": [{"name": "TIDEGATE__LEADER_ELECTION__RESOURCE_NAME", "value": "a"}]},
            "extraEnv: TIDEGATE__LEADER_ELECTION__RESOURCE_NAME: set it in config instead",
        ),
        ({"extraEnv": [{"name": "POD_NAME", "value": "me"}]}, "extraEnv: POD_NAME: the chart sets it; remove it here"),
        ({"extraEnv": [{"name": "POD_UID", "value": "me"}]}, "extraEnv: POD_UID: the chart sets it; remove it here"),
    ],
    ids=lambda argument: argument if isinstance(argument, str) else "",
)
def test_wrong_values_are_refused_with_their_place(values: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert says in str(refused.value)


# --- what the operator reads afterwards ---


def notes(values: Values) -> str:
    text = helm("install", "tidegate", str(CHART), f"--namespace={NAMESPACE}", "--dry-run=client", values=values)
    return text.split("NOTES:\n")[1]


def test_notes_name_the_next_commands() -> None:
    assert notes({}) == (
        "Tidegate 0.1.0 is installed. It manages the InferenceWorkloads of every namespace.\n"
        "One of 2 daemons leads, the others stand by; the Lease names the leader as HOLDER.\n"
        "\n"
        "Next:\n"
        "  kubectl -n tidegate-system rollout status deployment/tidegate\n"
        "  kubectl -n tidegate-system get lease tidegate\n"
        "  kubectl -n tidegate-system logs --prefix --selector "
        "app.kubernetes.io/name=tidegate,app.kubernetes.io/instance=tidegate\n"
        "  kubectl -n tidegate-system exec deployment/tidegate -- tidegate doctor\n"
        "  kubectl get inferenceworkloads --all-namespaces\n"
    )


def test_notes_warn_of_what_was_left_to_the_operator() -> None:
    said = notes({**WATCHED, **ACCOUNT_OF_OTHERS, "crds": {"install": False}, "rbac": {"create": False}})
    assert "of ml-team, vision." in said
    assert "kubectl get inferenceworkloads -n ml-team\n" in said
    assert "Warning: crds.install is false. " in said
    assert "Bind the rights that README.md lists, those to the Lease too, to ServiceAccount theirs." in said


def test_notes_speak_of_standing_by_only_where_somebody_does() -> None:
    election = {"resourceName": "mine", "resourceNamespace": "locks"}
    said = notes({"replicas": 1, "config": {"leaderElection": election}})
    assert "of every namespace.\n\nNext:\n" in said
    assert "  kubectl -n locks get lease mine\n" in said
