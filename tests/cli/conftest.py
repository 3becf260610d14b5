"""A desk in a namespace of one's own, on the real control plane with our definitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.install import apply_crds
from tests.cli.desk import Desk
from tests.realcluster.cluster import Cluster


@pytest.fixture
def desk(cluster: Cluster, namespace: str, tmp_path: Path) -> Desk:
    apply_crds(cluster)
    return Desk(cluster, namespace, tmp_path)
