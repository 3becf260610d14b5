"""The ledgers of a cycle, from those of the last one and everybody's wishes. The server's own rule is asked too."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.quota import MAX_HOLDS, Domain, Hold, Ledger
from autoscaler.model.resources import ResourceVector, add
from autoscaler.scaling.holds import Change, Holder, Refused, Reserved, after, wish

GPU, CPU = "nvidia.com/gpu", "cpu"
H100, A100, FREE = ("ml", "h100"), ("ml", "a100"), ("free", "default")
LIMITS = {H100: {GPU: 8000}, A100: {GPU: 4000, CPU: 9000}}
OWNERS = ("ml/a", "ml/b", "ml/c")


def hold(owner: str, gpus: int, since: float | None = 60.0, revision: str = "") -> Hold:
    return Hold(f"ml/{owner}", revision or f"{owner}-1", {GPU: gpus * 1000}, since)


def change(owner: str, gpus: int, domain: Domain | None = H100, revision: str = "") -> Change:
    return Change(f"ml/{owner}", revision or f"{owner}-1", domain, {GPU: gpus * 1000})


def reserved(
    *changes: Change,
    h100: tuple[Hold, ...] = (),
    a100: tuple[Hold, ...] = (),
    left: dict[Domain, list[Hold]] | None = None,
    owners: tuple[str, ...] = OWNERS,
) -> Reserved:
    before = {H100: Ledger(LIMITS[H100], h100), A100: Ledger(LIMITS[A100], a100)}
    return after(before, LIMITS, changes, left or {}, frozenset(owners), 100.5)


def gpus(found: Reserved, domain: Domain = H100) -> dict[str, int]:
    return {each.revision: each.vector[GPU] // 1000 for each in found.ledgers[domain].holds}


def test_wishes_are_granted_in_their_order_while_there_is_room() -> None:
    found = reserved(change("b", 2), change("c", 2), h100=(hold("a", 5),))
    assert gpus(found) == {"a-1": 5, "b-1": 2}
    assert found.refused == (Refused(change("c", 2), {GPU: 1000}),)


def test_what_an_earlier_wish_gives_back_a_later_one_may_have() -> None:
    found = reserved(change("a", 1), Change("ml/b", "b-1"), change("c", 6), h100=(hold("a", 5), hold("b", 3)))
    assert (gpus(found), found.refused) == ({"a-1": 1, "c-1": 6}, ())


def test_a_refused_wish_leaves_what_was_held() -> None:
    found = reserved(change("a", 9), h100=(hold("a", 5),))
    assert (gpus(found), len(found.refused)) == ({"a-1": 5}, 1)


def test_a_hold_is_in_one_domain_and_stays_in_the_old_one_if_the_new_one_has_no_room() -> None:
    moved = reserved(change("a", 3, A100), h100=(hold("a", 3),))
    assert (gpus(moved), gpus(moved, A100)) == ({}, {"a-1": 3})
    stays = reserved(change("a", 5, A100), h100=(hold("a", 5),))
    assert (gpus(stays), gpus(stays, A100), len(stays.refused)) == ({"a-1": 5}, {}, 1)


def test_a_release_lets_go_everywhere() -> None:
    found = reserved(Change("ml/a", "a-1"), h100=(hold("a", 3),), a100=(hold("a", 1), hold("b", 1)))
    assert (gpus(found), gpus(found, A100)) == ({}, {"b-1": 1})


def test_where_nothing_is_limited_a_wish_is_granted_and_written_nowhere() -> None:
    found = reserved(change("a", 99, FREE), h100=(hold("a", 3),))
    assert (found.refused, sorted(found.ledgers), gpus(found)) == ((), [A100, H100], {})


def test_only_limited_resources_are_held_and_zeros_are_left_out() -> None:
    found = reserved(Change("ml/a", "a-1", H100, {GPU: 0, CPU: 4000}), Change("ml/b", "b-1", A100, {GPU: 0, CPU: 4000}))
    assert found.ledgers[H100].holds == ()
    assert found.ledgers[A100].holds == (Hold("ml/b", "b-1", {CPU: 4000}, 100.0),)


def test_a_hold_keeps_its_age_and_a_new_one_begins_in_whole_seconds() -> None:
    found = reserved(change("a", 2), change("b", 1), h100=(hold("a", 1),))
    assert [each.since_s for each in found.ledgers[H100].holds] == [60.0, 100.0]


def test_holds_that_nobody_speaks_of_stay() -> None:
    found = reserved(change("b", 1), h100=(hold("a", 5), hold("a", 1, revision="a-2")))
    assert gpus(found) == {"a-1": 5, "a-2": 1, "b-1": 1}


def test_holds_of_owners_that_are_gone_are_swept_down_to_what_their_pods_have() -> None:
    before = (hold("gone", 5), hold("a", 1), hold("also", 2))
    found = reserved(h100=before, left={H100: [hold("gone", 2, None)]})
    assert gpus(found) == {"gone-1": 2, "a-1": 1}
    assert found.ledgers[H100].of("ml/gone", "gone-1") == hold("gone", 2)


def test_what_is_swept_is_free_in_the_same_cycle() -> None:
    assert gpus(reserved(change("a", 8), h100=(hold("gone", 8),))) == {"a-1": 8}


def test_leftovers_are_held_first_and_no_wish_goes_below_them() -> None:
    found = reserved(change("b", 7), left={H100: [hold("gone", 2)]})
    assert (gpus(found), len(found.refused)) == ({"gone-1": 2}, 1)
    left = {H100: [hold("a", 2), hold("a", 1)]}
    assert gpus(reserved(change("a", 1), h100=(hold("a", 5),), left=left)) == {"a-1": 3}
    assert gpus(reserved(Change("ml/a", "a-1"), h100=(hold("a", 5),), left=left)) == {"a-1": 3}
    assert gpus(reserved(h100=(hold("a", 5),), left=left)) == {"a-1": 5}, "its spec may ask for more than there is yet"


def test_a_leftover_beyond_the_limit_is_reported() -> None:
    found = reserved(left={H100: [hold("gone", 9)]})
    assert found.refused == (Refused(Change("ml/gone", "gone-1", H100, {GPU: 9000}), {GPU: 1000}),)


def test_a_limit_may_sink_below_what_is_held_and_nothing_rises_then() -> None:
    limits = {H100: {GPU: 3000}}
    before = {H100: Ledger({GPU: 8000}, (hold("a", 5), hold("b", 1)))}
    found = after(before, limits, [change("b", 2), change("a", 4)], {}, frozenset(OWNERS), 100.0)
    assert (found.ledgers[H100].limit, gpus(found), len(found.refused)) == ({GPU: 3000}, {"a-1": 4, "b-1": 1}, 1)


def test_a_domain_that_lost_its_limit_holds_nothing() -> None:
    before = {H100: Ledger({GPU: 8000}, (hold("a", 5),))}
    assert after(before, {}, [], {}, frozenset(OWNERS), 0.0).ledgers == {H100: Ledger({})}


def test_a_full_ledger_refuses_another_hold_and_no_other_wish() -> None:
    full = tuple(Hold("ml/a", f"r{index:04}", {GPU: 1}, 0.0) for index in range(MAX_HOLDS))
    found = reserved(change("b", 1), replace(change("a", 1), revision="r0000"), h100=full)
    assert found.refused == (Refused(change("b", 1), {}),)
    assert len(found.ledgers[H100].holds) == MAX_HOLDS


def test_a_target_wishes_for_what_it_has_and_shall_have() -> None:
    target = Holder(H100, "ml/a", "Deployment/x", {GPU: 2000}, granted=2, applied=1, live=3)
    assert wish(target) == Change("ml/a", "Deployment/x", H100, {GPU: 6000})


# --- properties ---

amounts = st.integers(0, 6000)
vectors = st.fixed_dictionaries({}, optional={GPU: amounts, CPU: amounts})
owners = st.sampled_from((*OWNERS, "ml/gone"))
revisions = st.sampled_from(("r1", "r2"))
holds = st.builds(Hold, owners, revisions, vectors, st.floats(0, 99))
domains = st.sampled_from((H100, A100))


def _distinct(found: list[Hold]) -> tuple[Hold, ...]:
    return tuple({(each.owner, each.revision): each for each in found}.values())


limits = st.dictionaries(domains, vectors)
befores = st.dictionaries(domains, st.builds(Ledger, vectors, st.lists(holds, max_size=5).map(_distinct)))
changes = st.lists(
    st.builds(Change, owners, revisions, st.one_of(st.none(), domains, st.just(FREE)), vectors), max_size=8
)
leftovers = st.dictionaries(domains, st.lists(holds, max_size=3))


def _limited(vector: ResourceVector, limit: ResourceVector) -> ResourceVector:
    return {name: amount for name, amount in vector.items() if name in limit and amount}


def _covers(vector: ResourceVector, wanted: ResourceVector) -> bool:
    return all(vector.get(name, 0) >= amount for name, amount in wanted.items())


def accepted(old: Ledger, new: Ledger) -> bool:
    """The rule of config/crd/quotaledgers.yaml."""
    return all(
        new.held.get(name, 0) <= limit or new.held.get(name, 0) <= old.held.get(name, 0)
        for name, limit in new.limit.items()
    )


@settings(max_examples=400, deadline=None)
@given(befores, limits, changes, leftovers)
def test_the_server_accepts_what_comes_out(
    before: dict[Domain, Ledger],
    limits: dict[Domain, ResourceVector],
    changes: list[Change],
    left: dict[Domain, list[Hold]],
) -> None:
    found = after(before, limits, changes, left, frozenset(OWNERS), 100.0)
    assert found.ledgers.keys() == before.keys() | limits.keys()
    for domain, ledger in found.ledgers.items():
        assert ledger.limit == limits.get(domain, {})
        assert accepted(before.get(domain, Ledger({})), ledger), domain
        assert all(each.vector == _limited(each.vector, ledger.limit) and each.vector for each in ledger.holds)
        assert list(ledger.holds) == sorted(_distinct(list(ledger.holds)), key=lambda each: (each.owner, each.revision))


@settings(max_examples=400, deadline=None)
@given(befores, limits, changes, leftovers)
def test_every_wish_is_either_true_afterwards_or_told_to_be_refused(
    before: dict[Domain, Ledger],
    limits: dict[Domain, ResourceVector],
    changes: list[Change],
    left: dict[Domain, list[Hold]],
) -> None:
    last = list({each.id: each for each in changes}.values())  # of each revision one wish
    found = after(before, limits, last, left, frozenset(OWNERS), 100.0)
    refused = [each.change for each in found.refused]
    for each in last:
        for domain, ledger in found.ledgers.items():
            there = ledger.of(*each.id)
            pods = add(*(hold.vector for hold in left.get(domain, ()) if (hold.owner, hold.revision) == each.id))
            least, wanted = (_limited(vector, ledger.limit) for vector in (pods, each.vector))
            if domain != each.domain:
                wanted = {}
            if any(change.id == each.id for change in refused):
                continue  # the wish, or what its leftovers have
            most = {name: max(wanted.get(name, 0), least.get(name, 0)) for name in {*wanted, *least}}
            assert (there.vector if there else {}) == most
    for each in refused:
        assert each in last or each.vector, "a leftover"
    for domain, ledger in found.ledgers.items():
        for was in before.get(domain, Ledger({})).holds:
            if was.owner in OWNERS and any(each.id == (was.owner, was.revision) for each in refused if each in last):
                now = ledger.of(was.owner, was.revision)
                assert _covers(now.vector if now else {}, _limited(was.vector, ledger.limit)), "what was held stays"


@settings(max_examples=400, deadline=None)
@given(befores, limits, changes, leftovers)
def test_nobody_else_is_touched_and_nobody_who_is_gone_keeps_more_than_his_pods(
    before: dict[Domain, Ledger],
    limits: dict[Domain, ResourceVector],
    changes: list[Change],
    left: dict[Domain, list[Hold]],
) -> None:
    found = after(before, limits, changes, left, frozenset(OWNERS), 100.0)
    named = {each.id for each in changes}
    for domain, ledger in found.ledgers.items():
        spoken_of = named | {(each.owner, each.revision) for each in left.get(domain, ())}
        for was in before.get(domain, Ledger({})).holds:
            now = ledger.of(was.owner, was.revision)
            if (was.owner, was.revision) not in spoken_of:
                vector = _limited(was.vector, ledger.limit) if was.owner in OWNERS else {}
                assert now == (replace(was, vector=vector) if vector else None)
            elif now is not None:
                assert now.since_s == was.since_s
        for now in ledger.holds:
            if now.owner not in OWNERS and (now.owner, now.revision) not in named:
                pods = add(*(each.vector for each in left.get(domain, ()) if each.revision == now.revision))
                assert _covers(pods, now.vector)


@settings(max_examples=200, deadline=None)
@given(befores, limits, changes, leftovers)
def test_the_same_wishes_again_change_nothing(
    before: dict[Domain, Ledger],
    limits: dict[Domain, ResourceVector],
    changes: list[Change],
    left: dict[Domain, list[Hold]],
) -> None:
    last = list({each.id: each for each in changes}.values())
    once = after(before, limits, last, left, frozenset(OWNERS), 100.0)
    if not once.refused:
        assert after(once.ledgers, limits, last, left, frozenset(OWNERS), 200.0) == once
