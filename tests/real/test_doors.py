"""What anybody on the machine could knock at: sockets, files and their modes, ports, and what others may have left in the files."""

import json
import os
import pickle
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.reader import _FOLLOWERS, _understood
from lily.api import Session
from lily.errors import Code, LilyError
from lily.operations.client import follow, supervisor_status
from lily.operations.sockets import address, doorbell_path, reader_path
from lily.runs import Status
from lily.settings import load_settings
from lily.workspace import Workspace
from tests.real.house import House, until

pytestmark = pytest.mark.e2e


def modes(root: Path) -> dict[str, str]:
    """What under `root` others than the user may do anything with, with its mode."""
    found = {}
    for path in [root, *root.rglob("*")]:
        mode = path.lstat().st_mode
        if not path.is_symlink() and mode & 0o077:
            found[str(path.relative_to(root))] = stat.filemode(mode)
    return found


@pytest.mark.slow
def test_whatever_lily_makes_is_the_users_alone_under_an_open_umask(tmp_path: Path) -> None:
    home = tmp_path / "made"
    command = [sys.executable, "-m", "lily"]

    def lily(*arguments: str) -> int:
        return subprocess.run([*command, *arguments], cwd=home, umask=0, capture_output=True, timeout=60).returncode

    assert subprocess.run([*command, "init", str(home)], cwd=tmp_path, umask=0, capture_output=True, timeout=60).returncode == 0
    assert lily("jobs", "new", "mine", "--blueprint", "command.v1") == 0
    assert lily("jobs", "run", "hello") == 0
    assert lily("jobs", "run", "python-report") in (0, 1)
    up = subprocess.Popen([*command, "up"], cwd=home, umask=0, stderr=subprocess.DEVNULL)
    until(lambda: supervisor_status(Workspace(home)), "the supervisor")
    for job in ("hello", "flaky", "pipeline-demo", "council-review"):
        lily("jobs", "run", job)
    lily("queue", "set", "--max-size", "50", "--persist")
    lily("jobs", "list")
    lily("jobs", "pause", "hello")
    assert modes(home) == {}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (home / ".lily" / "run").iterdir() if path.is_socket()} == {0o600}
    up.kill()
    up.wait()
    lily("runs", "prune", "--keep", "1")
    assert lily("store", "reset", "--yes", "--reason", "a test") == 0
    assert modes(home) == {}


def test_a_supervisor_listens_on_no_network(house: House) -> None:
    """Of all its sockets none is of the internet's families; those that it listens on are files."""
    up = house.up()
    house.job("hello", "true")
    house.until_ended(house.submit("hello"))
    inodes = set()
    for fd in Path(f"/proc/{up.pid}/fd").iterdir():
        with suppress(OSError):
            inodes |= {os.readlink(fd).removeprefix("socket:[").removesuffix("]")} if os.readlink(fd).startswith("socket:[") else set()
    assert inodes
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        path = Path(f"/proc/{up.pid}/net/{table}")
        rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
        assert [row for row in rows if row[9] in inodes] == []


# -- the sockets ---------------------------------------------------------------------------------------


