"""A control plane that knows our kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.settings.crd import definitions
from tests.realcluster.cluster import Cluster

REPOSITORY = Path(__file__).parents[2]
GROUP_PATH = "/apis/tidegate.dev/v1alpha1"


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> Cluster:
    """The shared control plane, with the definitions that we ship."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "config" / "crd"))
    for plural in definitions():
        cluster.wait_established(f"{plural}.tidegate.dev")
        cluster.wait_for(lambda plural=plural: cluster.request("GET", f"{GROUP_PATH}/{plural}")[0] == 200, plural)  # type: ignore[misc]
    return cluster
