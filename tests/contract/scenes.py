"""Ways to bring about each error code: a workspace that is wrong in one way, and the command that says so."""

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lily.api import Session
from lily.errors import Code
from lily.ledger import Control, State
from lily.storage.audit import Actor
from lily.storage.windows import Windows
from lily.storage.worker import pause
from lily.workspace import OwnerLock, Workspace, lock_path
from tests.cli.conftest import shell, write_job

BLUEPRINTS = '''
"""Blueprints that go wrong in one way each."""

from pydantic import BaseModel

from lily import BlueprintError, Envelope, blueprint, specialist, synthesizer
from lily.blueprints.define import BlueprintBase


class Name(BaseModel):
    name: str


@blueprint("t.raises.v1")
async def raises(ctx, bindings, run_input):
    raise ValueError("out of range")


@blueprint("t.exits.v1")
async def exits(ctx, bindings, run_input):
    raise SystemExit(7)


@blueprint("t.own.v1")
async def own(ctx, bindings, run_input):
    raise BlueprintError("no quota is left", code="quota_used_up", retryable=False, left=0)


@blueprint("t.says_error.v1")
async def says_error(ctx, bindings, run_input):
    return Envelope(status="error", payload={"message": "no luck", "code": "no_luck"})


@blueprint("t.nan.v1")
async def nan(ctx, bindings, run_input):
    return {"ratio": float("nan")}


@blueprint("t.envelope.v1")
async def no_envelope(ctx, bindings, run_input):
    return Envelope(status="fine")


@blueprint("t.output.v1", output=Name)
async def other_output(ctx, bindings, run_input):
    return {"name": 3}


@blueprint("t.input.v1", bindings=Name, input=Name)
async def takes(ctx, bindings, run_input):
    return {}


@blueprint("t.sends.v1", capabilities=["message.send"])
async def sends(ctx, bindings, run_input):
    return {}


@blueprint("t.launches.v1", capabilities=["rocket.launch"])
async def launches(ctx, bindings, run_input):
    return {}


@blueprint("t.artifact.v1")
async def artifact(ctx, bindings, run_input):
    with ctx.artifact("../outside.txt") as file:
        file.write(b"x")


@blueprint("t.approval.v1")
async def approval(ctx, bindings, run_input):
    await ctx.request_approval("the launch", why="it is loud")


@blueprint("t.nested.v1")
async def nested(ctx, bindings, run_input):
    await ctx.run_blueprint("command.v1", {"argv": ["true"]}, name="inner")


@blueprint("t.missing.v1")
async def missing(ctx, bindings, run_input):
    await ctx.run_blueprint("nobody.v1", {}, name="inner")


class Unbuildable(BlueprintBase):
    id = "t.unbuildable.v1"
    summary = "Can't be built."

    def compile(self, bindings):
        raise RuntimeError("a part is missing")


@synthesizer("t.broken.v1")
async def broken(ctx, request):
    raise RuntimeError("no ink")
'''
TWICE = 'from lily import blueprint\n\n\n@blueprint("t.twice.v1")\nasync def twice(ctx, bindings, run_input):\n    return {}\n'
TOPIC = {"topic": "Open the admin page to the internet"}
LLM = {"synth_strategy": "llm", "llm": {"model": "m", "api_key": {"secret": "env:NOT_SET_ANYWHERE"}}}
FALLING = {**LLM, "synth_strategy": "llm_with_fallback", "fallback_synthesizer": "t.broken.v1"}


def target(id: str, **more: Any) -> dict[str, Any]:
    """A job's target, with capabilities that suit all of those above but the ones that ask for more."""
    return {"target": {"kind": "blueprint", "id": id, **more}, "bindings": {}, "capabilities": []}


def council(bindings: dict[str, Any]) -> dict[str, Any]:
    """A job that asks the council."""
    return {**target("council.v1", input=TOPIC), "bindings": bindings, "capabilities": ["net.http"]}


@dataclass(frozen=True)
class Failing:
    """A run that ends badly: the job, the run's code and the target's own, and whether anything was tried."""

    name: str
    code: Code
    own: str | None
    job: dict[str, Any]
    tried: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    says: str = ""

    @property
    def waits(self) -> bool:
        """Whether it waits for a person first, and says so."""
        return self.code is Code.APPROVAL_EXPIRED

    @property
    def again(self) -> bool:
        """Whether another attempt could mend it."""
        return self.name in MENDABLE

    def prepare(self, root: Path) -> None:
        """The workspace in which `lily jobs run a` ends that way."""
        (root / ".lily" / "blueprints").mkdir()
        (root / ".lily" / "blueprints" / "wrong.py").write_text(BLUEPRINTS)
        (root / ".lily" / "blueprints" / "one.py").write_text(TWICE)
        (root / ".lily" / "blueprints" / "two.py").write_text(TWICE)
        if self.config:
            (root / ".lily" / "config.yaml").write_text(json.dumps(self.config))
        write_job(root, "a", **self.job)


