"""Feeding a target: inputs from a seed, each within its bounds; what breaks a promise is cut down and told.

Half of the inputs are made by the target's grammar, half are spoiled ones of a pool. The pool begins with the corpus and takes in every
input whose outcome was new, so that it grows towards what the target tells apart: a poor man's coverage, which needs no instrumentation.
"""

import functools
import gc
import random
import re
import signal
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from tests.fuzz.mutation import spoiled

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY_MIB = 24.0  # how much larger a process may be after all of its inputs than after a tenth of them
_POOL = 1000  # inputs that are kept to be spoiled
_KEPT = 2048  # bytes of the longest of them: the memory that is watched is not to be the pool's
_SEEN = 20_000  # outcomes that are remembered
_SHRINKS = 400  # tries to cut a finding down
_NAMED = 20  # faults that are kept apart


class Broken(Exception):
    """A promise that an input has broken."""


class TooLong(BaseException):
    """An input has used up its processor time. No Exception, so that nothing takes it for an error of its own."""


class Target(Protocol):
    """What is fed."""

    name: str
    corpus: Sequence[bytes]  # good documents
    words: Sequence[bytes]  # of its language
    seconds: float  # of processor time that one input may take

    def fresh(self, rng: random.Random) -> bytes:
        """An input by the grammar; most are good, or nearly."""
        ...

    def feed(self, given: bytes) -> str:
        """Read an input; the outcome in a few words, equal for inputs that are alike. Whatever it raises is a fault."""
        ...

    def grown(self) -> float:
        """MiB of memory that whatever is fed has now."""
        ...

    def close(self) -> None:
        """Check what only the end can show, and give everything back."""
        ...


@dataclass(slots=True)
class Fault:
    """One way in which promises are broken: the smallest input that does it, and how often it happened."""

    key: str
    told: str
    given: bytes
    times: int = 1


@dataclass(slots=True)
class Figures:
    """What a campaign came to. `grown` is in MiB, from the first tenth of the inputs to the last."""

    target: str
    seed: int
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  # by their first word
    kinds: int = 0
    slowest: float = 0.0  # seconds of processor time
    seconds: float = 0.0
    grown: float = 0.0
    faults: dict[str, Fault] = field(default_factory=dict)

    def line(self) -> str:
        """For the terminal."""
        told = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common(6))
        return (
            f"{self.target}: seed {self.seed}, {self.inputs} inputs in {self.seconds:.0f} s ({told}; {self.kinds} kinds), "
            f"slowest {self.slowest * 1000:.0f} ms, memory {self.grown:+.1f} MiB, {len(self.faults)} faults"
        )


def resident(pid: int | str = "self") -> float:
    """MiB of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def own_memory() -> float:
    """MiB of this process, without what only waits to be collected and what Lily's caches hold, each of which has its limit."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("lily."):
            each.cache_clear()
    gc.collect()
    return resident()


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise TooLong inside the block once it has used so much processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _expired(_signum: int, _frame: FrameType | None) -> None:
    raise TooLong


def run(target: Target, number: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> Figures:
    """Feed `number` inputs; the same seed gives the same ones. `tell` hears of each new fault and, now and then, how far it is."""
    rng, figures = random.Random(f"{seed}/{target.name}"), Figures(target.name, seed)
    pool, seen, early = list(target.corpus), set[int](), target.grown()
    before = signal.signal(signal.SIGPROF, _expired)
    began = time.monotonic()
    try:
        for count in range(1, number + 1):
            given = _input(target, rng, pool)
            outcome = _fed(target, given, figures, tell)
            mark = zlib.crc32(outcome.encode("utf-8", "backslashreplace"))
            if mark not in seen and len(seen) < _SEEN and len(given) <= _KEPT:
                seen.add(mark)
                if len(pool) >= _POOL:
                    pool[rng.randrange(len(target.corpus), _POOL)] = given
                else:
                    pool.append(given)
            if count == max(1, number // 10):
                early = target.grown()
            figures.inputs, figures.kinds, figures.seconds = count, len(seen), time.monotonic() - began
            if count % 20_000 == 0:
                figures.grown = target.grown() - early
                tell(figures.line())
        figures.grown = target.grown() - early
        _end(target, figures, tell)
    finally:
        signal.signal(signal.SIGPROF, before)
    return figures


def _end(target: Target, figures: Figures, tell: Callable[[str], None]) -> None:
    if figures.grown > MEMORY_MIB:
        told = f"memory grew by {figures.grown:.1f} MiB from a tenth of the inputs to all; {MEMORY_MIB:g} MiB are allowed"
        figures.faults["memory"] = Fault("memory", told, b"")
        tell(told)
    try:
        target.close()
    except Exception as error:
        figures.faults["end"] = Fault("end", "".join(traceback.format_exception(error)), b"")
        tell(figures.faults["end"].told)


def _input(target: Target, rng: random.Random, pool: Sequence[bytes]) -> bytes:
    if rng.random() < 0.5:
        given = target.fresh(rng)
        return given if rng.random() < 0.7 else spoiled(rng, given, target.words, pool)
    return spoiled(rng, rng.choice(pool), target.words, pool)


def _fed(target: Target, given: bytes, figures: Figures, tell: Callable[[str], None]) -> str:
    began = time.process_time()
    outcome, error = _tried(target, given)
    figures.slowest = max(figures.slowest, time.process_time() - began)
    if error is None:
        figures.outcomes[outcome.split(" ")[0]] += 1
        return outcome
    key = _key(error)
    figures.outcomes["broken"] += 1
    if key in figures.faults:
        figures.faults[key].times += 1
    elif len(figures.faults) < _NAMED:
        small = shrunk(given, lambda less: (again := _tried(target, less)[1]) is not None and _key(again) == key)
        figures.faults[key] = Fault(key, "".join(traceback.format_exception(error)), small)
        tell(f"{target.name}: {key}\n{figures.faults[key].told}\ninput: {small!r}")
    return f"broken {key}"


def _tried(target: Target, given: bytes) -> tuple[str, BaseException | None]:
    try:
        with bounded(target.seconds):
            return target.feed(given), None
    except (Exception, TooLong) as error:
        return "", error


def _key(error: BaseException) -> str:
    """Where a fault comes from: kind and place in Lily's own code, innermost."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TooLong):
        return "TooLong"
    if isinstance(error, Broken):
        return f"Broken {re.sub(r'[0-9]+', 'N', str(error))[:60]}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename]
    place = next((f"{Path(frame.filename).name}:{frame.name}" for frame in reversed(frames) if str(REPOSITORY) in frame.filename), "?")
    return f"{type(error).__name__} in {place}"


def shrunk(given: bytes, still: Callable[[bytes], bool]) -> bytes:
    """A smaller input that is `still` at fault: pieces are left out, large ones first."""
    tries, size = 0, max(1, len(given) // 2)
    while size and tries < _SHRINKS:
        at = 0
        while at < len(given) and tries < _SHRINKS:
            less, tries = given[:at] + given[at + size :], tries + 1
            if still(less):
                given = less
            else:
                at += size
        size //= 2
    return given
