"""The `trigger` section of a job spec: one model for each kind, told apart by `type`. Shape only; nothing is scheduled here."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lily import time_text
from lily.conditions.glob import MAX_PATTERN, empty_class
from lily.spec_parts import Part, checked
from lily.subject_specs import SUBJECTS, Subject, gives

Cron = Annotated[str, Field(max_length=1000), checked(time_text.check_cron)]
Zone = Annotated[str, Field(max_length=200), checked(time_text.check_zone)]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}(s|m|h|d|w|mo)$"), checked(time_text.check_duration)]
Instant = Annotated[str, checked(time_text.check_instant)]
Date = Annotated[str, checked(time_text.check_date)]
Rule = Annotated[str, Field(max_length=2000), checked(time_text.check_rrule)]


class Exclude(Part):
    """Windows that are left out: on these dates, or at the times of another rule."""

    dates: list[Date] = Field(default=[], max_length=1000, description="a list of dates such as 2026-12-25")
    rrule: Rule | None = Field(default=None, description="an RFC 5545 rule such as FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25")
    anchor: Instant | None = Field(default=None, description="a time such as 2026-05-04T09:00")

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        return {"dates": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.dates and self.rrule is None:
            raise PydanticCustomError("said", "it has neither dates nor an rrule")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        own = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1}, own]}


_MISFIRE = "a number of seconds from 0 to 31536000"


class _Trigger(Part):
    # Moved to the top of the spec before anything else happens, so that a job has its zone in one place.
    timezone: Zone | None = Field(default=None, exclude=True, description="an IANA zone such as Europe/Lisbon, here or at top level")


class _Timed(_Trigger):
    misfire_grace_seconds: float = Field(default=30.0, ge=0, le=31_536_000, description=_MISFIRE)
    catch_up: Literal["none", "latest", "all"] = Field(default="none", description="none, latest or all")
    catch_up_limit: int = Field(default=100, ge=1, le=100_000, description="a whole number from 1 to 100000")
    catch_up_window: Duration = Field(default="24h", description="a duration such as 24h")
    overlap: Literal["skip", "queue", "cancel_previous"] = Field(default="skip", description="skip, queue or cancel_previous")
    jitter_seconds: float = Field(default=0.0, ge=0, le=86_400, description="a number of seconds from 0 to 86400")
    start_at: Instant | None = Field(default=None, description="a time such as 2026-05-04T09:00:00Z")
    end_at: Instant | None = Field(default=None, description="a time such as 2026-05-04T09:00:00Z")
    exclude: Exclude | None = Field(default=None, description="a list of dates, or a mapping with dates, rrule and anchor")

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.start_at and self.end_at and not time_text.in_order(self.start_at, self.end_at):
            raise PydanticCustomError("said", "end_at is not after start_at: a later end_at is accepted")
        return self


class ManualTrigger(_Trigger):
    """Runs when somebody says so."""

    type: Literal["manual"]


class CronTrigger(_Timed):
    """Debian cron's rules, in the job's zone."""

    type: Literal["cron"]
    cron: Cron = Field(description='five fields such as "15 5 * * mon-fri", or a name such as @daily')


class IntervalTrigger(_Timed):
    """Every so often, counted from an anchor."""

    type: Literal["interval"]
    every: Duration = Field(description="a whole number and one of s m h d w mo, such as 15m")
    anchor: Instant | None = Field(default=None, description="a time such as 2026-05-04T09:00")


class OnceTrigger(_Timed):
    """At one time."""

    type: Literal["once"]
    at: Instant = Field(description="a time such as 2026-05-04T09:00:00Z")

    @model_validator(mode="after")
    def _says_a_time(self) -> Self:
        if not time_text.has_time(self.at):
            raise PydanticCustomError("said", "`at` has a date and no time of day; 2026-05-04T09:00:00Z is accepted")
        return self


class CalendarTrigger(_Timed):
    """An RFC 5545 recurrence."""

    type: Literal["calendar"]
    rrule: Rule = Field(description="an RFC 5545 rule such as FREQ=MONTHLY;BYDAY=2TU")
    anchor: Instant = Field(description="the time of the first one, such as 2026-05-04T09:00")


def _plain_operand(given: Any) -> Any:
    if given is None or type(given) in (str, bool, int, float):
        return given
    raise PydanticCustomError("said", "no `value` can be a list or a mapping")


class ConditionTrigger(_Timed):
    """When something that is looked at every so often is true."""

    type: Literal["condition"]
    every: Duration = Field(description="a whole number and one of s m h d w mo, such as 15m")
    anchor: Instant | None = Field(default=None, description="a time such as 2026-05-04T09:00")
    catch_up: Literal["none", "latest"] = Field(default="none", description="none or latest: what was can't be looked at later")
    subject: Subject = Field(description="the name of a subject, or a mapping with its `kind`")
    operator: Literal["eq", "neq", "gt", "gte", "lt", "lte", "exists", "matches"] = Field(
        description="eq, neq, gt, gte, lt, lte, exists or matches"
    )
    value: Annotated[Any, BeforeValidator(_plain_operand), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})] = Field(
        default=None, description="text, a number, true or false"
    )
    mode: Literal["edge", "level"] = Field(default="edge", description="edge or level")

    @field_validator("subject")
    @classmethod
    def _is_enough(cls, given: Any) -> Any:
        return _refused(given, _nameless(given))

    @field_validator("value")
    @classmethod
    def _fits(cls, given: Any, info: ValidationInfo) -> Any:
        subject, operator = info.data.get("subject"), info.data.get("operator")
        if given is None or subject is None or operator is None:
            return given
        return _refused(given, _no_operand(operator, given) or _other_type(subject, operator, given))

    @model_validator(mode="after")
    def _has_a_value(self) -> Self:
        if self.operator != "exists" and self.value is None:
            raise PydanticCustomError(
                "said", "{said}", {"said": f"the operator {self.operator} needs a `value`; text, a number, true and false are accepted"}
            )
        return self


def _refused(given: Any, wrong: str | None) -> Any:
    if wrong:
        raise PydanticCustomError("said", "{said}", {"said": wrong})
    return given


def _nameless(subject: Any) -> str | None:
    """What a subject that is only a name lacks."""
    model = SUBJECTS.get(subject) if isinstance(subject, str) else None
    if model is None:
        return None
    try:
        model.model_validate({"kind": subject})
    except ValidationError as error:
        needed = ", ".join(str(found["loc"][0]) for found in error.errors(include_url=False))
        return f"the subject {subject} needs more than its name: {{kind: {subject}, {needed}: ...}}"
    return None


def _no_operand(operator: str, value: Any) -> str | None:
    """Why an operator can't be used with a value, whatever is observed."""
    if operator == "exists":
        return None if type(value) is bool else "`exists` needs no `value`; true and false are accepted"
    if operator == "matches":
        if not isinstance(value, str):
            return "`matches` needs a pattern as its `value`: text alone is accepted, so put it in quotes"
        if len(value) > MAX_PATTERN:
            return f"the pattern has {len(value)} characters; at most {MAX_PATTERN} are accepted"
        never = empty_class(value)
        return f"no text can match: {never} has no character in it; a range from low to high, such as [a-z], is accepted" if never else None
    if type(value) is bool and operator not in ("eq", "neq"):
        return f"{operator} puts things in order, and true and false have none; eq and neq are accepted"
    return None


