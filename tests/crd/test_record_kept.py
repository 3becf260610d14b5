"""The real API server keeps every field of the record, to the microsecond, and clears what ended."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.cluster.client import MERGE_PATCH
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.status import record_of, status_of
from tests.cluster import records
from tests.crd.refusals import good
from tests.realcluster.cluster import Cluster


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_what_is_patched_into_the_status_is_read_back(crds: Cluster, namespace: str, data: st.DataObject) -> None:
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads"
    if crds.request("GET", f"{path}/llama")[0] == 404:
        crds.create(path, good())
    record = data.draw(records.RECORDS)
    status, answer = crds.request(
        "PATCH", f"{path}/llama/status", {"status": status_of(record)}, content_type=MERGE_PATCH
    )
    assert status == 200, answer
    assert record_of(msgspec.convert(answer, InferenceWorkload)) == record
