"""What we ship is what the models say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from autoscaler.settings.crd import definitions, to_yaml
from tests.crd.conftest import REPOSITORY

HOW = "the models have changed; write it anew: tidegate crd --name {0} > config/crd/{0}.yaml"


@pytest.mark.parametrize("plural", definitions())
def test_the_shipped_definition_is_the_generated_one(plural: str) -> None:
    shipped = (REPOSITORY / "config" / "crd" / f"{plural}.yaml").read_text()
    assert shipped == to_yaml(definitions()[plural]), HOW.format(plural)


def test_nothing_else_is_shipped() -> None:
    assert {path.stem for path in (REPOSITORY / "config" / "crd").iterdir()} == set(definitions())


@pytest.mark.parametrize("plural", definitions())
def test_generating_twice_gives_the_same_bytes(plural: str) -> None:
    assert to_yaml(definitions()[plural]) == to_yaml(yaml.safe_load(to_yaml(definitions()[plural])))


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for below in schema.get("properties", {}).values():
        yield from _nodes(below)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _nodes(schema[key])


@pytest.mark.parametrize("plural", definitions())
def test_the_schema_is_structural_and_stores_no_defaults(plural: str) -> None:
    [version] = definitions()[plural]["spec"]["versions"]
    for node in _nodes(version["schema"]["openAPIV3Schema"]):
        assert not {"default", "$ref", "$defs", "title", "anyOf", "const"} & node.keys()
        assert "type" in node or node.get("x-kubernetes-int-or-string"), node


@pytest.mark.parametrize("plural", definitions())
def test_helm_uninstall_keeps_the_workloads(plural: str) -> None:
    assert definitions()[plural]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_only_what_works_is_offered() -> None:
    words = set(re.findall(r"[A-Za-z-]+", to_yaml(definitions()["inferenceworkloads"])))
    later = "hpa adaptive preemptibility replaceInPlace analysis templateRef kueue"
    assert not words & set(later.split())
