"""Subjects that need nothing but Lily: `run`, `queue`, `env` and `clock`."""

from datetime import datetime
from typing import Any

from lily import time_text
from lily.conditions.define import Facts, Look, subject
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.subject_specs import ClockSubject, EnvSubject, QueueSubject, RunSubject
from lily.triggers.zones import instant_from
from lily.yaml_scalars import plain_scalar

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@subject("run", summary="How the last run of a job ended, how long ago, and failures in a row.", params=RunSubject)
async def run(look: Look, params: RunSubject) -> Any:
    """The last run that has ended, one that reports missed windows too. A job that never ran has no status and no age."""
    return await look.blocking(lambda stop: _of_runs(look.facts, params, look.now))


def _of_runs(facts: Facts, params: RunSubject, now: datetime) -> Any:
    if not facts.known(params.job):
        raise EvaluationError(EvaluationCode.SUBJECT_NOT_FOUND, f"there is no job {params.job}, and there was none")
    if params.field == "failures":
        return facts.failures(params.job)
    last = facts.last_run(params.job)
    if last is None:
        return None
    if params.field == "status":
        return last.status
    return None if last.ended_at is None else max(0.0, round((now - last.ended_at).total_seconds(), 3))


@subject("queue", summary="How many runs wait, and how many dead letters there are.", params=QueueSubject)
async def queue(look: Look, params: QueueSubject) -> Any:
    """A number."""
    return await look.blocking(lambda stop: look.facts.queued() if params.field == "depth" else look.facts.dead_letters())


@subject("env", summary="A variable of the supervisor's environment.", params=EnvSubject)
async def env(look: Look, params: EnvSubject) -> Any:
    """What its text stands for, by `type`; one that is not set is a missing value, and so is a blank one that is not to be text."""
    text = look.environ.get(params.name)
    if text is None or params.type == "text":
        return text
    if not text.strip():
        return None
    if params.type == "timestamp":
        wrong = time_text.check_instant(text.strip())
        if wrong:
            raise EvaluationError(EvaluationCode.VALUE_TYPE_MISMATCH, f"the variable {params.name} is no time")
        return instant_from(text.strip(), look.zone)
    try:
        value = plain_scalar(text.strip())
    except ValueError:  # a number too large
        value = None
    if (type(value) is bool) != (params.type == "boolean") or not isinstance(value, (bool, int, float)):
        wanted = "a number" if params.type == "number" else "true or false"
        raise EvaluationError(EvaluationCode.VALUE_TYPE_MISMATCH, f"the variable {params.name} is not {wanted}")
    return value


@subject("clock", summary="The time of the look, in the job's zone.", params=ClockSubject)
async def clock(look: Look, params: ClockSubject) -> Any:
    """`now` is an instant; all others are what a clock and a calendar on the wall show."""
    local = look.now.astimezone(look.zone)
    match params.field:
        case "now":
            return look.now
        case "date":
            return f"{local:%Y-%m-%d}"
        case "time":
            return f"{local:%H:%M}"
        case "hour":
            return local.hour
        case "day":
            return local.day
        case "weekday":
            return _WEEKDAYS[local.weekday()]
