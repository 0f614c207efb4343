"""Runs that wait for a person, in virtual time: asked once, decided once, expired on the second, and the same after every crash."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import select

from lily.approvals.gh import GhError
from lily.approvals.labels import Issue, Label
from lily.approvals.record import approvals_of
from lily.blueprints.define import blueprint
from lily.clock import parse_stamp, stamp
from lily.errors import LilyError
from lily.operations.approvals import Decision, decide_run
from lily.operations.changes import cancel, replay
from lily.operations.verify_runs import Tally, verify
from lily.runs import Run, Status
from lily.settings import Settings
from lily.storage import schema
from lily.storage.approvals import check_of
from lily.storage.audit import Actor
from lily.storage.cancels import cancel_runs
from lily.testing import World, run_blueprint
from lily.testing.clock import FakeClock
from tests.actors.conftest import MakeWorld
from tests.work import noop

LONG = 600.0
REQUIRED = {"required": True}
QUICK = {"required": True, "ttl_hours": 0.1, "warn_hours": 0.05}  # 360 s, a warning after 180

ran: list[tuple[str, str]] = []


@blueprint("asks.v1")
async def asks(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """One step, then a question, then another step."""

    async def note(name: str) -> str:
        ran.append((ctx.run_id, name))
        return name

    await ctx.step("before", lambda: note("before"))
    await ctx.request_approval("the launch", why="it is loud")
    await ctx.step("after", lambda: note("after"))
    return {"approved_by": [each["by"] for each in ctx.approvals]}


@blueprint("sends.v1", capabilities=["message.send"])
async def sends(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Needs what the policy asks about."""
    return {"sent": True}


