"""The published JSON Schemas of job files, receipts, event lines and `--json`, generated from the code.

`python -m lily.schemas` writes docs/schemas again; a test compares.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lily.errors import Code
from lily.event_fields import FIELDS, OWN, STAMP, Form
from lily.receipts import SCHEMA_VERSION, Receipt, ReceiptV1
from lily.runs import TERMINAL, EventName
from lily.shapes import SHAPES
from lily.time_shapes import LISTS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_RUN_ID = "^[0-9]{8}T[0-9]{6}\\.[0-9]{6}Z-[a-z0-9]{4,12}$"
# Text of which the form is fixed, by the name of the property.
_PATTERNS = {
    "run_id": _RUN_ID,
    "sha256": "^[0-9a-f]{64}$",
    "receipt_sha256": "^[0-9a-f]{64}$",
    "spec_hash": "^sha256:[0-9a-f]{64}$",
    "trace_id": "^[0-9a-f]{32}$",
}
_STAMPS = ("ts", "since")
# The codes that a run can end with; a command has more.
RUN_CODES = (
    Code.JOB_TARGET_UNRESOLVED,
    Code.JOB_BINDINGS_INVALID,
    Code.JOB_EXECUTION_FAILED,
    Code.JOB_POLICY_DENIED,
    Code.APPROVAL_DENIED,
    Code.APPROVAL_EXPIRED,
    Code.APPROVAL_VOID,
)
# Those of a run that reports windows which could not be claimed.
CLAIM_CODES = (Code.STORE_UNAVAILABLE, Code.DISK_FULL, Code.QUEUE_BACKPRESSURE, Code.QUEUE_FULL)


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    optional = optional or {}
    return {"type": "object", "properties": {**required, **optional}, "required": sorted(required), "additionalProperties": False}


_TEXT = {"type": "string"}
_STAMP = {"type": "string", "pattern": STAMP}
_RUN = {"type": "string", "pattern": _RUN_ID}
_POLICY = {name: FIELDS[name] for name in ("needed", "granted", "decisions")}
_CAP = {"type": "integer", "minimum": 1}
_LIMITS = {"memory_mb": _CAP, "cpu_seconds": _CAP, "scope": _TEXT}
_NOTHING: dict[str, Any] = {"type": "object", "additionalProperties": False}
_FIRED = {"type": _TEXT, "by": _TEXT, "fired_at": _STAMP, "scheduled_for": {"anyOf": [_STAMP, {"type": "null"}]}}
# Of a scheduled run: how many windows it stands for beside its own; of one that reports missed windows: which.
_WINDOWS = {"coalesced": _CAP, "first": _STAMP, "last": _STAMP, "windows": _CAP, "reason": _TEXT}

# Where a struct's type says less than is promised: (struct, field).
_REFINED: dict[tuple[str, str], dict[str, Any]] = {
    ("Receipt", "schema_version"): {"enum": [*range(1, SCHEMA_VERSION + 1)]},  # commands show old ones too
    ("Receipt", "status"): {"enum": sorted(TERMINAL)},
    ("Receipt", "r0_status"): {"enum": ["ok", "error", None]},
    ("Receipt", "trigger"): _object(_FIRED, {"replayed_from": _RUN, "retried_from": _RUN, **_WINDOWS}),
    ("Receipt", "policy"): {"anyOf": [_object(_POLICY), _NOTHING]},
    ("Receipt", "limits"): {"anyOf": [_object({"timeout_seconds": {"type": "number"}}, _LIMITS), _NOTHING]},
    ("Receipt", "canceled"): {"anyOf": [_object({"at": _STAMP, "by": _TEXT, "reason": _TEXT}), {"type": "null"}]},
    ("ReceiptAttempt", "status"): {"enum": ["canceled", "failed", "interrupted", "succeeded", "timed_out", "waiting_approval"]},
    ("Approval", "decision"): {"enum": ["approved", "denied", "expired", "void", None]},
    ("Approval", "kind"): FIELDS["kind"],
    ("ErrorInfo", "code"): {"enum": [code.value for code in RUN_CODES + CLAIM_CODES]},
    ("ErrorObject", "code"): {"enum": [code.value for code in Code]},
}


def receipt_schema() -> dict[str, Any]:
    """Of run_receipt.json."""
    return _receipt(Receipt, SCHEMA_VERSION)


def old_receipt_schema() -> dict[str, Any]:
    """Of run_receipt.json as version 1 had it."""
    return _receipt(ReceiptV1, 1)


def _receipt(kind: type[ReceiptV1], version: int) -> dict[str, Any]:
    made = _published(f"run-receipt:{version}", "Lily run receipt", kind)
    made["$defs"]["Receipt"]["properties"]["schema_version"] = {"const": version}
    return made


def job_schema() -> dict[str, Any]:
    """Of a job file."""
    from lily.specs import json_schema  # pydantic, which the others do without

    return json_schema()


def event_schema() -> dict[str, Any]:
    """Of one line of events.jsonl: five fields that all have, and each event's own beside them."""
    return {
        "$schema": _DRAFT,
        "$id": "urn:lily-jobs:schema:event:1",
        "title": "Lily run event",
        "type": "object",
        "properties": _EVERY_EVENT,
        "required": list(_EVERY_EVENT),
        "allOf": [{"if": {"properties": {"event": {"const": name.value}}}, "then": _own(forms)} for name, forms in OWN.items()],
    }


