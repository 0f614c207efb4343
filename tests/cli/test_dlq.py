"""`lily dlq`: looking at dead letters, retrying them, letting them go."""

import getpass
import sqlite3
from pathlib import Path
from typing import Any, get_args

import pytest

from lily.api import Session
from lily.cli.dlq import Word
from lily.cli.dlq_retry import seconds_each
from lily.dead_letters import Cause
from lily.errors import Code, LilyError
from lily.operations.dead_letters import Pace
from lily.storage.store import Store
from lily.testing import FakeClock
from tests.cli.conftest import Lily, Said, shell, supervisor, write_job
from tests.letters import dead
from tests.work import without_fsync


@pytest.fixture
def place(workspace: Path) -> Path:
    """A workspace with a job that works, and one that does not."""
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: 2000}\n")
    write_job(workspace, "good", bindings=shell("true"))
    write_job(workspace, "bad", bindings=shell("echo 'connection refused' >&2; exit 7"))
    return workspace


def listed(lily: Lily, *arguments: str) -> list[str]:
    """The run ids that `dlq list` shows, newest first."""
    return [row["run_id"] for row in lily("dlq", "list", "--limit", "5000", "--json", *arguments).json["dead_letters"]]


def audit(root: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(root / "db" / "lily.sqlite3")
    try:
        return connection.execute("select action, object, actor, actor_kind, reason from audit order by sequence").fetchall()
    finally:
        connection.close()


# -- looking ---------------------------------------------------------------------------------------


def test_a_failed_run_is_listed_until_somebody_deals_with_it(lily: Lily, place: Path) -> None:
    """Also by the next command, which is another process with the same store."""
    nothing = lily("dlq", "list")
    assert (nothing.status, nothing.out, nothing.err) == (0, "", "no dead letters\n")
    assert lily("jobs", "run", "good").status == 0
    assert lily("jobs", "run", "bad").status == 1
    (row,) = lily("dlq", "list", "--json").json["dead_letters"]
    assert (row["job_id"], row["code"], row["cause"]) == ("bad", "job_execution_failed", "external")
    assert row["reason"] == "sh exited with 7: connection refused"
    text = lily("dlq", "list")
    assert text.out.splitlines()[1].split()[:2] == [row["run_id"], "bad"]
    assert "`lily dlq triage`" in text.err


def test_the_list_is_narrowed_by_what_the_options_say(lily: Lily, place: Path) -> None:
    """And says so when nothing is left."""
    full, refused = dead(place, "good", message="no space left on device")[0], dead(place, "bad", message="Connection Refused")[0]
    (row,) = lily("dlq", "list", "--cause", "resources", "--json").json["dead_letters"]
    assert row["run_id"] == full
    assert listed(lily, "--job", "bad") == listed(lily, "--match", "connection refused") == [refused]
    assert listed(lily, "--fingerprint", row["fingerprint"]) == [full]
    assert lily("dlq", "list", "--limit", "1").err == "1 of 2; `lily dlq triage` groups them\n"
    assert "none of the 2 dead letters" in lily("dlq", "list", "--job", "other").err


def test_show_has_every_attempt_with_its_error(lily: Lily, place: Path) -> None:
    """And says what to do."""
    said = lily("jobs", "run", "bad", "--set", "runtime.retry_max=1", "--set", "runtime.backoff.strategy=none", "--json")
    run_id = said.lines[-1]["receipt"]["run_id"]
    shown = lily("dlq", "show", run_id[-4:], "--json").json
    assert (shown["run_id"], shown["state"], shown["retried_from"], shown["retried_as"]) == (run_id, "dead", None, None)
    assert [attempt["error"]["message"] for attempt in shown["attempts"]] == ["sh exited with 7: connection refused"] * 2
    text = lily("dlq", "show", run_id).out
    assert "see that the service answers again" in text
    assert text.count("sh exited with 7") == 3


def test_show_sends_nobody_to_what_it_shows_itself(lily: Lily, place: Path) -> None:
    """Of an error that tells nothing of its cause."""
    lily("jobs", "run", "bad", "--set", "bindings.argv=[sh, -c, exit 9]")
    (run_id,) = listed(lily)
    shown = lily("dlq", "show", run_id)
    assert "unknown" in shown.out
    assert f"read `lily runs show {run_id}`; then `lily dlq retry {run_id}`, or" in shown.out


def test_what_is_no_dead_letter_is_not_shown_as_one(lily: Lily, place: Path) -> None:
    """Neither a run that went well, nor one that policy refused, nor one that was cleared."""
    write_job(place, "denied", capabilities=[])
    good = lily("jobs", "run", "good", "--json").lines[-1]["receipt"]["run_id"]
    denied = lily("jobs", "run", "denied", "--json").lines[-1]["receipt"]
    assert denied["error"]["code"] == "job_policy_denied"
    (cleared,) = dead(place, "bad")
    assert lily("dlq", "clear", cleared, "--yes").status == 0
    for run_id in (good, denied["run_id"], cleared):
        said = lily("dlq", "show", run_id)
        assert (said.status, said.err.partition(":")[0]) == (3, "dead_letter_not_found")
    assert listed(lily) == []


def test_triage_groups_and_masks_secrets(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By fingerprint over jobs, the largest first; also a secret whose name nobody would guess, when the job refers to it."""
    monkeypatch.setenv("ZEBRA", "stripes-and-grass")
    write_job(place, "zebra", bindings={**shell("true"), "env": {"ZEBRA": {"secret": "env:ZEBRA"}}})
    dead(place, "good", 2, message="connection to 10.0.0.7 refused: connection refused, password=hunter2x")
    (last,) = dead(place, "bad", message="connection to 10.0.0.8 refused: connection refused, password=hunter2x")
    dead(place, "zebra", message="the reply was: stripes-and-grass is wrong")
    found = lily("dlq", "triage", "--json").json
    first, second = found["groups"]
    assert found["total"] == 4
    assert (first["count"], first["jobs"], first["example"], first["cause"]) == (3, 2, last, "external")
    assert first["reason"] == "connection to 10.0.0.8 refused: connection refused, password=***"
    assert f"lily dlq retry --all --fingerprint {first['fingerprint']}" in first["action"]
    assert second["reason"] == "the reply was: *** is wrong"
    text = lily("dlq", "triage")
    assert text.out.startswith(f"3 × external, fingerprint {first['fingerprint']}\n")
    assert not any(secret in text.out for secret in ("hunter2x", "stripes"))


def test_text_of_others_is_shown_and_does_nothing(lily: Lily, place: Path) -> None:
    """Control characters and line ends of an error are written out."""
    (run_id,) = dead(place, "bad", message="odd \x1b[31m\nsecond line [red]")
    for said in (lily("dlq", "list"), lily("dlq", "triage"), lily("dlq", "show", run_id)):
        assert "\x1b" not in said.out
        assert "[red]" in said.out


def test_the_words_for_causes_are_those_of_the_code() -> None:
    """They are written out once more for the type checker."""
    assert set(get_args(Word)) == {cause.value for cause in Cause}


# -- retrying --------------------------------------------------------------------------------------


def test_a_retry_is_a_new_run_with_a_lineage_both_ways(lily: Lily, place: Path) -> None:
    """The entry goes with the same transaction, which is audited; the old run says what it was retried as."""
    (old,) = dead(place, "good")
    said = lily("dlq", "retry", old, "--reason", "it is back")
    assert said.status == 0
    assert "no supervisor is up: the new runs wait for `lily up`" in said.err
    new = said.out.split()[-1]
    assert listed(lily) == []
    shown = lily("dlq", "show", old, "--json").json
    assert (shown["state"], shown["retried_as"], len(shown["attempts"])) == ("retried", new, 1)
    assert f"retried as  {new}" in lily("runs", "show", old).out
    run = lily("runs", "show", new, "--json").json
    assert (run["status"], run["lineage"], run["trigger"]["retried_from"]) == ("queued", {"retried_from": old, "spec": "pinned"}, old)
    assert audit(place) == [("dead_letter.retry", old, getpass.getuser(), "cli", "it is back")]
    again = lily("dlq", "retry", old)
    assert (again.status, again.out) == (3, "")
    assert again.err.startswith(f"dead_letter_not_found: this run is not among the dead letters any more: it was retried as {new} ·")
    assert "stay" not in again.err
    assert f"retried as {new}" in lily("dlq", "clear", old, "--yes").err


@pytest.mark.e2e
def test_a_new_run_that_fails_is_a_dead_letter_of_its_own(lily: Lily, place: Path) -> None:
    """It says where it came from; the supervisor runs what was retried."""
    (old,) = dead(place, "bad")
    with supervisor(place):
        assert lily("dlq", "retry", old, "--canary").status == 1
    (new,) = listed(lily)
    shown = lily("dlq", "show", new, "--json").json
    assert (shown["retried_from"], shown["state"]) == (old, "dead")
    assert lily("runs", "show", new, "--json").json["receipt"]["trigger"]["retried_from"] == old


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_ids_that_are_no_dead_letters_end_with_3_where_all_are_such(lily: Lily, place: Path, options: tuple[str, ...]) -> None:
    """There is nothing that could stay; beside a dead letter it is 1, for not all was done."""
    said = lily("dlq", "retry", "nope", *options)
    assert (said.status, said.err.startswith("run_not_found: "), "stay" in said.err) == (3, True, False)
    (old,) = dead(place, "good")
    said = lily("dlq", "retry", "nope", old, "--json", *options)
    assert (said.status, [each["run"] for each in said.json["kept"]], len(said.json["retried"])) == (1, ["nope"], 1)
    assert "stay" not in said.err


def test_one_bad_entry_is_passed_over_and_named(lily: Lily, place: Path) -> None:
    """A job that is gone, and one whose file is wrong, with --spec current; the others are retried, and the exit status is 1."""
    write_job(place, "gone")
    wrong = write_job(place, "wrong")
    first, second, third, fourth = (dead(place, job)[0] for job in ("gone", "good", "wrong", "good"))
    (place / ".lily" / "jobs" / "gone.job.yaml").unlink()
    wrong.write_text("id: wrong\n")
    dry = lily("dlq", "retry", "--all", "--spec", "current", "--dry-run", "--json")
    assert (dry.status, dry.json["dry_run"]) == (1, True)
    assert [row["retried_as"] for row in dry.json["retried"]] == [None, None]
    assert len(listed(lily)) == 4
    said = lily("dlq", "retry", "--all", "--spec", "current", "--json")
    assert said.status == 1
    assert [row["run_id"] for row in said.json["retried"]] == [second, fourth]
    assert [(row["run"], row["error"]["code"]) for row in said.json["kept"]] == [(first, "job_not_found"), (third, "job_invalid_spec")]
    assert (said.json["left"], said.json["stopped"]) == (0, None)
    assert listed(lily) == [third, first]
    pinned = lily("dlq", "retry", "--all")
    assert (pinned.status, listed(lily)) == (0, [])


def test_the_current_spec_is_what_the_file_says_now(lily: Lily, place: Path) -> None:
    """After the job was mended, the retry does not repeat what was wrong."""
    (old,) = dead(place, "bad")
    write_job(place, "bad", bindings=shell("true"))
    assert lily("dlq", "retry", old, "--spec", "current", "--canary").status == 0
    assert listed(lily) == []


def test_all_takes_what_the_options_let_through_oldest_first(lily: Lily, place: Path) -> None:
    """No more than the limit."""
    bad = [dead(place, "bad", message=f"no luck {n}")[0] for n in range(3)]
    (good,) = dead(place, "good", message="disk full")
    said = lily("dlq", "retry", "--all", "--job", "bad", "--match", "NO LUCK", "--limit", "2", "--json")
    assert [row["run_id"] for row in said.json["retried"]] == bad[:2]
    assert listed(lily) == [good, bad[2]]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "a"),
        ("a", "--match", "x"),
        ("a", "--limit", "1"),
        ("--all", "--rate", "30"),
        ("--all", "--rate", "0/m"),
        ("--all", "--limit", "0"),
        ("--all", "--cause", "moon"),
        ("--all", "--spec", "other"),
    ],
)
def test_what_makes_no_sense_is_refused(lily: Lily, place: Path, arguments: tuple[str, ...]) -> None:
    """Before anything is retried."""
    (old,) = dead(place, "good")
    said = lily("dlq", "retry", *arguments)
    assert (said.status, said.out) == (2, "")
    assert listed(lily) == [old]


def test_a_canary_that_fails_keeps_the_rest(lily: Lily, place: Path) -> None:
    """Without a supervisor it runs here; the rest stays, and the exit status is 1."""
    old = dead(place, "bad", 3)
    said = lily("dlq", "retry", "--all", "--canary", "--json")
    assert said.status == 1
    assert [row["run_id"] for row in said.json["retried"]] == old[:1]
    assert said.json["left"] == 2
    assert said.json["stopped"]["code"] is None
    assert "is failed, so the rest was not retried" in said.json["stopped"]["message"]
    canary = said.json["retried"][0]["retried_as"]
    assert listed(lily) == [canary, *old[:0:-1]]
    assert lily("runs", "show", canary, "--json").json["status"] == "failed"


def test_a_canary_that_succeeds_lets_the_rest_go(lily: Lily, place: Path) -> None:
    """One that can't be retried is no canary: the next one is."""
    write_job(place, "gone")
    dead(place, "gone")
    old = dead(place, "good", 3)
    (place / ".lily" / "jobs" / "gone.job.yaml").unlink()
    said = lily("dlq", "retry", "--all", "--canary", "--spec", "current")
    assert said.status == 1  # for the one that stays
    assert [line.split()[0] for line in said.out.splitlines()] == old
    assert "the canary is succeeded" in said.err
    states = [run["status"] for run in lily("runs", "list", "--limit", "3", "--json").json["runs"]]
    assert states == ["queued", "queued", "succeeded"]


def paced(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[float]:
    """The command's pauses are those of a clock that stands still; Ctrl-C comes in the pause after so many."""
    pauses: list[float] = []
    clock = FakeClock()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == stop_after:
            raise KeyboardInterrupt
        clock.jump(seconds=seconds)

    monkeypatch.setattr("lily.cli.dlq_retry._pace", lambda seconds: Pace(seconds, clock, sleep))
    return pauses


def test_a_rate_paces_the_retries(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 a minute are two seconds apart; nobody waits before the first."""
    dead(place, "good", 4)
    pauses = paced(monkeypatch)
    assert lily("dlq", "retry", "--all", "--rate", "30/m").status == 0
    assert pauses == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(("rate", "seconds"), [("1/s", 1.0), ("4/s", 0.25), ("90/m", 2 / 3), ("10/h", 360.0)])
def test_a_rate_is_so_many_in_a_time(rate: str, seconds: float) -> None:
    """A second, a minute, an hour."""
    assert seconds_each(rate) == pytest.approx(seconds)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_stops_between_two_and_says_how_many_are_left(
    lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """What was retried stays retried; the same command goes on later."""
    old = dead(place, "good", 5)
    paced(monkeypatch, stop_after=2)
    said = lily("dlq", "retry", "--all", "--rate", "1/s", *(["--json"] if as_json else []))
    assert said.status == 130
    assert "stopped by Ctrl-C; 3 are left" in said.err
    if as_json:
        assert (len(said.json["retried"]), said.json["left"], said.json["stopped"]["code"]) == (2, 3, "interrupted")
    assert listed(lily) == old[:1:-1]
    assert lily("dlq", "retry", "--all").status == 0
    assert listed(lily) == []


def test_of_one_that_is_left_it_speaks_as_of_one(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as of several."""
    dead(place, "good", 3)
    paced(monkeypatch, stop_after=2)
    assert "; 1 is left, and `lily dlq retry` takes it up again" in lily("dlq", "retry", "--all", "--rate", "1/s").err


def refuse_after(monkeypatch: pytest.MonkeyPatch, most: int, code: Code) -> None:
    """Only so many runs are accepted, in all."""
    taken: list[Any] = []
    real = Store.submit

    def submit(self: Any, new: Any, then: Any = None, by: Any = None) -> Any:
        if len(taken) + len(new) > most:
            raise LilyError(code, "no room", hint="wait")
        taken.extend(new)
        return real(self, new, then, by)

    monkeypatch.setattr(Store, "submit", submit)


def test_what_the_queue_refuses_stays_and_the_rest_with_it(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit are retried, down to the last; the refusal's code is the exit status."""
    old = dead(place, "good", 10)
    refuse_after(monkeypatch, 7, Code.OWNER_CONFLICT)  # any code that says nothing of one entry alone
    said = lily("dlq", "retry", "--all", "--json")
    assert said.status == 4
    assert [row["run_id"] for row in said.json["retried"]] == old[:7]
    assert (said.json["left"], said.json["stopped"]["code"]) == (3, "owner_conflict")
    assert listed(lily) == old[:6:-1]


def test_a_full_disk_stops_at_once(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller batch would meet it too; everything stays."""
    old = dead(place, "good", 10)
    refuse_after(monkeypatch, 7, Code.DISK_FULL)
    said = lily("dlq", "retry", "--all")
    assert (said.status, said.out) == (4, "")
    assert said.err.startswith("disk_full: nothing more is accepted: no room; 10 are left")
    assert listed(lily) == old[::-1]


def test_ctrl_c_while_the_canary_runs_cancels_it_and_keeps_the_rest(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else was begun."""
    old = dead(place, "good", 3)
    monkeypatch.setattr("lily.cli.conduct.to_its_end", lambda place, settings, store, run, progress: (run, True))
    said = lily("dlq", "retry", "--all", "--canary")
    assert said.status == 130
    assert "2 are left" in said.err
    assert listed(lily) == old[:0:-1]


def test_a_key_that_is_taken_keeps_one_entry_and_no_other(lily: Lily, place: Path) -> None:
    """A batch is refused for it, and goes through in halves without it."""
    before, (keyed,), after = dead(place, "good", 3), dead(place, "good", key="nightly"), dead(place, "good", 3)
    with Session(place) as session:
        other = session.submit("good", key="nightly")
    said = lily("dlq", "retry", "--all", "--json")
    assert said.status == 1
    assert [row["run_id"] for row in said.json["retried"]] == [*before, *after]
    (kept,) = said.json["kept"]
    assert (kept["run"], kept["error"]["code"]) == (keyed, "run_state_invalid")
    assert other in kept["error"]["message"]
    assert listed(lily) == [keyed]


def unsynced(*arguments: Any, **options: Any) -> Store:
    """A store that does not wait for the disk."""
    made = Store(*arguments, **options)
    without_fsync(made)
    return made


@pytest.mark.e2e
def test_a_thousand_go_with_a_canary_and_a_rate(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary's end is waited for once; then one after the other; one bad entry is passed over."""
    write_job(place, "gone")
    dead(place, "good", 500)
    (bad,) = dead(place, "gone")
    dead(place, "good", 499)
    (place / ".lily" / "jobs" / "gone.job.yaml").unlink()
    pauses = paced(monkeypatch)
    monkeypatch.setattr("lily.operations.session.Store", unsynced)
    canaries: list[str] = []

    def ended(place: Any, settings: Any, store: Any, run: Any) -> Any:
        canaries.append(run.run_id)
        run.status = type(run.status).SUCCEEDED
        return run

    monkeypatch.setattr("lily.cli.dlq_retry._to_its_end", ended)
    said = lily("dlq", "retry", "--all", "--canary", "--rate", "600/m", "--spec", "current", "--json")
    assert (len(said.json["retried"]), len(said.json["kept"]), said.json["left"]) == (999, 1, 0)
    assert canaries == [said.json["retried"][0]["retried_as"]]
    assert len(pauses) == 998
    assert listed(lily) == [bad]


def test_a_whole_batch_takes_few_transactions(lily: Lily, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no rate is given."""
    dead(place, "good", 1000)
    batches: list[int] = []
    real = Store.submit

    def submit(self: Any, new: Any, then: Any = None, by: Any = None) -> Any:
        batches.append(len(new))
        return real(self, new, then, by)

    monkeypatch.setattr(Store, "submit", submit)
    assert lily("dlq", "retry", "--all", "--json").status == 0
    assert batches == [200] * 5
    assert listed(lily) == []


def test_a_full_queue_takes_as_many_as_it_holds_and_the_rest_stays(lily: Lily, place: Path) -> None:
    """The command says why it stopped, with the refusal's exit status; run again later it goes on."""
    dead(place, "good", 30)
    (place / ".lily" / "config.yaml").write_text("queue: {max_size: 10}\n")
    said = lily("dlq", "retry", "--all", "--json")
    assert (said.status, len(said.json["retried"]), said.json["left"]) == (4, 8, 22)
    assert said.json["stopped"]["code"] == "queue_backpressure"
    assert len(listed(lily)) == 22
    assert len(lily("queue", "list", "--json").json["runs"]) == 8


def test_a_refused_retry_of_many_says_so_in_a_line_that_begins_with_the_code(lily: Lily, place: Path) -> None:
    """As every refusal does, so that scripts can tell a full queue from a full disk."""
    dead(place, "good", 3)
    (place / ".lily" / "config.yaml").write_text("queue: {max_size: 1, backpressure_percent: 100}\n")
    said = lily("dlq", "retry", "--all")
    assert said.status == 4
    assert [line for line in said.err.splitlines() if line.startswith("queue_full: nothing more is accepted: ")]


# -- letting go ------------------------------------------------------------------------------------


def files(root: Path) -> list[Path]:
    return sorted((root / ".lily" / "runs").glob("*/*/*"))


def test_clear_needs_a_yes_and_keeps_runs_and_files(lily: Lily, place: Path) -> None:
    """It is audited with its reason."""
    assert lily("jobs", "run", "bad").status == 1
    (run_id,), before = listed(lily), files(place)
    asked = lily("dlq", "clear")
    assert (asked.status, "1 dead letter would be dropped" in asked.err, listed(lily)) == (2, True, [run_id])
    said = lily("dlq", "clear", "--yes", "--reason", "hopeless", "--json")
    assert (said.status, said.json) == (0, {"cleared": [run_id]})
    assert listed(lily) == []
    assert files(place) == before
    assert lily("runs", "show", run_id).status == 0
    assert audit(place)[1:] == [("dead_letter.clear", run_id, getpass.getuser(), "cli", "hopeless")]


def test_clear_takes_just_what_is_named_or_let_through(lily: Lily, place: Path) -> None:
    """An id that is no dead letter drops nothing."""
    bad, good = dead(place, "bad", 2), dead(place, "good", 2)
    assert lily("dlq", "clear", bad[0], "--yes").status == 0
    assert lily("dlq", "clear", good[0], bad[0], "--yes").status == 3
    assert lily("dlq", "clear", good[0], "--job", "good", "--yes").status == 2
    assert listed(lily) == [good[1], good[0], bad[1]]
    assert lily("dlq", "clear", "--job", "good", "--yes").status == 0
    assert listed(lily) == [bad[1]]
    assert lily("dlq", "clear", "--job", "good").status == 0  # there is nothing to be sure of


def test_prune_drops_what_is_old_and_says_what_it_would(lily: Lily, place: Path) -> None:
    """Files stay; the retention of the settings counts where nothing is said."""
    (old,) = dead(place, "bad")
    connection = sqlite3.connect(place / "db" / "lily.sqlite3")
    with connection:
        connection.execute("update dead_letter set added_at = '2020-01-01T00:00:00.000000Z'")
    connection.close()
    (new,) = dead(place, "bad")
    would = lily("dlq", "prune", "--dry-run", "--json")
    assert would.json == {"pruned": [{"run_id": old, "job_id": "bad", "reason": "retention"}], "dry_run": True}
    assert listed(lily) == [new, old]
    said: Said = lily("dlq", "prune")
    assert (said.out, said.err) == (f"{old}  bad  retention\n", "1 dead letter dropped\n")
    assert listed(lily) == [new]
    (row,) = audit(place)
    assert row[0] == "dead_letter.prune"
    assert lily("dlq", "prune", "--older-than", "soon").status == 2


def test_the_settings_bound_the_box(lily: Lily, place: Path) -> None:
    """`dlq.max_entries` holds in every process; the oldest goes."""
    (place / ".lily" / "config.yaml").write_text("dlq: {max_entries: 2, retention_days: 0.5}\n")
    runs = [dead(place, "bad")[0] for _ in range(3)]
    assert listed(lily) == runs[:0:-1]
    (place / ".lily" / "config.yaml").write_text("dlq: {max_entries: 1}\n")
    assert lily("dlq", "prune", "--json").json["pruned"] == [{"run_id": runs[1], "job_id": "bad", "reason": "max_entries"}]
    assert lily("config", "show", "--json").status == 0


def test_pruning_a_run_takes_its_letter_along(lily: Lily, place: Path) -> None:
    """What is gone can't be retried."""
    assert lily("jobs", "run", "bad").status == 1
    assert lily("runs", "prune", "--keep", "0").status == 0
    assert listed(lily) == []
