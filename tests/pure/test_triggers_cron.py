"""Cron windows by example: Debian's rules, also where clocks change. Agreement at large is in `test_cron_agreement.py`."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.triggers.cron import cron_rule
from lily.triggers.schedule import Schedule, schedule_of
from lily.triggers.zones import local_of
from tests.strategies_time import ODD, expressions, near_changes


def cron(expression: str, zone: str = "Europe/Berlin") -> Schedule:
    return schedule_of({"type": "cron", "cron": expression}, zone)


def local(schedule: Schedule, after: str, until: str) -> list[str]:
    """The windows in between, which are UTC, as the job's own clock shows them."""
    found = schedule.windows(datetime.fromisoformat(after + "Z"), datetime.fromisoformat(until + "Z"))
    return [window.at.astimezone(schedule.zone).isoformat(timespec="minutes") for window in found]


@pytest.mark.parametrize("expression", ["0 9 * * 0", "0 9 * * 7", "0 9 * * sun", "0 9 * * SUN"])
def test_sunday_is_0_and_7_and_sun(expression: str) -> None:
    """APScheduler alone would run the first on a Monday and refuse the second."""
    assert local(cron(expression), "2026-05-01T00:00", "2026-05-12T00:00") == ["2026-05-03T09:00+02:00", "2026-05-10T09:00+02:00"]


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 13 * 5", {1, 8, 13, 15, 22, 29}),  # both restricted: either
        ("0 0 13 * *", {13}),
        ("0 0 * * 5", {1, 8, 15, 22, 29}),
        ("0 0 */2 * 5", {1, 15, 29}),  # begins with a star, so not restricted: both
        ("0 0 13 * */5", {13} & {3, 8, 10, 15, 17}),
        ("0 0 1-7 * 0-7", set(range(1, 32))),
        ("0 0 1-7,20-30/5 * fri-sun", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 20, 22, 23, 24, 25, 29, 30, 31}),
    ],
)
def test_day_of_month_or_weekday_is_enough_when_both_are_restricted(expression: str, days: set[int]) -> None:
    """Restricted means: does not begin with a star. May 2026 begins on a Friday."""
    found = local(cron(expression, "UTC"), "2026-04-30T12:00", "2026-05-31T12:00")
    assert {int(at[8:10]) for at in found} == days


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("@hourly", ["2026-05-31T22:00+00:00", "2026-05-31T23:00+00:00", "2026-06-01T00:00+00:00"]),
        ("@daily", ["2026-06-01T00:00+00:00", "2026-06-02T00:00+00:00", "2026-06-03T00:00+00:00"]),
        ("@midnight", ["2026-06-01T00:00+00:00", "2026-06-02T00:00+00:00", "2026-06-03T00:00+00:00"]),
        ("@weekly", ["2026-06-07T00:00+00:00", "2026-06-14T00:00+00:00", "2026-06-21T00:00+00:00"]),
        ("@monthly", ["2026-06-01T00:00+00:00", "2026-07-01T00:00+00:00", "2026-08-01T00:00+00:00"]),
        ("@yearly", ["2027-01-01T00:00+00:00", "2028-01-01T00:00+00:00", "2029-01-01T00:00+00:00"]),
        ("@Annually", ["2027-01-01T00:00+00:00", "2028-01-01T00:00+00:00", "2029-01-01T00:00+00:00"]),
    ],
)
def test_names_stand_for_expressions(name: str, windows: list[str]) -> None:
    """As in crontab(5)."""
    schedule = cron(name, "UTC")
    assert local(schedule, "2026-05-31T21:30", "2030-01-01T00:00")[:3] == windows


