"""http.v1 against a real server on loopback."""

import gzip
import json
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.envelope import checked
from lily.blueprints.http import KEPT_BYTES, Bindings
from lily.blueprints.http import http as http_v1
from lily.blueprints.schemas import Mismatch, validated
from lily.blueprints.testkit import FakeContext
from lily.redaction import MASK, Redactor, redacting
from tests.real.loopback import Reply, Server, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as made:
        yield made


async def ask(tmp_path: Path, **bindings: Any) -> Envelope:
    ctx = FakeContext(tmp_path)
    return checked(await http_v1.compile(Bindings.model_validate(bindings))(ctx, {}), http_v1)


async def refused(tmp_path: Path, **bindings: Any) -> BlueprintError:
    with pytest.raises(BlueprintError) as caught:
        await ask(tmp_path, **bindings)
    return caught.value


def answers(body: Any, status: int = 200, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda asked: Reply(status, headers, raw)


def encoded(encoding: str, body: bytes) -> Any:
    return lambda asked: Reply(200, {"content-encoding": encoding}, body)


def packed(body: bytes, form: str) -> bytes:
    packer = zlib.compressobj(9, wbits={"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS, "bare deflate": -zlib.MAX_WBITS}[form])
    return packer.compress(body) + packer.flush()


async def test_an_answer_that_is_as_expected_is_the_payload(server: Server, tmp_path: Path) -> None:
    server.reply = answers({"ok": True, "items": [{"n": 1.0}]}, x_kind="health")
    expect = {"status": [200, 204], "headers": {"X_Kind": "health"}, "json": {"ok": True, "items[0].n": 1}, "max_ms": 60_000}
    envelope = await ask(tmp_path, url=f"{server.url}/health?full=1", expect=expect)
    payload = envelope.payload
    assert (payload["status"], payload["truncated"], json.loads(payload["body"])["ok"]) == (200, False, True)
    assert payload["body_bytes"] == len(payload["body"])
    assert (tmp_path / "run" / "response.body").read_text() == payload["body"]
    assert server.asked[0].path == "/health?full=1"


async def test_a_body_that_is_not_text_is_sent_as_json(server: Server, tmp_path: Path) -> None:
    await ask(tmp_path, url=server.url, method="POST", body={"a": ["ü"]})
    await ask(tmp_path, url=server.url, method="PUT", body="plain", headers={"content-type": "text/x"})
    assert json.loads(server.asked[0].body) == {"a": ["ü"]}
    assert server.asked[0].headers["content-type"] == "application/json"
    assert (server.asked[1].body, server.asked[1].headers["content-type"]) == (b"plain", "text/x")


async def test_a_header_may_come_from_the_environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    envelope = await ask(tmp_path, url=server.url, headers={"Authorization": {"secret": "env:SOME_TOKEN"}})
    assert server.asked[0].headers["authorization"] == "s3cret"
    assert "s3cret" not in json.dumps(envelope.payload)
    monkeypatch.delenv("SOME_TOKEN")
    error = await refused(tmp_path, url=server.url, headers={"Authorization": {"secret": "env:SOME_TOKEN"}})
    assert error.retryable is False
    assert "SOME_TOKEN" in error.message


@pytest.mark.parametrize(
    ("expect", "named"),
    [
        ({}, "expected status 2xx, got 503"),
        ({"status": 200}, "expected status 200, got 503"),
        ({"status": [200, 204]}, "expected status 200 or 204, got 503"),
        ({"status": 503, "headers": {"X-Kind": "a"}}, "expected header X-Kind to be 'a', it is not there"),
        ({"status": 503, "json": {"ok": True}}, "expected ok to be true, got 1"),
        ({"status": 503, "json": {"a.b": 1}}, "expected a.b to be 1, nothing at a.b"),
        ({"status": 503, "max_ms": 0.0001}, "expected an answer within 0.0001 ms"),
    ],
)
async def test_what_is_not_as_expected_is_named_and_may_be_retried(expect: Any, named: str, server: Server, tmp_path: Path) -> None:
    server.reply = answers({"ok": 1}, 503)
    error = await refused(tmp_path, url=server.url, expect=expect)
    assert named in error.message
    assert error.retryable
    assert error.data["status"] == 503
    assert (tmp_path / "run" / "response.body").exists()


async def test_all_that_is_wrong_is_said_at_once(server: Server, tmp_path: Path) -> None:
    server.reply = answers(b"<html>", 500)
    error = await refused(tmp_path, url=server.url, expect={"json": {"a": 1}})
    assert len(error.data["problems"]) == 2
    assert "the body is none" in error.message


@pytest.mark.parametrize(("said", "kept"), [("90", 90), ("86400", 3600)])
async def test_a_server_that_wants_to_be_left_alone_is(server: Server, tmp_path: Path, said: str, kept: float) -> None:
    server.reply = lambda asked: Reply(429, {"Retry-After": said})
    assert (await refused(tmp_path, url=server.url)).retry_after == kept


async def test_a_huge_body_is_cut(server: Server, tmp_path: Path) -> None:
    server.reply = answers(b"x" * (8 * KEPT_BYTES))
    payload = (await ask(tmp_path, url=server.url)).payload
    assert (payload["truncated"], payload["body_bytes"]) == (True, KEPT_BYTES)
    assert (tmp_path / "run" / "response.body").stat().st_size == KEPT_BYTES
    assert "over 1 MiB" in (await refused(tmp_path, url=server.url, expect={"json": {"a": 1}})).message


@pytest.mark.parametrize("form", ["gzip", "deflate", "bare deflate"])
async def test_no_more_of_a_packed_body_is_unpacked_than_is_kept(form: str, server: Server, tmp_path: Path) -> None:
    """A server may pack it unasked, and a few bytes stand for more than the supervisor has memory."""
    server.reply = encoded(form.rpartition(" ")[2], packed(b"x" * 200 * KEPT_BYTES, form))
    tracemalloc.start()
    try:
        envelope = await ask(tmp_path, url=server.url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (envelope.payload["truncated"], envelope.payload["body_bytes"]) == (True, KEPT_BYTES)
    assert (tmp_path / "run" / "response.body").read_bytes() == b"x" * KEPT_BYTES
    assert most < 20 * KEPT_BYTES


@pytest.mark.parametrize("form", ["gzip", "deflate", "bare deflate"])
async def test_a_packed_body_is_read_all_the_same(form: str, server: Server, tmp_path: Path) -> None:
    server.reply = encoded(form.rpartition(" ")[2], packed(json.dumps({"ok": [1] * 100_000}).encode(), form))
    assert (await ask(tmp_path, url=server.url, expect={"json": {"ok[99999]": 1}})).payload["truncated"] is False


async def test_a_body_packed_twice_stays_as_it_came(server: Server, tmp_path: Path) -> None:
    """Nobody asked for it, and what it takes to unpack it knows no bounds."""
    body = gzip.compress(gzip.compress(b"hello"))
    server.reply = encoded("gzip, gzip", body)
    await ask(tmp_path, url=server.url)
    assert (tmp_path / "run" / "response.body").read_bytes() == body


async def test_a_body_that_is_not_packed_as_it_says_may_be_retried(server: Server, tmp_path: Path) -> None:
    server.reply = encoded("gzip", b"plain")
    error = await refused(tmp_path, url=server.url)
    assert (error.retryable, "got no answer: Error -3 while decompressing" in error.message) == (True, True)


async def test_what_stands_in_a_redirect_is_not_taken_into_memory(server: Server, tmp_path: Path) -> None:
    body = b" " * (50 * KEPT_BYTES)
    server.reply = lambda asked: Reply(200, body=b"there") if asked.path == "/there" else Reply(302, {"location": "/there"}, body)
    tracemalloc.start()
    try:
        envelope = await ask(tmp_path, url=server.url, follow_redirects=True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert envelope.payload["body"] == "there"
    assert most < 20 * KEPT_BYTES


async def test_redirects_are_followed_only_when_asked(server: Server, tmp_path: Path) -> None:
    server.reply = lambda asked: Reply(302, {"location": "/there"}) if asked.path == "/here" else Reply(200, {}, b"there")
    assert "got 302" in (await refused(tmp_path, url=f"{server.url}/here")).message
    payload = (await ask(tmp_path, url=f"{server.url}/here", follow_redirects=True)).payload
    assert (payload["body"], payload["url"]) == ("there", f"{server.url}/there")


async def test_a_secret_goes_to_no_other_server_that_a_redirect_leads_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no secret does, and back at the first one the secret is not sent again."""
    monkeypatch.setenv("SERVICE_KEY", "of-the-service")
    headers = {"X-Api-Key": {"secret": "env:SERVICE_KEY"}, "X-Kind": "plain"}
    with serving() as other:
        ways = {"/inside": "/out", "/out": f"{other.url}/there"}
        server.reply = lambda asked: Reply(307, {"location": ways[asked.path]}) if asked.path in ways else Reply()
        other.reply = lambda asked: Reply(307, {"location": f"{server.url}/end"})
        await ask(tmp_path, url=f"{server.url}/inside", method="POST", body="x", follow_redirects=True, headers=headers)
    assert [asked.headers.get("x-api-key") for asked in server.asked] == ["of-the-service", "of-the-service", None]
    assert [(asked.headers.get("x-api-key"), asked.headers["x-kind"], asked.body) for asked in other.asked] == [(None, "plain", b"x")]


async def test_a_circle_of_redirects_is_not_retried(server: Server, tmp_path: Path) -> None:
    """The error says that the request was sent, and where it went round."""
    server.reply = lambda asked: Reply(302, {"location": "/round"})
    error = await refused(tmp_path, url=f"{server.url}/a", follow_redirects=True)
    assert (error.message, error.retryable) == (
        f"GET {server.url}/a was redirected more than 20 times, at last to {server.url}/round",
        False,
    )


@pytest.mark.parametrize(
    ("charset", "text", "raw"),
    [
        ("latin-1", "\xe9t\xe9", b"\xe9t\xe9"),
        ('"UTF-16LE"', "\u65e5\u672c", "\u65e5\u672c".encode("utf-16le")),
        ("utf-8", "\xe9", b"\xc3\xa9"),
        ("klingon", "\xe9\ufffd", b"\xc3\xa9\xff"),
        ("base64", "\xe9", b"\xc3\xa9"),  # a codec, and none of text
        ("utf-7", "\\ud83d", b"+2D0-"),  # half a character, which no JSON can hold
    ],
)
async def test_the_body_is_told_in_the_encoding_that_the_answer_names(
    charset: str, text: str, raw: bytes, server: Server, tmp_path: Path
) -> None:
    """UTF-8 where that is none; the file has the bytes as they came."""
    server.reply = lambda asked: Reply(200, {"content-type": f"text/plain; charset={charset}"}, raw)
    assert (await ask(tmp_path, url=server.url)).payload["body"] == text
    assert (tmp_path / "run" / "response.body").read_bytes() == raw


async def test_a_secret_is_taken_out_of_a_body_in_another_encoding(server: Server, tmp_path: Path) -> None:
    server.reply = lambda asked: Reply(200, {"content-type": "text/plain; charset=latin-1"}, "so geh\xe4im-\xfcber".encode("latin-1"))
    with redacting(Redactor(["geh\xe4im-\xfcber"])):
        assert (await ask(tmp_path, url=server.url)).payload["body"] == f"so {MASK}"


async def test_a_secret_at_the_edge_of_what_is_shown_of_a_value_is_taken_out(server: Server, tmp_path: Path) -> None:
    server.reply = answers({"a": "x" * 190 + "of-the-service"})
    with redacting(Redactor(["of-the-service"])):
        error = await refused(tmp_path, url=server.url, expect={"json": {"a": 1}})
    assert "x***" in error.message
    assert "of-the" not in error.message


@pytest.mark.e2e
async def test_no_answer_may_be_retried(server: Server, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        error = await refused(tmp_path, url=f"http://me:hidden@127.0.0.1:{unused.getsockname()[1]}/x")
    assert error.retryable
    assert "got no answer" in error.message
    assert "hidden" not in error.message


async def test_a_handshake_that_fails_says_why(server: Server, tmp_path: Path) -> None:
    error = await refused(tmp_path, url=server.url.replace("http://", "https://"))
    assert error.retryable
    assert "got no answer: [SSL" in error.message


async def test_an_answer_that_breaks_off_may_be_retried(server: Server, tmp_path: Path) -> None:
    server.reply = lambda asked: Reply(200, {"content-length": "100", "connection": "close"}, b"short")
    assert (await refused(tmp_path, url=server.url)).retryable


async def test_the_attempts_own_end_ends_the_request(server: Server, tmp_path: Path) -> None:
    """A server that never answers is left when the attempt's cancel scope is."""
    asked, over = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        over.wait(30)

    server.reply = lambda request: Reply(before=hang)
    async with anyio.create_task_group() as group:
        group.start_soon(ask_quietly, tmp_path, server.url)
        await anyio.to_thread.run_sync(asked.wait)
        group.cancel_scope.cancel()
    over.set()


async def ask_quietly(tmp_path: Path, url: str) -> None:
    await ask(tmp_path, url=url)


@pytest.mark.parametrize(
    "bindings",
    [
        {"url": "ftp://example.org/x"},
        {"url": "example.org"},
        {"url": "http://"},
        {"url": "http://a b/"},
        {"url": "http://a:port/"},
        {"url": "http://a/", "method": "BREW"},
        {"url": "http://a/", "expect": {"status": 99}},
        {"url": "http://a/", "expect": {"json": {"a..b": 1}}},
        {"url": "http://a/", "expect": {"max_ms": 0}},
        {"url": "http://a/", "headers": {"X": {"secret": "the secret itself"}}},
        {"url": "http://a/", "headers": {"A B": "a"}},
        {"url": "http://a/", "headers": {"": "a"}},
        {"url": "http://a/", "headers": {"X-\xc9": "a"}},
        {"url": "http://a/", "headers": {"X": "a\r\nb: c"}},
        {"url": "http://a/", "headers": {"X": "\u2603"}},
        {"url": "http://a/", "headers": {"X": " a"}},
        {"url": "http://a/", "verify": False},
    ],
)
def test_bindings_that_can_never_work_are_refused(bindings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Bindings.model_validate(bindings)


def test_a_header_that_can_not_be_sent_is_named_and_its_value_is_not_shown() -> None:
    """It may be a token that was pasted with its line end."""
    with pytest.raises(Mismatch) as caught:
        validated(Bindings, {"url": "http://a/", "headers": {"A B": "a", "X-Token": "s3cret\n"}}, "bindings")
    assert "A B" in str(caught.value)
    assert "headers.X-Token: it can't be sent" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_header_that_can_not_be_sent_is_not_retried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is read only by the attempt."""
    for value in ("a\r\nb: c", "\u2603"):
        monkeypatch.setenv("SOME_TOKEN", value)
        error = await refused(tmp_path, url=server.url, headers={"X": {"secret": "env:SOME_TOKEN"}})
        assert (error.message[:26], error.retryable) == ("the request can't be sent:", False)
    for length in ("1", "5"):
        error = await refused(tmp_path, url=server.url, method="POST", body="abc", headers={"Content-Length": length})
        assert (error.message[:26], error.retryable) == ("the request can't be sent:", False)
