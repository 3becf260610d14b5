"""Writes names into PromQL so that they stay names. No input or output."""

from __future__ import annotations

import re
from typing import Final

_ESCAPED: Final = re.compile("[\\\\\"'\x00-\x1f\x7f]")
_CHARACTERS: Final = {"\\": "\\\\", '"': "\\x22", "'": "\\x27", "\n": "\\n"}  # \" is an error between single quotes


def quoted(text: str) -> str:
    """A string literal: `quoted('a.b') == '"a.b"'`."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """What stands between the quotes of a literal, single or double. ValueError where it is no text."""
    text.encode()  # half a surrogate pair cannot be sent
    return _ESCAPED.sub(lambda found: _CHARACTERS.get(found[0]) or f"\\x{ord(found[0]):02x}", text)
