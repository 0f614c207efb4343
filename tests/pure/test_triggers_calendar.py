"""RFC 5545 rules: their whole meaning, on local times, fast from anywhere."""

import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.triggers.schedule import Schedule, schedule_of

BEGIN = datetime(1990, 1, 1, tzinfo=UTC)


def calendar(rrule: str, anchor: str = "2026-05-04T09:00", zone: str = "Europe/Berlin", **more: object) -> Schedule:
    return schedule_of({"type": "calendar", "rrule": rrule, "anchor": anchor, **more}, zone)


def first(schedule: Schedule, number: int, after: datetime = BEGIN) -> list[str]:
    found = islice(schedule.windows(after, datetime(2100, 1, 1, tzinfo=UTC)), number)
    return [f"{window.at.astimezone(schedule.zone):%Y-%m-%d %H:%M}" for window in found]


@pytest.mark.parametrize(
    ("rrule", "windows"),
    [
        ("FREQ=WEEKLY;INTERVAL=2", ["2026-05-04 09:00", "2026-05-18 09:00", "2026-06-01 09:00"]),
        ("FREQ=MONTHLY;BYDAY=2TU", ["2026-05-12 09:00", "2026-06-09 09:00", "2026-07-14 09:00"]),
        ("FREQ=MONTHLY;BYDAY=-1FR", ["2026-05-29 09:00", "2026-06-26 09:00", "2026-07-31 09:00"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", ["2026-05-29 09:00", "2026-06-30 09:00", "2026-07-31 09:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31", ["2026-05-31 09:00", "2026-07-31 09:00", "2026-08-31 09:00"]),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", ["2026-05-11 09:00", "2027-05-17 09:00", "2028-05-15 09:00"]),
        ("FREQ=YEARLY;BYYEARDAY=-1", ["2026-12-31 09:00", "2027-12-31 09:00", "2028-12-31 09:00"]),
        ("FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", ["2026-11-26 09:00", "2027-11-25 09:00", "2028-11-23 09:00"]),
        ("FREQ=DAILY;COUNT=2", ["2026-05-04 09:00", "2026-05-05 09:00"]),
        ("FREQ=DAILY;BYHOUR=9,17;COUNT=3", ["2026-05-04 09:00", "2026-05-04 17:00", "2026-05-05 09:00"]),
        ("FREQ=DAILY;BYHOUR=8,17;BYMINUTE=30;BYSETPOS=-1", ["2026-05-04 17:30", "2026-05-05 17:30", "2026-05-06 17:30"]),
        ("FREQ=DAILY;UNTIL=20260505", ["2026-05-04 09:00", "2026-05-05 09:00"]),
        ("FREQ=DAILY;UNTIL=20260505T090000", ["2026-05-04 09:00", "2026-05-05 09:00"]),
        ("FREQ=DAILY;UNTIL=20260505T070000Z", ["2026-05-04 09:00", "2026-05-05 09:00"]),
        ("FREQ=DAILY;UNTIL=20260505T065959Z", ["2026-05-04 09:00"]),
        ("FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2", ["2026-05-06 09:00", "2026-05-13 09:00", "2026-05-20 09:00"]),
        ("FREQ=HOURLY;INTERVAL=5;BYDAY=TU", ["2026-05-05 00:00", "2026-05-05 05:00", "2026-05-05 10:00"]),
        ("FREQ=HOURLY;BYMINUTE=0,20,40;BYSETPOS=2", ["2026-05-04 09:20", "2026-05-04 10:20", "2026-05-04 11:20"]),
        ("FREQ=MINUTELY;INTERVAL=90", ["2026-05-04 09:00", "2026-05-04 10:30", "2026-05-04 12:00"]),
        ("RRULE:FREQ=SECONDLY;INTERVAL=3600;BYHOUR=6,7", ["2026-05-05 06:00", "2026-05-05 07:00", "2026-05-06 06:00"]),
    ],
)
def test_the_parts_of_a_rule_mean_what_the_rfc_says(rrule: str, windows: list[str]) -> None:
    """Every second Monday stays every second Monday. The anchor is a Monday."""
    assert first(calendar(rrule), 3) == windows


def test_the_anchor_is_a_window_only_if_the_rule_says_so() -> None:
    """It is where counting begins, not an event."""
    assert first(calendar("FREQ=WEEKLY;BYDAY=TU"), 1) == ["2026-05-05 09:00"]


def test_a_week_that_the_anchor_cuts_is_counted_whole() -> None:
    """The first of Monday and Friday was before the anchor, a Wednesday; Friday does not take its place."""
    assert first(calendar("FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=1", "2026-05-06T09:00"), 2) == ["2026-05-11 09:00", "2026-05-18 09:00"]


def test_the_weeks_first_day_decides_every_second_week() -> None:
    """The example of RFC 5545, section 3.3.10."""
    rule = "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST="
    assert first(calendar(rule + "MO", "1997-08-05T09:00"), 4)[1] == "1997-08-10 09:00"
    assert first(calendar(rule + "SU", "1997-08-05T09:00"), 4)[1] == "1997-08-17 09:00"
    # A Sunday, with which its own week begins.
    assert first(calendar("FREQ=WEEKLY;INTERVAL=2;WKST=SU", "1997-08-10T09:00"), 2) == ["1997-08-10 09:00", "1997-08-24 09:00"]


def test_count_runs_from_the_anchor_whatever_is_left_out() -> None:
    """start_at and exclude take windows away; they don't add later ones."""
    schedule = calendar("FREQ=DAILY;COUNT=5", start_at="2026-05-06", exclude={"dates": ["2026-05-07"], "rrule": None, "anchor": None})
    assert first(schedule, 9) == ["2026-05-06 09:00", "2026-05-07 09:00", "2026-05-08 09:00"]
    assert [window.excluded for window in schedule.windows(BEGIN, datetime(2027, 1, 1, tzinfo=UTC))] == [False, True, False]


def test_local_times_move_out_of_gaps_and_are_not_repeated() -> None:
    """As for cron's fixed times; what falls together is one window."""
    daily = calendar("FREQ=DAILY", "2026-03-01T02:30")
    assert first(daily, 2, datetime(2026, 3, 28, 12, tzinfo=UTC)) == ["2026-03-29 03:00", "2026-03-30 02:30"]
    hourly = calendar("FREQ=HOURLY", "2026-03-01T00:30")
    assert first(hourly, 4, datetime(2026, 3, 29, 0, tzinfo=UTC)) == [
        "2026-03-29 01:30",
        "2026-03-29 03:00",
        "2026-03-29 03:30",
        "2026-03-29 04:30",
    ]
    assert first(hourly, 2, datetime(2026, 10, 25, 0, tzinfo=UTC)) == ["2026-10-25 02:30", "2026-10-25 03:30"]
    often = calendar("FREQ=DAILY;BYHOUR=2,3;BYMINUTE=0,30", "2026-03-01")
    assert first(often, 3, datetime(2026, 3, 29, 0, tzinfo=UTC)) == ["2026-03-29 03:00", "2026-03-29 03:30", "2026-03-30 02:00"]


@pytest.mark.parametrize(
    ("rrule", "reason"),
    [
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=TU", "never fires"),
        ("FREQ=MONTHLY;INTERVAL=12;BYMONTH=2", "never fires"),
        ("FREQ=MONTHLY;BYDAY=1MO;BYSETPOS=2", "never fires"),
        ("FREQ=SECONDLY;INTERVAL=2;BYSECOND=1", "never fires"),
        ("FREQ=SECONDLY;INTERVAL=86400;BYHOUR=10", "never fires"),
        ("FREQ=MINUTELY;INTERVAL=10080;BYDAY=TU", "never fires"),
        ("FREQ=DAILY;UNTIL=20260503", "never fires"),
        ("FREQ=DAILY;UNTIL=20260230", "is not a time"),
        ("FREQ=DAILY;UNTIL=99990101", "is not between the years"),
        ("FREQ=WEEKLY;BYDAY=2TU", "counts the days of a month or a year"),
        ("FREQ=MONTHLY;BYWEEKNO=3", "BYWEEKNO has no meaning with FREQ=MONTHLY"),
        ("FREQ=WEEKLY;BYMONTHDAY=3", "BYMONTHDAY has no meaning with FREQ=WEEKLY"),
        ("FREQ=DAILY;BYYEARDAY=3", "BYYEARDAY has no meaning with FREQ=DAILY"),
        ("FREQ=DAILY;BYSETPOS=1", "there is none"),
        ("FREQ=FORTNIGHTLY", "FREQ can't be"),
        ("BYDAY=53SA;FREQ=MONTHLY", "no month has more than five"),
        ("FREQ=YEARLY;BYMONTH=12;BYDAY=6MO", "no month has more than five"),
        ("FREQ=MONTHLY;BYDAY=-6FR", "no month has more than five"),
        ("BYYEARDAY=5;BYSETPOS=85;COUNT=100;FREQ=HOURLY", "never fires"),
        ("FREQ=MINUTELY;INTERVAL=1440;BYYEARDAY=366;BYHOUR=10", "never fires"),
        ("WKST=SU;BYSETPOS=22,26,3,7,36,273,-51,-209;FREQ=DAILY;BYSECOND=17,51", "never fires: BYSETPOS=-209 chooses among 2 times"),
        ("FREQ=HOURLY;BYYEARDAY=5;BYSETPOS=85", "never fires: BYSETPOS=85 chooses among 1 times"),
        ("FREQ=SECONDLY;BYMONTH=5;BYSETPOS=2", "never fires: BYSETPOS=2 chooses among 1 times"),
        ("FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR,SA,SU;COUNT=100001", "too long to count; at most 100000"),
    ],
)
def test_what_is_wrong_or_never_fires_is_refused_soon(rrule: str, reason: str) -> None:
    """dateutil alone would look on until the year 9999."""
    began = time.process_time()
    with pytest.raises(LilyError, match=reason) as caught:
        calendar(rrule)
    assert caught.value.code is Code.JOB_TRIGGER_INVALID
    assert time.process_time() - began < 5


def test_a_rule_is_counted_for_four_hundred_years_at_most() -> None:
    """A walk through seven thousand years would take ten seconds; the rule ends there, and no sooner."""
    began = time.process_time()
    schedule = calendar("FREQ=DAILY;BYMONTH=1;BYMONTHDAY=31;COUNT=99999", "2001-01-01T00:00", "UTC")
    assert time.process_time() - began < 3
    assert schedule.next_after(datetime(2400, 1, 1, tzinfo=UTC)) is not None
    assert schedule.next_after(datetime(2402, 1, 1, tzinfo=UTC)) is None


def test_an_exclusion_of_every_second_is_asked_window_by_window() -> None:
    """To keep each second of each day that was asked about would take eight megabytes a day."""
    schedule = calendar(
        "FREQ=DAILY", "2026-05-04T09:00:30", "UTC", exclude={"rrule": "FREQ=SECONDLY;INTERVAL=2", "anchor": "2026-05-06T00:00"}
    )
    tracemalloc.start()
    found = list(islice(schedule.windows(BEGIN, datetime(2027, 1, 1, tzinfo=UTC)), 6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [window.excluded for window in found] == [False, False, True, True, True, True]
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "rrule", ["FREQ=SECONDLY", "FREQ=SECONDLY;INTERVAL=7", "FREQ=MINUTELY;INTERVAL=7", "FREQ=SECONDLY;COUNT=1000000", "FREQ=DAILY"]
)
def test_a_rule_anchored_long_ago_is_as_fast_as_a_young_one(rrule: str) -> None:
    """No walk from the anchor: a second's walk alone from 1995 would be a thousand million steps."""
    schedule = calendar(rrule, "1995-01-01T00:00")
    began = time.perf_counter()
    for day in range(100):
        schedule.next_after(datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day))
    assert time.perf_counter() - began < 1


CHOOSING: dict[str, Callable[[datetime], bool]] = {
    "": lambda at: True,
    ";BYMONTH=2,3,7": lambda at: at.month in (2, 3, 7),
    ";BYDAY=MO,TU,SU": lambda at: at.weekday() in (0, 1, 6),
    ";BYMONTHDAY=1,15,-1": lambda at: at.day in (1, 15) or (at + timedelta(days=1)).day == 1,
    ";BYHOUR=3,4,5,17": lambda at: at.hour in (3, 4, 5, 17),
}


@given(
    unit=st.sampled_from([("HOURLY", timedelta(hours=1)), ("MINUTELY", timedelta(minutes=1))]),
    days=st.floats(1, 4000),
    parts=st.sampled_from(sorted(CHOOSING)),
    start=st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
def test_steps_of_days_and_years_fall_where_counting_from_the_anchor_puts_them(
    unit: tuple[str, timedelta], days: float, parts: str, start: datetime
) -> None:
    """From whatever time on, and however long none of them fits."""
    interval = min(round(timedelta(days=days) / unit[1]), 100_000)
    anchor, until = datetime(2024, 2, 29, 5, 6, 7), datetime(2200, 1, 1)
    steps = (anchor + unit[1] * interval * n for n in range(int((until - anchor) / (unit[1] * interval))))
    wanted = [at for at in steps if CHOOSING[parts](at) and at.replace(tzinfo=UTC) > start][:8]
    assume(len(wanted) == 8)
    schedule = calendar(f"FREQ={unit[0]};INTERVAL={interval}{parts}", anchor.isoformat(), "UTC")
    found = islice(schedule.windows(start, until.replace(tzinfo=UTC)), 8)
    assert [window.at.replace(tzinfo=None) for window in found] == wanted


def test_a_rule_of_very_long_steps_is_not_looked_for_day_by_day() -> None:
    """Twelve years from one try to the next: a walk over all their days took a second."""
    began = time.process_time()
    schedule = calendar("FREQ=HOURLY;INTERVAL=100000;BYHOUR=1,2,5,8,16;BYMONTH=2,3,4,5,7,10", "2031-09-01", "UTC")
    for _ in range(20):
        assert len(list(islice(schedule.windows(BEGIN, datetime(8000, 1, 1, tzinfo=UTC)), 10))) == 10
    assert time.process_time() - began < 2


def test_a_rule_of_one_day_of_the_year_is_not_looked_for_day_by_day() -> None:
    """Hundreds of years from one time to the next, in steps of a day and more: a walk over all their days took a third of a second."""
    began = time.process_time()
    schedule = calendar("FREQ=SECONDLY;INTERVAL=99991;BYYEARDAY=11;BYHOUR=1;BYMINUTE=7,8,53", "1970-08-01", "UTC")
    found = [window.at.replace(tzinfo=None) for window in islice(schedule.windows(BEGIN, datetime(8000, 1, 1, tzinfo=UTC)), 4)]
    assert time.process_time() - began < 2
    anchor, step = datetime(1970, 8, 1), timedelta(seconds=99_991)
    steps = (anchor + n * step for n in range((found[-1] - anchor) // step + 1))
    assert found == [
        at for at in steps if (at.month, at.day, at.hour) == (1, 11, 1) and at.minute in (7, 8, 53) and at >= datetime(1990, 1, 1)
    ]


@pytest.mark.parametrize("hours", [99991, 600])
def test_a_rule_of_very_long_steps_whose_days_never_come_is_refused_soon(hours: int) -> None:
    """Once the calendar begins again, and not with its last year."""
    began = time.process_time()
    with pytest.raises(LilyError, match="never fires"):
        calendar(f"FREQ=HOURLY;INTERVAL={hours};BYMONTH=2;BYYEARDAY=8;COUNT=1", "2027-03-29T16:00", "UTC")
    assert time.process_time() - began < 2


def test_what_is_wrong_with_a_very_long_rule_is_said_in_few_words() -> None:
    with pytest.raises(LilyError) as caught:
        calendar(f"FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30;BYMINUTE={'5,' * 300}5", "2026-01-01", "UTC")
    assert "never fires" in caught.value.message
    assert len(caught.value.message) < 400


by_parts = {
    "BYMONTH": st.integers(1, 12),
    "BYMONTHDAY": st.sampled_from([1, 2, 13, 15, 28, 29, 30, 31, -1, -2, -31]),
    "BYDAY": st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]),
    "BYHOUR": st.integers(0, 23),
    "BYMINUTE": st.integers(0, 59),
    "BYSECOND": st.integers(0, 59),
}


@st.composite
def rules(draw: st.DrawFn) -> str:
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]))
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.integers(1, 9))}"]
    for name, values in by_parts.items():
        # dateutil takes seconds of its own to walk over what a rule of seconds leaves out.
        if draw(st.integers(0, 3)) == 0 and not (freq == "WEEKLY" and name == "BYMONTHDAY") and not (freq == "SECONDLY" and name < "BYM"):
            parts.append(f"{name}={','.join(map(str, draw(st.lists(values, min_size=1, max_size=3, unique=True))))}")
    if len(parts) > 2 and freq not in ("WEEKLY", "HOURLY", "MINUTELY", "SECONDLY") and draw(st.booleans()):
        parts.append(f"BYSETPOS={draw(st.sampled_from([1, 2, -1]))}")
    if freq == "WEEKLY":
        parts.append(f"WKST={draw(by_parts['BYDAY'])}")
    return ";".join(parts)


