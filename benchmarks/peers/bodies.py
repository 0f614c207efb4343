"""What the measured runs do, the same for every runner."""

import asyncio
import os
import subprocess
import time

PROGRAM = ["/bin/true"]
SLEEP_SECONDS = 0.1


def noop() -> None:
    """Returns at once."""


def mark() -> None:
    """Says through the named pipe PEER_MARKS when its first line ran."""
    at = time.perf_counter_ns()
    pipe = os.open(os.environ["PEER_MARKS"], os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"%d\n" % at)
    os.close(pipe)


def sleep() -> None:
    """Sleeps 100 ms."""
    time.sleep(SLEEP_SECONDS)


def program() -> None:
    """Runs a program with a working directory, and reads both of its pipes."""
    subprocess.run(PROGRAM, cwd=os.environ["PEER_SCRATCH"], stdin=subprocess.DEVNULL, capture_output=True, check=True)


async def noop_async() -> None:
    """`noop` for runners whose bodies are coroutines."""


async def mark_async() -> None:
    """`mark`, too."""
    mark()


async def sleep_async() -> None:
    """`sleep`, too."""
    await asyncio.sleep(SLEEP_SECONDS)


async def program_async() -> None:
    """`program`, too."""
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(*PROGRAM, cwd=os.environ["PEER_SCRATCH"], stdin=none, stdout=pipe, stderr=pipe)
    await child.communicate()
    if child.returncode:
        raise RuntimeError(f"{PROGRAM} ended with {child.returncode}")


BODIES = {"noop": noop, "mark": mark, "sleep": sleep, "program": program}
COROUTINES = {"noop": noop_async, "mark": mark_async, "sleep": sleep_async, "program": program_async}
