"""`lily queue`, `lily config reload`, keys, priorities and batches."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lily.api import Session
from tests.cli.conftest import Lily, command, environment, rest, shell, supervisor, until, write_job


def config(root: Path, **queue: Any) -> Path:
    """Settings of the queue."""
    path = root / ".lily" / "config.yaml"
    path.write_text(json.dumps({"queue": queue}))
    return path


def submitted(root: Path, count: int, job_id: str = "a", priority: str | None = None) -> list[str]:
    """Runs that wait."""
    with Session(root) as session:
        return session.submit_many(job_id, [{}] * count, priority=priority)


def audited(root: Path) -> list[tuple[str, str, str, Any, Any]]:
    """(action, object, reason, before, after) of every row, in order."""
    with sqlite3.connect(root / "db" / "lily.sqlite3") as db:
        wanted = "action in ('queue.set', 'run.cancel')"  # who submits, starts and stops is elsewhere
        rows = db.execute(f"select action, object, reason, before, after from audit where {wanted} order by sequence").fetchall()
    db.close()
    return [(action, of, reason, json.loads(before), json.loads(after)) for action, of, reason, before, after in rows]


# -- stats and list ------------------------------------------------------------------------------------


def test_stats_say_how_full_the_queue_is_and_what_each_class_has(lily: Lily, workspace: Path) -> None:
    config(workspace, max_size=10, ageing_seconds=60)
    write_job(workspace, "a")
    submitted(workspace, 7)
    submitted(workspace, 1, priority="critical")
    found = lily("queue", "stats", "--json").json
    assert (found["queued"], found["max_size"], found["utilization_percent"], found["ageing_seconds"]) == (8, 10, 80.0, 60)
    assert {key: found["backpressure"][key] for key in ("on", "on_at", "off_at")} == {"on": True, "on_at": 8, "off_at": 6}
    assert [(each["priority"], each["queued"]) for each in found["classes"]] == [("critical", 1), ("high", 0), ("normal", 7), ("low", 0)]
    text = lily("queue", "stats").out
    assert "8 of 10 (80 %)" in text
    assert "only critical runs are taken until 6 are queued" in text
    assert "no supervisor is up" in text


def test_the_list_is_in_the_order_of_being_taken_or_as_asked(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    write_job(workspace, "b")
    first, second = submitted(workspace, 2, "b")
    low = submitted(workspace, 1, "a", "low")[0]
    high = submitted(workspace, 1, "a", "high")[0]

    def ids(*words: str) -> list[str]:
        return [row["run_id"] for row in lily("queue", "list", "--json", *words).json["runs"]]

    assert ids() == [high, first, second, low]
    assert ids("--desc") == [low, second, first, high]
    assert ids("--order-by", "priority", "--desc") == [low, second, first, high]
    assert ids("--order-by", "queued") == [first, second, low, high]
    assert ids("--order-by", "queued", "--desc", "--limit", "3") == [high, low, second]
    assert ids("--priority", "normal") == [first, second]
    assert ids("--status", "running") == []
    said = lily("queue", "list", "--limit", "1")
    assert (high in said.out, "3 more" in said.err) == (True, True)


@pytest.mark.e2e
def test_watch_prints_again_until_ctrl_c(workspace: Path) -> None:
    with subprocess.Popen(
        command("queue", "stats", "--watch", "--json"),
        cwd=workspace,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["queued"] for _ in range(2)] == [0, 0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


# -- cancel ---------------------------------------------------------------------------------------------


def test_runs_are_canceled_by_their_ids_and_each_is_audited(lily: Lily, workspace: Path) -> None:
    """All or none: one that has ended, or is not there, leaves the others as they are."""
    write_job(workspace, "a")
    one, two, three = submitted(workspace, 3)
    assert lily("queue", "cancel", one, "--reason", "wrong day").out == f"{one} is canceled\n"
    refused = lily("queue", "cancel", two, one)
    assert (refused.status, refused.err.split(":")[0]) == (4, "run_state_invalid")
    assert lily("queue", "cancel", two, "nothing").status == 3
    assert [row["run_id"] for row in lily("queue", "list", "--json").json["runs"]] == [two, three]
    assert lily("runs", "cancel", two, "--reason", "too").status == 0
    assert audited(workspace) == [
        ("run.cancel", one, "wrong day", {"status": "queued"}, {"status": "canceled"}),
        ("run.cancel", two, "too", {"status": "queued"}, {"status": "canceled"}),
    ]


def test_all_of_a_class_are_canceled_with_a_reason_alone(lily: Lily, workspace: Path) -> None:
    """--dry-run says which, and changes nothing; the receipts name who and why."""
    write_job(workspace, "a")
    normal = submitted(workspace, 2)
    low = submitted(workspace, 3, priority="low")
    assert lily("queue", "cancel", "--priority", "low").status == 2
    assert lily("queue", "cancel").status == 2
    assert lily("queue", "cancel", normal[0], "--all", "--reason", "R").status == 2
    dry = lily("queue", "cancel", "--priority", "low", "--dry-run", "--json").json
    assert (dry["dry_run"], dry["canceled"]) == (True, low)
    assert len(lily("queue", "list", "--json").json["runs"]) == 5
    done = lily("queue", "cancel", "--priority", "low", "--reason", "storm", "--json").json
    assert (done["canceled"], done["asked"], done["left"]) == (low, [], [])
    assert [row["run_id"] for row in lily("queue", "list", "--json").json["runs"]] == normal
    assert lily("queue", "cancel", "--all", "--reason", "storm").out.count("is canceled") == 2
    assert "no such runs" in lily("queue", "cancel", "--all", "--reason", "storm").err
    assert len(audited(workspace)) == 5


@pytest.mark.e2e
def test_with_running_the_work_is_stopped_by_its_owner(lily: Lily, workspace: Path) -> None:
    """The process is gone and the state is canceled; without it what runs goes on."""
    write_job(workspace, "long", bindings=shell("echo begun; sleep 600"))
    with supervisor(workspace):
        run_id = submitted(workspace, 1, "long")[0]
        with subprocess.Popen(
            command("jobs", "tail", "long", "--follow", "--json"), cwd=workspace, env=environment(), stdout=subprocess.PIPE, text=True
        ) as tail:
            until(tail, '"event":"output"')
            assert "no such runs" in lily("queue", "cancel", "--all", "--reason", "R").err
            assert lily("queue", "cancel", "--all", "--running", "--reason", "enough", "--json").json["asked"] == [run_id]
            until(tail, '"event":"job_canceled"')
            tail.kill()
    assert lily("runs", "show", run_id, "--json").json["receipt"]["canceled"]["reason"] == "enough"
    assert subprocess.run(["pgrep", "-f", "sleep 600"], check=False, capture_output=True, cwd=workspace).returncode == 1


# -- set and reload ------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_set_holds_at_once_for_every_process_and_until_a_supervisor_starts(lily: Lily, workspace: Path) -> None:
    """Audited with before and after; a smaller size refuses the next run, a supervisor's start ends it."""
    write_job(workspace, "a")
    submitted(workspace, 2)
    assert lily("queue", "set", "--max-size", "2", "--reason", "storm").out == "queue.max_size: 100 → 2\n"
    assert lily("jobs", "run", "a", "--detach").err.startswith("queue_full: 2 of 2 are queued")
    assert "max_size 2, by" in lily("queue", "stats").out
    with supervisor(workspace):
        found = lily("queue", "stats", "--json").json
        assert (found["max_size"], found["held"], found["supervisor"]) == (100, None, True)
        assert lily("queue", "set", "--max-concurrent", "7", "--json").json["supervisor"] is True
        assert lily("status", "--json").json["supervisor"]["slots"] == 7
    first, second, third = audited(workspace)
    assert (first[0], first[2], first[3], first[4]["max_size"]) == ("queue.set", "storm", {"max_size": 100}, 2)
    assert (second[3], second[4]) == ({"max_size": 2}, {"max_size": 100})
    assert third[3] == {"max_concurrent": 3}