@blueprint("sends_inside.v1")
async def sends_inside(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Finds out midway that it needs it."""
    return {"inner": (await ctx.run_blueprint("sends.v1", {}, name="inner")).payload}


@blueprint("deaf.v1")
async def deaf(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Takes no for an answer, or for none."""
    try:
        await ctx.request_approval("the launch")
    except BaseException:
        return {"launched": True}
    return {"launched": "with leave"}


@blueprint("shielded.v1")
async def shielded(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Asks where a cancellation does not come through."""
    with anyio.CancelScope(shield=True):
        await ctx.request_approval("the launch")
    return {}


@blueprint("two_at_once.v1")
async def two_at_once(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Two questions at the same time."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ctx.request_approval, "the one")
        tasks.start_soon(ctx.request_approval, "the other")
    return {}


class FakeGitHub:
    """An issue tracker in memory. `labels` by issue number; `fails` is what goes wrong; `takes` is how long it takes."""

    def __init__(self) -> None:
        self.of: dict[str, list[Label]] = {}
        self.fails: GhError | None = None
        self.takes = 0.0
        self.looks: list[tuple[float, Issue]] = []

    async def labels(self, issue: Issue) -> list[Label]:
        """As `Gh.labels`."""
        self.looks.append((anyio.current_time(), issue))
        await anyio.sleep(self.takes)
        if self.fails is not None:
            raise self.fails
        return self.of.get(issue.number, [])


@pytest.fixture
def github() -> FakeGitHub:
    return FakeGitHub()


@pytest.fixture
def world(make_world: MakeWorld, github: FakeGitHub) -> World:
    """A World with the blueprints above and a GitHub in memory."""
    ran.clear()
    return make_world(asks, sends, sends_inside, deaf, shielded, two_at_once, github=github)


def live(world: World, *doing: Callable[[], Awaitable[None]], **options: Any) -> None:
    """One life in which these things are done, one after the other."""

    async def body(world: World) -> None:
        for each in doing:
            await each()

    world.live(body, **options)


def until(world: World, run: Run, status: Status, most: float = 50_000.0) -> Callable[[], Awaitable[None]]:
    """Wait until the run is there."""

    async def wait() -> None:
        with anyio.fail_after(most):
            while world.run(run.run_id).status is not status:  # noqa: ASYNC110 - virtual time; the store tells nobody
                await anyio.sleep(1.0)

    return wait


def ended(world: World, *runs: Run) -> Callable[[], Awaitable[None]]:
    """Wait until these runs have ended and left their artifacts."""

    async def wait() -> None:
        await world.ended(*(run.run_id for run in runs))

    return wait


def pause(seconds: float) -> Callable[[], Awaitable[None]]:
    """Let time pass."""

    async def wait() -> None:
        await anyio.sleep(seconds)

    return wait


def decides(world: World, run: Run, decision: str = "approved", by: str = "ann", note: str = "fine") -> Callable[[], Awaitable[None]]:
    """Decide as the command does; the supervisor finds it in the store."""

    async def decide() -> None:
        decide_run(world.workspace, world.store, run.run_id, Decision(decision, by, note), clock=world.clock)

    return decide


def since_start(world: World, run: Run, at: str | None) -> float:
    """Seconds from the run's acceptance."""
    assert at is not None
    return round((parse_stamp(at) - parse_stamp(run.queued_at)).total_seconds(), 3)


def code(world: World, run: Run) -> str:
    """The code with which the run failed."""
    error = world.run(run.run_id).error
    assert error is not None
    return error.code


# -- before the start ------------------------------------------------------------------------------


def test_a_run_with_one_try_waits_without_an_attempt_and_runs_once_after_approval(world: World) -> None:
    """It takes no slot while it waits, and sees its approval in the context and in its receipt."""
    run = world.submit("noop.v1", approval=REQUIRED, runtime={"retry_max": 0})
    live(world, until(world, run, Status.WAITING_APPROVAL), pause(100), decides(world, run), ended(world, run))
    found = world.run(run.run_id)
    assert (found.status, found.tries, len(found.attempts)) == (Status.SUCCEEDED, 1, 1)
    assert world.names(run.run_id)[:4] == ["job_queued", "job_waiting_approval", "job_approved", "job_queued"]
    (approval,) = world.receipt(run.run_id).approvals
    assert (approval.decision, approval.by, approval.channel, approval.note) == ("approved", "ann", "local", "fine")
    assert "Approved by ann at " in (world.workspace.run_dir("job", run.run_id) / "summary.md").read_text()


def test_a_waiting_run_gives_its_slot_to_others(make_world: MakeWorld) -> None:
    """With one slot, the next job runs at once."""
    world = make_world(slots=1)
    first, second = world.submit("noop.v1", job_id="a", approval=REQUIRED), world.submit("noop.v1", job_id="b")
    live(world, ended(world, second), decides(world, first), ended(world, first))
    assert since_start(world, second, world.run(second.run_id).ended_at) == 0.0


def test_a_waiting_run_holds_one_of_its_jobs_parallel_runs(world: World) -> None:
    """The second run of the job comes up when the first has ended, and asks for itself."""
    first, second = (world.submit("noop.v1", approval=REQUIRED) for _ in range(2))

    async def second_is_queued() -> None:
        assert world.run(second.run_id).status is Status.QUEUED

    asked = until(world, second, Status.WAITING_APPROVAL)
    live(
        world, until(world, first, Status.WAITING_APPROVAL), pause(30), second_is_queued, decides(world, first), ended(world, first), asked
    )


def test_that_holds_after_a_restart(world: World) -> None:
    """The next life reads from the store who waits."""
    first, second = (world.submit("noop.v1", approval=REQUIRED) for _ in range(2))
    live(world, until(world, first, Status.WAITING_APPROVAL))
    live(world, pause(30))
    assert [world.run(run.run_id).status for run in (first, second)] == [Status.WAITING_APPROVAL, Status.QUEUED]


@pytest.mark.parametrize("decision", ["denied", "expired"])
def test_no_approval_is_an_end_with_its_code_and_its_files(world: World, decision: str) -> None:
    """Denied or expired: a receipt, an event of its own, no attempt; the job's next run may come up."""
    run, next_run = world.submit("noop.v1", approval=QUICK), world.submit("noop.v1")
    how = [decides(world, run, "denied", note="not today")] if decision == "denied" else []
    live(world, until(world, run, Status.WAITING_APPROVAL), *how, ended(world, run, next_run))
    receipt = world.receipt(run.run_id)
    assert receipt.error is not None
    assert (receipt.status, receipt.error.code, receipt.attempts) == ("failed", f"approval_{decision}", [])
    assert [each.decision for each in receipt.approvals] == [decision]
    assert world.names(run.run_id)[-2:] == [f"job_approval_{decision}", "job_failed"]
    if decision == "denied":
        assert "not today" in receipt.error.message
    else:
        assert since_start(world, run, receipt.ended_at) == 360.0


def test_the_warning_comes_once_also_over_restarts(world: World) -> None:
    """At its time, and never again."""
    run = world.submit("noop.v1", approval=QUICK)
    live(world, pause(200))
    live(world, pause(20))
    live(world, ended(world, run))
    warnings = [event for event in world.stored(run.run_id) if event.event.value == "job_approval_expiring"]
    assert [since_start(world, run, event.ts) for event in warnings] == [180.0]


def test_time_in_the_queue_before_and_after_does_not_count(make_world: MakeWorld) -> None:
    """Ten minutes in the queue first, then an approval in time, then ten minutes again: it runs, though its 360 s are long over."""
    world = make_world(slots=1)
    blocker = world.submit("nap.v1", job_id="a", bindings={"seconds": LONG}, runtime={"timeout_seconds": 2 * LONG})
    run = world.submit("noop.v1", job_id="b", approval=QUICK)
    asked = until(world, run, Status.WAITING_APPROVAL)

    async def block_again() -> None:
        world.submit("nap.v1", job_id="c", bindings={"seconds": LONG}, runtime={"timeout_seconds": 2 * LONG})
        await anyio.sleep(300)

    live(world, ended(world, blocker), asked, block_again, decides(world, run), pause(LONG - 300), ended(world, run))
    found = world.run(run.run_id)
    assert found.status is Status.SUCCEEDED
    assert since_start(world, run, approvals_of(found)[0].requested_at) == LONG
    assert since_start(world, run, found.ended_at) >= 2 * LONG


def test_what_happens_while_nobody_is_up_is_honoured_at_the_next_start(world: World) -> None:
    """Approved in time and started long after; denied; expired: each as if somebody had been there."""
    runs = {name: world.submit("noop.v1", job_id=name, approval=QUICK) for name in ("yes", "no", "late")}
    live(world, *(until(world, run, Status.WAITING_APPROVAL) for run in runs.values()))
    live_now = [decides(world, runs["yes"]), decides(world, runs["no"], "denied")]
    for each in live_now:
        anyio.run(each, backend="trio")
    world.clock.jump(hours=5)
    live(world, ended(world, *runs.values()))
    assert world.run(runs["yes"].run_id).status is Status.SUCCEEDED
    assert (code(world, runs["no"]), code(world, runs["late"])) == ("approval_denied", "approval_expired")


def test_a_decision_after_the_time_is_refused_and_the_run_expires(world: World) -> None:
    """By the times that are recorded, not by who looks first."""
    run = world.submit("noop.v1", approval=QUICK)
    live(world, until(world, run, Status.WAITING_APPROVAL))
    world.clock.jump(hours=1)
    with pytest.raises(LilyError, match="approval_expired"):
        anyio.run(decides(world, run), backend="trio")
    assert code(world, run) == "approval_expired"


@pytest.mark.parametrize(("seconds", "expected"), [(-0.001, "approval_denied"), (0.001, "approval_expired")])
def test_a_decision_that_overtakes_the_expiry_is_what_the_receipt_says(world: World, seconds: float, expected: str) -> None:
    """Somebody speaks just before the time is up, or just after; the supervisor has found the run waiting, and comes second."""
    run = world.submit("noop.v1", approval=QUICK)
    theirs = FakeClock(parse_stamp(run.queued_at) + timedelta(seconds=360 + seconds))

    def overtake(point: str) -> None:
        if point == "approvals:before-expire" and world.run(run.run_id).status is Status.WAITING_APPROVAL:
            with suppress(LilyError):  # that it is too late
                decide_run(world.workspace, world.store, run.run_id, Decision("denied", "ann"), clock=theirs)

    live(world, ended(world, run), fault=overtake)
    found = world.run(run.run_id)
    assert code(world, run) == expected
    assert (world.receipt(run.run_id).error, world.receipt(run.run_id).ended_at) == (found.error, found.ended_at)
    assert list(verify(world.workspace, world.store, Tally())) == []


def test_deciding_twice_is_refused_and_the_first_decision_stands(world: World) -> None:
    """So is deciding for a run that never waited."""
    run, other = world.submit("noop.v1", approval=REQUIRED), world.submit("noop.v1", job_id="b")
    live(world, until(world, run, Status.WAITING_APPROVAL), ended(world, other))
    anyio.run(decides(world, run), backend="trio")
    for again in (run, other):
        with pytest.raises(LilyError, match="run_state_invalid"):
            anyio.run(decides(world, again, "denied"), backend="trio")
    assert world.run(run.run_id).status is Status.QUEUED


def test_only_an_approver_decides_where_some_are_named(world: World) -> None:
    """Anybody else is told who may."""
    run = world.submit("noop.v1", approval={**REQUIRED, "approvers": ["ann", "Bob"]})
    live(world, until(world, run, Status.WAITING_APPROVAL))
    with pytest.raises(LilyError, match=r"approval_forbidden.*ann, Bob"):
        anyio.run(decides(world, run, by="eve"), backend="trio")
    anyio.run(decides(world, run, by="bob"), backend="trio")
    assert world.run(run.run_id).status is Status.QUEUED


def test_a_decision_is_audited_in_its_own_transaction(world: World) -> None:
    """Who, what, why, before and after; a refused one leaves no row."""
    run = world.submit("noop.v1", approval=REQUIRED)
    live(world, until(world, run, Status.WAITING_APPROVAL))
    anyio.run(decides(world, run, note="looks right"), backend="trio")
    with pytest.raises(LilyError):
        anyio.run(decides(world, run), backend="trio")
    with world.store.engine.connect() as connection:
        (row,) = connection.execute(select(schema.audit)).all()
    assert (row.action, row.object, row.job_id, row.actor, row.reason) == ("approval.approve", run.run_id, "job", "ann", "looks right")
    assert msgspec.json.decode(row.after)["status"] == "queued"


def test_a_waiting_run_can_be_canceled(world: World) -> None:
    """At once, with its artifacts, and its job goes on."""
    run, following = world.submit("noop.v1", approval=REQUIRED), world.submit("noop.v1")

    async def stop() -> None:
        cancel(world.workspace, world.store, run.run_id, by="ann", reason="not needed", clock=world.clock)

    live(world, until(world, run, Status.WAITING_APPROVAL), stop, ended(world, run, following))
    assert (world.receipt(run.run_id).status, world.receipt(run.run_id).attempts) == ("canceled", [])


# -- what an approval is bound to ------------------------------------------------------------------


def write_spec(world: World, title: str) -> None:
    """A job file for `job`."""
    spec = {
        "id": "job",
        "title": title,
        "target": {"kind": "blueprint", "id": "noop.v1"},
        "bindings": {},
        "trigger": {"type": "manual"},
        "runtime": {},
        "output": {},
    }
    (world.workspace.jobs / "job.job.yaml").write_bytes(msgspec.json.encode(spec))


@pytest.mark.parametrize("when", ["before the approval", "after the approval"])
def test_an_edit_of_the_job_makes_the_approval_void(world: World, when: str) -> None:
    """Whether it comes before or after the decision: it fails before anything runs."""
    write_spec(world, "as it was asked about")
    run = world.submit("noop.v1", approval=REQUIRED)
    live(world, until(world, run, Status.WAITING_APPROVAL))
    if when == "before the approval":
        write_spec(world, "as it is now")
    anyio.run(decides(world, run), backend="trio")
    write_spec(world, "as it is now")
    live(world, ended(world, run))
    receipt = world.receipt(run.run_id)
    assert (code(world, run), receipt.attempts) == ("approval_void", [])
    assert [each.decision for each in receipt.approvals] == ["void"]
    assert "the job's file" in receipt.approvals[0].note
    summary = (world.workspace.run_dir("job", run.run_id) / "summary.md").read_text()
    assert f"- Approved by ann, void at {receipt.approvals[0].decided_at}: " in summary
    assert "job_approval_void" in world.names(run.run_id)


def test_a_file_that_is_broken_or_the_same_changes_nothing(world: World) -> None:
    """A broken file says nothing new; one that was written again with the same content neither."""
    write_spec(world, "the same")
    runs = [world.submit("noop.v1", approval=REQUIRED, runtime={"max_parallel_runs": 2}) for _ in range(2)]
    live(world, *(until(world, run, Status.WAITING_APPROVAL) for run in runs))
    write_spec(world, "the same")
    anyio.run(decides(world, runs[0]), backend="trio")
    live(world, ended(world, runs[0]))
    (world.workspace.jobs / "job.job.yaml").write_text("id: job\ntitle: [")
    anyio.run(decides(world, runs[1]), backend="trio")
    live(world, ended(world, runs[1]))
    assert [world.run(run.run_id).status for run in runs] == [Status.SUCCEEDED] * 2


def test_a_job_that_is_gone_makes_the_approval_void(world: World) -> None:
    """Nobody stands for it any more."""
    write_spec(world, "here")
    run = world.submit("noop.v1", approval=REQUIRED)
    live(world, until(world, run, Status.WAITING_APPROVAL))
    (world.workspace.jobs / "job.job.yaml").unlink()
    anyio.run(decides(world, run), backend="trio")
    live(world, ended(world, run))
    assert code(world, run) == "approval_void"


@pytest.mark.parametrize("target", ["noop.v1", "asks.v1"])
def test_another_version_of_the_blueprint_makes_the_approval_void(make_world: MakeWorld, target: str) -> None:
    """Also one that was asked for midway and has not been used."""
    first = make_world(asks)
    run = first.submit(target, approval=REQUIRED if target == "noop.v1" else None)
    live(first, until(first, run, Status.WAITING_APPROVAL))
    anyio.run(decides(first, run), backend="trio")
    next_world = World(first.workspace.root, *(_newer(each) for each in (noop, asks)))
    live(next_world, ended(next_world, run))
    assert code(next_world, run) == "approval_void"
    assert "version" in next_world.receipt(run.run_id).approvals[0].note
    next_world.close()


def _newer(made: Any) -> Any:
    @blueprint(made.id, version="9.0.0")
    async def newer(ctx: Any, bindings: Any, run_input: Any) -> Any:
        """The same under another version."""
        return {}

    return newer


def test_an_approval_that_was_used_is_not_compared_again(world: World) -> None:
    """A retry after the start goes on, whatever the file says by now: a run pins its spec."""
    write_spec(world, "as it was asked about")
    retry = {"retry_max": 1, "backoff": {"strategy": "fixed", "base_seconds": 60}}
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 1}, runtime=retry, approval=REQUIRED)

    async def edit() -> None:
        write_spec(world, "as it is now")

    waits, pauses = until(world, run, Status.WAITING_APPROVAL), until(world, run, Status.RETRY_SCHEDULED)
    live(world, waits, decides(world, run), pauses, edit, ended(world, run))
    assert world.run(run.run_id).status is Status.SUCCEEDED


