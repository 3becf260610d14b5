"""Rules that span several fields, each written once: as CEL for the API server, in Python for `tidegate validate`.

Both sides print the same sentence. `tests/crd/test_refusals.py` sends every bad object through both and holds them
together. A rule says nothing about a field's own type or range; the schema does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

BROKEN_RULES: Final = "broken_rules"  # the type of the pydantic error that carries them
SHAPE_ONLY: Final = object()  # validation context in which rules are not held against objects


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on one object. `cel` and `holds` are the same statement; both are true where the object is fine."""

    field: str  # where the refusal points, below the object that carries the rule, e.g. "spec.restartPolicy"
    says: str  # what to change; {name} stands for a value (see Ruled.cel_values)
    cel: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A broken rule: the field below the object, and the sentence."""

    field: str
    sentence: str

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.field.split(".")) if self.field else ()


class Ruled(BaseModel):
    """A camelCase object of a custom resource, with rules. Subclasses set `rules`, and `cel_values` for sentences."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    cel_values: ClassVar[Mapping[str, str]] = {}  # name in a sentence → CEL expression of the same value

    def refusals(self) -> list[Refusal]:
        """Every broken rule of this object itself, not of its children."""
        return [Refusal(rule.field, self._sentence(rule)) for rule in self.rules if not rule.holds(self)]

    def _sentence(self, rule: Rule) -> str:
        return rule.says.format(**{name: _text(_value(self, name)) for name in _names(rule.says)})

    def all_refusals(self) -> list[tuple[tuple[str | int, ...], Refusal]]:
        """Every broken rule of this object and of the objects below it, with the path to that object."""
        found: list[tuple[tuple[str | int, ...], Refusal]] = [((), refusal) for refusal in self.refusals()]
        for name, field in type(self).model_fields.items():
            for around, below in _below((str(field.alias),), getattr(self, name)):
                found += [((*around, *path), refusal) for path, refusal in below.all_refusals()]
        return found

    @model_validator(mode="after")
    def _keeps_its_rules(self, info: ValidationInfo) -> Self:
        if info.context is not SHAPE_ONLY and (broken := self.refusals()):
            raise PydanticCustomError(
                BROKEN_RULES, "{count} rules are broken", {"count": len(broken), "broken": broken}
            )
        return self

    @classmethod
    def cel_validations(cls) -> list[dict[str, str]]:
        """The rules as `x-kubernetes-validations`."""
        return [_as_cel(rule, cls.cel_values) for rule in cls.rules]


def _below(path: tuple[str | int, ...], value: object) -> list[tuple[tuple[str | int, ...], Ruled]]:
    """The object that a field holds, or those of its list, with their paths."""
    if isinstance(value, Ruled):
        return [(path, value)]
    if isinstance(value, list):
        return [((*path, index), each) for index, each in enumerate(value) if isinstance(each, Ruled)]
    return []


def broken_rules(broken: list[Refusal]) -> PydanticCustomError:
    """One pydantic error that carries several refusals."""
    return PydanticCustomError(BROKEN_RULES, "{count} rules are broken", {"count": len(broken), "broken": broken})


def _as_cel(rule: Rule, values: Mapping[str, str]) -> dict[str, str]:
    validation = {"rule": rule.cel}
    if rule.field:
        validation["fieldPath"] = f".{rule.field}"
    if not _names(rule.says):
        return {**validation, "message": rule.says}
    # .format() and not +: only the former's cost is bounded by the API server without knowing the values' lengths
    template = "".join(
        literal.replace("%", "%%").replace("'", "\\'") + ("%s" if name else "")
        for literal, name, _, _ in Formatter().parse(rule.says)
    )
    arguments = ", ".join(f"dyn({values[name]})" for name in _names(rule.says))
    return {**validation, "messageExpression": f"'{template}'.format([{arguments}])"}


def _names(says: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(says) if name]


def _value(model: BaseModel, name: str) -> object:
    value: object = model
    for part in name.split("__"):
        value = getattr(value, part)
    return value


def _text(value: object) -> str:
    """A value as CEL's `%s` writes it: 70.0 is "70"."""
    return f"{value:g}" if isinstance(value, float) else str(value)
