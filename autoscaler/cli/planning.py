"""`tidegate plan`: asks the API server what it would store (a dry run), and prints what that would do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from autoscaler.cli import forecast, objects
from autoscaler.cli.edits import apply
from autoscaler.cli.options import Format
from autoscaler.cli.others import without_others
from autoscaler.cli.output import console, document, name_of, names
from autoscaler.cli.plan import Plan, Room, project_of
from autoscaler.cli.plan import plan as planned
from autoscaler.cli.reach import Ended, Reached, Where, run
from autoscaler.cli.seen import Seen, Stored
from autoscaler.cli.words import clean
from autoscaler.cluster.errors import Refused
from autoscaler.cluster.inferenceworkload import API_VERSION, KIND
from autoscaler.cluster.scalable import digest_of
from autoscaler.doctor.findings import Exit
from autoscaler.model.quota import Domain
from autoscaler.settings.yaml12 import NotADocument, read_documents

STDIN: Final = "-"


def plan(where: Where, file: Path, form: Format, no_color: bool) -> Exit:
    """One plan for each workload of the file; other objects in it are left alone."""

    async def work(reached: Reached) -> Exit:
        plans = [await _plan(reached, body, where.namespace) for body in _workloads(file)]
        shown = console(no_color)
        if form in (Format.JSON, Format.YAML):
            document(shown, {"plans": [forecast.document(each) for each in plans]}, form)
        elif form is Format.NAME:
            names(shown, (name_of(each.name) for each in plans))
        else:
            text = "\n\n".join("\n".join(forecast.lines(each)) for each in plans)
            shown.print(Text(clean(text)), soft_wrap=True)
        return forecast.exit_of(plans)

    return run(where, work)


def _workloads(file: Path) -> list[Mapping[str, Any]]:
    try:
        text = sys.stdin.read() if str(file) == STDIN else file.read_text()
        values = [each.value for each in read_documents(text)]
    except (OSError, UnicodeDecodeError) as error:
        raise Ended(Exit.ERROR, f"{file}: {error}") from error
    except NotADocument as error:
        raise Ended(Exit.ERROR, f"{file}: {error.mistakes[0].sentence}") from error
    listed = [item for value in values if isinstance(value, Mapping) for item in _items(value)]
    found = [each for each in listed if isinstance(each, Mapping) and each.get("kind") == KIND]
    if not found:
        raise Ended(Exit.ERROR, f"{file}: no {KIND} in it")
    return found


def _items(value: Mapping[str, Any]) -> list[Any]:
    items = value.get("items")
    return items if value.get("kind") == "List" and isinstance(items, list) else [value]


async def _plan(reached: Reached, body: Mapping[str, Any], namespace: str | None) -> Plan:
    meta = body.get("metadata")
    meta = meta if isinstance(meta, Mapping) else {}
    name, place = str(meta.get("name") or ""), str(meta.get("namespace") or "")
    if not name:
        raise Ended(Exit.ERROR, "an InferenceWorkload without metadata.name")
    if namespace and place and namespace != place:
        raise Ended(Exit.ERROR, f"{name} is of namespace {place}, and --namespace says {namespace}")
    there = replace(reached, namespace=place or reached.namespace)
    try:
        return await _plan_in(there, name, body)
    except Refused as error:
        raise Ended(Exit.ERROR, f"{name} would be refused: {error.message}") from error


async def _plan_in(reached: Reached, name: str, body: Mapping[str, Any]) -> Plan:
    stored = await objects.workload_or_none(reached, name)
    if stored is None:
        meta = {**body["metadata"], "namespace": reached.namespace}
        edited = await objects.try_to_create(reached, {**body, "apiVersion": API_VERSION, "metadata": meta})
        return planned(None, edited, {}, {}, await _rooms(reached, edited, None))
    patch = apply(body, stored.raw)
    edited = await objects.merge(reached, name, patch, dry_run=True)
    revisions = await objects.revisions_of(reached, stored)
    digests = {each.metadata.name: digest_of(each) for each in revisions}
    identities = {each.metadata.name: each.data for each in revisions}
    return planned(stored, edited, digests, identities, await _rooms(reached, edited, stored))


async def _rooms(reached: Reached, edited: Stored, stored: Stored | None) -> Mapping[Domain, Room]:
    rooms = await objects.ledgers(reached)
    return await without_others(reached, rooms, project_of(edited.seen, stored.seen if stored is not None else Seen()))
