"""`lily audit list` and `verify`: what a person and a program see of it; and traces, from the child's environment to the log."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lily
from lily.identity import account
from lily.storage.audit import Actor
from tests.cli.conftest import Lily, rest, shell, supervisor, until, write_job
from tests.cli.test_audit_of_commands import WHY, audit, scheduled, stored
from tests.contract.conform import check_fits
from tests.letters import dead
from tests.real.house import until as until_seen


@pytest.fixture
def busy(lily: Lily, workspace: Path) -> Path:
    """Three changes, oldest first: a limit, a pause of the worker, a run."""
    write_job(workspace, "a")
    assert lily("queue", "set", "--max-size", "7", "--reason", "token=abcdef123456").status == 0
    assert lily("worker", "pause", "--reason", WHY).status == 0
    assert lily("jobs", "run", "a", "--detach").status == 0
    return workspace


def listed(lily: Lily, *options: str) -> list[dict[str, Any]]:
    """The rows of a list, which fits its schema."""
    said = lily("audit", "list", *options, "--json")
    assert said.status == 0, said
    check_fits("cli-audit-list", said.json)
    rows: list[dict[str, Any]] = said.json["audit"]
    return rows


def test_a_list_has_the_newest_first_and_says_what_changed(lily: Lily, busy: Path) -> None:
    said = lily("audit", "list")
    assert said.err == ""
    heading, first, second, third = said.out.splitlines()
    assert heading.split() == ["NUMBER", "WHEN", "ACTION", "OBJECT", "ACTOR", "REASON", "CHANGE"]
    assert [line.split()[3] for line in (first, second, third)] == ["run.submit", "worker.pause", "queue.set"]
    assert "max_size: 100 → 7" in third
    assert (WHY in second, account() in second) == (True, True)


def test_a_list_can_be_narrowed_and_is_bounded(lily: Lily, busy: Path) -> None:
    numbers = {
        ("--limit", "2"): [3, 2],
        ("--job", "a"): [3],
        ("--job", "nobody"): [],
        ("--actor", account()): [3, 2, 1],
        ("--actor", "supervisor"): [],
        ("--action", "queue.set"): [1],
        ("--action", "worker"): [2],
        ("--since", "1h"): [3, 2, 1],
        ("--since", "2099-01-01"): [],
        ("--since", "1h", "--action", "run.submit", "--actor", "cli"): [3],
    }
    for options, found in numbers.items():
        assert [row["sequence"] for row in listed(lily, *options)] == found, options
    assert lily("audit", "list", "--job", "nobody").err == "nothing was changed that is like this\n"


@pytest.mark.parametrize("options", [("--limit", "0"), ("--since", "soon"), ("--job", "\udcff"), ("--head", "x")])
def test_an_option_that_makes_no_sense_is_refused_in_one_line(lily: Lily, workspace: Path, options: tuple[str, str]) -> None:
    said = lily("audit", "verify" if options[0] == "--head" else "list", *options)
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (2, "usage", 1)


def test_a_list_masks_what_looks_like_a_secret_and_what_is_one(lily: Lily, busy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In reasons and in changes; digests, ids and traces stay."""
    monkeypatch.setenv("OPENAI_API_KEY", "plain-words-only")
    assert lily("worker", "resume", "--reason", "it was plain-words-only").status == 0
    everything = json.dumps(listed(lily)) + lily("audit", "list").out
    assert ("abcdef123456" in everything, "plain-words-only" in everything) == (False, False)
    assert "token=***" in everything
    stored_rows = {row["sequence"]: row for row in audit(busy)}
    for row in listed(lily):
        assert row["digest"] == stored_rows[row["sequence"]]["digest"]
        assert (row["trace_id"] or "") == stored_rows[row["sequence"]]["trace_id"]


def test_an_empty_audit_is_no_error(lily: Lily, workspace: Path) -> None:
    assert lily("audit", "list").err == "nothing was changed\n"
    assert lily("audit", "verify").out == "ok: 0 rows\n"
    check_fits("cli-audit-verify", lily("audit", "verify", "--json").json)


def by_hand(root: Path, statement: str) -> None:
    with closing(sqlite3.connect(root / "db" / "lily.sqlite3")) as database:
        database.execute(statement)
        database.commit()


