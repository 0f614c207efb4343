"""`lily jobs next` and `lily jobs why`: when a job runs, and why it ran or did not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.clock import stamp
from lily.identity import SUPERVISOR
from lily.ledger import Failure, State
from lily.operations.accept import new_run
from lily.operations.times import next_of
from lily.operations.why import why as asked
from lily.render import when
from lily.settings import Queue
from lily.spec_index import SpecIndex
from lily.storage.window_reads import WindowReads
from lily.time_views import why_lines
from tests.cli.conftest import Lily, write_job
from tests.cli.ledgers import START, ledger
from tests.contract.conform import check_fits

HOURLY = {"type": "interval", "every": "1h"}
LISBON = {"timezone": "Europe/Lisbon"}


# -- next ------------------------------------------------------------------------------------------


def test_next_shows_both_clocks_and_what_daylight_saving_does(lily: Lily, workspace: Path) -> None:
    """The local time that spring skips runs at the gap's end, and a note says so."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "30 1 * * *"}, **LISBON)
    said = lily("jobs", "next", "a", "--from", "2027-03-27T12:00", "--count", "2", "--json")
    assert said.status == 0
    check_fits("cli-jobs-next", said.json)
    first, second = said.json["windows"]
    assert (first["utc"], first["local"]) == ("2027-03-28T01:00:00.000000Z", "2027-03-28T02:00:00+01:00")
    assert "01:30 does not exist" in first["note"]
    assert (second["local"], second["note"], second["skipped"]) == ("2027-03-29T01:30:00+01:00", "", None)
    text = lily("jobs", "next", "a", "--from", "2027-03-27T12:00", "--count", "2").out
    assert "2027-03-28 02:00:00 +01:00  2027-03-28 01:00:00Z  clocks go forward" in text


def test_next_begins_after_the_time_that_is_given(lily: Lily, workspace: Path) -> None:
    """A local time in the job's zone, or one with its offset."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 12 * * *"}, timezone="Asia/Tokyo")
    for given in ("2026-05-04T12:00", "2026-05-04T03:00Z", "2026-05-04T05:00:00+02:00"):
        (window,) = lily("jobs", "next", "a", "--from", given, "--count", "1", "--json").json["windows"]
        assert window["local"] == "2026-05-05T12:00:00+09:00"


def test_next_says_what_keeps_a_window_from_running(lily: Lily, workspace: Path) -> None:
    """Excluded by the trigger, or held by a person, as far as that goes."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 0 * * *", "exclude": ["2120-05-06"]}, timezone="UTC")
    lily("jobs", "pause", "a", "--until", "2120-05-05T12:00", "--reason", "moving")
    said = lily("jobs", "next", "a", "--from", "2120-05-04T12:00", "--count", "3", "--json").json
    assert (said["state"], said["reason"]) == ("paused", "moving")
    assert [window["skipped"] for window in said["windows"]] == ["paused", "excluded", None]
    text = lily("jobs", "next", "a", "--from", "2120-05-04T12:00").out
    assert "it is paused until 2120-05-05 12:00:00Z: moving" in text
    lily("jobs", "disable", "a")
    assert {window["skipped"] for window in lily("jobs", "next", "a", "--json").json["windows"]} == {"disabled"}


def test_next_begins_with_the_window_whose_jitter_is_still_running(workspace: Path) -> None:
    """It has no row yet, and runs next. The notes say when each is due."""
    write_job(workspace, "a", trigger={**HOURLY, "jitter_seconds": 3000})
    with ledger(workspace) as made:
        made.register("a")
        state = made.windows.states()["a"]
        schedule = made.windows.schedule("a", state.version)  # type: ignore[arg-type]
        window = made.now + timedelta(hours=1)
        due = schedule.fire_at("a", window)
        entry = SpecIndex(made.workspace).scan().jobs["a"]
        for now, first in ((window, window), (due, window + timedelta(hours=1))):
            found = next_of(entry, state, None, 2, now)
            assert [each["utc"] for each in found] == [stamp(first), stamp(first + timedelta(hours=1))]
        assert next_of(entry, state, None, 1, window)[0]["note"] == f"with its jitter at {due:%Y-%m-%d %H:%M:%S}Z"
        assert next_of(entry, state, window, 1, window)[0]["utc"] == stamp(window + timedelta(hours=1))
        made.change("a", State.PAUSED, until=timedelta(days=1))
        (held,) = next_of(entry, made.windows.states()["a"], None, 1, window)
        assert (held["utc"], held["skipped"]) == (stamp(window), "paused")


