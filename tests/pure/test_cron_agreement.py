"""Lily's cron windows against cronsim's, which shares no code with Lily or APScheduler.

What is compared, and what is not:

- Starts lie outside repeated hours: there cronsim forgets which of the two it stands in.
- cronsim tells of each of several times that one gap skips, all at the gap's end; they count as one.
- For jobs with a wildcard in minute or hour, cronsim goes wrong around three kinds of changes, for it steps by whole hours and days: where
  clocks skip midnight it names a 00:00 that does not exist; where they move by other than whole hours (Lord Howe), or at other than a full
  hour (Chatham), it misses times, or turns back and never gets on. Within a day of these, each minute of real time is asked instead
  whether its local time matches, which is what Debian's cron does. The values of the fields are cronsim's also there.

`just cron-agreement N` runs more.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from lily.errors import LilyError
from lily.triggers.schedule import schedule_of
from tests.strategies_time import cases, changes_of, offset_of

WINDOWS = 200
SPAN = timedelta(days=400)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
AROUND = timedelta(hours=26)


def by_cronsim(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """cronsim's instants, `start < instant <= end`, each once."""
    last = None
    for local in CronSim(expression, start.astimezone(zone)):
        at = local.astimezone(UTC)
        if at > end:
            return
        if at != last:
            last = at
            yield at


def by_the_minute(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """The minutes of real time, `start < minute <= end`, whose local time a wildcard job names."""
    fields = CronSim(expression, start)
    at = start.replace(second=0) + MINUTE
    while at <= end:
        local = at.astimezone(zone)
        if local.minute in fields.minutes and local.hour in fields.hours and local.month in fields.months and fields.match_day(local):
            yield at
        at += MINUTE


def misread(expression: str, name: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """The changes around which cronsim is no reference for this expression."""
    minute, hour = expression.split()[:2]
    if not minute.startswith("*") and not hour.startswith("*"):
        return
    zone = ZoneInfo(name)
    for change in changes_of(name, start.year - 1, end.year + 1):
        before, after = offset_of(zone, change - MINUTE), offset_of(zone, change)
        # The last local minute before the gap and the last in it: is there a midnight between?
        skips_midnight = (change + before - MINUTE).date() < (change + after - MINUTE).date()
        if skips_midnight or (after - before) % HOUR or (change + before).minute:
            yield change


def reference(expression: str, name: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """The instants of a job, `start < instant <= end`, by cronsim, and by the minute where it is no reference."""
    zone = ZoneInfo(name)
    for change in misread(expression, name, start, end):
        low, high = max(start, change - AROUND), min(end, change + AROUND)
        if low < high:
            yield from by_cronsim(expression, zone, start, low)
            yield from by_the_minute(expression, zone, low, high)
            start = high
    yield from by_cronsim(expression, zone, start, end)


def never(expression: str, start: datetime) -> bool:
    """Whether cronsim, too, finds no time for an expression."""
    try:
        return next(CronSim(expression, start), None) is None
    except CronSimError:
        return True


def difference(expression: str, name: str, start: datetime) -> str:
    """What Lily and the reference say differently after `start`; empty when they agree."""
    zone, end = ZoneInfo(name), start + SPAN
    try:
        schedule = schedule_of({"type": "cron", "cron": expression}, name)
    except LilyError:
        return "" if never(expression, start) else "Lily alone refuses it"
    wanted = list(islice(reference(expression, name, start, end), WINDOWS))
    found = [window.at for window in schedule.windows(start, wanted[-1] if len(wanted) == WINDOWS else end)]
    wrong = sorted(set(wanted) ^ set(found))
    if found != sorted(set(found)) or wrong:
        return "; ".join(f"{at.astimezone(zone)} says only {'Lily' if at in found else 'the reference'}" for at in wrong[:4])
    return ""


def compare(seed: str, number: int) -> tuple[Counter[str], list[str]]:
    """(how many cases of which kind, what differed) for seeded random cases."""
    counts, wrong = Counter[str](), list[str]()
    for expression, name, start in islice(cases(seed, 2 * number), 2 * number):
        if counts["cases"] == number:
            break
        local = start.astimezone(ZoneInfo(name))
        if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
            continue
        counts["cases"] += 1
        counts["crossing a change"] += offset_of(ZoneInfo(name), start) != offset_of(ZoneInfo(name), start + timedelta(days=20))
        differs = difference(expression, name, start)
        if differs:
            wrong.append(f"{expression!r} {name} {local}: {differs}")
    return counts, wrong


def test_random_jobs_run_when_cronsim_says() -> None:
    """Expressions × zones × starts, two hundred windows each, a third and more of them over a change of clocks."""
    counts, wrong = compare("in the suite", 400)
    assert not wrong, "\n".join(wrong[:10])
    assert counts["cases"] == 400
    assert counts["crossing a change"] > 400 / 3


def main() -> int:
    """`python -m tests.pure.test_cron_agreement N`; LILY_CRON_SEED chooses the cases. Says each thousand as it is done."""
    seed, number = int(os.environ.get("LILY_CRON_SEED", "1")), int(sys.argv[1])
    counts, mismatches = Counter[str](), 0
    for batch, start in enumerate(range(0, number, 1000)):
        done, wrong = compare(f"{seed}/{batch}", min(1000, number - start))
        counts += done
        mismatches += len(wrong)
        print(*wrong, f"seed {seed}: {dict(counts)}, {mismatches} mismatches", sep="\n", flush=True)
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
