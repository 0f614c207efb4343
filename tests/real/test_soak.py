"""The soak in seconds: all of its machinery against a real supervisor, and whether it would see what grows."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.soak import __main__ as soak
from benchmarks.soak import samples
from benchmarks.soak.campaign import Result, Soak
from benchmarks.soak.flat import FEWEST, Allowance, judge
from benchmarks.soak.samples import ALLOWANCES, children_of, database, descriptors, kept_rows, memory_bytes, usage
from benchmarks.soak.work import site
from lily.selftest.promises import Findings
from tests.real.house import House, until

SECONDS = 4.0


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A whole soak that is over at once, and where its samples were written."""
    folder = tmp_path_factory.mktemp("soak")
    with site() as address, soak.kept_in(folder / "samples.csv") as keep:
        return Soak(folder / "workspace", address, SECONDS, 7, print, keep).run(), folder / "samples.csv"


@pytest.mark.slow
def test_a_short_soak_keeps_every_promise(short: tuple[Result, Path]) -> None:
    """Those of the crash campaign, for runs of all kinds, and each command ends as it must."""
    result, _ = short
    assert result.findings.broken == []
    assert result.findings.checked["three whole artifacts that agree with one another"] > 10
    assert result.findings.checked["a command does what it is asked"] > 5


@pytest.mark.slow
def test_every_resource_is_sampled_and_judged(short: tuple[Result, Path]) -> None:
    """And written as CSV while the soak goes on."""
    result, path = short
    assert [verdict.allowance for verdict in result.verdicts] == list(ALLOWANCES)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.samples) >= 10
    assert all(sum(row[each.name] != "" for row in rows) >= FEWEST for each in ALLOWANCES)
    assert float(rows[-1]["supervisor memory"]) > float(rows[-1]["files process memory"]) > 5


def test_the_report_names_what_is_broken_and_what_grows() -> None:
    """And the soak is not good then."""
    steady, steep = [(float(n), 1.0) for n in range(30)], [(float(n), float(n)) for n in range(30)]
    allowance, kept, broken = Allowance("descriptors", "", 2), Findings(), Findings()
    broken.expect("a promise", False, "run 7")
    assert Result(30.0, kept, [judge(allowance, steady, 30)], []).good
    for bad, line in (
        (Result(30.0, kept, [judge(allowance, steep, 30)], []), "GROWS descriptors"),
        (Result(30.0, broken, [judge(allowance, steady, 30)], []), "BROKEN a promise: run 7"),
    ):
        assert not bad.good
        assert line in soak.report(bad)


GROWING = """
import os, socket, subprocess, sys
kept = []
for line in sys.stdin:
    if line == "memory\\n":
        kept.append(b"x" * 30_000_000)
    if line == "descriptors\\n":
        kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(20))
    if line == "children\\n":
        kept.append(subprocess.Popen(["true"]))
    print("done", flush=True)
"""


@contextmanager
def growing() -> Iterator["subprocess.Popen[str]"]:
    """A process that grows by what it is told."""
    with subprocess.Popen([sys.executable, "-c", GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def told(process: "subprocess.Popen[str]", what: str) -> None:
    """Have it grow."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(what + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_what_a_process_keeps_is_seen_from_outside() -> None:
    """Memory, descriptors, and children that it never waits for."""
    with growing() as process:
        told(process, "nothing")
        before = memory_bytes(process.pid), descriptors(process.pid)
        assert dict(children_of(process.pid)) == {}
        for what in ("memory", "descriptors", "children"):
            told(process, what)
        assert memory_bytes(process.pid) - before[0] > 25_000_000
        assert descriptors(process.pid) - before[1] == 20
        until(lambda: list(dict(children_of(process.pid)).values()) == ["Z"], "a child that nobody waited for")


def test_a_folder_is_measured_with_all_that_is_in_it(tmp_path: Path) -> None:
    """A link is an entry, and what it points at is somebody else's."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "large").write_bytes(b"x" * 5000)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "large")
    entries, size = usage(tmp_path / "in")
    assert (entries, 1000 <= size < 5000) == (3, True)
    assert usage(tmp_path / "none") == (0, 0)


def test_a_database_tells_what_is_in_use_and_what_is_owed(house: House) -> None:
    """Rows that stay are counted by table."""
    house.job("hello", "true")
    house.submit("hello")
    path = house.workspace.database
    found = database(path)
    assert found["runs that have not ended"] == 1
    assert 0 < found["database in use"] < 10
    assert found["write-ahead log"] > 0
    assert kept_rows(path)["spec"] == 1
    assert set(kept_rows(path)) == set(samples.KEPT_TABLES)
