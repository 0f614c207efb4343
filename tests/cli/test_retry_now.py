"""`lily runs retry-now`: what a person sees of it; what becomes of the run is in tests/actors."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import lily as lily_api
from lily.operations.session import open_store
from lily.settings import load_settings
from lily.storage.store import Store
from lily.workspace import Workspace
from tests.cli.conftest import Lily, shell, supervisor, write_job
from tests.contract.conform import check_fits
from tests.letters import will_retry
from tests.real.house import until as until_seen


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """The workspace's store, beside one job."""
    write_job(workspace, "a")
    place = Workspace(workspace)
    made = open_store(place, load_settings(place))
    yield made
    made.close()


def retrying(store: Store, count: int = 1) -> list[str]:
    """Runs that are tried again in two hours."""
    ids = [lily_api.submit("a") for _ in range(count)]
    for run_id in ids:
        will_retry(store, run_id)
    return ids


def test_it_says_what_comes_now(lily: Lily, store: Store) -> None:
    """In the order in which the runs were named; one that was named twice comes once."""
    one, two, three = retrying(store, 3)
    said = lily("runs", "retry-now", two, one, two, "--reason", "the network is back")
    assert (said.status, said.err) == (0, "")
    assert said.out == f"{two} is queued for attempt 2\n{one} is queued for attempt 2\n"
    found = lily("runs", "retry-now", three, "--json")
    check_fits("cli-runs-retry-now", found.json)
    (view,) = found.json["runs"]
    assert (view["run_id"], view["status"], view["next_attempt_at"]) == (three, "queued", None)


def test_it_keeps_the_place_in_the_queue_that_it_had(lily: Lily, store: Store) -> None:
    """What came later stays behind it."""
    (first,) = retrying(store)
    later = lily_api.submit("a")
    lily("runs", "retry-now", first)
    assert [run["run_id"] for run in lily("queue", "list", "--json").json["runs"]] == [first, later]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "canceled", "hurried"])
def test_a_run_that_waits_for_no_attempt_is_refused_and_so_is_every_other_one(
    lily: Lily, store: Store, workspace: Path, state: str
) -> None:
    """All or none, in one line that says how it stands; nothing is audited."""
    if state == "succeeded":
        lily("jobs", "run", "a")  # before the other one, which holds the job while it waits
    (waits,) = retrying(store)
    if state == "hurried":
        (other,) = retrying(store)
        assert lily("runs", "retry-now", other).status == 0
    elif state == "succeeded":
        other = lily("runs", "list", "--status", "succeeded", "--json").json["runs"][0]["run_id"]
    else:
        other = lily_api.submit("a")
        if state == "canceled":
            lily("runs", "cancel", other)
        if state == "running":
            from lily.clock import SystemClock
            from lily.moves import start
            from tests.letters import PLACE

            store.apply([start(store.run(other), PLACE, SystemClock().now(), attempt=True)])
    before = len(lily("audit", "list", "--json").json["audit"])
    said = lily("runs", "retry-now", waits, other)
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (4, "run_state_invalid", 1), said
    assert other in said.err
    assert store.run(waits).status == "retry_scheduled"
    assert len(lily("audit", "list", "--json").json["audit"]) == before


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ((), 2, "usage"),
        (("nobody",), 3, "run_not_found"),
        (("x", "--reason", "\udcff"), 2, "usage"),
        (("x", "--reason", "y" * 1001), 2, "usage"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(lily: Lily, store: Store, words: tuple[str, ...], status: int, code: str) -> None:
    said = lily("runs", "retry-now", *words)
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (status, code, 1)


def test_a_paused_worker_is_said(lily: Lily, store: Store) -> None:
    """Else somebody waits for an attempt that does not come."""
    (run_id,) = retrying(store)
    lily("worker", "pause", "--reason", "the disk is being moved")
    said = lily("runs", "retry-now", run_id)
    assert said.status == 0
    assert "paused" in said.err


@pytest.mark.e2e
def test_a_running_supervisor_makes_the_attempt(lily: Lily, workspace: Path) -> None:
    """From the command to the receipt, through real processes."""
    backoff = {"strategy": "fixed", "base_seconds": 3600, "max_seconds": 3600}
    write_job(workspace, "a", bindings=shell("test -e fixed"), runtime={"retry_max": 1, "backoff": backoff})
    with supervisor(workspace):
        run_id = lily("jobs", "run", "a", "--detach").out.strip()
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["status"] == "retry_scheduled", "its wait")
        (workspace / "fixed").touch()
        assert lily("runs", "retry-now", run_id).status == 0
        until_seen(lambda: lily("runs", "show", run_id, "--json").json["receipt"], "its receipt")
        shown = lily("runs", "show", run_id, "--json").json
        lily("down")
    assert (shown["status"], len(shown["attempts"])) == ("succeeded", 2)
    assert json.loads((workspace / ".lily/runs/a" / run_id / "run_receipt.json").read_text())["status"] == "succeeded"
