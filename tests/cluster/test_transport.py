"""The daemon uses kubernetes-asyncio without its models, and takes them from nobody who wants them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARTS = "('kubernetes_asyncio.client.models', 'kubernetes_asyncio.client.api.')"
LOADED = f"[name for name in sys.modules if name.startswith({PARTS})]"
WHOLE = (
    "import kubernetes_asyncio as whole; "
    "assert transport.Configuration is whole.client.Configuration, 'two of them'; "
    "assert transport.config is whole.config, 'two of them'; "
    "assert whole.client.V1Pod().to_dict(), 'no models'"
)


@pytest.mark.parametrize(
    "code",
    [
        f"from autoscaler.cluster import transport; assert not (found := {LOADED}), found",
        f"from autoscaler.cluster import transport; {WHOLE}",
        f"import kubernetes_asyncio; from autoscaler.cluster import transport; {WHOLE}",
    ],
    ids=["the models are not read", "and are there for others", "who may come first"],
)
def test_no_models(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
