"""Every command that changes something leaves one row of the audit, and every other command none."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.errors import Code, exit_code
from lily.identity import OF_RUNS, account
from lily.operations.session import open_store
from lily.runs import Status
from lily.settings import load_settings
from lily.storage.audit import Actor
from lily.storage.store import Store
from lily.storage.worker import pause
from lily.workspace import Workspace
from tests.cli.conftest import Lily, supervisor, write_job
from tests.cli.ledgers import Ledger
from tests.contract.test_public_names import COMMANDS, options
from tests.letters import PLACE, dead, will_retry
from tests.real.house import until as until_seen
from tests.work import marked

HOURLY = {"type": "interval", "every": "1h"}
WHY = "because of the storm"
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)

# What only looks, and what writes files that anybody could write with an editor: a workspace or a job file, which the supervisor audits
# when it takes it up.
READS = {
    *(
        "status",
        "health",
        "completion",
        "report",
        "metrics",
        "events tail",
        "store export",
        "config show",
        "config validate",
        "blueprints list",
    ),
    *("blueprints show", "jobs list", "jobs show", "jobs validate", "jobs schema", "jobs tail", "jobs history", "jobs next", "jobs why"),
    *("jobs plan", "runs list", "runs show", "runs active", "runs diff", "queue stats", "queue list", "dlq list", "dlq show", "dlq triage"),
    *("schedule list", "schedule status", "schedule verify", "schedule simulate", "approvals list", "approvals show", "approvals doctor"),
    *("worker status", "audit list", "audit verify", "runs verify", "conditions list", "conditions check", "alerts list", "alerts explain"),
    *("review list", "review show", "doctor", "db status", "db check", "db backup", "support bundle"),
}
FILES_ONLY = {"init", "jobs new"}
# Those that need a supervisor or a stand-in: each has a test of its own below, or beside the tests of approvals.
APART = {
    *("up", "down", "config reload", "approvals check", "alerts test", "review run", "review ack", "review unack"),
    *("db rebuild", "db restore", "db upgrade"),
    *("selftest crash", "selftest disk", "selftest clock", "selftest power"),  # in workspaces of their own
}


@dataclass(frozen=True)
class Mutation:
    """A command that changes something: what is there before, the command's own arguments, and the row that it leaves."""

    command: str
    action: str
    arrange: Callable[[Path], tuple[str, ...]]
    option: str = "--reason"
    refused: tuple[str, ...] | None = None  # arguments with which it changes nothing
    about_job: bool = True


@contextmanager
def stored(root: Path) -> Iterator[Store]:
    """The workspace's store."""
    workspace = Workspace(root)
    store = open_store(workspace, load_settings(workspace))
    yield store
    store.close()


def audit(root: Path) -> list[dict[str, Any]]:
    """Every row, oldest first."""
    path = root / "db" / "lily.sqlite3"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("select * from audit order by sequence")]


def job(root: Path) -> tuple[str, ...]:
    write_job(root, "a")
    return ("a",)


def batch(root: Path) -> tuple[str, ...]:
    write_job(root, "a")
    (root / "lines").write_text("{}\n{}\n")
    return ("a", "--batch", str(root / "lines"))


def queued(root: Path) -> tuple[str, ...]:
    """A run that waits."""
    write_job(root, "a")
    import lily

    return (lily.submit("a", workspace=root),)


def ended(root: Path) -> tuple[str, ...]:
    """A run that has failed."""
    write_job(root, "a")
    return tuple(dead(root, "a"))


def running(root: Path) -> tuple[str, ...]:
    """A run of a supervisor that is gone."""
    from lily.moves import start

    (run_id,) = queued(root)
    with stored(root) as store:
        assert store.apply([start(store.run(run_id), PLACE, AT, attempt=True)]) == [None]
    return ("--running",)


def retrying(root: Path) -> tuple[str, ...]:
    """A run that waits for its second attempt."""
    (run_id,) = queued(root)
    with stored(root) as store:
        will_retry(store, run_id)
    return (run_id,)


