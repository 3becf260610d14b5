"""`tidegate promote`, `pause`, `resume`, `abort`, `retry` and `set image`: one patch each, with the caller's rights."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Final

from rich.text import Text

from autoscaler.cli import images, objects, verbs
from autoscaler.cli.options import Format
from autoscaler.cli.output import console, document, name_of, names, object_of
from autoscaler.cli.reach import Ended, Reached, Where, run
from autoscaler.cli.seen import Stored
from autoscaler.cli.words import clean
from autoscaler.cluster.errors import Refused
from autoscaler.cluster.inferenceworkload import Serving
from autoscaler.doctor.findings import Exit
from rollouts.verbs import Verb

TEST_FAILED: Final = "the server rejected our request"


def ask(where: Where, name: str, verb: Verb, form: Format) -> Exit:
    """Writes the annotation that the daemon obeys, for the update that runs now."""

    async def work(reached: Reached) -> Exit:
        stored = await objects.workload(reached, name)
        request = verbs.asked(verb, stored.seen)
        if isinstance(request, str):
            raise Ended(Exit.ERROR, request)
        body = verbs.patch(stored.seen.metadata.uid, verbs.annotation(request, time.time()))
        _say(await _written(objects.merge(reached, name, body), name), request.says, form)
        return Exit.OK

    return run(where, work)


def set_image(where: Where, name: str, wanted: Mapping[str, str], form: Format) -> Exit:
    """Writes the images into the templates: another template is another revision."""

    async def work(reached: Reached) -> Exit:
        stored = await objects.workload(reached, name)
        try:
            operations = images.operations(stored.seen.spec.serving or Serving(), wanted)
        except ValueError as error:
            raise Ended(Exit.ERROR, f"{name}: {error}") from error
        if not operations:
            _say(stored, "has these images already; nothing was changed", form)
            return Exit.OK
        of_this_one = {"op": "test", "path": "/metadata/uid", "value": stored.seen.metadata.uid}
        changed = await _written(objects.json_patch(reached, name, [of_this_one, *operations]), name)
        images_now = ", ".join(f"{container}={image}" for container, image in wanted.items())
        _say(changed, f"image set to {images_now}; follow the update: tidegate get {name} -w", form)
        return Exit.OK

    return run(where, work)


async def _written(write: Awaitable[Stored], name: str) -> Stored:
    """The object after the write. Another object of that name is refused by its uid; a template that is another one by
    the tests of the JSON Patch, of which the server says nothing but that they failed."""
    try:
        return await write
    except Refused as error:
        if "metadata.uid" in error.message or error.message.startswith(TEST_FAILED):
            changed = f"{name} was changed or made anew meanwhile, nothing was done; look again: tidegate get {name}"
            raise Ended(Exit.ERROR, changed) from error
        raise


def _say(stored: Stored, sentence: str, form: Format) -> None:
    shown, name = console(no_color=True), stored.seen.metadata.name
    if form in (Format.JSON, Format.YAML):
        document(shown, object_of(stored.raw), form)
    elif form is Format.NAME:
        names(shown, [name_of(name)])
    else:
        shown.print(Text(clean(f"{name}: {sentence}")), soft_wrap=True)
