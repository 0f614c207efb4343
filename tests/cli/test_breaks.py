"""Surroundings that spoil what a command prints."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from lily.text import all_encodable
from tests.cli.conftest import DEADLINE, command, environment, write_job


def test_json_of_a_workspace_whose_path_is_no_utf8_is_json(tmp_path: Path) -> None:
    """Bytes that are no text are written out."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"))
    try:
        (root / ".lily" / "jobs").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    write_job(root, "fine")
    for arguments, status in ((("status",), 0), (("jobs", "list"), 0), (("jobs", "run", "fine"), 0), (("jobs", "show", "nope"), 3)):
        said = subprocess.run(
            command(*arguments, "--json"), cwd=root, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
        )
        assert said.returncode == status, said.stderr
        for line in said.stdout.splitlines():
            json.loads(line)
    shown = subprocess.run(command("status", "--json"), cwd=root, env=environment(), capture_output=True, timeout=DEADLINE)
    assert json.loads(shown.stdout)["workspace"].endswith("/w\\udcff")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_command_whose_streams_are_closed_does_its_work(workspace: Path, closed: tuple[int, ...]) -> None:
    """And no file that it opens gets the number of a stream that others write to."""
    write_job(workspace, "fine")
    closing = " ".join(f"{number}>&-" for number in closed)
    script = f'"$@" {closing}'
    said = subprocess.run(
        ["sh", "-c", script, "sh", *command("jobs", "run", "fine")], cwd=workspace, env=environment(), capture_output=True, timeout=DEADLINE
    )
    assert said.returncode == 0, said.stderr
    assert b"Traceback" not in said.stderr
    (receipt,) = workspace.glob(".lily/runs/fine/*/run_receipt.json")
    assert json.loads(receipt.read_bytes())["status"] == "succeeded"


def test_text_that_is_no_utf8_is_written_out_at_any_depth() -> None:
    assert all_encodable({"a\udcff": ["\udcff", 1, None, {"b": ("x",)}]}) == {"a\\udcff": ["\\udcff", 1, None, {"b": ["x"]}]}
