"""What the runner has read of the queue and not started yet, so that it need not be read for each run."""

from collections import Counter
from collections.abc import Collection

from lily.runs import Run
from lily.storage.store import Look


class QueueAhead:
    """The first runs of the queue, in its order. Where jobs are full, a further look finds runs behind theirs.

    Such a look leaves those jobs out, so of their runs only those before it are known. Once the last of these is taken another one may
    stand before what is left: the queue is read anew then.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.more = False  # others may stand behind them
        self._unreadable: set[str] = set()  # jobs with a run that can't be started, and is not kept here
        self._known: Counter[str] = Counter()  # of jobs that the last look left out: how many runs are here

    def read(self, look: Look) -> None:
        """This is how the queue begins now."""
        self.runs, self.more = look.queued, look.more
        self._unreadable.clear()
        self._known.clear()

    def read_on(self, look: Look) -> None:
        """This is what stands behind `runs` of other jobs than `full`."""
        self._known = Counter(run.job_id for run in self.runs)
        self.runs, self.more = self.runs + look.queued, look.more

    @property
    def full(self) -> Collection[str]:
        """The jobs to leave out of a look for what stands behind, when none of `runs` may start."""
        return {run.job_id for run in self.runs} | self._unreadable

    def drop(self, run: Run) -> None:
        """It can't be started, and does not keep its place."""
        self._unreadable.add(run.job_id)

    def was_last_known(self, run: Run) -> bool:
        """Whether what was read after this run, which is taken now, may have another one of its job before it."""
        if run.job_id not in self._known:
            return False
        self._known[run.job_id] -= 1
        return self._known[run.job_id] == 0
