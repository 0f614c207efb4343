"""What conditions look at, each for real: files, a web server, SQLite databases, the environment, the clock; and how little they may."""

import hashlib
import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import lily.offload
from lily.blueprints.registry import Registry
from lily.conditions.define import Look, subject
from lily.conditions.evaluate import Evaluator
from lily.conditions.verdict import Evaluation, Wanted
from lily.offload import in_thread, in_thread_or_left
from lily.operations.conditions import WorkspaceFacts
from lily.settings import Policy, load_settings
from lily.spec_index import SpecIndex
from lily.testing import FakeClock
from lily.workspace import Workspace
from tests.real.loopback import Asked, Reply, serving

NOW = datetime(2026, 5, 4, 7, 30, tzinfo=UTC)
ALL = frozenset({"fs.read", "net.http"})


@dataclass
class Eye:
    """Looks at things in a workspace."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    granted: frozenset[str] = ALL
    timeout: float = 10.0
    outside: bool = False
    others: list[Any] = field(default_factory=list)
    secrets: frozenset[str] = frozenset()  # what the job refers to
    own: list[str] = field(default_factory=list)  # those of the settings

    def look(self, subject: Any, operator: str = "exists", value: Any = None) -> Evaluation:
        """Once."""
        return anyio.run(self._look, subject, operator, value, backend="trio")

    async def _look(self, subject: Any, operator: str, value: Any) -> Evaluation:
        place = Workspace(self.root)
        registry = Registry(place.blueprints)
        for other in self.others:
            registry.register(other)
        policy: Policy = msgspec.structs.replace(load_settings(place).policy, cwd_outside_workspace=self.outside)
        evaluate = Evaluator(
            registry,
            place,
            facts=WorkspaceFacts(None, SpecIndex(place, read_only=True)),
            policy=lambda: policy,
            clock=FakeClock(NOW),
            offload=in_thread,
            reading=in_thread_or_left,
            secrets=lambda: self.own,
            environ=self.environ,
            timeout_seconds=self.timeout,
        )
        trigger = {"type": "condition", "every": "1m", "subject": subject, "operator": operator, "value": value}
        return await evaluate(Wanted("job", NOW, 1, NOW, trigger, self.timezone, self.granted, self.secrets))

    def observed(self, subject: Any) -> Any:
        """What is there; an error fails the test."""
        found = self.look(subject)
        assert found.code == "", found
        return found.observed

    def code(self, subject: Any, operator: str = "exists", value: Any = None) -> str:
        """Why there is no result."""
        found = self.look(subject, operator, value)
        assert (found.result, bool(found.message)) == ("error", True), found
        return found.code


@pytest.fixture
def eye(tmp_path: Path) -> Eye:
    """In a new workspace."""
    root = tmp_path / "workspace"
    (root / ".lily").mkdir(parents=True)
    return Eye(root)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with size and time of its content: what a look may not change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(root.rglob("*"))}


# -- files -------------------------------------------------------------------------------------------


def file(path: str, what: str) -> dict[str, str]:
    return {"kind": "file", "path": path, "field": what}


def test_a_file_is_there_or_not_and_has_size_time_and_digest(eye: Eye) -> None:
    """A folder exists too. What is not there has none of these, which is no error."""
    path = eye.root / "data.bin"
    path.write_bytes(b"x" * 3_000_000)
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert eye.observed(file("data.bin", "exists")) is True
    assert eye.observed(file(".lily", "exists")) is True
    assert eye.observed(file("data.bin", "size")) == 3_000_000
    assert eye.observed(file("data.bin", "mtime")) == "2023-11-14T22:13:20.123456Z"
    assert eye.observed(file("data.bin", "sha256")) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert eye.look(file("data.bin", "mtime"), "lt", "2023-11-15").result == "true"
    assert eye.observed(file("nothing", "exists")) is False
    assert [eye.look(file("nothing/x", name), "neq", "a").kind for name in ("size", "mtime", "sha256")] == ["missing"] * 3
    assert [eye.look(file("nothing/x", name), "exists", False).result for name in ("size", "mtime", "sha256")] == ["true"] * 3


def test_files_that_fit_a_pattern_are_counted(eye: Eye) -> None:
    """Stars, classes, folders in between, any number of them; hidden ones only by name."""
    for name in ("a.csv", "b.csv", "c.txt", ".hidden.csv", "one/d.csv", "one/two/e.csv", "one/two/.x/f.csv", "[odd].csv"):
        (eye.root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (eye.root / "in" / name).touch()
    counted = {
        "in/*.csv": 3,
        "in/[ab].csv": 2,
        "in/?.*": 3,
        "in/.*.csv": 1,
        "in/*/*.csv": 1,
        "in/**/*.csv": 5,
        "in/**": 8,
        "in/one/**/two/*": 1,
        "in/a.csv": 1,
        "in/nothing": 0,
        "nowhere/*": 0,
        "in/a.csv/*": 0,
        "in/**/**/e.csv": 1,
        "./in//*.txt": 1,
    }
    assert {pattern: eye.observed(file(pattern, "count")) for pattern in counted} == counted


def test_a_file_that_fits_a_pattern_in_several_ways_is_counted_once(eye: Eye) -> None:
    """Either folder may be what stands between two `**`."""
    (eye.root / "a/logs1/logs2").mkdir(parents=True)
    (eye.root / "a/logs1/logs2/x").touch()
    counted = {"**/logs*/**/x": 1, "a/**/logs*/**": 2, "**/**/x": 1, "**/a/**/*/**/x": 1}
    assert {pattern: eye.observed(file(pattern, "count")) for pattern in counted} == counted


@pytest.mark.parametrize("what", ["exists", "size", "mtime", "sha256", "count"])
@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "folder/secret", "in/../../secret"])
def test_nothing_outside_of_the_workspace_is_looked_at_unless_the_policy_allows_it(eye: Eye, path: str, what: str) -> None:
    """By no way: no dots, no link."""
    (eye.root.parent / "secret").write_text("x")
    (eye.root / "link").symlink_to(eye.root.parent / "secret")
    (eye.root / "folder").symlink_to(eye.root.parent)
    (eye.root / "in").mkdir()
    assert eye.code(file(path, what)) == "forbidden"
    eye.outside = True
    assert eye.look(file(path, what)).result == "true"


def test_a_pattern_follows_no_link_out_of_the_workspace(eye: Eye) -> None:
    """Neither `*` nor `**`; and one that climbs out later is refused."""
    (eye.root.parent / "elsewhere").mkdir()
    (eye.root.parent / "elsewhere" / "x.csv").touch()
    (eye.root / "away").symlink_to(eye.root.parent / "elsewhere")
    (eye.root / "in").mkdir()
    (eye.root / "in" / "back").symlink_to(eye.root)
    assert [eye.observed(file(pattern, "count")) for pattern in ("*/x.csv", "**/*.csv", "a*/*.csv")] == [0, 0, 0]
    assert eye.code(file("*/../../elsewhere/*", "count")) == "forbidden"
    eye.outside = True
    assert eye.observed(file("*/x.csv", "count")) == 1


def test_what_is_no_plain_file_keeps_nobody_waiting(eye: Eye) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(eye.root / "pipe")
    assert eye.code(file("pipe", "sha256")) == "evaluation_failed"
    assert eye.observed(file("pipe", "size")) == 0
    assert eye.code({"kind": "sqlite", "path": "pipe", "query": "select 1"}) == "evaluation_failed"


def test_a_file_that_may_not_be_read_is_an_error_with_its_reason(eye: Eye) -> None:
    """Not a missing value."""
    long = "x" * 300
    found = eye.look(file(long, "size"))
    assert (found.code, "File name too long" in found.message) == ("evaluation_failed", True)


# -- SQLite ------------------------------------------------------------------------------------------


@pytest.fixture(params=["delete", "wal"])
def shop(request: pytest.FixtureRequest, eye: Eye) -> Path:
    """A database of each kind, with three orders in it; nobody has it open."""
    path = eye.root / "shop.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma journal_mode={request.param}")
        db.execute("create table orders (id integer primary key, sent text, note blob)")
        db.executemany("insert into orders (sent, note) values (?, ?)", [(None, None), ("2026-05-04", b"x"), (None, b"y")])
        db.commit()
    return path


def query(text: str, path: str = "shop.sqlite3") -> dict[str, str]:
    return {"kind": "sqlite", "path": path, "query": text}


@pytest.mark.usefixtures("shop")
def test_a_query_gives_its_one_value(eye: Eye) -> None:
    """Of any type; no row and null are missing values. Nothing changes in the folder."""
    before = tree(eye.root)
    assert eye.observed(query("select count(*) from orders where sent is null")) == 2
    assert eye.observed(query("select sent from orders where id = 2")) == "2026-05-04"
    assert eye.observed(query("select 1.5")) == 1.5
    assert eye.observed(query("with recursive n(x) as (select 1 union all select x + 1 from n where x < 9) select max(x) from n")) == 9
    assert eye.look(query("select null"), "neq", 3).kind == "missing"
    assert eye.look(query("select id from orders where id = 99"), "neq", 3).kind == "missing"
    assert tree(eye.root) == before


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "text",
    [
        "insert into orders (sent) values ('x') returning id",
        "update orders set sent = 'x'",
        "delete from orders",
        "drop table orders",
        "create table other (x)",
        "create temp table other (x)",
        "attach database 'other.sqlite3' as other",
        "pragma journal_mode=delete",
        "pragma user_version=7",
        "pragma user_version",
        "vacuum into 'copy.sqlite3'",
        "begin immediate",
        "reindex",
        "select load_extension('x')",
    ],
)
def test_a_query_that_does_more_than_read_is_forbidden(eye: Eye, text: str) -> None:
    """And nothing of it happens."""
    before = tree(eye.root)
    assert eye.code(query(text)) in ("forbidden", "evaluation_failed")
    assert tree(eye.root) == before


@pytest.mark.usefixtures("shop")
def test_a_write_is_named_as_what_is_forbidden(eye: Eye) -> None:
    """So that the person knows why."""
    assert eye.code(query("delete from orders")) == "forbidden"
    assert eye.code(query("attach database 'other.sqlite3' as other")) == "forbidden"


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "text", ["select", "select * from orders", "select id from orders", "select note from orders where id = 2", "select 1; select 2", ""]
)
def test_what_is_no_one_value_is_an_error(eye: Eye, text: str) -> None:
    """No SQL, several columns, several rows, bytes, several statements."""
    expected = "invalid_predicate" if not text else "evaluation_failed"
    assert eye.code(query(text)) == expected


def test_a_database_that_is_not_there_or_none_is_told_apart(eye: Eye) -> None:
    """And none is made."""
    assert eye.code(query("select 1")) == "subject_not_found"
    (eye.root / "text").write_text("no database at all, but longer than a header")
    assert eye.code(query("select count(*) from sqlite_master", "text")) == "evaluation_failed"
    assert eye.code(query("select 1", "../x.sqlite3")) == "forbidden"
    assert not (eye.root / "shop.sqlite3").exists()


def test_a_database_that_is_written_meanwhile_is_read_as_it_was_committed(eye: Eye) -> None:
    """A log that somebody writes to is read, too."""
    path = eye.root / "shop.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t (x)")
        db.execute("insert into t values (1)")
        db.commit()
        db.execute("insert into t values (2)")
        assert eye.observed(query("select count(*) from t")) == 1
        db.commit()
        assert eye.observed(query("select count(*) from t")) == 2


@pytest.mark.usefixtures("shop")
def test_a_query_without_end_is_ended(eye: Eye) -> None:
    """The look times out, and the thread that ran it ends soon after."""
    eye.timeout = 0.2
    before = threading.active_count()
    assert eye.code(query("with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n")) == "timeout"
    assert threading.active_count() <= before + 2


# -- HTTP --------------------------------------------------------------------------------------------


def test_the_status_of_an_answer_is_observed(eye: Eye) -> None:
    """Whatever it is; a redirect is not followed. The request is a GET without a body."""
    with serving() as server:
        for status in (200, 204, 302, 404, 503):
            server.reply = lambda asked, status=status: Reply(status, {"location": "/elsewhere"})  # type: ignore[misc]
            assert eye.observed({"kind": "http", "url": server.url + "/x"}) == status
        assert {(asked.method, asked.path, asked.body) for asked in server.asked} == {("GET", "/x", b"")}


def test_a_value_in_the_json_of_an_answer_is_observed(eye: Eye) -> None:
    """By its path; what is not there is a missing value, an answer that is no success or no JSON is an error."""
    body = {"checks": {"db": "ok", "lag": [1.5, None]}, "up": True}

    def at(path: str) -> dict[str, str]:
        return {"kind": "http", "url": f"{server.url}/health?token=hunter2hunter2", "json_path": path}

    with serving() as server:
        server.reply = lambda asked: Reply(body=msgspec.json.encode(body))
        assert [eye.observed(at(path)) for path in ("checks.db", "checks.lag[0]", "up")] == ["ok", 1.5, True]
        assert eye.look(at("up"), "eq", True).result == "true"
        assert [eye.look(at(path), "neq", "x").kind for path in ("checks.lag[1]", "checks.no", "up.x")] == ["missing"] * 3
        assert eye.look(at("checks"), "exists").kind == "structure"
        assert eye.code(at("checks"), "eq", "ok") == "value_type_mismatch"
        server.reply = lambda asked: Reply(503, body=msgspec.json.encode(body))
        found = eye.look(at("up"), "eq", True)
        assert (found.code, "503" in found.message, "hunter2" in found.message) == ("evaluation_failed", True, False)
        server.reply = lambda asked: Reply(body=b"<html>")
        assert eye.code(at("up"), "eq", True) == "evaluation_failed"
        server.reply = lambda asked: Reply(body=b'"' + b"x" * 2_000_000 + b'"')
        assert eye.code(at("$"), "eq", True) == "evaluation_failed"


def test_a_header_may_be_a_secret(eye: Eye) -> None:
    """It is sent, and stands in nothing that is kept."""
    eye.environ["KEY"] = "correct-horse-battery"

    def echo(asked: Asked) -> Reply:
        return Reply(body=msgspec.json.encode({"got": f"key {asked.headers.get('x-key')}"}))

    with serving() as server:
        server.reply = echo
        found = eye.look(
            {"kind": "http", "url": server.url, "json_path": "got", "headers": {"X-Key": {"secret": "env:KEY"}}}, "matches", "*horse*"
        )
        assert (found.result, found.observed) == ("true", "key ***")
        assert "horse-b" not in found.message
        assert eye.code({"kind": "http", "url": server.url, "headers": {"X-Key": {"secret": "env:NONE"}}}) == "evaluation_failed"


def test_a_server_that_is_not_there_or_never_answers_is_an_error(eye: Eye) -> None:
    """The first at once, the second when its time is over."""
    found = eye.look({"kind": "http", "url": "http://127.0.0.1:9/"}, "eq", 200)
    assert (found.code, "gave no answer" in found.message) == ("evaluation_failed", True)
    released = threading.Event()
    with serving() as server:
        server.reply = lambda asked: Reply(before=released.wait)
        eye.timeout = 0.2
        found = eye.look({"kind": "http", "url": server.url}, "eq", 200)
        released.set()
    assert found.code == "timeout"
    assert 0.2 <= found.duration_seconds < 5


def test_what_the_job_does_not_grant_is_not_asked_for(eye: Eye) -> None:
    """No request leaves."""
    eye.granted = frozenset({"fs.read"})
    with serving() as server:
        assert eye.code({"kind": "http", "url": server.url}) == "forbidden"
        assert server.asked == []


# -- environment and clock ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "type_", "observed"),
    [
        ("10", "text", "10"),
        ("10", "number", 10),
        (" -1.5 ", "number", -1.5),
        ("true", "boolean", True),
        ("False", "boolean", False),
        ("2026-05-04T11:00:00+02:00", "timestamp", "2026-05-04T09:00:00.000000Z"),
        ("2026-05-04T11:00", "timestamp", "2026-05-04T11:00:00.000000Z"),
        ("", "text", ""),
        ("  ", "number", None),
        ("", "boolean", None),
    ],
)
def test_a_variable_is_what_its_type_says(eye: Eye, text: str, type_: str, observed: Any) -> None:
    """One that is blank is nothing where it is not text."""
    eye.environ["LEVEL"] = text
    assert eye.observed({"kind": "env", "name": "LEVEL", "type": type_}) == observed


@pytest.mark.parametrize(
    ("text", "type_"), [("ten", "number"), ("true", "number"), ("1", "boolean"), ("soon", "timestamp"), ("9" * 30, "number")]
)
def test_a_variable_that_is_of_another_type_is_an_error(eye: Eye, text: str, type_: str) -> None:
    """And not nothing."""
    eye.environ["LEVEL"] = text
    assert eye.code({"kind": "env", "name": "LEVEL", "type": type_}) == "value_type_mismatch"


def test_a_variable_that_is_not_set_is_missing(eye: Eye) -> None:
    """It exists not, and differs from nothing."""
    assert eye.look({"kind": "env", "name": "NONE"}).result == "false"
    assert eye.look({"kind": "env", "name": "NONE"}, "neq", "x").result == "false"


def test_the_clock_shows_the_time_of_the_look_in_the_jobs_zone(eye: Eye) -> None:
    """`now` is an instant, the others what the wall shows."""
    eye.timezone = "Asia/Tokyo"
    shown = {"now": "2026-05-04T07:30:00.000000Z", "date": "2026-05-04", "time": "16:30", "hour": 16, "day": 4, "weekday": "mon"}
    assert {name: eye.observed({"kind": "clock", "field": name}) for name in shown} == shown
    assert eye.observed("clock") == shown["now"]
    assert eye.look("clock", "gte", "2026-05-04T16:30").result == "true"
    assert eye.look("clock", "gte", "2026-05-04T16:31").result == "false"
    assert eye.look({"kind": "clock", "field": "time"}, "gte", "09:00").result == "true"


# -- subjects of a workspace ---------------------------------------------------------------------------

OWN = """
import pathlib
from pydantic import BaseModel
import lily

