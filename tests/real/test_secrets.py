"""A secret that a job is given is in no file of the workspace, whatever the job says and however Lily ends."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.house import House, until
from tests.real.leaks import leaks, traces
from tests.real.loopback import Asked, Reply, Server, serving

pytestmark = pytest.mark.e2e

SECRET = "s3cr3t /+\"'<key>\\%42é"
SAYS = """
import base64, html, json, os, sys, time, urllib.parse
secret = os.environ["TOKEN"]
plain = secret.encode()
def say(text):
    os.write(1, text if isinstance(text, bytes) else text.encode())
say("plain " + secret + "\\n")
for shift in range(3):
    say(b"base64 " + base64.b64encode(b"xyz"[:shift] + plain + b"after") + b"\\n")
    say(b"base64 " + base64.urlsafe_b64encode(b"xyz"[:shift] + plain) + b"\\n")
say("url " + urllib.parse.quote(secret, safe="") + " " + urllib.parse.quote_plus(secret) + "\\n")
say("json " + json.dumps({"key": secret}) + json.dumps({"key": secret}, ensure_ascii=False) + "\\n")
say("hex " + plain.hex() + " html " + html.escape(secret) + " repr " + repr(secret) + "\\n")
say(b"wide " + secret.encode("utf-16-le") + b"\\n")
say("split " + secret[:7])
time.sleep(0.3)
say(secret[7:] + " over\\n")
for sign in plain:
    os.write(2, bytes([sign]))
os.write(2, b"\\n")
"""
KEPT = "b1946ac92492d2347c6235b4d2611184b1946ac9 20260504T041500.123456Z-k3f9"


@pytest.fixture
def house(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A workspace whose programs have the secret in their environment, as TOKEN_OF_TEST."""
    monkeypatch.setenv("TOKEN_OF_TEST", SECRET)
    monkeypatch.setenv("PLAIN_OF_TEST", "plain-key-of-test")
    return house


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def given(house: House, job_id: str, code: str, **more: Any) -> None:
    """A job whose program has the secret as TOKEN."""
    house.script(job_id, code, bindings={"env": {"TOKEN": {"secret": "env:TOKEN_OF_TEST"}}}, **more)


def no_leaks(house: House, *but: str) -> None:
    assert leaks(house.root, SECRET, but=frozenset(but)) == []


