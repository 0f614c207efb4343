"""Each kind of sink against what it really speaks to: a web server, a mail server, programs, files, Apprise."""

import json
import os
import re
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from lily.alerts.decide import Kind
from lily.alerts.errors import SinkError
from lily.alerts.message import Message, command_for, written
from lily.alerts.sending import Sender
from lily.alerts.terms import Sink, sink_of, wrongs_with
from lily.clock import SystemClock
from lily.engines.process_table import scan
from lily.log import SilentLog, StreamLog
from tests.real.loopback import Asked, Reply, serving
from tests.real.mail_server import certificate, mail_server

pytestmark = pytest.mark.anyio

MESSAGE = written(
    Message(
        alert="A7",
        kind=Kind.FAILING,
        job_id="nightly",
        run_id="20260504T041500.123456Z-k3f9",
        trace_id="t" * 32,
        failures=3,
        since="2026-05-04T04:15:00.000000Z",
        code="job_execution_failed",
        message="sh exited with 3 – é",
        raised_at="2026-05-04T04:15:01.000000Z",
        host="box",
        workspace="/srv/a",
        command=command_for(Kind.FAILING, "20260504T041500.123456Z-k3f9", "/srv/a"),
    )
)


def sink(kind: str, **given: Any) -> Sink:
    """As the settings would have it."""
    assert list(wrongs_with("a", {"kind": kind, **given})) == []
    return sink_of({"kind": kind, "timeout_seconds": 10, **given})


async def sent(root: Path, to: Sink, message: Message = MESSAGE) -> str:
    return await Sender(root, SilentLog()).send(to, message)


async def refused(root: Path, to: Sink) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sent(root, to)
    assert "\n" not in str(caught.value)
    return caught.value


# -- webhook ---------------------------------------------------------------------------------------


async def test_a_webhook_gets_the_message_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With headers of the user's, secrets among them, and a key by which the receiver can tell it came twice."""
    monkeypatch.setenv("HOOK_TOKEN", "s3cret-token")
    with serving() as server:
        to = sink("webhook", url=f"{server.url}/hook?a=1", headers={"Authorization": {"secret": "env:HOOK_TOKEN"}, "X-Team": "ops"})
        assert await sent(tmp_path, to) == ""
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/hook?a=1")
    body = json.loads(asked.body)
    assert (body["job_id"], body["failures"], body["text"]) == ("nightly", 3, MESSAGE.text)
    assert (asked.headers["authorization"], asked.headers["x-team"]) == ("s3cret-token", "ops")
    assert asked.headers["idempotency-key"] == "A7-2026-05-04T04:15:01.000000Z"
    assert asked.headers["content-type"] == "application/json"


async def test_a_header_of_the_users_takes_the_place_of_lilys_own_whatever_its_case(tmp_path: Path) -> None:
    """It is sent once: what a server makes of two is its own affair."""
    with serving() as server:
        await sent(tmp_path, sink("webhook", url=server.url, headers={"content-type": "application/x-own", "USER-AGENT": "me"}))
    (asked,) = server.asked
    assert (asked.headers["content-type"], asked.headers["user-agent"]) == ("application/x-own", "me")
    assert (asked.names.count("content-type"), asked.names.count("user-agent")) == (1, 1)


@pytest.mark.parametrize(("status", "says"), [(500, "500 Internal Server Error"), (404, "404 Not Found"), (302, "302 Found"), (429, "429")])
async def test_any_answer_but_a_yes_is_a_failure(tmp_path: Path, status: int, says: str) -> None:
    """A redirect is not followed; a wish to be left alone is kept; the address is shown without its secret part."""
    with serving() as server:
        server.reply = lambda asked: Reply(status, headers={"Location": "http://127.0.0.1:9/x", "Retry-After": "90"})
        error = await refused(tmp_path, sink("webhook", url=f"{server.url}/T0/token"))
    assert (len(server.asked), error.retry_after) == (1, 90)
    assert says in str(error)
    assert "token" not in str(error)


async def test_a_webhook_that_nobody_serves_or_that_hangs_fails_in_time(tmp_path: Path) -> None:
    held = threading.Event()
    with serving() as server:
        server.reply = lambda asked: Reply(before=lambda: held.wait(20))
        error = await refused(tmp_path, sink("webhook", url=server.url, timeout_seconds=0.3))
        held.set()
    assert re.search("no answer within 0.3 s|ReadTimeout", str(error))
    assert "can't be reached: ConnectError" in str(await refused(tmp_path, sink("webhook", url="http://127.0.0.1:9/x")))


async def test_a_webhook_whose_tls_fails_says_what_was_wrong_with_it(tmp_path: Path) -> None:
    """The library's own error has no words for it."""
    with serving() as server:
        error = await refused(tmp_path, sink("webhook", url=server.url.replace("http:", "https:") + "/T0"))
    assert re.search(r"can't be reached: ConnectError: .*SSL", str(error))