FRAMES = [
    b"",
    b"\n",
    b"\0" * 70_000,
    b"{" * 70_000,
    b"[" * 60_000 + b"\n",
    b'{"ask": "status"' + b" " * 70_000 + b"}\n",
    b'{"ask": ["status"]}\n',
    b'{"ask": "follow", "run_id": {"a": 1}}\n',
    b'{"ask": "follow", "run_id": "../../etc/passwd"}\n',
    b'{"ask": "follow", "from_seq": "x"}\n',
    b'{"ask": "runs", "limit": 1000000}\n',
    b'{"ask": "runs", "limit": true}\n',
    b'{"ask": "runs", "statuses": "queued"}\n',
    b'{"ask": "runs", "statuses": [["queued"]]}\n',
    b'{"ask": "runs", "since": "\\u0000"}\n',
    b'{"ask": "runs", "job_id": "\\ud800"}\n',
    b'{"ask": "down", "grace": "soon"}\n',
    b'{"ask": "down", "grace": NaN}\n',
    b'{"ask": "down", "grace": -1}\n',
    b'{"ask": "down", "grace": 1e400}\n',
    b"\xff\xfe\x00\n",
    b"null\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


def said_to(house: House, frame: bytes) -> bytes:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as door, address(reader_path(house.workspace)) as where:
        door.settimeout(5)
        door.connect(where)
        with suppress(BrokenPipeError, ConnectionResetError):
            door.sendall(frame)
            door.shutdown(socket.SHUT_WR)
            return door.recv(65_536)
    return b""


def test_garbage_at_the_sockets_is_refused_and_the_supervisor_goes_on(house: House) -> None:
    up = house.up()
    for frame in FRAMES:
        answer = said_to(house, frame)
        assert not answer or "error" in json.loads(answer.splitlines()[0]), frame
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as bell, address(doorbell_path(house.workspace)) as where:
        for ring in (b"", b"runs" * 1000, b"\0" * 60_000, pickle.dumps({"a": 1}), b"states\n"):
            with suppress(BlockingIOError):
                bell.sendto(ring, where)
    house.job("hello", "true")
    assert house.until_ended(house.submit("hello")).status == "succeeded"
    assert house.answers(up)
    assert "crashed" not in up.said()


@pytest.mark.parametrize("run_id", ["x", "", "20260504T041500123456Z-0123456789ab"])
def test_who_follows_a_run_that_is_not_there_is_told_so(house: House, run_id: str) -> None:
    house.up()
    with pytest.raises(LilyError) as caught:
        list(follow(house.workspace, run_id=run_id))
    assert caught.value.code is Code.RUN_NOT_FOUND


SURROGATES = [
    {"ask": "follow", "run_id": "\ud800"},
    {"ask": "follow", "job_id": "a\0b"},
    {"ask": "reload", "by": {"\ud800": 1, "name": "x"}},
    {"ask": "reload", "by": {"name": "\ud800"}, "reason": "\ud800"},
]


def test_text_that_nobody_can_store_is_no_error_of_the_supervisors_own(house: House) -> None:
    up = house.up()
    for asked in SURROGATES:
        answer = json.loads(said_to(house, json.dumps(asked).encode() + b"\n"))
        assert answer.get("error", {}).get("code") in (None, "usage"), asked
    assert "could not be answered" not in up.said()


def joins(door: socket.socket, where: str) -> bool:
    """Whether there was room before the door."""
    try:
        door.connect(where)
    except BlockingIOError:
        return False
    return True


@pytest.mark.slow  # ten seconds are what a client has
def test_clients_that_say_nothing_take_neither_its_descriptors_nor_its_answers(house: House) -> None:
    """They are more than it has room for: those who come later wait until the silent ones have been sent away."""
    up = house.up()
    folder = Path(f"/proc/{up.pid}/fd")
    before, silent = len(list(folder.iterdir())), [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(300)]
    with ExitStack() as doors, address(reader_path(house.workspace)) as where:
        for door in silent:
            doors.enter_context(door)
            door.settimeout(20)
            until(partial(joins, door, where), "room before the door")
        assert len(list(folder.iterdir())) < before + 270
        assert supervisor_status(house.workspace, timeout=60) is not None
        assert silent[0].recv(1) == b""
    house.job("hello", "true")
    assert house.until_ended(house.submit("hello")).status == "succeeded"
    assert "crashed" not in up.said()


def test_who_finds_others_waiting_at_the_door_waits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that doesn't block is refused at once where the door's queue is full, as if nobody were there."""
    workspace = Workspace(tmp_path)
    workspace.runtime.mkdir(parents=True)
    comes = threading.Event()

    def coming(path: Path) -> AbstractContextManager[str]:
        comes.set()
        return address(path)

    def serve() -> None:
        comes.wait(60)
        while True:
            client, _ = door.accept()
            with client, client.makefile("rwb") as file:
                if file.readline():
                    file.write(b'{"pid": 7}\n')
                    return

    with ExitStack() as doors, address(reader_path(workspace)) as where:
        door = doors.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        door.bind(where)
        door.listen(0)
        others = [doors.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))) for _ in range(9)]
        there = [other for other in others if joins(other, where)]
        assert 0 < len(there) < len(others)
        for other in there:
            other.shutdown(socket.SHUT_RDWR)  # says nothing, once it is taken in
        monkeypatch.setattr("lily.operations.client.address", coming)
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        assert supervisor_status(workspace, timeout=60) == {"pid": 7}
        server.join(60)


def test_who_asks_an_owner_that_ends_meanwhile_is_told_that_it_went_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is not tried again in vain where the connection is closed."""
    ours, its = socket.socketpair()
    its.close()
    monkeypatch.setattr("lily.operations.client._connect", lambda workspace, timeout: ours)
    with pytest.raises(LilyError) as raised:
        list(follow(Workspace(tmp_path)))
    assert raised.value.code is Code.SUPERVISOR_NOT_RUNNING


def test_as_many_as_may_follow_leave_room_for_those_who_ask_and_for_one_more_run(house: House) -> None:
    """One more is told so, and looks at the store in place of following."""
    house.job("hello", "echo", "hello")
    house.job("slow", "sh", "-c", f"read line < {house.gate()}")
    run_id = house.submit("slow")
    up = house.up()
    with ExitStack() as doors, address(reader_path(house.workspace)) as where:
        for _ in range(_FOLLOWERS):
            door = doors.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
            until(partial(joins, door, where), "room before the door")
            door.sendall(json.dumps({"ask": "follow", "run_id": run_id}).encode() + b"\n")
            assert b"job_queued" in door.recv(65536)
        assert supervisor_status(house.workspace) is not None
        with pytest.raises(LilyError) as raised:
            list(follow(house.workspace, run_id=run_id))
        assert raised.value.code is Code.SUPERVISOR_NOT_RUNNING
        said = house.lily("jobs", "run", "hello", "--json")
        assert (said.status, said.err) == (0, "")  # it is not taken for one that has ended
        told = [json.loads(line) for line in said.out.splitlines()]
        assert [line for line in told if "seq" in line] == house.events(told[0]["run_id"])
        assert told[-1]["receipt"]["status"] == "succeeded"
        with Session(house.root) as session:
            assert session.run("hello").status == "succeeded"
    assert "error" not in up.said()


def test_a_follower_that_takes_nothing_more_is_no_fault_in_the_log(house: House) -> None:
    """It reads no answer and keeps its end open, so that only the sending finds out."""
    house.job("hello", "true")
    up = house.up()
    run_id = house.submit("hello")
    house.until_ended(run_id)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as door, address(reader_path(house.workspace)) as where:
        door.connect(where)
        door.shutdown(socket.SHUT_RD)
        door.sendall(json.dumps({"ask": "follow", "run_id": run_id}).encode() + b"\n")
        until(lambda: peer_is_gone(door), "the supervisor's end to be closed")
    assert " error " not in up.said()


def peer_is_gone(door: socket.socket) -> bool:
    """Whether nobody is at the other end: writing to it fails."""
    try:
        door.send(b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


NAMES = st.sampled_from(["ask", "grace", "from_seq", "run_id", "job_id", "limit", "statuses", "since", "x"])
PARTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ASKED = st.dictionaries(NAMES, PARTS | st.lists(PARTS, max_size=3) | st.dictionaries(NAMES, PARTS, max_size=3), max_size=5)


@settings(max_examples=300)
@given(st.binary(max_size=200) | ASKED.map(lambda value: json.dumps(value).encode()))
def test_of_what_is_asked_at_the_socket_only_what_has_the_right_form_is_taken(body: bytes) -> None:
    request = _understood(body)
    if request:
        assert 0 <= request["grace"] <= 31_536_000
        assert isinstance(request["from_seq"], int)
        assert all(isinstance(request[name], str | None) for name in ("run_id", "job_id", "since"))
        assert 1 <= request["limit"] <= 1000
        assert set(request["statuses"]) <= set(Status)


# -- what others may have written ---------------------------------------------------------------------


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


def test_a_hostile_row_in_the_schedulers_store_is_data_and_never_code(house: House) -> None:
    """Whoever can write the file can have a schedule made anew, and nothing run."""
    burst = house.root / "burst"
    path = house.workspace.job_store
    path.parent.mkdir()
    pickled = pickle.dumps(Bomb(burst))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table job(id text primary key, next_run_time text, body text not null) without rowid")
        database.execute("insert into job values ('hello', '2020-01-01T00:00:00Z', ?)", (pickled,))
        database.execute("create table apscheduler_jobs(id text primary key, next_run_time float, job_state blob not null)")
        database.execute("insert into apscheduler_jobs values ('hello', 0.0, ?)", (pickled,))
    text = house.job("hello", "true").read_text().replace('{"type": "manual"}', '{"type": "cron", "cron": "0 3 * * *", "timezone": "UTC"}')
    (house.workspace.jobs / "hello.job.yaml").write_text(text)
    house.up()
    until(lambda: "hello" in house.lily("schedule", "list").out, "the schedule")
    assert house.lily("jobs", "next", "hello").status == 0
    assert not burst.exists()
    pickle.loads(pickled)
    assert burst.exists()  # what would have happened


LEAVES = [
    ("events.jsonl", "[" * 200_000 + "\n"),
    ("run_receipt.json", "[" * 200_000),
    ("run_receipt.json", '{"a":' * 50_000),
    ("summary.md", "\0" * 1000),
]


@pytest.mark.parametrize(("name", "text"), LEAVES)
def test_what_a_target_leaves_in_the_place_of_lilys_files_harms_its_own_run_alone(house: House, name: str, text: str) -> None:
    (house.root / "left").write_text(text)
    house.job("leaves", "sh", "-c", f'cp left "$LILY_RUN_DIR/{name}"; kill -9 $PPID; sleep 60')
    house.job("hello", "true")
    first = house.up()
    run_id = house.submit("leaves")
    until(lambda: not first.alive(), "the end of the supervisor")
    house.job("leaves", "true")
    house.lily("runs", "cancel", run_id)
    up = house.up()
    assert house.until_ended(house.submit("hello")).status == "succeeded"
    house.until_ended(run_id)
    assert "crashed" not in up.said()


def test_a_batch_of_what_is_no_batch_is_one_clear_line(house: House) -> None:
    house.job("hello", "true")
    deep = '{"job": "hello", "input": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}"
    for body in (deep, "9" * 100_000, "\0" * 1000, '{"job": "hello", "input": {"a": ' + "9" * 5000 + "}}", "[]", '{"job": "../x"}'):
        (house.root / "batch.jsonl").write_text(body + "\n")
        said = house.lily("jobs", "run", "--batch", "batch.jsonl")
        assert said.status in (2, 3), said.err
        assert len(said.err.splitlines()) == 1
        assert "internal_error" not in said.err
    assert house.store.runs() == []


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_settings_of_any_bytes_are_read_or_refused_with_their_place(tmp_path: Path, body: bytes) -> None:
    (tmp_path / ".lily").mkdir(exist_ok=True)
    (tmp_path / ".lily" / "config.yaml").write_bytes(body)
    refused: LilyError | None = None
    try:
        load_settings(Workspace(tmp_path))
    except LilyError as error:
        refused = error
    assert refused is None or (refused.code is Code.CONFIG_INVALID and refused.where.startswith(".lily/config.yaml"))


def test_decoders_of_what_is_stored_make_plain_values_only() -> None:
    """msgspec makes what its types say and calls nothing that the text names."""
    assert msgspec.json.decode(b'{"__reduce__": ["os.mkdir", ["x"]]}') == {"__reduce__": ["os.mkdir", ["x"]]}
