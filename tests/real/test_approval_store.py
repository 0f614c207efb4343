"""Waiting runs in the store, on SQLite and on PostgreSQL: the same answers, one decision, and its audit row with it."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from lily.approvals.needs import requested
from lily.approvals.record import Need, pending
from lily.clock import stamp
from lily.errors import LilyError
from lily.identity import SUPERVISOR
from lily.moves import approve, decided, refuse, start, wait_approval
from lily.operations.approvals import Decision, decide_run, listed
from lily.runs import ErrorInfo, Run, Status
from lily.settings import Approval as Terms
from lily.storage import schema
from lily.storage.approvals import Check, check_of, decide, keep_checks, statuses, waiting, with_unused
from lily.storage.audit import Actor, Change
from lily.storage.store import Store
from lily.testing.clock import FakeClock
from lily.workspace import Workspace
from tests.real.test_store import AT, PLACE, OpenStore, new, open_store, store, submit
from tests.work import marked

__all__ = ["open_store", "store"]  # fixtures
TERMS = Terms(ttl_hours=24.0, warn_hours=1.0, poll_seconds=30.0, approvers=[], repository="")


def asked(store: Store, run: Run) -> Run:
    """The run waits for an approval."""
    approval = requested(1, 0, [Need("job", f"job {run.job_id}", "é")], store.spec(run.spec_hash), {"job_file": "sha256:1"}, TERMS, AT)
    assert store.apply([wait_approval(run, approval, AT)]) == [None]
    return store.run(run.run_id)


def audited(store: Store) -> list[str]:
    """Who is in the audit."""
    with store.engine.connect() as connection:
        return list(connection.execute(select(schema.audit.c.actor).order_by(schema.audit.c.sequence)).scalars())


def test_what_waits_comes_with_the_last_look_at_it(store: Store) -> None:
    """Oldest first; a look takes the place of the one before; pruning takes it along."""
    first, second, other = (run for run in submit(store, new("a"), new("b"), new("c")))
    runs = [asked(store, run) for run in (second, first)]
    for failures in (1, 2):
        keep_checks(
            store, [Check(run_id=first.run_id, checked_at=stamp(AT), next_at=stamp(AT), failures=failures, error="é\0", labels=["x"])]
        )
    found = waiting(store)
    assert [each.run.run_id for each in found] == [first.run_id, second.run_id]
    assert [each.check.failures if each.check else None for each in found] == [2, None]
    assert found[0].check is not None
    assert found[0].check.error == r"é\x00"  # what gh says may have a NUL, which a column of PostgreSQL's can't hold
    assert found[0].run.approvals == runs[1].approvals
    assert statuses(store, [first.run_id, other.run_id]) == {first.run_id: Status.WAITING_APPROVAL, other.run_id: Status.QUEUED}
    assert [each["run_id"] for each in listed(store, AT)] == [first.run_id, second.run_id]
    begun = start(store.run(other.run_id), PLACE, AT, attempt=False)
    assert store.apply([begun, refuse(begun.run, ErrorInfo(code="x", message="y"), {}, AT)], written=[marked(other)]) == [None, None]
    keep_checks(store, [Check(run_id=other.run_id, checked_at=stamp(AT), next_at=stamp(AT))])
    store.forget([other.run_id], SUPERVISOR)
    assert check_of(store, other.run_id) is None
    assert check_of(store, first.run_id) is not None


def test_of_many_who_decide_at_once_one_does(open_store: OpenStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each through a connection of its own: the others are told that it is decided, and the audit has one row."""
    workspace = Workspace(tmp_path_factory.mktemp("home"))
    run = asked(open_store(), submit(open_store())[0])
    stores, refused = [open_store() for _ in range(6)], []

    def say(name: str, store: Store) -> None:
        try:
            word = "approved" if int(name) % 2 else "denied"
            decide_run(workspace, store, run.run_id, Decision(word, name, "now"), clock=FakeClock(AT))
        except LilyError as error:
            refused.append(error.code.value)

    threads = [threading.Thread(target=say, args=(str(i), each)) for i, each in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = stores[0].run(run.run_id)
    assert refused == ["run_state_invalid"] * 5
    assert audited(stores[0]) == [ended.approvals[0]["by"]]
    assert ended.status is (Status.QUEUED if int(ended.approvals[0]["by"]) % 2 else Status.FAILED)


def test_the_very_same_decision_twice_is_one_decision(store: Store) -> None:
    """Two who say the same in the same instant: the second is told what stands there, and is not in the audit."""
    run = asked(store, submit(store)[0])
    approval = pending(run)
    assert approval is not None
    move = approve(run, decided(approval, "approved", by="ann", channel="local", note="", at=stamp(AT)), AT)
    told = [decide(store, move, Actor(name=name), Change(action="approval.approve"), stamp(AT)) for name in ("ann", "bob")]
    assert told == [None, Status.QUEUED]
    assert audited(store) == ["ann"]


def test_approvals_that_are_not_used_yet_are_found_by_their_jobs(store: Store) -> None:
    """Asked for or given; not those of other jobs, of runs that never asked, or of runs that began."""
    waits, given, plain, other = submit(store, new("a"), new("b"), new("a"), new("c"))
    for run in (waits, given, other):
        asked(store, run)
    approval = pending(store.run(given.run_id))
    assert approval is not None
    yes = decided(approval, "approved", by="ann", channel="local", note="", at=stamp(AT))
    assert store.apply([approve(store.run(given.run_id), yes, AT + timedelta(seconds=1))]) == [None]
    assert [run.run_id for run in with_unused(store, ["a", "b"])] == [waits.run_id, given.run_id]
    assert plain.run_id not in [run.run_id for run in with_unused(store, ["a"])]