def test_next_says_of_a_window_of_a_pause_whose_jitter_outlasts_it_that_it_is_skipped(workspace: Path) -> None:
    """Also once the pause is over: it came while the job was paused."""
    write_job(workspace, "a", trigger={**HOURLY, "jitter_seconds": 3000})
    with ledger(workspace) as made:
        made.register("a")
        window = made.now + timedelta(hours=1)
        made.change("a", State.PAUSED, until=timedelta(hours=1, seconds=5))
        state, entry = made.windows.states()["a"], SpecIndex(made.workspace).scan().jobs["a"]
        found = next_of(entry, state, None, 2, window + timedelta(seconds=10))
        assert [(each["utc"], each["skipped"]) for each in found] == [(stamp(window), "paused"), (stamp(window + timedelta(hours=1)), None)]
        made.claim("a", hours=1, minutes=55)
        assert [row.status for row in WindowReads(made.store).rows("a", window, window + timedelta(hours=1))] == ["skipped_paused"]


def test_why_names_the_same_next_window_as_next_and_when_its_jitter_lets_it_run(lily: Lily, workspace: Path) -> None:
    """Also while the jitter of a window is still running."""
    write_job(workspace, "a", trigger={**HOURLY, "jitter_seconds": 3000})
    with ledger(workspace) as made:
        made.register("a")
        index, state = SpecIndex(made.workspace), made.windows.states()["a"]
        for now in (made.now, made.now + timedelta(hours=1)):
            (window,) = next_of(index.scan().jobs["a"], state, None, 1, now)
            answer = asked(index, made.store, "a", None, now, None)
            assert answer["next"] == window["utc"] == stamp(made.now + timedelta(hours=1))
            assert window["note"] == f"with its jitter at {when(answer['next_due'])}"
            assert why_lines(answer)[-1] == f"next  {when(answer['next'])}, with its jitter at {when(answer['next_due'])}"


def test_next_of_all_has_every_scheduled_job_and_needs_no_store(lily: Lily, workspace: Path) -> None:
    """A list of jobs with just these fields; what is excluded is left out; nothing is made."""
    write_job(workspace, "b", trigger={"type": "interval", "every": "1d", "exclude": ["2026-05-05"]})
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 12 * * *"}, **LISBON)
    write_job(workspace, "done", trigger={"type": "once", "at": "2020-01-01T00:00:00Z"})
    write_job(workspace, "hand")
    said = lily("jobs", "next", "--all", "--count", "2", "--from", "2026-05-04T12:00", "--json")
    assert said.status == 0
    check_fits("cli-jobs-next-all", said.json)
    assert [job["job_id"] for job in said.json] == ["a", "b", "done"]
    assert said.json[0] == {
        "job_id": "a",
        "timezone": "Europe/Lisbon",
        "windows": [
            {"utc": "2026-05-05T11:00:00.000000Z", "local": "2026-05-05T12:00:00+01:00", "note": ""},
            {"utc": "2026-05-06T11:00:00.000000Z", "local": "2026-05-06T12:00:00+01:00", "note": ""},
        ],
    }
    assert [window["utc"][:10] for window in said.json[1]["windows"]] == ["2026-05-06", "2026-05-07"]
    assert said.json[2]["windows"] == []
    assert not (workspace / "db").exists()
    text = lily("jobs", "next", "--all", "--from", "2026-05-04T12:00").out
    assert text.splitlines()[0].split() == ["JOB", "LOCAL", "UTC"]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("hand",), 3, "job_trigger_invalid"),
        (("nobody",), 3, "job_not_found"),
        (("broken",), 3, "job_invalid_spec"),
        ((), 2, "usage"),
        (("hand", "--all"), 2, "usage"),
        (("--all", "--count", "0"), 2, "usage"),
        (("a", "--from", "tomorrow"), 2, "usage"),
        (("a", "--from", "9999-12-31T00:00Z"), 2, "usage"),
    ],
)
def test_next_refuses_what_has_no_windows_in_one_line(
    lily: Lily, workspace: Path, arguments: tuple[str, ...], status: int, code: str
) -> None:
    """With the code that says why."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "hand")
    (workspace / ".lily/jobs/broken.job.yaml").write_text("id: broken\n")
    said = lily("jobs", "next", *arguments)
    assert (said.status, said.err.startswith(f"{code}: "), said.err.count("\n")) == (status, True, 1), said


# -- why -------------------------------------------------------------------------------------------


def why(lily: Lily, job_id: str, at: str | None = None) -> dict[str, Any]:
    """The answer as JSON, which fits its schema; the text has the same sentences."""
    more = ("--at", at) if at else ()
    said = lily("jobs", "why", job_id, *more, "--json")
    assert said.status == 0, said
    check_fits("cli-jobs-why", said.json)
    answer: dict[str, Any] = said.json
    text = lily("jobs", "why", job_id, *more)
    assert text.status == 0
    assert all(" ".join(sentence.split()) in text.out for sentence in answer["because"])
    return answer


def test_why_of_the_latest_window_says_that_the_file_is_gone_since(workspace: Path) -> None:
    """Whether a window came before that or not."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        (workspace / ".lily" / "jobs" / "a.job.yaml").unlink()
        made.windows.close(["a"], made.now + timedelta(minutes=90))
        for hours, outcome in ((0, "no_window_yet"), (1, "ran")):
            made.claim("a", hours=hours)
            answer = asked(SpecIndex(made.workspace), made.store, "a", None, made.now, None)
            assert (answer["outcome"], answer["because"][-1]) == (
                outcome,
                "its file is gone since 2026-03-02 10:30:00Z: no window comes any more",
            )


