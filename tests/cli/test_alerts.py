"""`lily alerts`, and what the settings of retries do, as a person sees them."""

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lily, shell, supervisor, until, write_job
from tests.contract.conform import check_fits
from tests.real.house import until as eventually
from tests.real.loopback import Asked, Reply, serving

FAILS = shell("test -e ok || { echo 'no luck' >&2; exit 3; }")


def configure(root: Path, text: str) -> None:
    (root / ".lily" / "config.yaml").write_text(text)


def sinks(**given: Any) -> str:
    return json.dumps({"alerts": {"sinks": given}})


def fail(lily: Lily, times: int, job: str = "a") -> list[str]:
    """Run the job so often; gives the runs' ids, oldest first."""
    for _ in range(times):
        assert lily("jobs", "run", job).status == 1
    return [row["run_id"] for row in lily("jobs", "history", job, "--json").json["runs"]][:times][::-1]


def test_without_alerts_the_list_says_so(lily: Lily, workspace: Path) -> None:
    said = lily("alerts", "list")
    assert (said.status, said.out, said.err) == (0, "", "no alerts\n")
    assert lily("alerts", "list", "--json").json == {
        "alerts": [],
        "failing": [],
        "sinks": [{"sink": "log", "kind": "log", "waiting": 0, "failing": 0}],
    }


@pytest.mark.e2e
def test_a_process_of_one_run_tells_of_its_job(lily: Lily, workspace: Path) -> None:
    """Without any supervisor, as under cron: the third failure writes an alert, the success after it the recovery."""
    configure(workspace, sinks(rec={"kind": "file", "path": "alerts.jsonl"}, log={"kind": "log"}))
    write_job(workspace, "a", bindings=FAILS)
    fail(lily, 2)
    assert not (workspace / "alerts.jsonl").exists()
    assert "2 of the 3 failures in a row" in lily("alerts", "list").err
    third = fail(lily, 3)[0]
    (line,) = (workspace / "alerts.jsonl").read_text().splitlines()
    assert stat.S_IMODE((workspace / "alerts.jsonl").stat().st_mode) == 0o600
    message = json.loads(line)
    assert (message["alert"], message["run_id"], message["failures"]) == ("A1", third, 3)
    assert message["trace_id"] == lily("runs", "show", third, "--json").json["receipt"]["trace_id"]
    assert "no luck" in message["text"]
    assert lily(*message["command"].split()[1:]).status == 0
    (workspace / "ok").touch()
    assert lily("jobs", "run", "a").status == 0
    assert [json.loads(line)["kind"] for line in (workspace / "alerts.jsonl").read_text().splitlines()] == ["failing", "recovered"]
    said = lily("alerts", "list")
    assert "rec delivered" in said.out
    assert "log waiting" in said.out  # the log is the supervisor's
    found = lily("alerts", "list", "--json", "--job", "a").json
    check_fits("cli-alerts-list", found)
    assert [each["alert"] for each in found["alerts"]] == ["A2", "A1"]
    assert lily("alerts", "list", "--job", "b").err.startswith("no such alerts")
    assert lily("health", "--json").json["checks"][-1]["name"] == "alerts"


