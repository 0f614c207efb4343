"""Paths that can't leave the workspace, and the lock that says who owns it."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.workspace import (
    RESERVED,
    OwnerLock,
    Workspace,
    current_owner,
    find_workspace,
    is_artifact_name,
    is_job_id,
    is_run_id,
    lock_path,
    read_owner,
)

NASTY = [
    "..",
    "../../x",
    "a/../b",
    "a..b",
    "/etc/passwd",
    "",
    ".",
    "a/b",
    "a\\b",
    "a\0b",
    "a\n",
    "A",
    "-a",
    "é",
    "a" * 129,
    "٣",
    "a b",
    "~",
    "%2e%2e",
]
texts = st.text(max_size=150) | st.text(alphabet="abz019._-/\\ \n\0é٣", max_size=12)


@pytest.mark.parametrize("text", NASTY)
def test_what_could_leave_the_runs_folder_is_no_job_id(text: str) -> None:
    """And no run id, so nothing is written or deleted elsewhere."""
    assert not is_job_id(text)
    assert not is_run_id(text)
    with pytest.raises(LilyError) as caught:
        Workspace(Path("/w")).run_dir(text, "20260302T000000.000000Z-abcd")
    assert caught.value.code is Code.JOB_NOT_FOUND


@given(text=texts)
def test_an_accepted_job_id_is_one_plain_name(text: str) -> None:
    """Its folder is right under the runs."""
    if is_job_id(text):
        path = Workspace(Path("/w")).job_dir(text)
        assert os.path.normpath(path) == str(path)
        assert path.parent == Path("/w/.lily/runs")


@given(job=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True), text=texts)
def test_an_accepted_run_id_is_one_plain_name(job: str, text: str) -> None:
    """Its folder is right under its job's."""
    workspace = Workspace(Path("/w"))
    if is_run_id(text):
        path = workspace.run_dir(job, text)
        assert path.parent == workspace.job_dir(job)
        assert os.path.normpath(path) == str(path)
    else:
        with pytest.raises(LilyError) as caught:
            workspace.run_dir(job, text)
        assert caught.value.code is Code.RUN_NOT_FOUND


@given(text=texts)
def test_an_accepted_artifact_name_is_one_plain_name_and_none_of_lilys_own(text: str) -> None:
    """Nor a hidden file: those are Lily's unfinished ones."""
    if is_artifact_name(text):
        assert os.path.basename(text) == text
        assert text not in RESERVED
        assert not text.startswith(".")
        assert ".." not in text


@pytest.mark.parametrize("text", ["20260302T000000.000000Z-k3f9", "99991231T235959.999999Z-abcdefghij12"])
def test_run_ids_of_the_store_are_run_ids(text: str) -> None:
    """A time and a suffix."""
    assert is_run_id(text)
    assert not is_run_id(text + "\n")
    assert not is_run_id(text.lower())


# -- finding it ------------------------------------------------------------------------------------


def test_the_workspace_is_found_from_any_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By walking up; a given one or the environment's goes first."""
    monkeypatch.delenv("LILY_WORKSPACE", raising=False)
    (tmp_path / "one" / ".lily").mkdir(parents=True)
    (tmp_path / "one" / "a" / "b").mkdir(parents=True)
    (tmp_path / "two" / ".lily").mkdir(parents=True)
    assert find_workspace(start=tmp_path / "one" / "a" / "b").root == tmp_path / "one"
    monkeypatch.setenv("LILY_WORKSPACE", str(tmp_path / "two"))
    assert find_workspace(start=tmp_path / "one").root == tmp_path / "two"
    assert find_workspace(tmp_path / "one").root == tmp_path / "one"


@pytest.mark.parametrize("given", [None, "nowhere"])
def test_no_workspace_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """It says how to make one."""
    monkeypatch.delenv("LILY_WORKSPACE", raising=False)
    with pytest.raises(LilyError, match="lily init") as caught:
        find_workspace(tmp_path / given if given else None, start=tmp_path)
    assert caught.value.code is Code.WORKSPACE_NOT_FOUND


# -- owning it -------------------------------------------------------------------------------------


def take(lock: OwnerLock) -> None:
    """As `lily up` does."""
    lock.acquire(kind="up", since="2026-03-02T00:00:00.000000Z", life="life")


