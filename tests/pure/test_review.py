"""What a review decides: each finding at its border, what makes it the same one, and what becomes of those that are known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.blueprints.review import ReviewBindings
from lily.cli.review import KindWord
from lily.clock import stamp
from lily.known_findings import Known, merge
from lily.ledger import State
from lily.operations.review import thresholds
from lily.own_jobs import REVIEW, THRESHOLDS, is_own, own_jobs, own_jobs_of
from lily.review import Finding, Holes, JobFacts, Kind, RunFact, Severity, Thresholds, durations, findings, unknown
from lily.settings import Review, load_settings
from lily.specs import JobSpec, spec_hash
from lily.workspace import Workspace

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LIMITS = Thresholds()
WELL = JobFacts(
    job_id="a",
    scheduled=True,
    registered=True,
    trigger="interval 1h",
    next=NOW + timedelta(minutes=5),
    gap_seconds=3600.0,
    target="command.v1",
    holes=Holes(),
)


def at(**ago: float) -> str:
    return stamp(NOW - timedelta(**ago))


def run(status: str, number: int = 0, *, seconds: float = 1.0, code: str = "x", failure: str = "f1", hours: float = 1.0) -> RunFact:
    ended = NOW - timedelta(hours=hours + number)
    why = (code, failure) if status == "failed" else ("", "")
    return RunFact(f"run-{number}", status, stamp(ended - timedelta(seconds=seconds)), stamp(ended), *why)


def job(**changes: Any) -> JobFacts:
    return msgspec.structs.replace(WELL, **changes)


def found(**changes: Any) -> dict[str, str]:
    """Severity by kind of what is wrong with a job that is well but for these."""
    return {each.kind.value: each.severity.value for each in findings(job(**changes), LIMITS, NOW)}


RUNS = [run("succeeded", n) for n in range(5)]
FAILED = [run("failed", n) for n in range(3)]
STALE = [run("failed", hours=7 * 24)]
PAUSED = {"state": State.PAUSED, "changed_at": NOW - timedelta(days=31)}
CASES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"overdue": NOW - timedelta(hours=24)}, {}),
    ({"overdue": NOW - timedelta(hours=24, seconds=1)}, {"orphaned": "high"}),
    ({"overdue": NOW - timedelta(hours=48), "state": State.PAUSED, "changed_at": NOW}, {}),
    ({"runs": FAILED[:2]}, {}),
    ({"runs": FAILED}, {"failing": "medium"}),
    ({"runs": [*FAILED[:2], run("succeeded", 3), FAILED[2]]}, {}),
    ({"runs": FAILED, "waiting": True}, {"failing": "medium"}),
    ({"runs": [run("failed", hours=7 * 24 - 0.1)]}, {}),
    ({"runs": STALE}, {"failing": "medium"}),
    ({"runs": STALE, "waiting": True}, {}),
    ({"runs": STALE, "scheduled": False}, {"failing": "medium"}),
    ({"state": State.PAUSED, "changed_at": NOW - timedelta(days=30)}, {}),
    (PAUSED, {"ignored": "low"}),
    ({"next": None, "gap_seconds": None}, {"never_fires": "medium"}),
    ({"next": None, "runs": RUNS[:1]}, {"never_fires": "low"}),
    ({"next": None, "state": State.DISABLED}, {}),
    ({"next": None, "once": True}, {}),
    ({"next": None, "once": True, "registered": False}, {"never_fires": "medium"}),
    ({"next": None, "unreadable": "no such zone", "runs": RUNS[:1]}, {"never_fires": "medium"}),
    ({"holes": None}, {}),
    ({"holes": Holes(kinds={"missing": 2}, first=at(hours=2), last=at(hours=1), message="m")}, {"unaccounted_windows": "high"}),
    ({"runs": [run("succeeded", n, seconds=2879) for n in range(5)]}, {}),
    ({"runs": [run("succeeded", n, seconds=2880) for n in range(5)]}, {"overlapping": "low"}),
    ({"runs": [run("succeeded", n, seconds=3600) for n in range(5)]}, {"overlapping": "medium"}),
    ({"runs": [run("succeeded", n, seconds=3600) for n in range(4)]}, {}),
    ({"runs": [run("succeeded", n, seconds=3600) for n in range(5)], "together": True}, {}),
    ({"target_problem": "there is no blueprint x.v1"}, {"disabled_target": "high"}),
    ({"target_problem": "there is no blueprint x.v1", "scheduled": False}, {"disabled_target": "medium"}),
    ({"target_problem": "there is no blueprint x.v1", "state": State.DISABLED}, {}),
]


@pytest.mark.parametrize(("changes", "wanted"), CASES)
def test_each_finding_begins_at_its_border(changes: dict[str, Any], wanted: dict[str, str]) -> None:
    """Nothing on its near side, one finding on the far one."""
    assert found(**changes) == wanted


def test_every_kind_stands_in_these_cases() -> None:
    """And each says what, with a command to look and one to mend."""
    made = [each for changes, _ in CASES for each in findings(job(**changes), LIMITS, NOW)]
    assert {each.kind for each in made} == set(Kind)
    assert all(each.message and each.look.startswith("lily ") and each.mend.startswith("lily ") and each.evidence for each in made)
    assert set(get_args(KindWord)) == {kind.value for kind in Kind}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"runs": FAILED}, {"runs": [run("failed", -1), *FAILED]}, True),
        ({"runs": FAILED}, {"runs": [run("failed", -1, failure="f2"), *FAILED]}, False),
        ({"overdue": NOW - timedelta(hours=30)}, {"overdue": NOW - timedelta(hours=40)}, False),
        (PAUSED, {**PAUSED, "reason": "holidays"}, True),
        (PAUSED, {**PAUSED, "changed_at": NOW - timedelta(days=40)}, False),
        (
            {"runs": [run("succeeded", n, seconds=3000) for n in range(5)]},
            {"runs": [run("succeeded", n, seconds=3100) for n in range(5)]},
            True,
        ),
        (
            {"runs": [run("succeeded", n, seconds=3000) for n in range(5)]},
            {"runs": [run("succeeded", n, seconds=9000) for n in range(5)]},
            False,
        ),
        ({"target_problem": "x"}, {"target_problem": "y"}, False),
        (
            {"holes": Holes(kinds={"missing": 1}, first=at(hours=3), last=at(hours=2))},
            {"holes": Holes(kinds={"missing": 2}, first=at(hours=3), last=at(hours=1))},
            False,
        ),
    ],
)
def test_a_finding_changes_when_there_is_news_in_it(before: dict[str, Any], after: dict[str, Any], same: bool) -> None:
    """One more failure of the same kind is no news; another error, another window or another severity is."""
    (one,), (two,) = (findings(job(**changes), LIMITS, NOW) for changes in (before, after))
    assert (one.fingerprint == two.fingerprint) == same
    (later,) = findings(job(**before), LIMITS, NOW + timedelta(minutes=5))
    assert later.fingerprint == one.fingerprint


def test_what_was_not_looked_at_is_known_to_be_unknown() -> None:
    """So that a finding of before is not taken for mended."""
    assert unknown(job(holes=None)) == {"unaccounted_windows:a"}
    assert unknown(WELL) == set()


def test_a_run_that_never_started_says_nothing_of_how_long_a_job_takes() -> None:
    refused = RunFact("run-9", "failed", None, at())
    assert durations([refused, run("failed", seconds=2), run("succeeded", seconds=1)]) == [1.0, 2.0]


# -- what becomes of what is known -----------------------------------------------------------------


def finding(name: str, fingerprint: str = "1", since: str = "2026-03-02T00:00:00.000000Z") -> Finding:
    return Finding(
        kind=Kind.FAILING,
        job_id=name,
        severity=Severity.MEDIUM,
        message=f"m{fingerprint}",
        since=since,
        evidence={},
        look="lily x",
        mend="lily y",
        fingerprint=fingerprint,
    )


def acked(known: Known, until: str | None = None) -> Known:
    return msgspec.structs.replace(known, acked_at=at(), acked_by="ada", ack_reason="r", ack_until=until)


def kept(name: str, fingerprint: str = "1") -> Known:
    return Known(finding=finding(name, fingerprint), found_at=at(days=1))


@pytest.mark.parametrize(
    ("known", "now", "opened", "reopened", "closed"),
    [
        ([], ["a"], ["a"], [], []),
        ([kept("a")], ["a"], [], [], []),
        ([kept("a")], [], [], [], ["a"]),
        ([acked(kept("a"))], ["a"], [], [], []),
        ([acked(kept("a", "other"))], ["a"], [], ["a"], []),
        ([acked(kept("a"), at(seconds=1))], ["a"], [], ["a"], []),
        ([acked(kept("a"), stamp(NOW + timedelta(seconds=1)))], ["a"], [], [], []),
        ([kept("a", "other")], ["a"], [], [], []),
    ],
)
def test_what_a_look_changes_in_what_is_known(
    known: list[Known], now: list[str], opened: list[str], reopened: list[str], closed: list[str]
) -> None:
    """Quiet until it changes or its time is over; what is gone is closed with its time."""
    merged = merge({each.finding.id: each for each in known}, [finding(name) for name in now], (), at())
    ids = [[id.partition(":")[2] for id in some] for some in (merged.opened, merged.reopened, merged.closed)]
    assert ids == [opened, reopened, closed]
    rows = {row.finding.job_id: row for row in merged.rows}
    assert all(rows[name].closed_at == at() for name in closed)
    assert all(not rows[name].acknowledged(at()) for name in (*opened, *reopened))
    assert all(rows[name].found_at == known[0].found_at for name in reopened)


def test_what_a_look_says_nothing_of_stays_as_it_is() -> None:
    """Neither closed nor opened."""
    known = kept("a")
    assert merge({known.finding.id: known}, [], {known.finding.id}, at()).rows == []


def test_a_finding_is_as_old_as_it_was() -> None:
    """What a later look knows less of keeps its beginning."""
    known = kept("a")
    (row,) = merge({known.finding.id: known}, [finding("a", "2", since=at())], (), at()).rows
    assert row.finding.since == known.finding.since
    assert row.found_at == known.found_at


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"))), st.lists(st.sampled_from("abc")))
def test_a_second_look_at_the_same_changes_nothing(now: list[tuple[str, str]], before: list[str]) -> None:
    """Whatever was known: twice is once."""
    found = [finding(name, mark) for name, mark in dict(now).items()]
    known = {each.finding.id: each for each in (acked(kept(name)) for name in before)}
    merged = merge(known, found, (), at())
    after = {**known, **{row.finding.id: row for row in merged.rows}}
    again = merge({id: row for id, row in after.items() if row.closed_at is None}, found, (), at())
    assert again.rows == []


# -- the job that is built in ----------------------------------------------------------------------


@pytest.mark.parametrize("review", [Review(), Review(enabled=False), Review(cron="@daily", timezone="Europe/Lisbon", failures=5)])
def test_the_built_in_job_is_what_the_models_would_write(review: Review) -> None:
    """Byte for byte, so that its hash is that of a job from a file; without a schedule it still runs by hand."""
    own = own_jobs_of(review)[REVIEW]
    spec = JobSpec.model_validate_json(own.canonical)
    assert spec.canonical() == own.canonical
    assert spec_hash(own.canonical) == own.digest
    assert spec.trigger.type == ("cron" if review.enabled else "manual")
    assert is_own(spec.id)
    assert set(spec.bindings) == set(THRESHOLDS) == set(Thresholds.__struct_fields__)


def test_the_thresholds_that_hold_without_settings_are_the_same_everywhere(tmp_path: Path) -> None:
    """In the settings, in the bindings of the blueprint, and where findings are decided."""
    settings = load_settings(Workspace(tmp_path))
    assert settings.review == Review()
    assert thresholds(settings) == Thresholds()
    assert ReviewBindings().model_dump() == msgspec.to_builtins(Thresholds())


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        (None, "30 3 * * *"),
        ("# review:\n#   cron: '@daily'\n", "30 3 * * *"),
        ("queue: {max_size: 7}\n", "30 3 * * *"),
        ("review:\n  cron: '@daily'\n", "@daily"),
        ('{"rev\\u0069ew": {"cron": "@daily"}}', "@daily"),
    ],
)
def test_settings_are_read_only_where_they_may_say_something(tmp_path: Path, text: str | None, cron: str) -> None:
    """However the key is spelled."""
    (tmp_path / ".lily").mkdir()
    if text is not None:
        (tmp_path / ".lily" / "config.yaml").write_text(text)
    assert own_jobs(Workspace(tmp_path))[REVIEW].spec.trigger["cron"] == cron