def test_a_fixed_time_runs_once_on_both_days_of_change() -> None:
    """What spring skips runs right after the gap; what autumn repeats runs the first time."""
    assert local(cron("30 2 * * *"), "2026-03-28T12:00", "2026-03-30T12:00") == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    assert local(cron("30 2 * * *"), "2026-10-24T12:00", "2026-10-26T12:00") == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_a_wildcard_keeps_its_real_cadence() -> None:
    """Every half hour of real time, on every day of the year."""
    windows = list(cron("*/30 * * * *").windows(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))
    assert len(windows) == 365 * 48
    assert {later.at - sooner.at for sooner, later in pairwise(windows)} == {timedelta(minutes=30)}
    assert local(cron("*/30 2 * * *"), "2026-10-24T12:00", "2026-10-25T12:00") == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
    ]
    assert local(cron("*/30 2 * * *"), "2026-03-28T12:00", "2026-03-29T12:00") == []


def test_a_star_in_the_hour_alone_makes_a_wildcard() -> None:
    """`30 * * * *` runs in both of the repeated hours, and not for the one that spring skips."""
    assert local(cron("30 * * * *"), "2026-10-24T23:45", "2026-10-25T02:00") == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
    ]
    assert local(cron("30 * * * *"), "2026-03-29T00:00", "2026-03-29T02:00") == ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]


def test_a_step_over_a_range_is_a_fixed_time() -> None:
    """Debian looks at the first character alone."""
    assert local(cron("0-59/30 0-23 * * *"), "2026-10-25T00:00", "2026-10-25T02:00") == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T03:00+01:00",
    ]


def test_times_that_one_gap_skips_run_as_one() -> None:
    """Together, and together with what is due at the gap's end."""
    assert local(cron("0,15,30,45 2,3 * * *"), "2026-03-29T00:00", "2026-03-29T01:20") == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:15+02:00",
    ]
    assert local(cron("20,40 2 * * *"), "2026-03-29T00:00", "2026-03-29T12:00") == ["2026-03-29T03:00+02:00"]


