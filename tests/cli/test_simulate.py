"""`lily schedule simulate` as a person calls it."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lily.cli.simulate import check_size
from lily.errors import LilyError
from lily.simulation.plan import Span
from lily.simulation.slots import Slots
from tests.cli.conftest import Lily, write_job
from tests.simulated import at, job

DAY = ("--from", "2026-05-04", "--to", "2026-05-05")


def hourly(workspace: Path, job_id: str = "a") -> None:
    write_job(workspace, job_id, trigger={"type": "cron", "cron": "0 * * * *"}, timezone="UTC")


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))}


def test_a_day_as_text(workspace: Path, lily: Lily) -> None:
    """Counts by job, a total, and what the troubles did."""
    hourly(workspace)
    hourly(workspace, "b")
    write_job(workspace, "by-hand")
    said = lily("schedule", "simulate", *DAY, "--outage", "2026-05-04T03:00+2h", "--slots", "1")
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    assert "2 jobs, 1 slot" in lines[0]
    assert [line.split()[:4] for line in lines[3:6]] == [["a", "24", "22", "2"], ["b", "24", "22", "2"], ["total", "48", "44", "4"]]
    assert "longest wait  1 min 0 s" in said.out


def test_nothing_is_written_into_the_workspace(workspace: Path, lily: Lily, tmp_path: Path) -> None:
    """Not a byte: no cache, no store, no log. With a store and its history, too."""
    hourly(workspace)
    before = everything(workspace)
    assert lily("schedule", "simulate", *DAY, "--durations", "history", "--json", str(tmp_path / "a.json")).status == 0
    assert everything(workspace) == before
    assert lily("jobs", "run", "a").status == 0
    before = everything(workspace)
    assert lily("schedule", "simulate", *DAY, "--durations", "history").status == 0
    assert everything(workspace) == before


def test_history_gives_durations(workspace: Path, lily: Lily) -> None:
    """The job once took less than a minute, so do its simulated runs; a job without a past takes the default."""
    hourly(workspace)
    hourly(workspace, "new")
    lily("jobs", "run", "a")
    said = lily("schedule", "simulate", *DAY, "--durations", "history", "--default-duration", "7m", "--json", "-")
    took = {(each["job_id"], each["seconds"]) for each in said.json["windows"]}
    assert {seconds for job_id, seconds in took if job_id == "new"} == {420.0}
    assert all(seconds < 60 for job_id, seconds in took if job_id == "a")


def test_json_holds_every_window(workspace: Path, lily: Lily) -> None:
    """With its status, and its run's start and end; the same bytes twice."""
    hourly(workspace)
    arguments = ("schedule", "simulate", *DAY, "--outage", "2026-05-04T03:00/2026-05-04T04:30", "--duration", "a=90s", "--json", "-")
    said = lily(*arguments)
    assert said.out == lily(*arguments).out
    assert " (1 day), 1 job, " in lily(*arguments[:-2]).out
    view = said.json
    assert view["schema_version"] == 1
    assert view["total"]["windows"] == len(view["windows"]) == 24
    assert view["windows"][0] == {
        "job_id": "a",
        "at": "2026-05-04T00:00:00.000000Z",
        "status": "fired",
        "outcome": "succeeded",
        "start": "2026-05-04T00:00:00.000000Z",
        "end": "2026-05-04T00:01:30.000000Z",
        "queued_seconds": 0.0,
        "seconds": 90.0,
    }
    assert view["windows"][3] == {"job_id": "a", "at": "2026-05-04T03:00:00.000000Z", "status": "missed"}


def test_pictures_are_files(workspace: Path, lily: Lily, tmp_path: Path) -> None:
    """SVG alone, or a page that holds it and the text."""
    hourly(workspace)
    svg, page, whole = tmp_path / "a.svg", tmp_path / "a.html", tmp_path / "a.json"
    assert lily("schedule", "simulate", *DAY, "--svg", str(svg), "--json", str(whole)).status == 0
    assert lily("schedule", "simulate", *DAY, "--html", str(page)).status == 0
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    assert json.loads(whole.read_text())["total"]["fired"] == 24
    assert "<svg " in page.read_text()


def test_files_that_cant_be_used_are_told_of(workspace: Path, lily: Lily) -> None:
    """The others are played."""
    hourly(workspace)
    (workspace / ".lily/jobs/bad.job.yaml").write_text("id: [")
    said = lily("schedule", "simulate", *DAY)
    assert said.status == 0
    assert "job files that can't be used and are left out: 1;" in said.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--from", "2026-05-05", "--to", "2026-05-04"), 2, "usage: --to 2026-05-04 is not later"),
        ((*DAY, "--outage", "soon"), 2, "usage: --outage: 'soon' is neither"),
        ((*DAY, "--duration", "aa=5"), 3, "job_not_found: --duration: no job has the id 'aa' · did you mean a?"),
        ((*DAY, "--pause", "by-hand=2026-05-04+1h"), 3, "job_trigger_invalid: --pause: the job by-hand has no windows"),
        ((*DAY, "--slots", "0"), 2, "usage: --slots is a whole number from 1 to 1000, not 0"),
        ((*DAY, "--svg", "a", "--html", "b"), 2, "usage: --svg and --html say two things"),
        ((*DAY, "--svg", "/no/such/folder/a.svg"), 2, "usage: --svg: /no/such/folder/a.svg can't be written"),
        ((*DAY, "--durations", "guess"), 2, "usage: "),
        (("--from", "2026-05-05"), 2, "usage: "),
    ],
)
def test_what_cant_be_played_is_one_line(workspace: Path, lily: Lily, arguments: tuple[str, ...], status: int, words: str) -> None:
    """A stable code, what is wrong, what would be right."""
    hourly(workspace)
    write_job(workspace, "by-hand")
    said = lily("schedule", "simulate", *arguments)
    assert (said.status, said.out) == (status, "")
    assert said.err.startswith(words)
    assert len(said.err.splitlines()) == 1


def test_ctrl_c_is_one_line(workspace: Path, lily: Lily, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the engine it comes."""

    def interrupted(slots: Slots) -> None:
        raise KeyboardInterrupt

    hourly(workspace)
    monkeypatch.setattr(Slots, "advance", interrupted)
    said = lily("schedule", "simulate", *DAY)
    assert (said.status, said.err) == (130, "interrupted: stopped by Ctrl-C\n")


def test_more_windows_than_anybody_waits_for_are_refused() -> None:
    """Before anything is played."""
    entry, _ = job("a", "* * * * *")
    check_size([entry], Span(at("2026-05-04"), at("2026-05-05")), most=1440)
    with pytest.raises(LilyError, match="more than 1,000 windows"):
        check_size([entry], Span(at("2026-05-04"), at("2026-05-05")), most=1000)