# -- policy and replay -----------------------------------------------------------------------------


def test_what_the_policy_asks_about_waits_and_then_may_be_used(world: World) -> None:
    """One request names it, and the job's own need beside it."""
    run = world.submit("sends.v1", capabilities=["message.send"], approval=REQUIRED)
    live(world, until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run))
    (approval,) = world.receipt(run.run_id).approvals
    assert [need.kind for need in approval.needs] == ["job", "policy"]
    assert "capability message.send" in approval.what
    assert world.receipt(run.run_id).payload == {"sent": True}


def test_a_capability_that_comes_up_midway_is_asked_for_then(world: World) -> None:
    """A blueprint inside another needs it: the run waits, and goes on with leave."""
    run = world.submit("sends_inside.v1", capabilities=["message.send"])
    live(world, until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run))
    assert world.receipt(run.run_id).payload == {"inner": {"sent": True}}
    assert [each.kind for each in world.receipt(run.run_id).approvals] == ["policy"]


def test_a_replay_waits_for_an_approval_bound_to_it(world: World) -> None:
    """Before any attempt; the pinned spec has nothing to do with the file, so an edit of that changes nothing."""
    write_spec(world, "old")
    first = world.submit("noop.v1")
    live(world, ended(world, first))
    run = replay(
        world.workspace, world.store, world.run(first.run_id), which="pinned", approve=False, reason="", by="ann", clock=world.clock
    )
    live(world, until(world, run, Status.WAITING_APPROVAL))
    write_spec(world, "new")
    anyio.run(decides(world, run), backend="trio")
    live(world, ended(world, run))
    (approval,) = world.receipt(run.run_id).approvals
    assert (approval.kind, approval.bound_to["replayed_from"]) == ("replay", first.run_id)
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_a_replay_that_is_approved_as_it_is_asked_for_needs_an_approver(world: World) -> None:
    """Who is none has nothing stored; who is one has the run start at once, with the approval bound to it."""
    first = world.submit("noop.v1", approval={"approvers": ["ann"]})
    live(world, ended(world, first))

    def again(by: str) -> Run:
        return replay(
            world.workspace, world.store, world.run(first.run_id), which="pinned", approve=True, reason="lost", by=by, clock=world.clock
        )

    with pytest.raises(LilyError) as caught:
        again("eve")
    assert (caught.value.code, sum(world.store.counts().values())) == ("approval_forbidden", 1)
    run = again("ann")
    live(world, ended(world, run))
    (approval,) = world.receipt(run.run_id).approvals
    assert (approval.by, approval.note, approval.bound_to["replayed_from"]) == ("ann", "lost", first.run_id)
    assert world.run(run.run_id).status is Status.SUCCEEDED


