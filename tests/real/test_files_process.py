"""The process that writes files: what happens where none can be started, and when the store goes away while it asks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Table, delete, update

from actors.owning import _files_apart
from lily.cli import entry
from lily.clock import SystemClock
from lily.errors import Code, LilyError
from lily.log import SilentLog
from lily.moves import due, settle
from lily.runs import Event, EventName, Move, PinnedSpec, Run, Runtime, Status
from lily.storage import run_files, schema
from lily.storage.artifacts import read_receipt, whole
from lily.storage.files import temporary_name
from lily.storage.files_process import FilesProcess
from lily.storage.run_files import RETRY_SECONDS, START_SECONDS, Follow, Known, Mend, Order, PutDown, RunFiles, Say
from lily.storage.store import Store
from lily.workspace import EVENTS, RECEIPT, SUMMARY, OwnerLock, Workspace, lock_path
from tests.cli.conftest import write_job
from tests.letters import dead
from tests.real.test_store import AT, BAD, begun, new, submit


class Kept(SilentLog):
    """Warnings in memory."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, object]]] = []

    def warning(self, message: str, /, **fields: object) -> None:
        self.warnings.append((message, fields))


class Moody:
    """A store that answers, or does not."""

    def __init__(self, store: Known) -> None:
        self._store = store
        self.away = ""
        self.asked: list[str] = []

    def _check(self, what: str) -> None:
        self.asked.append(what)
        if self.away == what:
            raise LilyError(Code.STORE_UNAVAILABLE, f"away for {what}")

    def events(self, run_id: str) -> list[Event]:
        self._check("events")
        return self._store.events(run_id)

    def find_run(self, run_id: str) -> Run | None:
        self._check("run")
        return self._store.find_run(run_id)

    def spec(self, spec_hash: str) -> PinnedSpec:
        return self._store.spec(spec_hash)

    def spec_body(self, spec_hash: str) -> str:
        self._check("spec")
        return self._store.spec_body(spec_hash)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace with a job."""
    for folder in (".lily/jobs", ".lily/runs", ".lily/run", "db"):
        (tmp_path / folder).mkdir(parents=True)
    write_job(tmp_path, "a")
    return Workspace(tmp_path)


@pytest.fixture
def lock(place: Workspace) -> Iterator[OwnerLock]:
    """The owner's lock, which the process holds with its owner."""
    made = OwnerLock(lock_path(place))
    made.acquire(kind="up", since="2026-05-04T04:15:00.123456Z", life="test")
    yield made
    made.release()


@pytest.fixture
def store(place: Workspace) -> Iterator[Store]:
    made = Store("", database_file=place.database, clock=SystemClock())
    yield made
    made.close()


@pytest.mark.parametrize("what", ["run", "events", "spec"])
def test_a_store_that_is_away_while_it_is_asked_fails_the_batch_alone(place: Workspace, store: Store, lock: OwnerLock, what: str) -> None:
    """With the store's own error, so that the batch is tried again; the same process then writes it."""
    (run_id,) = dead(place.root, "a")
    known = Moody(store)
    files = FilesProcess(place, known, lock=lock.fileno())
    try:
        known.away = what
        for _ in range(2):
            with pytest.raises(LilyError, match=f"away for {what}"):
                files.write([Mend([run_id])], 0.0, True, {"a": None})
            assert read_receipt(place, "a", run_id) is None
        known.away = ""
        done = files.write([Mend([run_id])], 1.0, True, {"a": None})
        assert ([told.run_id for told in done.ended], done.owed) == ([run_id], [])
        assert whole(place, store.run(run_id))
    finally:
        files.close()


