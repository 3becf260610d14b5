"""Single values from the environment: `TIDEGATE__SCRAPE__PERIOD=2s` is `scrape: {period: 2s}`.

Two underscores part the levels, one underscore or none the words of a key. Values are read as YAML, so that numbers
and whole lists and mappings can be given; a list replaces the file's. Names that are no setting change nothing and are
reported: pydantic-settings alone would pass them over.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from autoscaler.settings.config import ENVIRONMENT_PREFIX, Config
from autoscaler.settings.yaml12 import Path, read_value


class Environment(PydanticBaseSettingsSource):
    """The overrides in an environment, as a source for Config."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Config)
        self.origins: dict[Path, str] = {}  # where in the document each variable writes
        self.warnings: list[str] = []
        self._values: dict[str, Any] = {}
        for name in sorted(environ):
            if name.startswith(ENVIRONMENT_PREFIX):
                self._take(name, environ[name])

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        key = str(field.alias)
        return self._values.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        return self._values

    def _take(self, name: str, text: str) -> None:
        path = _path_of(name)
        if path is None:
            close = get_close_matches(name, _known_names(), n=1, cutoff=0.8)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.warnings.append(f"environment variable {name} is no setting and was ignored{hint}")
            return
        self.origins[path] = name
        block = self._values
        for key in path[:-1]:
            block = block.setdefault(str(key), {})
            if not isinstance(block, dict):  # TIDEGATE__SCRAPE=… beside TIDEGATE__SCRAPE__PERIOD=…
                self.warnings.append(f"environment variable {name} was ignored: another one sets all of {key}")
                return
        block[str(path[-1])] = read_value(text) if text else ""


def _path_of(name: str) -> Path | None:
    """The keys that a variable stands for; None where there is no such setting."""
    model: type[BaseModel] | None = Config
    path: list[str] = []
    parts = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
    names = iter(parts)
    for part in names:
        if model is None:
            return None
        found = next(
            (field for field in model.model_fields.values() if _folded(str(field.alias)) == _folded(part)), None
        )
        if found is None:
            return None
        path.append(str(found.alias))
        model = _model_in(found.annotation)
        if model is None and (named := _named_models(found.annotation)) and (entry := next(names, None)):
            path.append(entry.lower().replace("_", "-"))
            model = named
    return tuple(path)


def _folded(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _named_models(annotation: Any) -> type[BaseModel] | None:
    """The model of the values, where the annotation is a mapping from names to models."""
    return _model_in(get_args(annotation)[-1]) if get_origin(annotation) and get_args(annotation) else None


def _known_names(model: type[BaseModel] = Config, prefix: str = ENVIRONMENT_PREFIX) -> list[str]:
    """The names of all settings that have one place in the document."""
    names = []
    for key, field in model.model_fields.items():
        below = _model_in(field.annotation)
        names += _known_names(below, f"{prefix}{key.upper()}__") if below else [f"{prefix}{key.upper()}"]
    return names
