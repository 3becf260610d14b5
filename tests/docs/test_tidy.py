"""Sizes and habits that no linter of ours checks. The walls are enforced, the aims are only reported."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.docs.emitted import ROOT

PACKAGES = ("autoscaler", "rollouts")
FUNCTION_WALL, FUNCTION_AIM = 70, 40
MODULE_WALL, MODULE_AIM = 600, 400


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions() -> Iterator[tuple[str, int]]:
    """Each function with its lines from `def` to its end."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def check(sizes: list[tuple[str, int]], wall: int, aim: int) -> None:
    over = [f"{name} has {lines} lines" for name, lines in sizes if lines > aim]
    if over:
        warnings.warn(f"over the aim of {aim}: {'; '.join(over)}", stacklevel=2)
    assert not [f"{name} has {lines} lines" for name, lines in sizes if lines > wall]


def test_functions_are_short() -> None:
    check(list(functions()), FUNCTION_WALL, FUNCTION_AIM)


def test_modules_are_short() -> None:
    check([(name_of(path), len(path.read_text().splitlines())) for path in modules()], MODULE_WALL, MODULE_AIM)


def test_packages_are_packages_and_their_init_files_are_empty() -> None:
    assert [name_of(path) for path in modules() if path.name == "__init__.py" and path.read_text()] == []
    folders = {path.parent for path in modules()}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_package_shadows_ours_from_the_tests() -> None:
    assert [name_of(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in modules() if path.name != "__init__.py" and not ast.get_docstring(_tree(path))]
    assert [name_of(path) for path in silent] == []


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_every_make_target_has_a_help_text() -> None:
    text = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    helped = set(re.findall(r"^([a-z-]+):.*?## +\S", text, re.MULTILINE))
    assert helped == set(phony.split())


def test_what_ci_runs_is_the_test_command_of_the_readme() -> None:
    assert re.search(r"^exec make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_decisions_are_numbered_pages_of_one_form() -> None:
    pages = sorted((ROOT / "docs" / "decisions").iterdir())
    for number, page in enumerate(pages, start=1):
        text = page.read_text()
        assert re.fullmatch(rf"{number:04d}-[a-z0-9-]+\.md", page.name)
        assert text.startswith(f"# {number}. "), page.name
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], page.name
        assert len(text.splitlines()) <= 40, f"{page.name} is longer than a page"


def test_what_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"(?:autoscaler|config|docs|tests|rollouts)/[\w./-]*\w", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets
