"""Checks manifests of InferenceWorkloads without a cluster, with the sentences that the API server would give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from autoscaler.settings.problems import Problem, problems_of
from autoscaler.settings.rules import SHAPE_ONLY
from autoscaler.settings.workload import InferenceWorkload
from autoscaler.settings.yaml12 import Document, Path

KIND: Final = "InferenceWorkload"
_GROUP: Final = "tidegate.dev/"


@dataclass(frozen=True, slots=True)
class Checked:
    """One object of a manifest. `ours` is False for kinds that we do not check."""

    title: str  # "InferenceWorkload ml-team/llama"
    ours: bool
    problems: tuple[Problem, ...]


def is_manifest(document: Document) -> bool:
    """Whether a document is a Kubernetes object rather than a configuration."""
    return isinstance(document.value, dict) and bool({"apiVersion", "kind"} & document.value.keys())


def check(document: Document) -> list[Checked]:
    """The object of a document, or the objects of a List."""
    value = document.value
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        return [_check(item, ("items", index)) for index, item in enumerate(value["items"])]
    return [_check(value, ())]


def check_workload(value: Any) -> list[Problem]:
    """Everything that is wrong with one InferenceWorkload."""
    try:
        workload = InferenceWorkload.model_validate(value, context=SHAPE_ONLY)
    except ValidationError:
        return _problems_of_shape(value)
    return [Problem((*path, *refusal.path), refusal.sentence) for path, refusal in workload.all_refusals()]


def _problems_of_shape(value: Any) -> list[Problem]:
    """Wrong types and ranges, and the broken rules of those blocks that are well formed."""
    try:
        InferenceWorkload.model_validate(value)
    except ValidationError as error:
        return problems_of(error, _schema())
    return []


def _check(value: Any, around: Path) -> Checked:
    if not isinstance(value, dict):
        return Checked(
            "a document", True, (Problem(around, "not an object; allowed: a mapping with apiVersion and kind"),)
        )
    if value.get("kind") != KIND and not str(value.get("apiVersion", "")).startswith(_GROUP):
        return Checked(_title(value), False, ())
    problems = tuple(Problem((*around, *problem.path), problem.sentence) for problem in check_workload(value))
    return Checked(_title(value), True, problems)


def _title(value: dict[str, Any]) -> str:
    metadata = value.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    name = "/".join(str(known[key]) for key in ("namespace", "name") if known.get(key))
    return f"{value.get('kind', 'object')} {name or '(unnamed)'}"


@cache
def _schema() -> dict[str, Any]:
    return InferenceWorkload.model_json_schema(by_alias=True)
