"""What a run would do, as far as that can be known before its first attempt. Nothing is stored."""

from collections.abc import Mapping
from typing import Any

import msgspec

from lily.approvals.needs import needs_of
from lily.cli import output
from lily.errors import Code, exit_code
from lily.preflight import Ready, Refused, preflight
from lily.render import plan_lines
from lily.runs import PinnedSpec, decode_spec
from lily.settings import Settings
from lily.workspace import Workspace


def show_plan(
    workspace: Workspace,
    settings: Settings,
    canonical: bytes,
    *,
    as_json: bool,
    origins: Mapping[str, str],
    lineage: Mapping[str, Any] | None = None,
) -> int:
    """Print the plan of a run of this spec; `origins` says where its retries come from. Gives the exit status of the refusal it would meet,
    else 0."""
    from lily.blueprints.registry import Registry

    spec = decode_spec(canonical)
    plan, status = plan_of(spec, workspace, settings, Registry(workspace.blueprints), lineage or {})
    plan["attempts"]["origins"] = dict(origins)
    if as_json:
        output.put_json({"plan": plan})
    else:
        output.put_lines(plan_lines(plan))
        output.tell("dry run: nothing was stored or executed")
    return status


def plan_of(
    spec: PinnedSpec, workspace: Workspace, settings: Settings, registry: Any, lineage: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """(the plan as plain values, exit status)."""
    outcome = preflight(spec, registry, settings.policy, workspace.root)
    needs = needs_of(spec, lineage, outcome.asks) if isinstance(outcome, Ready) else []
    runtime = msgspec.to_builtins(spec.runtime)
    plan: dict[str, Any] = {
        "job_id": spec.id,
        "title": spec.title,
        "would": "wait for an approval, then run" if needs else "run",
        "target": {"id": spec.target.id, "version": outcome.target_version},
        "bindings": spec.bindings,
        "input": spec.target.input,
        "capabilities": outcome.policy,
        "attempts": {
            "at_most": spec.runtime.retry_max + 1,
            "timeout_seconds_each": spec.runtime.timeout_seconds,
            "backoff": runtime["backoff"],
        },
        "limits": {key: runtime[key] for key in ("memory_mb", "cpu_seconds", "max_parallel_runs") if runtime[key] is not None},
        "must_leave": spec.output.artifacts,
        "approvals": msgspec.to_builtins(needs),
    }
    if isinstance(outcome, Refused):
        plan["would"], plan["error"] = "fail before its first attempt", msgspec.to_builtins(outcome.error)
        return plan, exit_code(Code(outcome.error.code))
    return plan, 0
