"""`lily jobs run`: in this process, handed over, detached, dry, and stopped by Ctrl-C."""

import json
import os
import pty
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from actors.owning import alerts_of
from lily.engines.process_table import children_of
from lily.errors import Code, LilyError
from lily.operations.client import supervisor_status
from lily.workspace import Owner, OwnerLock, Workspace, current_owner
from tests.cli.conftest import Lily, command, environment, rest, shell, started, supervisor, until, write_job
from tests.real.house import until as until_seen

ARTIFACTS = {"run_receipt.json", "summary.md", "events.jsonl"}


def receipts(root: Path, job_id: str) -> list[dict[str, Any]]:
    """The job's receipts, oldest first."""
    found = sorted((root / ".lily" / "runs" / job_id).glob("*/run_receipt.json"))
    return [json.loads(path.read_text()) for path in found]


def test_a_run_prints_its_summary(lily: Lily, workspace: Path) -> None:
    """The same text as summary.md, with status 0."""
    write_job(workspace, "a", bindings=shell("echo hello"))
    said = lily("jobs", "run", "a")
    assert said.status == 0
    assert said.out.startswith("# Succeeded: Job a\n")
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    assert said.out == (folder / "summary.md").read_text()
    assert {path.name for path in folder.iterdir()} >= ARTIFACTS


def test_with_json_events_come_as_lines_and_the_receipt_last(lily: Lily, workspace: Path) -> None:
    """The events are those of events.jsonl, without a gap."""
    write_job(workspace, "a", bindings=shell("echo hello"))
    said = lily("jobs", "run", "a", "--json")
    *events, last = said.lines
    assert said.err == ""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    (folder,) = (workspace / ".lily" / "runs" / "a").iterdir()
    assert events == [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert last == {"receipt": json.loads((folder / "run_receipt.json").read_text())}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"bindings": shell("exit 7")}, 1, "job_execution_failed"),
        ({"target": {"kind": "blueprint", "id": "nope.v1"}}, 3, "job_target_unresolved"),
        ({"bindings": {"argv": []}}, 3, "job_bindings_invalid"),
        ({"capabilities": []}, 4, "job_policy_denied"),
        ({"bindings": {"argv": ["true"], "cwd": ".."}}, 4, "job_policy_denied"),
    ],
)
def test_the_exit_status_says_what_kind_of_failure_it_was(
    lily: Lily, workspace: Path, changes: dict[str, Any], status: int, code: str
) -> None:
    """Each of these is a run with a receipt that has the code."""
    write_job(workspace, "a", **changes)
    said = lily("jobs", "run", "a")
    assert said.status == status
    assert said.out.startswith("# Failed: ")
    (receipt,) = receipts(workspace, "a")
    assert receipt["error"]["code"] == code
    assert bool(receipt["attempts"]) == (code == "job_execution_failed")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"title": ""}, 3, "job_invalid_spec"),
        ({"trigger": {"type": "cron", "cron": "* * * * *"}}, 3, "job_trigger_invalid"),
    ],
)
def test_what_can_not_be_accepted_leaves_no_run(lily: Lily, workspace: Path, changes: dict[str, Any], status: int, code: str) -> None:
    """The line says what is wrong."""
    write_job(workspace, "a", **changes)
    said = lily("jobs", "run", "a")
    assert (said.status, said.err.split(":")[0]) == (status, code)
    assert lily("runs", "list", "--json").json == {"runs": []}


