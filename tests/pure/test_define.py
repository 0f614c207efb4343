"""What may be a blueprint, and what an author is told about what may not."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lily.blueprints.contract import Context, Envelope
from lily.blueprints.define import Finding, Synthesis, SynthesisRequest, blueprint, specialist, synthesizer
from lily.blueprints.envelope import checked
from lily.blueprints.testkit import FakeContext
from lily.conditions.define import subject


class Name(BaseModel):
    name: str


@blueprint("greet.v1", version="1.2.0", bindings=Name, output=Name, capabilities=["net.http"], example={"name": "Ada"})
async def greet(ctx: Context, bindings: Name, run_input: Any) -> Any:
    """Greets one person.

    More words.
    """
    return Name(name=f"hello {bindings.name}")


def test_a_function_becomes_a_blueprint_with_its_first_line_as_summary() -> None:
    assert (greet.id, greet.version, greet.summary) == ("greet.v1", "1.2.0", "Greets one person.")
    assert greet.capabilities == greet.capabilities_for(Name(name="x")) == {"net.http"}
    assert greet.example == {"name": "Ada"}
    assert greet.in_process


@pytest.mark.anyio
async def test_it_stays_callable(tmp_path: Path) -> None:
    assert await greet(FakeContext(tmp_path), Name(name="Ada")) == Name(name="hello Ada")


@pytest.mark.anyio
@pytest.mark.parametrize("payload", [{"a": 1}, None, "text", [1, 2], Name(name="x")])
async def test_a_returned_payload_becomes_an_ok_envelope(payload: Any, tmp_path: Path) -> None:
    @blueprint("any.v1")
    async def any_payload(ctx: Context, bindings: Any, run_input: Any) -> Any:
        return payload

    envelope = checked(await any_payload.compile({})(FakeContext(tmp_path), {}), any_payload)
    assert envelope.status == "ok"
    assert envelope.payload == (payload.model_dump() if isinstance(payload, Name) else payload)


@pytest.mark.anyio
async def test_a_returned_envelope_stays_as_it_is(tmp_path: Path) -> None:
    given = Envelope(status="error", payload={"message": "no"})

    @blueprint("enveloped.v1")
    async def enveloped(ctx: Context, bindings: Any, run_input: Any) -> Envelope:
        return given

    assert await enveloped.compile({})(FakeContext(tmp_path), {}) is given


async def fine(ctx: Any, bindings: Any, run_input: Any) -> None:
    """Fine."""


def plain(ctx: Any, bindings: Any, run_input: Any) -> None:
    """Would block."""


@pytest.mark.parametrize(
    ("decorator", "name"), [(blueprint, "blueprint"), (specialist, "specialist"), (synthesizer, "synthesizer"), (subject, "subject")]
)
def test_a_decorator_without_its_parentheses_is_refused(decorator: Any, name: str) -> None:
    """Else the function would be none of them, and its file would be taken for one that defines nothing."""
    with pytest.raises(TypeError, match=f'@{name} takes an id: @{name}\\("fine.v1"\\)'):
        decorator(fine)


async def generator(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Yields."""
    yield 1


async def short(ctx: Any) -> None:
    """Takes too little."""


@pytest.mark.parametrize(
    ("arguments", "body", "named"),
    [
        ({"id": "x.v1"}, plain, "async def"),
        ({"id": "x.v1"}, generator, "async def"),
        ({"id": "x.v1"}, short, "(ctx, bindings, run_input)"),
        ({"id": "Greet"}, fine, "'Greet'"),
        ({"id": "../x"}, fine, "'../x'"),
        ({"id": ""}, fine, "''"),
        ({"id": "x.v1", "version": "1.0"}, fine, "x.y.z"),
        ({"id": "x.v1", "version": 1}, fine, "x.y.z"),
        ({"id": "x.v1", "capabilities": "net.http"}, fine, "['net.http']"),
        ({"id": "x.v1", "capabilities": ["Net Http"]}, fine, "'Net Http'"),
        ({"id": "x.v1", "bindings": {"type": "object"}}, fine, "pydantic model class"),
        ({"id": "x.v1", "output": Name(name="x")}, fine, "pydantic model class"),
        ({"id": "x.v1", "example": {"at": [date(2026, 5, 4)]}}, fine, "example.at[0]: date is not plain JSON; give text"),
        ({"id": "x.v1", "example": {"names": {"Ada"}}}, fine, "example.names: set is not plain JSON"),
        ({"id": "x.v1", "example": {"in": Path("/tmp")}}, fine, "example.in: PosixPath is not plain JSON"),
        ({"id": "x.v1", "example": {"share": float("nan")}}, fine, "example.share: nan is not a JSON number"),
    ],
)
def test_what_can_be_no_blueprint_is_refused_where_it_is_defined(arguments: dict[str, Any], body: Any, named: str) -> None:
    """At definition, because the author sees it there, and not at night in a run."""
    with pytest.raises((TypeError, ValueError)) as caught:
        blueprint(**arguments)(body)
    assert named in str(caught.value)


def test_an_object_with_an_async_call_is_a_body_too() -> None:
    class Body:
        async def __call__(self, ctx: Any, bindings: Any, run_input: Any) -> int:
            return 1

    assert blueprint("object.v1")(Body()).id == "object.v1"


@pytest.mark.anyio
async def test_specialists_and_synthesizers_are_made_the_same_way(tmp_path: Path) -> None:
    @specialist("taste.v1")
    async def taste(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
        """Tastes."""
        return [Finding(title=topic, recommendation="eat", confidence=1)]

    @synthesizer("brief.v1", kind="llm")
    async def brief(ctx: Context, request: SynthesisRequest) -> Synthesis:
        """Says little."""
        return Synthesis(summary="", ranked_findings=request.findings)

    assert (taste.summary, brief.summary, brief.kind) == ("Tastes.", "Says little.", "llm")
    found = await taste(FakeContext(tmp_path), "soup", [])
    request = SynthesisRequest(topic="soup", context=[], findings=[], max_findings=1)
    assert len(found) == 1
    assert (await brief(FakeContext(tmp_path), request)).ranked_findings == []


def test_a_plain_specialist_is_refused() -> None:
    with pytest.raises(TypeError, match="async def"):
        specialist("taste.v1")(plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"\(ctx, request\)"):
        synthesizer("brief.v1")(fine)  # type: ignore[arg-type]