class Where(BaseModel):
    model_config = {"extra": "forbid"}
    path: str

@lily.subject("lines.v1", params=Where, capabilities=["fs.read"])
async def lines(look: lily.Look, params: Where) -> int:
    "How many lines a file has."
    return await look.blocking(lambda stop: len((look.workspace / params.path).read_text().splitlines()))
"""


def test_a_subject_of_the_workspace_is_found_like_its_blueprints(eye: Eye) -> None:
    """With its parameters checked and its capabilities asked for; it is in the list."""
    (eye.root / ".lily" / "blueprints").mkdir()
    (eye.root / ".lily" / "blueprints" / "own.py").write_text(OWN)
    (eye.root / "log").write_text("a\nb\n")
    assert eye.observed({"kind": "lines.v1", "path": "log"}) == 2
    assert eye.code({"kind": "lines.v1"}) == "invalid_predicate"
    assert eye.code({"kind": "lines.v1", "path": "log", "more": 1}) == "invalid_predicate"
    found = eye.look({"kind": "lines.v1", "path": "none"}, "gt", 1)
    assert (found.code, "FileNotFoundError" in found.message) == ("evaluation_failed", True)
    assert eye.code("lines.v2") == "subject_not_found"
    eye.granted = frozenset()
    assert eye.code({"kind": "lines.v1", "path": "log"}) == "forbidden"
    members = {each["id"]: each for each in Registry(Workspace(eye.root).blueprints).members()["subjects"]}
    assert members["lines.v1"]["summary"] == "How many lines a file has."
    assert members["file"]["origin"] == "built-in"


def test_a_disk_that_never_answers_holds_up_nothing_but_its_look(eye: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that hang are left behind, a few at most; when all hang, looks that need one time out and others go on."""
    monkeypatch.setattr(lily.offload, "_left", None)
    monkeypatch.setattr(lily.offload, "LEFT", 3)
    released = threading.Event()

    @subject("stuck")
    async def stuck(look: Look, params: Any) -> None:
        await look.blocking(lambda stop: released.wait(30))

    eye.others, eye.timeout = [stuck], 0.1

    async def looks() -> list[str]:
        return [(await eye._look("stuck", "exists", None)).code for _ in range(2)]

    try:
        assert anyio.run(looks, backend="trio") == ["timeout"] * 2
    finally:
        released.set()


@pytest.mark.parametrize("given", [{}, None, 7, "", {"kind": 7}, ["file"]])
def test_a_stored_subject_of_no_form_is_an_invalid_predicate(eye: Eye, given: Any) -> None:
    """A trigger that another Lily stored."""
    assert eye.code(given) == "invalid_predicate"
