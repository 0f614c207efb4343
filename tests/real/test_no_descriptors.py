"""No descriptor is left to look at processes with: what nobody can see is not taken for gone, and is ended once it can be seen."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest

from lily.engines import ending
from lily.engines.children import CHILDREN
from lily.engines.process_table import Proc, children_of, is_alive, read_entry, scan, send
from tests.real.programs import Bench, python

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("subreaper")]

TWO_SESSIONS = """
import os, time
print(os.getpid(), flush=True)
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    print("ready", flush=True)
time.sleep(1000)
"""


class Hog:
    """Takes all descriptors that this process may have, and gives them back."""

    def __init__(self) -> None:
        self._taken: list[int] = []
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take(self) -> None:
        """All."""
        most = max(map(int, os.listdir("/proc/self/fd"))) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, self._limits[1]))
        with suppress(OSError):
            while True:
                self._taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def give_back(self) -> None:
        """All of them."""
        while self._taken:
            os.close(self._taken.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


@pytest.fixture
def hog() -> Iterator[Hog]:
    """Gives back what the test has left with it."""
    one = Hog()
    yield one
    one.give_back()


@pytest.fixture
def sleeper() -> Iterator[Proc]:
    """A child of this process, in a session of its own."""
    child = CHILDREN.start(lambda: subprocess.Popen(["sleep", "1000"], start_new_session=True))
    entry = read_entry(child.pid)
    assert entry is not None
    yield entry.proc
    child.kill()
    CHILDREN.reap(child)
    child.wait()


def test_what_nobody_can_see_has_not_gone(hog: Hog, sleeper: Proc) -> None:
    """To say that it has would give up what is still running."""
    family = ending.family_of_process("mark", sleeper)
    hog.take()
    try:
        assert is_alive(sleeper)
        assert family.look() == {sleeper}
        assert not CHILDREN.alone(sleeper.pid)
        assert CHILDREN.collect_adopted() == 0
        assert send(sleeper, 9)  # it is asked again
        for look in (scan, ending.family_of_runs(["run"]).look, lambda: children_of(os.getpid())):
            with pytest.raises(OSError, match="Too many open files"):
                look()
    finally:
        hog.give_back()
    assert is_alive(sleeper)
    assert family.look() == {sleeper}


async def test_a_program_that_is_cut_off_then_is_ended_once_it_can_be_seen(bench: Bench, hog: Hog, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it; and nothing is over before."""
    look, looks = ending.Family.look, iter([hog.take])

    def without(self: ending.Family) -> set[Proc]:
        next(looks, hog.give_back)()  # the first look is made without, and all others with
        return look(self)

    monkeypatch.setattr(ending.Family, "look", without)
    with anyio.fail_after(60):
        await bench.run_until_ready(*python(TWO_SESSIONS), kill_grace_seconds=0)
    assert len(bench.pids()) == 2
    assert [pid for pid in bench.pids() if read_entry(pid) is not None] == []