COMMENTED = """\
# ours
queue:            # the queue
    max_concurrent: 5 # five
# policy: {}
llm: {model: "m"}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "queue:\n  max_size: 9\n"),
        ("llm: {model: m}", "llm: {model: m}\nqueue:\n  max_size: 9\n"),
        (COMMENTED, COMMENTED.replace("# the queue\n", "# the queue\n    max_size: 9\n")),
        ("queue: {max_size: 100, max_concurrent: 2} # x\n", "queue: {max_size: 9, max_concurrent: 2} # x\n"),
        ("queue: {max_concurrent: 2}\n", "queue: {max_size: 9, max_concurrent: 2}\n"),
        ("queue: {}\n", "queue: {max_size: 9}\n"),
        ("queue:\n  # max_size: 100\n", "queue:\n  max_size: 9\n  # max_size: 100\n"),
        ("queue:\r\n  max_size: 0x10 # hex\r\n", "queue:\r\n  max_size: 9 # hex\r\n"),
    ],
)
def test_persist_changes_one_value_and_no_other_byte(lily: Lily, workspace: Path, before: str, after: str) -> None:
    path = workspace / ".lily" / "config.yaml"
    path.write_bytes(before.encode())
    assert lily("queue", "set", "--max-size", "9", "--persist").status == 0
    assert path.read_bytes().decode() == after
    assert lily("queue", "stats", "--json").json["held"] is None


def test_who_set_what_holds_until_a_start_is_told_also_when_another_value_was_persisted_since(lily: Lily, workspace: Path) -> None:
    lily("queue", "set", "--max-size", "50")
    held = lily("queue", "stats", "--json").json["held"]
    lily("queue", "set", "--max-concurrent", "5", "--persist")
    assert lily("queue", "stats", "--json").json["held"] == held
    assert held["by"] in lily("queue", "stats").out
    lily("queue", "set", "--max-size", "60", "--persist")
    assert lily("queue", "stats", "--json").json["held"] is None


@pytest.mark.parametrize("text", ["queue: null\n", "x: &q {max_size: 5}\nqueue: *q\n", "queue: {max_size: !!int 5}\n", "queue: [\n"])
def test_a_file_that_can_not_be_edited_in_place_is_left_alone(lily: Lily, workspace: Path, text: str) -> None:
    """With the code, and what to do by hand where the file is right; nothing is set."""
    path = workspace / ".lily" / "config.yaml"
    path.write_text(text)
    said = lily("queue", "set", "--max-size", "9", "--persist")
    assert (said.status, said.err.split(":")[0]) == (3, "config_invalid")
    assert path.read_text() == text


def test_nothing_to_set_and_a_number_out_of_range_are_mistakes_of_usage(lily: Lily, workspace: Path) -> None:
    for words in ((), ("--max-size", "0"), ("--max-concurrent", "1001")):
        assert lily("queue", "set", *words).status == 2


@pytest.mark.e2e
def test_a_supervisor_reads_its_settings_again_and_says_what_changed(lily: Lily, workspace: Path) -> None:
    """By the command and by SIGHUP; what can't change now is said, and a broken file changes nothing."""
    path = config(workspace, max_concurrent=2)
    write_job(workspace, "a", bindings={"argv": ["true"]})
    with supervisor(workspace) as process:
        path.write_text('store: {url: "sqlite:///x.db"}\nqueue: {max_concurrent: 4}\npolicy: {capabilities: {process.exec: deny}}\n')
        found = {each["key"]: each for each in lily("config", "reload", "--json").json["changes"]}
        assert {key: each["effect"] for key, each in found.items()} == {
            "policy.capabilities.process.exec": "now",
            "queue.max_concurrent": "now",
            "store.url": "next start",
        }
        path.write_text("queue: {max_concurrent: no}")
        broken = lily("config", "reload")
        assert (broken.status, ".lily/config.yaml:1:25" in broken.err) == (3, True)
        assert lily("status", "--json").status == 3  # every command reads the file
        config(workspace, max_concurrent=6)
        process.send_signal(signal.SIGHUP)
        line = until(process, "key=queue.max_concurrent before=4 after=6", stream="stderr")
        assert "effect=now" in line
        assert lily("status", "--json").json["supervisor"]["slots"] == 6
        assert lily("config", "reload").out == "nothing has changed\n"
        assert lily("jobs", "run", "a").status == 0  # the policy is the default again
        process.send_signal(signal.SIGTERM)
        assert "lily is down" in rest(process)[1]
    assert lily("config", "reload").err.startswith("supervisor_not_running")


