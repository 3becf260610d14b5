"""The chart without a cluster: the real helm renders it, a mapping of values goes in, objects come out."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.derived import CHART
from tests.realcluster.assets import Resolver
from tests.realcluster.errors import AssetError

Values = Mapping[str, Any]
Object = dict[str, Any]

NAMESPACE = "tidegate-system"
WATCHED = {"config": {"watch": {"namespaces": ["ml-team", "vision"]}}}
ACCOUNT_OF_OTHERS = {"serviceAccount": {"create": False, "name": "theirs"}}


class Refused(Exception):
    """Helm did not render; the text is its error."""


def helm(*arguments: str, values: Values | None = None) -> str:
    """Run helm far from any cluster and any user's settings. Refused if it fails."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "values.yaml"
        file.write_text(json.dumps(values or {}))
        environment = {"PATH": os.environ["PATH"], "HOME": directory, "KUBECONFIG": os.devnull}
        command = [str(_program()), *arguments, f"--values={file}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def render(values: Values | None = None, *flags: str, release: str = "tidegate") -> list[Object]:
    """Every object that an installation would create."""
    text = helm("template", release, str(CHART), f"--namespace={NAMESPACE}", *flags, values=values)
    return [document for document in yaml.safe_load_all(text) if document]


def one(objects: list[Object], kind: str) -> Object:
    """The only object of a kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def container(values: Values | None = None) -> Object:
    """The daemon's container, as rendered."""
    (only,) = one(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def _program() -> Path:
    try:
        return Resolver(os.environ).resolve("helm", build=False).path
    except AssetError as error:
        reason = f"helm is not built: run `python -m tests.realcluster.assets` once ({error})"
        if os.environ.get("TIDEGATE_REQUIRE_CLUSTER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