@pytest.mark.parametrize("token", ["größe-sesame", "ses\name", "sesame "])
async def test_a_secret_that_no_header_can_hold_is_named_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Nothing is sent, and nothing of it is told."""
    monkeypatch.setenv("TOKEN", token)
    with serving() as server:
        error = await refused(tmp_path, sink("webhook", url=server.url, headers={"X-Token": {"secret": "env:TOKEN"}}))
    assert str(error).startswith("the header X-Token can't be sent: ASCII characters")
    assert server.asked == []


async def test_an_address_that_is_a_secret_is_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/T0/B0/sesame")
    to = sink("webhook", url={"secret": "env:HOOK"})
    assert "sesame" not in str(await refused(tmp_path, to))
    monkeypatch.setenv("HOOK", "http://[bad/sesame")
    assert "sesame" not in str(await refused(tmp_path, to))
    monkeypatch.setenv("HOOK", "http://[::1sesame")
    assert str(await refused(tmp_path, to)) == "*** is no URL such as https://host/path"
    monkeypatch.setenv("HOOK", "h.example/T0\nB0/sesame")  # pasted without its beginning, over two lines
    assert "sesame" not in str(await refused(tmp_path, to))
    monkeypatch.delenv("HOOK")
    assert "HOOK is not set" in str(await refused(tmp_path, to))


# -- mail ------------------------------------------------------------------------------------------


def mail(port: int, **given: Any) -> Sink:
    return sink(
        "email", **{"host": "localhost", "port": port, "from": "lily@box.example", "to": ["ann@x.example", "bob@x.example"], **given}
    )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


async def test_a_mail_is_sent_without_tls_where_that_is_said(tmp_path: Path) -> None:
    """Subject, text, date and an id that is the same when it is sent again."""
    with mail_server() as server:
        assert await sent(tmp_path, mail(server.port, tls="none")) == ""
        await sent(tmp_path, mail(server.port, tls="none"))
    first, second = server.mails
    assert first["Subject"] == "[lily] job nightly failed 3 times in a row: job_execution_failed"
    assert (first["From"], first["To"]) == ("lily@box.example", "ann@x.example, bob@x.example")
    assert first.get_content().replace("\r\n", "\n") == MESSAGE.text
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Message-ID"].endswith("@box.example>")
    assert server.recipients[0] == ["ann@x.example", "bob@x.example"]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while:UserWarning")  # the server's, of logins where TLS came first
@pytest.mark.parametrize("kind", ["starttls", "tls"])
async def test_a_mail_goes_over_tls_with_a_login(
    tmp_path: Path, tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The password is read from where the settings say; one that is wrong is an error without it, and sends nothing."""
    (tmp_path / "password").write_text("open sesame\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
    with mail_server(tls=tls, at_once=kind == "tls", login=("lily", "open sesame")) as server:
        to = mail(server.port, tls=kind, username="lily", password={"secret": f"file:{tmp_path}/password"})
        assert await sent(tmp_path, to) == ""
        (tmp_path / "password").write_text("open barley\n")
        error = await refused(tmp_path, to)
    assert (server.logins, server.encrypted, len(server.mails)) == (["lily"], [True], 1)
    assert "said 535" in str(error)
    assert "barley" not in str(error)


@pytest.mark.parametrize("kind", ["starttls", "tls"])
async def test_a_server_that_nobody_vouches_for_gets_nothing(tmp_path: Path, tls: tuple[Path, Path], kind: str) -> None:
    with mail_server(tls=tls, at_once=kind == "tls") as server:
        error = await refused(tmp_path, mail(server.port, tls=kind))
    assert "no TLS that can be trusted" in str(error)
    assert server.mails == []


async def test_a_server_without_starttls_gets_nothing_where_it_was_wanted(tmp_path: Path) -> None:
    with mail_server() as server:
        error = await refused(tmp_path, mail(server.port))
    assert "STARTTLS" in str(error)
    assert server.mails == []


async def test_recipients_that_are_refused_are_said(tmp_path: Path) -> None:
    """One of two: the mail is sent, and the remark names the other. All: nobody has it."""
    with mail_server() as server:
        server.refuses = {"bob@x.example"}
        assert await sent(tmp_path, mail(server.port, tls="none")) == "not taken for bob@x.example: 550 no such user"
        server.refuses = {"ann@x.example", "bob@x.example"}
        assert "takes mail for none of them" in str(await refused(tmp_path, mail(server.port, tls="none")))
    assert len(server.mails) == 1


async def test_a_mail_server_that_is_not_there_or_never_greets_fails_in_time(tmp_path: Path) -> None:
    assert "can't be used: ConnectionRefusedError" in str(await refused(tmp_path, mail(9, tls="none", host="127.0.0.1")))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = anyio.current_time()
        error = await refused(tmp_path, mail(silent.getsockname()[1], tls="none", host="127.0.0.1", timeout_seconds=0.3))
        assert anyio.current_time() - began < 5
    assert re.search("no answer within 0.3 s|timed out", str(error))


# -- command ---------------------------------------------------------------------------------------


async def test_a_program_gets_the_message_on_stdin(tmp_path: Path) -> None:
    """It runs in the workspace; one that does not read it is fine too."""
    await sent(tmp_path, sink("command", argv=["sh", "-c", "cat > got.json"]))
    assert json.loads((tmp_path / "got.json").read_text())["job_id"] == "nightly"
    assert await sent(tmp_path, sink("command", argv=["true"])) == ""


async def test_a_program_that_fails_says_why_without_secrets(tmp_path: Path) -> None:
    error = await refused(tmp_path, sink("command", argv=["sh", "-c", "echo 'no pager: token=abcd1234' >&2; exit 4"]))
    assert str(error) == "sh ended with 4: no pager: token=***"
    assert "nothing-here can't be started: No such file" in str(await refused(tmp_path, sink("command", argv=["nothing-here"])))
    assert "was ended by signal 9" in str(await refused(tmp_path, sink("command", argv=["sh", "-c", "kill -9 $$"])))


async def test_what_a_sink_says_holds_no_secret_of_the_settings_either(tmp_path: Path) -> None:
    """A program finds in its environment those of other sinks, and what it says is stored; half of one at the end of it would stay."""
    to = sink("command", argv=["sh", "-c", "printf '%0480d' 0 >&2; echo my-own-of-others >&2; exit 4"])
    with pytest.raises(SinkError) as caught:
        await Sender(tmp_path, SilentLog(), lambda: ["my-own-of-others"]).send(to, MESSAGE)
    assert str(caught.value).endswith("000***")
    with mail_server() as server:
        server.refuses = {"bob@x.example"}
        said = await Sender(tmp_path, SilentLog(), lambda: ["no such user"]).send(mail(server.port, tls="none"), MESSAGE)
    assert said == "not taken for bob@x.example: 550 ***"


def sleepers(mark: str) -> list[int]:
    found = []
    for pid in scan():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(int(pid))
    return found


@pytest.mark.parametrize("script", ["sleep {0} & sleep {0}", "sleep {0} & exit 0", "sleep {0} & exit 3"])
@pytest.mark.e2e
async def test_nothing_of_a_program_is_left(tmp_path: Path, script: str) -> None:
    """Its group is ended when its time is up, and when it has ended and left something."""
    mark = f"9{os.getpid()}"
    to = sink("command", argv=["sh", "-c", script.format(mark)], timeout_seconds=1)
    if "exit 0" in script:
        await sent(tmp_path, to)
    else:
        error = str(await refused(tmp_path, to))
        assert error == ("sh ended with 3" if "exit 3" in script else "no answer within 1 s")
    with anyio.fail_after(5):
        while sleepers(mark):  # noqa: ASYNC110 - processes tell nobody of their end
            await anyio.sleep(0.01)


# -- records ---------------------------------------------------------------------------------------


async def test_a_file_gets_a_line_each_and_is_the_users_alone(tmp_path: Path) -> None:
    """A line that a crash has torn spoils no other."""
    to = sink("file", path="alerts.jsonl")
    await sent(tmp_path, to)
    with (tmp_path / "alerts.jsonl").open("a") as file:
        file.write('{"torn')
    await sent(tmp_path, to)
    first, torn, last = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert json.loads(first) == json.loads(last)
    assert (torn, json.loads(last)["alert"]) == ('{"torn', "A7")
    assert stat.S_IMODE((tmp_path / "alerts.jsonl").stat().st_mode) == 0o600


async def test_a_file_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    """A folder that is not there, a folder in its place, a pipe that nobody reads, a full disk."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, says in (("gone/a", "No such file"), ("folder", "Is a directory"), ("pipe", "not a regular file"), ("/dev/full", "regular")):
        assert says in str(await refused(tmp_path, sink("file", path=path)))


async def test_a_log_gets_one_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        await Sender(tmp_path, StreamLog(file, SystemClock())).send(sink("log"), MESSAGE)
    (line,) = (tmp_path / "log").read_text().splitlines()
    for word in (" warning [lily] job nightly failed 3 times", "alert=A7", "run=20260504T041500.123456Z-k3f9", "failures=3"):
        assert word in line


# -- Apprise ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Apprise imports
async def test_apprise_brings_it_where_its_addresses_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real service of Apprise's own, against a real server; a failure does not show the address."""
    pytest.importorskip("apprise")
    with serving() as server:
        monkeypatch.setenv("WHERE", server.url.replace("http://", "json://user:sesame@") + "/path")
        to = sink("apprise", urls=[{"secret": "env:WHERE"}])
        assert await sent(tmp_path, to) == ""
        body = json.loads(server.asked[0].body)
        assert (body["title"], body["type"]) == (MESSAGE.subject, "failure")
        assert "trace: ttt" in body["message"]

        def no(asked: Asked) -> Reply:
            return Reply(500)

        server.reply = no
        assert str(await refused(tmp_path, to)) == "Apprise could not deliver it"
    monkeypatch.setenv("WHERE", "pigeon://sesame")
    error = str(await refused(tmp_path, to))
    assert "is none that Apprise knows" in error
    assert "sesame" not in error


async def test_without_the_package_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "json://localhost")
    monkeypatch.setitem(sys.modules, "apprise", None)
    error = await refused(tmp_path, sink("apprise", urls=[{"secret": "env:WHERE"}]))
    assert str(error) == "the package apprise is not installed: pip install 'lily-jobs[alerts]'"