def _other_type(subject: Any, operator: str, value: Any) -> str | None:
    """Where it is known what the subject gives: a value that it can never be compared with."""
    known = gives(subject)
    if known is None or operator == "exists":
        return None
    if operator == "matches" or (known == "boolean" and operator not in ("eq", "neq")):
        fit = "eq, neq, exists" if known == "boolean" else "eq, neq, gt, gte, lt, lte, exists"
        return None if known == "text" else f"the subject gives {_TYPES[known]}, which {operator} is not for; accepted for it: {fit}"
    if known == "timestamp" and isinstance(value, str):
        return time_text.check_instant(value)
    given = "text" if isinstance(value, str) else "boolean" if type(value) is bool else "number"
    return None if given == known else f"the subject gives {_TYPES[known]}, and the `value` is {_TYPES[given]}; accepted: {_TYPES[known]}"


_TYPES = {"text": "text", "number": "a number", "boolean": "true or false", "timestamp": "a time such as 2026-05-04T09:00:00Z"}

KINDS: dict[str, type[Part]] = {
    "manual": ManualTrigger,
    "cron": CronTrigger,
    "interval": IntervalTrigger,
    "once": OnceTrigger,
    "calendar": CalendarTrigger,
    "condition": ConditionTrigger,
}
Trigger = Annotated[
    ManualTrigger | CronTrigger | IntervalTrigger | OnceTrigger | CalendarTrigger | ConditionTrigger,
    Field(discriminator="type"),
]


def zone_problem(trigger: Any, timezone: Any) -> tuple[tuple[str, ...], str, str] | None:
    """What only `trigger` and `timezone` together can get wrong: (path, what, what to do). Takes raw values of any kind."""
    if not isinstance(trigger, dict):
        return None
    inner, kind = trigger.get("timezone"), trigger.get("type")
    if inner is not None and timezone is not None:
        return ("trigger", "timezone"), "timezone stands in the trigger and at top level", "keep one of them"
    if inner is not None or timezone is not None:
        return None
    if kind in ("cron", "calendar"):
        hint = "add `timezone: Europe/Lisbon` (an IANA name) at top level or in the trigger"
        return ("trigger",), f"a {kind} trigger needs a timezone", hint
    if kind == "once" and _lacks_offset(trigger.get("at")):
        hint = "end it with Z or an offset such as +02:00, or add a timezone"
        return ("trigger", "at"), "`at` has no offset and the job has no timezone", hint
    return None


def _lacks_offset(at: Any) -> bool:
    return isinstance(at, str) and time_text.has_time(at) and not time_text.check_instant(at) and not time_text.has_offset(at)
