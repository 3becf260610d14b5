"""The ledger of one quota: how much there is, and who holds what. The CRD is generated from here.

The API server itself refuses a write that raises what is held of a resource above its limit. Shrinking a ledger that
holds too much, and lowering a limit below what is held, stay possible.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from autoscaler.settings.rules import Ruled
from autoscaler.settings.status import Instant, Vector
from autoscaler.settings.workload import API_VERSION

HOLDS_MAX: Final = 2000


def _held(ledger: str) -> str:
    return f"{ledger}.holds.map(h, r in h.vector ? h.vector[r] : 0).sum()"


# Not plainly "held <= limit": that would refuse every release that still leaves a ledger over its limit.
LIMIT_RULE: Final = {
    "rule": f"self.limit.all(r, {_held('self')} <= self.limit[r] || "
    f"(oldSelf.hasValue() && {_held('self')} <= {_held('oldSelf.value()')}))",
    "optionalOldSelf": True,
    "message": "the holds exceed the limit of a resource, and this write would raise them; "
    "release a hold first, or raise the limit in the configuration",
}


class Hold(Ruled):
    """What one revision has reserved, from before its first pod until its last pod is gone."""

    owner: Annotated[str, Field(min_length=1, max_length=253)]
    """The workload, as namespace/name."""
    revision: Annotated[str, Field(min_length=1, max_length=253)]
    vector: Vector
    """Resource to whole thousandths."""
    since: Instant | None = None


class LedgerSpec(Ruled):
    """Written by Tidegate alone."""

    limit: Vector
    """Resource to whole thousandths; resources that are not named are not limited."""
    holds: Annotated[list[Hold], Field(max_length=HOLDS_MAX)]


class LedgerMetadata(Ruled):
    model_config = ConfigDict(extra="allow")

    name: str


class QuotaLedger(Ruled):
    """The quota of one project in one node pool: its limit, and the reservations against it."""

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["QuotaLedger"] = "QuotaLedger"
    metadata: LedgerMetadata
    spec: LedgerSpec
