"""Receipts: bytes that are one are written again as they were, and all others are refused in the way that callers wait for."""

import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from lily.receipts import Receipt, decode_receipt, encode_receipt
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import bent, odd

_SHA = "ab" * 32
WORDS = rb""""schema_version": "run_id": "status": "error": null "payload": "artifacts": "attempts": "previous":
"approvals": "durations": 1 2 3 -1 1e999 1.5e3 true {} [] "" , : } ] "2026-05-04T04:15:00.123456Z" \u0000
\ud83d \ud800 99999999999999999999""".split()


def receipt(rng: random.Random) -> dict[str, Any]:
    """A receipt of either version, as JSON has it."""
    version = rng.choice((1, 2))
    at = "2026-05-04T04:15:00.123456Z"
    error: dict[str, Any] = {"code": "job_execution_failed", "message": "no", "blueprint_code": None, "data": {}}
    attempt = {"number": 1, "started_at": at, "ended_at": at, "duration_seconds": 0.5, "status": "failed", "error": error}
    made: dict[str, Any] = {
        "schema_version": version,
        "run_id": "20260504T041500123456Z-0123456789ab",
        "job_id": "job",
        "title": "A job",
        "trace_id": "0" * 32,
        "status": rng.choice(("succeeded", "failed", "canceled", "missed")),
        "r0_status": rng.choice(("ok", None)),
        "error": rng.choice((error, None)),
        "payload": rng.choice((None, {"n": 1}, [1.5, "x"], 2**64 - 1, "text")),
        "references": [],
        "approvals_requested": [],
        "target": {"kind": "blueprint", "id": "noop.v1", "version": "1.0.0"},
        "trigger": {"type": "manual"},
        "lineage": {},
        "approvals": [],
        "canceled": None,
        "queued_at": at,
        "started_at": at,
        "ended_at": at,
        "durations": {"queued_seconds": 0.0, "run_seconds": 1.5, "total_seconds": 1.5},
        "attempts": [{**attempt, "will_retry": False, "next_attempt_at": None}] * rng.choice((0, 1, 3)),
        "interruptions": 0,
        "policy": {},
        "limits": {},
        "artifacts": [{"name": name, "bytes": 5, "sha256": _SHA} for name in ("events.jsonl", "summary.md")],
        "spec": {"id": "job"},
        "spec_hash": "sha256:" + _SHA,
        "host": "h",
        "pid": 7,
        "lily_version": "0.1.0",
    }
    if version == 2:
        made["previous"] = rng.choice((None, {"run_id": "20260504T041500123455Z-0123456789ab", "receipt_sha256": _SHA}))
    return made


class Receipts:
    """See the module."""

    name = "receipts"
    words: Sequence[bytes] = WORDS
    seconds = 0.5

    def __init__(self) -> None:
        rng = random.Random(0)
        self.corpus: Sequence[bytes] = [json.dumps(receipt(rng)).encode() for _ in range(8)]

    def fresh(self, rng: random.Random) -> bytes:
        """A receipt, now and then with something odd in it, or one that is nested without end."""
        made = receipt(rng)
        while rng.random() < 0.4:
            made = bent(rng, made, odd)
        body = json.dumps(made).encode()
        if rng.random() < 0.02:
            body = body.replace(b'"payload": ', b'"payload": ' + rng.choice((b"[", b'{"a":')) * rng.choice((30, 5000)))
        return body

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        try:
            found = decode_receipt(given)
        except msgspec.MsgspecError as error:
            return f"refused {str(error)[:40]} {str(error).partition('$')[2][:20]}"
        told = encode_receipt(found)
        again = decode_receipt(told)
        if again != found or encode_receipt(again) != told:
            raise Broken("a receipt that is written again is another one")
        if not isinstance(found, Receipt):
            raise Broken("a receipt of another kind")
        return f"read {found.schema_version} {found.status} {type(found.payload).__name__} {len(found.attempts)}"

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """Nothing is held."""


def target() -> Receipts:
    """For the command line."""
    return Receipts()