@pytest.mark.parametrize(
    ("statement", "kind", "number"),
    [
        ("update audit set reason = 'nothing happened' where sequence = 2", "changed", 2),
        ("delete from audit where sequence = 2", "missing", 2),
        ("delete from audit where sequence = 3", "truncated", 3),
        ("update meta set value = '3 abc' where key = 'audit.head'", "other_head", 3),
    ],
)
def test_what_was_done_by_hand_is_named_and_is_the_exit_status(lily: Lily, busy: Path, statement: str, kind: str, number: int) -> None:
    """One line for a person, one object for a program; a list still works."""
    ok = lily("audit", "verify")
    assert (ok.status, ok.out.startswith("ok: 3 rows, each fits the one before it; head 3:")) == (0, True)
    by_hand(busy, statement)
    said = lily("audit", "verify")
    assert (said.status, said.out.startswith(f"{kind}: row {number}")) == (1, True)
    shown = lily("audit", "verify", "--json")
    check_fits("cli-audit-verify", shown.json)
    assert (shown.status, shown.json["ok"], shown.json["fault"]["kind"], shown.json["fault"]["sequence"]) == (1, False, kind, number)
    assert listed(lily)


def test_a_row_that_holds_no_text_any_more_is_listed_all_the_same(lily: Lily, busy: Path) -> None:
    by_hand(busy, "update audit set before = x'ff00', reason = 5, actor_kind = 'cli' where sequence = 2")
    assert lily("audit", "list").status == 0
    assert lily("audit", "verify").status == 1


def test_a_head_that_was_noted_must_still_be_what_it_was(lily: Lily, busy: Path) -> None:
    """It is in the line that the check prints, and in the supervisor's log."""
    head = lily("audit", "verify").out.split()[-1]
    assert lily("worker", "resume").status == 0
    assert lily("audit", "verify", "--head", head).status == 0
    by_hand(busy, "delete from audit")
    by_hand(busy, "update meta set value = '0 ' where key = 'audit.head'")
    for _ in range(3):
        assert lily("worker", "pause").status == 0
    assert lily("audit", "verify").status == 0
    said = lily("audit", "verify", "--head", head)
    assert (said.status, said.out.startswith("other_head: row 3")) == (1, True)


def test_a_set_of_jobs_that_is_paused_at_once_is_in_the_audit_job_by_job(lily: Lily, workspace: Path) -> None:
    """All under one request, with the set that undoes it."""
    scheduled()(workspace)
    write_job(workspace, "b", trigger={"type": "interval", "every": "1h"})
    set_id = lily("jobs", "pause", "--all", "--reason", WHY, "--json").json["set_id"]
    rows = listed(lily, "--action", "job.pause")
    assert [row["job_id"] for row in rows] == ["b", "a"]
    assert {row["after"]["set_id"] for row in rows} == {set_id}
    assert len({row["request_id"] for row in rows}) == 1


# -- traces ----------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_run_has_one_trace_wherever_it_is_seen(lily: Lily, workspace: Path) -> None:
    """Its child's environment, its files, the log of the supervisor, its dead letter and the audit."""
    write_job(workspace, "a", bindings=shell('echo "trace $LILY_TRACE_ID"; exit 1'))
    with supervisor(workspace) as up:
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        line = until(up, "job_failed", stream="stderr")
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
        up.terminate()
        rest(up)
    shown = lily("runs", "show", run_id, "--json").json
    trace = shown["run"]["trace_id"] if "run" in shown else shown["trace_id"]
    folder = workspace / ".lily" / "runs" / "a" / run_id
    assert (folder / "stdout.log").read_text() == f"trace {trace}\n"
    assert json.loads((folder / "run_receipt.json").read_text())["trace_id"] == trace
    assert json.loads((folder / "events.jsonl").read_text().splitlines()[0])["trace_id"] == trace
    assert f"trace={trace}" in line
    assert trace in (folder / "summary.md").read_text()
    assert lily("dlq", "show", run_id, "--json").json["trace_id"] == trace
    assert {row["trace_id"] for row in listed(lily, "--job", "a")} == {trace}
    assert lily("dlq", "clear", run_id, "--yes").status == 0
    assert {row["trace_id"] for row in listed(lily, "--job", "a")} == {trace}


# -- from Python -----------------------------------------------------------------------------------


