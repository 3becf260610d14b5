"""JSON that nests deeper than a decoder can read, made readable.

The API server takes objects of 10,000 levels where a field may hold anything, as a pod template may. The decoder gives
up at the interpreter's limit, about 1,000, and takes the whole list or block of events with it: one such object would
hide all others.
"""

from __future__ import annotations

import re
from typing import Final

DEEPEST: Final = 500  # levels; well below what the decoder can read, far above what a manifest needs
TOO_DEEP: Final = b'"tidegate.dev/nests-too-deeply"'

_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def cut(text: bytes) -> bytes:
    """The same JSON documents, with TOO_DEEP in place of every array and object below the deepest level.

    About 40 ms for a MiB, so only for what could not be read.
    """
    kept: list[bytes] = []
    kept_to = depth = 0
    for token in _TOKENS.finditer(text):
        sign = token[0]
        if sign in (b"{", b"["):
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[kept_to : token.start()])
        elif sign in (b"}", b"]"):
            if depth == DEEPEST + 1:
                kept.append(TOO_DEEP)
                kept_to = token.end()
            depth -= 1
    kept.append(text[kept_to:])
    return b"".join(kept)
