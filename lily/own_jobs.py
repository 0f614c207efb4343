"""Lily's own jobs: no file holds them, their ids begin with `lily.`, and settings say when they run. All else treats them like any other.

What stands here imports no models, because every list of jobs asks for it: a test holds the JSON equal to what the models would write.
"""

import hashlib
from typing import Any

import msgspec

from lily.runs import Output, PinnedSpec, Runtime, Target
from lily.settings import Review, load_settings
from lily.workspace import Workspace

PREFIX = "lily."  # no job file may use it
REVIEW = "lily.review"
PLACE = "built in"  # shown where other jobs have the path of their file
THRESHOLDS = ("overdue_hours", "failures", "stale_days", "paused_days", "overlap_percent")


class OwnJob(msgspec.Struct, frozen=True, kw_only=True):
    """A built-in job: its canonical JSON, the hash of that, and the job decoded."""

    canonical: bytes
    digest: str
    spec: PinnedSpec


def is_own(job_id: str) -> bool:
    """Whether the id is one of those that Lily keeps for itself."""
    return job_id.startswith(PREFIX)


def own_jobs(workspace: Workspace) -> dict[str, OwnJob]:
    """Every built-in job of a workspace, by id. Raises `config_invalid` where the settings can't be read."""
    return own_jobs_of(Review() if _says_nothing(workspace) else load_settings(workspace).review)


def own_jobs_of(review: Review) -> dict[str, OwnJob]:
    """Every built-in job with these settings."""
    spec = _review(review)
    canonical = msgspec.json.encode(spec, order="sorted")
    return {REVIEW: OwnJob(canonical=canonical, digest="sha256:" + hashlib.sha256(canonical).hexdigest(), spec=spec)}


def _says_nothing(workspace: Workspace) -> bool:
    """Whether the settings surely say nothing of reviews, which spares reading YAML: the word can stand in no key then."""
    try:
        lines = workspace.config.read_bytes().splitlines()
    except OSError:
        return False  # whoever reads the settings says what is wrong
    said = b"\n".join(line for line in lines if not line.lstrip().startswith(b"#"))
    return b"review" not in said and b"\\" not in said


def _review(settings: Review) -> PinnedSpec:
    # Caught up: a machine that is off at night is reviewed when it is on again. Without a schedule the job still runs by hand.
    trigger = _cron(settings.cron, catch_up="latest") if settings.enabled else {"type": "manual"}
    return PinnedSpec(
        id=REVIEW,
        title="Look at all jobs for what went unnoticed",
        target=Target(kind="blueprint", id="review.v1"),
        bindings={name: getattr(settings, name) for name in THRESHOLDS},
        trigger=trigger,
        timezone=settings.timezone if settings.enabled else None,
        runtime=Runtime(timeout_seconds=900.0, retry_max=1, priority="low"),
        output=Output(),
    )


def _cron(cron: str, *, catch_up: str) -> dict[str, Any]:
    """A cron trigger with its defaults written out, as a spec has it."""
    return {
        "type": "cron",
        "cron": cron,
        "misfire_grace_seconds": 30.0,
        "catch_up": catch_up,
        "catch_up_limit": 100,
        "catch_up_window": "24h",
        "overlap": "skip",
        "jitter_seconds": 0.0,
        "start_at": None,
        "end_at": None,
        "exclude": None,
    }
