"""`lily doctor` and the files of runs: whatever is lost of them, or of their rows, comes back from the other side."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lily.operations.doctor import history, mends
from tests.cli.conftest import Lily
from tests.cli.damage import Past, codes, past, truncated
from tests.contract.conform import check_run


@pytest.fixture
def was(workspace: Path, lily: Lily) -> Past:
    """A workspace with a past."""
    return past(workspace, lily)


def contents(folder: Path) -> dict[str, bytes]:
    """What is in it, hidden files aside."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def half_a_line(folder: Path) -> None:
    """A crash in the middle of an append."""
    with open(folder / "events.jsonl", "ab") as file:
        file.write(b'{"seq":99,"ts":"2026-')


FILES: dict[str, Callable[[Path], object]] = {
    "events.jsonl torn at its end": half_a_line,
    "receipt missing": lambda folder: (folder / "run_receipt.json").unlink(),
    "receipt torn": lambda folder: truncated(folder / "run_receipt.json", 0.5),
    "receipt empty": lambda folder: (folder / "run_receipt.json").write_bytes(b""),
    "summary deleted": lambda folder: (folder / "summary.md").unlink(),
    "summary edited": lambda folder: (folder / "summary.md").write_text("all is well\n"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_lost_or_torn_comes_back_as_it_was(lily: Lily, was: Past, kind: str) -> None:
    """Byte for byte; what was found there is kept."""
    folder = was.folder(was.ended[1])
    before = contents(folder)
    FILES[kind](folder)
    damaged = contents(folder)
    said = lily("doctor", "--json")
    assert (said.status, codes(said)) == (1, {"files_damaged"})
    assert contents(folder) == damaged
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert contents(folder) == before
    check_run(folder)
    (aside,) = was.root.glob(f"db/damaged-*/*/{folder.name}")
    kept = contents(aside)
    assert kept == {name: damaged[name] for name in ("run_receipt.json", "summary.md", "events.jsonl") if name in damaged}
    assert was.query("select count(*) from audit where action = 'doctor.repair'")[0][0] >= 1


def test_of_many_findings_of_a_kind_a_few_are_told_and_all_are_mended(lily: Lily, was: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is counted, before and after."""
    for module in (history, mends):
        monkeypatch.setattr(module, "SHOWN", 1)
    torn = [was.folder(run_id) / "summary.md" for run_id in was.ended]
    for path in torn:
        path.unlink()
    (message,) = [each["message"] for each in lily("doctor", "--json").json["findings"] if each["code"] == "files_damaged"]
    assert message == "summary.md is not there (3 in all)"
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert [each["what"] for each in said.json["repaired"]][1] == "and 2 more; they are in the audit"
    assert all(path.exists() for path in torn)


def test_of_many_that_could_not_be_mended_the_rest_is_not_told_as_done(lily: Lily, was: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is in no audit."""
    monkeypatch.setattr(mends, "SHOWN", 1)
    for run_id in was.ended:
        (was.folder(run_id) / "summary.md").unlink()
        was.execute("delete from event where run_id = ?", run_id)
        (was.folder(run_id) / "events.jsonl").unlink()
    told = [(each["what"], each["done"]) for each in lily("doctor", "--repair", "--json").json["repaired"]]
    more = [(what, done) for what, done in told if what.startswith("and ")]
    assert more
    assert not any(done for _, done in more)
    assert not any("they are in the audit" in what for what, _ in more)


def test_output_that_is_in_no_store_is_not_made_up(lily: Lily, was: Past) -> None:
    """The rest comes back; what is lost stays a finding, with the command that accepts it."""
    folder = was.folder(was.ended[0])
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(line for line in lines if b'"event":"output"' not in line)[:-20])
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (1, {"files_damaged"})
    fix = next(each["fix"] for each in said.json["findings"] if each["code"] == "files_damaged")
    assert "lily db rebuild --from store --accept-losses" in fix
    assert lily("db", "rebuild", "--from", "store", "--accept-losses", "--reason", "it was a test").status == 0
    assert lily("doctor", "--json").status == 0
    assert json.loads((folder / "events.jsonl").read_text().splitlines()[-1])["event"] == "job_completed"


def test_rows_without_receipts_get_their_files_again(lily: Lily, was: Past) -> None:
    """Somebody deleted the folder of a run."""
    folder = was.folder(was.ended[2])
    shutil.rmtree(folder)
    assert codes(lily("doctor", "--json")) == {"files_damaged"}
    lily("doctor", "--repair")
    assert json.loads((folder / "run_receipt.json").read_text())["status"] == "succeeded"
    assert (folder / "summary.md").exists()


@pytest.mark.parametrize("table", ["run", "attempt and event"])
def test_receipts_without_rows_get_their_rows_again(lily: Lily, was: Past, table: str) -> None:
    """Somebody deleted rows, or the store is older than the runs."""
    run_id = was.ended[1]
    before = lily("runs", "show", run_id, "--json").json
    for name in (table, "attempt", "event") if table == "run" else table.split(" and "):
        was.execute(f"delete from {name} where run_id = ?", run_id)
    said = lily("doctor", "--json")
    assert codes(said) & {"row_missing", "row_differs"}
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert lily("runs", "show", run_id, "--json").json == before
    assert run_id in {letter["run_id"] for letter in lily("dlq", "list", "--json").json["dead_letters"]}


def test_a_run_that_the_store_takes_for_running_and_that_has_a_receipt_is_not_run_again(lily: Lily, was: Past) -> None:
    """The store lost its newest rows: the receipt knows better, and comes before what orphans get."""
    run_id = was.ended[0]
    was.execute("update run set status = 'running', ended_at = null, written = 0 where run_id = ?", run_id)
    said = lily("doctor", "--json")
    assert {"row_differs", "run_orphaned"} <= codes(said)
    said = lily("doctor", "--repair", "--json")
    assert (said.status, codes(said)) == (0, set()), said.json
    assert lily("runs", "show", run_id, "--json").json["status"] == "succeeded"


def test_a_folder_of_nobody_is_only_said(lily: Lily, was: Past) -> None:
    """Nothing is deleted that somebody may want."""
    folder = was.root / ".lily" / "runs" / "good" / "20260504T041500.123456Z-k3f9"
    folder.mkdir(mode=0o700)
    (folder / "note").write_text("mine")
    said = lily("doctor", "--repair", "--json")
    assert said.status == 0
    assert "folder_unknown" in {each["code"] for each in said.json["findings"]}
    assert (folder / "note").read_text() == "mine"