# -- midway ----------------------------------------------------------------------------------------


def test_a_target_that_asks_midway_goes_on_where_it_stood(make_world: MakeWorld) -> None:
    """Its slot is free meanwhile, its attempt is not charged, and a finished step does not run again."""
    ran.clear()
    world = make_world(asks, slots=1)
    run, other = world.submit("asks.v1", job_id="a", runtime={"retry_max": 0}), world.submit("noop.v1", job_id="b")
    live(world, ended(world, other), until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run))
    found = world.run(run.run_id)
    assert (found.status, found.tries, [each.status for each in found.attempts]) == (
        Status.SUCCEEDED,
        1,
        ["waiting_approval", "succeeded"],
    )
    assert ran == [(run.run_id, "before"), (run.run_id, "after")]
    assert world.receipt(run.run_id).payload == {"approved_by": ["ann"]}
    assert [(each.kind, each.what, each.why) for each in world.receipt(run.run_id).approvals] == [("target", "the launch", "it is loud")]


@pytest.mark.parametrize("decision", ["denied", "expired"])
def test_midway_too_no_is_an_end_with_its_code(world: World, decision: str) -> None:
    """What it did before stays in the receipt's attempts."""
    run = world.submit("asks.v1", approval={"ttl_hours": 0.1})
    how = [decides(world, run, "denied")] if decision == "denied" else []
    live(world, until(world, run, Status.WAITING_APPROVAL), *how, ended(world, run))
    assert (code(world, run), [each.status for each in world.receipt(run.run_id).attempts]) == (
        f"approval_{decision}",
        ["waiting_approval"],
    )


