"""http.v1: one HTTP request, and what is expected of the answer."""

import importlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import anyio
import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from lily.blueprints.bodies import beginning, without_bodies_of_redirects
from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable
from lily.blueprints.define import BlueprintBase
from lily.blueprints.paths import PathMissing, lookup, parse_path, same
from lily.blueprints.schemas import UNSHOWN, one_line
from lily.blueprints.secrets import Value, revealed
from lily.http_forms import HEADER_NAMES, HEADER_VALUES, asked_pause, is_header_name, is_header_value, wrong_url
from lily.offload import in_thread
from lily.redaction import here
from lily.text import cause_of, encodable

KEPT_BYTES = 1024 * 1024  # of the body; what is over is not read
_EXCERPT = 2000
_LONGEST_PAUSE = 3600.0  # seconds that a server is left alone on its word: windows of a check are skipped meanwhile


def _name(given: str) -> str:
    if not is_header_name(given):
        raise ValueError(f"no header can have this name: {HEADER_NAMES}")
    return given


def _value(given: Value) -> Value:
    if isinstance(given, str) and not is_header_value(given):  # not shown: it may be a token that somebody pasted
        raise PydanticCustomError(UNSHOWN, f"it can't be sent: {HEADER_VALUES}")
    return given


StatusCode = Annotated[int, Field(ge=100, le=599)]
Name = Annotated[str, AfterValidator(_name)]
HeaderValue = Annotated[Value, AfterValidator(_value)]


