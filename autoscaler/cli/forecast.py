"""A plan in words, and as a document. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from autoscaler.cli.plan import Kind, Plan, Pool
from autoscaler.cli.words import counted, number
from autoscaler.doctor.findings import Exit

MOST_EDITS: Final = 20


def exit_of(plans: Sequence[Plan]) -> Exit:
    """Degraded where one of them would have to wait for quota, or could never have it."""
    return Exit.DEGRADED if any(plan.fits is False for plan in plans) else Exit.OK


def lines(plan: Plan) -> list[str]:
    """One line a subject, the edits below each other."""
    return [
        f"{plan.namespace}/{plan.name}: {_what(plan)}",
        *_edits(plan),
        *(_line("note", each) for each in _notes(plan)),
        *_numbers(plan),
    ]


def _line(name: str, text: str) -> str:
    return f"  {f'{name}:' if name else '':<10} {text}"


def _what(plan: Plan) -> str:
    if not plan.edits:
        return "nothing changes"
    match plan.kind:
        case Kind.FIRST:
            return f"a first revision, {plan.revision}"
        case Kind.TARGET:
            return "in place; a targetRef has no revisions"
        case Kind.IN_PLACE:
            return f"in place; {plan.revision} stays the revision"
        case Kind.HAND_OVER:
            return f"{plan.revision} takes the place of {plan.current}, which never served, at once"
        case Kind.AT_ZERO:
            return (
                f"{plan.revision} becomes current at once, as nothing runs; {plan.current} returns if it does not start"
            )
        case _:
            return f"an update: a new revision {plan.revision} beside {plan.current}"


def _edits(plan: Plan) -> list[str]:
    shown, more = [str(each) for each in plan.edits[:MOST_EDITS]], len(plan.edits) - MOST_EDITS
    shown += [f"and {more} more"] if more > 0 else []
    return [_line("" if index else "edits", each) for index, each in enumerate(shown)]


def _notes(plan: Plan) -> list[str]:
    notes = []
    if plan.supersedes and plan.kind is Kind.IN_PLACE:
        notes.append(f"the update {plan.supersedes} is taken back: the template is the current revision's again")
    elif plan.supersedes:
        notes.append(f"the update {plan.supersedes} gives way; this one starts when its pods are gone")
    if plan.drains:
        notes.append(f"the update {plan.drains} has all the traffic; this one comes after it")
    if plan.known == "Failed":
        notes.append(f"{plan.revision} has failed before and is not tried again: tidegate retry {plan.name}")
    elif plan.known and plan.kind is Kind.UPDATE:
        notes.append(f"the update {plan.revision} is under way already and goes on")
    if plan.stopped:
        notes.append("desiredPhase is Stopped: nothing starts")
    return notes


def _numbers(plan: Plan) -> list[str]:
    if not plan.edits:
        return []
    each = f", {counted(plan.gpus_each, 'GPU')} each" if plan.gpus_each else ""
    if plan.kind is Kind.UPDATE:
        replicas = f"{plan.replicas} of the update at once{each}, beside {plan.before} of the current revision"
    else:
        replicas = f"{plan.before} -> {plan.replicas}{each}"
    found = [_line("replicas", replicas)]
    if plan.gpus_each or plan.peak:
        found.append(_line("GPUs", f"asks for {number(plan.asks)} more, {number(plan.peak)} at the peak"))
        found += [_line("quota", text) for text in _quota(plan)]
    if plan.weights:
        found.append(_line("traffic", ", ".join(plan.weights)))
    return found


def _quota(plan: Plan) -> list[str]:
    if plan.asks <= 0:
        return ["fits: nothing more is asked for"]
    of = f" in project {plan.project}" if plan.project else ""
    if not plan.pools:
        return [f"not known from here{of}: the daemon has not looked at this workload yet"]
    return [
        f"{_pool(pool)}{of if pool.limit is not None else ''}{_then(plan, pool)}{_uncounted(pool)}"
        for pool in plan.pools
    ]


def _uncounted(pool: Pool) -> str:
    return f"; pods of others are not counted: {pool.not_counted}" if pool.not_counted and not pool.never else ""


def _pool(pool: Pool) -> str:
    where = f"node pool {pool.name}"
    if pool.unlimited:
        return f"fits on {where}: it has no limit"
    if pool.never and pool.limit is not None:
        return f"never fits on {where}: {number(pool.limit)} is the limit"
    if pool.limit is None or pool.free is None or pool.short is None:
        return f"not known from here for {where}"
    room = f"{number(pool.free)} of {number(pool.limit)} free"
    if pool.short:
        return f"{number(pool.short)} short on {where}: {room}"
    return f"{'may fit' if pool.not_counted else 'fits'} on {where}: {room}"


def _then(plan: Plan, pool: Pool) -> str:
    if pool.fits is not False:
        return ""
    if plan.kind is not Kind.UPDATE:
        return "; it gets what there is" if not pool.never else ""
    if pool.never or plan.refuses:
        return "; the update fails at once"
    return "; the update waits for all of it"


def document(plan: Plan) -> dict[str, Any]:
    """What `-o json` and `-o yaml` show. null: not known from here."""
    return {
        "namespace": plan.namespace,
        "name": plan.name,
        "change": plan.kind.value if plan.edits else "None",
        "revision": plan.revision,
        "currentRevision": plan.current,
        "replicas": plan.replicas,
        "currentReplicas": plan.before,
        "gpus": {"each": plan.gpus_each, "asked": plan.asks, "peak": plan.peak},
        "fits": plan.fits,
        "neverFits": plan.never,
        "project": plan.project,
        "nodePools": [
            {"name": each.name, "fits": each.fits, "limit": each.limit, "free": each.free, "short": each.short}
            | ({"notCounted": f"pods of others: {each.not_counted}"} if each.not_counted else {})
            for each in plan.pools
        ],
        "traffic": list(plan.weights),
        "notes": _notes(plan),
        "edits": [{"path": each.path, "before": each.before, "after": each.after} for each in plan.edits],
    }
