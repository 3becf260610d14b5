"""`tidegate validate`: says what is wrong with files before a cluster sees them. Talks to nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import typer

from autoscaler.settings.load import ConfigError, parse, place
from autoscaler.settings.manifest import check, is_manifest
from autoscaler.settings.yaml12 import Document, NotADocument, read_documents

STDIN: Final = "-"


def validate(files: Iterable[Path]) -> int:
    """Print the findings of all files, and return how many there are."""
    return sum(_validate(file) for file in files)


def _validate(file: Path) -> int:
    name = "stdin" if str(file) == STDIN else str(file)
    content = sys.stdin.buffer.read() if str(file) == STDIN else file.read_bytes()
    try:
        documents = [document for document in read_documents(content.decode()) if document.value is not None]
    except UnicodeDecodeError:
        return _findings([f"{name}: the file is not UTF-8 text"])
    except NotADocument as error:
        return _findings([place(name, mistake.line) + mistake.sentence for mistake in error.mistakes])
    if any(is_manifest(document) for document in documents):
        return _manifest(documents, name)
    return _configuration(content, name)


def _configuration(content: bytes, name: str) -> int:
    try:
        parse(content, {}, name=name)
    except ConfigError as error:
        return _findings(list(error.problems))
    typer.echo(f"{name}: a valid configuration")
    return 0


def _manifest(documents: list[Document], name: str) -> int:
    found: list[str] = []
    good: list[str] = []
    foreign: list[str] = []
    for document in documents:
        if not is_manifest(document):
            found.append(
                f"{place(name, document.line_of(()))}not an object; allowed: a mapping with apiVersion and kind"
            )
            continue
        for checked in check(document):
            found += [
                f"{place(name, document.line_of(problem.path))}{checked.title}: {problem}"
                for problem in checked.problems
            ]
            if not checked.problems:
                (good if checked.ours else foreign).append(checked.title)
    for title in good:
        typer.echo(f"{name}: {title} is valid")
    for title in foreign:
        typer.echo(f"{name}: {title} was not checked: not one of Tidegate's kinds")
    return _findings(found)


def _findings(findings: list[str]) -> int:
    for finding in findings:
        typer.echo(finding)
    return len(findings)