@pytest.mark.parametrize("apart", [True, False])
def test_a_run_whose_spec_is_lost_keeps_no_other_from_its_files(place: Workspace, store: Store, lock: OwnerLock, apart: bool) -> None:
    """It is owed, as one that a full disk keeps from being written."""
    write_job(place.root, "b")
    (lost,), (other,) = dead(place.root, "a"), dead(place.root, "b")
    with store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash == store.run(lost).spec_hash))
    files = FilesProcess(place, store, lock=lock.fileno()) if apart else RunFiles(place, store, SystemClock())
    try:
        done = files.write([Mend([lost, other])], 0.0, True, {"a": None, "b": None})
    finally:
        files.close()
    assert ([told.run_id for told in done.ended], done.owed) == ([other], [lost])
    assert ["the store does not have the spec" in trouble.error for trouble in done.troubles] == [True]
    assert whole(place, store.run(other))


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("table", [schema.run, schema.event])
def test_a_run_whose_rows_can_not_be_read_keeps_no_other_from_its_files(
    place: Workspace, store: Store, lock: OwnerLock, apart: bool, table: Table
) -> None:
    """It is told once, however often it comes again."""
    write_job(place.root, "b")
    (spoilt,), (other,) = dead(place.root, "a"), dead(place.root, "b")
    with store.engine.begin() as connection:
        column = "lineage" if table is schema.run else "data"
        connection.execute(update(table).where(table.c.run_id == spoilt).values({column: "nonsense"}))
    files = FilesProcess(place, store, lock=lock.fileno()) if apart else RunFiles(place, store, SystemClock())
    try:
        done = files.write([Mend([spoilt, other])], 0.0, True, {"a": None, "b": None})
        again = files.write([Mend([spoilt])], 1.0, True, {"a": None})
    finally:
        files.close()
    assert [told.run_id for told in done.ended] == [other]
    assert ["what no run can have been" in trouble.error for trouble in done.troubles] == [True]
    assert not again.troubles
    assert whole(place, store.run(other))


def test_an_end_that_comes_in_the_batch_that_mends_it_makes_no_second_receipt(place: Workspace, store: Store) -> None:
    """Its end was stored and reported failed, so it is owed and asked for again: a second receipt would name the first."""
    (run_id,) = dead(place.root, "a")
    run, events = store.run(run_id), store.events(run_id)
    files = RunFiles(place, store, SystemClock())
    done = files.write([Mend([run_id]), Follow(Move(run=run, expected=Status.RUNNING, events=events[-1:]))], 0.0, True, {"a": None})
    assert [told.run_id for told in done.ended] == [run_id]
    receipt = read_receipt(place, "a", run_id)
    assert receipt is not None
    assert receipt.previous is None
    assert whole(place, run)


