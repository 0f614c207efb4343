"""events.jsonl: whatever tears it, it goes on without gaps, with each lifecycle event once, and says what was lost."""

import errno
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lily.storage.event_log
from lily.runs import FILE_ONLY, Event, EventName
from lily.storage.event_log import MAX_PENDING_BYTES, EventLog
from lily.storage.files import open_folder
from lily.workspace import EVENTS
from tests.pure.test_moves import queued

RUN = msgspec.structs.replace(queued(), events=1000)  # as far as the store may have got
TS = "2026-03-02T00:00:00.000000Z"
LIFECYCLE = [
    name for name in EventName if name not in FILE_ONLY and name not in ("job_completed", "job_failed", "job_canceled", "scheduler_missed")
]
texts = st.text(max_size=30)
said = st.builds(Event, st.sampled_from(sorted(FILE_ONLY - {EventName.EVENTS_LOST})), st.just(TS), st.fixed_dictionaries({"text": texts}))
moved = st.builds(Event, st.sampled_from(LIFECYCLE), st.just(TS), st.fixed_dictionaries({"code": texts}))
mixed = st.lists(said | moved, max_size=15)
END = Event(EventName.JOB_COMPLETED, TS, {"status": "succeeded"})


def lifecycle(events: list[Event]) -> list[Event]:
    """Those that the store has too."""
    return [event for event in events if event.event not in FILE_ONLY]


def write(folder: Path, stored: list[Event] | None, events: list[Event], *, flush_each: bool = False) -> EventLog:
    """A log in this folder that takes these events; `stored` are the store's, None for a fresh file."""
    log = EventLog(RUN, None if stored is None else lambda _: stored)
    with open_folder(folder, create=True) as fd:
        for event in events:
            log.add(event)
            if flush_each:
                log.flush(fd, TS)
        log.flush(fd, TS)
    assert (log.pending, log.pending_bytes) == ([], 0)
    return log


def read(folder: Path) -> list[dict[str, object]]:
    """The file's lines; each must be whole."""
    body = (folder / EVENTS).read_bytes() if (folder / EVENTS).exists() else b""
    assert not body or body.endswith(b"\n")
    return [msgspec.json.decode(line) for line in body.splitlines()]


def check(lines: list[dict[str, object]], stored: list[Event]) -> None:
    """seq without gaps, and exactly the store's lifecycle events in the store's order."""
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    told = [line for line in lines if EventName(str(line["event"])) not in FILE_ONLY]
    assert [(line["event"], line.get("code"), line.get("status")) for line in told] == [
        (event.event.value, event.data.get("code"), event.data.get("status")) for event in stored
    ]


@given(events=mixed, flush_each=st.booleans())
def test_a_fresh_file_has_every_event_in_order(events: list[Event], flush_each: bool) -> None:
    """However they are grouped into writes."""
    with tempfile.TemporaryDirectory() as root:
        log = write(Path(root), None, events, flush_each=flush_each)
        lines = read(Path(root))
        check(lines, lifecycle(events))
        assert [line["event"] for line in lines] == [event.event.value for event in events]
        assert log.lifecycle() == lifecycle(events)


@given(before=mixed, at=st.floats(0, 1), unwritten=st.lists(moved, max_size=4), after=mixed, ends=st.booleans())
def test_a_file_torn_at_any_byte_goes_on_whole(
    before: list[Event], at: float, unwritten: list[Event], after: list[Event], ends: bool
) -> None:
    """The torn tail is cut, one line says so, and what the store has and the file lacks is added."""
    after = [*after, END] if ends else after
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write(folder, None, before)
        path = folder / EVENTS
        size = path.stat().st_size if path.exists() else 0
        cut = round(at * size)
        if size:
            os.truncate(path, cut)
        body = path.read_bytes() if size else b""
        torn = bool(body) and not body.endswith(b"\n")
        stored = [*lifecycle(before), *unwritten, *lifecycle(after)]
        write(folder, stored, after)
        lines = read(folder)
        check(lines, stored)
        lost = [line for line in lines if line["event"] == "events_lost"]
        assert len(lost) == torn
        if torn:
            assert lost[0]["bytes"] == len(body) - (body.rfind(b"\n") + 1)
        texts_after = [event.data["text"] for event in after if event.event in FILE_ONLY]
        kept = [line["text"] for line in lines if "text" in line]
        assert kept[len(kept) - len(texts_after) :] == texts_after
        if ends:
            assert lines[-1]["event"] == "job_completed"


@given(events=mixed, times=st.integers(1, 3), flush_each=st.booleans())
def test_taking_up_a_file_that_lacks_nothing_changes_nothing(events: list[Event], times: int, flush_each: bool) -> None:
    """Also when the same moves come again after a crash of the writer."""
    with tempfile.TemporaryDirectory() as root:
        folder, stored = Path(root), lifecycle(events)
        write(folder, None, events, flush_each=flush_each)
        before = (folder / EVENTS).read_bytes() if events else b""
        for _ in range(times):
            log = EventLog(RUN, lambda _: stored)
            with open_folder(folder, create=True) as fd:
                log.follow(stored, len(stored))
                log.flush(fd, TS)
                log.follow(stored, len(stored))
                log.flush(fd, TS)
        assert ((folder / EVENTS).read_bytes() if events else b"") == before


