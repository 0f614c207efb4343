"""openai.v1 against a stub of the API on loopback: what is sent, and what becomes of each kind of answer."""

import builtins
import gzip
import importlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.council import Bindings, Input
from lily.blueprints.envelope import checked
from lily.blueprints.llm import understood
from lily.blueprints.registry import Registry
from lily.blueprints.secrets import secret_text
from lily.blueprints.testkit import FakeContext
from lily.errors import Code
from lily.redaction import Redactor, redacting
from tests.real.loopback import Reply, Server, serving

pytest.importorskip("openai", reason="the extra llm is not installed")
pytestmark = pytest.mark.anyio
TOPIC = Input(topic="Move the login page", context=["the api key is hard-coded"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STUB_KEY", "k3y")
    with serving() as made:
        (tmp_path / ".lily").mkdir()
        (tmp_path / ".lily" / "config.yaml").write_text(
            f'llm:\n  base_url: "{made.url}/v1"\n  model: stub-1\n  api_key: {{secret: "env:STUB_KEY"}}\n'
        )
        yield made


def says(text: str) -> Any:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "stub-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }
    return lambda asked: Reply(200, {"content-type": "application/json"}, json.dumps(body).encode())


async def council(tmp_path: Path, **bindings: Any) -> Envelope:
    found = Registry().resolve("council.v1")
    chosen = Bindings.model_validate({"synth_strategy": "llm", **bindings})
    return checked(await found.compile(chosen)(FakeContext(tmp_path), TOPIC), found)


async def test_the_model_words_the_summary_and_orders_the_findings(server: Server, tmp_path: Path) -> None:
    """Numbers that stand for no finding are left out; a code fence around the answer does not matter."""
    server.reply = says('```json\n{"summary": "Keys first.", "order": [3, 1, 99, 3]}\n```')
    payload = (await council(tmp_path)).payload
    (asked,) = server.asked
    sent = json.loads(asked.body)
    assert (asked.path, sent["model"], asked.headers["authorization"]) == ("/v1/chat/completions", "stub-1", "Bearer k3y")
    numbered = json.loads(sent["messages"][1]["content"])["findings"]
    assert payload["summary"] == "Keys first."
    assert [one["title"] for one in payload["ranked_findings"]] == [numbered[2]["title"], numbered[0]["title"]]
    assert payload["fallback_used"] is False


async def test_the_bindings_come_before_the_settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    server.reply = says('{"summary": "x", "order": [1]}')
    await council(tmp_path, llm={"model": "stub-2", "base_url": f"{server.url}/v2", "api_key": {"secret": "env:OTHER_KEY"}})
    (asked,) = server.asked
    assert (asked.path, json.loads(asked.body)["model"]) == ("/v2/chat/completions", "stub-2")
    assert asked.headers["authorization"] == "Bearer other"


@pytest.mark.parametrize(
    "text", ["I can't.", '{"summary": "x"}', '{"summary": "x", "order": [99]}', '{"summary": " ", "order": [1]}', "{" * 999]
)
async def test_an_answer_that_is_not_what_was_asked_for_fails(text: str, server: Server, tmp_path: Path) -> None:
    server.reply = says(text)
    with pytest.raises(BlueprintError) as caught:
        await council(tmp_path)
    assert (caught.value.code, caught.value.retryable) == (Code.LLM_SYNTH_FAILED, True)
    payload = (await council(tmp_path, synth_strategy="llm_with_fallback")).payload
    assert payload["fallback_used"] is True
    assert payload["ranked_findings"]


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "wait"),
    [
        (429, {"retry-after": "9"}, True, 9.0),
        (503, {}, True, None),
        (401, {}, False, None),
        (404, {}, False, None),
        (400, {}, False, None),
    ],
)
async def test_a_refusal_is_retried_only_when_it_may_pass(
    status: int, headers: dict[str, str], retryable: bool, wait: float | None, server: Server, tmp_path: Path
) -> None:
    """And once a try: the client's own retries would hide them from the receipt."""
    server.reply = lambda asked: Reply(status, {"content-type": "application/json", **headers}, b'{"error": {"message": "no"}}')
    with pytest.raises(BlueprintError) as caught:
        await council(tmp_path)
    assert (caught.value.code, caught.value.retryable, caught.value.retry_after) == (Code.LLM_SYNTH_FAILED, retryable, wait)
    assert str(status) in caught.value.message
    assert "k3y" not in caught.value.message
    assert len(server.asked) == 1


