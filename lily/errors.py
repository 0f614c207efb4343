"""One closed set of error codes, and the one exception that carries them to a person."""

from enum import StrEnum


class Code(StrEnum):
    """Stable codes: a name here is part of the public contract and never changes its meaning."""

    JOB_NOT_FOUND = "job_not_found"
    JOB_INVALID_SPEC = "job_invalid_spec"
    JOB_TRIGGER_INVALID = "job_trigger_invalid"
    JOB_TARGET_UNRESOLVED = "job_target_unresolved"
    JOB_BINDINGS_INVALID = "job_bindings_invalid"
    JOB_EXECUTION_FAILED = "job_execution_failed"
    JOB_POLICY_DENIED = "job_policy_denied"
    JOB_STATE_INVALID = "job_state_invalid"

    BLUEPRINT_NOT_FOUND = "blueprint_not_found"
    BLUEPRINT_BINDINGS_INVALID = "blueprint_bindings_invalid"
    BLUEPRINT_COMPILE_FAILED = "blueprint_compile_failed"
    BLUEPRINT_EXECUTION_FAILED = "blueprint_execution_failed"
    BLUEPRINT_CONTRACT_INVALID = "blueprint_contract_invalid"
    BLUEPRINT_DUPLICATE = "blueprint_duplicate"
    LLM_SYNTH_FAILED = "llm_synth_failed"
    LLM_SYNTH_FALLBACK_FAILED = "llm_synth_fallback_failed"

    RUN_NOT_FOUND = "run_not_found"
    RUN_STATE_INVALID = "run_state_invalid"
    DEAD_LETTER_NOT_FOUND = "dead_letter_not_found"
    FINDING_NOT_FOUND = "finding_not_found"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_VOID = "approval_void"
    APPROVAL_FORBIDDEN = "approval_forbidden"
    FEATURE_UNAVAILABLE = "feature_unavailable"
    QUEUE_BACKPRESSURE = "queue_backpressure"
    QUEUE_FULL = "queue_full"
    ARTIFACT_NAME_INVALID = "artifact_name_invalid"

    WORKSPACE_NOT_FOUND = "workspace_not_found"
    WORKSPACE_INVALID = "workspace_invalid"
    CONFIG_INVALID = "config_invalid"
    OWNER_CONFLICT = "owner_conflict"
    SUPERVISOR_NOT_RUNNING = "supervisor_not_running"
    WORKER_PAUSED = "worker_paused"
    ACTOR_FORBIDDEN = "actor_forbidden"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_SCHEMA_NEWER = "store_schema_newer"
    DISK_FULL = "disk_full"
    USAGE = "usage"
    INTERRUPTED = "interrupted"
    INTERNAL_ERROR = "internal_error"


_REFUSED = {
    Code.JOB_POLICY_DENIED,
    Code.JOB_STATE_INVALID,
    Code.RUN_STATE_INVALID,
    Code.APPROVAL_DENIED,
    Code.APPROVAL_EXPIRED,
    Code.APPROVAL_VOID,
    Code.APPROVAL_FORBIDDEN,
    Code.FEATURE_UNAVAILABLE,
    Code.QUEUE_BACKPRESSURE,
    Code.QUEUE_FULL,
    Code.OWNER_CONFLICT,
    Code.WORKER_PAUSED,
    Code.ACTOR_FORBIDDEN,
    Code.STORE_SCHEMA_NEWER,
    Code.DISK_FULL,
}
_NOT_FOUND_OR_INVALID = {
    Code.JOB_NOT_FOUND,
    Code.JOB_INVALID_SPEC,
    Code.JOB_TRIGGER_INVALID,
    Code.JOB_TARGET_UNRESOLVED,
    Code.JOB_BINDINGS_INVALID,
    Code.BLUEPRINT_NOT_FOUND,
    Code.BLUEPRINT_BINDINGS_INVALID,
    Code.BLUEPRINT_DUPLICATE,
    Code.RUN_NOT_FOUND,
    Code.DEAD_LETTER_NOT_FOUND,
    Code.FINDING_NOT_FOUND,
    Code.ARTIFACT_NAME_INVALID,
    Code.WORKSPACE_NOT_FOUND,
    Code.WORKSPACE_INVALID,
    Code.CONFIG_INVALID,
}


def exit_code(code: Code) -> int:
    """The process exit status of a command that ends with `code`: 1 failed, 2 usage, 3 not found or invalid, 4 refused, 130 interrupted."""
    if code in _NOT_FOUND_OR_INVALID:
        return 3
    if code in _REFUSED:
        return 4
    return {Code.USAGE: 2, Code.INTERRUPTED: 130}.get(code, 1)


class LilyError(Exception):
    """Something a person can act on: what happened, where, and what to do.

    `code` is stable, `message` says what, `where` names the file, job or run, `hint` says what to do next, and
    `detail` holds plain JSON values only, so that every error can be printed and stored.
    """

    def __init__(self, code: Code, message: str, *, where: str = "", hint: str = "", **detail: object) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        parts = [f"{self.code}: {self.message}"]
        if self.where:
            parts.append(self.where)
        if self.hint:
            parts.append(self.hint)
        return " · ".join(" ".join(part.split()) for part in parts)

    def to_dict(self) -> dict[str, object]:
        """The same error as the JSON object that `--json` prints."""
        return {"code": str(self.code), "message": self.message, "where": self.where, "hint": self.hint, "detail": self.detail}


def lost_spec(spec_hash: str, nonsense: str = "") -> LilyError:
    """A spec that a run or a schedule pinned is not in the store; or what is there is `nonsense`, after an edit by hand."""
    said = "the store does not have the spec that a run or a schedule names"
    hint = "`lily db rebuild --from receipts` puts back what receipts have; else a backup does"
    return LilyError(
        Code.STORE_UNAVAILABLE,
        f"{said}: what it has in its place is none ({nonsense})" if nonsense else said,
        where=f"spec {spec_hash}",
        hint=hint if nonsense else f"`lily jobs run JOB` puts it back where the job's file is as it was, {hint}",
        spec_hash=spec_hash,
    )


def lacks_spec(error: Exception) -> bool:
    """Whether a pinned spec is lost, which concerns those alone who name it."""
    return isinstance(error, LilyError) and "spec_hash" in error.detail


def spoilt_run(run_id: str, why: str) -> LilyError:
    """The store's row of a run, or of one of its attempts, was edited by hand into what none can have been."""
    return LilyError(
        Code.STORE_UNAVAILABLE,
        f"the store's row of the run says what no run can have been: {why}",
        where=f"run {run_id}",
        hint="somebody has changed tables by hand; `lily runs verify` names all such rows and says what puts each back",
        spoilt_run=run_id,
        why=why,
    )


def is_spoilt(error: Exception) -> bool:
    """Whether one run's row can't be read, which concerns that run alone."""
    return isinstance(error, LilyError) and "spoilt_run" in error.detail