MENDABLE = {"exit code", "signal", "timeout", "exception", "SystemExit", "envelope of error", "LLM and fallback"}
SOON = {"required": True, "ttl_hours": 0.0001}  # a third of a second
MIDWAY = {"ttl_hours": 0.0001}
SENDS = {**target("t.sends.v1"), "capabilities": ["message.send"]}
FAILED, DENIED = Code.JOB_EXECUTION_FAILED, Code.JOB_POLICY_DENIED
EXECUTION, CONTRACT = "blueprint_execution_failed", "blueprint_contract_invalid"
RUNS = [
    Failing("unknown target", Code.JOB_TARGET_UNRESOLVED, "blueprint_not_found", target("nobody.v1"), False, says="no blueprint nobody.v1"),
    Failing("other version", Code.JOB_TARGET_UNRESOLVED, "blueprint_not_found", target("command.v1", version=">=2"), False, says="1.0.0"),
    Failing("defined twice", Code.JOB_TARGET_UNRESOLVED, "blueprint_duplicate", target("t.twice.v1"), False, says="two.py"),
    Failing("bindings", Code.JOB_BINDINGS_INVALID, "blueprint_bindings_invalid", {"bindings": {"argv": []}}, False, says="argv"),
    Failing("exit code", FAILED, EXECUTION, {"bindings": shell("echo bad luck >&2; exit 3")}, says="exited with 3: bad luck"),
    Failing("signal", FAILED, EXECUTION, {"bindings": shell("kill -KILL $$")}, says="SIGKILL"),
    Failing("no program", FAILED, EXECUTION, {"bindings": {"argv": ["no-such-program"]}}, says="no-such-program"),
    Failing("timeout", FAILED, EXECUTION, {"bindings": shell("sleep 60"), "runtime": {"timeout_seconds": 0.2}}, says="timed out"),
    Failing("exception", FAILED, EXECUTION, target("t.raises.v1"), says="ValueError: out of range"),
    Failing("SystemExit", FAILED, EXECUTION, target("t.exits.v1"), says="SystemExit"),
    Failing("own code", FAILED, "quota_used_up", target("t.own.v1"), says="no quota"),
    Failing("envelope of error", FAILED, "no_luck", target("t.says_error.v1"), says="no luck"),
    Failing("NaN", FAILED, CONTRACT, target("t.nan.v1"), says="payload.ratio"),
    Failing("bad envelope", FAILED, CONTRACT, target("t.envelope.v1"), says="status"),
    Failing("output schema", FAILED, CONTRACT, target("t.output.v1"), says="name"),
    Failing("no file left", FAILED, CONTRACT, {"output": {"artifacts": ["*.csv"]}}, says="*.csv"),
    Failing("input", FAILED, EXECUTION, {**target("t.input.v1"), "bindings": {"name": "x"}}, False, says="name"),
    Failing("compile raises", FAILED, "blueprint_compile_failed", target("t.unbuildable.v1"), False, says="a part is missing"),
    Failing("unknown members", FAILED, "blueprint_compile_failed", council({"specialists": ["x.v1", "y.v1"]}), False, says="y.v1"),
    Failing("artifact's name", FAILED, "artifact_name_invalid", target("t.artifact.v1"), says="outside.txt"),
    Failing("inner target", FAILED, "blueprint_not_found", target("t.missing.v1"), says="nobody.v1"),
    Failing("LLM without a key", FAILED, "llm_synth_failed", council(LLM), says="NOT_SET_ANYWHERE"),
    Failing("LLM and fallback", FAILED, "llm_synth_fallback_failed", council(FALLING), says="no ink"),
    Failing("not granted", DENIED, None, {"capabilities": []}, False, says="process.exec"),
    Failing("denied", DENIED, None, {}, False, {"policy": {"capabilities": {"process.exec": "deny"}}}, says="process.exec is denied"),
    Failing("nobody approves", Code.APPROVAL_EXPIRED, None, {"approval": SOON}, False, says="nobody approved job a"),
    Failing("nobody allows", Code.APPROVAL_EXPIRED, None, {**SENDS, "approval": SOON}, False, says="capability message.send"),
    Failing("nobody lets it go on", Code.APPROVAL_EXPIRED, None, {**target("t.approval.v1"), "approval": MIDWAY}, says="the launch"),
    Failing("unknown", DENIED, None, {**target("t.launches.v1"), "capabilities": ["rocket.launch"]}, False, says="rocket.launch"),
    Failing("caps over the maximum", DENIED, None, {"runtime": {"cpu_seconds": 9}}, False, {"policy": {"max": {"cpu_seconds": 5}}}, "is 9"),
    Failing("caps in process", DENIED, None, {**council({}), "runtime": {"memory_mb": 64}}, False, says="memory_mb"),
    Failing("inner capability", DENIED, None, target("t.nested.v1"), says="process.exec"),
    Failing("folder outside", DENIED, None, {"bindings": {"argv": ["true"], "cwd": "/"}}, False, says="outside of the workspace"),
]


