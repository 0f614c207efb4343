"""A command imports what it uses, so that looking is quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Lily, command, environment, write_job

HEAVY = {"pydantic", "sqlalchemy", "alembic", "anyio", "trio", "httpx", "rich", "apscheduler", "watchfiles"}


def loaded(root: Path, *arguments: str) -> set[str]:
    """The modules that `lily ARGUMENTS` had imported at its end."""
    program = (
        f"import sys; sys.argv = ['lily', *{arguments!r}]\n"
        "before = set(sys.modules)\n"
        "from lily.__main__ import main\n"
        "status = main()\n"
        "sys.stderr.write('\\n' + ' '.join(set(sys.modules) - before)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_version_imports_nothing(workspace: Path) -> None:
    """Two modules of Lily's own, and no library."""
    assert loaded(workspace, "--version") == {"lily", "lily.__main__"}


@pytest.mark.parametrize("arguments", [("jobs", "list"), ("jobs", "list", "--json"), ("config", "show"), ("jobs", "tail", "a")])
@pytest.mark.e2e
def test_reading_files_imports_no_heavy_library(workspace: Path, lily: Lily, arguments: tuple[str, ...]) -> None:
    """When no job file changed since the last look."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    lily("jobs", "list")
    found = {name.partition(".")[0] for name in loaded(workspace, *arguments)}
    assert not found & (HEAVY | {"yaml"})


def test_looking_ahead_loads_the_calendar_and_neither_the_store_nor_the_models(workspace: Path, lily: Lily) -> None:
    """When no job file changed since the last look; a list of jobs does not load the calendar either."""
    path = write_job(workspace, "a", trigger={"type": "cron", "cron": "0 5 * * *"}, timezone="UTC")
    os.utime(path, (1_000_000_000, 1_000_000_000))  # one that just changed may change again, and is read again
    lily("jobs", "list")
    found = {name.partition(".")[0] for name in loaded(workspace, "jobs", "next", "--all", "--json")}
    assert found & (HEAVY | {"yaml"}) == {"apscheduler"}
    assert "apscheduler" not in {name.partition(".")[0] for name in loaded(workspace, "jobs", "list")}


@pytest.mark.e2e
def test_history_imports_the_store_and_no_event_loop(workspace: Path, lily: Lily) -> None:
    """Reading runs asks the store, and nothing else."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    found = {name.partition(".")[0] for name in loaded(workspace, "jobs", "history", "a")}
    assert "sqlalchemy" in found
    assert not found & (HEAVY - {"sqlalchemy"})


def seconds(*program: str, root: Path) -> float:
    """User and system time of the program: the least of five, because other things run too."""
    import resource

    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(program, cwd=root, env=environment(), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_version_takes_at_most_four_times_an_empty_program(workspace: Path) -> None:
    """`python -c pass` is the floor."""
    floor = seconds(sys.executable, "-c", "pass", root=workspace)
    assert seconds(*command("--version"), root=workspace) <= 4 * floor
