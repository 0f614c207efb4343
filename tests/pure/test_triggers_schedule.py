"""What every kind of trigger has in common: bounds, exclusions, jitter, APScheduler's side, notes and reasons."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import Any

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.triggers.schedule import Schedule, schedule_of
from tests.strategies_time import near_changes

BERLIN = "Europe/Berlin"
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def of(zone: str | None = BERLIN, **trigger: Any) -> Schedule:
    return schedule_of(trigger, zone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(schedule: Schedule, number: int, after: datetime = BEGIN) -> list[str]:
    found = islice(schedule.windows(after, datetime(2090, 1, 1, tzinfo=UTC)), number)
    return [window.at.astimezone(schedule.zone).isoformat(timespec="minutes") for window in found]


KINDS: list[dict[str, Any]] = [
    {"type": "cron", "cron": "*/7 * * * *"},
    {"type": "cron", "cron": "30 2 * * *"},
    {"type": "interval", "every": "45m"},
    {"type": "interval", "every": "1d", "anchor": "2025-01-01T02:30"},
    {"type": "condition", "every": "90s"},
    {"type": "calendar", "rrule": "FREQ=HOURLY;INTERVAL=5", "anchor": "2020-01-01T00:30"},
    {"type": "once", "at": "2026-03-29T02:30"},
]


def test_steps_of_seconds_minutes_and_hours_are_real_time() -> None:
    """A clock that changes makes no window longer or shorter."""
    schedule = of(type="interval", every="6h", anchor="2026-03-28T12:00")
    assert local(schedule, 4) == ["2026-03-28T12:00+01:00", "2026-03-28T18:00+01:00", "2026-03-29T00:00+01:00", "2026-03-29T07:00+02:00"]


@pytest.mark.parametrize(
    ("every", "anchor", "windows"),
    [
        ("1d", "2026-03-28T09:00", ["2026-03-28T09:00+01:00", "2026-03-29T09:00+02:00", "2026-03-30T09:00+02:00"]),
        ("1d", "2026-03-28T02:30", ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("1d", "2026-10-24T02:30", ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("2w", "2026-03-23T09:00", ["2026-03-23T09:00+01:00", "2026-04-06T09:00+02:00", "2026-04-20T09:00+02:00"]),
        ("1mo", "2026-01-31", ["2026-01-31T00:00+01:00", "2026-02-28T00:00+01:00", "2026-03-31T00:00+02:00"]),
        ("1mo", "2028-01-31T08:00:00Z", ["2028-01-31T09:00+01:00", "2028-02-29T09:00+01:00", "2028-03-31T09:00+02:00"]),
        ("12mo", "2028-02-29", ["2028-02-29T00:00+01:00", "2029-02-28T00:00+01:00", "2030-02-28T00:00+01:00"]),
    ],
)
def test_steps_of_days_weeks_and_months_keep_the_local_time(every: str, anchor: str, windows: list[str]) -> None:
    """And the anchor's day of the month: no step builds on the one before, so none drifts."""
    assert local(of(type="interval", every=every, anchor=anchor), 3) == windows


def test_without_an_anchor_steps_begin_on_a_monday_and_the_first_of_a_month() -> None:
    """2024-01-01T00:00 in the job's zone, and in UTC without one; there are windows before it, too."""
    assert local(of(type="interval", every="1w"), 2) == ["2026-01-05T00:00+01:00", "2026-01-12T00:00+01:00"]
    assert local(of(None, type="interval", every="1mo"), 2) == ["2026-02-01T00:00+00:00", "2026-03-01T00:00+00:00"]
    assert local(of(None, type="interval", every="8h"), 2) == ["2026-01-01T08:00+00:00", "2026-01-01T16:00+00:00"]
    assert local(of(None, type="interval", every="1d"), 1, utc("2020-05-05T05:05")) == ["2020-05-06T00:00+00:00"]


