"""What the workspace says of retries where a job says nothing of them: put into the spec once, before it gets its hash.

So a run pins what it was accepted with, and another setting later makes another spec, as an edit of the file does.
"""

import os
from typing import TYPE_CHECKING, Any

import msgspec

from lily.errors import LilyError
from lily.text import counted
from lily.workspace import Workspace

if TYPE_CHECKING:
    from lily.settings import Settings
    from lily.specs import JobSpec

_MAXIMUM = "policy.max.retry_max"
_ATTEMPTS, _STRATEGY, _BASE = "scheduler.default_max_attempts", "scheduler.default_backoff_strategy", "scheduler.backoff_base_seconds"
_FILE = "the job"  # the origin of what its file says


class RetryDefaults(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Without any setting they are those of the job spec itself. `origins` says of each field where it comes from."""

    retry_max: int = 0
    strategy: str = "exponential"
    base_seconds: float = 60.0
    origins: dict[str, str] = {}

    def apply(self, spec: "JobSpec") -> "JobSpec":
        """The same job with these where its `runtime` says nothing: of `retry_max`, of `backoff`, each on its own."""
        said, changes = spec.runtime.model_fields_set, dict[str, Any]()
        if "retry_max" not in said and self.retry_max != spec.runtime.retry_max:
            changes["retry_max"] = self.retry_max
        if "backoff" not in said:
            own = spec.runtime.backoff
            mine = {"strategy": self.strategy, "base_seconds": self.base_seconds, "max_seconds": max(own.max_seconds, self.base_seconds)}
            if any(getattr(own, name) != value for name, value in mine.items()):
                changes["backoff"] = own.model_copy(update=mine)
        if not changes:
            return spec
        # As they were: what the file said and what it did not.
        runtime = spec.runtime.model_copy(update=changes)
        runtime.__pydantic_fields_set__.difference_update(changes)
        return spec.model_copy(update={"runtime": runtime})

    def told(self, spec: "JobSpec") -> dict[str, str]:
        """Where each of the job's values comes from: the job, a setting with its place, or the default."""
        said = spec.runtime.model_fields_set
        names = {"runtime.retry_max": "retry_max", "runtime.backoff.strategy": "strategy", "runtime.backoff.base_seconds": "base_seconds"}
        return {
            path: _FILE if path.split(".")[1] in said else self.origins.get(field, "the default of job files")
            for path, field in names.items()
        }

    def note(self, spec: "JobSpec") -> str | None:
        """One line on what settings of the workspace decide for the job; None where they decide nothing."""
        given = {path: where for path, where in self.told(spec).items() if where in self.origins.values()}
        if not given:
            return None
        resolved, parts = self.apply(spec).runtime, []
        if "runtime.retry_max" in given:
            parts.append(f"at most {counted(resolved.retry_max + 1, 'attempt')} ({given.pop('runtime.retry_max')})")
        if given:
            backoff = resolved.backoff
            parts.append(f"pauses: {backoff.strategy} from {backoff.base_seconds:g} s ({', '.join(given.values())})")
        return "retries: " + "; ".join(parts)


def retry_defaults(settings: "Settings") -> RetryDefaults:
    """Those of the settings. More attempts than the policy allows are cut to what it allows."""
    wanted, most = settings.scheduler.default_max_attempts, settings.policy.max.retry_max
    retry_max, origins = 0, {}
    if wanted is not None:
        retry_max = wanted - 1
        origins["retry_max"] = f"{_ATTEMPTS}: {wanted} ({settings.origins[_ATTEMPTS]})"
        if most is not None and retry_max > most:
            retry_max = most
            origins["retry_max"] += f", cut to {_MAXIMUM} ({settings.origins[_MAXIMUM]})"
    for field, key in (("strategy", _STRATEGY), ("base_seconds", _BASE)):
        if settings.origins[key] != "default":
            origins[field] = f"{key} ({settings.origins[key]})"
    return RetryDefaults(
        retry_max=retry_max,
        strategy=settings.scheduler.default_backoff_strategy,
        base_seconds=settings.scheduler.backoff_base_seconds,
        origins=origins,
    )


def defaults_of(workspace: Workspace) -> RetryDefaults | None:
    """Those of the workspace's file; None when it can't be used: whoever accepts a run says so."""
    from lily.settings import load_settings

    try:
        return retry_defaults(load_settings(workspace))
    except LilyError:
        return None


def stamp_of(workspace: Workspace) -> tuple[int, int, int]:
    """What tells one version of the settings' file from another: mtime_ns, size, inode; all 0 where there is none."""
    try:
        status = os.stat(workspace.config)
    except OSError:
        return (0, 0, 0)
    return status.st_mtime_ns, status.st_size, status.st_ino
