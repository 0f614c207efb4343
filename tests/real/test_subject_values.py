"""What subjects may give, and what of it may be kept: secrets, odd values, and the locks on Lily's own databases."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lily.conditions.define import Look, subject
from lily.conditions.verdict import Evaluation
from tests.real.loopback import Asked, Reply, serving
from tests.real.test_subjects import Eye, eye, file, query

__all__ = ["eye"]  # a fixture


class Odd(int):
    """Refuses to be compared, and to be a number when it is kept."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __gt__ = __hash__ = __eq__  # type: ignore[assignment]

    def __int__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "given",
    [10**400, float("inf"), float("nan"), b"x", Odd(3), datetime(2026, 1, 1), {1}, datetime.max.replace(tzinfo=UTC), "\ud800", "a\0b"],
)
def test_whatever_a_subject_gives_can_be_kept_or_is_an_error(eye: Eye, given: Any) -> None:
    """A number too large for a database, an object that raises, half a character, a NUL."""

    @subject("odd")
    async def odd(look: Look, params: Any) -> Any:
        return given

    eye.others = [odd]
    for operator, value in (("eq", "x"), ("gt", 3), ("exists", None), ("matches", "*")):
        found = eye.look("odd", operator, value)
        assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found
        assert "\0" not in found.message


def test_a_secret_that_a_sentence_would_cut_is_not_in_it(eye: Eye) -> None:
    """It is hidden before anything is cut."""
    eye.environ["KEY"] = "correct-horse-battery-staple"

    def echo(asked: Asked) -> Reply:
        return Reply(body=msgspec.json.encode("x" * 40 + " " + asked.headers["x-key"]))

    with serving() as server:
        server.reply = echo
        found = eye.look({"kind": "http", "url": server.url, "json_path": "$", "headers": {"X-Key": {"secret": "env:KEY"}}}, "eq", "x")
    assert "horse" not in f"{found.observed}{found.message}"
    assert found.result == "false"


def test_what_the_job_or_the_settings_refer_to_as_a_secret_is_compared_and_not_kept(eye: Eye) -> None:
    """Whatever the variable is called in which it is seen, and also where it looks like a number."""
    (eye.root / "hook").write_text("correct-horse-battery\n")
    eye.environ |= {"HOOK": "to correct-horse-battery", "PLACE": "zebra-crossing", "DOOR": "1234567890"}
    eye.secrets, eye.own = frozenset({"file:hook", "env:DOOR", "env:NONE"}), ["zebra-crossing"]
    door = {"kind": "env", "name": "DOOR", "type": "number"}
    found = [
        eye.look({"kind": "env", "name": "HOOK"}, "matches", "*horse-battery"),
        eye.look({"kind": "env", "name": "PLACE"}, "neq", "x"),
        eye.look(door, "gt", 1234567889),
    ]
    assert [(each.result, each.observed) for each in found] == [("true", "to ***"), ("true", "***"), ("true", "***")]
    assert found[2].message == '"***" is over 1234567889'
    assert eye.look(door, "lt", 3).kind == "number"


def test_lilys_own_databases_are_asked_and_never_opened_as_files(eye: Eye) -> None:
    """Closing a file drops every lock of this process on it: another would take the store for nobody's."""
    (eye.root / "db").mkdir()
    store = eye.root / "db" / "lily.sqlite3"
    with closing(sqlite3.connect(store)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t (x)")
        os.link(store, eye.root / "other")
        assert [eye.code(file(path, "sha256")) for path in ("db/lily.sqlite3", "other", "db/lily.sqlite3-shm")] == ["forbidden"] * 3
        before = locks_of(store)
        assert before
        for _ in range(3):
            assert eye.observed(query("select count(*) from t", "db/lily.sqlite3")) == 0
            assert eye.observed(file("db/lily.sqlite3", "exists")) is True
        assert locks_of(store) == before


def locks_of(path: Path) -> list[str]:
    """The locks that this process holds on a file."""
    inode = f":{path.stat().st_ino} "
    return sorted(
        line.split(maxsplit=1)[1] for line in Path("/proc/locks").read_text().splitlines() if f" {os.getpid()} " in line and inode in line
    )
