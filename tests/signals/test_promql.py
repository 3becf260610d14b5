"""Names stay names: whatever they hold, the query around them is the one that the operator wrote."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.signals.promql import NotAQuery, quoted, read_query, regex_of

NAMES = {"namespace": "ml-team", "workload": "llama", "revision": "llama-1a2b3c4d"}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text("\"'\\`{}()|.*$^\n#=~", max_size=12)

_ESCAPES = {"n": "\n", "\\": "\\", '"': '"', "'": "'"}


def literals(query: str) -> tuple[list[str], str]:
    """(the values of the string literals, what is left without them), as Prometheus's own lexer reads them."""
    values: list[str] = []
    rest, at = "", 0
    while at < len(query):
        mark = query[at]
        if mark not in "\"'":
            rest, at = rest + mark, at + 1
            continue
        value, at = "", at + 1
        while query[at] != mark:
            assert query[at] != "\n", "a string ends with its line"
            if query[at] != "\\":
                value, at = value + query[at], at + 1
            elif query[at + 1] == "x":
                value, at = value + chr(int(query[at + 2 : at + 4], 16)), at + 4
            else:
                assert query[at + 1] in {"n", "\\", mark}, "an unknown escape"
                value, at = value + _ESCAPES[query[at + 1]], at + 2
        values, at = [*values, value], at + 1
    return values, rest


@given(ANY_TEXT)
def test_a_literal_reads_back_as_the_text(text: str) -> None:
    assert literals(f"foo{{a={quoted(text)}}}") == ([text], "foo{a=}")


@given(ANY_TEXT, st.sampled_from("\"'"))
def test_a_name_cannot_leave_its_string(name: str, mark: str) -> None:
    query = read_query(f"sum(foo{{a={mark}{{namespace}}{mark}, b=~{mark}x-{{workload}}-.*{mark}}})")
    values, rest = literals(query.filled({**NAMES, "namespace": name, "workload": name}, ()))
    assert rest == "sum(foo{a=, b=~})"
    assert values[0] == name
    assert re.fullmatch(values[1], f"x-{name}-1", re.DOTALL)


@given(st.lists(ANY_TEXT.filter(bool), min_size=1, max_size=4), ANY_TEXT)
def test_pods_match_themselves_and_nothing_else(pods: list[str], other: str) -> None:
    values, rest = literals(read_query('foo{pod=~"{pods}"}').filled(NAMES, pods))
    assert rest == "foo{pod=~}"
    assert all(re.fullmatch(values[0], pod) for pod in pods)
    assert bool(re.fullmatch(values[0], other)) == (other in pods)


def test_a_query_reads_as_people_would_write_it() -> None:
    query = read_query(
        'sum(rate(foo{namespace="{namespace}",pod=~"{pods}"}[1m])) # {ignored}\n / scalar(bar{x=~"a{2}"})'
    )
    assert query.placeholders == {"namespace", "pods"}
    assert query.filled(NAMES, ["llama-0", "b.c"]) == (
        'sum(rate(foo{namespace="ml-team",pod=~"(?:llama-0|b\\\\.c)"}[1m])) # {ignored}\n / scalar(bar{x=~"a{2}"})'
    )
    assert read_query("up").filled(NAMES, ()) == "up"
    assert read_query(r'foo{a=~"\\p{Greek}{2}"}').filled(NAMES, ()) == r'foo{a=~"\\p{Greek}{2}"}'


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("foo{namespace={namespace}}", "{namespace} stands outside of a string"),
        ('foo{pod="{pods}"}', "{pods} is several names"),
        ('foo{a="{tenant}"}', "{tenant} is no placeholder; allowed: {namespace}, {pods}, {revision}, {workload}"),
        ("foo{a=`{namespace}`}", "between backquotes"),
        ('foo{a="{namespace}', 'a string that begins with " does not end'),
        ('label_replace(foo, "a", "{workload}", "", "")', "in a string that is no matcher's"),
    ],
)
def test_what_cannot_be_filled_safely_is_refused(template: str, sentence: str) -> None:
    with pytest.raises(NotAQuery, match=re.escape(sentence)):
        read_query(template)


def test_no_pods_is_no_query() -> None:
    with pytest.raises(ValueError, match="at least one pod"):
        read_query('foo{pod=~"{pods}"}').filled(NAMES, ())


def test_a_regular_expression_of_a_name() -> None:
    assert regex_of("a-b.c") == r"a-b\.c"
