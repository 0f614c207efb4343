"""Memory that was needed for a moment goes back to the system, in processes of their own: what is tuned holds for a whole process."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library hands memory out in its own way")

MIB = 1 << 20
_RESIDENT = """
import os, sys
from lily import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""
# Large blocks come and go twice; behind each of the second time lies a small one that stays.
_LARGE = """
tuned = memory.settle({"MALLOC_ARENA_MAX": "2"} if sys.argv[1] == "said" else {})
large = [bytes(200_000) for _ in range(300)]
del large
before, large, small = resident(), [], []
for _ in range(300):
    large.append(bytes(200_000))
    small.append(bytes(600))
del large
print(int(tuned), resident() - before)
"""
_SCATTERED = """
blocks = [bytes(20_000) for _ in range(4_000)]
kept = blocks[::4]
del blocks
before = resident()
memory.give_back()
print(before - resident())
"""


def _said(program: str, *words: str) -> list[int]:
    command = [sys.executable, "-c", _RESIDENT + program, *words]
    return [int(number) for number in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def test_what_is_large_goes_back_as_soon_as_it_is_freed() -> None:
    tuned, more = _said(_LARGE, "")
    assert tuned
    assert more < 10 * MIB


def test_what_the_user_says_of_memory_is_left_as_it_is() -> None:
    tuned, _ = _said(_LARGE, "said")
    assert not tuned


def test_free_places_between_those_in_use_go_back_when_asked_to() -> None:
    (fewer,) = _said(_SCATTERED)
    assert fewer > 20 * MIB