@pytest.mark.parametrize(
    ("zone", "expression", "after", "until", "windows"),
    [
        ("Australia/Lord_Howe", "15 2 * * *", "2025-10-04T00:00", "2025-10-05T00:00", ["2025-10-05T02:30+11:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00", "2026-04-05T12:00", ["2026-04-05T01:45+11:00"]),
        ("Australia/Lord_Howe", "40 * * * *", "2026-04-04T14:00", "2026-04-04T16:00", ["2026-04-05T01:40+11:00", "2026-04-05T01:40+10:30"]),
        ("Pacific/Chatham", "0 3 * * *", "2025-09-27T00:00", "2025-09-28T00:00", ["2025-09-28T03:45+13:45"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00", "2026-03-22T12:00", ["2026-03-22T03:00+01:00"]),
        ("Antarctica/Troll", "30 1,2 * * *", "2026-03-28T12:00", "2026-03-29T12:00", ["2026-03-29T03:00+02:00"]),
        ("America/Havana", "0 0 * * *", "2026-03-07T12:00", "2026-03-08T12:00", ["2026-03-08T01:00-04:00"]),
        ("Pacific/Apia", "0 9 * * *", "2011-12-30T00:00", "2011-12-31T00:00", ["2011-12-31T00:00+14:00", "2011-12-31T09:00+14:00"]),
        ("Pacific/Kwajalein", "0 9 21 8 *", "1993-01-01T00:00", "1993-12-01T00:00", ["1993-08-22T00:00+12:00"]),
        ("Pacific/Apia", "*/30 9 30 12 *", "2011-12-29T00:00", "2012-01-01T00:00", []),
    ],
)  # fmt: skip
def test_odd_clocks(zone: str, expression: str, after: str, until: str, windows: list[str]) -> None:
    """Half an hour, two hours, midnight, whole days."""
    assert local(cron(expression, zone), after, until) == windows


def test_kiritimati_runs_the_times_of_its_missing_day() -> None:
    """Once, at the first instant of the next one."""
    found = local(cron("0 9 31 12 *", "Pacific/Kiritimati"), "1994-06-01T00:00", "1995-06-01T00:00")
    assert found == ["1995-01-01T00:00+14:00"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 */31 */3 *", None),
        ("0 0 29 2 */7", None),  # once in 28 years
        ("60 * * * *", "minute 60 is out of range"),
        ("* * * *", "has not five fields"),
        ("@reboot", "not a known name"),
    ],
)
def test_what_is_wrong_or_never_fires_is_refused_with_the_reason(expression: str, reason: str | None) -> None:
    """At once, not by waiting for a time that never comes."""
    if reason is None:
        assert cron(expression).next_after(datetime(2026, 1, 1, tzinfo=UTC))
        return
    with pytest.raises(LilyError, match=reason) as caught:
        cron(expression)
    assert caught.value.code is Code.JOB_TRIGGER_INVALID


def test_a_leap_day_on_one_weekday_is_found_over_the_year_2100() -> None:
    """The longest wait there is: forty years."""
    following = cron("0 0 29 2 */7", "UTC").next_after(datetime(2088, 3, 1, tzinfo=UTC))
    assert following is not None
    assert following.at == datetime(2128, 2, 29, tzinfo=UTC)


@given(
    parts=st.tuples(
        *(
            st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True).map(lambda values: ",".join(map(str, sorted(values))))
            for low, high in ((0, 59), (0, 23), (1, 28), (1, 12))
        )
    )
)
def test_the_windows_are_those_of_apschedulers_own_trigger(parts: tuple[str, ...]) -> None:
    """Where no clock changes, its search and Lily's days at a time give the same."""
    expression = f"{' '.join(parts)} *"
    stock, at, start = CronTrigger.from_crontab(expression, timezone="UTC"), None, datetime(2026, 1, 1, tzinfo=UTC)
    for window in islice(cron(expression, "UTC").windows(start - timedelta(seconds=1), datetime(2040, 1, 1, tzinfo=UTC)), 20):
        at = stock.get_next_fire_time(at, at or start)
        assert at == window.at


@given(expression=expressions, start=st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)))
def test_what_was_handed_to_from_crontab_fires_at_the_windows(expression: str, start: datetime) -> None:
    """One trigger of APScheduler's, or two where day of month or weekday is enough: the first of them to fire."""
    try:
        rule = cron_rule(expression, "UTC")
    except LilyError:
        return
    stock = [CronTrigger.from_crontab(crontab, timezone="UTC").get_next_fire_time(None, start) for crontab in rule.crontabs]
    window = cron(expression, "UTC").next_after(start - timedelta(microseconds=1))
    assert len(stock) == 1 + rule.either
    assert window is not None
    assert min(at for at in stock if at) == window.at


@given(expression=expressions, place=near_changes)
def test_windows_ascend_and_following_them_one_by_one_gives_the_same(expression: str, place: tuple[str, datetime]) -> None:
    """Wherever one starts, also inside a gap or a repeated hour."""
    zone, start = place
    try:
        schedule = cron(expression, zone)
    except LilyError:
        return
    found = list(islice(schedule.windows(start, start + timedelta(days=60)), 30))
    assert all(sooner.at < later.at for sooner, later in pairwise(found))
    at = start
    for window in found:
        assert schedule.next_after(at) == window
        at = window.at


@pytest.mark.parametrize(("zone", "first", "last"), ODD)
def test_a_daily_job_runs_on_every_day_of_odd_zones(zone: str, first: int, last: int) -> None:
    """Once for each local date, the skipped ones included: no more, no less."""
    start, end = datetime(first, 1, 2, tzinfo=UTC), datetime(last, 12, 30, tzinfo=UTC)
    for hour in range(24):
        schedule = cron(f"30 {hour} * * *", zone)
        windows = list(schedule.windows(start, end))
        days = (local_of(end, schedule.zone) - local_of(start, schedule.zone)).days
        assert 0 <= len(windows) - days <= 1
        assert all(later.at - sooner.at <= timedelta(hours=36) for sooner, later in pairwise(windows))
