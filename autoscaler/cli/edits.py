"""What a file would change of a stored object: `kubectl apply` as a merge patch, and the differences in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
MOST_SHOWN: Final = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Edit:
    """One field. None: it is not there."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.before)} -> {_shown(self.after)}"


def apply(written: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch of `kubectl apply`: what the file says, and what it said when it was last applied and no longer
    does. What others wrote, e.g. a count of `kubectl scale`, stays."""
    notes = (stored.get("metadata") or {}).get("annotations") or {}
    try:
        before = json.loads(notes.get(LAST_APPLIED, "{}"))
    except ValueError:
        before = {}
    return merge_patch(_content(before if isinstance(before, dict) else {}), _content(written), _content(stored))


def _content(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that a file may set: spec, labels and annotations."""
    meta = body.get("metadata") or {}
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != LAST_APPLIED}
    return {
        "metadata": {"labels": dict(meta.get("labels") or {}), "annotations": notes},
        "spec": dict(body.get("spec") or {}),
    }


def merge_patch(before: Mapping[str, Any], wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Three ways, as kubectl merges custom resources: lists are replaced whole, None deletes.

    before {a, b}, wanted {a: 2}, stored {a: 1, b, c} -> {a: 2, b: None}: c is somebody else's.
    """
    patch: dict[str, Any] = {name: None for name in before if name not in wanted and name in stored}
    for name, value in wanted.items():
        there, said = stored.get(name), before.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            below = merge_patch(said if isinstance(said, Mapping) else {}, value, there)
            if below:
                patch[name] = below
        elif name not in stored or there != value:
            patch[name] = value
    return patch


def differences(before: Any, after: Any, path: str = "spec") -> Iterator[Edit]:
    """Every field that differs. Entries of lists that have names are told by them: containers[vllm].image."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{path}.{name}")
    elif (old := _by_name(before)) is not None and (new := _by_name(after)) is not None:
        for name in dict.fromkeys((*old, *new)):
            yield from differences(old.get(name), new.get(name), f"{path}[{name}]")
    elif before != after:
        yield Edit(path, before, after)


def _by_name(values: Any) -> dict[str, Any] | None:
    """None where the entries have no names, or one name twice."""
    if not isinstance(values, list) or not all(isinstance(each, Mapping) and "name" in each for each in values):
        return None
    named = {str(each["name"]): each for each in values}
    return named if len(named) == len(values) else None


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