@pytest.mark.parametrize("target", ["deaf.v1", "shielded.v1"])
def test_a_target_that_does_not_listen_waits_all_the_same(world: World, target: str) -> None:
    """What it makes of being cut off is not taken for a result."""
    run = world.submit(target)
    live(world, until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run))
    assert world.receipt(run.run_id).payload in ({"launched": "with leave"}, {})


@pytest.mark.parametrize(("approve", "status"), [(True, "succeeded"), (False, "failed")])
def test_the_test_kit_answers_for_a_person(tmp_path: Path, approve: bool, status: str) -> None:
    """A blueprint that asks can be tried like any other."""
    assert run_blueprint(asks, tmp_path, approve=approve).status == status


def test_two_questions_at_once_are_one_request(world: World) -> None:
    """It names both, and one decision answers both."""
    run = world.submit("two_at_once.v1")
    live(world, until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run))
    (approval,) = world.receipt(run.run_id).approvals
    assert sorted(need.what for need in approval.needs) == ["the one", "the other"]


def test_a_cancel_while_it_asks_wins(world: World) -> None:
    """The run is canceled, not left waiting."""
    run = world.submit("asks.v1")

    def ask_to_cancel(point: str) -> None:
        if point == "runner:before-end":
            assert world.system is not None
            for active in world.system.runner._active.values():
                active.cancel = {"by": "ann", "reason": "enough", "at": stamp(world.clock.now())}

    live(world, ended(world, run), fault=ask_to_cancel)
    assert world.run(run.run_id).status is Status.CANCELED