@pytest.mark.e2e
def test_a_sighup_because_the_terminal_is_gone_drains(workspace: Path) -> None:
    """As a person who closes the window expects."""
    leader, terminal = pty.openpty()
    log = workspace / "log"
    program = (
        "import os, sys; os.setsid(); os.close(os.open(os.ttyname(0), os.O_RDWR)); sys.argv[1:1] = []; os.execv(sys.argv[1], sys.argv[1:])"
    )
    with (
        open(log, "wb") as err,
        subprocess.Popen(
            [sys.executable, "-c", program, *command("up")], cwd=workspace, env=environment(), stdin=terminal, stdout=err, stderr=err
        ) as process,
    ):
        os.close(terminal)
        while "lily is up" not in log.read_text():
            assert process.poll() is None, log.read_text()
        os.close(leader)
        assert process.wait(30) == 0
    assert "draining" in log.read_text()


# -- keys, priorities, batches ----------------------------------------------------------------------------


def test_a_key_makes_twice_once_while_the_run_is_open(lily: Lily, workspace: Path) -> None:
    """History stays; `auto` does not depend on the order of parameters."""
    write_job(workspace, "a")

    def run(*words: str) -> str:
        return lily("jobs", "run", "a", "--detach", *words).out.strip()

    first = run("--key", "day")
    assert run("--key", "day") == first != run()
    auto = run("--key", "auto", "--input", "x=1", "--input", "y=2")
    assert run("--key", "auto", "--input", "y=2", "--input", "x=1") == auto != run("--key", "auto", "--input", "y=2")
    lily("queue", "cancel", first)
    again = run("--key", "day")
    assert again != first
    assert {row["run_id"] for row in lily("runs", "list", "--json").json["runs"]} >= {first, again}
    assert lily("jobs", "run", "a", "--key", "").status == 2


