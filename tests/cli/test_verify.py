"""`lily schedule verify`: a ledger that is whole, and each way in which one can be wrong."""

from pathlib import Path
from typing import Any

import pytest

from lily.ledger import State
from lily.storage import schema
from tests.cli.conftest import Lily, write_job
from tests.cli.ledgers import Ledger, ledger
from tests.contract.conform import check_fits

HOURLY = {"type": "interval", "every": "1h"}
w = schema.window.c


def verified(lily: Lily, *more: str, ok: bool) -> dict[str, Any]:
    said = lily("schedule", "verify", *more, "--json")
    assert said.status == (0 if ok else 1), said
    check_fits("cli-schedule-verify", said.json)
    assert said.json["ok"] is ok
    found: dict[str, Any] = said.json
    return found


@pytest.fixture
def busy(workspace: Path) -> Path:
    """A ledger with every kind of row, an edit, a pause and a time of being disabled."""
    write_job(workspace, "a", trigger={**HOURLY, "exclude": ["2026-03-03"]})
    write_job(workspace, "b", trigger={"type": "cron", "cron": "*/10 * * * *", "catch_up": "latest"}, timezone="Europe/Lisbon")
    write_job(workspace, "quiet", trigger={"type": "once", "at": "2120-01-01T00:00:00Z"})
    with ledger(workspace) as made:
        made.register("a", "b", "quiet")
        (run,) = made.claim("a", "b", hours=1)[0].fired
        made.occupy(run.run_id)
        made.claim("a", hours=1)
        made.succeed(run.run_id)
        made.claim("a", "b", hours=5)
        made.change("a", State.PAUSED)
        made.claim("a", "b", hours=20)
        made.change("a", State.DISABLED)
        made.claim("a", hours=3)
        made.change("a", State.ACTIVE)
        write_job(workspace, "b", trigger={"type": "cron", "cron": "5 * * * *"}, timezone="Europe/Lisbon")
        made.claim("b")
        made.register("b")
        made.claim("a", "b", "quiet", hours=2)
    return workspace


def test_a_ledger_that_is_whole_verifies(lily: Lily, busy: Path) -> None:
    """Every window of every version has its row; it says how many."""
    found = verified(lily, ok=True)
    assert found["windows"] == found["rows"] > 150
    assert (found["jobs"], found["count"], found["differences"]) == (3, 0, [])
    assert f"{found['windows']} windows of 3 jobs compared: 0 differences\n" == lily("schedule", "verify").out
    assert 0 < verified(lily, "--job", "a", ok=True)["windows"] < found["windows"]
    later = verified(lily, "--since", "2026-03-03T00:00", ok=True)
    assert 0 < later["windows"] == later["rows"] < found["windows"]
    assert later["since"] == "2026-03-03T00:00:00.000000Z"


def row_at(at: str, job_id: str = "a") -> Any:
    return (w.job_id == job_id) & (w.at == f"2026-03-{at}:00:00.000000Z")


def _into_nothing(made: Ledger) -> Any:
    return schema.window.update().where((w.job_id == "b") & (w.status == "coalesced")).values(into_at="2026-03-02T15:59:00.000000Z")


def _trigger_of_quiet(trigger: str) -> Any:
    of = schema.trigger_version
    return of.update().where(of.c.job_id == "quiet").values(trigger=trigger, timezone="UTC")


