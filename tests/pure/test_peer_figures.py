"""How what was measured beside other runners is told: ratios, the table, the plot, the page."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import environments, run
from benchmarks.peers.outside import figure
from benchmarks.peers.plot import draw
from benchmarks.peers.render import MARKS, amount, page, put, table, times, volatile
from benchmarks.peers.results import LILY, Results
from benchmarks.peers.roster import MEASURES, SYSTEMS, Measure, count_of

RATE = next(measure for measure in MEASURES if measure.name == "noop")
SECONDS = next(measure for measure in MEASURES if measure.name == "latency")
SVG = "{http://www.w3.org/2000/svg}"


def results(measure: Measure = RATE, **figures: list[float]) -> Results:
    """Results with these passes, by system (`huey_redis` stands for huey-redis)."""
    found = Results(SYSTEMS, machine="Lily 1, 2 cores")
    for name, passes in figures.items():
        found.of(measure, name.replace("_", "-")).passes = dict(enumerate(passes))
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of each row below the head."""
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in text.splitlines()[2:]]


def test_a_ratio_says_how_many_times_as_fast_whatever_the_unit() -> None:
    """More a second and fewer seconds both come out above one."""
    assert results(lily=[100], celery=[200]).speed(RATE, "celery", LILY) == 2
    assert results(SECONDS, lily=[0.1], celery=[0.05]).speed(SECONDS, "celery", LILY) == 2


def test_ratios_are_taken_pass_by_pass() -> None:
    """The machine was twice as slow in the second round: both were, so the ratio stays; a pass that one lacks counts for none."""
    found = results(lily=[100, 50, 70], celery=[200, 100])
    assert found.speed(RATE, "celery", LILY) == 2
    assert found.of(RATE, "celery").figure == 150
    assert results(celery=[1]).speed(RATE, "celery", LILY) is None


def test_the_table_ranks_the_fastest_first_below_the_floor_and_says_what_each_leaves_out() -> None:
    """Every system has its row; one without a figure is last, with the reason."""
    found = results(floor=[4000], lily=[1600], celery=[800], huey_redis=[3200])
    found.of(RATE, "rq").missing = "failed: no | such\nthing"
    shown = rows(table(found, RATE))
    assert [row[0] for row in shown] == ["*the floor*", "Huey, Redis", "**Lily**", "Celery, Redis", "RQ, Redis"]
    assert [row[1] for row in shown] == ["4,000/s", "3,200/s", "1,600/s", "800/s", "–"]
    assert [row[2] for row in shown] == ["2.5 ×", "2.0 ×", "1.00 ×", "0.50 ×", "–"]
    assert [row[3] for row in shown] == ["1.00 ×", "0.80 ×", "0.40 ×", "0.20 ×", "–"]
    assert "lost with its worker" in shown[3][4]
    assert shown[4][4] == r"failed: no \| such thing"


def test_a_pass_that_failed_stands_beside_the_figure_of_the_others() -> None:
    """Two passes of three are a figure, but a reader is told."""
    found = results(lily=[100, 100, 100], celery=[50, 50])
    found.of(RATE, "celery").missing = "failed: broken"
    assert "of 3 passes 1 failed: failed: broken" not in table(found, RATE)
    assert "of 3 passes 1 failed: broken" in table(found, RATE)


def test_a_smaller_count_than_lilys_is_told() -> None:
    """A peer that would take minutes does less of it."""
    found = results(lily=[100], rq=[50])
    rq = next(system for system in SYSTEMS if system.name == "rq")
    assert count_of(rq, RATE, quick=False) == 200
    assert "measured with 200 instead of 1,000" in table(found, RATE)


def test_what_a_redis_without_a_log_would_lose_stands_beside_the_figure() -> None:
    """A queue in memory is quick; whoever compares it with one on disk is told."""
    found = results(lily=[100], celery=[50], huey_sqlite=[50])
    assert "lost with Redis" not in table(found, RATE)
    found.settings["redis"] = "Redis 7.0: appendonly no, save (none)"
    assert [row[0] for row in rows(table(found, RATE)) if "lost with Redis" in row[4]] == ["Celery, Redis"]
    assert volatile("Redis 7.0: appendonly no, save 3600 1") == "all since its last snapshot is lost with Redis"
    assert volatile("Redis 7.0: appendonly yes, save (none)") == ""


@given(ratio=st.floats(0.001, 1000))
def test_a_ratio_keeps_two_digits(ratio: float) -> None:
    """What is printed is near what was measured."""
    assert float(times(ratio).removesuffix(" ×")) == pytest.approx(ratio, rel=0.06, abs=0.0006)


def test_figures_read_as_a_person_writes_them() -> None:
    """A unit that fits the size."""
    assert [amount(1234.5, "rate"), amount(3.21, "rate"), amount(1.337, "multiple")] == ["1,234/s", "3.2/s", "1.34 ×"]
    assert [amount(2.34, "seconds"), amount(0.234, "seconds"), amount(0.00234, "seconds")] == ["2.3 s", "234 ms", "2.3 ms"]


