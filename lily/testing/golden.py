"""Golden receipts: what a blueprint's run looked like once, held against what it looks like now."""

import os
from pathlib import Path
from typing import Any

import msgspec

from lily.receipts import Receipt

UPDATE = "LILY_UPDATE_GOLDEN"
# Differ from machine to machine, or with every release of Lily.
_REPLACED = ("host", "pid", "lily_version")


def golden_text(receipt: Receipt) -> str:
    """The receipt as stable text: keys sorted, indented, what belongs to the machine replaced, digests of event logs left out."""
    given: dict[str, Any] = msgspec.to_builtins(receipt)
    for name in _REPLACED:
        given[name] = f"<{name}>"
    for file in given["artifacts"]:
        if file["name"] in ("events.jsonl", "summary.md"):
            file["bytes"], file["sha256"] = "<bytes>", "<sha256>"
    return msgspec.json.format(msgspec.json.encode(given, order="sorted"), indent=2).decode() + "\n"


def check_golden(path: Path, receipt: Receipt) -> None:
    """Assert that the receipt equals the golden file at `path`. With LILY_UPDATE_GOLDEN=1 in the environment it is written."""
    text = golden_text(receipt)
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.exists(), f"no golden receipt at {path}: run the test once with {UPDATE}=1"
    assert text == path.read_text(encoding="utf-8"), f"the receipt differs from {path}; if that is right, run the test with {UPDATE}=1"
