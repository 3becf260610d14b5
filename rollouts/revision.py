"""Revision identity: an immutable copy of what makes a model server, named by its content.

The identity is the part of `spec.serving` as stored by the API server, never the object rendered from it: upgrading
Tidegate restarts no pod, and changing a default of the configuration makes no revision. Golden hashes in the tests
guard that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

IDENTITY_FIELDS: Final = ("deployment", "leaderWorkerSet", "engine", "port", "protocol", "metrics")
ANNOTATIONS: Final = "annotations"  # of the workload, beside those fields: what its kind's controller reads
CARRIED: Final = {
    "leaderWorkerSet": "leaderworkerset.sigs.k8s.io/"
}  # kind -> prefix of the annotations carried through
NO_REVISION: Final = "none"  # what a Service selects that must have no endpoints; never a revision's name


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision. `digest` is the full SHA-256 of the identity; `name` carries its first 8 hex digits."""

    name: str
    digest: str
    identity: Mapping[str, Any]


def identity_of(serving: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The fields of `spec.serving` that make a revision; unset ones stay unset.

    With the annotations that place a group's pods, e.g. exclusive topology: those are set on the object, and another
    placement is another revision.
    """
    identity = {field: serving[field] for field in IDENTITY_FIELDS if serving.get(field) is not None}
    if carried := carried_annotations(serving, annotations):
        identity[ANNOTATIONS] = carried
    return identity


def carried_annotations(serving: Mapping[str, Any], annotations: Mapping[str, str] | None) -> dict[str, str]:
    """The workload's annotations that its kind's controller reads on the object."""
    prefixes = tuple(prefix for kind, prefix in CARRIED.items() if serving.get(kind) is not None)
    return {key: value for key, value in (annotations or {}).items() if prefixes and key.startswith(prefixes)}


def digest_of(identity: Mapping[str, Any], collision_count: int = 0) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no blanks), salted with the collision count when it is not 0."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    salt = f"#{collision_count}" if collision_count else ""
    return hashlib.sha256((canonical + salt).encode()).hexdigest()


def is_revision_of(workload: str, name: str) -> bool:
    """Could this name one of the workload's revisions? `llama-1a2b3c4d` is of llama, not of llama-1a2b3c4d."""
    return len(name) == len(workload) + 9 and name.startswith(f"{workload}-")


def identify(
    workload: str, identity: Mapping[str, Any], taken: Mapping[str, str], collision_count: int
) -> tuple[Revision, int]:
    """The revision of this identity and the collision count that it needed.

    `taken` maps names of stored revisions to their digests. A name that is taken by another content is passed over by
    raising the count; the same content finds its own name again.
    """
    while True:
        digest = digest_of(identity, collision_count)
        name = f"{workload}-{digest[:8]}"
        if taken.get(name, digest) == digest:
            return Revision(name, digest, identity), collision_count
        collision_count += 1
