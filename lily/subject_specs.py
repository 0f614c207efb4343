"""The `subject` of a condition: a model for each that is built in, told apart by `kind`, and one for those of a workspace. Shape only."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from lily.http_forms import HEADER_NAMES, HEADER_VALUES, is_header_name, is_header_value, wrong_url
from lily.spec_parts import Part, checked

SUBJECT_ID = r"^[a-z0-9][a-z0-9._-]{0,127}$"


def _no_nul(text: str) -> str | None:
    return "it has a NUL character" if "\0" in text else None


def _header_name(text: str) -> str | None:
    return None if is_header_name(text) else f"no header can have this name: {HEADER_NAMES}"


def _header_value(given: object) -> str | None:
    return f"it can't be sent: {HEADER_VALUES}" if isinstance(given, str) and not is_header_value(given) else None


def _json_path(text: str) -> str | None:
    from lily.blueprints.paths import parse_path

    try:
        parse_path(text)
    except ValueError as error:
        return str(error)
    return None


PathText = Annotated[str, Field(min_length=1, max_length=4096), checked(_no_nul)]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
JobName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]


HeaderName = Annotated[str, Field(max_length=200), checked(_header_name)]


class SecretText(Part):
    """A header's value that is read from the environment when it is sent."""

    secret: Annotated[str, Field(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$", description="env:NAME")]


HeaderValue = Annotated[Annotated[str, Field(max_length=4096)] | SecretText, checked(_header_value)]


class FileSubject(Part):
    """A file, or how many fit a pattern."""

    kind: Literal["file"] = Field(description="file")
    path: PathText = Field(description="a path, from the workspace; with field: count a pattern such as inbox/*.csv")
    field: Literal["exists", "size", "mtime", "sha256", "count"] = Field(
        default="exists", description="exists, size, mtime, sha256 or count"
    )


class HttpSubject(Part):
    """The answer to a GET: its status, or a value in its JSON."""

    kind: Literal["http"] = Field(description="http")
    url: Annotated[str, Field(max_length=4096), checked(wrong_url)] = Field(description="a URL such as https://host/path")
    json_path: Annotated[str, Field(max_length=500), checked(_json_path)] | None = Field(
        default=None, description="a path into the answer's JSON, such as a.b[0].c; without one the status is observed"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default={}, max_length=50, description="a mapping of names to text, or to {secret: env:NAME}"
    )


class RunSubject(Part):
    """How another job's runs ended."""

    kind: Literal["run"] = Field(description="run")
    job: JobName = Field(description="the id of a job")
    field: Literal["status", "age", "failures"] = Field(
        default="status", description="status, age (seconds since its last run ended) or failures (in a row)"
    )


class QueueSubject(Part):
    """What waits."""

    kind: Literal["queue"] = Field(description="queue")
    field: Literal["depth", "dead_letters"] = Field(default="depth", description="depth or dead_letters")


class EnvSubject(Part):
    """A variable of the supervisor's environment."""

    kind: Literal["env"] = Field(description="env")
    name: Name = Field(description="the name of an environment variable")
    type: Literal["text", "number", "boolean", "timestamp"] = Field(
        default="text", description="text, number, boolean or timestamp: what its text stands for"
    )


class SqliteSubject(Part):
    """What a query gives that only reads."""

    kind: Literal["sqlite"] = Field(description="sqlite")
    path: PathText = Field(description="the database's file, from the workspace")
    query: Annotated[str, Field(min_length=1, max_length=10_000), checked(_no_nul)] = Field(
        description="a query that gives one value, such as select count(*) from t"
    )


class ClockSubject(Part):
    """The time of the look, in the job's zone."""

    kind: Literal["clock"] = Field(description="clock")
    field: Literal["now", "date", "time", "hour", "day", "weekday"] = Field(
        default="now", description="now, date, time, hour, day (of the month) or weekday (mon to sun)"
    )


class OtherSubject(BaseModel):
    """A subject that the workspace or a package defines, with what it takes."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    kind: Annotated[str, Field(pattern=SUBJECT_ID)] = Field(
        description="the id of a subject",
        json_schema_extra={"not": {"enum": ["file", "http", "run", "queue", "env", "sqlite", "clock"]}},
    )

    @model_validator(mode="after")
    def _plain(self) -> "OtherSubject":
        from lily.specs import not_plain

        wrong = not_plain(self.model_extra or {})
        if wrong:
            raise PydanticCustomError("said", "{said}", {"said": wrong})
        return self


SUBJECTS: dict[str, type[BaseModel]] = {
    "file": FileSubject,
    "http": HttpSubject,
    "run": RunSubject,
    "queue": QueueSubject,
    "env": EnvSubject,
    "sqlite": SqliteSubject,
    "clock": ClockSubject,
}
NAMED, OTHER = "name", "other"
TAGS = frozenset({*SUBJECTS, NAMED, OTHER})


def tag_of(given: Any) -> str | None:
    """Which model a subject belongs to: a key of SUBJECTS, `name` for text, `other` for a mapping of another kind; None for neither."""
    if isinstance(given, str):
        return NAMED
    if isinstance(given, BaseModel):
        return tag_of({"kind": getattr(given, "kind", "")})
    if not isinstance(given, dict) or not given:
        return None
    kind = given.get("kind")
    return kind if isinstance(kind, str) and kind in SUBJECTS else OTHER


Subject = Annotated[
    Annotated[str, Field(pattern=SUBJECT_ID), Tag(NAMED)]
    | Annotated[FileSubject, Tag("file")]
    | Annotated[HttpSubject, Tag("http")]
    | Annotated[RunSubject, Tag("run")]
    | Annotated[QueueSubject, Tag("queue")]
    | Annotated[EnvSubject, Tag("env")]
    | Annotated[SqliteSubject, Tag("sqlite")]
    | Annotated[ClockSubject, Tag("clock")]
    | Annotated[OtherSubject, Tag(OTHER)],
    Discriminator(tag_of, custom_error_type="said", custom_error_message="a subject is a name, or a mapping with its `kind`"),
]

# What each gives, where that is known before it is looked at.
_GIVES: dict[str, dict[str, str]] = {
    "file": {"exists": "boolean", "size": "number", "mtime": "timestamp", "sha256": "text", "count": "number"},
    "run": {"status": "text", "age": "number", "failures": "number"},
    "queue": {"depth": "number", "dead_letters": "number"},
    "clock": {"now": "timestamp", "date": "text", "time": "text", "hour": "number", "day": "number", "weekday": "text"},
}


# The words that a text can be, where there are few.
_WORDS: dict[tuple[Any, Any], tuple[str, ...]] = {
    ("run", "status"): ("succeeded", "failed", "canceled", "missed"),
    ("clock", "weekday"): ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
}


def words_of(kind: Any, field: Any) -> tuple[str, ...]:
    """What the text of a subject can be; empty where it is any."""
    return _WORDS.get((kind, field), ())


def gives(subject: Any) -> str | None:
    """The type of what a checked subject gives: text, number, boolean or timestamp; None where only a look can tell."""
    if isinstance(subject, str):
        model = SUBJECTS.get(subject)
        return None if model is None else gives(model.model_validate({"kind": subject}))
    if isinstance(subject, EnvSubject):
        return subject.type
    if isinstance(subject, HttpSubject):
        return "number" if subject.json_path is None else None
    return _GIVES.get(getattr(subject, "kind", ""), {}).get(getattr(subject, "field", ""))
