"""One soak: a supervisor, its traffic, samples all the while, and what must hold afterwards."""

import heapq
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scratch import environment
from benchmarks.soak import work
from benchmarks.soak.flat import FEWEST, Verdict, judge
from benchmarks.soak.samples import ALLOWANCES, ROWS, Sampler, cpu_seconds, kept_rows
from benchmarks.soak.traffic import Traffic
from lily.engines.process_table import belonging_to_each
from lily.errors import LilyError
from lily.identity import Actor
from lily.operations.changes import cancel
from lily.operations.client import supervisor_status
from lily.operations.session import open_store
from lily.runs import TERMINAL, Status
from lily.selftest.promises import Findings, errors_in
from lily.settings import load_settings
from lily.storage.store import Store
from lily.workspace import current_owner

PATIENCE_SECONDS = 120.0
SAMPLE_SECONDS = 5.0
WHOLE_SECONDS = 900.0  # a soak that is shorter does everything more often, so that all of it is done
LOCKED = "database is locked"
NONSENSE = "settings are not read again"  # the traffic writes such a file now and then, and hangs up at any time
LONGEST_KEPT = 480  # seconds that runs and dead letters are kept


@dataclass
class Result:
    """What came of a soak."""

    seconds: float
    findings: Findings
    verdicts: list[Verdict]
    samples: list[dict[str, float]]
    about: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Every promise was kept, and nothing grows."""
        return not self.findings.broken and not any(verdict.grows for verdict in self.verdicts)


class Soak:
    """One workspace, and one supervisor for all of the time."""

    def __init__(
        self, root: Path, site: str, seconds: float, seed: int, progress: Callable[[str], None], keep: Callable[[dict[str, float]], object]
    ) -> None:
        """`keep` is given every sample when it is taken."""
        self.workspace = work.furnish(root, site)
        self._seconds, self._dice, self._progress, self._keep = seconds, random.Random(seed), progress, keep
        self._log = root / "supervisor.log"
        self.findings = Findings()

    def run(self) -> Result:
        """All of it. Raises SystemExit when the supervisor does not come up or ends by itself."""
        with self._supervisor() as process, self._store() as store:
            kept = max(2, min(LONGEST_KEPT, int(self._seconds / 6)))
            self.traffic = Traffic(self.workspace, store, self._dice, self.findings, pid=process.pid, kept_seconds=kept)
            with self.traffic.clients, Sampler(self.workspace, process.pid, min(SAMPLE_SECONDS, self._seconds / 60), self._keep) as samples:
                self._live(process, samples)
            if samples.failure is not None:
                raise SystemExit(f"nothing could be sampled any more: {samples.failure!r}")
            used, seconds = cpu_seconds(process.pid), samples.seconds
            if samples.judged() < FEWEST:
                raise SystemExit(f"{samples.judged()} samples in {seconds:.0f} s are too few to tell anything")
            added = samples.added(ROWS)
            verdicts = [judge(each, samples.series(each.name), seconds, added) for each in ALLOWANCES]
            self._come_to_rest(store)
            process.send_signal(signal.SIGTERM)
            self._expect("a supervisor that was asked to stop exits with 0", process.wait(PATIENCE_SECONDS) == 0, "")
            self._check(store, samples.told)
        return Result(seconds, self.findings, verdicts, samples.rows, self._about(used, seconds, added))

    # -- the time ---------------------------------------------------------------------------------

    def _acts(self) -> list[tuple[float, Callable[[], None]]]:
        do = self.traffic
        pace = min(1.0, self._seconds / WHOLE_SECONDS)
        acts = (
            (2.0, do.submit),
            (8.0, do.command),
            (4.0, do.clients.follow),
            (11.0, do.clients.babble),
            (75.0, do.clients.tail),
            (20.0, do.edit),
            (15.0, do.post),
            (45.0, do.ask),
            (45.0, do.begin_long),
            (120.0, do.keep_house),
        )
        least = {do.command: 1.0, do.clients.tail: 5.0, do.keep_house: 5.0}
        return [(max(every * pace, least.get(act, 0.3)), act) for every, act in acts]

    def _live(self, process: "subprocess.Popen[bytes]", samples: Sampler) -> None:
        """Do everything again and again until the time is over. A machine that has little time to spare is given more."""
        acts = self._acts()
        due = [(time.monotonic() + self._dice.uniform(0, every), number) for number, (every, _) in enumerate(acts)]
        heapq.heapify(due)
        told, most = 0, self._seconds + PATIENCE_SECONDS
        while samples.seconds < self._seconds or (samples.judged() < FEWEST and samples.seconds < most):
            if process.poll() is not None:
                raise SystemExit(f"the supervisor ended by itself with {process.returncode}:\n{self._log.read_text()[-3000:]}")
            if samples.seconds // 300 > told:
                told = int(samples.seconds // 300)
                self._progress(f"{5 * told} min: {self.traffic.seen} runs checked, {len(self.findings.broken)} promises broken")
            at, number = due[0]
            if at > time.monotonic():
                time.sleep(min(0.2, max(0.0, at - time.monotonic())))
                continue
            every, act = acts[number]
            act()
            heapq.heapreplace(due, (max(time.monotonic(), at + every * self._dice.uniform(0.8, 1.2)), number))

    def _come_to_rest(self, store: Store) -> None:
        """Nothing new comes; what waits for somebody or lasts is canceled, all else ends by itself, unless nothing goes on for long."""
        self.traffic.lily("jobs disable --all --reason soak")
        least, deadline = self._owed(store), time.monotonic() + PATIENCE_SECONDS
        while (owed := self._owed(store)) and time.monotonic() < deadline:
            if owed < least:
                least, deadline = owed, time.monotonic() + PATIENCE_SECONDS
            for run in store.unfinished():
                if run.status is Status.WAITING_APPROVAL or run.job_id in work.LASTING:
                    with suppress(LilyError):  # it has just ended
                        cancel(self.workspace, store, run.run_id, by=Actor(name="soak"), reason="the soak is over")
            time.sleep(0.2)

    @staticmethod
    def _owed(store: Store) -> int:
        return sum(count for status, count in store.counts().items() if status not in TERMINAL) + len(store.unwritten())

    # -- afterwards -------------------------------------------------------------------------------

    def _check(self, store: Store, told: dict[str, Any]) -> None:
        self.traffic.check(ended=True)
        for words in ("runs verify", "schedule verify", "audit verify", "db check"):
            self.traffic.lily(words)
        restarts = {actor["name"]: actor["restarts"] for actor in told.get("actors", ()) if actor["restarts"]}
        self._expect("no actor had to be started again", not restarts, str(restarts))
        self._expect("nobody owns the workspace at the end", current_owner(self.workspace) is None, "")
        runs = [run.run_id for job_id in store.job_ids() for run in store.every_run(job_id)]
        left = {run_id: procs for run_id, procs in belonging_to_each(runs).items() if procs}
        self._expect("no process is left", not left, str(left))
        wrong = errors_in(self._log.read_text(errors="replace"))
        locked = [line for line in wrong if LOCKED in line]  # by a command that the machine gave no time to end: it is tried again
        self.locked = len(locked)
        others = [line for line in wrong if line not in locked and NONSENSE not in line]
        promise = "no error is in the supervisor's log but of a store that others kept locked, and of settings that are nonsense"
        self._expect(promise, not others, "\n    ".join(others[:5]))

    def _expect(self, promise: str, holds: bool, where: str) -> None:
        self.findings.expect(promise, holds, where)

    def _about(self, used: float, seconds: float, added: float) -> list[str]:
        traffic = self.traffic
        ended = ", ".join(f"{count} {name}" for name, count in traffic.endings.most_common())
        kept = ", ".join(f"{name} {count}" for name, count in kept_rows(self.workspace.database).items() if count)
        return [
            f"{traffic.seen} runs held against the promises: {ended}",
            f"{traffic.commands.total()} commands of {len(traffic.commands)} kinds, {traffic.edits} edits",
            f"processor of the supervisor: {used:.0f} s in {seconds:.0f} s, {100 * used / seconds:.1f} % of a core",
            f"times that the supervisor found its store locked for longer than it waits: {self.locked}",
            f"rows that stay: {added:.0f} added after the warm-up; at the end {kept}",
        ]

    # -- around it --------------------------------------------------------------------------------

    @contextmanager
    def _store(self) -> Iterator[Store]:
        store = open_store(self.workspace, load_settings(self.workspace))
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def _supervisor(self) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "lily", "up", "--workspace", str(self.workspace.root)]
        with open(self._log, "ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not ((supervisor_status(self.workspace) or {}).get("scheduler") or {}).get("registered", 0):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(self._log.read_text()[-3000:])
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()  # it ends what runs, too
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
            process.kill()
            process.wait()
