"""`lily runs` and `lily jobs history`: looking at runs, and changing what becomes of them."""

import json
import os
import pty
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lily, Said, command, environment, shell, write_job

RUN = {
    "run_id",
    "job_id",
    "status",
    "trigger",
    "queued_at",
    "started_at",
    "ended_at",
    "next_attempt_at",
    "duration_seconds",
    "attempts",
    "interruptions",
    "error",
    "cancel_requested",
    "key",
    "lineage",
    "retried_as",
    "spec_hash",
    "trace_id",
}


@pytest.fixture
def two_runs(lily: Lily, workspace: Path) -> list[str]:
    """A good run of `good`, then a bad one of `bad`; their ids."""
    write_job(workspace, "good", bindings=shell("echo fine"))
    write_job(workspace, "bad", bindings=shell("echo '[red]no[/red]' >&2; exit 3"))
    return [lily("jobs", "run", job, "--json").lines[-1]["receipt"]["run_id"] for job in ("good", "bad")]


def ids(said: Said) -> list[str]:
    return [run["run_id"] for run in said.json["runs"]]


def test_list_shows_runs_of_all_jobs_newest_first(lily: Lily, two_runs: list[str]) -> None:
    """With status and last error; brackets in an error survive."""
    assert ids(lily("runs", "list", "--json")) == two_runs[::-1]
    found = lily("runs", "list", "--json").json["runs"][0]
    assert set(found) == RUN
    assert (found["status"], found["error"]["code"], found["attempts"]) == ("failed", "job_execution_failed", 1)
    text = lily("runs", "list").out.splitlines()
    assert text[0].split()[:3] == ["RUN", "JOB", "STATUS"]
    assert "[red]no[/red]" in text[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--limit", "1"), ["bad"]),
        (("--status", "succeeded"), ["good"]),
        (("--job", "good"), ["good"]),
        (("--since", "24h"), ["bad", "good"]),
        (("--status", "missed"), []),
    ],
)
@pytest.mark.usefixtures("two_runs")
@pytest.mark.e2e
def test_list_can_be_narrowed(lily: Lily, arguments: tuple[str, ...], expected: list[str]) -> None:
    """By number, status, job and age."""
    assert [run["job_id"] for run in lily("runs", "list", "--json", *arguments).json["runs"]] == expected


def test_what_somebodys_code_raised_is_shown_with_its_place(lily: Lily, workspace: Path) -> None:
    """In a blueprint of the workspace, and in a function of a module there."""
    folder = workspace / ".lily" / "blueprints"
    folder.mkdir()
    (folder / "mine.py").write_text(
        'import lily\n\n\n@lily.blueprint(\'mine.v1\')\nasync def mine(ctx, bindings, run_input):\n    """Fail."""\n    return 1 / 0\n'
    )
    (workspace / "work.py").write_text("def count():\n    return int('many')\n")
    write_job(workspace, "own", target={"kind": "blueprint", "id": "mine.v1"}, bindings={}, capabilities=[])
    write_job(workspace, "function", target={"kind": "blueprint", "id": "python.v1"}, bindings={"callable": "work:count"})
    for job, place in (("own", f"{folder / 'mine.py'}, line 7, in mine"), ("function", f"{workspace / 'work.py'}, line 2, in count")):
        run = lily("jobs", "run", job, "--json").lines[-1]["receipt"]["run_id"]
        (summary,) = (workspace / ".lily" / "runs" / job).glob("*/summary.md")
        assert f"Raised at {place}; the traceback is in `run_receipt.json`." in summary.read_text()
        assert f"raised at  {place}" in lily("runs", "show", run).out.splitlines()