def test_a_cancel_that_its_question_overtakes_wins_as_well(world: World) -> None:
    """Asked for when the runner had looked for the last time."""
    run = world.submit("asks.v1")

    def ask_to_cancel(point: str) -> None:
        if point == "runner:before-end":
            cancel_runs(world.store, [run.run_id], actor=Actor(name="ann"), reason="enough", at=world.clock.now())

    live(world, ended(world, run), fault=ask_to_cancel)
    assert world.run(run.run_id).status is Status.CANCELED


# -- crashes ---------------------------------------------------------------------------------------

SEAMS = (
    "runner:before-start",
    "runner:asked",
    "runner:before-end",
    "runner:after-end",
    "approvals:before-look",
    "approvals:before-warn",
    "approvals:before-expire",
    "writer:after-commit",
)


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("kill", [False, True], ids=["actor", "process"])
@pytest.mark.parametrize("point", SEAMS)
def test_a_crash_at_any_seam_asks_warns_and_expires_once(world: World, point: str, kill: bool) -> None:
    """Of the actor, or of the whole life: one request, one warning, one end on time, and steps not run again."""
    run, timed = world.submit("asks.v1", job_id="a"), world.submit("noop.v1", job_id="b", approval=QUICK)
    left = [True]

    def break_once(at: str) -> None:
        if at == point and left and left.pop():
            raise Killed(at) if kill else RuntimeError(at)

    with pytest.raises(BaseExceptionGroup) if kill else nullcontext() as broken:
        live(world, until(world, run, Status.WAITING_APPROVAL), ended(world, timed), fault=break_once)
    assert broken is None or broken.value.split(Killed)[0] is not None
    live(world, until(world, run, Status.WAITING_APPROVAL), decides(world, run), ended(world, run, timed))
    assert not left
    names = [[event.event.value for event in world.stored(each.run_id)] for each in (run, timed)]
    assert [names[0].count("job_waiting_approval"), names[1].count("job_waiting_approval")] == [1, 1]
    assert [names[1].count(name) for name in ("job_approval_expiring", "job_approval_expired", "job_failed")] == [1, 1, 1]
    assert (world.run(run.run_id).status, code(world, timed)) == (Status.SUCCEEDED, "approval_expired")
    assert ran == [(run.run_id, "before"), (run.run_id, "after")]
    assert since_start(world, timed, world.run(timed.run_id).ended_at) <= 361.0


# -- GitHub ----------------------------------------------------------------------------------------

ISSUE = {"required": True, "issue": "12", "ttl_hours": 1}


def labeled(world: World, github: FakeGitHub, *names: str, by: str = "ann", ago: float = 0.0) -> Callable[[], Awaitable[None]]:
    """Somebody sets these labels on issue 12."""

    async def label() -> None:
        at = stamp(world.clock.now() - timedelta(seconds=ago))[:19] + "Z"
        github.of["12"] = [*github.of.get("12", []), *(Label(name, by, at) for name in names)]

    return label


