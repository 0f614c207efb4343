"""The documentation is executed: links lead somewhere, commands exist, marked blocks work."""

import functools
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from lily.cli.entry import run
from lily.errors import Code, exit_code
from lily.event_fields import OWN
from lily.health import MORE
from tests.contract.documents import PAGES, anchors, commands, links, marked, title
from tests.contract.imports import REPOSITORY

GROUPS = frozenset(
    {
        "jobs",
        "runs",
        "queue",
        "dlq",
        "approvals",
        "alerts",
        "schedule",
        "conditions",
        "review",
        "worker",
        "events",
        "audit",
        "store",
        "db",
        "blueprints",
        "config",
        "support",
        "selftest",
    }
)
TIMEOUT = 120


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    """No page sends a reader to what is not there."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (fragment and there.suffix == ".md" and fragment not in anchors(there)):
            broken.append(link)
    assert not broken


def test_every_page_is_reachable_from_the_readme() -> None:
    """A page that nothing links to is found by nobody."""
    seen, waiting = set[Path](), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if not re.match(r"[a-z]+:|#", link)]
    assert not {title(page) for page in PAGES if page not in seen} - {"db/README.md"}


@functools.cache
def help_of(*words: str) -> str:
    """What `lily WORDS --help` prints; empty when there is no such command."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        patch.setenv("NO_COLOR", "1")
        return out.getvalue() if run([*words, "--help"]) == 0 else ""


def named(text: str) -> tuple[tuple[str, ...], list[str]]:
    """(the command's words, its options) of one line."""
    words = re.split(r"\s+", re.split(r"\s(?:&&|\|\||;|>)\s", text)[0].strip())[1:]
    plain = [word for word in words if not word.startswith("-")]
    count = 2 if plain and plain[0] in GROUPS else 1
    return tuple(plain[:count]), [word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    """What a reader types from a page works; `lily jobs list`, `show` in a table counts the first."""
    wrong = []
    for text in dict.fromkeys(commands(page)):
        words, options = named(text)
        if words and not all(re.fullmatch(r"[a-z][a-z-]*", word) for word in words):
            continue  # a placeholder such as GROUP
        printed = help_of(*words)
        if not printed or (len(words) == 2 and words[1] not in help_of(words[0])):
            wrong.append(text)
        wrong += [f"{text}: {option}" for option in options if option not in printed and option not in {"--help", "--version"}]
    assert not wrong


def shell(script: str, where: Path, path: str) -> "subprocess.CompletedProcess[str]":
    """A block of shell as a user would run it, with `lily` on PATH."""
    env = {**os.environ, "PATH": path, "HOME": str(where), "NO_COLOR": "1"}
    env.pop("LILY_WORKSPACE", None)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("page", [page for page in PAGES if marked(page)], ids=title)
def test_the_marked_blocks_of_a_page_work_in_their_order(page: Path, tmp_path: Path) -> None:
    """Each page gets a fresh workspace, made by `lily init`; files are written, shell and Python are run, and print what the page shows."""
    tools, here = tmp_path / "bin", tmp_path / "workspace"
    tools.mkdir()
    here.mkdir()
    for name, module in (("lily", " -m lily"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}"{module} "$@"\n')
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    made = shell("lily init .", here, path)
    assert made.returncode == 0, made.stderr
    try:
        carry_out(page, here, path)
    finally:
        shell("lily down --now", here, path)  # a page may start a supervisor, and fail before it stops it


def carry_out(page: Path, here: Path, path: str) -> None:
    """Every marked block of the page, in order."""
    printed = ""
    for block in marked(page):
        if block.mark == "prints":
            assert not not_printed(block.text, printed), f"{block.text}\n--- is not what was printed:\n{printed}"
            continue
        if block.mark.startswith("file: "):
            file = here / block.mark.removeprefix("file: ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            continue
        script = block.text if block.kind == "sh" else f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n"
        done = shell(script, here, path)
        assert done.returncode == 0, f"{block.text}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        printed = done.stdout


def not_printed(shown: str, printed: str) -> str:
    """The first line of `shown` that is not in `printed`, in its order; … stands for anything, and many blanks are one."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in filter(None, (" ".join(each.split()) for each in shown.splitlines())):
        wanted = re.compile(".*".join(re.escape(piece.strip()) for piece in line.split("…")))
        if not any(wanted.fullmatch(each) for each in lines):
            return line
    return ""


def test_what_a_page_shows_is_compared_with_what_is_printed() -> None:
    """In order, line by line; the test would be worth nothing if it let through what is not there."""
    printed = "one\nrun 20260504 failed   after 3 s\nthree\n"
    assert not_printed("one\nrun … failed after … s\n", printed) == ""
    assert not_printed("three\none\n", printed) == "one"
    assert not_printed("run … succeeded\n", printed) == "run … succeeded"


@pytest.mark.parametrize("mark", ["try", "test"])
def test_the_readme_has_one_line_after_each_mark(mark: str) -> None:
    """CI takes both commands out of the file: one block, one line, nothing but pip, venv, git and Python needed."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    assert found[0].count("\n") == 1


def test_the_runbook_has_an_entry_for_every_code() -> None:
    """Whoever reads a code finds what to do, and the exit status beside it is the one that commands end with."""
    text = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    assert written == {code.value: str(exit_code(code)) for code in Code}


def test_no_page_speaks_of_places_on_one_machine() -> None:
    """Documentation holds on every machine."""
    assert not [title(page) for page in PAGES if re.search(r"/work/|/tmp/venv|\.\./shared", page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("command", sorted(set(MORE.values())))
def test_every_command_that_health_names_exists(command: str) -> None:
    """Whoever is called at night types what the line says."""
    words, options = named(command)
    printed = help_of(*words)
    assert printed
    assert all(option in printed for option in options)


def test_every_event_that_the_runbook_names_is_written_by_this_version() -> None:
    """Nobody waits for an event that is never sent."""
    text = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    rows = text.partition("| to hear of | event |")[2].partition("\n\n")[0]
    told = {name for row in rows.splitlines()[2:] for name in re.findall(r"`(\w+)`", row)}
    assert len(told) > 5
    assert told <= {name.value for name in OWN}