def test_a_key_in_python_may_be_a_mapping_in_any_order(workspace: Path) -> None:
    write_job(workspace, "a")
    with Session(workspace) as session:
        one = session.submit("a", key={"day": "2026-05-04", "of": ["x", 1]})
        assert session.submit("a", key={"of": ["x", 1], "day": "2026-05-04"}) == one
        assert session.submit("a", key={"of": [1, "x"], "day": "2026-05-04"}) != one


def test_a_priority_is_given_on_the_command_line(lily: Lily, workspace: Path) -> None:
    """In place of the job's own, and in the receipt's spec."""
    write_job(workspace, "a", runtime={"priority": "low"})
    run_id = lily("jobs", "run", "a", "--detach", "--priority", "high").out.strip()
    (row,) = lily("queue", "list", "--json").json["runs"]
    assert (row["run_id"], row["priority"]) == (run_id, "high")
    assert lily("jobs", "run", "a", "--priority", "urgent").status == 2


def test_a_batch_is_a_run_for_each_line(lily: Lily, workspace: Path) -> None:
    """Job, input, bindings, key and priority of its own, in order; lines that share a key share a run."""
    write_job(workspace, "a")
    write_job(workspace, "b")
    lines = [
        {"job": "b", "input": {"n": 1}},
        {"bindings": {"argv": ["echo", "x"]}, "priority": "high", "key": "k"},
        {"key": "k"},
        {"key": "auto", "input": {"x": 1.5}},
    ]
    file = workspace / "lines.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    said = lily("jobs", "run", "a", "--batch", str(file), "--json")
    runs = said.json["runs"]
    assert [run["job_id"] for run in runs] == ["b", "a", "a", "a"]
    assert runs[1]["run_id"] == runs[2]["run_id"]
    shown = {row["run_id"]: row for row in lily("queue", "list", "--json").json["runs"]}
    assert [shown[run["run_id"]]["priority"] for run in runs] == ["normal", "high", "high", "normal"]
    assert lily("jobs", "run", "b", "--detach", "--input", "n=1").status == 0
    assert len({row["spec_hash"] for row in lily("jobs", "history", "b", "--json").json["runs"]}) == 1


def test_a_batch_may_begin_with_a_byte_order_mark_as_a_job_file_may(lily: Lily, workspace: Path) -> None:
    """Windows writes one, and its line ends."""
    write_job(workspace, "a")
    (workspace / "lines.jsonl").write_bytes(b'\xef\xbb\xbf{"job": "a"}\r\n{"job": "a"}\r\n')
    said = lily("jobs", "run", "--batch", "lines.jsonl", "--json")
    assert (said.status, [run["job_id"] for run in said.json["runs"]]) == (0, ["a", "a"])


