"""Random documents: job specs and triggers that are good or nearly so, and the many ways in which YAML writes a value."""

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from tests.strategies_time import COMMON, ODD, cron_expression

ZONES = (*(name for name, _, _ in (*ODD, *COMMON)), "Asia/Kathmandu", "Africa/Monrovia", "Europe/Dublin")
# Values that are wrong nearly everywhere, and those that only just are.
ODDITIES: tuple[Any, ...] = (
    None,
    True,
    "",
    " ",
    "x" * 300,
    "\x00",
    "a\nb",
    "\u2028",
    "é" * 5,
    "{x}",
    "%s",
    "../../x",
    0,
    -1,
    1,
    0.5,
    -0.0,
    1e308,
    2**31,
    2**63 - 1,
    [],
    {},
    [None],
    {"": None},
    [[[[]]]],
    {"a": {"b": {"c": [1, {"d": None}]}}},
    "30",
    "2026-02-30",
    "lily.review",
    "@daily",
)
_LETTERS = "abcxyz0189._-"


def odd(rng: random.Random) -> Any:
    """A value that does not belong; one of its own, for it may be bent further."""
    return deepcopy(rng.choice(ODDITIES))


def maybe(rng: random.Random, share: float, given: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each of these, or not."""
    return {name: make() for name, make in given.items() if rng.random() < share}


def instant(rng: random.Random) -> str:
    """A time as specs write it: mostly near, now and then at the ends of calendars or of months."""
    year = rng.choice((2024, 2025, 2026, 2026, 2027, 2031, 1901, 1970, 2100, 8999, 9999, 1, rng.randint(1, 9999)))
    day = f"{year:04}-{rng.randint(1, 12):02}-{rng.choice((1, 15, 28, 29, 30, 31)):02}"
    if rng.random() < 0.2:
        return day
    clock = f"{rng.choice(('T', ' '))}{rng.randint(0, 23):02}:{rng.choice((0, 30, 59)):02}"
    clock += rng.choice(("", f":{rng.randint(0, 59):02}", f":{rng.randint(0, 59):02}.{rng.randint(0, 999999)}"))
    return day + clock + rng.choice(("", "Z", "+02:00", "-11:30", "+14:00", "-23:59"))


def duration(rng: random.Random) -> str:
    """A count and a unit."""
    return f"{rng.choice((1, 2, 5, 15, 30, 90, 400, 1200, 36_600, rng.randint(1, 10**9)))}{rng.choice(('s', 'm', 'h', 'd', 'w', 'mo'))}"


def cron(rng: random.Random) -> str:
    """An expression, or a name."""
    if rng.random() < 0.1:
        return rng.choice(("@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually", "@midnight", "@reboot"))
    made = cron_expression(rng)
    for low, name in ((1, "mon"), (5, "fri"), (0, "sun"), (12, "dec")):
        if rng.random() < 0.1:
            made = made.replace(f" {low}", f" {name}")
    return made


def _numbers(rng: random.Random, low: int, high: int) -> str:
    count = rng.choice((1, 1, 2, 3, 7, 40))
    return ",".join(str(rng.randint(low, high) or 1) for _ in range(count))


def _weekdays(rng: random.Random) -> str:
    days = rng.sample(("MO", "TU", "WE", "TH", "FR", "SA", "SU"), rng.choice((1, 1, 2, 3, 7)))
    return ",".join(rng.choice(("", "", "", "2", "-1", "5", "53")) + day for day in days)


_RULES = (
    ("MONTHLY", ";BYDAY=2TU"),
    ("MONTHLY", ";BYMONTHDAY=-1"),
    ("YEARLY", ";BYMONTH=12;BYMONTHDAY=25"),
    ("YEARLY", ";BYWEEKNO=20;BYDAY=MO"),
    ("WEEKLY", ";BYDAY=MO,WE;BYHOUR=9,17"),
    ("DAILY", ""),
    ("DAILY", ";BYHOUR=9;BYMINUTE=0,30"),
    ("HOURLY", ";BYDAY=SA"),
    ("MINUTELY", ";BYHOUR=3"),
    ("SECONDLY", ""),
    ("MONTHLY", ";BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"),
)


def rrule(rng: random.Random) -> str:
    """An RFC 5545 rule; some have no meaning or never come."""
    if rng.random() < 0.7:
        return (
            "FREQ=" + "".join(rng.choice(_RULES)) + rng.choice(("", "", f";INTERVAL={rng.randint(1, 9)}", f";COUNT={rng.randint(1, 99)}"))
        )
    freq = rng.choice(("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"))
    parts = maybe(
        rng,
        0.2,
        {
            "INTERVAL": lambda: str(rng.choice((1, 2, 3, 7, 52, 100, 99_991, 100_000))),
            "BYMONTH": lambda: _numbers(rng, 1, 12),
            "BYMONTHDAY": lambda: _numbers(rng, -31, 31),
            "BYYEARDAY": lambda: _numbers(rng, -366, 366),
            "BYWEEKNO": lambda: _numbers(rng, -53, 53),
            "BYDAY": lambda: _weekdays(rng),
            "BYHOUR": lambda: _numbers(rng, 0, 23),
            "BYMINUTE": lambda: _numbers(rng, 0, 59),
            "BYSECOND": lambda: _numbers(rng, 0, 59),
            "BYSETPOS": lambda: _numbers(rng, -366, 366),
            "WKST": lambda: rng.choice(("MO", "SU")),
        },
    )
    if rng.random() < 0.25:
        parts["COUNT"] = str(rng.choice((1, 2, 10, 1000, 999_999, 1_000_000)))
    elif rng.random() < 0.15:
        parts["UNTIL"] = rng.choice(("20270101", "20261231T235959Z", "20240229T000000", "19000101", "99991231", "20260230"))
    items = [("FREQ", freq), *parts.items()]
    rng.shuffle(items)
    return ";".join(f"{name}={value}" for name, value in items)


def exclude(rng: random.Random) -> Any:
    """What is left out."""
    dates = [instant(rng)[:10] for _ in range(rng.choice((1, 2, 5)))]
    if rng.random() < 0.4:
        return dates
    return maybe(rng, 0.6, {"dates": lambda: dates, "rrule": lambda: rrule(rng), "anchor": lambda: instant(rng)})


def subject(rng: random.Random) -> Any:
    """What a condition looks at."""
    kinds: dict[str, dict[str, Any]] = {
        "file": {"path": "inbox/*.csv", "field": rng.choice(("exists", "size", "mtime", "sha256", "count"))},
        "http": {"url": rng.choice(("https://h/x", "http://[::1]:99999/", "http://[", "ftp://h")), "json_path": "a.b[0].c"},
        "run": {"job": "other", "field": rng.choice(("status", "age", "failures"))},
        "queue": {"field": rng.choice(("depth", "dead_letters"))},
        "env": {"name": "HOME", "type": rng.choice(("text", "number", "boolean", "timestamp"))},
        "sqlite": {"path": "x.db", "query": "select 1"},
        "clock": {"field": rng.choice(("now", "date", "time", "hour", "day", "weekday"))},
        "mine.v1": {"anything": odd(rng)},
    }
    kind = rng.choice(tuple(kinds))
    if rng.random() < 0.2:
        return kind
    return {"kind": kind, **{key: value for key, value in kinds[kind].items() if rng.random() < 0.8}}


def trigger(rng: random.Random) -> dict[str, Any]:
    """The trigger of a job, of any kind."""
    kind = rng.choice(("manual", "cron", "cron", "interval", "once", "calendar", "calendar", "condition"))
    made: dict[str, Any] = {"type": kind}
    if kind == "manual":
        return made
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "cron": lambda: {"cron": cron(rng)},
        "interval": lambda: {"every": duration(rng), **maybe(rng, 0.5, {"anchor": lambda: instant(rng)})},
        "once": lambda: {"at": instant(rng)},
        "calendar": lambda: {"rrule": rrule(rng), "anchor": instant(rng)},
        "condition": lambda: {
            "every": duration(rng),
            "subject": subject(rng),
            "operator": rng.choice(("eq", "neq", "gt", "gte", "lt", "lte", "exists", "matches")),
            **maybe(rng, 0.8, {"value": lambda: rng.choice((1, 2.5, True, "x*[a-", "a", "2026-05-04T09:00:00Z", None))}),
        },
    }
    return {**made, **kinds[kind](), **_options(rng)}


def _options(rng: random.Random) -> dict[str, Any]:
    return maybe(
        rng,
        0.12,
        {
            "misfire_grace_seconds": lambda: rng.choice((0, 0.5, 31_536_000)),
            "catch_up": lambda: rng.choice(("none", "latest", "all")),
            "catch_up_limit": lambda: rng.choice((1, 100_000)),
            "catch_up_window": lambda: duration(rng),
            "overlap": lambda: rng.choice(("skip", "queue", "cancel_previous")),
            "jitter_seconds": lambda: rng.choice((0, 0.001, 5, 86_400)),
            "start_at": lambda: instant(rng),
            "end_at": lambda: instant(rng),
            "exclude": lambda: exclude(rng),
        },
    )


def job(rng: random.Random) -> dict[str, Any]:
    """A job spec."""
    made: dict[str, Any] = {
        "id": "j" + "".join(rng.choice(_LETTERS) for _ in range(rng.choice((0, 1, 7)))),
        "title": rng.choice(("A job", "x", "é {braces} [b]", "🎈" * 5)),
        "target": {"id": "command.v1", **maybe(rng, 0.3, {"kind": lambda: "blueprint", "version": lambda: ">=1,<2", "input": lambda: {}})},
        "bindings": {"argv": ["echo", "hi"]} if rng.random() < 0.8 else {"deep": odd(rng)},
        "trigger": trigger(rng),
        "runtime": maybe(
            rng,
            0.2,
            {
                "timeout_seconds": lambda: rng.choice((0.1, 30, 86_400)),
                "retry_max": lambda: rng.randint(0, 10),
                "backoff": lambda: {"strategy": rng.choice(("none", "fixed", "exponential")), "base_seconds": 1},
                "priority": lambda: rng.choice(("critical", "high", "normal", "low")),
                "memory_mb": lambda: 64,
            },
        ),
        "output": maybe(rng, 0.3, {"artifacts": lambda: ["*.csv"]}),
    }
    if rng.random() < 0.8:
        made["timezone"] = rng.choice(ZONES)
    return made | maybe(
        rng,
        0.2,
        {
            "capabilities": lambda: ["process.exec"],
            "approval": lambda: {"required": True, "issue": rng.choice((7, "owner/repo#7", "https://github.com/o/r/issues/7"))},
            "labels": lambda: {"team": "data"},
        },
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a value."""
    inner: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [found for key, each in inner for found in ((*path, key), *places(each, (*path, key)))]


def bent(rng: random.Random, value: Any, make: Callable[[random.Random], Any] = odd) -> Any:
    """The value with one thing in it replaced, left out or added."""
    found = places(value)
    if not found:
        return make(rng)
    path = rng.choice(found)
    place = value
    for part in path[:-1]:
        place = place[part]
    match rng.randrange(4):
        case 0:
            del place[path[-1]]
        case 1 if isinstance(place, dict):
            place[rng.choice(("x", "id", "", "type", "<<", "timezone"))] = make(rng)
        case _:
            place[path[-1]] = make(rng)
    return value


def yaml_of(rng: random.Random, value: Any, indent: int = 0) -> str:
    """One of the ways to write a plain value in YAML."""
    pad = " " * indent
    if rng.random() < 0.15:
        return pad + json.dumps(value, ensure_ascii=rng.random() < 0.1)
    if isinstance(value, dict) and value:
        rows = [f"{pad}{_scalar(rng, key)}: {_inner(rng, inner, indent)}" for key, inner in value.items()]
        if rng.random() < 0.1:
            rows.insert(rng.randint(0, len(rows)), f"{pad}# a comment")
        return "\n".join(rows)
    if isinstance(value, list) and value:
        return "\n".join(f"{pad}- {_inner(rng, item, indent)}" for item in value)
    return pad + _scalar(rng, value)


def _inner(rng: random.Random, value: Any, indent: int) -> str:
    mark = rng.choice(("&a ", "&b ", "!!str ", "! ", "*a # ")) if rng.random() < 0.02 else ""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.7:
        return f"{mark}\n{yaml_of(rng, value, indent + 2)}"
    return mark + (_scalar(rng, value) if not isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False))


def _scalar(rng: random.Random, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=rng.random() < 0.1)
    plain = value and value.isascii() and value[0].isalnum() and not set(value) & set(":#,[]{}\n\0\"'") and value == value.strip()
    if plain and rng.random() < 0.7:
        return value
    if rng.random() < 0.2 and "\n" not in value:
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value, ensure_ascii=rng.random() < 0.1)
