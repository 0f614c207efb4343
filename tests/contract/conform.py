"""What Lily writes and prints, held against the published schemas and against one another."""

import functools
import hashlib
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from lily.event_fields import STAMP
from lily.receipts import Receipt, decode_receipt
from lily.runs import FILE_ONLY, FINAL, Event, EventName
from lily.schemas import RUN_CODES
from lily.summary import summary_of
from tests.contract.imports import REPOSITORY

SCHEMAS = REPOSITORY / "docs" / "schemas"
ARTIFACTS = {"run_receipt.json", "summary.md", "events.jsonl"}
_ENVELOPE = {"seq", "ts", "event", "job_id", "run_id"}


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """The published schema `name`, as in docs/schemas/NAME.schema.json."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def problems(name: str, value: Any) -> list[str]:
    """Everything in which `value` differs from the schema."""
    return [f"{error.json_path}: {error.message[:300]}" for error in validator(name).iter_errors(value)]


def check_fits(name: str, value: Any) -> None:
    """Assert that `value` is what the schema says."""
    assert not problems(name, value), (problems(name, value), value)


def strictly(raw: bytes) -> Any:
    """JSON with its keys sorted at every level, without NaN and infinities."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        assert names == sorted(set(names), key=str.encode), names
        return dict(found)

    def refused(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refused)


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl as objects."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


def check_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Assert all that holds for every run that has ended, by its folder alone; gives the receipt and the events."""
    assert {path.name for path in folder.iterdir()} >= ARTIFACTS
    raw = (folder / "run_receipt.json").read_bytes()
    receipt, events = strictly(raw), events_of(folder)
    assert raw == msgspec.json.format(raw, indent=2) + b"\n"
    check_fits("receipt", receipt)
    assert (receipt["run_id"], receipt["job_id"]) == (folder.name, folder.parent.name)
    _check_events(folder, receipt, events)
    _check_stamps([receipt, events])
    _check_files(folder, receipt)
    _check_first_failure(receipt, events)
    check_summary(folder)
    return receipt, events


def _check_events(folder: Path, receipt: dict[str, Any], events: list[dict[str, Any]]) -> None:
    assert (folder / "events.jsonl").read_bytes().endswith(b"\n")
    for event in events:
        check_fits("event", event)
        assert (event["run_id"], event["job_id"]) == (receipt["run_id"], receipt["job_id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["event"] for event in events if event["event"] in FINAL] == [events[-1]["event"]]
    assert events[-1]["status"] == receipt["status"]
    assert events[0]["event"] == "job_queued"


def _check_stamps(value: Any) -> None:
    """Every time that Lily wrote is UTC with six digits; what a target or a spec says is its own."""
    for key, text in _texts(value):
        if re.match(r"\d{4}-\d\d-\d\dT", text):
            assert re.fullmatch(STAMP, text), (key, text)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in {"payload", "spec", "data", "fields", "message", "text", "title"}:
                yield from _texts(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _check_files(folder: Path, receipt: dict[str, Any]) -> None:
    told = {file["name"]: (file["bytes"], file["sha256"]) for file in receipt["artifacts"]}
    assert {name for name in ARTIFACTS if name in told} == ARTIFACTS - {"run_receipt.json"}
    there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "run_receipt.json"}
    assert told == {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in there.items()}
    for place in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place
    for name in ARTIFACTS:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


def _check_first_failure(receipt: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Read from the top, the first line with a code is the cause: the run's own, or that of the attempt that failed first."""
    codes = [event for event in events if "code" in event]
    if receipt["status"] == "failed":
        assert codes[0]["code"] in RUN_CODES
        assert codes[-1]["code"] == receipt["error"]["code"]
        if not receipt["attempts"]:
            assert codes[0]["code"] == receipt["error"]["code"]
            assert codes[0]["message"] == receipt["error"]["message"]
    if receipt["status"] == "succeeded" and all(attempt["status"] == "succeeded" for attempt in receipt["attempts"]):
        assert not codes


def check_summary(folder: Path) -> str:
    """Assert that summary.md follows from the receipt and the events on disk alone; gives its text."""
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert rendered(folder) == rendered(folder) == text
    return text


def rendered(folder: Path) -> str:
    """The summary made again from what is on disk."""
    lines = [line for line in events_of(folder) if EventName(line["event"]) not in FILE_ONLY]
    lifecycle = [Event(EventName(line["event"]), line["ts"], {k: v for k, v in line.items() if k not in _ENVELOPE}) for line in lines]
    return summary_of(receipt_in(folder), lifecycle)


def receipt_in(folder: Path) -> Receipt:
    """The receipt as a struct."""
    return decode_receipt((folder / "run_receipt.json").read_bytes())
