"""README.md in pieces: its fenced blocks, and the commands in its shell blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    """The contents of the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def languages() -> set[str]:
    """What stands behind the opening fences."""
    return set(re.findall(r"^```(.*)$", README.read_text(), re.MULTILINE)[::2])


def commands() -> list[str]:
    """Every command line of the `sh` blocks, in order."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def words(command: str) -> list[str]:
    return shlex.split(command)


def updates_shown() -> list[str]:
    """The output in the section "Updates"."""
    [section] = re.findall(r"^## Updates\n(.*?)(?=^## )", README.read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