@pytest.mark.parametrize("every", ["6h", "1d", "1mo"])
def test_the_anchor_is_the_first_window(every: str) -> None:
    """Nothing comes before it."""
    assert local(of(type="interval", every=every, anchor="2030-05-31T09:00"), 1) == ["2030-05-31T09:00+02:00"]


def test_the_looks_of_a_condition_are_windows() -> None:
    """They are steps like any interval's."""
    condition = of(None, type="condition", every="15m", subject="x", operator="exists", value=None, mode="edge")
    assert condition.kind == "condition"
    assert local(condition, 2) == ["2026-01-01T00:15+00:00", "2026-01-01T00:30+00:00"]


def test_once_is_one_window() -> None:
    """With an offset, or local in the job's zone."""
    assert local(of(None, type="once", at="2026-05-04T09:00:00+02:00"), 5) == ["2026-05-04T07:00+00:00"]
    assert local(of(type="once", at="2026-05-04T09:00"), 5) == ["2026-05-04T09:00+02:00"]
    assert of(type="once", at="2026-05-04T09:00").next_after(utc("2026-05-04T07:00")) is None


def test_once_on_a_day_that_a_zone_left_out_is_when_the_next_day_begins() -> None:
    """Kiribati had no 31 December 1994: the day after began in the old year of UTC, and its evening would have been in the new one."""
    assert local(of("Pacific/Kiritimati", type="once", at="1994-12-31T20:00"), 1, utc("1990-01-01")) == ["1995-01-01T00:00+14:00"]


def test_windows_outside_start_and_end_do_not_exist() -> None:
    """Both belong to the span; dates alone are whole local days."""
    daily = {"type": "cron", "cron": "0 0,12 * * *"}
    assert local(of(**daily, start_at="2026-05-04", end_at="2026-05-05"), 9) == [
        "2026-05-04T00:00+02:00",
        "2026-05-04T12:00+02:00",
        "2026-05-05T00:00+02:00",
        "2026-05-05T12:00+02:00",
    ]
    assert local(of(**daily, start_at="2026-05-04T10:00:00Z", end_at="2026-05-05T00:00"), 9) == [
        "2026-05-04T12:00+02:00",
        "2026-05-05T00:00+02:00",
    ]


def test_a_span_without_windows_is_refused() -> None:
    """It would never fire."""
    with pytest.raises(LilyError, match="no window lies between start_at and end_at") as caught:
        of(type="cron", cron="0 9 1 1 *", start_at="2026-02-01", end_at="2026-03-01")
    assert caught.value.code is Code.JOB_TRIGGER_INVALID
    with pytest.raises(LilyError, match="no window lies"):
        of(type="once", at="2026-05-04T09:00", end_at="2026-05-03")


