"""What persons and programs do to a workspace all day, drawn from one seed: submissions, commands, edits, clients, housekeeping."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.scratch import environment
from benchmarks.soak import work
from benchmarks.soak.clients import Clients
from lily.operations.accept import accept_all, new_run
from lily.runs import TERMINAL, Run, Status
from lily.selftest.promises import Findings, blames_lily, check_runs
from lily.spec_index import SpecIndex
from lily.storage.letters import Filter, Letters
from lily.storage.store import Store
from lily.workspace import Workspace

PATIENCE_SECONDS, START_SECONDS = 180.0, 60.0
BATCH, MOST_OWED = 30, 60
SUBMITTED = ("idle", "idle", "hello", "flaky", "tells", "steps")
RUNS = ("jobs run hello", "jobs run flaky", "jobs run idle --input n=1 --json", "jobs run tells --detach")
# Each with the exit statuses that it may have; without any, 0. A broken job file makes `jobs validate` and `doctor` say so.
READS: tuple[tuple[str, tuple[int, ...]], ...] = (
    *(
        (words, (0,))
        for words in ("jobs list", "jobs history tick", "health", "queue stats", "status", "worker status", "runs list --limit 50")
    ),
    *((words, (0,)) for words in ("schedule list", "schedule status", "dlq list", "dlq triage", "approvals list", "conditions list")),
    *((words, (0,)) for words in ("metrics", "report --json", "events tail -n 50", "audit list", "jobs why beat", "jobs next --all")),
    *((words, (0,)) for words in ("alerts list", "review run", "review list", "db status", "config show", "runs active", "jobs plan")),
    *(
        (words, (0,))
        for words in ("queue list", "blueprints list", "conditions check on-letter", "audit verify", "runs verify", "db check")
    ),
    *((words, (0,)) for words in ("jobs pause calendar --reason soak", "jobs resume calendar", "jobs disable check", "jobs enable check")),
    *((words, (0,)) for words in ("store checkpoint", "db backup db/copy --force", "store export --jsonl")),
    *((words, (0, 1, 2)) for words in ("jobs validate", "doctor", "health --check", "queue cancel --job idle --reason soak")),
    ("schedule verify", (0,)),
)


class Traffic:
    """All that is done to one workspace, in this process but for the commands."""

    def __init__(self, workspace: Workspace, store: Store, dice: random.Random, findings: Findings, *, pid: int, kept_seconds: int) -> None:
        self._workspace, self._store, self._dice, self._findings = workspace, store, dice, findings
        self._pid, self._kept = pid, kept_seconds
        index = SpecIndex(workspace)
        self._specs = {job_id: index.load(job_id) for job_id in work.manual()}
        self.clients = Clients(workspace, dice)
        self.accepted: set[str] = set()  # and not held against the promises yet
        self.checked: set[str] = set()  # of those that are still there
        self.seen = 0  # runs that were held against them
        self.endings: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.edits = 0
        self._deck: list[Callable[[], object]] = []

    # -- submissions ------------------------------------------------------------------------------

    def submit(self) -> None:
        """One run, unless much is owed."""
        if self._owed() < MOST_OWED:
            self._accept(self._dice.choice(SUBMITTED))

    def _owed(self) -> int:
        return sum(count for status, count in self._store.counts().items() if status not in TERMINAL)

    def ask(self) -> None:
        """One run that will wait for a person, before its work or in the middle."""
        if len(self._waiting()) < 6:
            self._accept(self._dice.choice(("asked", "asks")))

    def begin_long(self) -> None:
        """One run that lasts until somebody cancels it."""
        if not self._store.runs(job_id="long", statuses=[Status.QUEUED, Status.RUNNING], limit=1):
            self._accept("long")

    def _accept(self, job_id: str) -> None:
        runs = accept_all(self._workspace, self._store, [new_run(self._specs[job_id].canonical(), by="soak")])
        self.accepted |= {run.run_id for run in runs}

    def _waiting(self) -> list[Run]:
        return [run for run in self._store.unfinished() if run.status is Status.WAITING_APPROVAL and run.job_id != "expires"]

    # -- commands ---------------------------------------------------------------------------------

    def command(self) -> None:
        """The next command of a shuffled deck."""
        if not self._deck:
            self._deck = [partial(self.lily, words, *fine) for words, fine in READS] + [partial(self._run, words) for words in RUNS]
            self._deck += [self._decide, self._decide, self._cancel, self._cancel, self._batch, self._batch, self._retry, self._replay]
            self._deck += [
                self._look_closer,
                self._hold,
                self._set,
                self._reload,
                self._reload_nonsense,
                self._hang_up,
                self._fail,
                self._bundle,
            ]
            self._dice.shuffle(self._deck)
        self._deck.pop()()

    def lily(self, words: str, *fine: int, given: str = "") -> "subprocess.CompletedProcess[str]":
        """Give a command. One that ends otherwise than it may, or tells of a fault of Lily's own, breaks a promise."""
        command = [sys.executable, "-m", "lily", *words.split(), "--workspace", str(self._workspace.root)]
        try:
            ended = subprocess.run(
                command,
                cwd=self._workspace.root,
                env=environment(),
                input=given,
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            ended = subprocess.CompletedProcess(command, -1, "", f"not ended after {PATIENCE_SECONDS:g} s")
        self.commands[" ".join(words.split()[:2])] += 1
        good = ended.returncode in (fine or (0,)) and not blames_lily(ended.stderr)
        said = f"`lily {words}` ended with {ended.returncode}: {ended.stdout[-500:]} {ended.stderr[-1000:]}"
        self._findings.expect("a command does what it is asked", good, said)
        return ended

    def _decide(self) -> None:
        waiting = self._waiting()
        if waiting:
            run = self._dice.choice(waiting).run_id
            self.lily(f"approvals approve {run} --note fine" if self._dice.random() < 0.7 else f"approvals deny {run} --reason no")

    def _cancel(self) -> None:
        for run in self._store.runs(job_id="long", statuses=[Status.RUNNING], limit=1):
            self.lily(f"runs cancel {run.run_id} --reason soak")

    def _batch(self) -> None:
        lines = "".join(json.dumps({"job": "idle", "input": {"n": n}, "priority": "low"}) + "\n" for n in range(BATCH))
        self._run("jobs run --batch -", given=lines)

    def _run(self, words: str, given: str = "") -> None:
        """What would be refused if the queue pushed back, which it does on a machine that has no time for its windows."""
        if self._owed() < MOST_OWED:
            self.lily(words, given=given)

    def _retry(self) -> None:
        self.lily("dlq retry --all --limit 3 --reason soak", 0, 1)  # one whose job's file is gone can't be

    def _replay(self) -> None:
        for run in self._store.runs(job_id="hello", statuses=[Status.SUCCEEDED], limit=1):
            self._run(f"runs replay {run.run_id} --approve --reason soak --detach")

    def _look_closer(self) -> None:
        one, two = ([run.run_id for run in self._store.runs(statuses=[Status.SUCCEEDED, Status.FAILED], limit=2)] * 2)[:2] or ("", "")
        if one:
            self.lily(f"runs show {one}")
            self.lily(f"runs diff {one} {two}")

    def _hold(self) -> None:
        self.lily("worker pause --reason soak")
        self.lily("worker resume")

    def _set(self) -> None:
        self.lily(f"queue set --max-concurrent {self._dice.choice(work.SLOTS)} --reason soak")

    def _reload(self) -> None:
        self._write(self._workspace.config, work.config(self._dice.choice(work.SLOTS)))
        self.lily("config reload --reason soak")

    def _reload_nonsense(self) -> None:
        good = self._workspace.config.read_text()
        self._write(self._workspace.config, "queue: {max_concurrent: many}\n")
        try:
            self.lily("config reload", 3)
        finally:
            self._write(self._workspace.config, good)

    def _hang_up(self) -> None:
        os.kill(self._pid, signal.SIGHUP)

    def _fail(self) -> None:
        self.lily("runs fail --running --reason soak", 0, 1)

    def _bundle(self) -> None:
        (self._workspace.root / "bundle.tar.gz").unlink(missing_ok=True)
        self.lily("support bundle --output bundle.tar.gz")

    # -- edits ------------------------------------------------------------------------------------

    def edit(self) -> None:
        """Change something that the supervisor watches."""
        self.edits += 1
        jobs, n = self._workspace.jobs, self.edits
        match n % 8:
            case 0:
                text = work.job("edited", target="idle.v1", trigger=work.every(6 + n % 5), title=f"Edited {n}")
                self._write(jobs / "edited.job.yaml", text)
            case 1:
                self._write(jobs / "broken.job.yaml", f"id: broken-{n}\ntrigger: [")
            case 2:
                self._write(jobs / "comes.job.yaml", work.job(f"comes-{n}", shell="true", trigger=work.every(3)))
            case 3:
                self._write(self._workspace.blueprints / "soak.py", f"{work.BLUEPRINTS}\n# {n}\n")
            case 4:
                self._write(self._workspace.root / work.SECRET, f"secret-number-{n}-of-the-soak")
            case 5:
                self._write(self._workspace.blueprints / "other.py", f"this is no Python {n}" if n % 16 == 5 else f"N = {n}\n")
            case 6:
                (jobs / "comes.job.yaml").unlink(missing_ok=True)
                (jobs / "broken.job.yaml").unlink(missing_ok=True)
            case _:
                os.utime(jobs / "beat.job.yaml")

    def post(self) -> None:
        """A letter comes, or goes."""
        letter = self._workspace.root / work.INBOX
        if letter.exists():
            letter.unlink()
        else:
            letter.write_text("dear job\n")

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Whole, as an editor does."""
        written = path.with_name(f".{path.name}.tmp")
        written.write_text(text)
        os.replace(written, path)

    # -- housekeeping -----------------------------------------------------------------------------

    def keep_house(self) -> None:
        """Hold what has ended against the promises, then drop what is older than may be kept."""
        began = time.monotonic()
        self.check(ended=False)
        self.lily(f"dlq prune --older-than {self._old(began)} --reason soak")
        if self._dice.random() < 0.3:
            self._clear()
        self.lily(f"runs prune --older-than {self._old(began)} --reason soak")
        self.checked &= {run.run_id for job_id in self._store.job_ids() for run in self._store.every_run(job_id)}

    def _old(self, checked: float) -> str:
        """An age that only what had ended before the check can have, however long a command takes to begin."""
        return f"{self._kept + time.monotonic() - checked + START_SECONDS:.0f}s"

    def check(self, *, ended: bool) -> None:
        """Every promise for each run that was not checked since it ended, and for all that was accepted; with `ended`, none is owed."""
        there = [run for job_id in self._store.job_ids() for run in self._store.every_run(job_id) if run.run_id not in self.checked]
        done = [run for run in there if run.status in TERMINAL and run.written]
        ids = {run.run_id for run in (there if ended else done)} | self.accepted
        check_runs(self._workspace, self._store, sorted(ids), self._findings, all_ended=ended)
        self.seen += len(done)
        self.endings.update(run.status.value for run in done)
        self.checked |= {run.run_id for run in done}
        self.accepted -= self.checked

    def _clear(self) -> None:
        letters = [run_id for run_id in Letters(self._store).ids(Filter(), limit=5) if run_id in self.checked]
        if letters:
            self.lily(f"dlq clear {' '.join(letters)} --yes --reason soak")
