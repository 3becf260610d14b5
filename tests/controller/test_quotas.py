"""What all revisions ask of the ledgers and get, and what the ledgers are to say then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.controller import quotas
from autoscaler.controller.deciding import decide_all
from autoscaler.controller.phases import shortfall
from autoscaler.controller.quotas import Shares
from autoscaler.controller.reporting import Before, Known, Outcome, compose
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.decision import Rule, ScalingDecision
from autoscaler.model.quota import Hold, Ledger
from autoscaler.model.report import CycleReport, WorkloadReport
from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.rollout import RolloutSpec
from autoscaler.model.workload import WorkloadKey
from autoscaler.scaling.holds import Change
from rollouts import commands
from rollouts.machine import Step
from rollouts.observed import ObservedHold, ObservedRevision
from rollouts.record import Bounds, Rollout
from rollouts.revision import Revision
from tests.controller.test_conflicts import KEY, NOW, snapshot, subject

TEAM = ("team", "default")
TWELVE = {TEAM: {GPU: 12_000}}
ONE = {GPU: 1000}


def of_team(name: str = "chat", replicas: int = 2, created_at: float = 0.0) -> Subject:
    """Replicas of one GPU, held as they are."""
    base = subject(name, replicas)
    holds = (ObservedHold(f"{name}-1", "default", {GPU: 1000 * replicas}),)
    observed = replace(base.observed, holds=holds, per_replica={f"{name}-1": ONE, f"{name}-2": ONE})
    return replace(base, spec=replace(base.spec, project="team", created_at=created_at), observed=observed)


def with_update(base: Subject, least: int) -> Subject:
    """Its template and its minimum were changed, and the update is queued."""
    spec = replace(base.spec, rollout=RolloutSpec(least, 8))
    newest = Revision("chat-2", "digest", {})
    rollout = Rollout("chat-2", NOW, NOW + 3600, NOW, size=least)
    record = replace(base.record, rollout=rollout, update="chat-2", bounds=Bounds(2, 8), bounds_seen=Bounds(least, 8))
    observed = replace(base.observed, newest=newest, desired=2)
    return replace(base, spec=spec, record=record, observed=observed)


def ledger(*subjects: Subject) -> dict[tuple[str, str], Ledger]:
    holds = [Hold(str(each.key), hold.revision, hold.vector) for each in subjects for hold in each.observed.holds]
    return {TEAM: Ledger({GPU: 12_000}, tuple(holds))}


def wants(seen: Snapshot, desired: Mapping[str, int]) -> dict[WorkloadKey, ScalingDecision]:
    found = {}
    for each in seen.subjects:
        applied = each.observation.applied or 0
        count = desired.get(each.key.name, applied)
        found[each.key] = ScalingDecision(NOW, applied, count, Rule.POLICY, count)
    return found


def shared(seen: Snapshot, desired: Mapping[str, int], limits: Mapping[tuple[str, str], ResourceVector]) -> Shares:
    return quotas.share(seen, wants(seen, desired), frozenset(), limits, ledger(*seen.subjects))


def granted(shares: Shares) -> dict[str, int]:
    return {key.name: grant.granted for key, grant in shares.grants.items()}


def test_growth_goes_by_age_and_in_part() -> None:
    seen = snapshot(of_team("a", 4, created_at=9.0), of_team("b", 2, created_at=1.0))
    shares = shared(seen, {"a": 10, "b": 5}, TWELVE)
    assert granted(shares) == {"a": 7, "b": 5}
    grant = shares.grants[WorkloadKey("ml", "a")]
    assert (grant.clipped, grant.short, grant.free) == (True, {GPU: 3000}, {GPU: 0})


def test_what_runs_is_never_taken_away_here() -> None:
    seen = snapshot(of_team("a", 8), of_team("b", 8))
    assert granted(shared(seen, {}, TWELVE)) == {"a": 8, "b": 8}
    assert granted(shared(seen, {"a": 9}, TWELVE)) == {"a": 8, "b": 8}


def test_a_lower_count_is_always_granted_and_what_it_frees_is_free_once_it_is_gone() -> None:
    seen = snapshot(of_team("a", 10), of_team("b", 2))
    assert granted(shared(seen, {"a": 2, "b": 9}, TWELVE)) == {"a": 2, "b": 2}


def test_pods_that_terminate_hold_their_share() -> None:
    """As they are held, and where nobody holds them."""
    for holds in ((ObservedHold("a-1", "default", {GPU: 8000}),), ()):
        going = of_team("a", 2)
        assert going.observed.current is not None
        current = replace(going.observed.current, terminating=6)
        going = replace(going, observed=replace(going.observed, current=current, holds=holds))
        assert granted(shared(snapshot(going, of_team("b", 2)), {"b": 12}, TWELVE)) == {"a": 2, "b": 4}


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 20), st.integers(1, 3)), max_size=6)


@given(rows=ROWS, limit=st.integers(0, 40))
def test_growth_never_passes_the_limit_and_nothing_is_taken_away(
    rows: list[tuple[int, int, int, int]], limit: int
) -> None:
    """Replicas applied, terminating and wanted, and GPUs of one."""
    subjects = []
    for i, (applied, going, _, gpus) in enumerate(rows):
        base = of_team(f"w{i}", applied)
        current = ObservedRevision(f"w{i}-1", applied, ready=applied, terminating=going)
        observed = replace(base.observed, current=current, holds=(), per_replica={f"w{i}-1": {GPU: gpus * 1000}})
        subjects.append(replace(base, observed=observed))
    desired = {f"w{i}": wanted for i, (_, _, wanted, _) in enumerate(rows)}
    limits = {TEAM: {GPU: limit * 1000}}
    grants = shared(snapshot(*subjects), desired, limits).grants
    used = grown = 0
    for i, (applied, going, wanted, gpus) in enumerate(rows):
        got = grants[WorkloadKey("ml", f"w{i}")].granted
        assert min(applied, wanted) <= got <= wanted
        used += (applied + going) * gpus
        grown += max(0, got - applied - going) * gpus
    assert grown == 0 or used + grown <= limit
    assert granted(shared(snapshot(*reversed(subjects)), desired, limits)) == {
        key.name: grant.granted for key, grant in grants.items()
    }


def test_without_a_limit_everybody_gets_what_is_wanted() -> None:
    seen = snapshot(of_team("a", 2))
    assert granted(shared(seen, {"a": 500}, {})) == {"a": 500}


def test_an_update_asks_for_its_whole_vector_beside_what_runs() -> None:
    """3 -> 8 asks for 8, and 7 are free."""
    both = with_update(of_team(replicas=3), 8), of_team("other", 2)
    shares = shared(snapshot(*both), {}, TWELVE)
    verdict = shares.verdicts[KEY]
    assert (verdict.pool, verdict.short, verdict.free) == (None, {GPU: 1000}, {GPU: 7000})
    fits = shared(snapshot(with_update(of_team(replicas=3), 8), of_team("other", 1)), {}, TWELVE)
    assert (fits.verdicts[KEY].pool, fits.verdicts[KEY].replicas) == ("default", 8)


def test_pods_of_others_are_taken_off_and_what_is_not_known_is_nobodys() -> None:
    seen = replace(snapshot(of_team("a", 2)), foreign={TEAM: {GPU: 7000}})
    assert granted(shared(seen, {"a": 12}, TWELVE)) == {"a": 5}
    assert granted(shared(replace(seen, foreign={TEAM: None}), {"a": 12}, TWELVE)) == {"a": 2}


NOT_KNOWN = "it is not known yet what pods of others use of the quota of project team"


def test_while_it_is_not_known_what_others_use_nothing_is_called_short() -> None:
    """As in the first moment after a start."""
    there = of_team("a", 2)
    grants = {
        name: shared(replace(snapshot(there), foreign={TEAM: taken}), {"a": 12}, TWELVE).grants[there.key]
        for name, taken in {"known": {GPU: 12_000}, "unknown": None}.items()
    }
    assert shortfall(grants["known"], there.spec) == "wants 12, has 2: 10 GPU short in project team (0 of 12 free)"
    assert shortfall(grants["unknown"], there.spec) == f"wants 12, has 2: {NOT_KNOWN}"


def told(there: Subject, taken: ResourceVector | None) -> tuple[CycleReport, WorkloadReport]:
    """By a cycle in which pods of others take this of the quota, and the workload wants 12."""
    seen = replace(snapshot(there), foreign={TEAM: taken})
    decisions, shares = wants(seen, {there.key.name: 12}), shared(seen, {there.key.name: 12}, TWELVE)
    seen = quotas.with_verdicts(seen, shares.verdicts)
    outcomes = {there.key: Outcome(there.workload, there.record)}
    known = Known({}, frozenset(), {}, shares.used, {}, {})
    operator = Operator(limits=TWELVE)
    report = compose(seen, decisions, shares.grants, outcomes, known, Before({}, {}), operator)
    return report, report.workloads[there.key]


@pytest.mark.parametrize("taken", [None, {GPU: 12_000}], ids=["unknown", "all"])
def test_what_is_told_of_a_quota_that_is_not_known_yet(taken: ResourceVector | None) -> None:
    cycle, report = told(of_team("a", 2), taken)
    limited, unknown = report.condition("ScalingLimited"), taken is None
    assert limited is not None
    assert (limited.reason, limited.message.endswith(NOT_KNOWN)) == (
        "QuotaUnknown" if unknown else "QuotaLimited",
        unknown,
    )
    assert report.phase_message == f"2 of 2 replicas ready; {limited.message}"
    assert [each.reason for each in report.events] == ([] if unknown else ["QuotaInsufficient"])
    assert [each.used for each in cycle.quota] == ([None] if unknown else [14_000])


def test_an_update_that_is_not_asked_for_yet_says_why() -> None:
    _, report = told(with_update(of_team("chat", 2), 8), None)
    assert report.updating.message == f"Update chat-2 queued: {NOT_KNOWN}"


def test_an_update_is_not_refused_by_what_is_not_known_yet() -> None:
    seen = replace(snapshot(with_update(of_team(), 8)), foreign={TEAM: None})
    assert shared(seen, {}, TWELVE).verdicts == {}


def test_pods_that_nobody_holds_count_as_well() -> None:
    """As after the first start of a version with ledgers."""
    bare = of_team("a", 4)
    bare = replace(bare, observed=replace(bare.observed, holds=()))
    seen = replace(snapshot(bare), leftovers={TEAM: (Hold("ml/gone", "gone-1", {GPU: 5000}),)})
    shares = quotas.share(seen, wants(seen, {"a": 12}), frozenset(), TWELVE, {})
    assert granted(shares) == {"a": 7}
    assert shares.used == {TEAM: {GPU: 9000}}


def test_what_somebody_else_scales_asks_for_no_update() -> None:
    seen = snapshot(with_update(of_team(), 8))
    shares = quotas.share(seen, wants(seen, {}), {KEY}, TWELVE, ledger(*seen.subjects))
    assert shares.verdicts == {}


def test_what_gives_back_is_written_before_what_takes() -> None:
    seen = snapshot(of_team("a", 2), of_team("b", 4), of_team("c", 1))
    steps = {
        WorkloadKey("ml", "a"): Step(seen.subjects[0].record, (commands.Hold("a-1", "default", {GPU: 5000}),)),
        WorkloadKey("ml", "b"): Step(seen.subjects[1].record, (commands.Hold("b-1", "default", {GPU: 1000}),)),
        WorkloadKey("ml", "c"): Step(seen.subjects[2].record, (commands.Release("c-1"),)),
    }
    grants = shared(seen, {}, TWELVE).grants
    assert quotas.changes(seen, steps, grants, frozenset()) == [
        Change("ml/b", "b-1", TEAM, {GPU: 1000}),
        Change("ml/c", "c-1"),
        Change("ml/a", "a-1", TEAM, {GPU: 5000}),
    ]
    barred = frozenset({WorkloadKey("ml", "a")})
    assert [each.owner for each in quotas.changes(seen, steps, grants, barred)] == ["ml/b", "ml/c"]


class Written:
    """Of the reservations only what they say."""

    def __init__(self, troubles: dict[tuple[str, str], str]) -> None:
        self.troubles = troubles
        self.confirmed: Mapping[tuple[str, str], Ledger] = {}


@pytest.mark.parametrize("desired", [2, 5])
def test_a_ledger_that_cannot_be_written_is_why_nothing_grows(desired: int) -> None:
    seen = snapshot(of_team("a", 2))
    grants = shared(seen, {"a": desired}, TWELVE).grants
    told = quotas.held(seen, grants, Written({TEAM: "QuotaLedger team.default: 503"}), TWELVE)  # type: ignore[arg-type]
    grant = told[WorkloadKey("ml", "a")]
    assert grant.granted == 2
    assert (grant.unheld != "") is (desired > 2)


def test_the_demand_of_both_revisions_is_told_where_there_are_two() -> None:
    still, changing = of_team("a", 2), with_update(of_team("chat", 2), 3)
    seen = snapshot(still, changing)
    told = quotas.with_demand(seen, decide_all(seen, {}, {}))
    assert told.subjects[0] == still
    assert told.subjects[1].observed.desired == 2


def test_a_first_object_waits_until_it_is_known_what_others_leave() -> None:
    there, new = of_team("a"), of_team("b")
    new = replace(new, observed=replace(new.observed, current=None))
    assert not quotas.waits(new, {TEAM: {}})
    assert not quotas.waits(new, {("other", "default"): None})
    assert quotas.waits(new, {TEAM: None})
    assert not quotas.waits(there, {TEAM: None}), "what is there is healed and lowered as ever"
