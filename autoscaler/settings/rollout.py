"""The blocks `rollout` and `traffic` of a workload: how a new revision comes, and how clients reach it.

`rollout` is also the configuration's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Final

from pydantic import Field

from autoscaler.model.duration import parse_duration
from autoscaler.model.rollout import WhenQuotaShort
from autoscaler.settings.rules import Rule, Ruled
from autoscaler.settings.scalars import DNS_1035, DURATION_TEXT, Seconds
from autoscaler.settings.serving import ObjectName, PagePath

WEEK_S: Final = 604_800
PAUSE_MAX: Final = "168h"
STEPS_MAX: Final = 20
BODY_MAX: Final = 8192

Clock = Annotated[int, Field(strict=True, ge=1, le=WEEK_S)]
DrainTimeout = Annotated[int, Field(strict=True, ge=0, le=86_400)]
Weight = Annotated[int, Field(strict=True, ge=1, le=100)]
WarmUpRequests = Annotated[int, Field(strict=True, ge=1, le=100)]
HistoryLimit = Annotated[int, Field(strict=True, ge=0, le=100)]


class RolloutStep(Ruled):
    """One share of the traffic, and how long it is watched."""

    weight: Weight
    """Percent of the requests that go to the update."""
    pause: Annotated[str, Field(pattern=DURATION_TEXT, max_length=32)] | None = None
    """How long to stay there once the weight is proven, e.g. 30s, 2m or 1h30m, at most 168h (default: no time)."""

    cel_values: ClassVar[Mapping[str, str]] = {"pause": "self.pause"}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="pause",
            says=f"pause {{pause}} is too long; set a duration from 0s to {PAUSE_MAX}, or pause by hand",
            cel=f"!has(self.pause) || duration(self.pause) <= duration('{PAUSE_MAX}')",
            holds=lambda it: it.pause is None or parse_duration(it.pause) <= WEEK_S,
        ),
    )


class WarmUp(Ruled):
    """HTTP requests to the serving port that every new replica answers with 2xx before it gets traffic. Not with
    protocol grpc."""

    path: PagePath
    """Path of the request, e.g. /v1/completions."""
    body: Annotated[str, Field(max_length=BODY_MAX)] | None = None
    """Sent as it is, by POST as application/json (default: none, and the request is a GET)."""
    requests: WarmUpRequests | None = None
    """How many requests to each replica (default 1)."""


class Drain(Ruled):
    """How the old revision ends. It goes when it has no request in flight and none came for quietSeconds."""

    timeout_seconds: DrainTimeout | None = None
    """It goes then in any case (default 300)."""
    quiet_seconds: Seconds | None = None
    """No new request for so long (default 5)."""


class Rollout(Ruled):
    """How a new revision comes: its whole quota first, then all its replicas, then the traffic."""

    queue_timeout_seconds: Clock | None = None
    """How long an update may wait for its quota (default 3600)."""
    schedule_timeout_seconds: Clock | None = None
    """Pods that no node takes for so long are removed, and the update waits again (default 300)."""
    progress_deadline_seconds: Clock | None = None
    """From the reserved quota to all of the traffic, pauses not counted; past it the update is taken back (default
    600)."""
    when_quota_short: WhenQuotaShort | None = None
    """wait (default), or refuse: the update fails at once where its quota is not free."""
    steps: Annotated[list[RolloutStep], Field(max_length=STEPS_MAX)] | None = None
    """Weights on the way to 100 percent (default: all at once). Needs traffic.httpRoute."""
    warmup: WarmUp | None = None
    drain: Drain | None = None
    revision_history_limit: HistoryLimit | None = None
    """Old revisions that are kept to return to (default 3)."""
    paused: Annotated[bool, Field(strict=True)] | None = None
    """Holds an update where it is (default false)."""

    @property
    def weights(self) -> list[int]:
        return [step.weight for step in self.steps or ()]

    @property
    def rises(self) -> bool:
        return all(low < high for low, high in pairwise(self.weights))

    cel_values: ClassVar[Mapping[str, str]] = {"weights": "self.steps.map(s, s.weight)"}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="steps",
            says="the weights {weights} do not rise; set each above the one before, from 1 to 100",
            cel="!has(self.steps) || (self.steps.map(s, s.weight).isSorted() && "
            "self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight)))",
            holds=lambda it: it.rises,
        ),
    )


class HttpRoute(Ruled):
    """The HTTPRoute that carries the weights, in the workload's namespace. Only the two backendRefs of the workload's
    Services in one of its rules are written."""

    name: ObjectName
    rule_name: ObjectName | None = None
    """Name of that rule. May be left out where the route has one rule."""


class Traffic(Ruled):
    """How clients reach the workload."""

    service: Annotated[str, Field(pattern=DNS_1035, max_length=56)] | None = None
    """An existing Service, of which one selector key is changed (default: one of ours, named like the workload)."""
    http_route: HttpRoute | None = None
    """Moves traffic weight by weight (default: none, and the Service's selector is the switch)."""
