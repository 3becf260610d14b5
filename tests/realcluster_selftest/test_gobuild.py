"""Which Go builds the control plane: the one on PATH if it is new enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.realcluster import gobuild


def go_that_says(directory: Path, text: str) -> Path:
    program = directory / "go"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version devel go1.28-a1b2c3d linux/amd64", (1, 28, 0)),
        ("usage: go [options]", None),
    ],
)
def test_the_version_that_a_go_reports(tmp_path: Path, text: str, version: tuple[int, ...] | None) -> None:
    assert gobuild.version_of(go_that_says(tmp_path, text)) == version


def test_a_go_on_path_that_is_new_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = go_that_says(tmp_path, "go version go1.26.6 linux/amd64")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert gobuild.find_go(tmp_path / "cache") == go


def test_a_go_that_was_installed_before_is_used_if_the_one_on_path_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_that_says(tmp_path, "go version go1.19.8 linux/amd64")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    installed = tmp_path / "cache" / "go-1.27.3" / "bin"
    installed.mkdir(parents=True)
    go = go_that_says(installed, "go version go1.27.3 linux/amd64")
    assert gobuild.find_go(tmp_path / "cache") == go