def test_input_and_set_change_this_run_only(lily: Lily, workspace: Path) -> None:
    """The values are read as YAML and pinned with the run; the file stays as it is."""
    path = write_job(workspace, "a", bindings={"argv": ["sh", "-c", "echo $WHO $COUNT"], "env": {"WHO": "sun"}})
    before = path.read_bytes()
    said = lily("jobs", "run", "a", "--set", "bindings.env.WHO=moon", "--set", 'bindings.env.COUNT="3"', "--set=runtime.retry_max=1")
    assert said.status == 0
    (receipt,) = receipts(workspace, "a")
    assert receipt["payload"]["stdout_tail"] == "moon 3\n"
    assert receipt["spec"]["runtime"]["retry_max"] == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--set", "bindings.argv"), 2),
        (("--input", "=x"), 2),
        (("--input", "a=1", "--input", "a=2"), 2),
        (("--input", "a=[1"), 2),
        (("--set", "id=b"), 3),
        (("--set", "runtime.retry_max=many"), 3),
    ],
)
def test_overrides_that_do_not_fit_are_refused(lily: Lily, workspace: Path, arguments: tuple[str, ...], status: int) -> None:
    """Before anything is stored."""
    write_job(workspace, "a")
    said = lily("jobs", "run", "a", *arguments)
    assert said.status == status
    assert said.err.count("\n") == 1
    assert not (workspace / "db").exists()


def test_input_reaches_the_target(lily: Lily, workspace: Path) -> None:
    """Under target.input, beside what the file has."""
    target = {"kind": "blueprint", "id": "council.v1", "input": {"topic": "t"}}
    write_job(workspace, "a", target=target, bindings={"specialists": ["security.v1", "operations.v1"]}, capabilities=[])
    lily("jobs", "run", "a", "--input", "topic=an export", "--input", "context=[one, two]")
    (receipt,) = receipts(workspace, "a")
    assert receipt["spec"]["target"]["input"] == {"topic": "an export", "context": ["one", "two"]}


def test_dry_run_shows_the_effects_and_stores_nothing(lily: Lily, workspace: Path) -> None:
    """Bindings, capabilities, attempts and limits, as far as they are known before the first attempt."""
    write_job(workspace, "a", bindings=shell("touch made"), runtime={"retry_max": 2})
    said = lily("jobs", "run", "a", "--dry-run", "--json")
    plan = said.json["plan"]
    assert said.status == 0
    assert plan["would"] == "run"
    assert plan["bindings"] == {"argv": ["sh", "-c", "touch made"]}
    assert plan["capabilities"]["decisions"] == {"process.exec": "allow"}
    assert plan["attempts"]["at_most"] == 3
    assert "touch made" in lily("jobs", "run", "a", "--dry-run").out
    assert not (workspace / "made").exists()
    assert not (workspace / "db").exists()


def test_dry_run_of_what_would_be_refused_has_its_status(lily: Lily, workspace: Path) -> None:
    """And says why."""
    write_job(workspace, "a", capabilities=[])
    said = lily("jobs", "run", "a", "--dry-run", "--json")
    assert said.status == 4
    assert said.json["plan"]["error"]["code"] == "job_policy_denied"


def test_detach_prints_the_id_and_leaves_the_run_to_the_supervisor(lily: Lily, workspace: Path) -> None:
    """Without one up it says that the run waits; the next `jobs run` does not take it."""
    write_job(workspace, "a")
    write_job(workspace, "b")
    said = lily("jobs", "run", "a", "--detach")
    assert said.status == 0
    assert "waits for `lily up`" in said.err
    run_id = said.out.strip()
    assert lily("jobs", "run", "b").status == 0
    (run,) = lily("runs", "active", "--json").json["runs"]
    assert (run["run_id"], run["status"]) == (run_id, "queued")
    assert lily("jobs", "run", "a", "--detach", "--json").json["status"] == "queued"