@pytest.mark.e2e
def test_explain_says_why_an_alert_was_sent_and_why_another_was_not(lily: Lily, workspace: Path) -> None:
    """Of an alert with each try, of a job with what came of its last failure."""
    configure(workspace, sinks(rec={"kind": "file", "path": "gone/alerts.jsonl"}, cmd={"kind": "command", "argv": ["true"]}))
    write_job(workspace, "a", bindings=FAILS)
    write_job(workspace, "b")
    fail(lily, 1)
    assert "1 of the 3 failures in a row that raise an alert" in lily("alerts", "explain", "a").out
    fail(lily, 3)
    said = lily("alerts", "explain", "a").out
    assert "what came of the last failure: throttled: A1 told of the same error at" in said
    shown = lily("alerts", "explain", "A1").out
    for words in (
        "A1 was raised because of this: 3 failures in a row",
        "to cmd",
        "delivered after 1 try",
        "No such file or directory",
        "next try",
    ):
        assert words in shown
    assert shown.rstrip().endswith(f"--workspace {workspace}")  # the message itself is at the end
    for asked in ("a", "A1", "b"):
        check_fits("cli-alerts-explain", lily("alerts", "explain", asked, "--json").json)
    assert "b has no failures in a row" in lily("alerts", "explain", "b").out
    health = lily("health", "--json").json["checks"][-1]
    assert (health["name"], health["level"], health["command"]) == ("alerts", "warning", "lily alerts list --undelivered")
    assert "the sink rec takes nothing: 1 alert waits for another try" in lily("alerts", "list", "--undelivered").err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("explain", "A99"), 3, "job_not_found: no alert A99"),
        (("explain", "nobody"), 3, "job_not_found: no job has the id 'nobody'"),
        (("explain", "../x"), 3, "job_not_found: '../x' is neither an alert nor a job"),
        (("test", "nobody"), 2, "usage: no sink has the name 'nobody' · there are: log"),
        (("list", "--limit", "0"), 2, "usage: --limit"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(
    lily: Lily, workspace: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    said = lily("alerts", *arguments)
    assert (said.status, said.out, said.err.count("\n")) == (status, "", 1)
    assert said.err.startswith(words)


def test_test_tries_every_sink_now(lily: Lily, workspace: Path) -> None:
    """It says of each what came of it, and its exit status is 1 when one did not take it."""
    configure(
        workspace,
        sinks(
            good={"kind": "command", "argv": ["sh", "-c", "cat > got.json"]},
            bad={"kind": "webhook", "url": {"secret": "env:LILY_TEST_NOT_SET"}},
            log={"kind": "log"},
        ),
    )
    said = lily("alerts", "test")
    assert said.status == 1
    assert said.out.splitlines() == [
        "bad (webhook): did not take it: the environment variable LILY_TEST_NOT_SET is not set, and a secret is taken from it",
        "good (command): took the message",
        "log (log): took the message",
    ]
    assert "[lily] this is a test of Lily's alerts" in said.err
    assert json.loads((workspace / "got.json").read_text())["kind"] == "test"
    assert lily("alerts", "test", "good").status == 0
    found = lily("alerts", "test", "bad", "--json")
    check_fits("cli-alerts-test", found.json)
    assert (found.status, found.json["ok"]) == (1, False)
    assert lily("alerts", "list", "--json").json["alerts"] == []  # a test leaves nothing


@pytest.mark.e2e
def test_an_alert_that_several_sinks_did_not_take_is_one(lily: Lily, workspace: Path) -> None:
    """For health and for the doctor, as in the list."""
    configure(workspace, sinks(a={"kind": "command", "argv": ["false"]}, b={"kind": "command", "argv": ["false"]}))
    write_job(workspace, "a", bindings=FAILS)
    fail(lily, 3)
    assert len(lily("alerts", "list", "--undelivered", "--json").json["alerts"]) == 1
    assert "1 alert could not be delivered and is tried again" in lily("health").out
    assert "1 alert could not be delivered and is tried again" in lily("doctor").out


@pytest.mark.e2e
def test_a_supervisor_that_is_killed_while_a_webhook_is_down_delivers_after_its_next_start(lily: Lily, workspace: Path) -> None:
    """Three failures, one alert, down, kill -9, up again: delivered once; reloaded settings are used at once."""
    write_job(workspace, "a", bindings=FAILS)
    with serving() as server:
        configure(workspace, sinks(hook={"kind": "webhook", "url": server.url}))

        def down(asked: Asked) -> Reply:
            return Reply(503)

        server.reply = down
        with supervisor(workspace) as process:
            runs = fail(lily, 3)
            until(process, "an alert could not be delivered", stream="stderr")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert len(server.asked) == 1
        (shown,) = lily("alerts", "list", "--json").json["alerts"]
        assert (shown["sent_at"], shown["deliveries"][0]["tries"]) == (None, 1)
        server.reply = lambda asked: Reply()
        with supervisor(workspace):
            eventually(lambda: len(server.asked) > 1, "the second try")
            eventually(lambda: lily("alerts", "list", "--json").json["alerts"][0]["sent_at"], "its note")
            body = json.loads(server.asked[1].body)
            assert (body["alert"], body["run_id"], body["failures"]) == ("A1", runs[2], 3)
            (workspace / "ok").touch()
            configure(workspace, sinks(hook={"kind": "webhook", "url": f"{server.url}/new"}))
            assert "alerts.sinks.hook" in lily("config", "reload").out
            assert lily("jobs", "run", "a").status == 0
            eventually(lambda: len(server.asked) > 2, "the recovery")
        assert (server.asked[2].path, json.loads(server.asked[2].body)["kind"]) == ("/new", "recovered")
        assert len(server.asked) == 3


@pytest.mark.e2e
def test_settings_that_are_wrong_are_refused_on_reload_and_those_of_before_hold(lily: Lily, workspace: Path) -> None:
    configure(workspace, sinks(rec={"kind": "file", "path": "alerts.jsonl"}))
    with supervisor(workspace):
        configure(workspace, sinks(rec={"kind": "file"}))
        said = lily("config", "reload")
        assert (said.status, said.err.startswith("config_invalid: alerts.sinks.rec: a sink of kind file needs `path`")) == (3, True)


# -- retries ---------------------------------------------------------------------------------------


def attempts(lily: Lily, run: str) -> int:
    return len(lily("runs", "show", run, "--json").json["receipt"]["attempts"])


@pytest.mark.e2e
def test_settings_of_retries_hold_for_runs_accepted_from_then_on(lily: Lily, workspace: Path) -> None:
    """What a run was accepted with is in its receipt, whatever the settings say when it runs."""
    write_job(workspace, "a", bindings=shell("exit 3"), runtime={})
    write_job(workspace, "own", bindings=shell("exit 3"), runtime={"retry_max": 0})
    configure(workspace, "scheduler: {default_max_attempts: 3, default_backoff_strategy: none}")
    queued = lily("jobs", "run", "a", "--detach").out.strip()
    configure(workspace, "")
    lily("jobs", "run", "a")
    now = lily("jobs", "history", "a", "--json", "--limit", "1").json["runs"][0]["run_id"]
    with supervisor(workspace):
        eventually(lambda: lily("runs", "show", queued, "--json").json["receipt"], "the queued run's end")
    assert (attempts(lily, queued), attempts(lily, now)) == (3, 1)
    configure(workspace, "scheduler: {default_max_attempts: 2, default_backoff_strategy: none}")
    lily("jobs", "run", "a")
    lily("jobs", "run", "own")
    newest = [lily("jobs", "history", job, "--json", "--limit", "1").json["runs"][0]["run_id"] for job in ("a", "own")]
    assert [attempts(lily, run) for run in newest] == [2, 1]
    receipt = lily("runs", "show", newest[0], "--json").json["receipt"]
    assert receipt["spec_hash"] == lily("jobs", "show", "a", "--json").json["spec_hash"]
    assert receipt["spec"]["runtime"]["retry_max"] == 1


def test_resolved_values_are_shown_with_where_they_come_from(lily: Lily, workspace: Path) -> None:
    """By `jobs show`, by a dry run with what an option says over it, and by `jobs plan`."""
    write_job(workspace, "a", runtime={}, trigger={"type": "interval", "every": "1h"})
    configure(workspace, "scheduler:\n  default_max_attempts: 3\n")
    shown = lily("jobs", "show", "a").out
    assert "at most 3 attempts (scheduler.default_max_attempts: 3 (.lily/config.yaml:2)); pauses: exponential from 60 s" in shown
    assert "(the default of job files)" in shown
    plan = lily("jobs", "run", "a", "--dry-run", "--json", "--set", "runtime.backoff.strategy=none").json["plan"]["attempts"]
    assert (plan["at_most"], plan["origins"]["runtime.backoff.strategy"]) == (3, "--set")
    assert plan["origins"]["runtime.retry_max"] == "scheduler.default_max_attempts: 3 (.lily/config.yaml:2)"
    assert "  retries: at most 3 attempts (scheduler.default_max_attempts: 3 (.lily/config.yaml:2))" in lily("jobs", "plan").out


@pytest.mark.e2e
def test_a_supervisor_registers_schedules_anew_when_the_settings_of_retries_are_read_again(lily: Lily, workspace: Path) -> None:
    """As after an edit of the file; nothing would change any more then."""
    write_job(workspace, "a", runtime={}, trigger={"type": "interval", "every": "1h"})
    with supervisor(workspace):
        eventually(lambda: "nothing would change" in lily("jobs", "plan").out, "the registration")
        configure(workspace, "scheduler: {default_max_attempts: 3}")
        assert [each["change"] for each in lily("jobs", "plan", "--json").json["changes"]] == ["spec"]
        lily("config", "reload")
        eventually(lambda: "nothing would change" in lily("jobs", "plan").out, "the new registration")