def test_why_of_a_window_that_was_to_be_caught_up_says_that_the_job_was_removed(workspace: Path) -> None:
    """Before the supervisor that would have done it was there."""
    write_job(workspace, "a", trigger={**HOURLY, "catch_up": "latest"})
    with ledger(workspace) as made:
        made.register("a")
        (workspace / ".lily" / "jobs" / "a.job.yaml").unlink()
        made.clock.jump(hours=1, minutes=30)
        made.windows.close(["a"], made.clock.now())
        made.claim("a")
        answer = asked(SpecIndex(made.workspace), made.store, "a", None, made.clock.now(), None)
    assert (answer["outcome"], answer["row"]["code"]) == ("missed", "removed")
    assert answer["because"] == [
        "the job's file was removed, or its trigger became manual, before it could run",
        "its file is gone since 2026-03-02 10:30:00Z: no window comes any more",
    ]


def test_why_names_the_run_of_a_window_that_fired(lily: Lily, workspace: Path) -> None:
    """With its status, and how late it fired. Without --at it is the latest window."""
    write_job(workspace, "a", trigger={**HOURLY, "end_at": "2026-03-02T10:00:00Z"})
    with ledger(workspace) as made:
        made.register("a")
        (run,) = made.claim("a", hours=1, seconds=2)[0].fired
        made.succeed(run.run_id)
    for at in ("2026-03-02T10:00", "2026-03-02T10:00:30Z", None):
        answer = why(lily, "a", at)
        assert (answer["outcome"], answer["at"]) == ("ran", "2026-03-02T10:00:00.000000Z")
        assert answer["runs"] == [{"run_id": run.run_id, "status": "succeeded"}]
        assert answer["row"]["status"] == "fired"
        assert "it fired 2.0 s after its time; its run is succeeded" in answer["because"]


def test_why_says_that_the_run_was_pruned(lily: Lily, workspace: Path) -> None:
    """The row stays."""
    write_job(workspace, "a", trigger={**HOURLY, "end_at": "2026-03-02T10:00:00Z"})
    with ledger(workspace) as made:
        made.register("a")
        (run,) = made.claim("a", hours=1)[0].fired
        made.succeed(run.run_id)
        made.store.forget([run.run_id], SUPERVISOR)
    answer = why(lily, "a")
    assert answer["runs"] == [{"run_id": run.run_id, "status": None}]
    assert "pruned" in answer["because"][0]


