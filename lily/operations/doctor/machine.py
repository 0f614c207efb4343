"""The machine: Python and packages, room on the disks, the clock."""

import importlib.metadata
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lily import __version__
from lily.clock import parse_stamp
from lily.findings import Finding, Severity, fine, found
from lily.health import FREE, FREE_LEAST
from lily.operations.doctor.scene import Scene
from lily.storage.doctor_reads import newest_stamp
from lily.summary import duration

OLDEST_PYTHON = (3, 11)
DISTRIBUTION = "lily-jobs"
_STEP = timedelta(seconds=5)  # by so much a clock may be set back without a word
# Before this Lily was not there: a clock that says so has lost its battery.
_BEGINNING, _YEARS = datetime(2025, 1, 1, tzinfo=UTC), timedelta(days=50 * 366)
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?(?:;(.*))?")
_LIMIT = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([0-9][0-9.]*)")


def python(scene: Scene) -> Iterator[Finding]:
    """The interpreter, and SQLite in it."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield found("python", "python_too_old", f"this is Python {version}", sys.executable)
    yield fine("python", f"Lily {__version__}, Python {version}, SQLite {sqlite3.sqlite_version}")


def packages(scene: Scene) -> Iterator[Finding]:
    """What Lily needs, as its own package says it, with the versions that are there."""
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield found("packages", "package_missing", f"the package {DISTRIBUTION} itself is not installed here", severity=Severity.INFO)
        return
    count = 0
    for name, limits in map(_needed, wanted):
        if not name:
            continue
        count += 1
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield found("packages", "package_missing", f"{name} is not installed", name)
            continue
        if not fits(there, limits):
            yield found("packages", "package_version", f"{name} is {there}; Lily was made for {limits}", name)
    yield fine("packages", f"{count} packages that Lily needs")


def _needed(line: str) -> tuple[str, str]:
    """(name, limits) of a requirement; no name for one of an extra."""
    parts = _REQUIREMENT.match(line)
    if parts is None or "extra" in (parts[3] or ""):
        return "", ""
    return parts[1], parts[2].strip()


def fits(version: str, limits: str) -> bool:
    """Whether a version is within limits such as `>=1.16,<2`. What is no plain number is let through."""
    there = _numbers(version)
    for sign, text in _LIMIT.findall(limits):
        size = max(len(there), len(_numbers(text)))
        a, b = (each + (0,) * (size - len(each)) for each in (there, _numbers(text)))
        holds = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "~=": a >= b, "<": a < b, ">": a > b}[sign]
        if not holds:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    head = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, head[0].split("."))) if head else ()


def disk(scene: Scene) -> Iterator[Finding]:
    """Room, and names for files, on each disk that Lily writes to."""
    seen: set[int] = set()
    database = scene.database
    for folder in (scene.workspace.lily, scene.workspace.runs, database.parent if database else scene.workspace.database.parent):
        if not folder.is_dir() or folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        yield from _room(scene, folder)


def _room(scene: Scene, folder: Path) -> Iterator[Finding]:
    about = os.statvfs(folder)
    shares = [("room", about.f_bavail, about.f_blocks), ("file names (inodes)", about.f_favail, about.f_files)]
    for what, left, of in shares:
        share = left / of if of else 1.0
        if share < FREE:
            bad = Severity.ERROR if share < FREE_LEAST else Severity.WARNING
            yield found("disk", "disk_low", f"{100 * share:.1f} % of its {what} is left", scene.shown(folder), severity=bad)
    share = about.f_bavail / about.f_blocks if about.f_blocks else 1.0
    yield fine("disk", f"{100 * share:.0f} % is free", scene.shown(folder))


def clock(scene: Scene) -> Iterator[Finding]:
    """The machine's clock against reason, and against the newest time in the store."""
    if not _BEGINNING <= scene.now <= _BEGINNING + _YEARS:
        yield found("clock", "clock_far_off", f"the clock says {scene.now:%Y-%m-%d %H:%M}Z")
        return
    newest = newest_stamp(scene.store) if scene.store is not None else None
    if newest is not None and parse_stamp(newest) - scene.now > _STEP:
        ahead = duration((parse_stamp(newest) - scene.now).total_seconds())
        yield found("clock", "clock_behind", f"the clock stands {ahead} before the newest time in the store, {newest}")
        return
    yield fine("clock", f"{scene.now:%Y-%m-%d %H:%M:%S}Z" + ("" if newest is None else ", after all that is in the store"))
