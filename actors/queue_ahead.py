"""What the runner has read of the queue and not started yet, so that it need not be read for each run."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import anyio

from lily.errors import LilyError
from lily.log import Log
from lily.runs import Run
from lily.storage.reads import Spoilt
from lily.storage.statements import CANCELED_AT_ONCE
from lily.storage.store import Look

SPOILT = 200  # rows that can't be read and are left out one by one
AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0)  # from a start that failed to the next try, and to those after it


class QueueAhead:
    """The first runs of the queue, in its order. Where jobs are full, a further look finds runs behind theirs.

    Such a look leaves those jobs out, so of their runs only those before it are known. Once the last of these is taken another one may
    stand before what is left: the queue is read anew then.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.runs: list[Run] = []
        self.more = False  # others may stand behind them
        self.canceled_after = ""  # the next look tells of what was canceled from here on: files of those before may be long in coming
        self._unreadable: set[str] = set()  # jobs with a run that can't be started, and is not kept here
        # Ids, as they stand in the store, of runs whose rows can't be read: others of their jobs may be sound.
        self.spoilt: set[Any] = set()
        self._told: set[str] = set()  # such runs, however often they were found
        self._put_off: dict[str, tuple[float, int]] = {}  # by run id: until when (loop time), and how often it was tried
        self._known: Counter[str] = Counter()  # of jobs that the last look left out: how many runs are here

    def read(self, look: Look) -> None:
        """This is how the queue begins now."""
        self.runs, self.more = look.queued, look.more
        self.canceled_after = look.canceled[-1] if len(look.canceled) >= CANCELED_AT_ONCE else ""
        self._unreadable.clear()
        self.spoilt.clear()
        self._leave_out(look)
        self._known.clear()
        now = anyio.current_time()
        self._put_off = {run_id: (until, tries) for run_id, (until, tries) in self._put_off.items() if until + AGAIN_SECONDS[-1] > now}

    def read_on(self, look: Look) -> None:
        """This is what stands behind `runs` of other jobs than `full`."""
        self._known = Counter(run.job_id for run in self.runs)
        self.runs, self.more = self.runs + look.queued, look.more
        self._leave_out(look)

    def _leave_out(self, look: Look) -> None:
        if len(self.spoilt) + len(look.spoilt) <= SPOILT:
            self.spoilt |= {each.row[0] for each in look.spoilt}
        else:  # the whole job, so that a look need not name thousands
            self._unreadable |= {each.row[1] for each in look.spoilt}
        self.tell(look.spoilt)

    @property
    def full(self) -> Collection[str]:
        """The jobs to leave out of a look for what stands behind, when none of `runs` may start."""
        return {run.job_id for run in self.runs} | self._unreadable

    def drop(self, run: Run, error: LilyError) -> None:
        """It can't be started, and does not keep its place."""
        self._unreadable.add(run.job_id)
        self._tell_once("a run can't be started", run.run_id, error, trace=run.trace_id)

    def tell(self, spoilt: Iterable[Spoilt]) -> None:
        """Say of runs that nobody can do anything with them."""
        for each in spoilt:
            self._tell_once("a run's row can't be read", each.run_id, each.error)

    def _tell_once(self, what: str, run_id: str, error: LilyError, **more: str) -> None:
        if run_id not in self._told:
            self._told.add(run_id)
            self._log.error(what, run=run_id, **more, error=str(error))

    def put_off(self, run: Run) -> None:
        """It could not be started: let runs of other jobs have the slots before it is tried again."""
        _, tries = self._put_off.get(run.run_id, (0.0, 0))
        pause = AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)]
        self._put_off[run.run_id] = anyio.current_time() + pause, tries + 1

    def is_put_off(self, run: Run) -> bool:
        """Whether it is to be left where it stands for now."""
        return run.run_id in self._put_off and self._put_off[run.run_id][0] > anyio.current_time()

    def was_last_known(self, run: Run) -> bool:
        """Whether what was read after this run, which is taken now, may have another one of its job before it."""
        if run.job_id not in self._known:
            return False
        self._known[run.job_id] -= 1
        return self._known[run.job_id] == 0