def test_why_of_a_window_that_the_queue_refused_says_how_full_it_was(lily: Lily, workspace: Path) -> None:
    """With the code, and the run that reports the stretch."""
    write_job(workspace, "a", trigger={**HOURLY, "end_at": "2026-03-02T11:00:00Z"})
    with ledger(workspace) as made:
        made.store.queue.limits = Queue(max_concurrent=1, max_size=1)
        made.register("a")
        made.store.submit([new_run(SpecIndex(made.workspace).load("a").canonical(), by="test")])
        (report,) = made.claim("a", hours=1)[0].missed
        made.claim("a", hours=1)
    for hour in (10, 11):
        answer = why(lily, "a", f"2026-03-02T{hour}:00")
        assert (answer["outcome"], answer["row"]["code"]) == ("refused", "queue_full")
        assert answer["because"][0] == "the queue did not take its run: queue_full"
        assert "1 of 1 is queued" in answer["because"][1]
        assert answer["runs"] == [{"run_id": report.run_id, "status": "missed"}]


def test_why_of_a_missed_window_names_the_supervisors_around_it(lily: Lily, workspace: Path) -> None:
    """When the one before ended, when the next began, and the run that reports the batch."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.life("first", ended=timedelta(minutes=10))
        made.register("a")
        made.clock.jump(hours=3, minutes=30)
        made.life("second")
        (claim,) = made.claim("a")
    answer = why(lily, "a", "2026-03-02T11:00")
    assert answer["outcome"] == "missed"
    first, second = answer["because"]
    assert "no supervisor was there: the one before (pid 4194309) ended 2026-03-02 09:10:00Z" in first
    assert "the next one began 2026-03-02 12:30:00Z (pid 4194310)" in first
    assert second == "one run reports 3 missed windows, from 2026-03-02 10:00:00Z to 2026-03-02 12:00:00Z"
    assert answer["runs"] == [{"run_id": claim.missed[0].run_id, "status": "missed"}]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (None, True, "no supervisor had run yet; the next one began"),
        (None, False, "none has begun since"),
        ("killed", True, "was killed, or the machine went down"),
        ("there", False, "a supervisor was there (pid 4194309) and came to it 30 min 0 s too late (30 s are allowed)"),
    ],
)
def test_why_of_a_missed_window_knows_how_a_supervisor_was_absent(
    lily: Lily, workspace: Path, before: str | None, after: bool, says: str
) -> None:
    """Never there, killed, or asleep."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        if before:
            made.life("first")
        made.register("a")
        made.clock.jump(hours=1, minutes=30)
        if after:
            made.life("second")
        made.claim("a")
    assert says in why(lily, "a", "2026-03-02T10:00")["because"][0]


def test_why_of_a_window_that_was_slept_through_says_so_also_after_its_supervisor_was_killed(lily: Lily, workspace: Path) -> None:
    """Who recorded it was there: what became of that one later is no reason."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.life("first")
        made.register("a")
        made.claim("a", hours=1, minutes=30)
        made.clock.jump(hours=5)
        made.life("second")
    (said,) = why(lily, "a", "2026-03-02T10:00")["because"]
    assert said.startswith("a supervisor was there (pid 4194309) and came to it 30 min 0 s too late")


def test_why_of_a_window_that_fell_due_while_its_supervisor_was_ending_names_that(lily: Lily, workspace: Path) -> None:
    """Nobody slept: it was left to the next start."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.life("first", ended=timedelta(hours=1, seconds=5))
        made.register("a")
        made.clock.jump(hours=2, minutes=30)
        made.life("second")
        made.claim("a")
    said = why(lily, "a", "2026-03-02T10:00")["because"][0]
    assert said.startswith(
        "the supervisor that was there (pid 4194309) ended 2026-03-02 10:00:05Z and had not come to it; the next one began"
    )