_EVERY_EVENT: dict[str, Any] = {
    "seq": {"type": "integer", "minimum": 1, "description": "1, 2, 3, ... without gaps"},
    "ts": {**_STAMP, "description": "UTC, six digits of a second"},
    "event": {"enum": [name.value for name in EventName]},
    "job_id": _TEXT,
    "run_id": {"type": "string", "pattern": _RUN_ID},
}


def _own(forms: tuple[Form, ...]) -> dict[str, Any]:
    made = [_object({**dict.fromkeys(_EVERY_EVENT, True), **_fields(form.required)}, _fields(form.optional)) for form in forms]
    return made[0] if len(made) == 1 else {"oneOf": made}


def _fields(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: FIELDS[name] for name in names}


def shape_schema(name: str) -> dict[str, Any]:
    """Of what a command prints with --json; `name` is a key of SHAPES."""
    shape: Any = SHAPES[name]
    said = (shape.__doc__ or "").replace("`", "")
    return _published(f"cli-{name}:1", said, list[shape] if name in LISTS else shape)


def _published(name: str, title: str, shape: Any) -> dict[str, Any]:
    # Both versions of the receipt are the receipt to whoever reads a schema.
    made = _strict(msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(shape)).replace(b"ReceiptV1", b"Receipt")))
    return {"$schema": _DRAFT, "$id": f"urn:lily-jobs:schema:{name}", **made, "title": title}


def _strict(node: Any) -> Any:
    """The same schema for what is written, not what is read: no other keys, and those with a default are there too."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _strict(value) for key, value in node.items()}
    if isinstance(made.get("properties"), dict):
        struct, given = made.get("title", ""), node["properties"]
        made["required"] = sorted({*node.get("required", ()), *(name for name, each in given.items() if "default" in each)})
        made["properties"] = {name: _REFINED.get((struct, name)) or _formed(name, each) for name, each in made["properties"].items()}
        made["additionalProperties"] = False
    return made


def _formed(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """A property without its default, and with the pattern that its name stands for."""
    given = {key: value for key, value in given.items() if key != "default"}
    pattern = STAMP if name in _STAMPS or name.endswith("_at") else _PATTERNS.get(name)
    if pattern is None:
        return given
    if "anyOf" in given:
        return {**given, "anyOf": [_formed(name, each) for each in given["anyOf"]]}
    return {**given, "pattern": pattern} if given.get("type") == "string" else given


def all_schemas() -> dict[str, Callable[[], dict[str, Any]]]:
    """By file name in docs/schemas."""
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "job.schema.json": job_schema,
        "receipt.schema.json": receipt_schema,
        "receipt-1.schema.json": old_receipt_schema,
        "event.schema.json": event_schema,
    }
    for name in SHAPES:
        made[f"cli-{name}.schema.json"] = lambda name=name: shape_schema(name)  # type: ignore[misc]
    return made


def text_of(schema: dict[str, Any]) -> str:
    """A schema as its file has it."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def main() -> int:
    """Write docs/schemas."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in all_schemas().items():
        (FOLDER / name).write_text(text_of(make()), encoding="utf-8")
    print(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
