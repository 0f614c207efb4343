"""What actors decide is in the audit, and whoever acts from inside a run is that run; a run's trace stays its own."""

import json
from datetime import timedelta
from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from sqlalchemy import select

from lily.api import Session
from lily.blueprints.define import blueprint
from lily.errors import LilyError
from lily.identity import INSIDE, acting, inside_of
from lily.operations.approvals import Decision, decide_run
from lily.runs import Run, Status
from lily.storage import schema
from lily.storage.audit_reads import verify
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_approvals import ended, live, until, write_spec

QUICK = {"required": True, "ttl_hours": 0.1, "warn_hours": 0.05}


def audit(world: World) -> list[Any]:
    """Every row, oldest first; asserts that the chain holds."""
    assert verify(world.store).fault is None
    with world.store.engine.connect() as connection:
        return list(connection.execute(select(schema.audit).order_by(schema.audit.c.sequence)))


def test_an_approval_that_expires_is_audited_with_its_run_and_a_warning_is_not(world: World) -> None:
    run = world.submit("noop.v1", approval=QUICK)
    live(world, ended(world, run))
    (row,) = audit(world)
    assert (row.action, row.object, row.actor_kind, row.trace_id) == ("approval.expire", run.run_id, "supervisor", run.trace_id)
    assert json.loads(row.before)["status"] == "waiting_approval"
    assert json.loads(row.after) == {"status": "failed", "decision": "expired"}


def test_an_approval_that_an_edit_makes_void_is_audited_with_why(world: World) -> None:
    write_spec(world, "as it was asked about")
    run = world.submit("noop.v1", approval={"required": True})
    live(world, until(world, run, Status.WAITING_APPROVAL))
    write_spec(world, "as it is now")

    async def decide() -> None:
        decide_run(world.workspace, world.store, run.run_id, Decision("approved", "ann"), clock=world.clock)

    anyio.run(decide, backend="trio")
    live(world, ended(world, run))
    approved, void = audit(world)
    assert [row.action for row in (approved, void)] == ["approval.approve", "approval.void"]
    assert (void.actor_kind, void.trace_id) == ("supervisor", run.trace_id)
    assert void.reason
    assert json.loads(void.before)["status"] == "queued"
    assert json.loads(void.after) == {"status": "running", "decision": "void"}  # it was just taken, and is refused before an attempt


def test_runs_that_end_by_themselves_leave_no_row(world: World) -> None:
    """The runner's own moves are events."""
    runs = [world.submit("noop.v1"), world.submit("deed.v1", job_id="b", bindings={"do": "ValueError"})]
    live(world, ended(world, *runs))
    assert audit(world) == []


@pytest.mark.parametrize("point", ["writer:before", "writer:after-commit", "approvals:before-expire"])
def test_a_crash_in_the_middle_of_an_expiry_audits_it_once(world: World, point: str) -> None:
    run = world.submit("noop.v1", approval=QUICK)
    due = world.clock.now() + timedelta(seconds=359)
    left = [1]

    def fault(name: str) -> None:
        if name == point and left and world.clock.now() > due:
            left.clear()
            raise ValueError("at a seam")

    live(world, ended(world, run), fault=fault)
    assert not left
    assert [row.action for row in audit(world)] == ["approval.expire"]


# -- from inside a run -----------------------------------------------------------------------------


class Place(BaseModel):
    """Where the workspace is."""

    root: str


@blueprint("calls.v1", bindings=Place)
async def calls(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Uses the API in the supervisor's own process, as a blueprint may."""
    root = bindings.root
    with Session(root) as session:
        one = session.submit("child")
        many = session.submit_many("child", [{"n": 1}, {"n": 2}])
        inside = inside_of(session.workspace)
        try:
            acting(session.workspace, "api", "worker.pause")
        except LilyError as error:
            refused = str(error.code)
    assert inside is not None
    return {"runs": [one, *many], "inside": inside.run_id, "trace": inside.trace_id, "refused": refused}


def test_a_blueprint_in_this_process_acts_as_its_run(make_world: MakeWorld) -> None:
    """Without an environment of its own: its runs name it, and what runs may not do is refused. Afterwards nobody is inside."""
    world = make_world(calls)
    text = (
        "id: child\ntitle: Child\ntarget: {kind: blueprint, id: noop.v1}\nbindings: {}\ncapabilities: []\n"
        "trigger: {type: manual}\nruntime: {}\noutput: {}\n"
    )
    (world.workspace.jobs / "child.job.yaml").write_text(text)
    run = world.submit("calls.v1", bindings={"root": str(world.workspace.root)})
    live(world, ended(world, run))
    assert world.receipt(run.run_id).error is None
    payload = world.receipt(run.run_id).payload
    assert payload is not None
    assert (payload["inside"], payload["trace"], payload["refused"]) == (run.run_id, run.trace_id, "actor_forbidden")
    for run_id in payload["runs"]:
        child = world.run(run_id)
        assert (child.lineage, child.trigger["by"]) == ({"triggered_by_run": run.run_id}, run.run_id)
    (row,) = audit(world)
    assert (row.action, row.actor, row.actor_kind, row.trace_id) == ("run.submit", run.run_id, "scheduler", run.trace_id)
    assert INSIDE.get() is None


# -- traces ----------------------------------------------------------------------------------------


def traces(world: World, run: Run) -> set[str]:
    """Every trace id that the run's files and rows have."""
    queued = [event for event in world.lines(run.run_id) if event["event"] == "job_queued" and "trace_id" in event]
    return {world.run(run.run_id).trace_id, world.receipt(run.run_id).trace_id, *(event["trace_id"] for event in queued)}


def test_a_run_keeps_its_trace_over_interruptions_retries_and_approvals(world: World) -> None:
    """However often it is taken up again."""
    retry = {"retry_max": 2, "backoff": {"strategy": "fixed", "base_seconds": 60}}
    run = world.submit("deed.v1", bindings={"do": "ValueError", "until": 2}, runtime=retry, approval={"required": True})

    async def pause(world: World) -> None:
        await anyio.sleep(30)

    world.live(pause)
    decide_run(world.workspace, world.store, run.run_id, Decision("approved", "ann"), clock=world.clock)
    world.live(pause)
    assert world.run(run.run_id).status is Status.RETRY_SCHEDULED
    live(world, ended(world, run))
    assert len(world.run(run.run_id).attempts) > 1
    assert traces(world, run) == {run.trace_id}


def test_what_subscribers_are_told_names_the_trace(world: World) -> None:
    """So that the supervisor's log does, line by line."""
    run = world.submit("noop.v1")
    seen: set[str] = set()

    async def body(world: World) -> None:
        assert world.system is not None
        told = world.system.tail.subscribe()
        while (came := await told.next()) is not None:
            seen.update(message.trace_id for message in came[0])
            if any(message.final for message in came[0]):
                return

    world.live(body)
    assert seen == {run.trace_id}