@pytest.mark.parametrize(
    ("names", "end"),
    [
        (["approved"], "succeeded"),
        (["Plan-Approved"], "succeeded"),
        (["bug", "lgtm"], "succeeded"),
        (["denied"], "failed"),
        (["rejected"], "failed"),
        (["approved", "denied"], "failed"),
    ],
    ids=str,
)
def test_a_label_decides_and_who_set_it_is_recorded(world: World, github: FakeGitHub, names: list[str], end: str) -> None:
    """At the next look; a denial beats an approval."""
    run = world.submit("noop.v1", approval=ISSUE)
    live(world, until(world, run, Status.WAITING_APPROVAL), labeled(world, github, *names), ended(world, run))
    receipt = world.receipt(run.run_id)
    (approval,) = receipt.approvals
    assert (receipt.status, approval.by, approval.channel) == (end, "ann", "github")
    assert since_start(world, run, receipt.ended_at) <= 31.0
    with world.store.engine.connect() as connection:
        (row,) = connection.execute(select(schema.audit)).all()
    assert (row.actor, row.actor_kind) == ("ann", "supervisor")


def test_labels_that_decide_nothing_leave_the_run_waiting(world: World, github: FakeGitHub) -> None:
    """Another label; one from before the request; one by somebody who is no approver: the last look says why."""
    run = world.submit("noop.v1", approval={**ISSUE, "approvers": ["ann"]})
    old, other = labeled(world, github, "approved", ago=500), labeled(world, github, "lgtm", by="eve")
    live(world, old, other, labeled(world, github, "bug"), until(world, run, Status.WAITING_APPROVAL), pause(100))
    assert world.run(run.run_id).status is Status.WAITING_APPROVAL
    check = check_of(world.store, run.run_id)
    assert check is not None
    assert ("before this was asked for" in check.error, "eve set it" in check.error, check.failures) == (True, True, 0)


@pytest.mark.parametrize("kind", ["slow", "garbage"])
def test_an_error_is_no_answer_and_the_looks_become_rarer(world: World, github: FakeGitHub, kind: str) -> None:
    """30, 60, 120, 240 s apart; the run waits on; the first good look decides."""
    github.fails = GhError(kind, "no luck")
    run = world.submit("noop.v1", approval=ISSUE)

    async def mend() -> None:
        github.fails = None

    live(world, until(world, run, Status.WAITING_APPROVAL), pause(500), labeled(world, github, "approved"), mend, ended(world, run))
    assert [round(at) for at, _ in github.looks] == [0, 30, 90, 210, 450, 930]
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_an_approval_in_time_beats_the_expiry_that_is_seen_with_it(world: World, github: FakeGitHub) -> None:
    """Nobody was up from before the label until after the time: the label was there first."""
    run = world.submit("noop.v1", approval=ISSUE)
    live(world, until(world, run, Status.WAITING_APPROVAL), pause(100))
    anyio.run(labeled(world, github, "approved"), backend="trio")
    world.clock.jump(hours=3)
    live(world, ended(world, run))
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_a_late_decision_does_not_beat_a_label_that_was_there_in_time(world: World, github: FakeGitHub) -> None:
    """It is refused, and the run waits for the last look at its issue. Once that was made, the time is up."""
    runs = [world.submit("noop.v1", job_id=name, approval={**ISSUE, "issue": issue}) for name, issue in (("a", "12"), ("b", "13"))]
    live(world, *(until(world, run, Status.WAITING_APPROVAL) for run in runs), pause(100))
    anyio.run(labeled(world, github, "approved"), backend="trio")
    world.clock.jump(hours=3)
    for run in runs:
        with pytest.raises(LilyError, match="looked at once more") as caught:
            decide_run(world.workspace, world.store, run.run_id, Decision("denied", "eve"), clock=world.clock)
        assert caught.value.code == "approval_expired"
        assert world.run(run.run_id).status is Status.WAITING_APPROVAL
    live(world, *(ended(world, run) for run in runs))
    assert (world.run(runs[0].run_id).status, code(world, runs[1])) == (Status.SUCCEEDED, "approval_expired")


def test_a_label_after_the_time_is_too_late(world: World, github: FakeGitHub) -> None:
    """The run expires, though the label is there when it is looked at."""
    run = world.submit("noop.v1", approval=ISSUE)
    live(world, until(world, run, Status.WAITING_APPROVAL), pause(100))
    world.clock.jump(hours=3)
    anyio.run(labeled(world, github, "approved"), backend="trio")
    live(world, ended(world, run))
    assert code(world, run) == "approval_expired"


