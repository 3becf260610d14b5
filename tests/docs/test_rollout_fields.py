"""The table of what can be set, in docs/rollouts.md, says what the CRD says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from autoscaler.settings.config import Config
from autoscaler.settings.crd import inference_workload_crd
from tests.docs.emitted import ROOT

PAGE = (ROOT / "docs" / "rollouts.md").read_text()
[SECTION] = re.findall(r"^## What can be set\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
ROWS = {cells[0]: cells[1:] for cells in re.findall(r"^\| `(.*?)` \| ?(.*?) ?\| (.*?) \|$", SECTION, re.M)}
SPEC = inference_workload_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
SHOWN = {
    "rollout": SPEC["rollout"],
    "nodePools": SPEC["nodePools"],
    "traffic.httpRoute": SPEC["traffic"]["properties"]["httpRoute"],
    "serving.requestTimeoutSeconds": SPEC["serving"]["properties"]["requestTimeoutSeconds"],
}


def leaves(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key below, and lists themselves; `steps[].weight` is below a list."""
    if node.get("type") == "array":
        yield path, node
        if "properties" in node["items"]:
            yield from leaves(f"{path}[]", node["items"])
    elif "properties" in node:
        for key, below in node["properties"].items():
            yield from leaves(f"{path}.{key}", below)
    else:
        yield path, node


LEAVES = dict(leaf for path, node in SHOWN.items() for leaf in leaves(path, node))


def test_every_key_has_a_row() -> None:
    assert set(ROWS) == set(LEAVES)


@pytest.mark.parametrize("key", [key for key, node in LEAVES.items() if node.get("type") in ("integer", "array")])
def test_the_range_is_the_one_that_is_kept(key: str) -> None:
    node, says = LEAVES[key], ROWS[key][1]
    if node["type"] == "array":
        assert says.startswith(f"at most {node['maxItems']},")
    else:
        assert says.startswith(f"{node['minimum']} to {node['maximum']}")


@pytest.mark.parametrize(
    "key", [key for key, node in LEAVES.items() if "maxLength" in node and key.endswith(("body", "path"))]
)
def test_the_length_is_the_one_that_is_kept(key: str) -> None:
    assert f"at most {LEAVES[key]['maxLength']} characters" in ROWS[key][1]


def test_the_defaults_are_the_built_in_ones() -> None:
    defaults = Config().defaults.model_dump(mode="json", by_alias=True)
    for key, (said, _) in ROWS.items():
        value: Any = defaults
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in (None, []):
            assert said == (str(value).lower() if isinstance(value, bool) else str(value)), key