def test_what_a_process_found_is_turned_into_the_measures_unit() -> None:
    """Seconds of so many, samples, or the process's own time."""
    by_name = {measure.name: measure for measure in MEASURES}
    assert figure(by_name["noop"], 500, {"seconds": 2.0}, 9) == (250, [])
    assert figure(by_name["sleep"], 200, {"seconds": 0.5}, 9) == (2.5, [])
    assert figure(by_name["history"], 100_000, {"seconds": 0.5}, 9) == (0.5, [])
    assert figure(by_name["latency"], 3, {"samples": [1.0, 2.0, 9.0]}, 9) == (2.0, [1.0, 2.0, 9.0])
    assert figure(by_name["register"], 10_000, {"registered": 10_000}, 9) == (9, [])


def test_the_plot_has_a_dot_for_each_figure_and_lily_stands_at_one() -> None:
    """Well-formed, the fastest first, to the right what is faster."""
    drawn = ElementTree.fromstring(draw(results(floor=[4000], lily=[1600], celery=[80], huey_redis=[3200])))
    dots = [(dot[0].text, float(dot.attrib["cx"])) for dot in drawn.iter(f"{SVG}circle")]
    assert [said for said, _ in dots] == ["the floor: 2.5 ×", "Huey, Redis: 2.0 ×", "Lily: 1.00 ×", "Celery, Redis: 0.050 ×"]
    assert [x for _, x in dots] == sorted((x for _, x in dots), reverse=True)
    one = next(float(text.attrib["x"]) for text in drawn.iter(f"{SVG}text") if text.text == "1 ×")
    assert dots[2][1] == one
    height = float(drawn.attrib["viewBox"].split()[3])
    assert all(0 < float(dot.attrib["cy"]) < height for dot in drawn.iter(f"{SVG}circle"))


def test_the_page_keeps_what_stands_around_the_marks() -> None:
    """Figures replace figures, twice too; a page without marks is refused."""
    found = results(lily=[1600], celery=[800])
    found.versions["celery"] = {"celery": "5.7.0", "redis": "8.1.0"}
    found.settings["redis"] = "Redis 7.0: appendonly no"
    body = page(found, "peers.svg", 600)
    text = f"before\n{MARKS[0]}\nof last year\n{MARKS[1]}\nafter"
    once = put(text, body)
    assert once == put(once, body)
    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert "of last year" not in once
    assert "celery 5.7.0, redis 8.1.0" in once
    assert "not installed" in once
    assert "Redis 7.0: appendonly no." in once
    with pytest.raises(ValueError, match="has no"):
        put("nothing", body)


def test_docs_have_the_marks() -> None:
    """`--write` finds its place."""
    assert put(run.PAGE.read_text(encoding="utf-8"), page(results(lily=[1.0]), run.PLOT.name, 1))


def test_a_peer_that_cannot_be_installed_is_told_where_its_figures_would_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is not passed over, and harms nobody else."""

    def make(cache: Path, name: str, requirements: tuple[str, ...]) -> Path:
        if name == "rq":
            raise environments.CannotInstall("no such version")
        return tmp_path

    def versions(commands: Path) -> dict[str, str]:
        return {"celery": "5.7.0"}

    monkeypatch.setattr(environments, "make", make)
    monkeypatch.setattr(environments, "versions", versions)
    found = results(lily=[100])
    assert "rq" not in run.prepare(found, tmp_path)
    assert rows(table(found, RATE))[-1] == ["RQ, Redis", "–", "–", "–", "can't be installed here: no such version"]


@pytest.mark.parametrize("failed", [False, True])
def test_write_keeps_page_and_plot_unless_lily_has_no_figure(failed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ratios against nothing are no figures; a pass of several that failed is told, and no reason to throw the others away."""
    docs = tmp_path / "performance.md"
    docs.write_text(f"before\n{MARKS[0]}{MARKS[1]}\n", encoding="utf-8")
    found = results(lily=[1600], celery=[800])
    found.of(RATE, LILY).missing = "failed: once"
    if failed:
        found.of(RATE, LILY).passes = {}

    def measured(systems: object, measures: object, quick: bool, cache: Path) -> Results:
        return found

    monkeypatch.setattr(run, "measure_all", measured)
    monkeypatch.setattr(run, "PAGE", docs)
    monkeypatch.setattr(run, "PLOT", tmp_path / "peers.svg")
    monkeypatch.setattr(run, "MEASURES", (RATE,))
    monkeypatch.setattr("sys.argv", ["run", "--write", "--cache", str(tmp_path / "cache")])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run.main() == int(failed)
    assert ("800/s" in docs.read_text(encoding="utf-8")) is not failed
    assert ("of 3 passes 2 failed: once" in docs.read_text(encoding="utf-8")) is not failed
    assert (tmp_path / "peers.svg").exists() is not failed


@pytest.mark.parametrize("words", [["--write", "--quick"], ["--only", "nobody"], ["--cache", "/proc/none"]])
def test_what_cannot_be_asked_is_one_line_and_status_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    monkeypatch.setattr("sys.argv", ["run", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as told:
        run.main()
    assert told.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_the_roster_knows_its_own_words() -> None:
    """Options, reasons, shares and notes name measures; every system runs each kind of body or says why not."""
    known = {measure.name for measure in MEASURES}
    for system in SYSTEMS:
        assert {*system.options, *system.absent, *system.share, *system.notes} <= known
        assert {"noop", "latency", "sleep", "program"} <= {*system.options, *system.absent}
        assert all("==" in requirement for requirement in system.requirements)
        assert system.version_command or "cli" in system.absent
