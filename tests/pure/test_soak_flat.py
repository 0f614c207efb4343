"""When a soak calls a resource flat, and when it says that it grows: on made-up series of an hour."""

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.soak.flat import FEWEST, Allowance, judge, slope, table

Value = Callable[[float, int], float]
HOUR = 3600.0
MEMORY = Allowance("memory", "MiB", 4)
DICE = random.Random(5)
NOISE = [DICE.gauss(0, 1) for _ in range(720)]


def series(value: Value) -> list[tuple[float, float]]:
    """A sample every five seconds of what a function of the time and a number gives."""
    return [(5.0 * n, value(5.0 * n, n)) for n in range(720)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steady", lambda at, n: 100.0),
        ("noisy", lambda at, n: 100 + NOISE[n]),
        ("up while it warms, then steady", lambda at, n: 100 + min(at, 1100.0) / 20 + NOISE[n]),
        ("a cache that fills and stays full", lambda at, n: 130 - 40 * math.exp(-at / 300)),
        ("a saw: grows and is given back", lambda at, n: 100 + (at % 480) / 10),
        ("spikes now and then", lambda at, n: 100 + (500 if n % 50 == 49 else 0) + NOISE[n]),
        ("one spike at the very end", lambda at, n: 900.0 if n > 700 else 100.0),
        ("falls", lambda at, n: 200 - at / 50),
    ],
)
def test_what_comes_to_rest_is_flat(name: str, value: Value) -> None:
    """Noise, spikes, saws and whatever happens in the first third are no growth."""
    assert not judge(MEMORY, series(value), HOUR).grows, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a little each second", lambda at, n: 100 + at / 400),
        ("a little each second under noise", lambda at, n: 100 + at / 400 + 2 * NOISE[n]),
        ("a saw whose foot rises", lambda at, n: 100 + (at % 480) / 10 + at / 300),
        ("in steps", lambda at, n: 100 + 3 * (at // 600)),
        ("only late", lambda at, n: 100 + max(0.0, at - 2000) / 100),
    ],
)
def test_what_goes_on_rising_grows(name: str, value: Value) -> None:
    """However slowly, if it is above the allowance in the time that is judged."""
    assert judge(MEMORY, series(value), HOUR).grows, name


def test_the_rise_is_that_of_the_time_after_the_warm_up() -> None:
    """Three units an hour are two in the last two thirds of one, and medians are of those thirds."""
    verdict = judge(Allowance("descriptors", "", 1.9), series(lambda at, n: 10 + 3 * at / HOUR), HOUR)
    assert verdict.rise == pytest.approx(2)
    assert [verdict.start, verdict.middle, verdict.last] == pytest.approx([10, 11.5, 12.5], abs=0.01)
    assert verdict.grows
    assert not judge(Allowance("descriptors", "", 2.1), series(lambda at, n: 10 + 3 * at / HOUR), HOUR).grows


def test_an_allowance_is_the_larger_of_its_two_forms_and_something_for_each_row_that_stays() -> None:
    allowance = Allowance("database", "MiB", 1, share=0.1, each_row=0.001)
    assert allowance.of(5, 0) == 1
    assert allowance.of(50, 0) == 5
    assert allowance.of(50, 2000) == 7
    rising = series(lambda at, n: 20 + 5 * at / HOUR)
    assert judge(allowance, rising, HOUR).grows
    assert not judge(allowance, rising, HOUR, rows=2000).grows


def test_a_limit_holds_for_every_sample() -> None:
    """Also for one in the warm-up."""
    once = [(at, 70.0 if at == 20 else 1.0) for at, _ in series(lambda at, n: 0)]
    assert judge(Allowance("log", "MiB", 1, limit=64), once, HOUR).grows
    assert not judge(Allowance("log", "MiB", 1, limit=80), once, HOUR).grows


def test_too_few_samples_are_no_verdict() -> None:
    """Rather than a good one."""
    points = [(at, 1.0) for at in (0.0, 1000.0, 2000.0)] + [(3000.0 + n, 1.0) for n in range(FEWEST - 2)]
    with pytest.raises(ValueError, match="memory: 5 samples"):
        judge(MEMORY, points, HOUR)


def test_the_slope_is_the_median_over_all_pairs() -> None:
    """So a third of the samples may be anything at all."""
    assert slope([(0, 0), (1, 2), (2, 4), (3, 6)]) == 2
    assert slope([(0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 9000), (6, -4000), (7, 14), (8, 16)]) == 2


def test_the_table_says_which_grows() -> None:
    lines = table([judge(MEMORY, series(lambda at, n: 100 + at / 100), HOUR), judge(MEMORY, series(lambda at, n: 1234.5), HOUR)])
    assert [line.split()[-1] for line in lines[1:]] == ["GROWS", "flat"]
    assert "1,234.5" in lines[2]
