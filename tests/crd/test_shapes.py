"""The models that make the CRD and the structs that decode its objects are one shape."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
from pydantic import BaseModel

from autoscaler.cluster import inferenceworkload as structs
from autoscaler.settings import serving, status, workload
from autoscaler.settings.manifest import check_workload
from tests.crd.refusals import ACCEPTED

OPAQUE = "opaque"  # kept as it is: a pod template


def _in_model(annotation: Any) -> Any:
    """The fields below a pydantic annotation, as names to shapes; None for a single value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation is serving.PodTemplate:
            return OPAQUE
        fields = annotation.model_fields.values()
        return {str(field.alias): _in_model(field.annotation) for field in fields}
    return _first(_in_model, annotation)


def _in_struct(annotation: Any) -> Any:
    """The same for a msgspec annotation."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return {field.encode_name: _in_struct(field.type) for field in msgspec.structs.fields(annotation)}
    if get_origin(annotation) is dict and get_args(annotation) == (str, Any):
        return OPAQUE
    return _first(_in_struct, annotation)


def _first(shape: Any, annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType, Annotated, list):
        return next((found for part in get_args(annotation) if (found := shape(part)) is not None), None)
    return None


def test_the_specs_have_the_same_fields() -> None:
    assert _in_struct(structs.Spec) == _in_model(workload.WorkloadSpec)


def test_the_statuses_have_the_same_fields() -> None:
    assert _in_struct(structs.Status) == _in_model(status.WorkloadStatus)


def test_the_kinds_have_the_same_name() -> None:
    assert structs.API_VERSION == workload.API_VERSION
    assert workload.InferenceWorkload.__name__ == structs.KIND


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_the_models_accept_the_structs_decode_without_loss(document: dict[str, Any]) -> None:
    assert check_workload(document) == []
    decoded = msgspec.json.decode(msgspec.json.encode(document), type=structs.InferenceWorkload)
    again = msgspec.to_builtins(decoded)
    assert again["spec"] == _without_nulls(document["spec"])


def _without_nulls(value: Any) -> Any:
    """Nulls outside the template are the same as unset."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: below if key.lower().endswith("template") else _without_nulls(below)
        for key, below in value.items()
        if below is not None
    }


def test_unknown_fields_are_ignored_when_decoding() -> None:
    text = b'{"metadata": {"name": "x", "new": 1}, "spec": {"new": {}}, "status": {"new": []}, "new": 1}'
    assert msgspec.json.decode(text, type=structs.InferenceWorkload).metadata.name == "x"


def test_instants_are_read_as_unix_seconds() -> None:
    assert structs.unix_seconds("2026-01-01T00:00:00Z") == 1767225600.0
    assert structs.unix_seconds("2026-01-01T01:00:00.250+01:00") == 1767225600.25
