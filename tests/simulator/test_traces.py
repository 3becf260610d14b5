"""The shipped slices, and their copies."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from autoscaler.simulator import traces
from autoscaler.simulator.traces import Request

SLICES = {"azure2023_conv_m10_m50.csv.gz": 14434, "servegen_tenantA_h65m55_h66m35.csv.gz": 3916}


@pytest.mark.parametrize("name", sorted(SLICES))
def test_a_shipped_slice_is_sorted_and_as_long_as_its_readme_says(name: str) -> None:
    requests = traces.load(name)

    assert len(requests) == SLICES[name]
    assert all(a.at_s <= b.at_s for a, b in pairwise(requests))
    assert requests[0].at_s >= 0 and requests[-1].at_s < 2400
    readme = traces.config_file("traces", "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {SLICES[name]:,} |" in readme


def test_the_slices_stay_small() -> None:
    assert sum(len(traces.config_file("traces", name).read_bytes()) for name in SLICES) < 200_000


def test_a_copy_keeps_every_original_and_shifts_the_others_by_30_s_at_most() -> None:
    originals = tuple(Request(float(t), t, 1) for t in range(0, 100, 7))

    copied = traces.copied(originals, 3, 100.0, random.Random(1))

    assert len(copied) == 3 * len(originals)
    assert set(originals) <= set(copied)
    assert all(abs(each.at_s - each.input_tokens) <= 30 and 0 <= each.at_s < 100 for each in copied)
    assert [each.at_s for each in copied] == sorted(each.at_s for each in copied)
    assert copied == traces.copied(originals, 3, 100.0, random.Random(1))