@pytest.mark.e2e
def test_a_run_that_was_accepted_and_can_not_be_run_here_is_named(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took it for refused would run it a second time."""
    write_job(workspace, "a", bindings=shell("echo hello"))

    def acquire(self: OwnerLock, **_: Any) -> Owner:
        raise LilyError(Code.STORE_UNAVAILABLE, "too many connections")

    with monkeypatch.context() as patch:
        patch.setattr(OwnerLock, "acquire", acquire)
        patch.setattr("actors.owning.LAST_BATCH_SECONDS", 0.0)
        said = lily("jobs", "run", "a")
    (run,) = lily("runs", "list", "--json").json["runs"]
    assert said.status == 1
    accepted, error = said.err.splitlines()
    assert accepted.startswith(f"run {run['run_id']} was accepted: ")
    assert error.startswith("store_unavailable: too many connections")
    with supervisor(workspace):
        until_seen(lambda: lily("runs", "show", run["run_id"], "--json").json["status"] == "succeeded", "its end")


@pytest.mark.e2e
def test_a_run_is_handed_to_the_supervisor_and_followed(lily: Lily, workspace: Path) -> None:
    """The events come from it, the run is its own, and the outcome is the command's."""
    write_job(workspace, "a", bindings=shell("echo from $PPID; exit 3"))
    with supervisor(workspace) as up:
        said = lily("jobs", "run", "a", "--json")
        assert said.status == 1
        *events, last = said.lines
        assert last["receipt"]["pid"] == up.pid
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def stop(up: subprocess.Popen[str], workspace: Workspace) -> None:
    """Have it stand still while it holds nothing of the store, on which a run that is submitted would wait for it."""
    with closing(sqlite3.connect(workspace.database, isolation_level=None, timeout=60)) as db:
        db.execute("begin immediate")
        up.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, up.pid, os.WSTOPPED | os.WNOWAIT)
        db.execute("rollback")


