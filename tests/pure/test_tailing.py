"""Reading the end of a growing file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.operations import tailing
from lily.operations.tailing import EventFile, run_names
from lily.workspace import EVENTS, Workspace

A, B = "20260504T041500.000001Z-aaaa", "20260504T041500.000002Z-bbbb"


LINES = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=30)


@given(lines=LINES, torn=st.booleans(), last=st.integers(0, 40))
def test_the_last_lines_are_found_from_the_end(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], torn: bool, last: int) -> None:
    """Whatever the blocks cut through; what has no line break yet is no line."""
    folder = tmp_path_factory.mktemp("run")
    (folder / EVENTS).write_bytes(b"".join(line + b"\n" for line in lines) + (b"torn" if torn else b""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tailing, "_BLOCK", 7)
        file = EventFile(folder, last)
        assert list(file.lines()) == [line + b"\n" for line in lines[max(0, len(lines) - last) :]]
        file.close()


def test_lines_come_once_and_whole(tmp_path: Path) -> None:
    """A line that is half there is given when the other half has come."""
    file = EventFile(tmp_path, 5)
    assert list(file.lines()) == []
    path = tmp_path / EVENTS
    path.write_bytes(b"one\ntw")
    assert list(file.lines()) == [b"one\n"]
    assert list(file.lines()) == []
    with path.open("ab") as end:
        end.write(b"o\nthree\n")
    assert list(file.lines()) == [b"two\n", b"three\n"]
    file.close()


def test_a_file_that_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    """`-n` is about the lines that were there when one asked."""
    file = EventFile(tmp_path / "later", 1)
    assert list(file.lines()) == []
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / EVENTS).write_bytes(b"one\ntwo\n")
    assert list(file.lines()) == [b"one\n", b"two\n"]
    file.close()


def test_a_torn_end_that_is_cut_and_written_again_is_read_right(tmp_path: Path) -> None:
    """After a crash the owner cuts the torn line and goes on behind the last whole one."""
    path = tmp_path / EVENTS
    path.write_bytes(b"one\ntorn lin")
    file = EventFile(tmp_path, None)
    assert list(file.lines()) == [b"one\n"]
    path.write_bytes(b"one\nlost\n")
    assert list(file.lines()) == [b"lost\n"]
    file.close()


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A target may put files into its run's folder; it can't make the tail show another file."""
    secret = tmp_path / "secret"
    secret.write_text("key\n")
    (tmp_path / EVENTS).symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        list(EventFile(tmp_path, None).lines())


def test_run_names_are_those_of_runs_in_order(tmp_path: Path) -> None:
    """Other files, links and folders in there are nobody's runs."""
    workspace = Workspace(tmp_path)
    assert run_names(workspace, "a") == []
    folder = workspace.job_dir("a")
    for name in (B, A, "notes"):
        (folder / name).mkdir(parents=True)
    (folder / "20260504T041500.000003Z-cccc").symlink_to(folder / A)
    assert run_names(workspace, "a") == [A, B]
