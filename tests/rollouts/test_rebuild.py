"""A lost record is rebuilt from the objects: counts held, nothing deleted."""

from __future__ import annotations

from rollouts.observed import ObservedRevision
from rollouts.rebuild import rebuild
from rollouts.record import Phase, Record

OLD = ObservedRevision("llama-11111111", replicas=4, ready=4)
NEW = ObservedRevision("llama-22222222", replicas=1, ready=0, starting=1)
GONE = ObservedRevision("llama-33333333", replicas=None)


def test_without_objects_nothing_was_lost() -> None:
    assert rebuild([], None, 5.0) is None
    assert rebuild([GONE], GONE.name, 5.0) is None


def test_the_count_is_held() -> None:
    assert rebuild([OLD, GONE], OLD.name, 5.0) == Record(Phase.COMPLETE, OLD.name, None, 0, 4, True, 5.0, 5.0, True)


def test_what_the_service_selects_is_current() -> None:
    found = rebuild([OLD, NEW], NEW.name, 5.0)
    assert found is not None
    assert (found.current, found.replicas, found.serving) == (NEW.name, 1, False)


def test_where_the_service_selects_nothing_the_revision_with_most_ready_replicas_is_current() -> None:
    found = rebuild([NEW, OLD], "none", 5.0)
    assert found is not None
    assert found.current == OLD.name