class TestWhatAProgramSays:
    def test_in_any_form_it_is_in_no_file_while_the_supervisor_runs_after_it_drained_and_after_all_is_read(self, house: House) -> None:
        given(house, "says", SAYS + f"print({KEPT!r}, flush=True)\n")
        up = house.up()
        run_id = house.submit("says")
        assert house.until_ended(run_id).status == "succeeded"
        no_leaks(house)
        for command in (["runs", "show", run_id], ["jobs", "tail", "says"], ["runs", "show", run_id, "--json"], ["store", "export"]):
            house.lily(*command)
        assert up.end(signal.SIGTERM).status == 0
        no_leaks(house)
        text = (house.workspace.run_dir("says", run_id) / "stdout.log").read_text()
        assert text.startswith("plain ***\n")
        assert "split *** over\n" in text
        assert KEPT in text

    def test_in_the_message_of_a_failure_it_is_neither_in_the_dead_letter_nor_in_what_the_command_prints(self, house: House) -> None:
        given(house, "fails", SAYS + "print('no entry for ' + secret, file=sys.stderr); sys.exit(3)\n", retry_max=1)
        said = house.lily("jobs", "run", "fails")
        assert said.status == 1
        assert "no entry for ***" in said.out
        for command in (["dlq", "list"], ["dlq", "show", house.only_run().run_id], ["dlq", "triage"], ["runs", "list", "--json"]):
            assert house.lily(*command).status == 0
        no_leaks(house)

    def test_after_a_kill_in_the_middle_there_is_none_and_none_after_the_recovery(self, house: House) -> None:
        gate = house.gate()
        given(house, "killed", SAYS + "sys.stdout.write('half ' + secret[:9]); sys.stdout.flush(); open('gate').read()\n")
        up = house.up()
        run_id = house.submit("killed")
        log = house.workspace.run_dir("killed", run_id) / "stdout.log"
        until(lambda: log.exists() and "over" in log.read_text(), "the output")
        no_leaks(house)
        up.kill()
        no_leaks(house)
        house.up()
        until(lambda: house.run(run_id).interruptions == 1 and house.run(run_id).status == "running", "the second attempt")
        gate.write_text("go\n")
        assert house.until_ended(run_id).status == "succeeded"
        no_leaks(house)

    def test_of_output_over_its_limit_the_end_that_is_kept_has_none(self, house: House) -> None:
        code = SAYS + "sys.stdout.write((secret + ' ') * 20000); sys.stdout.write('the end'); sys.stdout.flush()\n"
        bindings = {"env": {"TOKEN": {"secret": "env:TOKEN_OF_TEST"}}, "output_limit_bytes": 4096}
        house.script("much", code, bindings=bindings)
        assert house.lily("jobs", "run", "much").status == 0
        no_leaks(house)
        run = house.only_run()
        assert (house.workspace.run_dir("much", run.run_id) / "stdout.log").read_text().endswith("*** *** the end")

    def test_a_file_that_is_named_after_it_gets_another_name(self, house: House) -> None:
        """Receipts list the names of files."""
        bindings = {"env": {"TOKEN": {"secret": "env:PLAIN_OF_TEST"}}}
        house.script(
            "names", "import os; open(os.environ['LILY_RUN_DIR'] + '/' + os.environ['TOKEN'] + '.txt', 'w').close()", bindings=bindings
        )
        assert house.lily("jobs", "run", "names").status == 0
        names = [file.name for file in house.receipt(house.only_run().run_id).artifacts]
        assert len([name for name in names if name.startswith("redacted-")]) == 1
        assert leaks(house.root, "plain-key-of-test") == []

    @pytest.mark.parametrize("ended_by_hand", [False, True])
    def test_a_file_that_is_named_after_it_has_another_name_after_a_kill(self, house: House, ended_by_hand: bool) -> None:
        """Whether the next supervisor ends the run, or a person did before it came."""
        code = "import os, time; open(os.environ['LILY_RUN_DIR'] + '/' + os.environ['TOKEN'] + '.txt', 'w').close(); time.sleep(1000)"
        house.script("names", code, bindings={"env": {"TOKEN": {"secret": "env:PLAIN_OF_TEST"}}}, interrupt_max=0)
        up = house.up()
        run_id = house.submit("names")
        named = house.workspace.run_dir("names", run_id) / "plain-key-of-test.txt"
        until(named.exists, "the file")
        up.kill()
        if ended_by_hand:
            assert house.lily("runs", "fail", "--running", "--reason", "test").status == 0
        house.up()
        house.until_ended(run_id)
        assert not named.exists()
        assert leaks(house.root, "plain-key-of-test") == []


class TestWhatAFunctionSays:
    def job(self, house: House, job_id: str, code: str) -> None:
        (house.root / f"{job_id}.py").write_text("import os, sys\ndef go():\n    secret = os.environ['TOKEN']\n" + code)
        bindings = {"callable": f"{job_id}:go", "env": {"TOKEN": {"secret": "env:TOKEN_OF_TEST"}}}
        house.job(job_id, target="python.v1", bindings=bindings)

    def test_what_it_returns_is_in_the_receipt_without_the_secret(self, house: House) -> None:
        self.job(house, "returns", "    return {'a': ['key ' + secret], secret: 1, 'hash': 'b1946ac92492d2347c6235b4d2611184'}\n")
        assert house.lily("jobs", "run", "returns").status == 0
        assert house.receipt(house.only_run().run_id).payload == {"a": ["key ***"], "***": 1, "hash": "b1946ac92492d2347c6235b4d2611184"}
        no_leaks(house)

    def test_what_it_raises_is_cut_after_the_secret_was_taken_out(self, house: House) -> None:
        self.job(house, "raises", "    raise ValueError('x' * 975 + secret + 'y' * 100)\n")
        assert house.lily("jobs", "run", "raises").status == 1
        no_leaks(house)
        receipt = json.dumps(house.lily("runs", "show", house.only_run().run_id, "--json").out)
        assert SECRET[:9] not in receipt

    def test_killed_between_its_answer_and_its_end_it_leaves_no_answer_on_the_disk(self, house: House) -> None:
        gate = house.gate()
        code = "    import atexit\n    atexit.register(lambda: (open('answered', 'w').close(), open('gate').read()))\n    return secret\n"
        self.job(house, "answers", code)
        up = house.up()
        run_id = house.submit("answers")
        until((house.root / "answered").exists, "the answer")
        no_leaks(house)
        up.kill()
        no_leaks(house)
        (house.root / "answered").unlink()
        house.up()
        until((house.root / "answered").exists, "the second answer")
        gate.write_text("go\n")
        assert house.until_ended(run_id).payload == "***"
        no_leaks(house)


