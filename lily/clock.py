"""Wall time is asked for here and nowhere else; durations and deadlines belong to the event loop."""

import os
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Protocol

import msgspec

_encode = msgspec.json.Encoder().encode
_STAMP_LENGTH = 27


class Clock(Protocol):
    """Wall time, always aware and always UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC, always with six digits of a second: `2026-05-04T04:15:00.123456Z`. Sorts as text."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    if type(at) is not datetime:  # a subclass, which the encoder does not know
        at = datetime.combine(at.date(), at.timetz())
    text = _encode(at)[1:-1].decode()  # a run has ten of them: isoformat takes six times as long
    return text if len(text) == _STAMP_LENGTH else f"{text[:-1]}.000000Z"  # a whole second comes without a fraction


@lru_cache(maxsize=256)  # a receipt asks several times for the same few
def parse_stamp(text: str) -> datetime:
    """The inverse of `stamp`; also takes other RFC 3339 forms. Raises ValueError for text without an offset."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return at.astimezone(UTC)


def boot_id() -> str:
    """The kernel's id of this boot; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start_ticks(pid: int) -> int | None:
    """When process `pid` started, in the kernel's ticks since boot; None if there is no such process, it has ended (and nobody has waited
    for it yet), or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b")")[2].split()
            return None if state in (b"Z", b"X") else int(rest[18])
    except (OSError, IndexError, ValueError):
        return None


@cache
def pid_namespace() -> str:
    """In which process numbers mean what they mean here: a container has its own. Empty where the system can't say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def this_process() -> tuple[int, int | None, str]:
    """(pid, start ticks, boot id): together they name one process exactly, reused pids and reboots included."""
    pid = os.getpid()
    return pid, process_start_ticks(pid), boot_id()
