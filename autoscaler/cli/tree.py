"""The picture of `tidegate get`: what the workload is doing, then revision -> replicas -> pods. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from autoscaler.cli.images import images_of
from autoscaler.cli.pods import PodSeen, Replica, replicas_of, state_of
from autoscaler.cli.seen import CURRENT, LEAVING, UPDATE, Seen, gpus, is_in, paused_by, seconds_of
from autoscaler.cli.standing import STUCK
from autoscaler.cli.verbs import unhandled
from autoscaler.cli.words import NONE, age, clean, counted, mark, number, span, style
from autoscaler.cluster.inferenceworkload import RevisionStatus, RolloutStatus, Serving
from rollouts.record import PausedBy, Phase

_ROLES: Final = {CURRENT: 0, UPDATE: 1, LEAVING: 2}
_PAUSED: Final = {
    PausedBy.STEP: "by a step",
    PausedBy.VERB: "by hand",
    PausedBy.SPEC: "by spec.rollout.paused",
}
_CLOCKS: Final = {
    Phase.QUEUED: ("queue timeout", "queue_deadline_at"),
    Phase.STARTING: ("progress deadline", "progress_deadline_at"),
    Phase.WARMING: ("progress deadline", "progress_deadline_at"),
    Phase.SHIFTING: ("progress deadline", "progress_deadline_at"),
    Phase.DRAINING: ("drain timeout", "drain_deadline_at"),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is shown, as last read."""

    seen: Seen
    pods: Sequence[PodSeen]
    now: float
    wide: bool = False  # nodes and whole messages too


def picture(shown: Picture) -> RenderableType:
    """The header, a blank line and the tree."""
    return Group(*_header(shown), Text(), _tree(shown))


# --- the header ---


def _header(shown: Picture) -> list[Text]:
    seen, told = shown.seen, shown.seen.told
    phase = told.phase or "Unknown"
    message = told.phase_message or "the daemon has written no status yet"
    return [
        _line("Name", _plain(f"{seen.metadata.namespace}/{seen.metadata.name}")),
        _line("Status", _marked(phase, f": {message}")),
        *_update(shown),
        *_asked(seen),
        _line("Replicas", _plain(_replicas(seen))),
        *(_line("Signal", _plain(each)) for each in _signals(seen)),
        *(_line("Quota", _plain(each)) for each in _quota(seen)),
        *(_line("Image", _plain(each)) for each in images_of(seen.spec.serving or Serving())),
        *(_line("Trouble", _plain(each, style="yellow")) for each in _troubles(seen)),
    ]


def _plain(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style)


def _line(name: str, text: Text) -> Text:
    return Text.assemble((f"{name + ':':<10}", "bold"), text)


def _marked(word: str, rest: str = "") -> Text:
    return Text.assemble((f"{mark(word)} {clean(word)}", style(word)), clean(rest))


def _update(shown: Picture) -> list[Text]:
    told, rollout = shown.seen.told, shown.seen.told.rollout
    if rollout is None or not rollout.phase:
        return []
    parts = [f" {rollout.revision}", *_said(told.rollout_message, rollout), *_step(shown.seen, rollout)]
    said = _line("Update", _marked(rollout.phase, parts[0] + "".join(f"; {part}" for part in parts[1:])))
    return [said, *(_line("Clock", _plain(each)) for each in _clocks(shown, rollout))]


def _asked(seen: Seen) -> list[Text]:
    waiting = unhandled(seen)
    return [_line("Asked", _plain(f'"{waiting}" is not handled yet'))] if waiting else []


def _said(message: str | None, rollout: RolloutStatus) -> list[str]:
    return [each for each in (rollout.reason, message) if each]


def _step(seen: Seen, rollout: RolloutStatus) -> list[str]:
    """Which of the steps, and the weight wanted and proven."""
    steps = (seen.spec.rollout.steps if seen.spec.rollout is not None else None) or ()
    parts = []
    if steps and rollout.step is not None and not rollout.full:
        parts.append(f"step {min(rollout.step, len(steps))} of {len(steps)}")
    if rollout.weight:
        parts.append(f"weight {rollout.weight} %, {rollout.verified or 0} % proven")
    return parts


def _clocks(shown: Picture, rollout: RolloutStatus) -> list[str]:
    """What runs out when. In a pause nothing does but the pause itself: its length is added to every deadline."""
    if is_in(rollout, Phase.PAUSED):
        who = paused_by(rollout)
        by = _PAUSED[who] if who is not None else None
        until = seconds_of(rollout.pause.until) if rollout.pause is not None else None
        left = f"{span(until - shown.now)} left" if until is not None else "until it is resumed"
        return [f"paused {by or 'for now'}, {left}; deadlines wait"]
    found = [
        (name, seconds_of(getattr(rollout, field))) for phase, (name, field) in _CLOCKS.items() if is_in(rollout, phase)
    ]
    if is_in(rollout, Phase.STARTING):
        found.insert(0, ("schedule timeout", seconds_of(rollout.schedule_deadline_at)))
    if is_in(rollout, Phase.QUEUED):
        found.insert(0, ("back-off", seconds_of(rollout.not_before)))
    return [
        _runs_out(name, at, shown.now)
        for name, at in found
        if at is not None and (at > shown.now or name != "back-off")
    ]


def _runs_out(name: str, at: float, now: float) -> str:
    return f"{name} in {span(at - now)}" if at > now else f"{name} was {span(now - at)} ago"


