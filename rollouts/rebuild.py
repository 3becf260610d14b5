"""Rebuilds a lost record from the objects that are there. Backup tools and careless clients drop an object's status.

Holds what is applied and deletes nothing: the revision that the Service selects is current, with the count that its
object has. What else is there, `step` takes into the record: the newest template's revision as the update, which starts
over with the traffic back at the current one; any other as leaving, once it is proven idle.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollouts.observed import ObservedRevision, ObservedRoute, ObservedService
from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION


def rebuild(revisions: Sequence[ObservedRevision], selected: str | None, now: float) -> Record | None:
    """The record that these objects speak of; None where there is no object, so that nothing was lost.

    `revisions`: those whose object exists. `selected`: what the Service selects. A revision with pods counts as having
    served: it must not run into the timeout of a first start because its history is gone.
    """
    there = [each for each in revisions if each.replicas is not None]
    if not there:
        return None
    current = next((each for each in there if each.name == selected), None) or max(
        there, key=lambda each: (each.ready, each.live, each.replicas or 0, each.name)
    )
    return Record(
        phase=Phase.COMPLETE,
        current=current.name,
        replicas=current.replicas,
        initialized=True,
        started_at=now,
        served_at=now,
        serving=current.ready > 0,
    )


def serving(service: ObservedService, update_service: ObservedService, route: ObservedRoute | None) -> str | None:
    """The revision that gets most of the traffic; `<service>`'s where it is even."""
    if route is not None and route.weight is not None and route.weight > 50:
        return update_service.selects if update_service.selects != NO_REVISION else service.selects
    return service.selects
