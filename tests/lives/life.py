"""Several lives of one workspace from one seed: random work, random endings, and what must hold after each."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
from pydantic import BaseModel

from actors.messages import Rung
from actors.supervisor import Escalated, Intensity
from lily.blueprints.contract import BlueprintError, ProcessRequest
from lily.blueprints.define import blueprint
from lily.dead_letters import is_dead
from lily.engines.fake_processes import Program
from lily.errors import LilyError
from lily.operations.approvals import Decision, decide_run
from lily.operations.changes import cancel
from lily.operations.verify_runs import Tally, verify
from lily.runs import FILE_ONLY, FINAL, TERMINAL, Run, Status
from lily.storage.artifacts import whole
from lily.storage.letters import Letters
from lily.testing import FakeProcesses, World
from lily.workspace import EVENTS
from tests.lives.seams import Killed, Seams
from tests.work import without_fsync

KINDS = ("noop", "nap", "slow", "flaky", "doomed", "steps", "chatty", "files", "program", "stubborn", "missing", "odd", "asks")
MOST_PARALLEL = {"serial": 1, "pair": 2, "many": 8}
RETRY_MAX = 2
PROGRAMS = {
    "quick": Program(duration=0.5, stdout="line\n" * 5, escapes=1),
    "stubborn": Program(duration=60, ignores_term_for=3.0, stderr="no\n"),
}


class Work(BaseModel):
    """What a run of `work.v1` does."""

    kind: str
    seconds: float = 0.0
    until: int = 0


@dataclass
class Lives:
    """What was seen of one seed's lives. `broken` has every promise that was not kept."""

    world: World
    seams: Seams
    dice: random.Random
    runs: dict[str, str] = field(default_factory=dict)  # accepted run ids, with their jobs
    said: dict[str, str] = field(default_factory=dict)  # what persons decided first, by run, where the store took it
    ended: dict[str, Run] = field(default_factory=dict)  # as they were when first seen terminal
    under_way: Counter[str] = field(default_factory=Counter)  # attempts by job
    bodies: Counter[str] = field(default_factory=Counter)  # attempts by run, whose body began
    endings: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, holds: bool, said: str) -> None:
        """Note a promise that was not kept; a test that raised here would only fail one attempt."""
        if not holds:
            self.broken.append(said)


def one_life(seed: int, root: Path, *, url: str = "") -> Lives:
    """The lives of one seed, checked after each and at the end. The caller closes `world`."""
    dice = random.Random(seed)
    seams = Seams(random.Random(seed + 1_000_000))
    processes = FakeProcesses(programs=PROGRAMS)
    world = World(root, seed=seed, slots=dice.choice([1, 2, 4]), processes=processes, url=url)
    without_fsync(world.store)
    lives = Lives(world, seams, dice)
    world.registry.register(_work(lives))
    with seams.installed(world.store):
        for _ in range(dice.randrange(2, 5)):
            _broken_life(lives)
            _check_between(lives)
            world.clock.jump(seconds=dice.choice([0, 0, 7.5, 300, -3]))
        seams.begin(crash=0, kill=0, io=0)
        lives.crashes += world.live(_to_the_end(lives)).crashes
        _check_between(lives)
        _check_end(lives)
    return lives


# -- what runs do ----------------------------------------------------------------------------------