def names(place: Workspace, run: Run) -> list[str]:
    """The events of the run's file, in order; none where there is no file."""
    path = place.run_dir(run.job_id, run.run_id) / EVENTS
    return [msgspec.json.decode(line)["event"] for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("apart", [True, False])
def test_a_run_that_says_nothing_stands_in_its_file_soon_after_its_start(
    place: Workspace, store: Store, lock: OwnerLock, apart: bool
) -> None:
    """Whoever looks while it works sees that it has started; its end may take days."""
    (run,) = submit(store, new("a"))
    move = begun(run)
    assert store.apply([move]) == [None]
    files = FilesProcess(place, store, lock=lock.fileno()) if apart else RunFiles(place, store, SystemClock())
    try:
        assert files.write([Follow(move), Mend([]), PutDown(False)], 5.0, False, {}).waiting == [run.run_id]
        assert names(place, run) == []
        done = files.write([PutDown(False)], 5.0 + START_SECONDS, False, {})
        assert (done.waiting, names(place, run)) == ([], ["job_queued", *(event.event.value for event in move.events)])
    finally:
        files.close()


@pytest.mark.parametrize("apart", [True, False])
def test_lines_that_wait_for_room_are_written_though_nobody_says_more(place: Workspace, store: Store, lock: OwnerLock, apart: bool) -> None:
    """Once there is room: nothing comes then but the question whether something waits."""
    (run,) = submit(store, new("a"))
    move = begun(run)
    assert store.apply([move]) == [None]
    files = FilesProcess(place, store, lock=lock.fileno()) if apart else RunFiles(place, store, SystemClock())
    said = Event(EventName.LOG, move.events[-1].ts, {"level": "info", "message": "at work"})
    place.runs.rmdir()
    place.runs.symlink_to("nowhere")  # so that no folder can be made
    try:
        done = files.write([Follow(move), Say(move.run, [said]), PutDown(True)], 0.0, False, {})
        assert ([trouble.run_id for trouble in done.troubles], done.waiting) == ([run.run_id], [run.run_id])
        place.runs.unlink()
        place.runs.mkdir()
        assert files.write([PutDown(False)], RETRY_SECONDS, False, {}).waiting == []
    finally:
        files.close()
    assert names(place, run) == ["job_queued", *(event.event.value for event in move.events), "log"]


@pytest.mark.parametrize("apart", [True, False])
def test_lines_of_a_batch_that_the_store_refuses_are_written_though_nobody_says_more(
    place: Workspace, store: Store, lock: OwnerLock, apart: bool
) -> None:
    """They are not said again, and whoever asks next may have nothing to say."""
    (ended,) = dead(place.root, "a")
    (run,) = submit(store, new("a"))
    move = begun(run)
    assert store.apply([move]) == [None]
    known = Moody(store)
    files = FilesProcess(place, known, lock=lock.fileno()) if apart else RunFiles(place, known, SystemClock())
    said = Event(EventName.LOG, move.events[-1].ts, {"level": "info", "message": "at work"})
    try:
        files.write([Follow(move)], 0.0, False, {})
        known.away = "run"
        with pytest.raises(LilyError, match="away for run"):
            files.write([Mend([ended]), Say(move.run, [said])], 0.0, False, {"a": None})
        known.away = ""
        files.write([PutDown(False)], RETRY_SECONDS, False, {})
    finally:
        files.close()
    assert sorted(names(place, run)) == sorted(["job_queued", *(event.event.value for event in move.events), "log"])


def test_what_somebody_else_made_of_a_run_while_its_lines_could_not_be_written_stands_in_its_file(
    place: Workspace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command takes a run out of its wait for a retry while the disk is full: only the store knows of it."""
    (run,) = submit(store, new("a", retry_max=1))
    first = begun(run)
    failed = settle(first.run, BAD, Runtime(retry_max=1), AT)
    early = due(failed.run, AT)
    second = begun(early.run)
    assert store.apply([first, failed, early, second]) == [None] * 4
    files = RunFiles(place, store, SystemClock())
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "open_folder", full)
        done = files.write([Follow(first), Follow(failed)], 0.0, False, {})
        assert ([trouble.run_id for trouble in done.troubles], done.waiting) == ([run.run_id], [run.run_id])
    files.write([Follow(second), PutDown(True)], 10.0, False, {})
    assert names(place, run) == [event.event.value for event in store.events(run.run_id)]


def test_what_a_run_said_before_its_wait_for_a_retry_waits_for_room(
    place: Workspace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody follows a run that waits; its lines are written with the others' all the same."""
    (run,) = submit(store, new("a", retry_max=1))
    first = begun(run)
    failed = settle(first.run, BAD, Runtime(retry_max=1), AT)
    assert store.apply([first, failed]) == [None, None]
    said = Event(EventName.LOG, failed.events[-1].ts, {"level": "info", "message": "at work"})
    files = RunFiles(place, store, SystemClock())
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "open_folder", full)
        assert files.write([Follow(first), Say(first.run, [said]), Follow(failed)], 0.0, False, {}).waiting == [run.run_id]
    assert files.write([PutDown(False)], RETRY_SECONDS, False, {}).waiting == []
    assert sorted(names(place, run)) == sorted(["log", *(event.event.value for event in store.events(run.run_id))])


def test_after_a_crash_a_file_has_each_event_once_and_one_word_of_lost_lines(place: Workspace, store: Store) -> None:
    """What was under way comes again message by message, while the file has all of it: it is not held against what was told so far."""
    (run,) = submit(store, new("a", retry_max=1))
    first = begun(run)
    failed = settle(first.run, BAD, Runtime(retry_max=1), AT)
    early = due(failed.run, AT)
    second = begun(early.run)
    assert store.apply([first, failed, early, second]) == [None] * 4
    RunFiles(place, store, SystemClock()).write([Follow(first), Follow(failed)], 0.0, False, {})
    files = RunFiles(place, store, SystemClock(), lossy=[run.run_id])
    for order in (Follow(first), PutDown(True), Follow(failed)):
        files.write([order], 1.0, True, {})
    files.write([Follow(early), Follow(second), PutDown(True), PutDown(False)], 2.0, False, {})
    told = names(place, run)
    assert told.count("events_lost") == 1
    assert [name for name in told if name != "events_lost"] == [event.event.value for event in store.events(run.run_id)]


def test_a_disk_that_refuses_is_asked_again_after_a_while_and_not_with_each_line(
    place: Workspace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that talks all the time would be nothing but refusals, and its log, too."""
    (run,) = submit(store, new("a"))
    move = begun(run)
    assert store.apply([move]) == [None]
    files, troubles = RunFiles(place, store, SystemClock()), []
    monkeypatch.setattr(run_files, "open_folder", full)
    for at in (0.0, 0.1, RETRY_SECONDS - 0.1, RETRY_SECONDS, RETRY_SECONDS + 0.1, 2 * RETRY_SECONDS):
        said = Event(EventName.LOG, move.events[-1].ts, {"level": "info", "message": "at work"})
        orders: list[Order] = [Say(move.run, [said]), PutDown(False)]
        done = files.write([Follow(move), *orders] if at == 0.0 else orders, at, False, {})
        troubles.append(len(done.troubles))
        assert done.waiting == [run.run_id]
    assert troubles == [1, 0, 0, 1, 0, 1]


def full(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def test_what_a_killed_process_had_begun_to_write_goes_when_its_run_is_mended(place: Workspace, store: Store) -> None:
    """Nobody would ever take it away. What a target hid in its folder is not Lily's to delete."""
    (run_id,) = dead(place.root, "a")
    folder = place.run_dir("a", run_id)
    folder.mkdir(parents=True)
    for name in (temporary_name(RECEIPT), temporary_name(SUMMARY), ".hidden"):
        (folder / name).write_text("half")
    assert RunFiles(place, store, SystemClock()).write([Mend([run_id])], 0.0, False, {"a": None}).owed == []
    assert sorted(path.name for path in folder.iterdir()) == [".hidden", EVENTS, RECEIPT, SUMMARY]


def test_a_process_that_was_killed_is_said_to_have_gone(place: Workspace, store: Store, lock: OwnerLock) -> None:
    """Its owner then starts another one; what it knew of is asked for again."""
    (run_id,) = dead(place.root, "a")
    files = FilesProcess(place, store, lock=lock.fileno())
    files._child.kill()
    files._child.wait()
    with pytest.raises((RuntimeError, OSError)):
        files.write([Mend([run_id])], 0.0, True, {"a": None})
    with suppress(OSError):
        files.close()
    again = FilesProcess(place, store, lossy=[run_id], lock=lock.fileno())
    try:
        assert [told.run_id for told in again.write([Mend([run_id])], 0.0, True, {"a": None}).ended] == [run_id]
    finally:
        again.close()


def test_where_no_process_can_be_started_files_are_written_here(
    place: Workspace, store: Store, lock: OwnerLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the log says so, once for each start."""

    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, os.strerror(11))

    monkeypatch.setattr(subprocess, "Popen", refused)
    (run_id,) = dead(place.root, "a")
    log = Kept()
    files = _files_apart(place, store, SystemClock(), lock, log)([])
    assert isinstance(files, RunFiles)
    assert [told.run_id for told in files.write([Mend([run_id])], 0.0, True, {"a": None}).ended] == [run_id]
    ((message, fields),) = log.warnings
    assert (message.startswith("files are written here"), fields) == (True, {"error": os.strerror(11)})


@pytest.mark.e2e
def test_a_supervisor_without_such_a_process_leaves_whole_files(place: Workspace) -> None:
    """From the first event to the receipt, through its whole life."""
    program = (
        "import subprocess, sys\n"
        "real = subprocess.Popen\n"
        "class Refusing(real):\n"
        "    def __init__(self, args, *more, **named):\n"
        "        if 'lily.storage.files_process' in args:\n"
        "            raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "        super().__init__(args, *more, **named)\n"
        "subprocess.Popen = Refusing\n"
        "from lily.cli.entry import run\n"
        "sys.exit(run(['up', '--workspace', sys.argv[1]]))\n"
    )
    import sys

    from tests.cli.conftest import environment

    with subprocess.Popen(
        [sys.executable, "-c", program, str(place.root)], env=environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as up:
        assert up.stderr is not None
        seen = []
        for line in up.stderr:
            seen.append(line)
            if "lily is up" in line:
                break
        assert entry.run(["jobs", "run", "a", "--workspace", str(place.root)]) == 0
        assert entry.run(["down", "--workspace", str(place.root)]) == 0
        seen += up.stderr.readlines()
    assert up.returncode == 0, seen
    assert any("files are written here" in line for line in seen), seen
    store = Store("", database_file=place.database, clock=SystemClock())
    (run,) = store.runs()
    assert whole(place, run)
    store.close()
