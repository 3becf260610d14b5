"""Quantities and what a pod is charged, in thousandths."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from autoscaler.model.quantity import milli, parse_quantity
from autoscaler.model.resources import pod_demand, replicas_that_fit

GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", Fraction(1, 2)),
        ("1.5Gi", Fraction(3 * 1024**3, 2)),
        ("2e3", Fraction(2000)),
        ("1E", Fraction(10**18)),
        (".5", Fraction(1, 2)),
        ("-3", Fraction(-3)),
        (7, Fraction(7)),
        (0.1, Fraction(1, 10)),
        ("1u", Fraction(1, 10**6)),
        ("1E3", Fraction(1000)),
    ],
)
def test_quantities_are_exact(text: str | float, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "5 ", "1Gi2", "abc", "0x10", "1e", "--1", "500 m", "1K"])
def test_what_is_no_quantity_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_thousandths_are_rounded_up() -> None:
    assert (milli("1"), milli("100u"), milli("1.0001")) == (1000, 1, 1001)


def container(gpus: str | None = None, **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: gpus}} if gpus else {}, **more}


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        ({"containers": [container("1"), container("2")]}, 3000),
        ({"containers": [container("1")], "initContainers": [container("4")]}, 4000),
        ({"containers": [container("1")], "initContainers": [container("2", restartPolicy="Always")]}, 3000),
        (
            {
                "containers": [container("1")],
                "initContainers": [container("2", restartPolicy="Always"), container("3")],
            },
            5000,
        ),
        ({"containers": [container("1")], "overhead": {GPU: "1"}}, 2000),
        ({"containers": [{"resources": {"requests": {GPU: "1"}, "limits": {GPU: "2"}}}]}, 1000),
        ({"containers": [{}]}, 0),
    ],
    ids=["sum", "init peak", "sidecar", "sidecar before init", "overhead", "request before limit", "nothing"],
)
def test_a_pod_is_charged_as_kubernetes_charges_it(spec: dict[str, Any], gpus: int) -> None:
    assert pod_demand(spec).get(GPU, 0) == gpus


def test_a_demand_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        pod_demand({"containers": [container("1e400")]})


def test_how_many_replicas_fit() -> None:
    assert replicas_that_fit({GPU: 3000}, {GPU: 2000}) == 1
    assert replicas_that_fit({GPU: -1000}, {GPU: 2000}) == 0
    assert replicas_that_fit({}, {GPU: 2000}) is None
    assert replicas_that_fit({GPU: 0}, {"cpu": 500}) is None
