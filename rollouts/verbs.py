"""What a person asks of an update: the annotation `tidegate.dev/rollout: "<verb> <revision> <time>"`.

The whole text is remembered once it was handled, so that it is obeyed at most once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ANNOTATION: Final = "tidegate.dev/rollout"
LONGEST: Final = 253  # characters: the status remembers the text


class Verb(StrEnum):
    PROMOTE = "promote"  # end this pause
    PROMOTE_FULL = "promote-full"  # end this pause and leave the remaining steps out
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    RETRY = "retry"  # a failed revision once more


@dataclass(frozen=True, slots=True)
class VerbRequest:
    """One asking. It counts for the update of this revision only."""

    verb: Verb | None  # None: it was not understood
    revision: str
    text: str  # the annotation as written
    problem: str = ""  # why it was not understood


def parse(text: str) -> VerbRequest | str:
    """The request, or the sentence that says what is wrong with it."""
    if len(text) > LONGEST:
        return f"the verb has {len(text)} characters; allowed: at most {LONGEST}"
    words = text.split()
    allowed = ", ".join(verb.value for verb in Verb)
    if len(words) != 3:
        return f'{text!r} is not "<verb> <revision> <time>"; verbs: {allowed}'
    verb, revision, _ = words
    known = {each.value: each for each in Verb}
    if verb not in known:
        return f"{verb!r} is not a verb; allowed: {allowed}"
    return VerbRequest(known[verb], revision, text)