BLUEPRINT = """
import lily
from pydantic import BaseModel
from lily.blueprints.secrets import Secret, revealed

class Bindings(BaseModel):
    key: Secret

@lily.blueprint("talks.v1", version="1.0.0", bindings=Bindings)
async def talks(ctx, bindings, run_input):
    secret = revealed(bindings.key, base=ctx.workspace)
    await ctx.log.info("log " + secret, field={"inner": [secret]}, strange=Exception(secret))
    await ctx.progress(1, 2, note="note " + secret)
    async def step():
        return {"stored": secret}
    assert await ctx.step("step " + secret, step) == {"stored": "***"}
    async def bad():
        raise ValueError("bad " + secret)
    try:
        await ctx.step("fails", bad)
    except ValueError:
        pass
    try:
        with ctx.artifact("a-" + "plainsecret"):
            pass
    except lily.BlueprintError as error:
        await ctx.log.info(str(error))
    await ctx.request_approval("send " + secret, why="because of " + secret)
    return lily.Envelope(payload={"got": secret}, references=[secret], approvals_requested=[{"what": secret}])
"""


class TestWhatABlueprintSays:
    def test_logs_progress_steps_requests_and_results_have_none(self, house: House) -> None:
        (house.root / ".lily" / "blueprints" / "talks.py").write_text(BLUEPRINT)
        (house.root / "key.txt").write_text(SECRET + "\n")
        house.job("talks", target="talks.v1", bindings={"key": {"secret": "file:key.txt"}})
        house.up()
        run_id = house.submit("talks")
        until(lambda: house.run(run_id).status == "waiting_approval", "the request")
        assert "send ***" in house.lily("approvals", "show", run_id).out
        no_leaks(house, "key.txt")
        assert house.store.steps(run_id) == {"step ***": {"stored": "***"}}
        assert house.lily("approvals", "approve", run_id).status == 0
        assert house.until_ended(run_id).payload == {"got": "***"}
        no_leaks(house, "key.txt")

    def test_an_answer_that_says_it_back_is_kept_without_it(self, house: House, server: Server) -> None:
        def echo(asked: Asked) -> Reply:
            said = asked.headers["x-key"]
            return Reply(body=f"you said {said}".encode(), headers={"x-echo": said})

        server.reply = echo
        house.config(policy={"capabilities": {"net.http": "allow"}})
        bindings = {"url": server.url, "headers": {"x-key": {"secret": "env:PLAIN_OF_TEST"}}, "expect": {"json": {"a": 1}}}
        path = house.job("asks", target="http.v1", bindings=bindings)
        path.write_text(path.read_text().replace("process.exec", "net.http"))
        assert house.lily("jobs", "run", "asks").status == 1
        run = house.only_run()
        assert (house.workspace.run_dir("asks", run.run_id) / "response.body").read_text() == "you said ***"
        assert leaks(house.root, "plain-key-of-test") == []

    def test_a_pipeline_passes_what_a_step_gave_without_the_secret(self, house: House) -> None:
        env = {"TOKEN": {"secret": "env:TOKEN_OF_TEST"}}
        steps = [
            {"name": "one", "blueprint": "command.v1", "bindings": {"argv": ["printenv", "TOKEN"], "env": env}},
            {
                "name": "two",
                "needs": ["one"],
                "blueprint": "command.v1",
                "bindings": {"argv": ["printf", "%s", {"from": "one.payload.stdout_tail"}]},
            },
        ]
        house.job("steps", target="pipeline.v1", bindings={"steps": steps})
        said = house.lily("jobs", "run", "steps")
        assert said.status == 0, said.err
        no_leaks(house)


def test_the_traces_that_are_looked_for_are_there_when_nothing_is_redacted(tmp_path: Path) -> None:
    """What these tests look for is what programs write."""
    for name, form in traces(SECRET).items():
        (tmp_path / "file").write_bytes(b"<" + form + b">")
        assert leaks(tmp_path, SECRET), name