def test_why_of_a_window_that_could_not_be_stored_says_the_code(lily: Lily, workspace: Path) -> None:
    """And of one above the catch-up limit the limit."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "b", trigger={**HOURLY, "catch_up": "all", "catch_up_limit": 1})
    with ledger(workspace) as made:
        made.register("a", "b")
        made.claim("a", hours=2, failures={"a": Failure(START + timedelta(hours=2), "disk_full", "the disk is full")})
        made.claim("b")
    assert "its run could not be stored when it was due: disk_full" in why(lily, "a", "2026-03-02T10:00")["because"]
    assert "catch_up_limit (1)" in why(lily, "b", "2026-03-02T10:00")["because"][0]


def test_why_of_a_coalesced_window_names_the_one_that_ran(lily: Lily, workspace: Path) -> None:
    """And that one says how many it stands for."""
    write_job(workspace, "a", trigger={**HOURLY, "catch_up": "latest"})
    with ledger(workspace) as made:
        made.register("a")
        (claim,) = made.claim("a", hours=3, minutes=10)
    answer = why(lily, "a", "2026-03-02T10:00")
    assert (answer["outcome"], answer["row"]["into_at"]) == ("coalesced", "2026-03-02T12:00:00.000000Z")
    assert answer["runs"] == [{"run_id": claim.fired[0].run_id, "status": "queued"}]
    assert "it stands for 2 earlier windows too" in why(lily, "a", "2026-03-02T12:00")["because"]


def test_why_of_a_skipped_window_names_who_was_in_the_way(lily: Lily, workspace: Path) -> None:
    """The run that was active, or the pause with its reason."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "b", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a", "b")
        made.change("b", State.PAUSED, reason="moving house", set_id="set-1")
        (run,) = made.claim("a", hours=1)[0].fired
        made.occupy(run.run_id)
        made.claim("a", "b", hours=1)
    answer = why(lily, "a", "2026-03-02T11:00")
    assert answer["outcome"] == "skipped_overlap"
    assert answer["runs"] == [{"run_id": run.run_id, "status": "running"}]
    answer = why(lily, "b", "2026-03-02T11:00")
    assert answer["outcome"] == "skipped_paused"
    assert answer["because"] == ["paused by ada since 2026-03-02 09:00:00Z (set set-1): moving house"]
    assert (answer["control"]["by"], answer["control"]["reason"], answer["next"]) == ("ada", "moving house", None)


def test_why_of_an_excluded_window_says_so(lily: Lily, workspace: Path) -> None:
    """It has a row like every other."""
    write_job(workspace, "a", trigger={**HOURLY, "exclude": ["2026-03-02"]})
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=1)
    assert why(lily, "a", "2026-03-02T10:00")["outcome"] == "excluded"


def test_why_not_names_the_field_that_does_not_fit(lily: Lily, workspace: Path) -> None:
    """By the trigger that held then, and when it is due next."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 12 * * mon-fri"}, **LISBON)
    with ledger(workspace) as made:
        made.register("a")
        made.clock.jump(days=10)
        made.claim("a")
    answer = why(lily, "a", "2026-03-07T12:00")
    assert answer["outcome"] == "not_due"
    assert "weekday sat is not in mon-fri" in answer["because"][0]
    assert answer["next"] == "2026-03-09T12:00:00.000000Z"


def test_why_uses_the_trigger_that_held_then(lily: Lily, workspace: Path) -> None:
    """An edit does not change the past."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=1)
        write_job(workspace, "a", trigger={"type": "interval", "every": "15m"})
        made.register("a")
        made.claim("a", hours=1)
    answer = why(lily, "a", "2026-03-02T09:15")
    assert answer["outcome"] == "not_due"
    assert "that trigger (version 1) held until 2026-03-02 10:00:00Z" in answer["because"]


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_why_of_the_latest_window_says_what_keeps_others_from_coming(lily: Lily, workspace: Path, state: State) -> None:
    """Whoever sees that nothing comes any more asks without a time, and the window that ran is no answer."""
    write_job(workspace, "a", trigger={**HOURLY, "end_at": "2026-03-02T10:30:00Z"})
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=1)
        made.change("a", state, reason="moving house")
    answer = lily("jobs", "why", "a", "--json").json
    assert (answer["outcome"], answer["control"]["reason"]) == ("ran", "moving house")
    assert answer["because"][-1] == f"now it is {state.value} by ada since 2026-03-02 10:00:00Z: moving house"
    with ledger(workspace) as made:
        made.clock.jump(hours=2)
        made.change("a", State.ACTIVE)
    assert not any("now it is" in told for told in lily("jobs", "why", "a", "--json").json["because"])