def waiting(root: Path) -> tuple[str, ...]:
    """A run that waits for an approval."""
    from lily.approvals.record import Approval
    from lily.moves import wait_approval

    (run_id,) = queued(root)
    asked = Approval(number=1, kind="job", what="job a", why="", attempts=0)
    with stored(root) as store:
        assert store.apply([wait_approval(store.run(run_id), asked, AT)]) == [None]
        assert store.run(run_id).status is Status.WAITING_APPROVAL
    return (run_id,)


def scheduled(state: str = "") -> Callable[[Path], tuple[str, ...]]:
    def arrange(root: Path) -> tuple[str, ...]:
        from lily.ledger import State

        write_job(root, "a", trigger=HOURLY)
        ledger = Ledger(root)
        ledger.register("a")
        if state:
            ledger.change("a", State(state))
        ledger.store.close()
        return ("a",)

    return arrange


def paused(root: Path) -> tuple[str, ...]:
    with stored(root) as store:
        pause(store, Actor(name="ada"), "", AT)
    return ()


def with_options(arrange: Callable[[Path], tuple[str, ...]], *more: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda root: (*arrange(root), *more)


def only(*words: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda root: words


def after(arrange: Callable[[Path], tuple[str, ...]], *words: str) -> Callable[[Path], tuple[str, ...]]:
    """The other way round: what is there matters, and not its id."""

    def made(root: Path) -> tuple[str, ...]:
        arrange(root)
        return words

    return made


def written(root: Path) -> tuple[str, ...]:
    """A run that has ended, with its artifacts."""
    (run_id,) = ended(root)
    folder = root / ".lily" / "runs" / "a" / run_id
    folder.mkdir(parents=True)
    (folder / "summary.md").touch()
    with stored(root) as store:
        store.apply([], written=[marked(store.run(run_id))])
    return (run_id,)


def aged(root: Path) -> tuple[str, ...]:
    """A dead letter of long ago."""
    ids = ended(root)
    with closing(sqlite3.connect(root / "db" / "lily.sqlite3")) as database:
        old = (datetime.now(UTC) - timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        database.execute("update dead_letter set added_at = ?", (old,))
        database.commit()
    return ids


MUTATIONS = [
    Mutation("jobs run", "run.submit", with_options(job, "--detach"), refused=("nobody", "--detach")),
    Mutation("jobs run", "run.submit", batch),
    Mutation("jobs pause", "job.pause", scheduled(), refused=("nobody",)),
    Mutation("jobs resume", "job.resume", scheduled("paused"), refused=("nobody",)),
    Mutation("jobs disable", "job.disable", scheduled(), refused=("nobody",)),
    Mutation("jobs enable", "job.enable", scheduled("disabled"), refused=("nobody",)),
    Mutation("runs cancel", "run.cancel", queued, refused=("nobody",)),
    Mutation("runs retry-now", "run.retry_now", retrying, refused=("nobody",)),
    Mutation("runs fail", "run.fail", running, refused=()),
    Mutation("runs replay", "run.replay", with_options(ended, "--detach"), refused=("nobody",)),
    Mutation("runs replay", "approval.approve", with_options(ended, "--detach", "--approve")),
    Mutation("runs prune", "run.prune", after(written, "--keep", "0"), refused=("--keep", "0"), about_job=False),
    Mutation("queue cancel", "run.cancel", queued, refused=("nobody",)),
    Mutation("queue set", "queue.set", only("--max-size", "7"), refused=("--max-size", "0"), about_job=False),
    Mutation("queue set", "queue.set", only("--max-size", "7", "--persist"), about_job=False),
    Mutation("dlq retry", "dead_letter.retry", ended, refused=("nobody",)),
    Mutation("dlq clear", "dead_letter.clear", with_options(ended, "--yes"), refused=("nobody", "--yes")),
    Mutation(
        "dlq prune",
        "dead_letter.prune",
        after(aged, "--older-than", "1d"),
        refused=("--older-than", "1d"),
        about_job=False,
    ),
    Mutation("worker pause", "worker.pause", only(), refused=("nobody",), about_job=False),
    Mutation("worker resume", "worker.resume", paused, refused=(), about_job=False),
    Mutation("schedule rebuild", "schedule.rebuild", only(), refused=("nobody",), about_job=False),
    Mutation("approvals approve", "approval.approve", waiting, option="--note", refused=("nobody",)),
    Mutation("approvals deny", "approval.deny", waiting, refused=("nobody",)),
    Mutation("store checkpoint", "store.checkpoint", only(), refused=("nobody",), about_job=False),
    Mutation("store reset", "store.reset", with_options(only(), "--yes"), refused=(), about_job=False),
]


def kept_files(root: Path) -> list[Path]:
    """The artifacts, and the settings where there are any."""
    return sorted([*(root / ".lily" / "runs").rglob("*"), *(root / ".lily").glob("config*")])


def names(mutation: Mutation) -> str:
    return f"{mutation.command} {mutation.action}"


def test_every_command_is_known_to_change_something_or_not() -> None:
    """A new command has to be put into one of these lists, and a new mutation into the table."""
    known = [READS, FILES_ONLY, APART, {each.command for each in MUTATIONS}]
    assert set().union(*known) == set(COMMANDS) == set(options())
    assert sum(map(len, known)) == len(COMMANDS)


@pytest.mark.parametrize("case", MUTATIONS, ids=names)
def test_a_change_leaves_one_row_that_says_all_of_it(lily: Lily, workspace: Path, case: Mutation) -> None:
    """Who, in which request, why, before and after; the trace of the run that it is about; and the chain holds."""
    arguments = case.arrange(workspace)
    before = len(audit(workspace))
    said = lily(*case.command.split(), *arguments, case.option, WHY)
    assert said.status == 0, said
    (row,) = audit(workspace)[before:]
    assert (row["action"], row["actor"], row["actor_kind"], row["reason"]) == (case.action, account(), "cli", WHY)
    assert len(row["request_id"]) == 16
    assert json.loads(row["before"]) != json.loads(row["after"])
    assert (row["job_id"] == "a") is case.about_job
    if case.about_job and row["object"] and case.action.partition(".")[0] != "job":
        assert len(row["trace_id"]) == 32
    assert lily("audit", "verify").status == 0


@pytest.mark.parametrize("case", [case for case in MUTATIONS if case.refused is not None], ids=names)
def test_what_is_refused_or_changes_nothing_leaves_no_row(lily: Lily, workspace: Path, case: Mutation) -> None:
    write_job(workspace, "a")
    assert lily("runs", "list").status == 0
    lily(*case.command.split(), *(case.refused or ()))
    assert audit(workspace) == []


@pytest.mark.parametrize("case", MUTATIONS, ids=names)
def test_a_change_that_can_not_be_audited_does_not_happen(lily: Lily, workspace: Path, case: Mutation) -> None:
    """Both are one transaction."""
    arguments = case.arrange(workspace)
    lily("runs", "list")  # makes the store where nothing else did
    with closing(sqlite3.connect(workspace / "db" / "lily.sqlite3")) as database:
        database.execute("alter table audit rename to elsewhere")
        before, files = list(database.iterdump()), kept_files(workspace)
        said = lily(*case.command.split(), *arguments, case.option, WHY)
        assert "the store can't be used: no such table: audit" in said.err, said
        assert (list(database.iterdump()), kept_files(workspace)) == (before, files)


@pytest.mark.e2e
def test_what_only_looks_leaves_no_row(lily: Lily, workspace: Path) -> None:
    """Nor does what writes files alone."""
    write_job(workspace, "a", trigger=HOURLY)
    run_id, other = dead(workspace, "a", 2)
    words: dict[str, tuple[str, ...]] = {
        "jobs show": ("a",),
        "jobs history": ("a",),
        "jobs tail": ("a",),
        "jobs next": ("a",),
        "jobs why": ("a",),
    }
    words |= {"jobs new": ("b", "--blueprint", "command.v1"), "blueprints show": ("command.v1",), "init": (".",)}
    words |= {"runs show": (run_id,), "runs diff": (run_id, other), "dlq show": (run_id,), "approvals show": (run_id,)}
    words |= {"alerts explain": ("a",), "conditions check": ("a",), "review show": ("orphaned:a",)}
    words |= {"db backup": (str(workspace / "copy"),), "support bundle": ("--output", str(workspace / "bundle.tar.gz"))}
    words |= {"completion": ("bash",), "store export": ("--jsonl",), "schedule simulate": ("--from", "2026-03-28", "--to", "2026-03-29")}
    for command in sorted(READS | FILES_ONLY):
        said = lily(*command.split(), *words.get(command, ()))
        assert said.status in (0, 1, 3, 4), (command, said)
        assert audit(workspace) == [], command


@pytest.mark.e2e
def test_the_supervisors_start_and_stop_and_a_reload_are_audited_for_who_asked(lily: Lily, workspace: Path) -> None:
    """With the request id that its log names; a reload says what the file says now, and one that changes nothing says nothing."""
    write_job(workspace, "a", trigger=HOURLY)
    with supervisor(workspace) as up:
        until_seen(lambda: any((row["action"], row["job_id"]) == ("schedule.add", "a") for row in audit(workspace)), "its schedule")
        (workspace / ".lily" / "config.yaml").write_text("dlq: {max_entries: 5}\n")
        assert lily("config", "reload", "--reason", WHY).status == 0
        assert lily("config", "reload").status == 0
        assert lily("down", "--reason", "bedtime").status == 0
        assert up.stderr is not None
        log = up.stderr.read()
    started, added, changed, stopped = (row for row in audit(workspace) if row["job_id"] != "lily.review")
    assert [row["action"] for row in (started, added, changed, stopped)] == [
        *("supervisor.start", "schedule.add", "config.change", "supervisor.stop")
    ]
    assert [(row["actor"], row["actor_kind"]) for row in (started, added, changed, stopped)] == [
        *((account(), "cli"), ("lily up", "supervisor"), (account(), "cli"), (account(), "cli"))
    ]
    assert (changed["reason"], stopped["reason"]) == (WHY, "bedtime")
    assert json.loads(changed["before"])["settings"] == {"dlq.max_entries": None}
    assert json.loads(changed["after"])["settings"] == {"dlq.max_entries": 5}
    assert json.loads(added["after"])["trigger"]["every"] == "1h"
    assert json.loads(stopped["before"])["life"] == json.loads(started["after"])["life"]
    for row in (changed, stopped):
        assert f"request={row['request_id']}" in log
    assert f"audit={changed['sequence']}:{changed['digest']}" in log


@pytest.mark.e2e
def test_a_supervisor_that_was_killed_is_taken_over_from(lily: Lily, workspace: Path) -> None:
    """The row names the one before it."""
    with supervisor(workspace) as first:
        first.kill()
        first.wait()
    with supervisor(workspace) as second:
        second.terminate()
        second.wait()
    begun, taken, stopped = (row for row in audit(workspace) if row["job_id"] != "lily.review")  # which it may come to, or not
    assert [row["action"] for row in (begun, taken, stopped)] == ["supervisor.start", "supervisor.take_over", "supervisor.stop"]
    assert json.loads(taken["before"])["life"] == begun["object"]
    assert (stopped["actor_kind"], stopped["reason"]) == ("supervisor", "SIGTERM")


def test_one_command_has_one_request_id_however_much_it_changes(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    ids = dead(workspace, "a", 3)
    assert lily("dlq", "retry", "--all", "--reason", WHY).status == 0
    rows = audit(workspace)
    assert [row["object"] for row in rows] == ids
    assert len({row["request_id"] for row in rows}) == 1
    assert lily("jobs", "run", "a", "--detach").status == 0
    assert audit(workspace)[-1]["request_id"] != rows[0]["request_id"]


# -- from inside a run -----------------------------------------------------------------------------


@pytest.fixture
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process is part of a run of the workspace, as a child of it is; gives the run's id."""
    run_id = "20260504T041500.123456Z-k3f9"
    monkeypatch.setenv("LILY_RUN_ID", run_id)
    monkeypatch.setenv("LILY_TRACE_ID", "ab" * 16)
    monkeypatch.setenv("LILY_RUN_DIR", str(workspace / ".lily" / "runs" / "a" / run_id))
    return run_id


@pytest.mark.parametrize("case", MUTATIONS, ids=names)
def test_a_run_may_do_what_runs_may_and_nothing_else(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch, case: Mutation) -> None:
    """It acts as the scheduler, under its own id and trace; schedules, settings, approvals and the worker are not for it."""
    arguments = case.arrange(workspace)
    run_id, before = inside.__wrapped__(workspace, monkeypatch), len(audit(workspace))  # type: ignore[attr-defined]
    said = lily(*case.command.split(), *arguments, case.option, WHY)
    rows = audit(workspace)[before:]
    if case.action in OF_RUNS:
        assert (said.status, [(row["actor"], row["actor_kind"]) for row in rows]) == (0, [(run_id, "scheduler")]), said
        assert all(rows[0]["trace_id"])
    else:
        assert (said.status, rows) == (exit_code(Code.ACTOR_FORBIDDEN), []), said
        assert said.err.startswith(f"actor_forbidden: a run may not do this: {case.action}")


@pytest.mark.parametrize("command", ["up", "down", "config reload", "approvals check nobody"])
def test_a_run_may_not_start_stop_or_reload_the_supervisor(lily: Lily, workspace: Path, inside: str, command: str) -> None:
    said = lily(*command.split())
    assert (said.status, said.err.partition(":")[0]) == (4, "actor_forbidden")
    assert f"run {inside}" in said.err


def test_a_run_that_another_run_submits_names_it(lily: Lily, workspace: Path, inside: str) -> None:
    write_job(workspace, "a")
    (workspace / "lines").write_text('{"input": {"n": 1}}\n')
    assert lily("jobs", "run", "a", "--detach").status == 0
    assert lily("jobs", "run", "a", "--batch", "lines").status == 0
    for run in lily("runs", "list", "--json").json["runs"]:
        assert run["lineage"] == {"triggered_by_run": inside}
        assert run["trigger"]["by"] == inside


def test_a_run_of_another_workspace_is_an_account_here(lily: Lily, workspace: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may deploy to, or look after, a workspace that is not its own."""
    monkeypatch.setenv("LILY_RUN_DIR", "/elsewhere/.lily/runs/a/20260504T041500.123456Z-k3f9")
    assert lily("worker", "pause").status == 0
    assert audit(workspace)[-1]["actor"] == account()


@pytest.mark.e2e
def test_a_job_that_pauses_another_one_fails_and_says_why(lily: Lily, workspace: Path) -> None:
    """With the environment that a run really has."""
    import sys

    write_job(workspace, "b", trigger=HOURLY)
    argv = [sys.executable, "-m", "lily", "jobs", "pause", "b", "--workspace", str(workspace)]
    write_job(workspace, "a", bindings={"argv": argv, "env": {"PYTHONPATH": str(Path(__file__).parents[2])}})
    said = lily("jobs", "run", "a", "--json")
    assert said.status == 1
    receipt = said.lines[-1]["receipt"]
    assert "actor_forbidden" in json.dumps(said.lines)
    assert receipt["error"]["blueprint_code"] or receipt["error"]["message"]
    assert [row["action"] for row in audit(workspace)] == ["run.submit"]
