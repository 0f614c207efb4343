"""The receipt: a document made from a record alone."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.clock import stamp
from lily.moves import Outcome, cancel, settle, start
from lily.receipts import File, Receipt, decode_receipt, encode_receipt, receipt_of, seconds_between
from lily.runs import ErrorInfo, Run, Runtime, decode_spec
from tests.pure.test_moves import AT, PLACE, queued

BODY = msgspec.json.encode(
    {
        "id": "job",
        "title": "A job",
        "target": {"kind": "blueprint", "id": "noop.v1"},
        "bindings": {"b": 1, "a": [None]},
        "trigger": {"type": "manual"},
    }
)
SPEC = decode_spec(BODY)
FILES = [File(name="z.txt", bytes=1, sha256="00"), File(name="events.jsonl", bytes=2, sha256="11")]
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def ended(outcome: Outcome, runtime: Runtime | None = None) -> Run:
    """A run that waited 2 s and ran 3 s."""
    first = start(queued(), PLACE, AT + timedelta(seconds=2), attempt=True)
    return settle(first.run, outcome, runtime or Runtime(), AT + timedelta(seconds=5)).run


def made(run: Run) -> Receipt:
    """Its receipt."""
    return receipt_of(run, SPEC, BODY, FILES)


def test_a_receipt_says_what_ran_and_how_long() -> None:
    """Times in seconds, files by name, the exact spec."""
    receipt = made(ended(Outcome(status="succeeded", result={"r0_status": "ok", "payload": {"n": 1}, "target_version": "1.2.3"})))
    assert (receipt.status, receipt.r0_status, receipt.payload, receipt.error) == ("succeeded", "ok", {"n": 1}, None)
    assert (receipt.target.id, receipt.target.version) == ("noop.v1", "1.2.3")
    assert (receipt.durations.queued_seconds, receipt.durations.run_seconds, receipt.durations.total_seconds) == (2.0, 3.0, 5.0)
    assert [file.name for file in receipt.artifacts] == ["events.jsonl", "z.txt"]
    assert receipt.spec == msgspec.json.decode(BODY)
    assert (receipt.schema_version, receipt.host, receipt.pid) == (2, "host", 7)


def test_a_receipt_has_the_jobs_code_and_the_blueprints_beside_it() -> None:
    """With every attempt's own error."""
    error = ErrorInfo(code="job_execution_failed", message="no", blueprint_code="odd", data={"x": 1})
    receipt = made(ended(Outcome(status="timed_out", result={}, error=error)))
    assert receipt.error == error
    assert [(attempt.number, attempt.status, attempt.error, attempt.duration_seconds) for attempt in receipt.attempts] == [
        (1, "timed_out", error, 3.0)
    ]


def test_a_run_that_never_started_has_no_times_but_its_waiting() -> None:
    """Canceled in the queue."""
    receipt = made(cancel(queued(), {"by": "me", "reason": "no"}, AT + timedelta(seconds=9)).run)
    assert (receipt.started_at, receipt.durations.queued_seconds, receipt.durations.run_seconds, receipt.durations.total_seconds) == (
        None,
        None,
        None,
        9.0,
    )
    assert receipt.canceled is not None
    assert receipt.canceled["by"] == "me"
    assert receipt.attempts == []


@given(payload=plain)
def test_a_receipt_comes_back_as_it_was_written(payload: Any) -> None:
    """Any plain payload."""
    receipt = made(ended(Outcome(status="succeeded", result={"payload": payload})))
    assert decode_receipt(encode_receipt(receipt)) == receipt


@given(payload=plain)
def test_the_same_record_gives_the_same_bytes(payload: Any) -> None:
    """Keys sorted at every level, indented, a newline at the end."""
    body = encode_receipt(made(ended(Outcome(status="succeeded", result={"payload": payload}))))
    assert body == encode_receipt(made(ended(Outcome(status="succeeded", result={"payload": payload}))))
    assert body.endswith(b"}\n")
    assert sorted_everywhere(msgspec.json.decode(body))


def sorted_everywhere(value: Any) -> bool:
    """Whether the keys of every mapping are in order."""
    if isinstance(value, dict):
        return list(value) == sorted(value, key=lambda key: key.encode()) and all(map(sorted_everywhere, value.values()))
    return all(map(sorted_everywhere, value)) if isinstance(value, list) else True


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"null", b"\xff", b'{"schema_version": 1}'])
def test_what_is_no_receipt_is_said_to_be_none(body: bytes) -> None:
    """A torn one never crashes its reader with anything else."""
    with pytest.raises(msgspec.MsgspecError):
        decode_receipt(body)


@pytest.mark.parametrize("version", [0, 3, 99])
def test_a_receipt_of_a_version_that_this_lily_does_not_know_is_not_read_as_one_that_it_knows(version: int) -> None:
    """A later one may mean something else by the same names."""
    receipt = msgspec.structs.replace(made(ended(Outcome(status="succeeded", result={}))), schema_version=version)
    with pytest.raises(msgspec.ValidationError, match=f"version {version}, and this Lily reads up to 2"):
        decode_receipt(encode_receipt(receipt))


def test_a_clock_that_stepped_back_gives_no_negative_duration() -> None:
    """Zero at least."""
    assert seconds_between(stamp(AT), stamp(AT - timedelta(hours=1))) == 0.0
    assert seconds_between(None, stamp(AT)) is None
    assert seconds_between(stamp(AT), None) is None


@pytest.mark.parametrize(
    "body",
    [b'{"schema_version": 2, "\x81": 1}', b'{"schema_version":1,"title":"\xff"}', b'{"x":' + b"[" * 5000, b"[" * 5000, b"\x00", b"", b"[]"],
)
def test_bytes_that_are_no_receipt_are_refused_in_one_way(body: bytes) -> None:
    """Whatever a disk made of it: who reads a folder waits for this error alone."""
    with pytest.raises(msgspec.MsgspecError):
        decode_receipt(body)