def _replicas(seen: Seen) -> str:
    counts, bounds = seen.told.counts, seen.spec.autoscaling
    if counts is None:
        return "unknown"
    shown = [
        f"{value} {name}"
        for name, value in (
            ("desired", counts.desired),
            ("granted", counts.granted),
            ("written", counts.applied),
            ("ready", counts.ready),
            ("starting", counts.starting),
            ("terminating", counts.terminating),
        )
        if value is not None
    ]
    least = bounds.min_replicas if bounds is not None else None
    most = bounds.max_replicas if bounds is not None else None
    mode = f", {seen.told.scaling_mode}" if seen.told.scaling_mode else ""
    return f"{', '.join(shown)} (min {_or_unset(least)}, max {_or_unset(most)}{mode})"


def _or_unset(value: int | None) -> str:
    return "unset" if value is None else str(value)


def _signals(seen: Seen) -> list[str]:
    return [
        f"{each.name} {each.value or 'unknown'} (target {each.target or NONE} a replica, {each.quality or 'unknown'}), "
        f"asks for {NONE if each.recommended is None else each.recommended}"
        for each in seen.told.signals or ()
    ]


def _quota(seen: Seen) -> list[str]:
    quota = seen.told.quota
    if quota is None or not quota.project:
        return []
    pool = f", node pool {quota.node_pool}" if quota.node_pool else ""
    if quota.gpus_limit is None:
        return [f"project {quota.project}{pool}: unlimited"]
    limit = counted(quota.gpus_limit / 1000, "GPU")
    if quota.gpus_free is None:
        return [f"project {quota.project}{pool}: limit of {limit}"]
    free = number(max(0, quota.gpus_free) / 1000)
    short = f", {counted(quota.gpus_short / 1000, 'GPU')} short" if quota.gpus_short else ""
    return [f"project {quota.project}{pool}: {free} of {limit} free{short}"]


def _troubles(seen: Seen) -> list[str]:
    """Conditions that say that something is wrong, whatever the phase is."""
    bad = {*STUCK, "RecordRebuilt", "Fallback", "Unsupported"}
    return [
        f"{each.type} ({each.reason}): {each.message}"
        for each in seen.told.conditions or ()
        if each.type in bad and each.status == "True"
    ]


# --- the tree ---


def _tree(shown: Picture) -> Tree:
    root = Tree(_plain(shown.seen.metadata.name, style="bold"), guide_style="dim")
    for revision in _revisions(shown):
        branch = root.add(_revision(shown, revision))
        own = [pod for pod in shown.pods if _of(shown.seen, pod) == revision.name]
        for replica in replicas_of(own):
            twig = branch.add(_replica(shown, replica))
            if replica.is_group:
                for pod in replica.pods:
                    twig.add(_pod(shown, pod))
    return root


def _of(seen: Seen, pod: PodSeen) -> str:
    """A target's pods carry no label of ours: all are of the target."""
    return pod.revision or (seen.told.current_revision or "") if seen.kind_of_serving == "targetRef" else pod.revision


def _revisions(shown: Picture) -> list[RevisionStatus]:
    """Those that the status names and those that only pods speak of: current, update, leaving, others."""
    told = shown.seen.told
    found = {each.name: each for each in told.revisions or ()}
    named = [(told.current_revision, CURRENT), (told.update_revision, UPDATE)]
    for name, role in (*named, *((_of(shown.seen, pod), None) for pod in shown.pods)):
        if name and name not in found:
            found[name] = RevisionStatus(name=name, role=role)
    return sorted(found.values(), key=lambda each: (_ROLES.get(each.role or "", 3), each.name))


def _revision(shown: Picture, revision: RevisionStatus) -> Text:
    told, rollout = shown.seen.told, shown.seen.told.rollout
    role = revision.role or "Left over"
    phase = f" ({rollout.phase})" if rollout is not None and rollout.revision == revision.name and rollout.phase else ""
    parts = [_plain(revision.name or NONE, style="bold"), _plain(f"{role}{phase}")]
    percent = revision.traffic_percent
    if percent is None:
        percent = next((each.percent for each in told.traffic or () if each.revision_name == revision.name), None)
    if percent is not None:
        parts.append(_plain(f"{percent} % of traffic"))
    if revision.replicas is not None:
        parts.append(_plain(f"{revision.ready or 0} of {revision.replicas} ready"))
    if revision.held:
        pool = f" on {revision.node_pool}" if revision.node_pool else ""
        parts.append(_plain(f"{counted(gpus(revision.held), 'GPU')}{pool}"))
    return Text("  ").join(parts)


def _replica(shown: Picture, replica: Replica) -> Text:
    if not replica.is_group:
        return _pod(shown, replica.pods[0])
    state = replica.state
    return Text.assemble(
        (f"{mark(state.word)} {state.word}", style(state.word)), clean(f"  {replica.name}  {state.detail}")
    )


def _pod(shown: Picture, pod: PodSeen) -> Text:
    state, created = state_of(pod), seconds_of(pod.metadata.creation_timestamp)
    node = f"  on {pod.spec.node_name}" if shown.wide and pod.spec.node_name else ""
    old = f"  {age(shown.now - created)}" if created is not None else ""
    detail = f"  {_cut(state.detail, shown.wide)}" if state.detail else ""
    told = clean(f"  {pod.metadata.name}{old}{node}{detail}")
    return Text.assemble((f"{mark(state.word)} {state.word}", style(state.word)), told)


def _cut(text: str, wide: bool, most: int = 100) -> str:
    return text if wide or len(text) <= most else text[: most - 1] + "…"
