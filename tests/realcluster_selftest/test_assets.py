"""Where programs come from: variables first, then the cache; what is missing is said in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.realcluster.assets import ASSETS, Asset, Resolver, version_in_go_mod
from tests.realcluster.errors import AssetError, VariableError

ETCD = next(asset for asset in ASSETS if asset.name == "etcd")


def resolver(tmp_path: Path, **variables: str) -> Resolver:
    return Resolver({"XDG_CACHE_HOME": str(tmp_path / "cache"), **variables})


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a program")
    return path


def put_into_cache(at: Resolver, asset: Asset) -> Path:
    target = program(at.target(asset))
    note = {"version": "v3.6.14", "origin": "built", "sha256": hashlib.sha256(b"a program").hexdigest()}
    target.with_name("etcd.json").write_text(json.dumps(note))
    return target


def test_a_variable_that_points_nowhere_is_an_error(tmp_path: Path) -> None:
    at = resolver(tmp_path, TEST_ASSET_KUBE_APISERVER=str(tmp_path / "absent"))
    with pytest.raises(VariableError, match=r"^TEST_ASSET_KUBE_APISERVER=.*/absent points nowhere; unset it"):
        at.resolve_all(build=False)


def test_a_directory_variable_that_points_nowhere_is_an_error(tmp_path: Path) -> None:
    at = resolver(tmp_path, KUBEBUILDER_ASSETS=str(tmp_path / "absent"))
    with pytest.raises(VariableError, match=r"^KUBEBUILDER_ASSETS=.*/absent is not a directory"):
        at.resolve("etcd", build=False)


def test_the_programs_own_variable_wins_over_the_directory_and_the_cache(tmp_path: Path) -> None:
    own, shared = program(tmp_path / "own-etcd"), program(tmp_path / "shared" / "etcd")
    at = resolver(tmp_path, TEST_ASSET_ETCD=str(own), KUBEBUILDER_ASSETS=str(shared.parent))
    put_into_cache(at, ETCD)
    found = at.resolve("etcd", build=False)
    assert (found.path, found.origin) == (own, "TEST_ASSET_ETCD")


def test_the_directory_variable_wins_over_the_cache(tmp_path: Path) -> None:
    shared = program(tmp_path / "shared" / "etcd")
    at = resolver(tmp_path, KUBEBUILDER_ASSETS=str(shared.parent))
    put_into_cache(at, ETCD)
    found = at.resolve("etcd", build=False)
    assert (found.path, found.origin) == (shared, "KUBEBUILDER_ASSETS")


def test_what_the_directory_variable_lacks_comes_from_the_cache(tmp_path: Path) -> None:
    shared = program(tmp_path / "shared" / "kube-apiserver")
    at = resolver(tmp_path, KUBEBUILDER_ASSETS=str(shared.parent))
    target = put_into_cache(at, ETCD)
    found = at.resolve("etcd", build=False)
    assert (found.path, found.origin, found.version) == (target, "cache", "v3.6.14")


def test_a_program_without_its_note_is_not_whole(tmp_path: Path) -> None:
    at = resolver(tmp_path)
    put_into_cache(at, ETCD).with_name("etcd.json").unlink()
    with pytest.raises(AssetError):
        at.resolve("etcd", build=False)


def test_all_that_is_missing_is_said_in_one_sentence_with_the_way_out(tmp_path: Path) -> None:
    at = resolver(tmp_path)
    put_into_cache(at, ETCD)
    with pytest.raises(AssetError) as caught:
        at.resolve_all(build=False)
    text = str(caught.value)
    assert text.startswith("the control plane is not built (kube-apiserver, kube-controller-manager, kube-scheduler")
    assert "etcd" not in text
    assert text.endswith("run `python -m tests.realcluster.assets` once, about 15 min on two cores")


def test_other_flags_are_another_program(tmp_path: Path) -> None:
    at = resolver(tmp_path)
    other = Asset("etcd", "etcd", ETCD.module, ETCD.package, flags="-X main.version=other")
    assert at.target(other) != at.target(ETCD)
    assert at.target(ETCD) == resolver(tmp_path).target(ETCD)


def test_versions_stand_in_go_mod_alone() -> None:
    versions = {asset.name: version_in_go_mod(asset) for asset in ASSETS}
    assert versions == {
        "kube-apiserver": "v1.36.2",
        "kube-controller-manager": "v1.36.2",
        "kube-scheduler": "v1.36.2",
        "etcd": "v3.6.14",
        "kwok": "v0.8.0",
        "kwok-stages": "v0.8.0",
        "helm": "v4.2.4",
        "lws-controller-manager": "v0.9.0",
        "lws-manifests": "v0.9.0",
        "prometheus": "v0.314.0",
        "envoy-gateway": "v1.9.0",
        "gateway-api-crds": "v1.6.1",
        "envoy-gateway-crds": "v1.9.0",
    }