def test_many_submissions_are_one_row_and_one_alone_is_its_event(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    import lily as api

    ids = api.submit_many("a", [{"n": n} for n in range(5)])
    api.submit("a")
    assert api.submit_many("a", []) == []
    (row,) = audit(workspace)
    assert (row["action"], row["actor"], row["actor_kind"], row["job_id"]) == ("run.submit", account(), "api", "a")
    assert json.loads(row["after"]) == {"runs": 5, "first": ids[0], "last": ids[-1], "jobs": {"a": 5}}


def test_what_a_key_gives_again_is_no_row(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    for _ in range(2):
        assert lily("jobs", "run", "a", "--detach", "--key", "k").status == 0
    assert len(audit(workspace)) == 1


def test_a_dead_letter_is_retried_from_python_with_its_row(workspace: Path) -> None:
    """The new run is in its place, and names it."""
    write_job(workspace, "a")
    (old,) = dead(workspace, "a")
    new = lily.retry_dead_letter(old, reason=WHY)
    with stored(workspace) as store:
        assert store.run(new).lineage == {"retried_from": old, "spec": "pinned"}
        assert store.run(old).retried_as == new
    (row,) = audit(workspace)
    assert (row["action"], row["object"], row["actor_kind"], row["reason"]) == ("dead_letter.retry", old, "api", WHY)
    with pytest.raises(lily.LilyError) as caught:
        lily.retry_dead_letter(old)
    assert caught.value.code == lily.Code.DEAD_LETTER_NOT_FOUND
    with pytest.raises(lily.LilyError) as caught:
        lily.retry_dead_letter("nobody")
    assert caught.value.code == lily.Code.RUN_NOT_FOUND
    assert len(audit(workspace)) == 1


def test_dead_letters_are_retried_from_python_by_what_they_have_in_common(workspace: Path) -> None:
    """What is wrong with one does not keep the others; a queue that takes no more ends it, and the rest stays."""
    write_job(workspace, "a")
    write_job(workspace, "b")
    ones, others = dead(workspace, "a", 3), dead(workspace, "b", 2, message="no disk")
    (workspace / ".lily" / "jobs" / "b.job.yaml").unlink()
    with lily.Session() as session:
        assert list(session.retry_dead_letters(job_id="a", limit=2).runs) == ones[:2]
        found = session.retry_dead_letters(spec="current", reason=WHY)
        assert (list(found.runs), list(found.kept), found.stopped) == (ones[2:], others, None)
        assert {error.code for error in found.kept.values()} == {lily.Code.JOB_NOT_FOUND}
        assert session.retry_dead_letters(match="DISK", cause="unknown").kept == {}
    with pytest.raises(lily.LilyError, match="is no cause"):
        lily.retry_dead_letters(cause="gremlins")
    with pytest.raises(lily.LilyError, match="no spec to retry with"):  # not the current one under a name of its own
        lily.retry_dead_letters(spec="Pinned")  # type: ignore[arg-type]
    with pytest.raises(lily.LilyError, match="a limit is"):
        lily.retry_dead_letters(limit=0)
    with pytest.raises(lily.LilyError, match="a reason is"):
        lily.retry_dead_letters(reason="\udcff")


def test_a_full_queue_ends_a_retry_from_python_and_keeps_the_rest(workspace: Path) -> None:
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: 2, backpressure_percent: 100, low_water_percent: 50}\n")
    write_job(workspace, "a", runtime={"priority": "critical"})
    (workspace / ".lily" / "config.yaml").unlink()
    old = dead(workspace, "a", 4)
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: 2, backpressure_percent: 100, low_water_percent: 50}\n")
    found = lily.retry_dead_letters()
    assert found.stopped is not None
    assert (list(found.runs), found.stopped.code) == (old[:2], lily.Code.QUEUE_FULL)
    with pytest.raises(lily.LilyError) as caught:
        lily.retry_dead_letter(old[3])
    assert caught.value.code == lily.Code.QUEUE_FULL


def test_a_run_may_retry_dead_letters_from_python_under_its_own_name(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(workspace, "a")
    (old,) = dead(workspace, "a")
    run_id = "20260504T041500.123456Z-k3f9"
    monkeypatch.setenv("LILY_RUN_ID", run_id)
    new = lily.retry_dead_letter(old)
    with stored(workspace) as store:
        assert store.run(new).lineage == {"retried_from": old, "spec": "pinned", "triggered_by_run": run_id}
    assert audit(workspace)[-1]["actor"] == run_id
    assert Actor(name=run_id, kind="scheduler").run_id == run_id
