"""The scanner finds what the general parser finds, and never turns a damaged line into a number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.signals.faults import Fault
from autoscaler.signals.scanner import MAX_LINE_BYTES, MAX_SAMPLES, labels_of, scan, type_of

VLLM_PAGE = Path(__file__).parents[1] / "data" / "pages" / "vllm-synthetic.txt"
Found = list[tuple[tuple[tuple[str, str], ...], float]]


def found(page: str, name: str) -> Found | Fault:
    """The scanner's samples with readable labels, or its fault."""
    scanned = scan(page.encode(), [name.encode()])[name.encode()]
    if scanned.fault is not None:
        return scanned.fault
    return [(labels_of(raw) or (), value) for raw, value in scanned.samples]


# Names that are prefixes, suffixes and parts of one another, and of the words of the format.
NAMES = ["foo", "foo_total", "foo_bucket", "foo_created", "foo:bar", "a", "TYPE", "HELP", "_foo", "xfoo"]
label_values = st.lists(st.sampled_from([*'"\\\n}{,= #aé', "foo"]), max_size=8).map("".join)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "Inf", "nan", "1e5", "1E-3", "+4", ".5", "5."]),
)
blanks = st.sampled_from([" ", "  ", "\t", " \t "])
maybe_blank = st.sampled_from(["", " ", "\t"])


@st.composite
def sample_lines(draw: st.DrawFn) -> str:
    labels: dict[str, str] = draw(
        st.dictionaries(st.sampled_from(["a", "le", "foo", "model_name"]), label_values, max_size=3)
    )
    pairs = [f'{name}{draw(maybe_blank)}={draw(maybe_blank)}"{escaped(value)}"' for name, value in labels.items()]
    inside = ",".join(pairs) + (draw(st.sampled_from(["", ","])) if pairs else "")
    with_braces = bool(labels) or draw(st.sampled_from([True, False]))
    braces = f"{draw(maybe_blank)}{{{inside}}}" if with_braces else ""
    stamp = draw(st.one_of(st.just(""), st.integers(0, 2**42).map(lambda ms: f" {ms}")))
    value = draw(numbers)
    return f"{draw(maybe_blank)}{draw(st.sampled_from(NAMES))}{braces}{draw(blanks)}{value}{stamp}{draw(maybe_blank)}"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


comment_lines = st.one_of(
    st.sampled_from(NAMES).map(lambda name: f"# about {name} 5"),
    st.sampled_from(NAMES).map(lambda name: f'#about {name}{{a="b"}} 5'),
    st.sampled_from(NAMES).map(lambda name: f"# HELP {name} {name} 5"),
    st.sampled_from(NAMES).map(lambda name: f"# TYPE {name} gauge"),
    st.sampled_from(["", " ", "#", "# foo", "# EOF"]),
)


@st.composite
def pages(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.one_of(sample_lines(), comment_lines), max_size=12))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n"]))


def by_general_parser(page: str, name: str) -> Found:
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return [(tuple(sorted(sample.labels.items())), sample.value) for sample in samples]


def comparable(samples: Found) -> list[tuple[tuple[tuple[str, str], ...], str]]:
    return sorted((labels, str(float(value))) for labels, value in samples)


@settings(max_examples=400, deadline=None)
@given(pages(), st.sampled_from(NAMES))
def test_the_scanner_agrees_with_the_general_parser(page: str, name: str) -> None:
    expected = by_general_parser(page, name)
    actual = found(page, name)
    if not expected:
        assert actual is Fault.NO_SUCH_SERIES
    else:
        assert not isinstance(actual, Fault), page
        assert comparable(actual) == comparable(expected)


def test_every_series_of_a_whole_page_is_found_as_the_general_parser_finds_it() -> None:
    page = VLLM_PAGE.read_text()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    for name in {sample.name for sample in samples}:
        expected = [(tuple(sorted(one.labels.items())), one.value) for one in samples if one.name == name]
        actual = found(page, name)
        assert not isinstance(actual, Fault)
        assert comparable(actual) == comparable(expected)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"foo", b"a"]))
def test_no_bytes_make_the_scanner_fail(noise: bytes, name: bytes) -> None:
    page = noise + b'\nfoo{a="b"} 1\n' + noise
    scanned = scan(page, [name])[name]
    assert (scanned.fault is None) == bool(scanned.samples)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("foo 1", 1.0),
        ("foo{} 1", 1.0),
        ('foo{a="x } y",b="{"} 2', 2.0),
        ('foo{a="say \\"hi\\", then \\\\"} 3', 3.0),
        ('foo{a="b"} 4 1700000000000', 4.0),
        ('foo{a="b",} 5', 5.0),
        ("foo\t6", 6.0),
        ("foo +Inf", math.inf),
        ("foo 7\r", 7.0),
    ],
)
def test_a_well_formed_line_is_read(line: str, value: float) -> None:
    samples = found("# HELP foo foo 9\n" + line, "foo")
    assert isinstance(samples, list)
    assert [number for _, number in samples] == [value]


@pytest.mark.parametrize(
    "line",
    [
        "foo",
        "foo ",
        "foo one",
        "foo 1_000",
        "foo 0x10",
        "foo 1 2 3",
        'foo{a="b" 1',
        'foo{a="b} 1',
        "foo{a=b} 1",
        'foo{a="b"c="d"} 1',
        'foo{a="b",a="c"} 1',
        'foo{a="b"} 1 # {trace="x"} 2',
        "foo-bar 1",
        "foo " + "1" * MAX_LINE_BYTES,
    ],
)
def test_a_damaged_line_makes_the_whole_series_faulty(line: str) -> None:
    assert found(f'foo{{a="fine"}} 1\n{line}\nfoo{{a="fine too"}} 2\n', "foo") is Fault.MALFORMED


def test_a_damaged_line_of_another_series_does_no_harm() -> None:
    assert found("foo_total one\nbar{ 1\nfoo 3\n", "foo") == [((), 3.0)]


def test_longer_names_and_comments_are_other_series() -> None:
    page = "# TYPE foo gauge\nfoo_total 1\nfoo_created 1.7e9\nfoo_bucket 2\nxfoo 3\nfoo:x 4\n"
    assert found(page, "foo") is Fault.NO_SUCH_SERIES


def test_a_hostile_number_of_lines_is_refused() -> None:
    assert found("foo 1\n" * (MAX_SAMPLES + 1), "foo") is Fault.TOO_MANY_SERIES


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("# TYPE foo counter\nfoo 1\n", "counter"),
        ("#TYPE  foo\tgauge \r\nfoo 1\n", "gauge"),
        ("# TYPE foo_total counter\nfoo 1\n", None),
        ("# HELP foo TYPE foo counter\nfoo 1\n", None),
        ("foo 1\n# TYPE foo gauge", "gauge"),
    ],
)
def test_the_type_line_says_what_a_series_is(page: str, expected: str | None) -> None:
    assert type_of(page.encode(), b"foo") == expected
