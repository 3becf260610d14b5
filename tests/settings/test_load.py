"""The configuration: what is refused, with which words, and what the environment may change."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from autoscaler.settings.config import Config
from autoscaler.settings.load import SIZE_MAX, ConfigError, LoadedConfig, load, parse


def read(text: str, **environ: str) -> LoadedConfig:
    return parse(text.encode(), environ, name="config.yaml")


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return list(caught.value.problems)


def test_an_empty_document_is_the_defaults() -> None:
    assert read("").config == read("# nothing\n").config == read("{}").config == Config()


def test_a_section_with_everything_commented_out_is_its_defaults() -> None:
    assert read("scrape:\n#  period: 2s\nprojects:\nlog: {level: }\n").config == Config()


def test_values_arrive_in_seconds_bytes_and_thousandths() -> None:
    config = read(
        """
        tick: 500ms
        scrape: {period: 1m, maxPageSize: 1Mi}
        kpa: {stable-window: 1m30s}
        projects: {ml: {namespaces: [ml], quota: {limits: {default: {nvidia.com/gpu: 12, cpu: 500m, memory: 1Ki}}}}}
        """
    ).config
    assert (config.tick, config.scrape.period, config.scrape.max_page_size) == (0.5, 60.0, 1024**2)
    assert config.kpa.stable_window == 90.0
    assert config.projects["ml"].quota.limits["default"] == {"nvidia.com/gpu": 12000, "cpu": 500, "memory": 1024000}


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"tick: 3s\n")
    loaded = load(file, {})
    assert loaded.sha256 == sha256(b"tick: 3s\n").hexdigest()
    assert loaded.config.tick == 3.0


def test_a_configuration_does_not_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read("").config.tick = 1.0


DURATION = "is not a duration such as 30s or 1m30s"
REFUSED = [
    # durations, sizes, numbers
    ("tick: 22:00", f"config.yaml:1: tick: value '22:00' {DURATION}; allowed: a duration from 200ms to 1m"),
    ("tick: 30", "tick: value 30 has no unit; write 30s for seconds; allowed: a duration from 200ms to 1m"),
    ("tick: 0.5", "tick: value 0.5 has no unit; write 0.5s for seconds"),
    ("tick: true", "tick: not a duration such as 30s or 1m30s; allowed: a duration from 200ms to 1m"),
    ("tick: [2s]", "tick: not a duration such as 30s or 1m30s"),
    ("tick: 100ms", "tick: value '100ms' is out of range; allowed: a duration from 200ms to 1m"),
    ("tick: 61s", "tick: value '61s' is out of range; allowed: a duration from 200ms to 1m"),
    ("scrape:\n  period: soon", f"config.yaml:2: scrape.period: value 'soon' {DURATION}"),
    ("scrape: {maxPageSize: 1Gi}", "scrape.maxPageSize: value '1Gi' is out of range; allowed: a size from 1Ki to 64Mi"),
    ("scrape: {maxPageSize: big}", "scrape.maxPageSize: value 'big' is not a size such as 4Mi"),
    ("scrape: {maxPageSize: 1024.5}", "scrape.maxPageSize: not a size such as 4Mi"),
    ("scrape: {concurrency: 0}", "scrape.concurrency: value 0 is out of range; allowed: a whole number from 1 to 1024"),
    ("scrape: {concurrency: true}", "scrape.concurrency: value true is not a whole number"),
    ('api: {port: "8080"}', "api.port: value '8080' is not a whole number; allowed: a whole number from 1 to 65535"),
    ("api: {port: 80.5}", "api.port: value 80.5 is not a whole number"),
    ("api: {port: 65536}", "api.port: value 65536 is out of range; allowed: a whole number from 1 to 65535"),
    ("api: {bind: localhost}", "api.bind: value 'localhost' is no IP address; allowed: an address such as 0.0.0.0"),
    ("writes: {budgetPerSecond: 1001}", "writes.budgetPerSecond: value 1001 is out of range"),
    # closed sets
    ("log: {level: no}", "log.level: value 'no' is not known; allowed: debug, info, warning, error"),
    ("metrics: {republish: yes}", "metrics.republish: value 'yes' is not true or false"),
    ("metrics: {republish: 1}", "metrics.republish: value 1 is not true or false"),
    ("log: {format: text}", "log.format: value 'text' is not known; allowed: auto, json, console"),
    ("defaults: {mode: observe}", "defaults.mode: value 'observe' is not known; allowed: active, paused"),
    ("defaults: {priority: 3}", "defaults.priority: value 3 is not known; allowed: very-low, low"),
    (
        "defaults: {serving: {engine: olama}}",
        "defaults.serving.engine: value 'olama' is not known; allowed: auto, vllm",
    ),
    # the policy, with upstream's ranges
    ("kpa: {stable-window: 5s}", "kpa.stable-window: value '5s' is out of range; allowed: a duration from 6s to 1h"),
    ("kpa: {stable-window: 6500ms}", "allowed: a duration from 6s to 1h in whole seconds"),
    ("kpa: {panic-window-percentage: 0.5}", "value 0.5 is out of range; allowed: a number from 1 to 100"),
    ("kpa: {panic-threshold-percentage: 109}", "value 109 is out of range; allowed: a number from 110 to 1000"),
    ("kpa: {max-scale-up-rate: 1}", "kpa.max-scale-up-rate: value 1 is out of range; allowed: a number above 1"),
    ("kpa: {max-scale-down-rate: 1.0}", "kpa.max-scale-down-rate: value 1.0 is out of range"),
    ("kpa: {max-scale-up-rate: 1e999}", "kpa.max-scale-up-rate: value inf is not a finite number"),
    # keys
    ("tik: 2s", "config.yaml:1: tik: unknown key, did you mean tick?; allowed: tick, signals, scrape, prometheus, api"),
    ("kpa: {stableWindow: 60s}", "kpa.stableWindow: unknown key, did you mean stable-window?"),
    ("scrape: {max_page_size: 1Mi}", "scrape.max_page_size: unknown key, did you mean maxPageSize?"),
    ("scrape: 2s", "scrape: value '2s' is not a mapping; allowed: a mapping with the keys period, timeout"),
    ("tick: 2s\nlog: {level: info}\ntick: 3s", "config.yaml:3: key 'tick' was given on line 1 already; remove one"),
    # projects
    ("projects: {ML: {namespaces: [a]}}", "projects.ML: this name is refused; allowed: lower-case letters"),
    ("projects: {a: {}}", "projects.a.namespaces: is missing; allowed: a list of at least 1"),
    ("projects: {a: {namespaces: []}}", "projects.a.namespaces: the list is empty; allowed: one or more namespaces"),
    ("projects: {a: {namespaces: [A]}}", "projects.a.namespaces[0]: value 'A' is not of the right form"),
    (
        "projects:\n  a: {namespaces: [x]}\n  b: {namespaces: [y, x]}",
        "config.yaml:3: projects.b.namespaces: namespace x is in project a already; allowed: one project per namespace",
    ),
    (
        "projects: {a: {namespaces: [x], quota: {limits: {h100: {nvidia.com/gpu: 1}}}}}",
        "projects.a.quota.limits.h100: h100 is no node pool; allowed: default",
    ),
    (
        "projects: {a: {namespaces: [x], nodePools: [h100, b200]}}\nnodePools: {h100: {nodeSelector: {gpu: h100}}}",
        "config.yaml:1: projects.a.nodePools: value 'b200' is no node pool; allowed: default, h100",
    ),
    (
        "projects: {a: {namespaces: [x], nodePools: [default, default]}}",
        "projects.a.nodePools: value 'default' stands there twice; allowed: each node pool once",
    ),
    (
        "projects: {a: {namespaces: [x], nodePools: []}}",
        "projects.a.nodePools: value (a list) is out of range; allowed: a list of 1 to 8",
    ),
    ("nodePools: {default: {nodeSelector: {a: b}}}", "nodePools.default: default is every node; allowed: another name"),
    (
        "nodePools: {h100: {nodeSelector: {gpu: h100}}}\n"
        "projects: {a: {namespaces: [x], nodePools: [h100, default], quota: {limits: {h100: {nvidia.com/gpu: 8}}}}}",
        "projects.a.quota.limits.default: has no nvidia.com/gpu, which is limited in h100; allowed: a number in each",
    ),
    ("nodePools: {H100: {nodeSelector: {a: b}}}", "nodePools.H100: this name is refused; allowed: lower-case letters"),
    ("nodePools: {h100: {}}", "nodePools.h100.nodeSelector: is missing; allowed: a mapping"),
    ("nodePools: {h100: {nodeSelector: {}}}", "nodePools.h100.nodeSelector: value (a mapping) is out of range"),
    ("nodePools: {h100: {nodeSelector: {gpu: true}}}", "nodePools.h100.nodeSelector.gpu: value true is not text"),
    ("nodePools: {h100: {nodeSelector: {-gpu: a}}}", "nodePools.h100.nodeSelector.-gpu: this name is refused"),
    ("nodePools: {h100: {nodeSelector: {gpu: a b}}}", "nodePools.h100.nodeSelector.gpu: value 'a b' is not of the"),
    (
        "nodePools:\n  a: {nodeSelector: {gpu: h100}}\n  b: {nodeSelector: {gpu: h100}}",
        "config.yaml:3: nodePools.b.nodeSelector: has the nodes of a; allowed: labels of other nodes",
    ),
    # defaults of updates
    (
        "defaults: {rollout: {progressDeadlineSeconds: 0}}",
        "defaults.rollout.progressDeadlineSeconds: value 0 is out of range; allowed: a whole number from 1 to 604800",
    ),
    (
        "defaults: {rollout: {whenQuotaShort: later}}",
        "defaults.rollout.whenQuotaShort: value 'later' is not known; allowed: wait, refuse",
    ),
    (
        "defaults: {rollout: {steps: [{weight: 50}, {weight: 10}]}}",
        "defaults.rollout.steps: the weights [50, 10] do not rise; set each above the one before, from 1 to 100",
    ),
    (
        "defaults: {rollout: {steps: [{weight: 101}]}}",
        "defaults.rollout.steps[0].weight: value 101 is out of range; allowed: a whole number from 1 to 100",
    ),
    (
        "defaults: {rollout: {steps: [{weight: 10, pause: soon}]}}",
        "defaults.rollout.steps[0].pause: value 'soon' is not of the right form; allowed: a duration such as 30s",
    ),
    (
        "defaults: {rollout: {warmup: {path: health}}}",
        "defaults.rollout.warmup.path: value 'health' is not of the right form; allowed: a path that starts with /",
    ),
    (
        "defaults: {rollout: {drain: {quietSeconds: 3601}}}",
        "defaults.rollout.drain.quietSeconds: value 3601 is out of range; allowed: a whole number from 0 to 3600",
    ),
    (
        "projects: {a: {namespaces: [x], quota: {limits: {default: {nvidia.com/gpu: -1}}}}}",
        'projects.a.quota.limits.default["nvidia.com/gpu"]: value -1 is out of range; allowed: a number or quantity',
    ),
    (
        "projects: {a: {namespaces: [x], quota: {limits: {default: {nvidia.com/gpu: many}}}}}",
        "value 'many' is not a quantity; allowed: a number or quantity from 0",
    ),
    # pages and ceilings
    ("activationPages: {g: {url: ftp://x}}", "activationPages.g.url: value 'ftp://x' is no page that can be fetched"),
    ("activationPages: {g: {url: http://}}", "activationPages.g.url: value 'http://' is no page"),
    ("activationPages: {g: {url: 'http://x:99999'}}", "activationPages.g.url: the URL (not shown) cannot be read"),
    ("activationPages: {g: {}}", "activationPages.g.url: is missing"),
    # Prometheus
    ("prometheus: {url: ftp://x}", "prometheus.url: value 'ftp://x' is no page that can be fetched"),
    (
        "prometheus: {url: 'http://x?y=1'}",
        "prometheus.url: value 'http://x?y=1' has a query; allowed: the address alone",
    ),
    (
        "prometheus: {timeout: 1m}",
        "prometheus.timeout: value '1m' is out of range; allowed: a duration from 100ms to 30s",
    ),
    ("prometheus: {scrapeInterval: 100ms}", "prometheus.scrapeInterval: value '100ms' is out of range"),
    ("prometheus: {bearerTokenFile: token}", "prometheus.bearerTokenFile: value 'token' is not of the right form"),
    (
        "prometheus: {bearerTokenFile: /t, basicAuth: {username: a, passwordFile: /p}}",
        "prometheus.bearerTokenFile: is set beside basicAuth; allowed: one of them",
    ),
    ("prometheus: {basicAuth: {username: a}}", "prometheus.basicAuth: only one of username and passwordFile is set"),
    ("prometheus: {basicAuth: {username: 'a:b', passwordFile: /p}}", "allowed: text without colons and blanks"),
    ("prometheus: {tls: {keyFile: /k}}", "prometheus.tls.keyFile: is set without certFile"),
    ("prometheus: {url: http://x, tls: {caFile: /c}}", "prometheus.tls: is set, and the URL begins with http://"),
    (
        "prometheus: {labels: {pod: namespace}}",
        "prometheus.labels.pod: value 'namespace' is the label of the namespace",
    ),
    ("prometheus: {labels: {pod: le}}", "prometheus.labels.pod: value 'le' is taken"),
    ("prometheus: {labels: {pod: 'a-b'}}", "allowed: letters, digits and _, not starting with a digit"),
    ("prometheus: {match: {'a-b': x}}", "prometheus.match"),
    ("queries: {a: {query: sum(b)}}", "prometheus.url: is not set, and queries need it; set it"),
    (
        "{prometheus: {url: http://x}, queries: {concurrency: {query: sum(b)}}}",
        "queries.concurrency: the name concurrency is a signal; allowed: another one",
    ),
    (
        "{prometheus: {url: http://x}, queries: {gpu_utilization: {query: sum(b)}}}",
        "queries.gpu_utilization: the name gpu_utilization is another name of a signal; allowed: another one",
    ),
    ("queries: {'A b': {query: sum(b)}}", "allowed: lower-case letters, digits, - and _, starting with a letter"),
    ("queries: {a: {query: ''}}", "queries.a.query"),
    ("queries: {a: {}}", "queries.a.query: is missing"),
    ("queries: {a: {query: sum(b), shape: mean}}", "queries.a.shape: value 'mean' is not known; allowed: total, level"),
    ("queries: {a: {query: sum(b), interval: 10m}}", "queries.a.interval: value '10m' is out of range; allowed: a dur"),
    (
        "queries: {a: {query: 'x{a=\"{node}\"}'}}",
        "queries.a.query: {node} is no placeholder; allowed: {namespace}, {pods}, {revision}, {workload}",
    ),
    ("queries: {a: {query: 'x{a=\"{pods}\"}'}}", "queries.a.query: {pods} is several names; write label=~"),
    (
        "queries: {a: {query: sum(tidegate_signal_value)}}",
        "tidegate_signal_value is a series of Tidegate's own, which would feed its decisions back; allowed: PromQL",
    ),
    (
        "{prometheus: {url: http://x}, queries: {" + ", ".join(f"q{n}: {{query: b}}" for n in range(65)) + "}}",
        "queries: value (a mapping) is out of range",
    ),
    (
        "defaults: {autoscaling: {metric: kv-cash, metricThreshold: 1}}",
        "defaults.autoscaling.metric: value 'kv-cash' is no signal and no query; allowed: concurrency, queue",
    ),
    ("prometheus: {dcgm: {labels: {pod: exported_namespace}}}", "prometheus.dcgm.labels.pod: value"),
    ("prometheus: {dcgm: {scrapeInterval: 1h}}", "prometheus.dcgm.scrapeInterval: value '1h' is out of range"),
    ("signals: {source: prometheus}", "prometheus.url: is not set, and signals.source is prometheus; set it"),
    ("signals: {source: both}", "signals.source: value 'both' is not known; allowed: pods, prometheus"),
    ("ceilings: {maxReplicas: 0}", "ceilings.maxReplicas: value 0 is out of range; allowed: a whole number from 1"),
    # defaults keep the rules of workloads
    (
        "defaults: {autoscaling: {minReplicas: 4, maxReplicas: 2, metric: queue, metricThreshold: 1}}",
        "defaults.autoscaling.maxReplicas: maxReplicas 2 is below minReplicas 4; set maxReplicas to 4 or more",
    ),
    (
        "defaults: {autoscaling: {maxReplicas: 4}}",
        "defaults.autoscaling.metric: metric is missing: something must decide",
    ),
    ("defaults: {autoscaling: {metric: queue}}", "defaults.autoscaling.metricThreshold: metricThreshold is missing"),
    (
        "defaults: {autoscaling: {scaleDownDelaySeconds: 3601}}",
        "value 3601 is out of range; allowed: a whole number from 0",
    ),
    # the document
    ("- tick: 2s", "config.yaml: the document is a list; allowed: a mapping, such as tick: 2s"),
    ("tick", "config.yaml: the document is a single value; allowed: a mapping"),
    ("tick: 2s\n---\ntick: 3s", "config.yaml: the file has 2 documents; allowed: one"),
    ("tick: [1", "config.yaml:2: not YAML"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text for text, _ in REFUSED])
def test_a_mistake_is_named_with_key_value_and_range(text: str, says: str) -> None:
    [problem] = problems(text)
    assert says in problem
    assert problem.startswith("config.yaml:")


def test_all_mistakes_are_named_at_once() -> None:
    text = "tick: 1\nscrape: {period: x}\nlog: {level: loud}\nprojects: {a: {namespaces: [B]}}\nnew: 1\n"
    assert [problem.split(": ")[1] for problem in problems(text, TIDEGATE__API__PORT="0")] == [
        "tick",
        "scrape.period",
        "api.port (from TIDEGATE__API__PORT)",
        "log.level",
        "projects.a.namespaces[0]",
        "new",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "activationPages: {g: {url: 'http://me:hunter2@gateway/metrics'}}",
        "activationPages: {g: 'http://me:hunter2@gateway/metrics'}",
        "prometheus: {url: 'http://me:hunter2@prometheus:9090'}",
        "prometheus: {basicAuth: {username: me, password: hunter2}}",
        "activationPages: {g: {url: ['http://me:hunter2@gateway']}}",
        "password: hunter2",
        "projects: {a: {namespaces: [x], token: hunter2}}",
        "tick: http://me:hunter2@gateway",
        "tick: 2s\npassword: hunter2\npassword: hunter2",
        "password: [hunter2",
        "password: !vault hunter2",
    ],
)
def test_a_secret_in_the_wrong_place_is_never_shown(text: str) -> None:
    assert "hunter2" not in "\n".join(problems(text))


def test_a_missing_file_is_an_error_and_not_the_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; give the path of the configuration"):
        load(tmp_path / "none.yaml", {})


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file cannot be read"):
        load(tmp_path, {})


def test_a_file_larger_than_a_configmap_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"#" * (SIZE_MAX + 1))
    with pytest.raises(ConfigError, match="the file is too large; allowed: at most 1048576 bytes"):
        load(file, {})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="the file is not UTF-8 text"):
        load(file, {})


OVERRIDES: list[tuple[dict[str, str], Any]] = [
    ({"TIDEGATE__TICK": "5s"}, {"tick": 5.0}),
    ({"TIDEGATE__SCRAPE__PERIOD": "3s"}, {"scrape": {"period": 3.0, "timeout": 0.7}}),
    ({"TIDEGATE__SCRAPE__MAX_PAGE_SIZE": "1Mi"}, {"scrape": {"max_page_size": 1024**2, "timeout": 0.7}}),
    ({"TIDEGATE__SCRAPE__MAXPAGESIZE": "1Mi"}, {"scrape": {"max_page_size": 1024**2}}),
    ({"TIDEGATE__KPA__STABLE_WINDOW": "30s"}, {"kpa": {"stable_window": 30.0}}),
    ({"TIDEGATE__API__PORT": "9090"}, {"api": {"port": 9090}}),
    ({"TIDEGATE__WATCH__NAMESPACES": "[c]"}, {"watch": {"namespaces": ("c",)}}),
    ({"TIDEGATE__CEILINGS__MAX_REPLICAS": "null"}, {"ceilings": {"max_replicas": None}}),
    (
        {"TIDEGATE__ACTIVATION_PAGES__MY_GATEWAY__URL": "http://g/"},
        {"activation_pages": {"my-gateway": {"url": "http://g/"}}},
    ),
    ({"TIDEGATE__PROJECTS": "{ml: {namespaces: [ml]}}"}, {"projects": {"ml": {"namespaces": ("ml",)}}}),
    ({"TIDEGATE__DEFAULTS__AUTOSCALING__MIN_REPLICAS": "0"}, {"defaults": {"autoscaling": {"min_replicas": 0}}}),
]
FILE = "scrape: {timeout: 700ms}\nwatch: {namespaces: [a, b]}\nceilings: {maxReplicas: 4}\n"


@pytest.mark.parametrize(("environ", "expected"), OVERRIDES, ids=[next(iter(environ)) for environ, _ in OVERRIDES])
def test_the_environment_changes_single_values_of_the_file(environ: dict[str, str], expected: dict[str, Any]) -> None:
    loaded = read(FILE, **environ)
    assert loaded.warnings == ()
    _contains(loaded.config.model_dump(), expected)


def _contains(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _contains(whole[key], value)
        else:
            assert whole[key] == value


def test_a_project_of_the_environment_stands_beside_those_of_the_file() -> None:
    file = "projects: {a: {namespaces: [a]}}"
    config = read(file, TIDEGATE__PROJECTS__B__NAMESPACES="[b]").config
    assert {name: project.namespaces for name, project in config.projects.items()} == {"a": ("a",), "b": ("b",)}


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    assert problems("tick: 2s", TIDEGATE__TICK="soon") == [
        "config.yaml: tick (from TIDEGATE__TICK): "
        "value 'soon' is not a duration such as 30s or 1m30s; allowed: a duration from 200ms to 1m"
    ]
    assert "(from TIDEGATE__TICK): value '' is not a duration" in problems("", TIDEGATE__TICK="")[0]


def test_unknown_variables_are_reported_and_change_nothing() -> None:
    loaded = read("", TIDEGATE__SCRAPE__PERIODE="9s", TIDEGATE__NOTHING__AT__ALL="hunter2", TIDEGATE__="x")
    assert loaded.config == Config()
    assert loaded.warnings == (
        "environment variable TIDEGATE__ is no setting and was ignored; did you mean TIDEGATE__TICK?",
        "environment variable TIDEGATE__NOTHING__AT__ALL is no setting and was ignored",
        "environment variable TIDEGATE__SCRAPE__PERIODE is no setting and was ignored; "
        "did you mean TIDEGATE__SCRAPE__PERIOD?",
    )


def test_a_variable_for_a_block_and_one_for_a_value_in_it_add_up() -> None:
    config = read("", TIDEGATE__SCRAPE="{period: 2s, timeout: 3s}", TIDEGATE__SCRAPE__PERIOD="4s").config
    assert (config.scrape.period, config.scrape.timeout) == (4.0, 3.0)


def test_a_variable_below_a_single_value_is_reported() -> None:
    assert (
        read("", TIDEGATE__TICK__X="1s").warnings[0].startswith("environment variable TIDEGATE__TICK__X is no setting")
    )


def test_a_block_that_is_no_mapping_is_refused_whatever_else_is_set() -> None:
    [problem] = problems("", TIDEGATE__API="8080", TIDEGATE__API__PORT="8080")
    assert problem.startswith("config.yaml: api (from TIDEGATE__API): value 8080 is not a mapping")


def test_what_kubernetes_injects_for_a_service_is_harmless() -> None:
    injected = {
        "TIDEGATE_PORT": "tcp://10.96.0.7:8080",
        "TIDEGATE_SERVICE_HOST": "10.96.0.7",
        "TIDEGATE_PORT_8080_TCP": "tcp://10.96.0.7:8080",
        "API_PORT": "tcp://10.96.0.8:1",
        "TICK": "tcp://10.96.0.9:1",
        "SCRAPE": "x",
    }
    loaded = read("", **injected)
    assert loaded.config == Config()
    assert loaded.warnings == ()


def test_the_defaults_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE__TICK", "9s")
    assert Config().tick == 2.0
