"""Times that break calendars: zones with odd clocks, their changes, and random cron expressions."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

# Zone, first year, last year: where and when its clocks do what others don't.
ODD = (
    ("Australia/Lord_Howe", 2018, 2026),  # half an hour
    ("Pacific/Chatham", 2018, 2026),  # changes at 02:45
    ("Africa/Casablanca", 2019, 2026),  # winter time in Ramadan
    ("Antarctica/Troll", 2018, 2026),  # two hours
    ("America/Havana", 2018, 2026),  # midnight does not exist
    ("Pacific/Apia", 2010, 2013),  # a day does not exist
    ("Pacific/Kiritimati", 1994, 1995),  # a day does not exist
    ("Pacific/Kwajalein", 1993, 1993),  # a day does not exist
    ("America/Sao_Paulo", 2012, 2019),  # midnight does not exist
    ("Asia/Tehran", 2015, 2022),  # midnight does not exist, and half an hour off
)
COMMON = (
    ("Europe/Berlin", 2020, 2030),
    ("America/New_York", 2020, 2030),
    ("Europe/London", 1967, 1973),  # three years of summer time
    ("Australia/Sydney", 2020, 2030),
    ("Asia/Tokyo", 2024, 2026),
    ("UTC", 2024, 2026),
)


def offset_of(zone: ZoneInfo, at: datetime) -> timedelta:
    """The offset at an instant, from the standard library alone."""
    found = at.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes_of(name: str, first: int, last: int) -> tuple[datetime, ...]:
    """The instants at which a zone's offset changes, to the minute, found without any of Lily's code."""
    return tuple(change for year in range(first, last + 1) for change in _changes_in(name, year))


@cache
def _changes_in(name: str, year: int) -> tuple[datetime, ...]:
    zone, at, found = ZoneInfo(name), datetime(year, 1, 1, tzinfo=UTC), []
    while at.year == year:
        low, high = at, at + timedelta(hours=6)
        if offset_of(zone, low) != offset_of(zone, high):
            before = offset_of(zone, low)
            while high - low > timedelta(minutes=1):
                middle = low + timedelta(minutes=(high - low) // timedelta(minutes=1) // 2)
                low, high = (middle, high) if offset_of(zone, middle) == before else (low, middle)
            found.append(high)
        at += timedelta(hours=6)
    return tuple(found)


def _field(rng: random.Random, low: int, high: int, star: float) -> str:
    def one() -> str:
        first = rng.randint(low, high)
        last = rng.randint(first, high)
        kind = rng.random()
        if kind < 0.55 or first == last:
            return str(first)
        return f"{first}-{last}" if kind < 0.8 else f"{first}-{last}/{rng.randint(1, high - low + 1)}"

    if rng.random() < star:
        return "*" if rng.random() < 0.5 else f"*/{rng.randint(1, high - low + 1)}"
    return ",".join(one() for _ in range(rng.choice((1, 1, 1, 2, 3))))


def cron_expression(rng: random.Random) -> str:
    """A random expression; now and then one that never fires."""
    hour = _field(rng, 0, 3, 0) if rng.random() < 0.3 else _field(rng, 0, 23, 0.35)  # nights are when clocks change
    day = "*" if rng.random() < 0.6 else _field(rng, 1, 31, 0.2)
    month = "*" if rng.random() < 0.75 else _field(rng, 1, 12, 0.2)
    weekday = "*" if rng.random() < 0.6 else _field(rng, 0, 7, 0.2)
    return f"{_field(rng, 0, 59, 0.3)} {hour} {day} {month} {weekday}"


def cases(seed: str, number: int) -> Iterator[tuple[str, str, datetime]]:
    """(expression, zone, start): two thirds start shortly before a change, and every change of the odd zones gets its turn."""
    rng = random.Random(seed)
    odd = [(name, at) for name, first, last in ODD for at in changes_of(name, first, last)]
    known = [(name, at) for name, first, last in COMMON for at in changes_of(name, first, last)]
    rng.shuffle(odd)
    for place in range(number):
        expression = cron_expression(rng)
        if place % 3 == 2:
            name, first, last = rng.choice(COMMON + ODD)
            at = datetime(first, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange((last - first + 1) * 365 * 86_400))
        else:
            name, change = odd[place // 3 % len(odd)] if place % 3 == 0 else rng.choice(known)
            at = change - timedelta(seconds=rng.randrange(rng.choice((7200, 36 * 3600, 20 * 86_400))))
        yield expression, name, at


near_changes = st.builds(
    lambda place, before: (place[0], place[1] - before),
    st.sampled_from([(name, at) for name, first, last in ODD + COMMON for at in changes_of(name, first, last)]),
    st.timedeltas(timedelta(hours=-30), timedelta(hours=30)),
)
expressions = st.integers(0, 2**32).map(lambda seed: cron_expression(random.Random(seed)))