def test_why_of_the_time_in_which_a_job_was_disabled_names_who_did_it(lily: Lily, workspace: Path) -> None:
    """From the control, for such a time has no rows."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.change("a", State.DISABLED, reason="retired")
        made.claim("a", hours=5)
        made.change("a", State.ACTIVE)
    answer = why(lily, "a", "2026-03-02T11:00")
    assert (answer["outcome"], answer["because"]) == ("disabled", ["disabled by ada since 2026-03-02 09:00:00Z: retired"])


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_why_says_when_a_job_that_is_held_for_a_time_runs_again(workspace: Path, state: State) -> None:
    """Not at a window that comes before."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=1)
        made.change("a", state, until=timedelta(hours=5))
        for at in (None, made.now):
            answer = asked(SpecIndex(made.workspace), made.store, "a", at, made.now, None)
            assert (answer["outcome"], answer["next"]) == ("ran", "2026-03-02T15:00:00.000000Z")


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_why_of_a_window_of_before_a_job_was_held_names_who_held_it(workspace: Path, state: State) -> None:
    """While nobody has decided it, and when it was skipped."""
    write_job(workspace, "a", trigger={**HOURLY, "catch_up": "latest"})
    with ledger(workspace) as made:
        made.register("a")
        window = made.now + timedelta(hours=1)
        made.clock.jump(hours=1, minutes=10)
        made.change("a", state, reason="moving house")
        told = f"{state.value} by ada since 2026-03-02 10:10:00Z: moving house"
        before = asked(SpecIndex(made.workspace), made.store, "a", window, made.now, None)
        assert before["outcome"] == "undecided"
        assert before["because"][0].endswith(f"The next start decides it: missed, or skipped: {told}")
        (claim,) = made.claim("a", minutes=20)
        assert (claim.fired, claim.missed) == ([], [])
        after = asked(SpecIndex(made.workspace), made.store, "a", window, made.now, None)
        assert (after["outcome"], after["because"][0], after["control"]["reason"]) == ("skipped_paused", told, "moving house")


def test_next_after_a_clock_was_set_back_is_a_window_that_is_not_decided_yet(lily: Lily, workspace: Path) -> None:
    """What has its row does not run again."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 0 * * *"}, timezone="UTC")
    with ledger(workspace, datetime(2120, 5, 4, 12, tzinfo=UTC)) as made:
        made.register("a")
        made.claim("a", days=7)
    (window,) = lily("jobs", "next", "a", "--count", "1", "--json").json["windows"]
    assert window["utc"] == "2120-05-12T00:00:00.000000Z"
    assert lily("schedule", "list", "--json").json["schedules"][0]["next_fire"] == "2120-05-12T00:00:00.000000Z"
    assert why(lily, "a")["next"] == "2120-05-12T00:00:00.000000Z"


def test_why_of_the_latest_window_says_that_the_clock_was_set_back_and_until_when_nothing_runs_for_that(workspace: Path) -> None:
    """A job that has windows to come and one that has none yet; nothing of it once the clock is there again."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "b", trigger={"type": "cron", "cron": "0 0 * * *"}, timezone="UTC")
    with ledger(workspace) as made:
        made.register("a", "b")
        made.claim("a", "b", hours=5)
        index, said = (
            SpecIndex(made.workspace),
            "the clock was set back since: windows up to 2026-03-02 14:00:00Z were decided by then and do not run again",
        )
        for hours, there in ((3, True), (0, False)):
            for job_id in ("a", "b"):
                answer = asked(index, made.store, job_id, None, made.now - timedelta(hours=hours), None)
                assert (said in answer["because"]) is there


def test_why_of_a_time_before_the_job_or_without_its_file(lily: Lily, workspace: Path) -> None:
    """It says from when on there were windows, and that its file was gone."""
    path = write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.windows.close(["a"], made.now + timedelta(hours=2))
    early = why(lily, "a", "2026-03-01T11:00")
    assert (early["outcome"], early["because"]) == ("not_registered", ["it was registered only 2026-03-02 09:00:00Z"])
    assert "file was gone, or its trigger manual" in why(lily, "a", "2026-03-02T15:00")["because"][0]
    path.unlink()
    assert why(lily, "a", "2026-03-02T15:00")["because"] == ["its file was gone then, and is still"]