Words = tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A command that is refused with this code, and leaves no run."""

    name: str
    code: Code
    prepare: Callable[[Path], Words]
    json: bool = True  # the command has the option


def spec(**changes: Any) -> Callable[[Path], Words]:
    """A job of which the file says this, and the command that would run it."""

    def prepare(root: Path) -> Words:
        write_job(root, "a", **changes)
        return ("jobs", "run", "a")

    return prepare


def ran(*words: str) -> Callable[[Path], Words]:
    """The command after one run of a job has ended."""

    def prepare(root: Path) -> Words:
        write_job(root, "a")
        with Session(root) as session:
            run_id = session.run("a").run_id
        return (*words[:2], run_id, *words[2:])

    return prepare


def plain(*words: str) -> Callable[[Path], Words]:
    """The command in a workspace where nothing is wrong."""
    return lambda root: words


def crowded(priority: str, queued: int) -> Callable[[Path], Words]:
    """A queue of five in which so many wait, and one more that is to be stored and left."""

    def prepare(root: Path) -> Words:
        (root / ".lily" / "config.yaml").write_text("queue: {max_size: 5}\n")
        write_job(root, "b", runtime={"priority": "critical"})
        write_job(root, "a", runtime={"priority": priority})
        with Session(root) as session:
            for _ in range(queued):
                session.submit("b")
        return ("jobs", "run", "a", "--detach")

    return prepare


def _manual_pause(root: Path) -> Words:
    write_job(root, "a")
    return ("jobs", "pause", "a")


def _enable_paused(root: Path) -> Words:
    write_job(root, "a", trigger={"type": "interval", "every": "1h"})
    with Session(root) as session:
        Windows(session.store).change(["a"], Control(at=datetime(2026, 3, 2, tzinfo=UTC), state=State.PAUSED))
    return ("jobs", "enable", "a")


def _not_an_approver(root: Path) -> Words:
    write_job(root, "a", approval={"approvers": ["nobody-here"]})
    with Session(root) as session:
        run_id = session.run("a").run_id
    return ("runs", "replay", run_id, "--approve", "--reason", "in a hurry")


def _two_files(root: Path) -> Words:
    write_job(root, "a")
    write_job(root, "a", name="b")
    return ("jobs", "run", "a")


def _duplicate(root: Path) -> Words:
    Failing("", FAILED, None, {}).prepare(root)
    return ("blueprints", "show", "t.twice.v1")


def _elsewhere(root: Path) -> Words:
    (root / "empty").mkdir()
    return ("jobs", "list", "--workspace", str(root / "empty"))


def _file(root: Path) -> Words:
    (root / "file").touch()
    return ("init", str(root / "file"))


def _config(root: Path) -> Words:
    (root / ".lily" / "config.yaml").write_text("queue:\n  max_concurrent: many\n")
    return ("config", "validate")


def _driver(root: Path) -> Words:
    (root / ".lily" / "config.yaml").write_text("store:\n  url: mysql://here/there\n")
    return ("runs", "list")


def _garbage(root: Path) -> Words:
    (root / "db" / "lily.sqlite3").write_bytes(b"this is no database, whatever its name says" * 100)
    return ("runs", "list")


def _nobody_listens(root: Path) -> Words:
    (root / ".lily" / "config.yaml").write_text("store:\n  url: postgresql://nobody@127.0.0.1:9/none?connect_timeout=2\n")
    return ("runs", "list")


def _newer(root: Path) -> Words:
    with sqlite3.connect(root / "db" / "lily.sqlite3") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    return ("runs", "list")


def _paused_worker(root: Path) -> Words:
    write_job(root, "a")
    with Session(root) as session:
        pause(session.store, Actor(name="ada"), "moving house", datetime(2026, 3, 2, tzinfo=UTC))
    return ("jobs", "run", "a")


def _disabled_worker(root: Path) -> Words:
    (root / ".lily" / "config.yaml").write_text("worker: {enabled: false}\n")
    write_job(root, "a")
    return ("jobs", "run", "a")


REFUSALS = [
    Refusal("no such job", Code.JOB_NOT_FOUND, plain("jobs", "run", "nobody")),
    Refusal("no job id", Code.JOB_NOT_FOUND, plain("jobs", "history", "../../x")),
    Refusal("blank title", Code.JOB_INVALID_SPEC, spec(title="")),
    Refusal("no bindings", Code.JOB_INVALID_SPEC, spec(bindings=None)),
    Refusal("a number as text", Code.JOB_INVALID_SPEC, spec(runtime={"timeout_seconds": "30"})),
    Refusal("one id in two files", Code.JOB_INVALID_SPEC, _two_files),
    Refusal("cron without a zone", Code.JOB_TRIGGER_INVALID, spec(trigger={"type": "cron", "cron": "* * * * *"})),
    Refusal(
        "a calendar that never comes",
        Code.JOB_TRIGGER_INVALID,
        spec(trigger={"type": "calendar", "rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "anchor": "2026-05-04T09:00"}, timezone="UTC"),
    ),
    Refusal("pause of a manual job", Code.JOB_TRIGGER_INVALID, _manual_pause),
    Refusal("enable what is paused", Code.JOB_STATE_INVALID, _enable_paused),
    Refusal("no such zone", Code.JOB_TRIGGER_INVALID, spec(timezone="Mars/Base")),
    Refusal("no such blueprint", Code.BLUEPRINT_NOT_FOUND, plain("blueprints", "show", "nobody.v1")),
    Refusal("blueprint twice", Code.BLUEPRINT_DUPLICATE, _duplicate),
    Refusal("no such run", Code.RUN_NOT_FOUND, plain("runs", "show", "20260504T041500.123456Z-k3f9")),
    Refusal("no run id", Code.RUN_NOT_FOUND, plain("runs", "show", "../x")),
    Refusal("a run that is no dead letter", Code.DEAD_LETTER_NOT_FOUND, ran("dlq", "show")),
    Refusal("a finding that no review made", Code.FINDING_NOT_FOUND, plain("review", "show", "failing:a")),
    Refusal("cancel what has ended", Code.RUN_STATE_INVALID, ran("runs", "cancel")),
    Refusal("over the mark", Code.QUEUE_BACKPRESSURE, crowded("normal", 4)),
    Refusal("full", Code.QUEUE_FULL, crowded("critical", 5)),
    Refusal("approve what has ended", Code.RUN_STATE_INVALID, ran("approvals", "approve")),
    Refusal("approve as somebody else", Code.APPROVAL_FORBIDDEN, _not_an_approver),
    Refusal("no workspace", Code.WORKSPACE_NOT_FOUND, _elsewhere),
    Refusal("a file for a folder", Code.WORKSPACE_INVALID, _file, json=False),
    Refusal("config", Code.CONFIG_INVALID, _config),
    Refusal("database of another kind", Code.CONFIG_INVALID, _driver),
    Refusal("nobody to stop", Code.SUPERVISOR_NOT_RUNNING, plain("down"), json=False),
    Refusal("nobody may run it", Code.WORKER_PAUSED, _paused_worker),
    Refusal("a worker that is off", Code.WORKER_PAUSED, _disabled_worker),
    Refusal("a store of garbage", Code.STORE_UNAVAILABLE, _garbage),
    Refusal("a store that is away", Code.STORE_UNAVAILABLE, _nobody_listens),
    Refusal("a store of tomorrow", Code.STORE_SCHEMA_NEWER, _newer),
    Refusal("no such command", Code.USAGE, plain("jobs", "nothing")),
    Refusal("no such option", Code.USAGE, plain("jobs", "list", "--colour")),
]


@contextmanager
def owned(root: Path) -> Iterator[None]:
    """The workspace is held, as a supervisor holds it."""
    lock = OwnerLock(lock_path(Workspace(root)))
    lock.acquire(kind="up", since="2026-05-04T04:15:00.123456Z", life="test")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """`folder` on a file system of one megabyte; False, and nothing done, where that may not be mounted."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    with open(folder / "full", "wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