@pytest.mark.e2e
def test_since_takes_times_and_durations(lily: Lily, two_runs: list[str]) -> None:
    """A time with an offset means the instant; a date its midnight in UTC."""
    now = datetime.now(UTC)
    later = (now + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S+14:00")
    for text, expected in ((str((now - timedelta(days=1)).date()), two_runs[::-1]), (later, []), ("0001-01-01T00:00:00Z", two_runs[::-1])):
        assert ids(lily("runs", "list", "--since", text, "--json")) == expected
    assert lily("runs", "list", "--since", "2026-05-04T09:00:00").status == 2
    assert lily("runs", "list", "--since", "0001-01-01T00:00:00+14:00").status == 2


@pytest.mark.e2e
def test_history_shows_one_job_newest_first(lily: Lily, workspace: Path, two_runs: list[str]) -> None:
    """Also after its file is gone; a job that never ran has none, an unknown one is an error."""
    newest = lily("jobs", "run", "good", "--json").lines[-1]["receipt"]["run_id"]
    assert ids(lily("jobs", "history", "good", "--json")) == [newest, two_runs[0]]
    assert ids(lily("jobs", "history", "good", "--limit", "1", "--json")) == [newest]
    (workspace / ".lily/jobs/good.job.yaml").unlink()
    assert ids(lily("jobs", "history", "good", "--json")) == [newest, two_runs[0]]
    write_job(workspace, "new")
    empty = lily("jobs", "history", "new")
    assert (empty.status, empty.out) == (0, "")
    assert "no runs yet" in empty.err
    assert lily("jobs", "history", "unknown").status == 3


@pytest.mark.e2e
def test_history_shows_twenty_unless_told(lily: Lily, workspace: Path) -> None:
    """The default of the contract."""
    write_job(workspace, "a")
    for _ in range(21):
        assert lily("jobs", "run", "a", "--detach").status == 0
    assert len(ids(lily("jobs", "history", "a", "--json"))) == 20
    assert len(ids(lily("jobs", "history", "a", "--json", "--limit", "100"))) == 21
    assert len(ids(lily("runs", "active", "--json"))) == 21


@pytest.mark.e2e
def test_show_tells_a_run_whole(lily: Lily, two_runs: list[str]) -> None:
    """By its id, its beginning or its last part; with attempts, events and receipt."""
    good, bad = two_runs
    found = lily("runs", "show", bad, "--json").json
    assert set(found) == RUN | {"folder", "receipt"}
    assert found["receipt"]["error"] == found["error"]
    assert [attempt["status"] for attempt in found["attempts"]] == ["failed"]
    text = lily("runs", "show", good.rpartition("-")[2])
    assert text.status == 0
    assert all(word in text.out for word in (good, "job_completed", "run_receipt.json", "succeeded"))


@pytest.mark.parametrize("run", ["nope", "../../x", "20260504T041500.123456Z-k3f9", "%", "2"])
@pytest.mark.usefixtures("two_runs")
@pytest.mark.e2e
def test_an_unknown_or_ambiguous_run_is_status_3(lily: Lily, run: str) -> None:
    """Nothing is guessed."""
    for arguments in (("show", run), ("cancel", run), ("replay", run), ("diff", run, run)):
        said = lily("runs", *arguments)
        assert (said.status, said.err.split(":")[0]) == (3, "run_not_found"), arguments


def test_a_waiting_run_is_canceled_at_once(lily: Lily, workspace: Path) -> None:
    """Its receipt comes with the next owner; a second cancel is refused."""
    write_job(workspace, "a")
    run_id = lily("jobs", "run", "a", "--detach").out.strip()
    said = lily("runs", "cancel", run_id, "--reason", "not needed", "--json")
    assert (said.status, said.json["status"]) == (0, "canceled")
    again = lily("runs", "cancel", run_id)
    assert (again.status, again.err.split(":")[0]) == (4, "run_state_invalid")
    assert ids(lily("runs", "active", "--json")) == []


def test_a_dry_run_of_a_replay_says_what_it_would_wait_for(lily: Lily, workspace: Path, two_runs: list[str]) -> None:
    """Nothing is stored; with --approve it would run."""
    plan = lily("runs", "replay", two_runs[0], "--dry-run", "--json")
    assert (plan.status, plan.json["plan"]["would"]) == (0, "wait for an approval, then run")
    assert [need["kind"] for need in plan.json["plan"]["approvals"]] == ["replay"]
    plan = lily("runs", "replay", two_runs[0], "--dry-run", "--approve", "--reason", "sure", "--json")
    assert (plan.json["plan"]["would"], plan.json["plan"]["approvals"]) == ("run", [])
    assert len(ids(lily("runs", "list", "--json"))) == 2


@pytest.mark.parametrize(("which", "expected"), [("pinned", "fine\n"), ("current", "changed\n")])
@pytest.mark.e2e
def test_a_replay_is_a_new_run_that_names_the_first(lily: Lily, workspace: Path, two_runs: list[str], which: str, expected: str) -> None:
    """With the spec that ran then, or with the file as it is now; the approval stands in the receipt."""
    write_job(workspace, "good", bindings=shell("echo changed"))
    said = lily("runs", "replay", two_runs[0], "--spec", which, "--approve", "--reason", "checked by me", "--json")
    assert said.status == 0
    receipt: dict[str, Any] = said.lines[-1]["receipt"]
    assert receipt["run_id"] != two_runs[0]
    assert receipt["lineage"]["replayed_from"] == two_runs[0]
    assert receipt["payload"]["stdout_tail"] == expected
    assert "checked by me" in json.dumps(receipt["approvals"])


def test_diff_shows_what_differs(lily: Lily, workspace: Path, two_runs: list[str]) -> None:
    """Spec, outcome, payload."""
    found = lily("runs", "diff", *two_runs, "--json").json
    assert set(found) == {"a", "b", "differences"}
    assert found["differences"]["status"] == {"a": "succeeded", "b": "failed"}
    text = lily("runs", "diff", *two_runs).out
    assert 'a  "succeeded"' in text
    assert text.startswith(f"a  {two_runs[0]}\nb  {two_runs[1]}\n")
    assert lily("runs", "diff", two_runs[0], two_runs[0]).out.endswith("no difference\n")


def test_prune_deletes_only_what_it_says(lily: Lily, workspace: Path, two_runs: list[str]) -> None:
    """A dry run deletes nothing; runs that have not ended stay."""
    runs = workspace / ".lily" / "runs"
    waiting = lily("jobs", "run", "good", "--detach").out.strip()
    dry = lily("runs", "prune", "--keep", "0", "--dry-run", "--json")
    assert sorted(ids(dry)) == sorted(two_runs)
    assert dry.json["dry_run"] is True
    assert all((runs / job / run).is_dir() for job, run in zip(("good", "bad"), two_runs, strict=True))
    assert ids(lily("runs", "prune", "--older-than", "1d", "--json")) == []
    done = lily("runs", "prune", "--keep", "0", "--job", "bad")
    assert done.out == f"bad  {two_runs[1]}\n"
    assert done.err == "1 run deleted\n"
    assert not (runs / "bad" / two_runs[1]).exists()
    assert sorted(ids(lily("runs", "list", "--json"))) == sorted([two_runs[0], waiting])


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "prune", "--keep", "0"),
        ("db", "rebuild", "--from", "store"),
        ("db", "rebuild", "--from", "store", "--accept-losses"),
        ("db", "rebuild", "--from", "receipts"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("stands", ["link", "file"])
def test_while_the_disk_of_the_runs_is_away_nothing_takes_them_for_gone(
    lily: Lily, workspace: Path, two_runs: list[str], command: tuple[str, ...], stands: str
) -> None:
    """What is deleted then, or noted as lost, would be back with the disk, and nobody would know of it."""
    runs = workspace / ".lily" / "runs"
    runs.rename(workspace / "away")
    if stands == "link":
        runs.symlink_to(workspace / "disk" / "runs")
    else:
        runs.touch()
    said = lily(*command)
    assert (said.status, said.out, said.err.partition(":")[0]) == (3, "", "workspace_invalid")
    runs.unlink()
    (workspace / "away").rename(runs)
    assert sorted(ids(lily("runs", "list", "--json"))) == sorted(two_runs)
    assert lily("runs", "verify").status == 0


@pytest.mark.usefixtures("workspace")
def test_without_any_run_a_list_is_empty(lily: Lily) -> None:
    """An object with an empty list, or a word on stderr."""
    assert lily("runs", "list", "--json").json == {"runs": []}
    assert lily("runs", "active").err == "nothing is active\n"


@pytest.mark.usefixtures("two_runs")
@pytest.mark.e2e
def test_on_a_terminal_lines_are_cut_and_coloured(workspace: Path) -> None:
    """A pipe gets neither, and NO_COLOR is honoured."""

    def shown(**more: str) -> str:
        outer, inner = pty.openpty()
        env = {**environment(TERM="xterm", **more), "COLUMNS": "100"}
        subprocess.run(command("runs", "list"), cwd=workspace, env=env, stdout=inner, check=True)
        os.close(inner)
        text = os.read(outer, 65536).decode()
        os.close(outer)
        return text

    coloured, plain = shown(), shown(NO_COLOR="1")
    assert "\x1b[31mfailed" in coloured
    assert "\x1b" not in plain
    assert coloured.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "") == plain
    assert all(len(line) <= 100 for line in plain.splitlines())
    assert "…" in plain
