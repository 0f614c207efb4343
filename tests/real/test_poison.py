"""A target that kills its supervisor, again and again; and a supervisor that is killed while runs become dead letters."""

import signal

import pytest

from lily.errors import Code
from lily.runs import Status
from lily.storage.letters import Filter, Letters
from tests.real.house import House, until

pytestmark = pytest.mark.e2e

KILLER = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"


def test_a_run_that_kills_its_supervisor_is_a_dead_letter_after_so_many_lives_and_the_others_go_on(house: House) -> None:
    """`interrupt_max` lives are forgiven, the next one ends it; nobody else pays, and a retry does not jump the queue."""
    house.config(queue={"max_concurrent": 1})
    house.script("poison", KILLER, interrupt_max=2)
    house.job("other", "true")
    poison = house.submit("poison")
    others = [house.submit("other") for _ in range(3)]
    for life in range(3):
        assert house.start("up").end().status == -signal.SIGKILL
        assert house.run(poison).interruptions == life
    assert house.run(poison).status is Status.RUNNING
    house.up()
    receipt = house.until_ended(poison)
    assert (receipt.status, receipt.interruptions) == ("failed", 3)
    assert [house.until_ended(run_id).status for run_id in others] == ["succeeded"] * 3
    letter = Letters(house.store).find(poison)
    assert letter is not None
    assert letter.code == Code.JOB_EXECUTION_FAILED
    assert letter.reason.startswith("interrupted 3 times, more than interrupt_max (2) allows")
    assert [attempt.status for attempt in letter.attempts] == ["interrupted"] * 3
    assert house.names(poison)[-2:] == ["job_dead_lettered", "job_failed"]
    said = house.lily("dlq", "list")
    assert poison in said.out


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_kill_while_runs_fail_leaves_a_letter_for_each_that_has_ended(house: House, after: int) -> None:
    """Not one more, not one less; the next life brings the rest."""
    house.config(queue={"max_concurrent": 4})
    house.job("bad", "sh", "-c", "exit 3", max_parallel_runs=4)
    run_ids = [house.submit("bad") for _ in range(30)]
    program = house.up()
    until(lambda: len(failed(house)) >= after, f"{after} failed runs")
    program.kill()
    assert set(Letters(house.store).ids(Filter())) == failed(house)
    house.up()
    for run_id in run_ids:
        house.until_ended(run_id)
    assert set(Letters(house.store).ids(Filter())) == set(run_ids)
    assert Letters(house.store).count() == 30


def failed(house: House) -> set[str]:
    return {run.run_id for run in house.store.runs(statuses=[Status.FAILED], limit=100)}