@pytest.mark.parametrize("state", [State.PAUSED, State.DISABLED])
def test_why_names_no_state_that_was_over_by_then(workspace: Path, state: State) -> None:
    """Where no window has come, and where there was no schedule."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 0 * * *"}, timezone="UTC")
    with ledger(workspace) as made:
        made.register("a")
        made.change("a", state, until=timedelta(hours=1))
        index, start = SpecIndex(made.workspace), made.now
        for hours, words in ((0.5, 2), (1.0, 1)):
            answer = asked(index, made.store, "a", None, start + timedelta(hours=hours), None)
            assert (answer["outcome"], len(answer["because"])) == ("no_window_yet", words)
            if hours < 1:
                assert answer["because"][0] == "no window has come since it was registered, 2026-03-02 09:00:00Z"
        made.windows.close(["a"], start + timedelta(minutes=30))
        answer = asked(index, made.store, "a", start + timedelta(hours=2), start + timedelta(hours=3), None)
    assert answer["outcome"] == "no_schedule"


def test_why_knows_of_a_pause_when_the_clock_was_set_back_before_it(workspace: Path) -> None:
    """It stands as `lily schedule list` says it does."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=1)
        made.change("a", State.PAUSED, reason="moving")
        answer = asked(SpecIndex(made.workspace), made.store, "a", None, made.now - timedelta(minutes=5), None)
    assert (answer["next"], answer["control"]["reason"]) == (None, "moving")


def test_why_of_the_minute_in_which_a_job_was_registered_is_no_hole(workspace: Path) -> None:
    """Its window came before that."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 * * * *"}, timezone="UTC")
    with ledger(workspace, START + timedelta(seconds=10)) as made:
        made.register("a")
        for hours in (0, 2):
            made.claim("a", hours=hours)
            answer = asked(SpecIndex(made.workspace), made.store, "a", START + timedelta(seconds=30), made.now, None)
            assert (answer["outcome"], answer["because"]) == (
                "not_registered",
                ["its window in this minute, 2026-03-02 09:00:00Z, came before its trigger held: since 2026-03-02 09:00:10Z"],
            )


def test_why_asked_to_the_second_tells_of_no_other_window_of_the_minute(workspace: Path) -> None:
    """Where a minute has one window alone, that is meant."""
    write_job(workspace, "a", trigger={"type": "interval", "every": "2s"}, timezone="UTC")
    write_job(workspace, "b", trigger={"type": "cron", "cron": "* * * * *"}, timezone="UTC")
    with ledger(workspace) as made:
        made.register("a", "b")
        made.claim("a", seconds=4)
        made.windows.close(["a"], made.now)
        made.claim("b", minutes=1)

        def told(job_id: str, seconds: int) -> tuple[str, str]:
            answer = asked(SpecIndex(made.workspace), made.store, job_id, START + timedelta(seconds=seconds), made.now, None)
            return answer["outcome"], answer["at"][17:19]

        assert [told("a", seconds) for seconds in (2, 3, 4, 6)] == [
            ("coalesced", "02"),
            ("not_due", "03"),
            ("ran", "04"),
            ("no_schedule", "06"),
        ]
        assert told("b", 75) == ("ran", "00")


def test_why_of_a_window_to_come_says_when_and_what_would_keep_it(lily: Lily, workspace: Path) -> None:
    """Paused now: it would not run."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
    answer = why(lily, "a", "2120-05-04T10:00")
    assert answer["outcome"] == "to_come"
    assert "no supervisor is up" in answer["because"][0]
    lily("jobs", "pause", "a", "--reason", "moving")
    assert "would not run: paused by" in why(lily, "a", "2120-05-04T10:00")["because"][0]


def test_why_of_an_excluded_window_to_come_says_that_it_will_not_run(lily: Lily, workspace: Path) -> None:
    """The trigger's `exclude` names it, also while nobody has decided it."""
    write_job(workspace, "a", trigger={**HOURLY, "exclude": ["2120-05-04", "2026-03-02"]})
    with ledger(workspace) as made:
        made.register("a")
    coming = why(lily, "a", "2120-05-04T10:00")
    assert coming["outcome"] == "to_come"
    assert "would not run: the trigger's `exclude` names this time" in coming["because"][0]
    undecided = why(lily, "a", "2026-03-02T11:00")
    assert undecided["outcome"] == "undecided"
    assert undecided["because"][0].endswith("The next start decides it: the trigger's `exclude` names this time")


