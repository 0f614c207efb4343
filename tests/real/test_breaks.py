"""Programs that spoil their own run's folder, and an owner whose lock was deleted."""

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lily.errors import Code, exit_code
from lily.runs import Status
from tests.real.house import House, until

pytestmark = pytest.mark.e2e

_SEEN = 'until [ -e "$LILY_RUN_DIR/events.jsonl" ]; do sleep 0.02; done; cd "$LILY_RUN_DIR"; '


@pytest.mark.parametrize(
    "deed",
    [
        "rm events.jsonl; mkfifo events.jsonl",
        "rm events.jsonl; mkdir events.jsonl",
        "mkdir run_receipt.json summary.md",
        "mkfifo run_receipt.json",
        "echo garbage >> events.jsonl",
        ": > events.jsonl",
        'cd /; rm -r "$LILY_RUN_DIR"',
        'cd /; rm -r "$LILY_RUN_DIR"; touch "$LILY_RUN_DIR"',
        'cd /; rm -r "$LILY_RUN_DIR"; ln -s / "$LILY_RUN_DIR"',
    ],
)
def test_a_run_has_its_three_artifacts_whatever_its_program_does_to_its_folder(house: House, deed: str) -> None:
    """Whoever waits for its end gets it, and what was lost is said."""
    house.job("spoiler", "sh", "-c", f"{_SEEN}{deed}; echo done")
    house.up()
    receipt = house.until_ended(house.submit("spoiler"))
    assert {"events.jsonl", "summary.md"} <= {file.name for file in receipt.artifacts}


def test_a_pipe_in_the_place_of_a_log_fails_the_attempt_and_holds_nothing_up(house: House) -> None:
    """The next attempt would wait for ever for somebody to read from it."""
    house.job("pipe", "sh", "-c", 'cd "$LILY_RUN_DIR"; rm stdout.log; mkfifo stdout.log; exit 1', retry_max=1)
    house.up()
    receipt = house.until_ended(house.submit("pipe"))
    assert [attempt.status for attempt in receipt.attempts] == ["failed", "failed"]
    assert receipt.error is not None
    assert "could not be kept" in receipt.error.message


def test_an_attempt_that_failed_says_why_also_where_its_files_are_gone(house: House) -> None:
    """What keeps the files from being kept comes behind it, and does not have it tried again where that mends nothing."""
    house.job("clears", "sh", "-c", 'rm -r "$LILY_RUN_DIR"; exit 3', retry_max=1)
    house.job("slow", "sh", "-c", 'rm -r "$LILY_RUN_DIR"; exec sleep 60', timeout_seconds=1)
    house.up()
    receipt = house.until_ended(house.submit("clears"))
    assert receipt.error is not None
    assert receipt.error.message.endswith("exited with 3")
    said = "the run's files could not be kept: No such file or directory"
    assert receipt.error.data.get("then", said) == said  # else its events have come meanwhile, and made it again
    assert [attempt.status for attempt in house.until_ended(house.submit("slow")).attempts] == ["timed_out"]


def test_a_supervisor_whose_lock_was_deleted_still_owns_the_workspace(house: House) -> None:
    """Else a second one would take its runs for orphans, and everything would run twice."""
    first = house.up()
    shutil.rmtree(house.workspace.runtime)
    refused = house.lily("up")
    assert refused.status == exit_code(Code.OWNER_CONFLICT)
    assert f"pid {first.pid}" in refused.err
    assert first.alive()
    house.job("still", "true")
    assert house.lily("jobs", "run", "still").status == 0  # by the first one, which looks at the store now and then
    assert first.end(signal.SIGTERM).status == 0
    house.up()


def test_a_supervisor_ends_when_another_store_is_put_in_the_place_of_its_own(house: House) -> None:
    """Its schedules are not in there, so nothing would fire, and nobody would be told. The next one begins with what is there."""
    up = house.up()
    shutil.move(house.workspace.database.parent, house.root / "elsewhere")
    assert house.lily("runs", "list").status == 0  # which makes an empty one
    until(lambda: not up.alive(), "the process to end")
    ended = up.end()
    assert ended.status == exit_code(Code.STORE_UNAVAILABLE)
    assert "store_unavailable: another store is in the place of the one that this owner began with" in up.said()
    house.up()


@pytest.mark.parametrize("linked", [False, True])
def test_a_supervisor_whose_log_was_deleted_from_the_store_puts_it_back_and_ends(house: House, linked: bool) -> None:
    """It would go on in a file that nobody else sees, and that goes with it where somebody else has the store open."""
    store = house.workspace.database
    store.parent.mkdir()
    if linked:
        store.symlink_to(house.root / "elsewhere.sqlite3")
        store.resolve().touch()
    gate = house.gate()
    house.job("slow", "cat", str(gate))
    up, run_id = house.up(), house.submit("slow")
    with closing(sqlite3.connect(store)) as somebody:
        somebody.execute("select * from run").fetchall()
        until(lambda: house.run(run_id).attempts, "the run to begin")
        house.store.close()  # it would put the log back by itself
        Path(f"{store.resolve()}-wal").unlink()
        gate.write_text("")
        until(lambda: not up.alive(), "the process to end")
    assert up.end().status == exit_code(Code.STORE_UNAVAILABLE)
    assert "store_unavailable: the store's log was deleted while it was in use" in up.said()
    house.up()
    assert house.until_ended(run_id).status == "succeeded"
    verified = house.lily("runs", "verify")
    assert verified.status == 0, verified.out


@pytest.mark.parametrize("command", ["runs list", "jobs run still", "up"])
def test_who_makes_an_empty_store_beside_the_folders_of_runs_says_so_once(house: House, command: str) -> None:
    """A deleted store is no new workspace, and looks like one."""
    house.job("still", "true")
    assert house.lily("jobs", "run", "still").status == 0
    said = house.lily("runs", "list")
    assert "the store is new" not in said.err
    shutil.rmtree(house.workspace.database.parent)
    if command == "up":
        up = house.up()
        told = up.said()
        up.end(signal.SIGTERM)
    else:
        told = house.lily(*command.split()).err
    assert "the store is new and knows nothing of 1 run in .lily/runs" in told
    assert "`lily db rebuild --from receipts`" in told
    again = house.lily("db", "rebuild", "--from", "receipts")
    assert (again.status, "the store is new" in again.err) == (0, False)
    assert "still" in house.lily("runs", "list").out


_BLOCKS = """import time
from lily import blueprint


@blueprint("blocks.v1", version="1.0.0", summary="Blocks the event loop.")
async def blocks(ctx, bindings, run_input):
    time.sleep(1000)
"""


def test_a_blueprint_that_blocks_the_loop_can_be_stopped_by_signals(house: House) -> None:
    """The loop takes none of them; a later one ends the process, and the run is owed."""
    house.workspace.blueprints.mkdir(exist_ok=True)
    (house.workspace.blueprints / "blocks.py").write_text(_BLOCKS, encoding="utf-8")
    house.job("blocked", target="blocks.v1")
    up = house.up()
    run_id = house.submit("blocked")
    until(lambda: house.run(run_id).status is Status.RUNNING, "the run to start")

    def signalled() -> bool:
        up.send(signal.SIGTERM)
        return not up.alive()

    until(signalled, "the process to end")
    assert "the event loop is blocked" in up.said()
    assert house.run(run_id).status is Status.RUNNING  # the next start takes it up