def test_github_that_is_away_at_the_end_is_asked_again_and_then_the_run_expires(world: World, github: FakeGitHub) -> None:
    """Three looks after the time was up, and the error says that nobody knows what the issue says."""
    run = world.submit("noop.v1", approval={**ISSUE, "ttl_hours": 0.1})

    async def break_it() -> None:
        github.fails = GhError("failed", "HTTP 503")

    live(world, until(world, run, Status.WAITING_APPROVAL), pause(355), break_it, ended(world, run))
    found = world.run(run.run_id)
    assert (code(world, run), "HTTP 503" in (found.error.message if found.error else "")) == ("approval_expired", True)
    assert [round(at) for at, _ in github.looks][-3:] == [360, 390, 450]


def test_an_issue_is_looked_at_as_soon_as_the_time_is_up_however_rare_the_looks_are(world: World, github: FakeGitHub) -> None:
    """The next one would come 30 s later: until then the run would neither be decided nor expire."""
    github.fails = GhError("failed", "HTTP 503")
    run = world.submit("noop.v1", approval={**ISSUE, "ttl_hours": 0.5})
    live(world, until(world, run, Status.WAITING_APPROVAL), pause(1805))
    assert [round(at) for at, _ in github.looks] == [0, 30, 90, 210, 450, 930, 1800]


def test_looks_at_an_issue_that_can_not_be_seen_are_a_quarter_of_an_hour_apart_at_most(world: World, github: FakeGitHub) -> None:
    github.fails = GhError("failed", "HTTP 503")
    run = world.submit("noop.v1", approval={**ISSUE, "ttl_hours": 2})
    live(world, until(world, run, Status.WAITING_APPROVAL), pause(3000))
    assert [round(at) for at, _ in github.looks][-3:] == [930, 1830, 2730]


def test_runs_that_name_one_issue_share_a_look(world: World, github: FakeGitHub) -> None:
    """One program for all of them; each is judged by its own request."""
    runs = [world.submit("noop.v1", job_id=f"job{i}", approval=ISSUE) for i in range(5)]
    live(
        world, *(until(world, run, Status.WAITING_APPROVAL) for run in runs), pause(60), labeled(world, github, "lgtm"), ended(world, *runs)
    )
    assert len(github.looks) <= 6


def test_a_slow_answer_holds_nothing_up(world: World, github: FakeGitHub) -> None:
    """While a look takes its time, others are decided, expire and run."""
    github.takes = 10_000.0
    slow, quick, timed = (
        world.submit("noop.v1", job_id="slow", approval={**ISSUE, "ttl_hours": 24}),
        world.submit("noop.v1", job_id="quick", approval=REQUIRED),
        world.submit("noop.v1", job_id="timed", approval=QUICK),
    )
    live(world, until(world, slow, Status.WAITING_APPROVAL), decides(world, quick), ended(world, quick, timed))
    assert since_start(world, timed, world.run(timed.run_id).ended_at) == 360.0
    assert world.run(slow.run_id).status is Status.WAITING_APPROVAL


def test_a_decision_that_comes_while_a_look_is_under_way_stands(world: World, github: FakeGitHub) -> None:
    """The look finds that nothing is left to decide."""
    github.takes = 20.0
    run = world.submit("nap.v1", bindings={"seconds": 60}, approval=ISSUE)
    live(world, until(world, run, Status.WAITING_APPROVAL), labeled(world, github, "denied"), decides(world, run), ended(world, run))
    assert world.run(run.run_id).status is Status.SUCCEEDED


def test_a_label_for_what_was_decided_meanwhile_does_not_decide_what_is_asked_next(world: World, github: FakeGitHub) -> None:
    """The look is still under way when the run asks for something else: the label was set before that was asked for."""
    github.takes = 20.0
    run = world.submit("asks.v1", approval={**ISSUE, "ttl_hours": 24})
    waits = until(world, run, Status.WAITING_APPROVAL)
    live(world, waits, labeled(world, github, "approved"), pause(5), decides(world, run), pause(5), waits, pause(600))
    first, second = approvals_of(world.run(run.run_id))
    assert (first.by, first.channel, second.what, second.decision) == ("ann", "local", "the launch", None)
    assert ran == [(run.run_id, "before")]


def test_settings_speak_where_the_job_does_not(make_world: MakeWorld, world: World) -> None:
    """How long, when to warn, and who may decide."""
    approval = msgspec.structs.replace(world.settings.approval, ttl_hours=2.0, warn_hours=0.5, approvers=["ann"])
    settings: Settings = msgspec.structs.replace(world.settings, approval=approval)
    other = make_world(settings=settings)
    run = other.submit("noop.v1", approval=REQUIRED)
    live(other, until(other, run, Status.WAITING_APPROVAL))
    (found,) = approvals_of(other.run(run.run_id))
    assert (since_start(other, run, found.expires_at), since_start(other, run, found.warn_at), found.approvers) == (7200, 5400, ["ann"])
