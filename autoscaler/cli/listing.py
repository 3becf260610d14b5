"""The table of `tidegate list`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from autoscaler.cli.seen import Seen, gpus, is_in, seconds_of
from autoscaler.cli.words import NONE, age, number, short_revision, span
from autoscaler.cluster.inferenceworkload import SignalStatus
from rollouts.record import Phase

HEADER: Final = (
    *("NAME", "STATUS", "REV", "TRAFFIC", "READY", "DESIRED", "MIN/MAX", "SIGNAL", "VALUE/TARGET", "GPUS"),
    *("LIMITED-BY", "AGE"),
)
WIDE: Final = ("KIND", "MODE", "PRIORITY", "PROJECT", "QUOTA-FREE", "LAST-SCALE", "NEXT-ELIGIBLE")
ENDED: Final = frozenset({Phase.COMPLETE.value, Phase.SUPERSEDED.value})


def rows(found: Sequence[Seen], now: float, wide: bool, everywhere: bool) -> list[tuple[str, ...]]:
    """The header, and a row for each workload. No cell holds a blank, so that other tools can cut the lines."""
    header = (*(("NAMESPACE",) if everywhere else ()), *HEADER, *(WIDE if wide else ()))
    return [header, *(_row(each, now, wide, everywhere) for each in found)]


def _row(seen: Seen, now: float, wide: bool, everywhere: bool) -> tuple[str, ...]:
    told, meta, bounds = seen.told, seen.metadata, seen.spec.autoscaling
    counts, signal = told.counts, deciding(told.signals)
    least = bounds.min_replicas if bounds is not None else None
    most = bounds.max_replicas if bounds is not None else None
    created = seconds_of(meta.creation_timestamp)
    return (
        *((meta.namespace,) if everywhere else ()),
        meta.name,
        status(seen),
        revisions(seen),
        traffic(seen),
        _shown(counts.ready if counts is not None else None),
        _shown(counts.desired if counts is not None else None),
        f"{_shown(least)}/{_shown(most)}",
        (signal.name if signal is not None else None) or NONE,
        f"{signal.value or NONE}/{signal.target or NONE}" if signal is not None else NONE,
        held_gpus(seen),
        seen.reason("ScalingLimited") or NONE,
        age(now - created if created is not None else None),
        *(_wide(seen, now) if wide else ()),
    )


def status(seen: Seen) -> str:
    """The phase, and that of an update beside it: `Running,Queued`, as kubectl joins the states of a node."""
    told = seen.told
    phase, rollout = told.phase or "Unknown", told.rollout
    if rollout is None or not rollout.phase or rollout.phase in ENDED:
        return phase
    return f"{phase},{'UpdateFailed' if is_in(rollout, Phase.FAILED) else rollout.phase}"


def revisions(seen: Seen) -> str:
    """The hash of the current revision, and that of one that is coming: `1a2b3c4d>7f3a91c2`."""
    told, name = seen.told, seen.metadata.name
    if seen.kind_of_serving == "targetRef":
        return NONE
    both = [short_revision(name, each) for each in (told.current_revision, told.update_revision) if each]
    return ">".join(both) or NONE


def traffic(seen: Seen) -> str:
    """Percent of the current revision, and of the update: `90/10`; `100` where there is one."""
    told = seen.told
    percents = {each.revision_name: each.percent for each in told.traffic or ()}
    update = told.rollout.revision if told.rollout is not None and told.rollout.phase not in ENDED else None
    if not percents:
        return NONE
    current = str(percents.get(told.current_revision or "", 0))
    return f"{current}/{percents[update]}" if update in percents else current


def held_gpus(seen: Seen) -> str:
    """GPUs that all its revisions hold of the quota."""
    there = seen.told.revisions
    return number(sum(gpus(each.held) for each in there)) if there is not None else NONE


def deciding(signals: Sequence[SignalStatus] | None) -> SignalStatus | None:
    """The signal that asks for the most replicas, which is the one that wins."""
    return max(signals, key=lambda each: -1 if each.recommended is None else each.recommended) if signals else None


def _wide(seen: Seen, now: float) -> tuple[str, ...]:
    told = seen.told
    quota, scaled = told.quota, told.last_scale
    project = (quota.project if quota is not None else None) or seen.spec.project
    at = seconds_of(scaled.at) if scaled is not None else None
    last = f"{_shown(scaled.from_)}>{_shown(scaled.to)},{age(now - at)}" if scaled is not None and at else NONE
    return (
        seen.kind_of_serving or NONE,
        told.scaling_mode or NONE,
        seen.spec.priority or NONE,
        project or NONE,
        quota_free(seen),
        last,
        next_eligible(seen, now),
    )


def next_eligible(seen: Seen, now: float) -> str:
    """When fewer replicas may be next: `now`, `45s`, or `-` where it is not known or nobody scales it. More may be at
    any time."""
    told = seen.told
    if told.scaling_mode != "Auto" or not told.signals:
        return NONE
    at = seconds_of(told.next_eligible_at)
    if at is not None and at > now:
        return span(math.ceil(at - now))
    return "now" if seen.reason("AbleToScale") == "ReadyForNewScale" else NONE


def quota_free(seen: Seen) -> str:
    """`7/8`: GPUs free of the limit in the node pool that it uses."""
    quota = seen.told.quota
    if quota is None or quota.gpus_limit is None:
        return NONE
    free = NONE if quota.gpus_free is None else number(max(0, quota.gpus_free) / 1000)
    return f"{free}/{number(quota.gpus_limit / 1000)}"


def _shown(value: int | None) -> str:
    return NONE if value is None else str(value)