@given(before=mixed, again=st.lists(said, max_size=5))
def test_nothing_comes_after_the_final_event(before: list[Event], again: list[Event]) -> None:
    """What is handed in again after a crash was written before it."""
    with tempfile.TemporaryDirectory() as root:
        folder, events = Path(root), [*before, END]
        write(folder, None, events)
        body = (folder / EVENTS).read_bytes()
        write(folder, lifecycle(events), again, flush_each=True)
        assert (folder / EVENTS).read_bytes() == body


def test_lines_that_came_before_the_end_stand_before_it_though_the_store_knew_the_end_first() -> None:
    """The writer died between its commit and the file. What comes later still comes too late."""
    with tempfile.TemporaryDirectory() as root:
        stored = [Event(EventName.JOB_QUEUED, "2026-03-02T00:00:01.000000Z"), Event(EventName.JOB_COMPLETED, "2026-03-02T00:00:03.000000Z")]
        lines = [Event(EventName.LOG, f"2026-03-02T00:00:0{n}.000000Z", {"message": str(n)}) for n in (2, 4)]
        log = write(Path(root), stored, lines)
        with open_folder(root, create=False) as fd:
            log.add(lines[0])
            log.flush(fd, TS)
        assert [line["event"] for line in read(Path(root))] == ["job_queued", "log", "log", "job_completed"]


@pytest.mark.parametrize(
    "tail",
    [
        b"{",
        b"null\n",
        b"[1]\n",
        b'{"seq": 9}\n',
        b"\xff\xfe\n",
        b"\0" * 500,
        b'{"seq":2,"ts":"","event":"unheard_of","job_id":"","run_id":""}\n',
        b'{"seq":3,"ts":"","event":"log","job_id":"job","run_id":"20260302T000000.000000Z-abcd"}\n',
        b'{"seq":2,"ts":"","event":"log","job_id":"job","run_id":"another"}\n',
        b'{"seq":2,"ts":"","event":"log","job_id":"job","run_id":"20260302T000000.000000Z-abcd"}',  # all but its end
    ],
)
def test_whatever_stands_behind_the_whole_lines_is_cut_and_told(tmp_path: Path, tail: bytes) -> None:
    """A power cut may leave anything."""
    queued_event = Event(EventName.JOB_QUEUED, TS)
    write(tmp_path, None, [queued_event])
    with open(tmp_path / EVENTS, "ab") as file:
        file.write(tail)
    write(tmp_path, [queued_event], [Event(EventName.LOG, TS, {"message": "on"})])
    lines = read(tmp_path)
    assert [line["event"] for line in lines] == ["job_queued", "events_lost", "log"]
    assert lines[1]["bytes"] == len(tail)


@pytest.mark.parametrize("fresh", [False, True], ids=["taken up", "fresh"])
@pytest.mark.parametrize("left", [None, 0, 1, -1, 2], ids=["deleted", "emptied", "one line", "torn", "one more"])
def test_a_file_that_somebody_else_changed_goes_on_whole_and_says_so(tmp_path: Path, left: int | None, fresh: bool) -> None:
    """A target can write where its events are. What the store has comes back, and the file is read again for its receipt."""
    path, stored = tmp_path / EVENTS, [Event(EventName.JOB_QUEUED, TS), Event(EventName.JOB_STARTED, TS), END]
    log = EventLog(msgspec.structs.replace(RUN, events=2), None if fresh else lambda _: stored)
    with open_folder(tmp_path, create=True) as fd:
        log.follow(stored[:2], 2)
        log.flush(fd, TS)
        body = path.read_bytes()
        path.unlink()
        if left is not None:
            lines = body.splitlines(keepends=True)
            path.write_bytes({-1: body[:-1], 0: b"", 1: lines[0], 2: body + lines[1]}[left])
        log.add(Event(EventName.LOG, TS, {"message": "on"}))
        log.flush(fd, TS)
        log.run = msgspec.structs.replace(RUN, events=3)
        log.follow([END], 3)
        log.flush(fd, TS)
    lines_now = read(tmp_path)
    check(lines_now, stored)
    assert [line["reason"] for line in lines_now if line["event"] == "events_lost"] == ["the file was changed by somebody else"]
    assert [line["message"] for line in lines_now if line["event"] == "log"] == ["on"]
    assert (lines_now[-1]["event"], log.file) == ("job_completed", None)