@given(rrule=rules(), anchor=st.datetimes(datetime(2020, 1, 1), datetime(2024, 1, 1)), skipped=st.integers(0, 30))
def test_windows_are_dateutils_own_from_whatever_time_on(rrule: str, anchor: datetime, skipped: int) -> None:
    """Started in the middle, a rule gives what it gives from its anchor on. (In UTC; and no BYSETPOS that dateutil begins mid-week.)"""
    anchor = anchor.replace(microsecond=0)
    try:
        schedule = calendar(rrule, anchor.isoformat(), "UTC")
    except LilyError:
        assume(False)
    assume(schedule.next_after(anchor.replace(tzinfo=UTC) + timedelta(days=400)))
    wanted = [at.replace(tzinfo=UTC) for at in islice(rrulestr(rrule, dtstart=anchor), skipped + 10)]
    assume(len(wanted) == skipped + 10)
    found = islice(schedule.windows(wanted[skipped] - timedelta(microseconds=1), datetime(8000, 1, 1, tzinfo=UTC)), 10)
    assert [window.at for window in found] == wanted[skipped:]


@settings(max_examples=30)  # a rule that never fires takes up to half a second to be found out
@given(rrule=rules(), start=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)))
def test_windows_ascend_and_following_them_one_by_one_gives_the_same(rrule: str, start: datetime) -> None:
    """Also over changes of clocks."""
    try:
        schedule = calendar(rrule, "2020-02-29T02:15:30", "America/New_York")
    except LilyError:
        assume(False)
    found = list(islice(schedule.windows(start, start + timedelta(days=900)), 12))
    assert all(sooner.at < later.at for sooner, later in pairwise(found))
    at = start
    for window in found:
        assert schedule.next_after(at) == window
        at = window.at
