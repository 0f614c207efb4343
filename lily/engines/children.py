"""The child processes of this process: our own, which their starters wait for, and orphans that a subreaper is given."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress

from lily.engines.process_table import (
    PROCESS_MARK,
    Entry,
    Proc,
    Table,
    children_of,
    children_of_thread,
    descendants,
    marks_of,
    read_entry,
    scan,
)

_PR_SET_CHILD_SUBREAPER = 36


class Children:
    """Keeps apart whose exit status is awaited by someone (registered) and who was adopted.

    Every child that is started with a session of its own must be started through `start`, or it is taken for an orphan; children in
    this process's own session are never touched.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # starting happens in worker threads
        self._registered: dict[int, int] = {}  # with the thread that started it
        self.subreaper = False

    def start(self, popen: "Callable[[], subprocess.Popen[bytes]]") -> "subprocess.Popen[bytes]":
        """Start and register in one, so that no look in between takes the new child for an orphan."""
        with self._lock:
            child = popen()
            self._registered[child.pid] = threading.get_native_id()
            return child

    def reap(self, child: "subprocess.Popen[bytes]") -> int | None:
        """Collect the status of a registered child that has ended: exit code, or a signal's number below zero; None: taken by others."""
        with self._lock:
            self._registered.pop(child.pid, None)
            if child.returncode is None:
                try:
                    child.returncode = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
                except ChildProcessError:
                    child.returncode = 0  # only for Popen, which complains about children without one
                    return None
            return child.returncode

    def table(self) -> Table:
        """Where all that came of this process's children can be found: a subreaper has it below itself."""
        below = descendants() if self.subreaper else None
        return scan() if below is None else below

    def others(self, pid: int) -> list[int]:
        """The children registered beside `pid`."""
        with self._lock:
            return [each for each in self._registered if each != pid]

    def alone(self, pid: int) -> bool:
        """Whether nothing is left of what the registered child `pid`, which has ended, had started: what had outlived it would be ours now.

        So it is when our children are those registered, and our helpers. False where that can't be known.
        """
        if not self.subreaper:
            return False
        session = os.getsid(0)
        # Locked so that none is reaped meanwhile: the system may skip one where another is taken from the list.
        with suppress(OSError), self._lock:
            # Each thread has a list of its own, and those that start programs are many. Orphans are in that of the first; what a program
            # made a child of its parent (CLONE_PARENT) is in that of its starter, or of the first once that has ended: so it comes last.
            adopted = children_of_thread(self._registered[pid]) if pid in self._registered else None
            orphans = children_of_thread(os.getpid())
            if orphans is not None:
                return all(each in self._registered or _session_of(each) in (None, session) for each in (*(adopted or ()), *orphans))
        return False

    def _adopted(self, entry: Entry, session: int) -> bool:
        # Whatever we start lives in a session of its own and can never come back into ours.
        return entry.parent == os.getpid() and entry.session != session and entry.pid not in self._registered

    def strays(self, table: Table) -> set[int]:
        """Living orphans with no mark at all, so that nobody can say which process they come from."""
        if not self.subreaper:
            return set()
        session = os.getsid(0)
        with self._lock:
            found = {entry.pid for entry in table.values() if entry.alive and self._adopted(entry, session)}
        return {pid for pid in found if not marks_of(pid, (PROCESS_MARK,))}

    def collect_adopted(self) -> int:
        """Reap the orphans that have ended; how many. Never takes the status of a registered child."""
        return self._collect(lambda proc: True)[0]

    def collect_settled(self, before: Collection[Proc]) -> set[Proc]:
        """Reap those orphans that had ended `before` already; gives the others that have ended.

        What is taken for one may be a blueprint's own child with a session of its own, whose starter takes its status in a moment.
        """
        return self._collect(before.__contains__)[1]

    def _collect(self, due: Callable[[Proc], bool]) -> tuple[int, set[Proc]]:
        count, others = 0, set[Proc]()
        if not self.subreaper:
            return count, others
        session = os.getsid(0)
        with suppress(OSError):  # no descriptor is left to look with: the next one that ends brings these along
            with self._lock:  # as above
                own = children_of(os.getpid())
                look = [pid for pid in (scan() if own is None else own) if pid not in self._registered]
            for pid in look:
                with self._lock:
                    entry = read_entry(pid)
                    if entry is None or entry.alive or not self._adopted(entry, session):
                        continue
                    if due(entry.proc):
                        count += _reap(pid)
                    else:
                        others.add(entry.proc)
        return count, others


def _session_of(pid: int) -> int | None:
    entry = read_entry(pid)
    return entry.session if entry else None


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


CHILDREN = Children()  # a process has one set of children


def become_subreaper() -> bool:
    """Have orphaned descendants handed to this process, so that a daemon can't get out of sight. For the supervisor's process only.

    False where the system has no such thing; a daemon is then still found by the marks in its environment.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # inherited; exit statuses would be thrown away
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    CHILDREN.subreaper = prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    return CHILDREN.subreaper