def _work(lives: Lives) -> Any:
    @blueprint("work.v1", bindings=Work, capabilities=["process.exec"])
    async def work(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """One kind of work, watched."""
        job, most = ctx.job_id, MOST_PARALLEL[ctx.job_id]
        lives.bodies[ctx.run_id] += 1
        lives.under_way[job] += 1
        stored = lives.world.run(ctx.run_id)
        try:
            lives.expect(lives.under_way[job] <= most, f"{ctx.run_id}: {lives.under_way[job]} runs of {job} at a time")
            lives.expect(stored.status is Status.RUNNING or stored.status in TERMINAL, f"{ctx.run_id}: began while {stored.status}")
            undecided = [each for each in stored.approvals if each["decision"] != "approved"]
            lives.expect(not undecided, f"{ctx.run_id}: began with {undecided}")
            needed = lives.world.store.spec(stored.spec_hash).approval
            lives.expect(not (needed and needed["required"]) or bool(stored.approvals), f"{ctx.run_id}: began and never asked")
            lives.expect(stored.attempts[-1].number == ctx.attempt, f"{ctx.run_id}: attempt {ctx.attempt} began before it was stored")
            return await _WORK[bindings.kind](lives, ctx, bindings)
        finally:
            lives.under_way[job] -= 1

    return work


async def _noop(lives: Lives, ctx: Any, bindings: Any) -> Any:
    return {}


async def _nap(lives: Lives, ctx: Any, bindings: Any) -> Any:
    await anyio.sleep(bindings.seconds)
    return {"slept": bindings.seconds}


async def _slow(lives: Lives, ctx: Any, bindings: Any) -> Any:
    await anyio.sleep(1000)


async def _flaky(lives: Lives, ctx: Any, bindings: Any) -> Any:
    await anyio.sleep(bindings.seconds)
    if ctx.attempt <= bindings.until:
        raise ValueError(f"attempt {ctx.attempt}")
    return {"attempt": ctx.attempt}


async def _doomed(lives: Lives, ctx: Any, bindings: Any) -> Any:
    raise BlueprintError("never", retryable=False)


async def _steps(lives: Lives, ctx: Any, bindings: Any) -> Any:
    results = []
    for name in ("one", "two", "three"):

        async def body(name: str = name) -> str:
            done = name in lives.world.store.steps(ctx.run_id)
            lives.expect(not done, f"{ctx.run_id}: step {name} ran again after it was stored")
            await anyio.sleep(bindings.seconds)
            return name * 2

        results.append(await ctx.step(name, body))
        if ctx.attempt <= bindings.until:
            raise ValueError("between steps")
    return results


async def _asks(lives: Lives, ctx: Any, bindings: Any) -> Any:
    async def before() -> str:
        lives.expect("before" not in lives.world.store.steps(ctx.run_id), f"{ctx.run_id}: a step ran again after it was stored")
        return "done"

    await ctx.step("before", before)
    await ctx.request_approval("to go on")
    approved = [each for each in lives.world.run(ctx.run_id).approvals if each["what"] == "to go on" and each["decision"] == "approved"]
    lives.expect(bool(approved), f"{ctx.run_id}: went on without leave")
    await anyio.sleep(bindings.seconds)
    return {}


async def _chatty(lives: Lives, ctx: Any, bindings: Any) -> Any:
    for i in range(30):
        await ctx.log.info(f"line {i}", size="x" * 40)
        await ctx.progress(i, 30)
        if i % 10 == 0:
            await anyio.sleep(0.2)
    return {"lines": 30}


async def _files(lives: Lives, ctx: Any, bindings: Any) -> Any:
    for name in ("a.txt", "b.bin"):
        with ctx.artifact(name) as file:
            file.write(name.encode() * 10)
        await anyio.sleep(bindings.seconds)
    return {}


async def _program(lives: Lives, ctx: Any, bindings: Any) -> Any:
    name = "quick" if bindings.kind == "program" else "stubborn"
    alive = [call.identity["LILY_RUN_ID"] for call in lives.world.processes.alive]
    lives.expect(ctx.run_id not in alive, f"{ctx.run_id}: attempt {ctx.attempt} began while a process of an earlier one lived")
    return {"exit_code": (await ctx.run_process(ProcessRequest(argv=[name]))).exit_code}


async def _odd(lives: Lives, ctx: Any, bindings: Any) -> Any:
    await anyio.sleep(bindings.seconds)
    raise [SystemExit(2), KeyboardInterrupt(), GeneratorExit(), BaseException("bare"), ExceptionGroup("g", [ValueError()])][ctx.attempt % 5]


_WORK: dict[str, Callable[[Lives, Any, Any], Any]] = {
    "noop": _noop,
    "nap": _nap,
    "slow": _slow,
    "flaky": _flaky,
    "doomed": _doomed,
    "steps": _steps,
    "chatty": _chatty,
    "files": _files,
    "program": _program,
    "stubborn": _program,
    "odd": _odd,
    "asks": _asks,
}


# -- one life --------------------------------------------------------------------------------------


def _broken_life(lives: Lives) -> None:
    dice, seams = lives.dice, lives.seams
    crash, kill, io = dice.choice([(0.03, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.05), (0.01, 0.004, 0.02), (0.08, 0.004, 0.0)])
    seams.begin(crash=crash, kill=kill, io=io)
    intensity = Intensity(restarts=dice.choice([5, 50]))
    try:
        lives.world.live(_random_work(lives), fault=seams, intensity=intensity)
        lives.endings["left"] += 1
    except BaseExceptionGroup as group:
        escalated, _ = group.split(Escalated)
        killed, _ = group.split(Killed)
        lives.endings["killed" if killed else "escalated" if escalated else "other"] += 1
        if not (killed or escalated):
            raise
    assert lives.world.system is not None
    lives.crashes += lives.world.system.crashes


def _random_work(lives: Lives) -> Callable[[World], Any]:
    dice = lives.dice

    async def body(world: World) -> None:
        assert world.system is not None
        for _ in range(dice.randrange(3, 12)):
            _submit(lives)
            if dice.random() < 0.3:
                _cancel(lives)
            if dice.random() < 0.5:
                _decide(lives)
            if dice.random() < 0.7:
                _ring(world)
            await anyio.sleep(dice.choice([0, 0, 0.1, 0.7, 3.0, 9.0]))
        match dice.choice(["kill", "drain", "now", "leave"]):
            case "kill":
                raise lives.seams.kill("at any moment")
            case "drain":
                world.system.drain(5.0)
            case "now":
                world.system.drain(0.0)
                await anyio.sleep(0.0)

    return body


def _to_the_end(lives: Lives) -> Callable[[World], Any]:
    async def body(world: World) -> None:
        for _ in range(500):
            runs = [world.run(run_id) for run_id in lives.runs]
            if all(run.status in TERMINAL and run.written for run in runs):
                return
            _decide(lives)
            await anyio.sleep(5)
        lives.expect(False, f"not ended: {[(run.run_id, run.status, run.written) for run in runs if not run.written]}")

    return body


def _ring(world: World) -> None:
    assert world.system is not None
    try:
        world.system.runner_box.post(Rung())
    except anyio.ClosedResourceError:
        return  # this life ends already


def _submit(lives: Lives) -> None:
    dice = lives.dice
    kind, job = dice.choice(KINDS), dice.choice(list(MOST_PARALLEL))
    key = dice.choice([None, None, "k1", "k2"])
    bindings = {"kind": kind, "seconds": dice.choice([0.0, 0.3, 4.0]), "until": dice.randrange(4)}
    backoff = {"strategy": dice.choice(["none", "fixed", "exponential"]), "base_seconds": 3, "max_seconds": 10, "jitter": 0.5}
    runtime = {
        "timeout_seconds": 6,
        "retry_max": dice.randrange(RETRY_MAX + 1),
        "max_parallel_runs": MOST_PARALLEL[job],
        "backoff": backoff,
    }
    target = "unknown.v1" if kind == "missing" else "work.v1"
    holder = {run.key: run.run_id for run in map(lives.world.run, lives.runs) if run.key and run.status not in TERMINAL}
    asked = {"required": dice.random() < 0.2, "ttl_hours": dice.choice([0.003, 1.0]), "warn_hours": 0.002}
    run = lives.world.submit(target, job_id=job, key=key, bindings=bindings, runtime=runtime, capabilities=["process.exec"], approval=asked)
    if key in holder:
        lives.expect(run.run_id == holder[key], f"{run.run_id}: key {key} was held by {holder[key]}")
    else:
        lives.expect(run.run_id not in lives.runs, f"{run.run_id}: given out twice")
        lives.expect(not lives.runs or run.run_id > max(lives.runs), f"{run.run_id}: does not sort after those before it")
    lives.runs[run.run_id] = run.job_id


def _cancel(lives: Lives) -> None:
    try:
        cancel(lives.world.workspace, lives.world.store, lives.dice.choice(list(lives.runs)), by="dice", reason="", clock=lives.world.clock)
    except (LilyError, Killed):
        return  # ended meanwhile, or the store is away


def _decide(lives: Lives) -> None:
    """Somebody decides about one of the runs, which may not wait at all."""
    world, dice = lives.world, lives.dice
    waiting = [run_id for run_id in lives.runs if world.run(run_id).status is Status.WAITING_APPROVAL]
    if not waiting:
        return
    run_id, word = dice.choice(waiting), dice.choice(["approved", "approved", "denied"])
    try:
        decide_run(world.workspace, world.store, run_id, Decision(word, "dice"), clock=world.clock)
    except (LilyError, Killed):
        return  # too late, or the store is away
    if word == "denied":
        lives.said[run_id] = word


# -- what must hold --------------------------------------------------------------------------------


def _check_between(lives: Lives) -> None:
    """After every life: each accepted run is owed or terminal; what is terminal stays as it is; what is marked written is whole."""
    world, expect = lives.world, lives.expect
    expect(not +lives.under_way, f"attempts outlived their life: {dict(+lives.under_way)}")
    for finding in verify(world.workspace, world.store, Tally()):
        expect(False, f"{finding.run_id}: {finding.code}: {finding.what}")
    for run_id in lives.runs:
        run = world.run(run_id)
        expect(len(world.stored(run_id)) == run.events, f"{run_id}: {run.events} events, rows are {len(world.stored(run_id))}")
        if run.status not in TERMINAL:
            continue
        if run.written:
            expect(whole(world.workspace, run), f"{run_id}: marked as written, and not whole")
        before = lives.ended.setdefault(run_id, run)
        expect(
            msgspec.structs.replace(run, written=False) == msgspec.structs.replace(before, written=False),
            f"{run_id}: changed after its end",
        )


def _check_end(lives: Lives) -> None:
    for run_id in lives.runs:
        _check_run(lives, lives.world.run(run_id))
    expect = lives.expect
    expect(not lives.world.store.unwritten(), "artifacts are still owed")
    expect(not lives.world.processes.alive, "processes are still alive")


def _check_run(lives: Lives, run: Run) -> None:
    world, run_id = lives.world, run.run_id

    def expect(holds: bool, said: str) -> None:
        lives.expect(holds, f"{run_id} ({run.status}): {said}")

    expect(run.status in TERMINAL, "has not ended")
    expect(whole(world.workspace, run), "artifacts are not whole")
    lines = world.lines(run_id)
    names = [line["event"] for line in lines]
    expect([line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "seq has gaps")
    expect(sum(name in FINAL for name in names) == 1 and names[-1] in FINAL, f"final events: {names}")
    told = [line for line in lines if line["event"] not in FILE_ONLY]
    kept = [{"event": event.event.value, "ts": event.ts, **event.data} for event in world.stored(run_id)]
    given = [{key: value for key, value in line.items() if key not in ("seq", "job_id", "run_id")} for line in told]
    expect(given == kept, f"the file tells {[line['event'] for line in told]}, the store {[row['event'] for row in kept]}")
    _check_receipt(world, run, expect)
    _check_letter(world, run, names, expect)
    retry_max = world.store.spec(run.spec_hash).runtime.retry_max
    expect(run.tries <= retry_max + 1, f"{run.tries} tries with retry_max {retry_max}")
    expect(run.interruptions <= 4, f"{run.interruptions} interruptions")
    expect(lives.bodies[run_id] <= len(run.attempts), f"{lives.bodies[run_id]} bodies in {len(run.attempts)} attempts")
    charged = [attempt for attempt in run.attempts if attempt.status not in ("interrupted", "canceled", "waiting_approval")]
    expect(len(charged) == run.tries, f"{run.tries} tries, attempts are {[attempt.status for attempt in run.attempts]}")
    expect(all(attempt.ended_at for attempt in run.attempts), "an attempt has no end")
    _check_approvals(run, lives.said.get(run_id), expect)
    left = [path.name for path in world.workspace.run_dir(run.job_id, run_id).iterdir() if path.name.startswith(".")]
    expect(not left, f"half-written files stay: {left}")


def _check_letter(world: World, run: Run, names: list[str], expect: Callable[[bool, str], None]) -> None:
    letter = Letters(world.store).find(run.run_id)
    dead = run.error is not None and is_dead(run.error)
    expect((letter is not None) == dead, f"dead: {dead}, in the box: {letter is not None}")
    expect(names.count("job_dead_lettered") == dead, f"dead: {dead}, events {names}")
    if letter is not None and run.error is not None:
        expect((letter.reason, letter.attempts) == (run.error.message, run.attempts), "the letter differs from the run")


def _check_approvals(run: Run, said: str | None, expect: Callable[[bool, str], None]) -> None:
    decisions, code = [each["decision"] for each in run.approvals], run.error.code if run.error else None
    expect(said is None or code == "approval_denied", f"was denied, and is {code}")
    expect((code == "approval_expired") == ("expired" in decisions), f"{code} with {decisions}")
    expect((code == "approval_denied") == ("denied" in decisions), f"{code} with {decisions}")
    expect(None not in decisions or run.status is Status.CANCELED, f"ended with {decisions}")
    expect([each["number"] for each in run.approvals] == list(range(1, len(decisions) + 1)), f"numbers: {run.approvals}")
    for each in run.approvals:
        late = each["decision"] == "expired" and each["decided_at"] < each["expires_at"]
        expect(not late, "expired before its time")


def _check_receipt(world: World, run: Run, expect: Callable[[bool, str], None]) -> None:
    receipt = world.receipt(run.run_id)
    expect(
        (receipt.status, receipt.ended_at, receipt.error) == (run.status.value, run.ended_at, run.error),
        "the receipt differs from the store",
    )
    expect([a.status for a in receipt.attempts] == [a.status for a in run.attempts], "the receipt's attempts differ")
    expect(receipt.payload == run.result.get("payload"), "the receipt's payload differs")
    expect((run.error is None) == (run.status is not Status.FAILED), f"error {run.error}")
    expect(EVENTS in {file.name for file in receipt.artifacts}, "the receipt does not name the events")