def test_a_second_owner_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    """With its pid; and it takes over once the first has gone."""
    path = lock_path(Workspace(tmp_path))
    first, second = OwnerLock(path), OwnerLock(path)
    take(first)
    with pytest.raises(LilyError) as caught:
        take(second)
    assert caught.value.code is Code.OWNER_CONFLICT
    assert f"pid {os.getpid()} (lily up, since 2026-03-02" in str(caught.value)
    assert "\n" not in str(caught.value)
    first.release()
    first.release()
    take(second)
    second.release()


def test_the_owner_can_be_seen_without_taking_the_lock(tmp_path: Path) -> None:
    """While it lives."""
    workspace = Workspace(tmp_path)
    assert current_owner(workspace) is None
    lock = OwnerLock(lock_path(workspace))
    take(lock)
    owner = current_owner(workspace)
    assert owner is not None
    assert (owner.pid, owner.kind, owner.life, owner.near) == (os.getpid(), "up", "life", True)
    assert stat.S_IMODE(lock_path(workspace).stat().st_mode) == 0o600
    lock.release()
    assert current_owner(workspace) is None


def test_an_owner_that_died_is_known_at_once_and_exactly(tmp_path: Path) -> None:
    """Its lock went with it; the file that it left names nobody who lives, also when its pid is used again."""
    path = lock_path(Workspace(tmp_path))
    code = (
        "import sys, os; from pathlib import Path; from lily.workspace import OwnerLock;"
        "OwnerLock(Path(sys.argv[1])).acquire(kind='up', since='x', life='dead'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    left = read_owner(path)
    assert left is not None
    assert left.life == "dead"
    assert current_owner(Workspace(tmp_path)) is None
    reused = {**json.loads(path.read_bytes()), "pid": os.getpid()}
    path.write_text(json.dumps(reused), encoding="utf-8")
    assert current_owner(Workspace(tmp_path)) is None
    lock = OwnerLock(path)
    take(lock)
    lock.release()


def test_an_owner_whose_process_number_means_nothing_here_lives_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    """In a container, or on the host of this one: the same number is somebody else's here, or nobody's."""
    workspace = Workspace(tmp_path)
    path = lock_path(workspace)
    lock = OwnerLock(path)
    take(lock)
    told = {**json.loads(path.read_bytes()), "namespace": "pid:[1]", "start_ticks": 1}
    path.write_text(json.dumps(told), encoding="utf-8")
    owner = current_owner(workspace)
    assert owner is not None
    assert (owner.near, owner.process) == (False, f"pid {os.getpid()} of another container or the host")
    with pytest.raises(LilyError, match="of another container or the host"):
        take(OwnerLock(path))
    os.close(lock.fileno())  # as when it is killed: the file still names it
    assert read_owner(path) == owner
    assert current_owner(workspace) is None
    path.unlink()
    assert not owner.alive(path)


def test_whoever_looks_at_a_dead_owner_of_another_container_keeps_nobody_from_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look is to hold the lock for a moment."""
    path = lock_path(Workspace(tmp_path))
    lock = OwnerLock(path)
    take(lock)
    told = {**json.loads(path.read_bytes()), "namespace": "pid:[1]"}
    lock.release()
    path.write_text(json.dumps(told), encoding="utf-8")
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    pauses = list[float]()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            os.close(looking)

    monkeypatch.setattr("lily.workspace.time.sleep", pause)
    take(lock)
    assert len(pauses) == 2
    lock.release()


def test_a_lock_file_of_an_older_or_newer_lily_names_its_owner(tmp_path: Path) -> None:
    """One field less, or one more."""
    workspace = Workspace(tmp_path)
    lock = OwnerLock(lock_path(workspace))
    take(lock)
    told = json.loads(lock_path(workspace).read_bytes())
    del told["namespace"]
    for body in (told, {**told, "mood": "fine"}):
        lock_path(workspace).write_text(json.dumps(body), encoding="utf-8")
        owner = current_owner(workspace)
        assert owner is not None
        assert owner.near
    lock.release()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff", b'{"pid": 1}', b"null"])
def test_a_damaged_lock_file_names_nobody(tmp_path: Path, body: bytes) -> None:
    """And is no reason not to start."""
    path = lock_path(Workspace(tmp_path))
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    assert read_owner(path) is None
    lock = OwnerLock(path)
    take(lock)
    lock.release()
