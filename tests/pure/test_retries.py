"""How long a failed run waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.retries import pause_seconds
from lily.runs import Backoff

strategies = st.sampled_from(["none", "fixed", "exponential"])
backoffs = st.builds(
    Backoff, strategy=strategies, base_seconds=st.floats(0, 1e6), max_seconds=st.floats(0, 1e6), jitter=st.floats(0, 1, exclude_max=False)
)


@pytest.mark.parametrize(
    ("backoff", "pauses"),
    [
        (Backoff(strategy="none"), [0, 0, 0]),
        (Backoff(strategy="fixed", base_seconds=7), [7, 7, 7]),
        (Backoff(strategy="fixed", base_seconds=7, max_seconds=5), [5, 5, 5]),
        (Backoff(), [60, 120, 240, 480, 960, 1920, 3600, 3600]),
        (Backoff(base_seconds=0.5, max_seconds=2), [0.5, 1, 2, 2]),
    ],
)
def test_pauses_without_jitter(backoff: Backoff, pauses: list[float]) -> None:
    """`base * 2^(n-1)`, capped."""
    assert [pause_seconds(backoff, n + 1, run_id="r") for n in range(len(pauses))] == pauses


@given(backoff=backoffs, failures=st.integers(1, 10_000), run_id=st.text(max_size=40))
def test_a_pause_is_never_negative_and_never_over_the_cap(backoff: Backoff, failures: int, run_id: str) -> None:
    """Whatever the numbers; jitter only shortens."""
    pause = pause_seconds(backoff, failures, run_id=run_id)
    assert 0 <= pause <= backoff.max_seconds
    without = pause_seconds(
        Backoff(strategy=backoff.strategy, base_seconds=backoff.base_seconds, max_seconds=backoff.max_seconds), failures, run_id=""
    )
    assert without * (1 - backoff.jitter) <= pause * 1.000001 + 1e-9
    assert pause <= without


@given(backoff=backoffs, failures=st.integers(1, 100), run_id=st.text(max_size=40))
def test_the_same_run_and_attempt_get_the_same_pause(backoff: Backoff, failures: int, run_id: str) -> None:
    """So a restart computes nothing else."""
    assert pause_seconds(backoff, failures, run_id=run_id) == pause_seconds(backoff, failures, run_id=run_id)


def test_jitter_spreads_runs_that_failed_together() -> None:
    """A hundred runs get a hundred pauses, over the whole share."""
    pauses = {pause_seconds(Backoff(jitter=1.0), 1, run_id=f"run-{n}") for n in range(100)}
    assert len(pauses) == 100
    assert min(pauses) < 10
    assert max(pauses) > 50


def test_jitter_differs_from_attempt_to_attempt() -> None:
    """Runs that meet once do not meet at every attempt."""
    backoff = Backoff(strategy="fixed", jitter=1.0)
    assert len({pause_seconds(backoff, n, run_id="run") for n in range(1, 11)}) == 10


@given(backoff=backoffs, failures=st.integers(1, 100), wish=st.floats(0, 1e7))
def test_a_blueprints_wish_is_the_least_pause(backoff: Backoff, failures: int, wish: float) -> None:
    """Also over max_seconds: the other side knows when it is ready."""
    pause = pause_seconds(backoff, failures, run_id="r", retry_after=wish)
    assert pause == max(wish, pause_seconds(backoff, failures, run_id="r"))