DAMAGE: dict[str, Any] = {
    "missing": lambda made: schema.window.delete().where(row_at("02T11")),
    "unexpected": lambda made: schema.window.update().where(row_at("02T11")).values(at="2026-03-02T11:07:00.000000Z"),
    "other_version": lambda made: schema.window.update().where(row_at("02T11")).values(version=9),
    "exclusion": lambda made: schema.window.update().where(row_at("02T11")).values(status="excluded"),
    "not_coalesced_into": _into_nothing,
    "no_run": lambda made: schema.window.update().where(row_at("02T10")).values(run_id=None),
    "run_lost": lambda made: schema.window.update().where(row_at("02T10")).values(run_id="20260302T100000.000000Z-gone"),
    "other_run": lambda made: schema.window.update().where(row_at("02T16")).values(run_id=made.store.runs(job_id="b")[0].run_id),
    "trigger_unreadable": lambda made: _trigger_of_quiet('{"type": "cron", "cron": "banana"}'),
    "trigger_unreadable, being none": lambda made: _trigger_of_quiet("7"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names_each_kind_of_difference(lily: Lily, busy: Path, kind: str) -> None:
    """With job and window; the exit status is 1."""
    with ledger(busy) as made:
        made.spoil(DAMAGE[kind](made))
    found = verified(lily, ok=False)
    kind = kind.partition(",")[0]
    assert kind in found["kinds"], found
    (first, *_) = [each for each in found["differences"] if each["kind"] == kind]
    assert first["at"] is not None
    said = lily("schedule", "verify")
    assert said.status == 1
    assert kind.replace("_", " ") in said.out


@pytest.mark.parametrize(
    "nonsense",
    [
        schema.schedule.update().where(schema.schedule.c.job_id == "a").values(settled="nonsense"),
        schema.schedule.update().where(schema.schedule.c.job_id == "a").values(settled=""),
        schema.trigger_version.update().where(schema.trigger_version.c.job_id == "a").values(since="yesterday"),
        schema.trigger_version.update().where(schema.trigger_version.c.job_id == "a").values(trigger="{"),
        schema.schedule.update().where(schema.schedule.c.job_id == "a").values(state="odd"),
        schema.schedule.update().where(schema.schedule.c.job_id == "a").values(changed_at="yesterday"),
        schema.control.update().where(schema.control.c.job_id == "a").values(at="yesterday"),
    ],
    ids=["settled", "no settled", "since", "trigger", "state", "changed", "control"],
)
def test_a_ledger_that_says_nonsense_is_a_difference_and_keeps_no_other_from_being_compared(lily: Lily, busy: Path, nonsense: Any) -> None:
    """Somebody wrote there by hand: until when and from when its windows are can't be known. The job is named."""
    others = verified(lily, "--job", "b", ok=True)["windows"] + verified(lily, "--job", "quiet", ok=True)["windows"]
    with ledger(busy) as made:
        made.spoil(nonsense)
    for only in ((), ("--job", "a")):
        found = verified(lily, *only, ok=False)
        assert [(each["job_id"], each["at"], each["kind"]) for each in found["differences"]] == [("a", None, "trigger_unreadable")]
        assert "no ledger can have said" in found["differences"][0]["message"]
        assert found["windows"] == (0 if only else others)
    said = lily("schedule", "verify")
    assert (said.status, said.err, "trigger unreadable" in said.out) == (1, "", True)


_NONSENSE = {
    "settled": schema.schedule.update().where(schema.schedule.c.job_id == "a").values(settled="nonsense"),
    "state": schema.schedule.update().where(schema.schedule.c.job_id == "a").values(state="odd"),
    "version": schema.trigger_version.update().where(schema.trigger_version.c.job_id == "a").values(since="yesterday"),
    "trigger": schema.trigger_version.update().where(schema.trigger_version.c.job_id == "a").values(trigger="{"),
    "row": schema.window.update().where(row_at("03T07")).values(status="odd"),
    "time": schema.window.update().where(row_at("03T07")).values(at="2026-03-03T07"),
}


@pytest.mark.parametrize("kind", ["row", "time"])
def test_a_row_that_says_nonsense_is_a_difference_and_keeps_no_other_from_being_compared(lily: Lily, busy: Path, kind: str) -> None:
    """The window that it stood for has no row then."""
    rows = verified(lily, ok=True)["rows"]
    with ledger(busy) as made:
        made.spoil(_NONSENSE[kind])
    found = verified(lily, ok=False)
    assert [(each["job_id"], each["at"], each["kind"]) for each in found["differences"]] == [
        ("a", None, "trigger_unreadable"),
        ("a", "2026-03-03T07:00:00.000000Z", "missing"),
    ]
    assert "no ledger can have said: window 2026-03-03T07" in found["differences"][0]["message"]
    assert found["rows"] == rows - 1


@pytest.mark.parametrize("kind", ["settled", "state", "version", "trigger"])
def test_a_ledger_that_says_nonsense_is_named_where_nothing_can_be_said_without_it(lily: Lily, busy: Path, kind: str) -> None:
    """A review judges all jobs, and says it of the one."""
    with ledger(busy) as made:
        made.spoil(_NONSENSE[kind])
    named = 0
    for words in (("jobs", "next", "a"), ("jobs", "why", "a"), ("schedule", "list"), ("jobs", "pause", "a")):
        said = lily(*words)
        assert "internal_error" not in said.err, said
        named += "the job's ledger says what no ledger can have said" in said.err and "job a" in said.err
    assert named >= 3
    reviewed = lily("review", "run", "--json")
    assert reviewed.status == 0, reviewed
    assert "a" in {each["job_id"] for each in reviewed.json["findings"]}


@pytest.mark.parametrize("kind", ["settled", "state", "version", "trigger"])
def test_a_ledger_that_says_nonsense_is_named_and_keeps_no_other_job_from_being_paused_or_shown(lily: Lily, busy: Path, kind: str) -> None:
    """By what is about all jobs."""
    with ledger(busy) as made:
        made.spoil(_NONSENSE[kind])
    rows = {row["job_id"]: row for row in lily("schedule", "list", "--json").json["schedules"]}
    assert "what no ledger can have said" in rows["a"]["note"]
    assert rows["a"]["next_fire"] is None
    assert rows["b"]["next_fire"] is not None
    for words in (("schedule", "status"), ("schedule", "rebuild"), ("jobs", "pause", "--all")):
        said = lily(*words)
        assert (said.status, "schedule verify" in said.err, "a" in said.err) == (0, True, True), said
    assert lily("schedule", "list", "--json").json["schedules"][1]["state"] == "paused"
    drift = lily("schedule", "status", "--json").json["drift"]
    assert not any("a" in jobs for jobs in drift.values())


@pytest.mark.parametrize("kind", ["row", "time"])
def test_the_last_window_of_a_job_that_says_nonsense_hides_no_other_job(lily: Lily, busy: Path, kind: str) -> None:
    """Where it is the last of all of its job."""
    with ledger(busy) as made:
        made.spoil(schema.window.delete().where(w.job_id == "a", w.at > "2026-03-03T07:00:00.000000Z"))
        made.spoil(_NONSENSE[kind])
    rows = {row["job_id"]: row for row in lily("schedule", "list", "--json").json["schedules"]}
    assert "what no ledger can have said" in rows["a"]["note"]
    assert rows["b"]["last_window"] is not None


def test_a_job_whose_windows_wait_because_its_spec_is_lost_is_named_until_it_is_back(lily: Lily, busy: Path) -> None:
    """`lily health` and `lily doctor` count it."""
    spec_hash = lily("jobs", "show", "b", "--json").json["spec_hash"]
    with ledger(busy) as made:
        made.spoil(schema.spec.delete().where(schema.spec.c.spec_hash == spec_hash))
    (found,) = verified(lily, ok=False)["differences"]
    assert (found["job_id"], found["at"], found["kind"]) == ("b", None, "trigger_unreadable")
    assert spec_hash in found["message"]
    assert "`lily jobs run JOB`" in found["message"]
    assert "`lily db rebuild --from receipts`" in found["message"]
    assert "windows_unaccounted" in {each["code"] for each in lily("doctor", "--json").json["findings"]}
    assert lily("jobs", "run", "b", "--detach").status == 0
    verified(lily, ok=True)


def test_a_spec_that_says_nonsense_is_as_good_as_lost_and_no_run_by_hand_puts_it_back(lily: Lily, busy: Path) -> None:
    """It stays in the place of the good one."""
    spec_hash = lily("jobs", "show", "b", "--json").json["spec_hash"]
    with ledger(busy) as made:
        made.spoil(schema.spec.update().where(schema.spec.c.spec_hash == spec_hash).values(body="nonsense"))
    (found,) = verified(lily, ok=False)["differences"]
    assert (found["job_id"], found["kind"]) == ("b", "trigger_unreadable")
    assert spec_hash in found["message"]
    assert "lily jobs run" not in found["message"]


def test_a_schedule_that_names_no_spec_waits_for_none(lily: Lily, busy: Path) -> None:
    """Its windows go on with the spec of its last trigger."""
    with ledger(busy) as made:
        made.spoil(schema.schedule.update().where(schema.schedule.c.job_id == "b").values(spec_hash=None))
    verified(lily, ok=True)


def test_a_run_whose_trigger_says_nonsense_keeps_no_window_from_being_compared(lily: Lily, busy: Path) -> None:
    """It is the run that can't be read, and not the window that it was fired for."""
    with ledger(busy) as made:
        rows = verified(lily, ok=True)["rows"]
        made.spoil(schema.run.update().where(schema.run.c.job_id == "a").values(trigger="[1]"))
    found = verified(lily, ok=False)
    assert (found["rows"], {each["kind"] for each in found["differences"]}) == (rows, {"other_run"})


def test_a_row_that_says_nonsense_is_named_to_whoever_asks_for_its_window(lily: Lily, busy: Path) -> None:
    """What became of it is not known."""
    with ledger(busy) as made:
        made.spoil(_NONSENSE["row"])
    said = lily("jobs", "why", "a", "--at", "2026-03-03T07:00Z")
    assert said.err.startswith("store_unavailable: the job's ledger says what no ledger can have said: window 2026-03-03T07:00"), said
    assert lily("jobs", "why", "a", "--at", "2026-03-03T08:00Z").status == 0


def test_verify_takes_a_pruned_run_for_pruned(lily: Lily, busy: Path) -> None:
    """`lily runs prune` leaves the ledger as it is."""
    with ledger(busy) as made:
        for job_id in ("a", "b"):
            for run in list(made.store.every_run(job_id)):
                made.succeed(run.run_id)
    assert lily("runs", "prune", "--keep", "0").status == 0
    verified(lily, ok=True)


def test_verify_names_some_and_counts_all(lily: Lily, busy: Path) -> None:
    """A ledger in ruins does not flood the terminal."""
    write_job(busy, "often", trigger={"type": "interval", "every": "10s"})
    with ledger(busy) as made:
        made.register("often")
        made.claim("often", hours=1)
        made.spoil(schema.window.delete().where(w.job_id == "often"))
    found = verified(lily, ok=False)
    assert (found["count"], found["kinds"], len(found["differences"])) == (360, {"missing": 360}, 200)
    assert lily("schedule", "verify").out.splitlines()[-1] == "... and 160 more"


def test_verify_without_a_ledger_has_nothing_to_compare(lily: Lily, workspace: Path) -> None:
    """And a job that the ledger does not know is not found; a time that is none is a usage error."""
    assert verified(lily, ok=True)["windows"] == 0
    said = lily("schedule", "verify", "--job", "nobody")
    assert (said.status, said.err.startswith("job_not_found: ")) == (3, True)
    assert lily("schedule", "verify", "--since", "lately").status == 2
    assert not (workspace / "db").exists()
