"""review.v1: look at every job of the workspace for what went unnoticed. Lily runs it every day as `lily.review`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable
from lily.blueprints.define import BlueprintBase
from lily.text import counted

SHOWN = 200  # findings in the payload; all of them are in the store
_SAID = 50  # in the summary, and as lines of the log


class ReviewBindings(BaseModel):
    """From when on something is a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    overdue_hours: float = Field(default=24.0, ge=1, le=8784, description="A window that is late by more has been lost sight of.")
    failures: int = Field(default=3, ge=1, le=20, description="So many failed runs in a row.")
    stale_days: float = Field(default=7.0, ge=0.001, le=366, description="After one failed run nothing came for so long.")
    paused_days: float = Field(default=30.0, ge=0.001, le=3660, description="A pause that lasts longer was forgotten.")
    overlap_percent: float = Field(default=80.0, ge=1, le=1000, description="Of the time between two windows, that a run takes.")


class ReviewOutput(BaseModel):
    """What was found. `stored` is false when another review was stored meanwhile: then that one's findings stand."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    summary: str
    at: str
    jobs: int
    windows: int
    unseen_jobs: int
    stored: bool
    counts: dict[str, int]
    opened: list[str]
    reopened: list[str]
    closed: list[str]
    findings: list[dict[str, Any]]


class ReviewBlueprint(BlueprintBase):
    """Changes nothing but what is known of findings. A finding is no failure: the run succeeds when it has looked at everything."""

    id = "review.v1"
    summary = "Look at all jobs for what went unnoticed."
    bindings_schema = ReviewBindings
    output_schema = ReviewOutput
    example: Mapping[str, Any] = {"failures": 3}

    def compile(self, bindings: ReviewBindings) -> Runnable:
        """What there is to look at is that of the time of the attempt."""

        async def run(ctx: Context, run_input: Any, /) -> Envelope:
            review = getattr(ctx, "review", None)
            if review is None:
                raise BlueprintError("what runs this has no jobs to look at; review.v1 works in a workspace", retryable=False)
            found: dict[str, Any] = await review(bindings.model_dump())
            for each in [each for each in found["findings"] if each["id"] in {*found["opened"], *found["reopened"]}][:_SAID]:
                await ctx.log.warning(f"{each['id']}: {each['message']}", severity=each["severity"], mend=each["mend"])
            for id in found["closed"][:_SAID]:
                await ctx.log.info(f"{id} is gone")
            short = {**found, **{name: found[name][:SHOWN] for name in ("findings", "opened", "reopened", "closed")}}
            return Envelope(payload={"summary": summary(found), **short})

        return run


def summary(found: Mapping[str, Any]) -> str:
    """What a person reads first: the open findings, worst first, each with what mends it."""
    counts = found["counts"]
    quiet = f", {counts['acknowledged']} acknowledged" if counts["acknowledged"] else ""
    told = ", ".join(f"{counts[name]} {name}" for name in ("high", "medium", "low") if counts[name]) or "nothing"
    lines = [f"{counted(found['jobs'], 'job')} looked at: {told} open{quiet}"]
    if not found["stored"]:
        lines.append("another review was stored while this one looked; its findings are shown")
    opened = [each for each in found["findings"] if not each["acknowledged"]]
    lines += [f"{each['severity']}: {each['id']}: {each['message']}; `{each['mend']}`" for each in opened[:_SAID]]
    if len(opened) > _SAID:
        lines.append(f"{len(opened) - _SAID} more: `lily review list`")
    return "\n".join(lines)


review = ReviewBlueprint()