@pytest.mark.e2e
def test_a_run_says_once_that_the_supervisor_does_not_answer_and_goes_on_when_it_does(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(workspace, "a")
    monkeypatch.setattr("lily.operations.client.SILENT_SECONDS", 0.05)
    monkeypatch.setattr("lily.operations.client.ANSWER_SECONDS", 0.2)
    told = []
    with supervisor(workspace) as up:

        def tell(line: str) -> None:
            told.append(line)
            up.send_signal(signal.SIGCONT)

        monkeypatch.setattr("lily.cli.output.tell", tell)
        stop(up, Workspace(workspace))
        assert lily("jobs", "run", "a").status == 0, told
        (line,) = [line for line in told if "does not answer" in line]
        assert f"pid {up.pid}, " in line
        assert "lily health" in line


@pytest.mark.e2e
def test_who_writes_files_and_hangs_after_its_supervisor_was_killed_is_named(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the workspace, while nothing of the supervisor lives: each command that finds this says what to end, and goes on then."""
    write_job(workspace, "a")
    monkeypatch.setattr("actors.owning.LAST_BATCH_SECONDS", 0.0)
    with supervisor(workspace) as up:
        (writer,) = children_of(up.pid) or []
        try:
            os.kill(writer, signal.SIGSTOP)
            up.kill()
            up.wait()
            held = f"pid {writer}, which it started, still holds this workspace"
            said = [lily("up").err, lily("doctor").out, lily("db", "rebuild", "--from", "receipts").err]
            told = []

            def tell(line: str) -> None:
                told.append(line)
                with suppress(ProcessLookupError):  # it was reaped since the line before
                    os.kill(writer, signal.SIGKILL)

            monkeypatch.setattr("lily.cli.output.tell", tell)
            assert lily("jobs", "run", "a").status == 0
        finally:
            with suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)
    for each in (*said, told[0]):
        assert f"pid {up.pid} (lily up, since " in each
        assert held in each
        assert f"`kill -KILL {writer}`" in each
    assert "nobody owns the workspace" not in said[1]
    assert len([line for line in told if held in line]) == 1


@pytest.mark.e2e
def test_a_run_that_waits_for_a_slot_does_not_take_the_supervisor_for_silent(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_concurrent: 1}\n")
    write_job(workspace, "slow", bindings=shell("echo begun; read x < gate"))
    write_job(workspace, "a")
    os.mkfifo(workspace / "gate")
    monkeypatch.setattr("lily.operations.client.SILENT_SECONDS", 0.05)
    looked = []

    def look(*given: Any, **named: Any) -> Any:
        looked.append(supervisor_status(*given, **named))
        (workspace / "gate").write_text("go\n")
        return looked[-1]

    monkeypatch.setattr("lily.operations.client.supervisor_status", look)
    with supervisor(workspace), started(workspace, "jobs", "run", "slow", "--json") as first:
        until(first, "begun")
        said = lily("jobs", "run", "a")
        assert (said.status, len(looked)) == (0, 1)
        assert "does not answer" not in said.err


@pytest.mark.e2e
def test_a_run_is_followed_also_where_many_files_are_open(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with supervisor(workspace), ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1024):
            files.callback(os.close, os.dup(0))
        lines = lily("jobs", "run", "a", "--json").lines
    assert [line.get("seq") for line in lines] == [1, 2, 3, 4, 5, None]


@pytest.mark.e2e
def test_a_second_run_is_handed_to_the_first(workspace: Path, lily: Lily) -> None:
    """While one command owns the workspace, another gives its run to that one and follows it."""
    write_job(workspace, "slow", bindings=shell("echo begun; read x < gate"))
    write_job(workspace, "quick")
    os.mkfifo(workspace / "gate")
    with started(workspace, "jobs", "run", "slow", "--json") as first:
        until(first, "begun")
        said = lily("jobs", "run", "quick", "--json")
        assert said.status == 0
        assert said.lines[-1]["receipt"]["pid"] == first.pid
        (workspace / "gate").write_text("go\n")
        assert first.wait() == 0


@pytest.mark.e2e
def test_the_follower_takes_over_when_the_owner_is_killed(workspace: Path) -> None:
    """The run is owed, so whoever waits for it goes on with it."""
    write_job(workspace, "a", bindings=shell('echo "attempt $LILY_ATTEMPT"; [ "$LILY_ATTEMPT" -gt 1 ] || read x < gate'))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "attempt 1")
        up.kill()
        up.wait()
        out, err = rest(run)
        assert run.returncode == 0, err
        receipt = json.loads(out.splitlines()[-1])["receipt"]
        assert [attempt["status"] for attempt in receipt["attempts"]] == ["interrupted", "succeeded"]
        assert receipt["pid"] == run.pid


def ask_to_stop_at_once(up: subprocess.Popen[str]) -> None:
    """As a service manager that has no patience left."""
    assert up.stderr is not None
    up.terminate()
    until(up, "draining", stream="stderr")
    up.terminate()


@pytest.mark.parametrize("end", [subprocess.Popen.kill, ask_to_stop_at_once])
@pytest.mark.e2e
def test_the_follower_leaves_the_workspace_to_the_supervisor_that_is_started_again(
    workspace: Path, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    """It would keep that one out while its run lasts. One that is asked to end owns the workspace for some time after it last answered."""
    write_job(workspace, "a", bindings=shell('echo "attempt $LILY_ATTEMPT"; [ "$LILY_ATTEMPT" -gt 1 ] || read x < gate'))
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "attempt 1")
        end(up)
        up.wait()
        with supervisor(workspace) as again:
            out, err = rest(run)
            assert (run.returncode, err.count("waits 10 s for another one")) == (0, 1), err
            assert json.loads(out.splitlines()[-1])["receipt"]["pid"] == again.pid


@pytest.mark.parametrize("handed_over", [False, True])
@pytest.mark.e2e
def test_ctrl_c_cancels_the_run_and_the_receipt_says_so(workspace: Path, handed_over: bool) -> None:
    """Status 130; the program is gone, and the run will not come again."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")

    def check() -> None:
        with started(workspace, "jobs", "run", "a", "--json") as run:
            until(run, "begun")
            run.send_signal(signal.SIGINT)
            out, err = rest(run)
            assert run.returncode == 130, err
            receipt = json.loads(out.splitlines()[-1])["receipt"]
            assert receipt["status"] == "canceled"
            assert "Ctrl-C" in json.dumps(receipt["canceled"])

    if handed_over:
        with supervisor(workspace):
            check()
    else:
        check()
        assert current_owner(Workspace(workspace)) is None


def test_ctrl_c_right_after_a_run_was_accepted_cancels_it(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was told of it yet, so it must not wait for the next supervisor."""
    write_job(workspace, "a")
    monkeypatch.setattr("lily.cli.run_job.tell_if_paused", lambda *_: signal.raise_signal(signal.SIGINT))
    said = lily("jobs", "run", "a", "--json")
    assert said.status == 130
    assert json.loads(said.out.splitlines()[-1])["receipt"]["status"] == "canceled"
    first = lily("runs", "list", "--json").json["runs"][0]["run_id"]
    monkeypatch.setattr("lily.cli.replay.tell_if_paused", lambda *_: signal.raise_signal(signal.SIGINT))
    said = lily("runs", "replay", first, "--approve", "--reason", "again", "--json")
    assert said.status == 130
    assert [run["status"] for run in lily("runs", "list", "--json").json["runs"]] == ["canceled", "canceled"]


_CTRL_C_IN_AN_IMPORT = """
import signal, sys
module = sys.argv.pop(1)
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(Finder)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
from lily import __main__
sys.exit(__main__.command())
"""


@pytest.mark.parametrize("module", ["lily.cli.entry", "trio._core._run", "actors.here", "anyio._backends._trio"])
@pytest.mark.e2e
def test_ctrl_c_in_the_middle_of_an_import_is_told_as_at_any_other_moment(workspace: Path, module: str) -> None:
    """And what was imported by half breaks nothing: a run that was accepted is canceled."""
    write_job(workspace, "a")
    arguments = [sys.executable, "-c", _CTRL_C_IN_AN_IMPORT, module, "jobs", "run", "a", "--json"]
    done = subprocess.run(arguments, cwd=workspace, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    if module == "lily.cli.entry":
        assert (last["error"]["code"], done.stderr) == ("interrupted", "")
    else:
        assert last["receipt"]["status"] == "canceled"
        assert done.stderr == "canceling; Ctrl-C again leaves it to the supervisor\n"


@pytest.mark.e2e
def test_a_run_that_somebody_else_canceled_is_status_1(workspace: Path, lily: Lily) -> None:
    """Only the own Ctrl-C is 130."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")
    with started(workspace, "jobs", "run", "a", "--json") as run:
        run_id = json.loads(until(run, "begun"))["run_id"]
        assert lily("runs", "cancel", run_id, "--reason", "not now").status == 0
        out, err = rest(run)
        assert (run.returncode, err) == (1, ""), out
        last = json.loads(out.splitlines()[-1])
        assert last.get("receipt", last)["canceled"]["reason"] == "not now", last


@pytest.mark.e2e
def test_a_reader_that_went_away_does_not_end_the_run(workspace: Path) -> None:
    """`lily jobs run a --json | head -1`: the run goes on to its end, and its outcome is the exit status."""
    write_job(workspace, "a", bindings=shell("for i in $(seq 200); do echo line $i; done; exit 5"))
    read, write = os.pipe()
    with subprocess.Popen(
        command("jobs", "run", "a", "--json"), cwd=workspace, env=environment(), stdout=write, stderr=subprocess.PIPE
    ) as run:
        os.close(write)
        os.read(read, 1)
        os.close(read)
        _, err = run.communicate()
        assert (run.returncode, err) == (1, b"")
    (receipt,) = receipts(workspace, "a")
    assert receipt["status"] == "failed"


@pytest.mark.e2e
@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_is_closed_interrupts_the_run_unless_nohup_has_it_go_on(lily: Lily, workspace: Path, nohup: bool) -> None:
    """Else its program went on alone, with no timeout, until the next start."""
    write_job(workspace, "a", bindings=shell("echo begun $$; read x < gate"))
    os.mkfifo(workspace / "gate")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)  # the child inherits it
    try:
        with started(workspace, "jobs", "run", "a", "--json") as run:
            program = int(json.loads(until(run, "begun"))["text"].split()[1])
            run.send_signal(signal.SIGHUP)
            if nohup:
                (workspace / "gate").write_text("go\n")
            rest(run)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.returncode == (0 if nohup else 130)
    (row,) = lily("jobs", "history", "a", "--json").json["runs"]
    assert row["status"] == ("succeeded" if nohup else "queued")
    with pytest.raises(ProcessLookupError):
        os.kill(program, 0)