async def test_a_model_that_takes_no_temperature_is_asked_without(server: Server, tmp_path: Path) -> None:
    def reply(asked: Any) -> Any:
        if "temperature" not in json.loads(asked.body):
            return says('{"summary": "Keys first.", "order": [1]}')(asked)
        message = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
        return Reply(
            400, {"content-type": "application/json"}, json.dumps({"error": {"message": message, "param": "temperature"}}).encode()
        )

    server.reply = reply
    assert (await council(tmp_path)).payload["summary"] == "Keys first."
    assert [json.loads(asked.body).get("temperature") for asked in server.asked] == [0, None]


@pytest.mark.parametrize("choices", ["[]", "null", "[null]", '{"a": 1}', '[{"message": null}]', '[{"message": {"content": [1]}}]'])
async def test_an_answer_without_choices_fails(choices: str, server: Server, tmp_path: Path) -> None:
    server.reply = lambda asked: Reply(200, {"content-type": "application/json"}, f'{{"choices": {choices}}}'.encode())
    with pytest.raises(BlueprintError, match="without text"):
        await council(tmp_path)


async def test_an_answer_that_is_no_json_names_who_gave_it(server: Server, tmp_path: Path) -> None:
    """A proxy's page, say, under the type that was asked for."""
    server.reply = lambda asked: Reply(200, {"content-type": "application/json"}, b"<html>log in</html>")
    with pytest.raises(BlueprintError, match=f"{server.url}/v1 answered with what is no JSON") as caught:
        await council(tmp_path)
    assert caught.value.code == "llm_synth_failed"


async def test_what_is_not_set_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_KEY")
    with pytest.raises(BlueprintError, match="STUB_KEY") as caught:
        await council(tmp_path)
    assert caught.value.retryable is False
    (tmp_path / ".lily" / "config.yaml").unlink()
    with pytest.raises(BlueprintError, match=r"llm\.model") as caught:
        await council(tmp_path)
    assert caught.value.retryable is False
    assert not server.asked


