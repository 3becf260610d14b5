"""Loads the operator's configuration: one file, then the environment over it. Reports every mistake at once.

Never falls back: a file that is missing, unreadable or wrong is an error, and the caller keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as FilePath
from typing import Final

from pydantic import ValidationError
from pydantic_settings import InitSettingsSource

from autoscaler.settings.config import Config, json_schema
from autoscaler.settings.environment import Environment
from autoscaler.settings.problems import Problem, dotted, problems_of
from autoscaler.settings.yaml12 import Document, NotADocument, Path, read_documents

SIZE_MAX: Final = 1024 * 1024  # a ConfigMap holds no more


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are whole sentences, each with its file and, if known, its line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that may be used."""

    config: Config
    sha256: str  # of the file's bytes
    warnings: tuple[str, ...]  # things that were ignored


def load(path: FilePath | str, environ: Mapping[str, str]) -> LoadedConfig:
    """Read, merge and check. Raises ConfigError with every problem found."""
    content = _content(FilePath(path))
    return parse(content, environ, name=str(path))


def parse(content: bytes, environ: Mapping[str, str], *, name: str) -> LoadedConfig:
    """The same for content that was read already; `name` stands in the messages."""
    document = _document(content, name)
    environment = Environment(environ)
    file = InitSettingsSource(Config, init_kwargs=document.value)
    try:
        # an argument of BaseSettings that the types derived from its fields do not show
        config = Config(_build_sources=((environment, file), {}))  # type: ignore[call-arg]
    except ValidationError as error:
        found = problems_of(error, json_schema())
        raise ConfigError([_placed(name, problem, document, environment.origins) for problem in found]) from None
    return LoadedConfig(config, sha256(content).hexdigest(), tuple(environment.warnings))


def _content(path: FilePath) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file; give the path of the configuration"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: the file cannot be read: {error.strerror}"]) from None
    if len(content) > SIZE_MAX:
        raise ConfigError([f"{path}: the file is too large; allowed: at most {SIZE_MAX} bytes"])
    return content


def _document(content: bytes, name: str) -> Document:
    """The one mapping of the file; an empty file is an empty mapping."""
    try:
        documents = read_documents(content.decode())
    except UnicodeDecodeError:
        raise ConfigError([f"{name}: the file is not UTF-8 text"]) from None
    except NotADocument as error:
        raise ConfigError([place(name, mistake.line) + mistake.sentence for mistake in error.mistakes]) from None
    if len(documents) > 1:
        raise ConfigError([f"{name}: the file has {len(documents)} documents; allowed: one"])
    document = documents[0] if documents else Document({}, {})
    if document.value is None:
        return Document({}, {})
    if not isinstance(document.value, dict):
        kind = "a list" if isinstance(document.value, list) else "a single value"
        raise ConfigError([f"{name}: the document is {kind}; allowed: a mapping, such as tick: 2s"])
    return document


def _placed(name: str, problem: Problem, document: Document, origins: Mapping[Path, str]) -> str:
    """The problem with the line or the variable that it comes from."""
    for length in range(len(problem.path), 0, -1):
        if variable := origins.get(problem.path[:length]):
            return f"{name}: {dotted(problem.path)} (from {variable}): {problem.sentence}"
    return f"{place(name, document.line_of(problem.path))}{problem}"


def place(name: str, line: int | None) -> str:
    """Where something stands, as compilers write it: `place("a.yaml", 3) == "a.yaml:3: "`."""
    return f"{name}:{line}: " if line is not None else f"{name}: "