def test_a_write_that_fails_leaves_nothing_torn_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lines, with the same numbers."""

    def half(fd: int, body: bytes) -> None:
        os.write(fd, body[: len(body) // 2])
        raise OSError(errno.ENOSPC, "full")

    log = write(tmp_path, None, [Event(EventName.JOB_QUEUED, TS)])
    before = (tmp_path / EVENTS).read_bytes()
    log.add(Event(EventName.LOG, TS, {"message": "x" * 100}))
    with open_folder(tmp_path, create=False) as fd:
        with monkeypatch.context() as patch:
            patch.setattr(lily.storage.event_log, "write_all", half)
            for _ in range(3):
                with pytest.raises(OSError, match="full"):
                    log.flush(fd, TS)
        assert (tmp_path / EVENTS).read_bytes() == before
        assert len(log.flush(fd, TS)) == 1
    assert [line["seq"] for line in read(tmp_path)] == [1, 2]


def test_a_log_that_can_not_be_read_yet_is_not_taken_for_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, say: the next try reads it, and numbers go on."""
    event = Event(EventName.JOB_QUEUED, TS)
    write(tmp_path, None, [event])
    log = EventLog(RUN, lambda _: [event])
    log.add(Event(EventName.LOG, TS, {"message": "on"}))

    def no_more(*given: object, **more: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with open_folder(tmp_path, create=False) as fd:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", no_more)
            with pytest.raises(OSError, match="too many"):
                log.flush(fd, TS)
        log.flush(fd, TS)
    assert [(line["seq"], line["event"]) for line in read(tmp_path)] == [(1, "job_queued"), (2, "log")]


def test_what_the_store_has_beyond_the_run_as_told_is_left_to_come(tmp_path: Path) -> None:
    """A run's end may be stored before the lines of its attempt are written: nothing may stand in front of them."""
    events = [Event(EventName.JOB_QUEUED, TS), Event(EventName.JOB_STARTED, TS), END]
    log = EventLog(msgspec.structs.replace(RUN, events=2), lambda _: events)
    with open_folder(tmp_path, create=True) as fd:
        log.add(Event(EventName.LOG, TS, {"message": "of the attempt"}))
        log.flush(fd, TS)
        log.run = msgspec.structs.replace(RUN, events=3)
        log.follow([END], 3)
        log.flush(fd, TS)
    assert [line["event"] for line in read(tmp_path)] == ["job_queued", "job_started", "log", "job_completed"]


@pytest.mark.parametrize("written", [False, True], ids=["in memory", "on disk"])
@pytest.mark.parametrize("fresh", [False, True], ids=["taken up", "fresh"])
def test_events_that_somebody_else_stored_meanwhile_stand_in_their_place(tmp_path: Path, written: bool, fresh: bool) -> None:
    """A person approves while the run's log is still held here: the next move finds what it was not told of, and what was said stays."""
    names = [EventName.JOB_QUEUED, EventName.JOB_WAITING_APPROVAL, EventName.JOB_APPROVED, EventName.JOB_QUEUED, EventName.JOB_STARTED]
    events = [Event(name, f"2026-03-02T00:00:0{second}.000000Z") for second, name in enumerate(names)]
    said = Event(EventName.LOG, "2026-03-02T00:00:00.500000Z", {"message": "before"})
    log = EventLog(msgspec.structs.replace(RUN, events=2), None if fresh else lambda _: events)
    with open_folder(tmp_path, create=True) as fd:
        if not fresh:
            log.flush(fd, TS)
        else:
            log.follow(events[:2], 2)
            if written:
                log.flush(fd, TS)
        log.add(said)
        if written:
            log.flush(fd, TS)
        log.run = msgspec.structs.replace(RUN, events=5)
        assert log.lacks(4)
        assert not log.lacks(2)
        log = log.renewed(lambda _: events)
        log.follow(events[4:], 5)
        log.flush(fd, TS)
    found = [str(line["event"]) for line in read(tmp_path)]
    assert found.count("log") == 1
    assert [name for name in found if name != "log"] == [name.value for name in names]


def test_what_can_not_be_written_is_bounded_and_lifecycle_events_stay() -> None:
    """One line says how many went."""
    log = EventLog(RUN, None)
    log.add(Event(EventName.JOB_QUEUED, TS))
    count = MAX_PENDING_BYTES // 1000 + 10
    for _ in range(count):
        log.add(Event(EventName.OUTPUT, TS, {"text": "x" * 1000}))
    log.shed(TS)
    assert [event.event for event in log.pending] == [EventName.JOB_QUEUED, EventName.EVENTS_LOST]
    assert log.pending[1].data["events"] == count
    assert log.pending_bytes < 1000
    log.shed(TS)
    assert len(log.pending) == 2


def test_what_goes_in_several_pieces_is_counted_together() -> None:
    """A disk may be full for long."""
    log = EventLog(RUN, None)
    count = MAX_PENDING_BYTES // 1000 + 10
    for _ in range(3):
        for _ in range(count):
            log.add(Event(EventName.OUTPUT, TS, {"text": "x" * 1000}))
        log.shed(TS)
    assert [event.data.get("events") for event in log.pending] == [3 * count]


def test_an_events_own_fields_never_overwrite_the_five(tmp_path: Path) -> None:
    """Whatever a target says."""
    forged = {"seq": 99, "ts": "x", "event": "job_completed", "job_id": "x", "run_id": "x", "own": 1}
    write(tmp_path, None, [Event(EventName.LOG, TS, forged)])
    (line,) = read(tmp_path)
    assert line == {"seq": 1, "ts": TS, "event": "log", "job_id": RUN.job_id, "run_id": RUN.run_id, "own": 1}
