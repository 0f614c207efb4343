"""`lily jobs schema`: the published JSON Schemas."""

from typing import Annotated, Any

import msgspec

from lily.cli import output
from lily.cli.options import flag, usage

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    *,
    receipt: Annotated[bool, flag("--receipt", "The schema of run_receipt.json.")] = False,
    event: Annotated[bool, flag("--event", "The schema of a line of events.jsonl.")] = False,
) -> int:
    """Print the JSON Schema of job files, with which editors complete and check them; or of what a run leaves."""
    if receipt and event:
        raise usage("--receipt and --event are two schemas", "give one of them")
    made = receipt_schema() if receipt else event_schema() if event else job_schema()
    output.put(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    return 0


def job_schema() -> dict[str, Any]:
    """The schema of a job file."""
    from lily.specs import json_schema

    return json_schema()


def receipt_schema() -> dict[str, Any]:
    """The schema of run_receipt.json."""
    from lily.receipts import SCHEMA_VERSION, Receipt

    made = msgspec.json.schema(Receipt)
    return {"$schema": _DRAFT, "$id": f"urn:lily-jobs:schema:run-receipt:{SCHEMA_VERSION}", "title": "Lily run receipt", **made}


def event_schema() -> dict[str, Any]:
    """The schema of one line of events.jsonl; an event's own fields stand beside those that all have."""
    from lily.runs import EventName

    return {
        "$schema": _DRAFT,
        "$id": "urn:lily-jobs:schema:event:1",
        "title": "Lily run event",
        "type": "object",
        "properties": {
            "seq": {"type": "integer", "minimum": 1, "description": "1, 2, 3, ... without gaps"},
            "ts": {"type": "string", "format": "date-time", "description": "UTC, six digits of a second"},
            "event": {"type": "string", "enum": [name.value for name in EventName]},
            "job_id": {"type": "string"},
            "run_id": {"type": "string"},
        },
        "required": ["seq", "ts", "event", "job_id", "run_id"],
        "additionalProperties": True,
    }
