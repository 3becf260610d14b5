"""The files under config/ are what the models say."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autoscaler.model.rollout import RolloutSpec
from autoscaler.model.workload import KpaParameters
from autoscaler.settings.config import Config, json_schema
from autoscaler.settings.load import load
from autoscaler.settings.manifest import check
from autoscaler.settings.section import Section
from autoscaler.settings.yaml12 import read_documents

CONFIG = Path(__file__).parents[2] / "config"
HOW = (
    "the models have changed; write it anew: python -c 'import json; from autoscaler.settings.config import *; "
    "print(json.dumps(json_schema(), indent=2))' > config/schema/config.schema.json"
)


def _validate(document: object) -> None:
    validator = import_module("jsonschema").Draft202012Validator
    validator.check_schema(json_schema())
    validator(json_schema()).validate(document)


def _keys(document: Any, prefix: str = "") -> set[str]:
    if not isinstance(document, dict):
        return set()
    return {f"{prefix}{key}" for key in document}.union(
        *(_keys(below, f"{prefix}{key}.") for key, below in document.items())
    )


def test_the_shipped_defaults_are_the_built_in_ones() -> None:
    assert load(CONFIG / "defaults.yaml", {}).config == Config()


def test_the_shipped_defaults_name_every_key() -> None:
    [document] = read_documents((CONFIG / "defaults.yaml").read_text())
    assert _keys(document.value) == _keys(Config().model_dump(by_alias=True))


def test_what_is_written_out_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(Config().model_dump_json(by_alias=True))
    assert load(file, {}).config == Config()


def test_the_shipped_schema_is_the_generated_one() -> None:
    assert json.loads((CONFIG / "schema" / "config.schema.json").read_text()) == json_schema(), HOW


@pytest.mark.parametrize(
    "name", ["defaults.yaml", "examples/config.yaml", "examples/node-pools.yaml", "examples/prometheus.yaml"]
)
def test_the_schema_accepts_what_the_loader_accepts(name: str) -> None:
    load(CONFIG / name, {})
    _validate(read_documents((CONFIG / name).read_text())[0].value)


@pytest.mark.parametrize("document", [{"tick": 30}, {"tik": "2s"}, {"api": {"port": 0}}, {"projects": {"ML": {}}}])
def test_the_schema_refuses_what_the_loader_refuses(document: object) -> None:
    with pytest.raises(Exception, match="Failed validating"):
        _validate(document)


@pytest.mark.parametrize(
    "name",
    [
        "llama-3-8b.yaml",
        "scale-to-zero.yaml",
        "several-signals.yaml",
        "several-nodes.yaml",
        "by-query.yaml",
        "target-ref.yaml",
        "canary.yaml",
    ],
)
def test_the_example_workloads_are_valid(name: str) -> None:
    [document] = read_documents((CONFIG / "examples" / name).read_text())
    assert [checked.problems for checked in check(document)] == [()]


def test_the_examples_fit_together() -> None:
    config = load(CONFIG / "examples" / "config.yaml", {}).config
    [document] = read_documents((CONFIG / "examples" / "scale-to-zero.yaml").read_text())
    spec = document.value["spec"]
    assert spec["autoscaling"]["activation"]["page"] in config.activation_pages
    assert document.value["metadata"]["namespace"] in config.projects[spec["project"]].namespaces


def test_the_canary_may_run_where_the_node_pools_are() -> None:
    config = load(CONFIG / "examples" / "node-pools.yaml", {}).config
    [document] = read_documents((CONFIG / "examples" / "canary.yaml").read_text())
    spec = document.value["spec"]
    assert tuple(spec["nodePools"]) == config.projects[spec["project"]].own_pools


def test_the_defaults_of_updates_are_those_of_the_core() -> None:
    rollout, core = Config().defaults.rollout, RolloutSpec()
    assert core == RolloutSpec(
        queue_timeout_s=rollout.queue_timeout_seconds,
        schedule_timeout_s=rollout.schedule_timeout_seconds,
        progress_deadline_s=rollout.progress_deadline_seconds,
        when_quota_short=rollout.when_quota_short,
        drain_timeout_s=rollout.drain.timeout_seconds,
        drain_quiet_s=rollout.drain.quiet_seconds,
        paused=rollout.paused,
        revision_history_limit=rollout.revision_history_limit,
    )
    assert (rollout.steps, rollout.warmup) == ((), None)


def test_the_defaults_of_the_policy_are_those_of_the_core() -> None:
    kpa = Config().kpa
    assert KpaParameters() == KpaParameters(
        stable_window_s=kpa.stable_window,
        panic_window_percent=kpa.panic_window_percentage,
        panic_threshold_ratio=kpa.panic_threshold_percentage / 100,
        max_scale_up_rate=kpa.max_scale_up_rate,
        max_scale_down_rate=kpa.max_scale_down_rate,
    )


def test_nothing_of_a_later_release_is_offered() -> None:
    text = json.dumps(json_schema())
    for later in ("preemptibility", "hpa", "adaptive"):
        assert f'"{later}"' not in text


def test_every_section_refuses_unknown_keys() -> None:
    for section in Section.__subclasses__():
        assert section.model_config["extra"] == "forbid"
        assert section.model_config["frozen"]
