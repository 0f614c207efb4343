"""The audit as people read it: rows of one kind or of all, without secrets."""

from pathlib import Path
from typing import Any

import msgspec

from lily.own_secrets import OwnSecrets
from lily.redaction import redacted
from lily.settings import Settings
from lily.storage.audit_reads import AuditEntry, Which, newest
from lily.storage.store import Store
from lily.text import json_of


def listed(store: Store, settings: Settings, base: Path, which: Which, limit: int) -> list[dict[str, Any]]:
    """The newest of these rows, newest first, as `--json` shows them; secrets of the settings are looked up from `base`."""
    secrets = OwnSecrets(settings, base).values()
    return [_view(row, secrets) for row in newest(store, which, limit)]


def _view(row: AuditEntry, secrets: list[str]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(row),
        "object": redacted(row.object, secrets) or None,
        "job_id": row.job_id or None,
        "request_id": row.request_id or None,
        "trace_id": row.trace_id or None,
        "reason": redacted(row.reason, secrets),
        "before": _masked(_plain(row.before), secrets),
        "after": _masked(_plain(row.after), secrets),
    }


def _plain(text: str) -> Any:
    try:
        return json_of(text)
    except msgspec.DecodeError:  # edited by hand: `lily audit verify` says so
        return text


def _masked(value: Any, secrets: list[str]) -> Any:
    match value:
        case str():
            return redacted(value, secrets)
        case list():
            return [_masked(each, secrets) for each in value]
        case dict():
            return {key: _masked(each, secrets) for key, each in value.items()}
        case _:
            return value