@pytest.mark.e2e
def test_progress_is_shown_on_a_terminal_only(workspace: Path, lily: Lily) -> None:
    """On stderr: one line an event; a log file or pipe gets the summary and where the files are."""
    write_job(workspace, "a", bindings=shell("printf 'one\\033[2Jtwo'"))
    quiet = lily("jobs", "run", "a").err
    assert quiet.splitlines()[0].startswith("files: ")
    outer, inner = pty.openpty()
    done = subprocess.run(command("jobs", "run", "a"), cwd=workspace, env=environment(), stdout=subprocess.PIPE, stderr=inner, check=True)
    os.close(inner)
    shown = os.read(outer, 65536).decode()
    os.close(outer)
    assert "job_attempt_started attempt=1" in shown
    assert "stdout| one\\x1b[2Jtwo" in shown
    assert b"# Succeeded" in done.stdout


@pytest.mark.e2e
def test_lily_up_waits_for_a_run_in_progress(workspace: Path) -> None:
    """The supervisor takes the workspace over when the command that owned it has ended."""
    write_job(workspace, "a", bindings=shell("echo begun; read x < gate"))
    os.mkfifo(workspace / "gate")
    with started(workspace, "jobs", "run", "a", "--json") as run:
        until(run, "begun")
        with started(workspace, "up") as up:
            (workspace / "gate").write_text("go\n")
            assert "lily is up" in until(up, "lily is up", stream="stderr")
            assert run.wait() == 0