def test_why_of_a_window_that_waits_for_its_jitter_says_until_when(workspace: Path) -> None:
    """It is to come, and the latest; nobody is late. Whoever asks to the minute hears the same."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 * * * *", "jitter_seconds": 3000}, timezone="UTC")
    with ledger(workspace) as made:
        made.register("a")
        schedule = made.windows.schedule("a", made.windows.states()["a"].version)  # type: ignore[arg-type]
        nominal = made.now + timedelta(hours=1)
        due = schedule.fire_at("a", nominal)
        made.claim("a", hours=1, milliseconds=1)
        for at in (None, nominal, nominal + timedelta(seconds=30)):
            answer = asked(SpecIndex(made.workspace), made.store, "a", at, made.now, "a supervisor (pid 1)")
            assert (answer["outcome"], answer["because"]) == ("to_come", [f"it is to come, with its jitter at {due:%Y-%m-%d %H:%M:%S}Z"])
        late = asked(SpecIndex(made.workspace), made.store, "a", nominal, due, "a supervisor (pid 1)")
        assert late["outcome"] == "undecided"


def test_why_of_a_window_that_nobody_decided_yet_says_who_will(lily: Lily, workspace: Path) -> None:
    """A downtime that goes on: the next start does. It is also the latest window that is asked about."""
    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.life("first", ended=timedelta(minutes=10))
        made.register("a")
    answer = why(lily, "a", "2026-03-02T11:00")
    assert answer["outcome"] == "undecided"
    assert "no supervisor is up; the last one ended 2026-03-02 09:10:00Z. The next start decides it" in answer["because"][0]
    latest = why(lily, "a")
    assert latest["outcome"] == "undecided"
    assert latest["at"] > answer["at"]


def test_why_of_a_hole_in_the_ledger_names_the_check(lily: Lily, workspace: Path) -> None:
    """It must not be; if it is, it is said."""
    from lily.storage import schema

    write_job(workspace, "a", trigger=HOURLY)
    with ledger(workspace) as made:
        made.register("a")
        made.claim("a", hours=3)
        made.spoil(schema.window.delete().where(schema.window.c.at == "2026-03-02T10:00:00.000000Z"))
    answer = why(lily, "a", "2026-03-02T10:00")
    assert answer["outcome"] == "lost"
    assert "lily schedule verify" in answer["because"][0]


def test_why_of_a_job_that_no_supervisor_knows_yet(lily: Lily, workspace: Path) -> None:
    """Nobody ever ran here; the last one ended before the file came; it has no schedule; its file is broken; there is none."""
    write_job(workspace, "a", trigger=HOURLY)
    write_job(workspace, "hand")
    (workspace / ".lily/jobs/broken.job.yaml").write_text("id: broken\ntitle: x\n")
    assert why(lily, "a")["because"] == ["no supervisor ever ran here; `lily up` starts one"]
    assert why(lily, "hand")["outcome"] == "manual"
    broken = why(lily, "broken")
    assert broken["outcome"] == "invalid_spec"
    assert "broken.job.yaml" in broken["because"][1]
    with ledger(workspace) as made:
        made.life("first", ended=timedelta(minutes=1))
    assert "its file came after the last one ended" in why(lily, "a")["because"][0]
    said = lily("jobs", "why", "nobody")
    assert (said.status, said.err.startswith("job_not_found: ")) == (3, True)
    assert lily("jobs", "why", "a", "--at", "noon").status == 2


def test_why_of_a_job_without_a_window_so_far(lily: Lily, workspace: Path) -> None:
    """It says since when it is registered, and when it is due."""
    write_job(workspace, "a", trigger={"type": "once", "at": "2120-05-04T10:00:00Z"})
    with ledger(workspace) as made:
        made.register("a")
    answer = why(lily, "a")
    assert (answer["outcome"], answer["at"], answer["next"]) == ("no_window_yet", None, "2120-05-04T10:00:00.000000Z")
