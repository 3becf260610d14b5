"""What all blocks of the configuration have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


def without_nulls(values: Any) -> Any:
    """`scrape:` with everything below it commented out is the same as no `scrape`."""
    if not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if value is not None}


class Section(BaseModel):
    """One block of the document: camelCase keys, nothing unknown, nothing changed after loading."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    _null_is_unset = model_validator(mode="before")(without_nulls)