@pytest.mark.parametrize(
    ("trigger", "zone", "reason"),
    [
        ({"type": "manual"}, None, "no windows"),
        ({"type": "cron", "cron": "0 0 30 2 *"}, BERLIN, "never fires"),
        ({"type": "cron", "cron": "0 9 * * *"}, "Europe/Berlim", "is not a time zone"),
        ({"type": "cron", "cron": "0 9 * * *"}, "Europe/" * 600, "is not a time zone"),
        ({"type": "interval", "every": "0m"}, None, "is not a duration"),
        ({"type": "interval", "every": "1h", "anchor": "0001-01-01"}, None, "is not between the years"),
        ({"type": "interval", "every": "1h", "anchor": "tomorrow"}, None, "is not a time"),
        ({"type": "once", "at": "9999-12-31T23:59:59Z"}, None, "is not between the years"),
        ({"type": "cron", "cron": "0 9 * * *", "exclude": {"dates": ["2026-13-01"]}}, BERLIN, "exclude"),
        ({"type": "cron", "cron": "0 9 * * *", "exclude": {"dates": [], "rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}}, BERLIN, "never"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(trigger: dict[str, Any], zone: str | None, reason: str) -> None:
    """With the code that every surface knows."""
    with pytest.raises(LilyError, match=reason) as caught:
        schedule_of(trigger, zone)
    assert caught.value.code is Code.JOB_TRIGGER_INVALID


def excluded(**exclude: Any) -> list[str]:
    schedule = of(type="cron", cron="0 0,9 * * *", exclude={"dates": [], "rrule": None, "anchor": None, **exclude})
    found = schedule.windows(utc("2026-12-20T00:00"), utc("2027-01-04T00:00"))
    return [f"{window.at.astimezone(schedule.zone):%d %H}" for window in found if window.excluded]


def test_excluded_windows_stay_windows() -> None:
    """Whole local days for dates and for rules of days; single times where the rule says a time."""
    assert excluded(dates=["2026-12-25"]) == ["25 00", "25 09"]
    assert excluded(rrule="FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25") == ["25 00", "25 09"]
    assert excluded(rrule="FREQ=WEEKLY", anchor="2026-12-24") == ["24 00", "24 09", "31 00", "31 09"]
    assert excluded(rrule="FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25;BYHOUR=9") == ["25 09"]
    assert excluded(rrule="FREQ=WEEKLY", anchor="2026-12-24T09:00") == ["24 09", "31 09"]
    assert excluded(rrule="FREQ=HOURLY;INTERVAL=48", anchor="2026-12-24") == ["24 00", "26 00", "28 00", "30 00", "01 00", "03 00"]
    assert excluded(dates=["2026-12-31"], rrule="FREQ=DAILY;COUNT=1", anchor="2026-12-25") == ["25 00", "25 09", "31 00", "31 09"]


jittered = st.builds(
    lambda kind, seconds, place: (schedule_of({**kind, "jitter_seconds": seconds}, place[0]), seconds, place[1]),
    st.sampled_from([kind for kind in KINDS if kind["type"] != "once"]),
    st.floats(0, 86_400),
    near_changes,
)


@given(case=jittered, job=st.text(max_size=20))
def test_jitter_is_bounded_and_comes_before_the_next_window(case: tuple[Schedule, float, datetime], job: str) -> None:
    """The same each time, and windows keep their order."""
    schedule, seconds, start = case
    found = [window.at for window in islice(schedule.windows(start, start + timedelta(days=30)), 8)]
    due = [schedule.fire_at(job, at) for at in found]
    assert due == [schedule.fire_at(job, at) for at in found]
    assert all(timedelta(0) <= late - at <= timedelta(seconds=seconds) for late, at in zip(due, found, strict=True))
    assert all(late < following for late, following in zip(due, found[1:], strict=False))


def test_jitter_spreads_jobs_and_windows() -> None:
    """A thousand jobs of one minute are spread over the whole of it; without jitter nothing moves."""
    schedule = of(type="cron", cron="0 * * * *", jitter_seconds=60.0)
    late = sorted((schedule.fire_at(f"job-{n}", BEGIN) - BEGIN).total_seconds() for n in range(1000))
    assert len(set(late)) > 950
    assert late[0] < 1
    assert 59 < late[-1] < 60
    assert of(type="cron", cron="0 * * * *", jitter_seconds=0.0).fire_at("job", BEGIN) == BEGIN


@given(case=jittered, job=st.text(max_size=20))
def test_apscheduler_fires_at_each_windows_due_time(case: tuple[Schedule, float, datetime], job: str) -> None:
    """From one fire time to the next, and found again from any moment between."""
    schedule, _, start = case
    due = [schedule.fire_at(job, window.at) for window in islice(schedule.windows(start, start + timedelta(days=40)), 8)]
    trigger = schedule.trigger(job)
    for sooner, later in pairwise(due):
        assert trigger.get_next_fire_time(sooner, sooner) == later
        assert trigger.get_next_fire_time(sooner, later + timedelta(days=9)) == later
        assert trigger.get_next_fire_time(None, sooner + timedelta(microseconds=1)) == later
        assert trigger.get_next_fire_time(None, later) == later


def test_the_trigger_of_a_finished_job_ends() -> None:
    """APScheduler drops a job whose trigger says None."""
    trigger = of(type="once", at="2026-05-04T09:00", jitter_seconds=5.0).trigger("job")
    fired = trigger.get_next_fire_time(None, BEGIN)
    assert fired is not None
    assert trigger.get_next_fire_time(fired, fired) is None


@pytest.mark.parametrize(
    ("cron", "at", "note"),
    [
        ("30 2 * * *", "2026-03-29T01:00", "clocks go forward: 02:30 does not exist, runs at 03:00"),
        ("15,45 2 * * *", "2026-03-29T01:00", "clocks go forward: 02:15 and 02:45 do not exist, runs once at 03:00"),
        ("0-59/10 2 * * *", "2026-03-29T01:00", "clocks go forward: 02:00 to 02:50 do not exist, runs once at 03:00"),
        ("30 2 * * *", "2026-10-25T00:30", "clocks go back: 02:30 comes twice, runs the first time only"),
        ("*/30 * * * *", "2026-10-25T00:30", "first 02:30 of the repeated hour"),
        ("*/30 * * * *", "2026-10-25T01:30", "second 02:30 of the repeated hour"),
        ("*/30 * * * *", "2026-03-29T01:00", ""),
        ("0 3 * * *", "2026-03-29T01:00", ""),
        ("30 2 * * *", "2026-03-30T00:30", ""),
        ("30 1 * * *", "2026-10-24T23:30", ""),
        ("0 3 * * *", "2026-10-25T02:00", ""),
    ],
)
def test_notes_tell_of_changing_clocks(cron: str, at: str, note: str) -> None:
    """For people; empty on all other days."""
    schedule = of(type="cron", cron=cron)
    assert schedule.why_not(utc(at)) is None
    assert schedule.note(utc(at)) == note


def test_a_note_on_a_missing_day_says_the_dates() -> None:
    """Samoa had no 30 December 2011."""
    schedule = of("Pacific/Apia", type="interval", every="1d", anchor="2011-01-01T09:00")
    note = "clocks go forward: 2011-12-30 09:00 does not exist, runs at 2011-12-31 00:00"
    assert schedule.note(utc("2011-12-30T10:00")) == note
    assert of(type="once", at="2026-03-29T02:30").note(utc("2026-03-29T01:00")).startswith("clocks go forward: 02:30 does not exist")
    assert of(type="interval", every="1h").note(utc("2026-10-25T01:00")) == "second 02:00 of the repeated hour"


@pytest.mark.parametrize(
    ("trigger", "at", "reason"),
    [
        ({"cron": "0 9 * * *"}, "2026-05-04T07:00:59", None),
        ({"cron": "0 9 * * *"}, "2026-05-04T08:00", "hour 10 is not in 9"),
        ({"cron": "0 9 * 6 *"}, "2026-05-04T07:30", "minute 30 is not in 0 and month 5 is not in 6"),
        ({"cron": "0 9 13 * 5"}, "2026-10-14T07:00", "day of month 14 is not in 13 and weekday wed is not in fri"),
        ({"cron": "0 9 13 * 5"}, "2026-10-13T07:00", None),
        ({"cron": "0 9 * * 1-5"}, "2026-05-03T07:00", "weekday sun is not in mon-fri"),
        ({"cron": "30 2 * * *"}, "2026-10-25T01:30", "clocks go back: 02:30 comes twice, runs the first time only"),
        ({"cron": "0 9 * * *", "start_at": "2026-05-05"}, "2026-05-04T07:00", "it is before start_at, 2026-05-05 00:00:00 CEST"),
        ({"cron": "0 9 * * *", "end_at": "2026-05-03"}, "2026-05-04T07:00", "it is after end_at, 2026-05-03 23:59:59 CEST"),
        ({"every": "15m"}, "2026-05-04T07:15:00.9", None),
        ({"every": "15m"}, "2026-05-04T07:16", "the nearest windows are 2026-05-04 09:15:00 CEST and 2026-05-04 09:30:00 CEST"),
        ({"every": "1d", "anchor": "2026-05-05T09:00"}, "2026-05-04T07:00", "the nearest window is 2026-05-05 09:00:00 CEST"),
        ({"at": "2026-05-03T09:00"}, "2026-05-04T07:00", "the nearest window is 2026-05-03 09:00:00 CEST"),
        ({"at": "2026-05-03T09:00"}, "8126-05-04T07:00", "the nearest window is 2026-05-03 09:00:00 CEST"),
        ({"at": "8999-12-31T23:30-05:00"}, "2026-05-04T07:00", "it has no window at all"),
        ({"at": "2026-10-25T02:30"}, "2026-10-25T01:30", "clocks go back: 02:30 comes twice, runs the first time only"),
        ({"at": "2026-10-25T02:30"}, "2026-10-25T01:15", "the nearest window is 2026-10-25 02:30:00 CEST"),
        (
            {"every": "1d", "anchor": "2027-01-01"},
            "2027-01-01T05:00",
            "the nearest windows are 2027-01-01 00:00:00 CET and 2027-01-02 00:00:00 CET",
        ),
    ],
)
def test_why_a_time_is_no_window(trigger: dict[str, Any], at: str, reason: str | None) -> None:
    """Which field, which bound, or what lies around it."""
    kind = {"cron": "cron", "every": "interval", "at": "once"}[next(iter(trigger))]
    assert of(type=kind, **trigger).why_not(utc(at)) == reason


# Rules whose last window lies behind many others, or far back.
DENSE: list[dict[str, Any]] = [
    {"type": "calendar", "rrule": "FREQ=SECONDLY;BYDAY=WE,TH,FR;UNTIL=20261231T235959", "anchor": "2026-08-30T09:59+02:00"},
    {"type": "calendar", "rrule": "FREQ=MINUTELY;BYHOUR=3,4;BYMINUTE=7,8,9", "anchor": "2026-03-01"},
    {"type": "interval", "every": "1s", "anchor": "2026-03-01", "end_at": "2026-05-03T04:05:06"},
    {"type": "cron", "cron": "* 4-6 * * 1-3", "end_at": "2026-10-20"},
]


@given(at=st.datetimes(datetime(2026, 8, 30), datetime(2026, 11, 1)).map(lambda at: at.replace(microsecond=500_000, tzinfo=UTC)))
@pytest.mark.parametrize("kind", [*KINDS[:-1], *DENSE])
def test_the_nearest_window_before_a_time_is_the_last_of_all_before_it(kind: dict[str, Any], at: datetime) -> None:
    """Seen from it, there is none up to the time that was asked about."""
    schedule = of(**kind)
    last = schedule._before(at, timedelta(days=400))
    if last is None:
        assert next(schedule.windows(at - timedelta(days=400), at), None) is None
    else:
        assert last.at <= at
        assert list(schedule.windows(last.at - timedelta(microseconds=1), at)) == [last]


def test_a_rule_of_every_second_is_not_walked_over_to_find_its_last_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty days of one are millions of windows, which would take seconds."""
    seen, windows = 0, Schedule.windows

    def counted(self: Schedule, after: datetime, until: datetime) -> Iterator[Any]:
        nonlocal seen
        for window in windows(self, after, until):
            seen += 1
            yield window

    monkeypatch.setattr(Schedule, "windows", counted)
    reason = of("Pacific/Kwajalein", **DENSE[0]).why_not(utc("2026-09-06T03:00"))
    assert reason == "the nearest windows are 2026-09-04 23:59:59 +12 and 2026-09-09 00:00:00 +12"
    assert seen < 2000


@pytest.mark.parametrize("cron", ["* * * {}/3 *", "* * * {} *", "* * * */{} *", "* * * 1-{} *", "@{}", "* * * 2/{} *"])
def test_what_is_wrong_with_a_very_long_expression_is_said_in_few_words(cron: str) -> None:
    with pytest.raises(LilyError) as caught:
        of(type="cron", cron=cron.format("2-" * 2000))
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("kind", KINDS)
def test_the_offset_of_a_question_makes_no_difference(kind: dict[str, Any]) -> None:
    """Instants are instants; answers are in UTC; one without an offset is a mistake."""
    schedule, there = of(**kind), timezone(timedelta(hours=-9))
    found = list(schedule.windows(BEGIN, BEGIN + timedelta(days=90)))
    assert found == list(schedule.windows(BEGIN.astimezone(there), (BEGIN + timedelta(days=90)).astimezone(there)))
    assert found
    assert all(window.at.tzinfo is UTC for window in found)
    with pytest.raises(ValueError, match="no offset"):
        schedule.next_after(datetime(2026, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_pythons_calendar_are_no_error(kind: dict[str, Any]) -> None:
    """Whoever asks for all windows gets them."""
    schedule = of(**kind)
    assert next(schedule.windows(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))).at.year >= 1900
    assert schedule.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert not list(schedule.windows(END, BEGIN))


@given(at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)), kind=st.sampled_from(KINDS))
def test_a_window_found_is_after_the_question_and_none_lies_between(at: datetime, kind: dict[str, Any]) -> None:
    """Strictly after; and the same when asked again from just before it."""
    schedule = of(**kind)
    window = schedule.next_after(at)
    if window:
        assert window.at > at
        assert schedule.next_after(window.at - timedelta(microseconds=1)) == window
        assert list(schedule.windows(at, window.at)) == [window]


def test_a_year_of_minutes_takes_no_longer_than_apscheduler_alone() -> None:
    """Against the stock trigger over the same days; half as long again is allowed, a small part of it is what it takes."""
    stock, last = CronTrigger.from_crontab("* * * * *", timezone=BERLIN), BEGIN + timedelta(days=2)
    began, number, at = time.perf_counter(), 0, BEGIN
    while at < last:
        at, number = stock.get_next_fire_time(at, at), number + 1
    stocks = (time.perf_counter() - began) / number
    began = time.perf_counter()
    windows = sum(1 for _ in of(type="cron", cron="* * * * *").windows(BEGIN - timedelta(microseconds=1), END - timedelta(microseconds=1)))
    assert windows == 525_600
    assert (time.perf_counter() - began) / windows < 1.5 * stocks


def test_nothing_asks_for_the_time() -> None:
    """No trigger of APScheduler's or dateutil's is made in a way that makes it look at the clock."""
    program = f"""
import datetime, time
class Canary(datetime.datetime):
    @classmethod
    def now(cls, tz=None): raise AssertionError("now")
    utcnow = today = now
import lily.triggers.schedule as s, apscheduler.triggers.cron as c, apscheduler.triggers.interval as i, dateutil.rrule as d
def stop(*_): raise AssertionError("clock")
time.time = time.monotonic = stop
c.get_localzone = i.get_localzone = stop
for module in (c, i): module.datetime = Canary
d.datetime = type("datetimes", (), {{name: getattr(datetime, name) for name in dir(datetime) if name[0] != "_"}} | {{"datetime": Canary}})
at = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
for kind in {KINDS!r}:
    schedule = s.schedule_of({{**kind, "jitter_seconds": 9.0}}, {BERLIN!r})
    assert schedule.trigger("job").get_next_fire_time(None, at)
    schedule.note(at), schedule.why_not(at)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_itself_imports_nothing() -> None:
    """A command that needs no calendar pays for none."""
    program = "import lily.triggers, sys; print([m for m in ('apscheduler', 'dateutil', 'tzlocal', 'zoneinfo') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