@pytest.mark.parametrize("key", ["", "of-the-service\n", "of-the-s\xe9rvice"])
async def test_a_key_that_can_never_be_sent_is_named_by_its_place(
    key: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_KEY", key)
    with pytest.raises(BlueprintError, match="the key at env:STUB_KEY can't be sent: ") as caught:
        await council(tmp_path)
    assert caught.value.retryable is False
    assert "of-the" not in caught.value.message
    assert not server.asked


@pytest.mark.parametrize("url", ["api.example/v1", "http://me:hunter2@a:x/v1", "ftp://a/v1", "http://[::1/v1"])
async def test_an_address_that_is_none_is_not_tried_again(url: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(BlueprintError, match=r"llm\.base_url can't be used: ") as caught:
        await council(tmp_path, llm={"base_url": url})
    assert caught.value.retryable is False
    assert "hunter2" not in caught.value.message


async def test_a_key_may_stand_in_a_file(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-file\n")
    config = tmp_path / ".lily" / "config.yaml"
    config.write_text(config.read_text().replace("env:STUB_KEY", f"file:{key}"))
    server.reply = says('{"summary": "x", "order": [1]}')
    await council(tmp_path)
    assert server.asked[0].headers["authorization"] == "Bearer from-file"
    key.unlink()
    with pytest.raises(BlueprintError, match="can't be read"):
        await council(tmp_path)


async def test_without_the_package_the_message_says_how_to_get_it(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        raise builtins.ImportError(name) if name == "openai" else AssertionError(name)

    Registry().synthesizer("openai.v1")  # loaded before the door closes
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name, package=None: missing(name) if name == "openai" else real(name, package))
    with pytest.raises(BlueprintError, match=r"pip install 'lily-jobs\[llm\]'") as caught:
        await council(tmp_path)
    assert caught.value.retryable is False


async def test_a_service_that_is_not_there_is_told_with_what_kept_it_from_answering(server: Server, tmp_path: Path) -> None:
    """And without the password that stands in its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BlueprintError) as caught:
        await council(tmp_path, llm={"base_url": f"http://me:hunter2@127.0.0.1:{port}/v1"})
    assert f"http://me:***@127.0.0.1:{port}/v1 gave no answer: " in caught.value.message
    assert f"127.0.0.1:{port} failed" in caught.value.message
    assert caught.value.retryable is True


async def test_a_service_that_only_keeps_the_connection_alive_is_given_up_in_time(server: Server, tmp_path: Path) -> None:
    """As some do while a model thinks: with a blank now and then, which is not silence."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
            try:
                while not over.wait(0.02):
                    connection.sendall(b" ")
            except OSError:
                over.set()  # it was given up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            llm = {"base_url": f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "timeout_seconds": 0.3}
            payload = (await council(tmp_path, synth_strategy="llm_with_fallback", llm=llm)).payload
            assert payload["fallback_used"] is True
            assert "gave no answer within 0.3 s" in json.loads((tmp_path / "run" / "evidence.json").read_bytes())["llm_error"]
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()  # where a busy machine gave up before it asked
            thread.join()


async def test_an_answer_without_end_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    """All of it would stand in the supervisor's memory."""
    server.reply = lambda asked: Reply(200, {"content-type": "application/json"}, b" " * (40 * 1024 * 1024))
    with pytest.raises(BlueprintError, match="answered with more than 8 MiB") as caught:
        await council(tmp_path)
    assert caught.value.code == Code.LLM_SYNTH_FAILED
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_a_packed_answer_is_not_unpacked_to_its_end(server: Server, tmp_path: Path) -> None:
    """A proxy may pack it unasked, and few bytes stand for more than the supervisor has memory."""
    packed = gzip.compress(b" " * (200 * 1024 * 1024))
    server.reply = lambda asked: Reply(200, {"content-type": "application/json", "content-encoding": "gzip"}, packed)
    with pytest.raises(BlueprintError, match="answered with more than 8 MiB"):
        await council(tmp_path)


async def test_a_packed_answer_is_understood(server: Server, tmp_path: Path) -> None:
    def reply(asked: Any) -> Reply:
        plain = says('{"summary": "Keys first.", "order": [1]}')(asked)
        return Reply(200, {**plain.headers, "content-encoding": "gzip"}, gzip.compress(plain.body))

    server.reply = reply
    assert (await council(tmp_path)).payload["summary"] == "Keys first."


async def test_an_answer_that_is_not_packed_as_it_says_names_who_gave_it(server: Server, tmp_path: Path) -> None:
    server.reply = lambda asked: Reply(200, {"content-type": "application/json", "content-encoding": "gzip"}, b"plain")
    with pytest.raises(BlueprintError, match=r"/v1 answered with what is no JSON: Error -3 while decompressing"):
        await council(tmp_path)


async def test_a_key_that_the_service_repeats_stands_in_no_file_of_the_council(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_KEY", "sk_of-the/service")
    redactor = Redactor(["nothing-of-it"])
    body = b'{"error": {"message": "wrong key: sk_of-the/service"}}'
    server.reply = lambda asked: Reply(401, {"content-type": "application/json"}, body)
    with redacting(redactor):
        await council(tmp_path, synth_strategy="llm_with_fallback")
    assert b"wrong key: ***" in (tmp_path / "run" / "evidence.json").read_bytes()
    server.reply = says('{"summary": "With sk_of-the/service I found this.", "order": [1]}')
    with redacting(redactor):
        await council(tmp_path)
    assert "With \\*\\*\\* I found this." in (tmp_path / "run" / "report.md").read_text()
    assert not [file for file in (tmp_path / "run").iterdir() if b"of-the" in file.read_bytes()]


async def test_a_key_at_the_edge_of_what_is_shown_of_an_answer_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sk_of-the/service")
    with pytest.raises(BlueprintError) as caught, redacting(Redactor(["nothing-of-it"])):
        understood("x" * 490 + secret_text("env:STUB_KEY"), 1)
    assert caught.value.data["answer"] == "x" * 490 + "***"
