"""The subject `http`: the status of a GET, or a value in the JSON of its answer."""

import importlib
import zlib
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lily.blueprints.bodies import beginning
from lily.blueprints.contract import BlueprintError
from lily.blueprints.paths import PathMissing, lookup
from lily.blueprints.secrets import secret_text
from lily.conditions.define import Look, subject
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.http_forms import HEADER_VALUES, is_header_value
from lily.subject_specs import HttpSubject
from lily.text import cause_of, json_of

KEPT_BYTES = 1024 * 1024  # of the answer


@subject("http", summary="The status of a GET, or a value in the JSON of its answer.", params=HttpSubject, capabilities=["net.http"])
async def http(look: Look, params: HttpSubject) -> Any:
    """Redirects are not followed. A value is taken only from an answer that is 2xx; what its JSON has not is a missing value."""
    status, body = await _get(look, params)
    if params.json_path is None:
        return status
    if not 200 <= status <= 299:
        raise _failed(f"{_shown(params.url)} answered {status}")
    if len(body) > KEPT_BYTES:
        raise _failed(f"{_shown(params.url)} answered with more than {KEPT_BYTES // 1024} KiB")
    try:
        return lookup(json_of(body), params.json_path)
    except PathMissing:
        return None
    except msgspec.DecodeError as error:
        raise _failed(f"{_shown(params.url)} answered with what is no JSON: {error}") from None


async def _get(look: Look, params: HttpSubject) -> tuple[int, bytes]:
    httpx = await look.blocking(lambda stop: importlib.import_module("httpx"))
    headers = {"accept-encoding": "identity"}  # a small compressed body could unpack to a huge one
    try:
        headers |= {n.lower(): v if isinstance(v, str) else secret_text(v.secret, look.environ) for n, v in params.headers.items()}
    except BlueprintError as error:
        raise _failed(error.message) from None
    wrong = [name for name, value in headers.items() if not is_header_value(value)]
    if wrong:
        raise _failed(f"the header {wrong[0]} can't be sent: {HEADER_VALUES}")
    try:
        async with (
            httpx.AsyncClient(timeout=None, follow_redirects=False) as client,
            client.stream("GET", params.url, headers=headers) as response,
        ):
            return response.status_code, await beginning(response, KEPT_BYTES + 1) if params.json_path is not None else b""
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, zlib.error) as error:
        raise _failed(f"{_shown(params.url)} gave no answer: {cause_of(error)}") from None


def _failed(said: str) -> EvaluationError:
    return EvaluationError(EvaluationCode.EVALUATION_FAILED, said)


def _shown(url: str) -> str:
    """The URL without user, password and query, which may hold what is nobody's business."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