@pytest.mark.e2e
def test_a_batch_may_come_on_stdin(workspace: Path) -> None:
    """`-` names it; the supervisor that is missing is told on stderr."""
    write_job(workspace, "a")
    said = subprocess.run(
        command("jobs", "run", "a", "--batch", "-"),
        input="{}\n{}\n",
        cwd=workspace,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(said.stdout.splitlines()) == 2
    assert "2 runs are stored and wait for `lily up`" in said.stderr


def test_a_batch_counts_the_lines_of_one_key_as_the_one_run_that_they_are(lily: Lily, workspace: Path) -> None:
    """Each line gets its id all the same."""
    write_job(workspace, "a")
    (workspace / "lines.jsonl").write_text('{"key": "k"}\n{"key": "k"}\n{}\n')
    said = lily("jobs", "run", "a", "--batch", str(workspace / "lines.jsonl"))
    assert (len(said.out.splitlines()), len(set(said.out.splitlines()))) == (3, 2)
    assert "2 runs are stored and wait for `lily up`" in said.err


def test_wrong_lines_of_a_batch_are_named_and_nothing_is_stored(lily: Lily, workspace: Path) -> None:
    write_job(workspace, "a")
    file = workspace / "lines.jsonl"
    bad = [
        "{}",
        "{nonsense",
        '{"job": "nobody"}',
        '{"job": "a", "colour": 1}',
        '{"job": "a", "priority": "urgent"}',
        '{"job": "a", "bindings": {"": 1}}',
    ]
    file.write_text('{"job": "a"}\n' + "\n".join(bad))
    said = lily("jobs", "run", "--batch", str(file))
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("usage: line 2: it names no job, and 5 more lines: 3, 4, 5, 6, 7")
    assert "nothing was stored" in said.err
    detail = lily("jobs", "run", "--batch", str(file), "--json").json["error"]["detail"]
    assert detail["wrong"] == 6
    assert detail["lines"][2].startswith("line 4: job_not_found: ")
    assert lily("runs", "list", "--json").json["runs"] == []
    assert lily("jobs", "run", "--batch", str(workspace / "nowhere")).status == 2
    assert lily("jobs", "run").status == 2


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"job": "a", "input": {"n": 1, "n": 2}}', "n"),
        ('{"input": {"n": 1}, "input" : {"m": 1}}', "input"),
        ('{"input": {"a": 1}, "input"\t: {"b": 1}, "key": "k"}', "input"),
        ('{"key": "one", "key": "one"}', "key"),
        ('{"bindings": {"env": {"A": "b:c", "\\u0041": "d"}}}', "A"),
        ('{"input": {"deep": [{"q": 1, "q": 1}]}}', "q"),
    ],
)
def test_a_line_of_a_batch_that_says_a_key_twice_is_refused(lily: Lily, workspace: Path, line: str, key: str) -> None:
    """Else one of the two would be lost, and nobody told."""
    write_job(workspace, "a")
    file = workspace / "lines.jsonl"
    file.write_text("{}\n" + line)
    said = lily("jobs", "run", "a", "--batch", str(file))
    assert (said.status, said.err.startswith(f"usage: line 2: the key '{key}' stands in it twice · ")) == (2, True)
    assert lily("runs", "list", "--json").json["runs"] == []


def test_a_line_of_a_batch_may_hold_what_looks_like_a_key(lily: Lily, workspace: Path) -> None:
    """Colons in text, blanks before one, and empty or missing parts are no key that stands there twice."""
    write_job(workspace, "a")
    file = workspace / "lines.jsonl"
    inputs = [{"url": "http://x:1", "said": '"url": "n"', "n:n": 1}, {}, {"deep": {"n": {"n": 1.5}}, "n": [{"n": 1}, {"n": 2}]}]
    lines = [json.dumps({"input": each, "key": None}, separators=(" , ", " : ")) for each in inputs]
    file.write_text("\n".join([*lines, json.dumps({"input": inputs[0]}), "{ }"]))
    said = lily("jobs", "run", "a", "--batch", str(file))
    assert (said.status, len(set(said.out.split()))) == (0, 5)


def test_a_batch_that_the_queue_does_not_take_is_refused_whole(lily: Lily, workspace: Path) -> None:
    config(workspace, max_size=10)
    write_job(workspace, "a")
    file = workspace / "lines.jsonl"
    file.write_text("{}\n" * 9)
    said = lily("jobs", "run", "a", "--batch", str(file))
    assert (said.status, said.err.startswith("queue_backpressure: 9 runs at once are too many: 0 of 10 are queued")) == (4, True)
    assert lily("queue", "stats", "--json").json["queued"] == 0