@pytest.mark.e2e
def test_a_second_ctrl_c_leaves_the_run_to_the_supervisor(workspace: Path, lily: Lily) -> None:
    """When the program takes its time to end: status 130 at once, and the run is canceled all the same."""
    script = "trap 'echo asked' TERM; echo begun; while :; do read x < gate; done"
    write_job(workspace, "a", bindings={**shell(script), "kill_grace_seconds": 30})
    os.mkfifo(workspace / "gate")
    with supervisor(workspace) as up, started(workspace, "jobs", "run", "a", "--json") as run:
        run_id = json.loads(until(run, "begun"))["run_id"]
        run.send_signal(signal.SIGINT)
        until(run, "canceling", stream="stderr")
        until(run, "asked")
        run.send_signal(signal.SIGINT)
        out, err = rest(run)
        assert run.returncode == 130, err
        assert json.loads(out.splitlines()[-1])["run"]["run_id"] == run_id
        assert lily("runs", "show", run_id, "--json").json["status"] == "running"
        assert lily("down", "--now").status == 0
        assert up.wait() == 0


def test_signals_while_the_owner_closes_down_end_nothing(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the run is put down and told first; afterwards they mean what they meant before."""
    write_job(workspace, "a")
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def flooded(session: Any) -> Any:
        for number in [*known, *known]:
            signal.raise_signal(number)
        return alerts_of(session)

    monkeypatch.setattr("actors.here.alerts_of", flooded)
    said = lily("jobs", "run", "a")
    assert (said.status, "succeeded" in said.out) == (0, True), said
    assert {number: signal.getsignal(number) for number in known} == known
