"""`lily db rebuild`: both directions, from the command line."""

import shutil
from pathlib import Path

import pytest

from lily.workspace import RECEIPT, SUMMARY
from tests.cli.conftest import Lily, supervisor, write_job
from tests.contract.conform import check_fits


@pytest.fixture
def busy(lily: Lily, workspace: Path) -> list[Path]:
    """Two runs of one job; gives their folders."""
    write_job(workspace, "a", bindings={"argv": ["echo", "hello"]})
    lily("jobs", "run", "a")
    lily("jobs", "run", "a")
    return sorted((workspace / ".lily" / "runs" / "a").iterdir())


@pytest.mark.e2e
def test_the_command_rebuilds_files(lily: Lily, busy: list[Path]) -> None:
    """A line for each; the document has the same. Nothing to do is said, too."""
    body = (busy[0] / RECEIPT).read_bytes()
    (busy[0] / RECEIPT).unlink()
    said = lily("db", "rebuild", "--from", "store", "--dry-run")
    line = f"receipt_written  {busy[0].name}  run_receipt.json is written again, as it was, byte for byte\n"
    assert (said.status, said.out) == (0, line + "1 would be rebuilt, 0 could not be\n")
    document = lily("db", "rebuild", "--from", "store", "--json")
    check_fits("cli-db-rebuild", document.json)
    assert document.json["counts"] == {"receipt_written": 1}
    assert (busy[0] / RECEIPT).read_bytes() == body
    assert lily("db", "rebuild", "--from", "store").out == "0 rebuilt, 0 could not be\n"
    (busy[0] / "stdout.log").unlink()
    said = lily("db", "rebuild", "--from", "store")
    assert (said.status, said.out.splitlines()[0]) == (1, f"not_rebuilt  {busy[0].name}  stdout.log is not there")


@pytest.mark.e2e
def test_the_command_rebuilds_history(lily: Lily, busy: list[Path], workspace: Path) -> None:
    """Into a store that was just made."""
    (before,) = [lily("runs", "list", "--json").json]
    shutil.rmtree(workspace / "db")
    assert lily("runs", "list", "--json").json == {"runs": []}
    assert lily("db", "rebuild", "--from", "receipts", "--dry-run").status == 0
    assert lily("runs", "list", "--json").json == {"runs": []}
    document = lily("db", "rebuild", "--from", "receipts", "--reason", "the disk died", "--json")
    check_fits("cli-db-rebuild", document.json)
    assert document.json["counts"] == {"run_added": 2}
    assert lily("runs", "list", "--json").json == before
    assert lily("runs", "verify").status == 0
    assert lily("jobs", "run", "a").status == 0
    assert lily("runs", "verify").status == 0


@pytest.mark.e2e
def test_history_is_rebuilt_only_while_no_supervisor_is_up(lily: Lily, busy: list[Path], workspace: Path) -> None:
    """Files may be, and so may a look at what would be done."""
    with supervisor(workspace):
        said = lily("db", "rebuild", "--from", "receipts")
        assert (said.status, said.err.partition(":")[0]) == (4, "owner_conflict")
        assert lily("db", "rebuild", "--from", "receipts", "--dry-run").status == 0
        (busy[0] / SUMMARY).unlink()
        assert lily("db", "rebuild", "--from", "store").status == 0
    assert lily("runs", "verify").status == 0


@pytest.mark.e2e
def test_losses_are_accepted_when_somebody_says_so(lily: Lily, busy: list[Path], workspace: Path) -> None:
    """Nothing is found any more, and the exit status is 0; not while a supervisor is up."""
    (busy[0] / "stdout.log").unlink()
    with supervisor(workspace):
        assert lily("db", "rebuild", "--from", "store", "--accept-losses").status == 4
    document = lily("db", "rebuild", "--from", "store", "--accept-losses", "--reason", "made room", "--json")
    check_fits("cli-db-rebuild", document.json)
    assert (document.status, document.json["counts"]) == (0, {"sealed": 1})
    said = lily("runs", "verify")
    assert (said.status, said.out) == (0, "2 runs of 1 job, 9 files: 0 findings\n")
    assert lily("jobs", "run", "a").status == 0
    assert lily("runs", "verify").status == 0


@pytest.mark.parametrize("words", [("--from", "receipts", "--accept-losses"), ("--from", "store", "--accept-losses", "--dry-run")])
@pytest.mark.e2e
def test_losses_are_accepted_for_files_and_for_good(lily: Lily, busy: list[Path], words: tuple[str, ...]) -> None:
    """What makes no sense is refused in a line."""
    said = lily("db", "rebuild", *words)
    assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (2, 1, "usage")


@pytest.mark.parametrize("words", [(), ("--from", "nowhere"), ("--from",)])
def test_where_from_must_be_said(lily: Lily, busy: list[Path], words: tuple[str, ...]) -> None:
    """One line, exit status 2."""
    said = lily("db", "rebuild", *words)
    assert (said.status, said.err.count("\n"), said.err.partition(":")[0]) == (2, 1, "usage")


def test_a_rebuild_of_a_store_that_was_deleted_does_not_advise_itself(lily: Lily, busy: list[Path], workspace: Path) -> None:
    """Its first command in the new store. The other direction has nothing to write from, and is told so."""
    shutil.rmtree(workspace / "db")
    assert "`lily db rebuild --from receipts`" in lily("db", "rebuild", "--from", "store").err
    shutil.rmtree(workspace / "db")
    said = lily("db", "rebuild", "--from", "receipts")
    assert (said.status, said.err) == (0, "")
    assert said.out.endswith("2 rebuilt, 0 could not be\n")
