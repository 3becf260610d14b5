"""Names stay names: whatever they hold, the query around them is the one that the operator wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.signals.promql import quoted

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
