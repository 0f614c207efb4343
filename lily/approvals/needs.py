"""What a run has to wait for, what an approval of it is bound to, and whether that has changed since. Pure but for `file_hash`."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from lily.approvals.record import Approval, Need, covered, told
from lily.clock import stamp
from lily.runs import PinnedSpec, Run
from lily.settings import Approval as Terms
from lily.spec_files import SUFFIXES
from lily.spec_index import SpecIndex


def needs_of(spec: PinnedSpec, lineage: Mapping[str, Any], asks: Sequence[str]) -> list[Need]:
    """Why a run of `spec` needs an approval before it starts; `asks` are the capabilities that the policy asks about."""
    found = []
    if lineage.get("replayed_from"):
        found.append(Need("replay", f"replay of run {lineage['replayed_from']}", "a replay repeats side effects"))
    if spec.approval is not None and spec.approval.get("required"):
        found.append(Need("job", f"job {spec.id}", "the job asks for it (approval.required)"))
    found += [Need("policy", f"capability {name}", f"the policy says `ask` for {name}") for name in asks]
    return found


def open_needs(run: Run, spec: PinnedSpec, asks: Sequence[str]) -> list[Need]:
    """Those that nobody has approved yet."""
    have = covered(run)
    return [need for need in needs_of(spec, run.lineage, asks) if (need.kind, need.what) not in have]


def requested(
    number: int, attempts: int, needs: Sequence[Need], spec: PinnedSpec, bound: Mapping[str, Any], terms: Terms, at: datetime
) -> Approval:
    """The request for these needs. What the job does not say, the workspace's settings do."""
    asked = spec.approval or {}
    ttl, warn = (_hours(asked.get(name), getattr(terms, name)) for name in ("ttl_hours", "warn_hours"))
    kind, what, why = told(needs)
    expires = at + timedelta(hours=ttl)
    return Approval(
        number=number,
        kind=kind,
        what=what,
        why=why,
        needs=list(needs),
        attempts=attempts,
        requested_at=stamp(at),
        expires_at=stamp(expires),
        warn_at=stamp(max(at, expires - timedelta(hours=warn))) if warn else None,
        issue=asked.get("issue"),
        approvers=list(asked.get("approvers") or terms.approvers),
        bound_to=dict(bound),
    )


def _hours(own: float | None, default: float) -> float:
    return default if own is None else own


def binding(spec_hash: str, spec: PinnedSpec, version: str | None, job_file: str | None = None, replayed_from: str = "") -> dict[str, Any]:
    """What exactly is approved. `job_file` is the hash of what the job's file says now: empty for no file, None where that is not bound."""
    bindings = hashlib.sha256(msgspec.json.encode(spec.bindings, order="sorted")).hexdigest()
    made: dict[str, Any] = {"spec_hash": spec_hash, "bindings": f"sha256:{bindings}", "blueprint": spec.target.id, "version": version}
    if job_file is not None:
        made["job_file"] = job_file
    if replayed_from:
        made["replayed_from"] = replayed_from
    return made


_SAID = {
    "spec_hash": "the spec",
    "bindings": "the bindings",
    "blueprint": "the target",
    "version": "the blueprint's version",
    "job_file": "the job's file",
}


def changes(bound: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different from what was approved, in words. What is not known on one side is not compared."""
    return [
        f"{said} ({_short(bound[key])} was asked about, {_short(now[key])} is there now)"
        for key, said in _SAID.items()
        if bound.get(key) is not None and now.get(key) is not None and bound[key] != now[key]
    ]


def _short(value: str) -> str:
    return value[:15] if value.startswith("sha256:") else value or "nothing"


def file_hash(index: SpecIndex, job_id: str) -> str | None:
    """The hash of what the job's file says now; empty when there is none; None when that can't be told, because the file is broken."""
    catalog = index.scan()
    entry = catalog.jobs.get(job_id)
    if entry is not None:
        return entry.file_digest  # another default of the workspace's is no edit of what somebody was asked about
    named = tuple(f"/{job_id}{suffix}" for suffix in SUFFIXES)
    broken = job_id in catalog.claimed.values() or any(each.path.endswith(named) for each in catalog.diagnostics)
    return None if broken or not catalog.complete else ""
