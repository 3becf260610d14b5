"""What an installation would create, read offline."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from autoscaler.settings.load import parse
from tests.chart.derived import CHART, CRDS, ROOT
from tests.chart.render import (
    ACCOUNT_OF_OTHERS,
    NAMESPACE,
    WATCHED,
    Refused,
    Values,
    container,
    helm,
    one,
    render,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4
EVERYTHING: Values = {
    "fullnameOverride": "gate",
    "config": yaml.safe_load((ROOT / "config" / "defaults.yaml").read_text()),
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
    "priorityClassName": "system-cluster-critical",
    "service": {"annotations": {"example.com/scrape": "true"}},
    "global": {"anything": 1},
    "enabled": True,
}
MATRIX: dict[str, Values] = {
    "defaults": {},
    "named namespaces": WATCHED,
    "everything": EVERYTHING,
    "nothing but the daemon": {
        **ACCOUNT_OF_OTHERS,
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
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
        cluster_wide = rendered["kind"] in ("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding")
        assert cluster_wide is ("namespace" not in rendered["metadata"])


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
        ("Service", "tidegate-metrics"),
        ("ServiceAccount", "tidegate"),
    ]


def test_named_namespaces_get_a_role_each_and_the_cluster_none() -> None:
    roles = [
        (each["kind"], each["metadata"]["namespace"])
        for each in render({**WATCHED, "rbac": {"aggregate": False}})
        if "Role" in each["kind"]
    ]
    both = [("Role", "ml-team"), ("Role", "vision"), ("RoleBinding", "ml-team"), ("RoleBinding", "vision")]
    assert sorted(roles) == both


def test_a_namespace_that_is_named_twice_gets_one_role() -> None:
    rendered = render({"config": {"watch": {"namespaces": ["ml-team", "ml-team"]}}})
    assert one(rendered, "Role")["metadata"]["namespace"] == "ml-team"


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


@pytest.mark.parametrize("file", ["defaults.yaml", "examples/config.yaml"])
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


def test_a_changed_configuration_and_nothing_else_changes_the_checksum() -> None:
    def checksum(values: Values) -> str:
        annotations = one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum({}) == checksum({"podAnnotations": {"checksum/config": "mine", "a": "b"}})
    assert checksum({}) != checksum({"config": {"tick": "3s"}})


def test_the_port_follows_the_configuration() -> None:
    values = {"config": {"api": {"port": 9000}}}
    assert container(values)["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert one(render(values), "Service")["spec"]["ports"] == [
        {"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}
    ]


# --- the pod ---


def test_there_are_never_two_daemons() -> None:
    spec = one(render(EVERYTHING), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


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
    }


def test_the_operator_s_settings_reach_the_pod() -> None:
    template = one(render(EVERYTHING), "Deployment")["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["labels"].items() >= {"team": "serving", "app.kubernetes.io/name": "tidegate"}.items()
    assert template["metadata"]["annotations"]["example.com/inject"] == "false"
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
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
        ({"replicas": 2}, "at '': additional properties 'replicas' not allowed"),
        ({"image": {"tagg": "1"}}, "at '/image': additional properties 'tagg' not allowed"),
        ({"image": {"digest": "sha256:1"}}, "at '/image/digest': 'sha256:1' does not match pattern"),
        ({"image": {"registry": "https://mirror.example.com"}}, "at '/image/registry': "),
        ({"image": {"pullPolicy": "never"}}, "at '/image/pullPolicy': value must be one of"),
        ({"securityContext": {"readOnlyRootFileSystem": True}}, "at '/securityContext': additional properties"),
        ({"podLabels": {"a": 1}}, "at '/podLabels/a': got number, want string"),
        ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
        ({"tolerations": [{"effect": "Never"}]}, "at '/tolerations/0/effect': value must be one of"),
        ({"config": {"scrap": {}}}, "at '/config': additional properties 'scrap' not allowed"),
        ({"config": {"tick": "fast"}}, "at '/config/tick': "),
        ({"config": {"scrape": {"concurrency": 5000}}}, "at '/config/scrape/concurrency': "),
        ({"config": {"watch": {"namespaces": ["A"]}}}, "at '/config/watch/namespaces/0': "),
        ({"config": {"log": {"level": "loud"}}}, "at '/config/log/level': "),
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
        ({"extraEnv": [{"name": "POD_NAME", "value": "me"}]}, "extraEnv: POD_NAME: the chart sets it; remove it here"),
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
        "\n"
        "Next:\n"
        "  kubectl -n tidegate-system rollout status deployment/tidegate\n"
        "  kubectl -n tidegate-system logs deployment/tidegate\n"
        "  kubectl get inferenceworkloads --all-namespaces\n"
    )


def test_notes_warn_of_what_was_left_to_the_operator() -> None:
    said = notes({**WATCHED, **ACCOUNT_OF_OTHERS, "crds": {"install": False}, "rbac": {"create": False}})
    assert "of ml-team, vision." in said
    assert "kubectl get inferenceworkloads -n ml-team\n" in said
    assert "Warning: crds.install is false. " in said
    assert "Bind the rights that README.md lists to ServiceAccount theirs." in said
