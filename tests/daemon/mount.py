"""A mounted ConfigMap, changed as the kubelet changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "config.yaml"


class Mount:
    """`config.yaml` -> `..data/config.yaml`, and `..data` -> a directory per version, swapped by one rename."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        self._version = 0
        self.write(text)
        self.path = directory / FILE
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(f"..data/{FILE}")

    def write(self, text: str) -> None:
        before = self.directory / f"..{self._version}"
        self._version += 1
        new = self.directory / f"..{self._version}"
        new.mkdir()
        (new / FILE).write_text(text)
        (self.directory / "..data_tmp").symlink_to(new.name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")
        if before.exists():
            (before / FILE).unlink()
            before.rmdir()
