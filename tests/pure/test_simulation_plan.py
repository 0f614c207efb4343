"""What `lily schedule simulate` is given, as text: spans, steps, durations, and the one line that says what is wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from lily.errors import Code, LilyError
from lily.simulation.plan import Durations, Plan, Span, Step, plan_from, span, step

JOBS = {"backup": True, "sync": True, "by-hand": False}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def planned(
    times: tuple[str, str] = ("2026-05-01", "2026-05-08"),
    *,
    default: str = "60",
    durations: tuple[str, ...] = (),
    outages: tuple[str, ...] = (),
    suspends: tuple[str, ...] = (),
    steps: tuple[str, ...] = (),
    pauses: tuple[str, ...] = (),
) -> Plan:
    return plan_from(
        times,
        jobs=JOBS,
        slots=3,
        seed=0,
        durations=(default, durations),
        outages=outages,
        suspends=suspends,
        steps=steps,
        pauses=pauses,
    )


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-05-04T09:00/2026-05-04T10:30", "2026-05-04T09:00", "2026-05-04T10:30"),
        ("2026-05-04+2d", "2026-05-04", "2026-05-06"),
        ("2026-05-04T09:00+02:00+90m", "2026-05-04T07:00", "2026-05-04T08:30"),
        ("2026-05-04T09:00:00.250Z+1s", "2026-05-04T09:00:00.250", "2026-05-04T09:00:01.250"),
    ],
)
def test_a_span_is_two_times_or_a_time_and_a_duration(text: str, start: str, end: str) -> None:
    """A `+` that belongs to an offset is told from the one before a duration."""
    assert span(text, "--outage") == Span(at(start), at(end))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-04T09:00+3600", Step(at("2026-05-04T09:00"), 3600.0)),
        ("2026-05-04T09:00Z-1.5", Step(at("2026-05-04T09:00"), -1.5)),
        ("2026-05-04-60", Step(at("2026-05-04"), -60.0)),
        ("2026-05-04T09:00-02:00-60", Step(at("2026-05-04T11:00"), -60.0)),
    ],
)
def test_a_step_is_a_time_and_signed_seconds(text: str, expected: Step) -> None:
    """Also after a date or an offset, which have signs of their own."""
    assert step(text) == expected


def test_a_whole_plan_is_in_order() -> None:
    """Whatever order the options had."""
    plan = planned(outages=("2026-05-03+1h", "2026-05-02+1h"), steps=("2026-05-05+5", "2026-05-04-5"), durations=("sync=15m",))
    assert [each.start.day for each in plan.outages] == [2, 3]
    assert [each.seconds for each in plan.steps] == [-5.0, 5.0]
    assert plan.durations.of("sync", "any") == 900.0
    assert plan.durations.of("backup", "any") == 60.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"times": ("2026-05-08", "2026-05-01")}, "--to 2026-05-01 is not later than --from 2026-05-08"),
        ({"times": ("2026-05-08", "2026-05-08")}, "not later"),
        ({"times": ("may", "2026-05-01")}, "--from: 'may' is not a time"),
        ({"times": ("2026-05-01", "2099-05-01")}, "more than ten years"),
        ({"outages": ("2026-05-03",)}, "--outage: '2026-05-03' is neither START/END nor START+DURATION"),
        ({"outages": ("2026-05-03+2parsecs",)}, "'2parsecs' is not a duration"),
        ({"outages": ("2026-05-03/2026-05-02",)}, "ends before it begins"),
        ({"outages": ("2026-05-03+2h", "2026-05-03T01:00+2h")}, "has not ended when the one from"),
        ({"outages": ("2026-05-03+2h", "2026-05-03T02:00+2h")}, "join them"),
        ({"outages": ("2027-05-03+2h",)}, "is not between --from and --to"),
        ({"suspends": ("2026-05-03T25:00+2h",)}, "--suspend: '2026-05-03T25:00' is not a time"),
        ({"steps": ("2026-05-03",)}, "is not a time and seconds"),
        ({"steps": ("2026-05-03+0",)}, "a millisecond to a year"),
        ({"steps": ("2026-06-03+5",)}, "--step: 2026-06-03T00:00:00.000000Z is not between"),
        ({"durations": ("backup",)}, "'backup' is not ID=SECONDS"),
        ({"durations": ("backup=soon",)}, "'soon' is not a number of seconds"),
        ({"durations": ("backup=0",)}, "from a millisecond to a year"),
        ({"default": "-5"}, "--default-duration: '-5' is not"),
        ({"pauses": ("backup",)}, "is not ID=START/END"),
        ({"pauses": ("backup=2026-05-03+2h", "backup=2026-05-03T01:00+2h")}, "--pause backup"),
    ],
)
def test_what_cant_be_played_is_one_line(changes: dict[str, object], said: str) -> None:
    """Code `usage`, the option, and what would be right."""
    with pytest.raises(LilyError) as caught:
        planned(**changes)  # type: ignore[arg-type]
    assert caught.value.code is Code.USAGE
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_job_that_is_not_there_is_named_with_the_one_that_was_meant() -> None:
    """As everywhere else."""
    with pytest.raises(LilyError, match="did you mean backup") as caught:
        planned(durations=("bakup=5",))
    assert caught.value.code is Code.JOB_NOT_FOUND


def test_a_job_without_windows_is_refused() -> None:
    """Pausing it would mean nothing."""
    with pytest.raises(LilyError, match="by hand only") as caught:
        planned(pauses=("by-hand=2026-05-03+1h",))
    assert caught.value.code is Code.JOB_TRIGGER_INVALID


def test_a_duration_from_history_depends_on_job_window_and_seed_alone() -> None:
    """So that another job's fires don't change it."""
    past = {"backup": [float(n) for n in range(100)]}
    one, two = Durations(history=past, seed=1), Durations(history=past, seed=2)
    windows = [(at("2026-05-04") + timedelta(days=n)).isoformat() for n in range(20)]
    drawn = [one.of("backup", window) for window in windows]
    assert drawn == [one.of("backup", window) for window in windows]
    assert drawn != [two.of("backup", window) for window in windows]
    assert len(set(drawn)) > 10
