"""YAML as people mean it: 1.2 scalars, no silent second key, and a line for every mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yaml import safe_dump

from autoscaler.settings.yaml12 import NotADocument, read_documents, read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("22:00", "22:00"),
        ("1:30:00", "1:30:00"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("null", None),
        ("30s", "30s"),
        ('"010"', "010"),
        ("!!str 3", "3"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    [document] = read_documents(f"key: {text}")
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' was given on line 1 already; remove one"),
        ("a:\n  b: 1\n  b: 2\n", 3, "key 'b' was given on line 2 already"),
        ("a: 1\n8000: x\n", 2, "a key that is not text; put it in quotes"),
        ("? [a]\n: x\n", 1, "a key that is not text"),
        ("a: !!python/object:os.system x\n", 1, "tag tag:yaml.org,2002:python/object:os.system is not read here"),
        ("a: !secret x\n", 1, "tag !secret is not read here"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ("a: *nowhere\n", 1, "not YAML: found undefined alias"),
        ("a: " + "9" * 5000, 1, "a number of 5000 digits"),
        ("[" * 150 + "]" * 150, 1, "nested deeper than 100 levels"),
        ("a: &a [*a]\n", 1, "nested deeper than 100 levels"),
        ("a: \0\n", None, "not YAML"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_has_its_line(text: str, line: int | None, says: str) -> None:
    with pytest.raises(NotADocument) as caught:
        read_documents(text)
    assert caught.value.mistakes[0].line == line
    assert says in caught.value.mistakes[0].sentence


def test_every_duplicate_key_is_named() -> None:
    with pytest.raises(NotADocument) as caught:
        read_documents("a: 1\na: 2\nb: {c: 1, c: 2}\n---\nd: 1\nd: 2\n")
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 3, 6]


def test_a_document_that_unfolds_without_end_is_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    with pytest.raises(NotADocument, match="more than 200000 values"):
        read_documents(laughs)


def test_a_mistake_never_shows_the_text_around_it() -> None:
    with pytest.raises(NotADocument) as caught:
        read_documents("password: hunter2\nbad: [hunter2\n")
    assert "hunter2" not in str(caught.value)


def test_every_value_has_the_line_of_its_key() -> None:
    [document] = read_documents("a:\n  b:\n    - x\n    - c: 1\n")
    assert document.line_of(("a", "b", 1, "c")) == 4
    assert document.line_of(("a", "b", 0)) == 3
    assert document.line_of(("a", "nothing", "here")) == 1


def test_text_that_is_no_yaml_is_itself_in_the_environment() -> None:
    assert read_value("[a, b]") == ["a", "b"]
    assert read_value("a: [b") == "a: [b"
    assert read_value("http://gateway:9090/metrics") == "http://gateway:9090/metrics"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda below: st.lists(below)))
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    if len(str(value)) < 30:
        assert read_documents(safe_dump({"key": value}))[0].value["key"] == value