class Expect(BaseModel):
    """What the answer must be. Without `status`, any 2xx will do."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    status: StatusCode | list[StatusCode] | None = None
    headers: dict[str, str] = {}
    json_paths: dict[str, JsonValue] = Field({}, alias="json", description="path (a.b[0].c) to the value expected there")
    max_ms: Annotated[float, Field(gt=0)] | None = None

    @field_validator("json_paths")
    @classmethod
    def _paths(cls, given: dict[str, Any]) -> dict[str, Any]:
        for path in given:
            parse_path(path)
        return given


class Bindings(BaseModel):
    """The request. A `body` that is not text is sent as JSON; header values may be `{secret: env:NAME}` or `{secret: file:PATH}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[Name, HeaderValue] = {}
    body: JsonValue = None
    expect: Expect = Expect()
    follow_redirects: bool = False

    @field_validator("url")
    @classmethod
    def _http(cls, given: str) -> str:
        wrong = wrong_url(given)
        if wrong:
            raise ValueError(wrong)
        return given


class Answer(BaseModel):
    """The payload: what came back."""

    url: str
    status: int
    headers: dict[str, str]
    elapsed_ms: float
    body_bytes: int
    truncated: bool
    body: str


class Http(BlueprintBase):
    """Sends the request and checks the answer; the body stays in `response.body`."""

    id = "http.v1"
    summary = "Send one HTTP request and check the answer."
    bindings_schema = Bindings
    output_schema = Answer
    capabilities = frozenset({"net.http"})
    example: Mapping[str, Any] = {"url": "http://127.0.0.1:8000/", "expect": {"status": 200, "max_ms": 2000}}

    def compile(self, bindings: Bindings) -> Runnable:
        """The request, ready to be sent once an attempt."""

        async def run(ctx: Context, run_input: Any, /) -> Envelope:
            answer, body = await _send(bindings, ctx.workspace)
            with ctx.artifact("response.body") as file:
                file.write(here().raw(body, cut=answer.truncated))
            wrong = _unmet(bindings.expect, answer, body)
            if wrong:
                raise BlueprintError(
                    f"{bindings.method} {_shown(bindings.url)}: {'; '.join(wrong)}",
                    retry_after=min(asked_pause(answer.headers), _LONGEST_PAUSE) or None,
                    status=answer.status,
                    elapsed_ms=answer.elapsed_ms,
                    problems=wrong[:20],
                    body=answer.body[:500],
                )
            return Envelope(payload=answer, artifacts=["response.body"])

        return run


async def _send(bindings: Bindings, base: Path) -> tuple[Answer, bytes]:
    """The answer and the first KEPT_BYTES of its body, which may hold secrets. The attempt's timeout is the only one."""
    httpx = await in_thread(importlib.import_module, "httpx")
    headers = {"accept-encoding": "identity"}  # a small compressed body could unpack to a huge one
    headers |= {name.lower(): revealed(value, base=base) for name, value in bindings.headers.items()}
    content = _content(bindings.body, headers)
    _check_length(headers, len(content or b""))
    started = anyio.current_time()
    try:
        hooks = {"request": [_without_secrets_elsewhere(httpx.URL(bindings.url), bindings.headers)], "response": list[Any]()}
        if bindings.follow_redirects:
            hooks["response"].append(without_bodies_of_redirects(httpx))
        async with (
            httpx.AsyncClient(timeout=None, follow_redirects=bindings.follow_redirects, event_hooks=hooks) as client,
            client.stream(bindings.method, bindings.url, headers=headers, content=content) as response,
        ):
            body = await beginning(response, KEPT_BYTES + 1)
            elapsed = (anyio.current_time() - started) * 1000
    except httpx.TooManyRedirects as error:
        said = f"{bindings.method} {_shown(bindings.url)} was redirected more than {client.max_redirects} times"
        raise BlueprintError(f"{said}, at last to {_shown(str(error.request.url))}", retryable=False) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, ValueError) as error:
        raise BlueprintError(f"the request can't be sent: {one_line(str(error)) or type(error).__name__}", retryable=False) from error
    except (httpx.HTTPError, OSError, zlib.error) as error:
        raise BlueprintError(
            f"{bindings.method} {_shown(bindings.url)} got no answer: {cause_of(error)}", reason=type(error).__name__
        ) from error
    answer = Answer(
        url=_shown(str(response.url)),
        status=response.status_code,
        headers=dict(response.headers),
        elapsed_ms=round(elapsed, 3),
        body_bytes=len(body[:KEPT_BYTES]),
        truncated=len(body) > KEPT_BYTES,
        body=_excerpt(body[:KEPT_BYTES], response.encoding),
    )
    return answer, body[:KEPT_BYTES]


def _without_secrets_elsewhere(home: Any, headers: Mapping[str, Value]) -> Any:
    """A hook for each request that is sent: a server that redirects to another one must not get our secrets. Of headers the library
    takes only Authorization and Cookie out."""
    secret = [name for name, value in headers.items() if not isinstance(value, str)]

    async def hook(request: Any) -> None:
        url = request.url
        moved_to_tls = (home.scheme, home.port, url.scheme, url.port) == ("http", None, "https", None)
        if url.host != home.host or not (moved_to_tls or (url.scheme, url.port) == (home.scheme, home.port)):
            for name in secret:
                request.headers.pop(name, None)

    return hook


def _excerpt(body: bytes, encoding: str) -> str:
    """The beginning as text. Redacted as text as well: in another encoding than UTF-8 a secret has other bytes."""
    redactor = here()
    text = _decoded(redactor.raw(body[: _EXCERPT + redactor.reach], cut=True)[:_EXCERPT], encoding)
    return redactor.raw(text.encode(), cut=True).decode(errors="replace")


def _decoded(data: bytes, encoding: str) -> str:
    """By the encoding that the answer names, unless it is none of text."""
    try:
        return encodable(data.decode(encoding, "replace"))
    except (LookupError, ValueError):
        return data.decode(errors="replace")


def _content(body: Any, headers: dict[str, str]) -> bytes | None:
    if body is None or isinstance(body, str):
        return body.encode() if body is not None else None
    headers.setdefault("content-type", "application/json")
    return msgspec.json.encode(body)


def _check_length(headers: Mapping[str, str], length: int) -> None:
    """Raises BlueprintError for a Content-Length that is not the body's: the library would find it in the middle of sending."""
    said = headers.get("content-length", str(length)).strip()
    if said != str(length):
        message = f"the request can't be sent: Content-Length is not {length}, which is what its body has; leave it out"
        raise BlueprintError(message, retryable=False)


def _unmet(expect: Expect, answer: Answer, body: bytes) -> list[str]:
    """What the answer lacks, each as one clause."""
    wrong = []
    wanted = [expect.status] if isinstance(expect.status, int) else expect.status
    if not (answer.status in wanted if wanted is not None else 200 <= answer.status < 300):
        named = " or ".join(map(str, wanted)) if wanted is not None else "2xx"
        wrong.append(f"expected status {named}, got {answer.status}")
    if expect.max_ms is not None and answer.elapsed_ms > expect.max_ms:
        wrong.append(f"expected an answer within {expect.max_ms:g} ms, got it after {answer.elapsed_ms:g} ms")
    for name, value in expect.headers.items():
        got = answer.headers.get(name.lower())
        if got != value:
            wrong.append(f"expected header {name} to be {value!r}, {'it is not there' if got is None else f'got {got!r}'}")
    return wrong + (_unmet_json(expect.json_paths, answer, body) if expect.json_paths else [])


def _unmet_json(paths: Mapping[str, Any], answer: Answer, body: bytes) -> list[str]:
    if answer.truncated:
        return [f"expected JSON, and the body is over {KEPT_BYTES // 1024 // 1024} MiB"]
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [f"expected JSON, and the body is none: {error}"]
    wrong = []
    for path, wanted in paths.items():
        try:
            got = lookup(value, path)
        except PathMissing as error:
            wrong.append(f"expected {path} to be {_brief(wanted)}, {error}")
            continue
        if not same(got, wanted):
            wrong.append(f"expected {path} to be {_brief(wanted)}, got {_brief(got)}")
    return wrong


def _brief(value: Any) -> str:
    return one_line(here().text(msgspec.json.encode(value).decode()), 200)  # before it is cut: half a secret would not be known


def _shown(url: str) -> str:
    """The URL without the user and password that may stand in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


http = Http()
