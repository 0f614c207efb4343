"""Kill a real supervisor again and again while fifty schedules run, leave it down for a while, and account for every window afterwards.

`python -m benchmarks.windows --kills 100 [--seed S] [--keep]`. Each target writes a line into a log of its own. At the end the ledger
is compared with what the triggers define, with an independent cron implementation, and with that log. Exit status 1 when they differ.
"""

import argparse
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim

from benchmarks.scratch import environment
from lily.clock import parse_stamp, stamp
from lily.operations.client import supervisor_status
from lily.selftest.promises import errors_in
from lily.workspace import Workspace

LAST_MOMENT = timedelta(milliseconds=100)  # before a kill: what falls due in it may not be claimed any more
PATIENCE_SECONDS = 60.0
UP_SECONDS, DOWN_SECONDS = (0.5, 6.0), (0.0, 5.0)
BLUEPRINT = '''\
"""Says which window it ran for."""

import os
from typing import Any

from lily import Context, blueprint


@blueprint("witness.v1")
async def witness(ctx: Context, bindings: Any, run_input: Any) -> Any:
    """One line in one write."""
    line = f"{ctx.job_id} {ctx.scheduled_for.isoformat()} {ctx.run_id} {ctx.attempt}\\n"
    log = os.open(ctx.workspace / "witness.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, line.encode())
    os.close(log)
    return {}
'''


def triggers(now: datetime) -> dict[str, str]:
    """Fifty of all kinds."""
    zones = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC")
    found = {}
    for n in range(12):
        found[f"cron-{n:02}"] = f'{{type: cron, cron: "*/{n % 3 + 1} * * * *", timezone: {zones[n % 5]}}}'
    modes = ("none", "latest", "all")
    for n in range(20):
        more = f"catch_up: {modes[n % 3]}, overlap: {('skip', 'queue', 'cancel_previous')[n % 3]}"
        more += ", misfire_grace_seconds: 2" if n % 4 == 3 else ""
        more += f", jitter_seconds: {n % 4}" if n % 5 == 0 else ""
        found[f"every-{n:02}"] = f"{{type: interval, every: {2 + n}s, {more}}}"
    anchor = f"{now:%Y-%m-%dT00:00}"
    for n in range(12):
        rule = f"FREQ=SECONDLY;INTERVAL={5 + n}" if n % 2 else f"FREQ=MINUTELY;BYSECOND={n},{n + 20}"
        exclude = f", exclude: [{now:%Y-%m-%d}]" if n == 6 else ""
        found[f"calendar-{n:02}"] = f'{{type: calendar, rrule: "{rule}", anchor: "{anchor}", timezone: {zones[n % 5]}{exclude}}}'
    for n in range(6):
        found[f"once-{n:02}"] = f'{{type: once, at: "{now + timedelta(seconds=20 + 37 * n):%Y-%m-%dT%H:%M:%SZ}"}}'
    return found


def make(root: Path, now: datetime) -> Workspace:
    """A workspace with these jobs."""
    workspace = Workspace(root)
    for folder in (workspace.jobs, workspace.blueprints, root / "db"):
        folder.mkdir(parents=True)
    workspace.config.write_text("queue: {max_concurrent: 20, max_size: 1000000}\n")
    (workspace.blueprints / "witness.py").write_text(BLUEPRINT)
    for id, trigger in triggers(now).items():
        (workspace.jobs / f"{id}.job.yaml").write_text(
            f"id: {id}\ntitle: Witness {id}\ntarget: {{id: witness.v1}}\nbindings: {{}}\ntrigger: {trigger}\n"
            "runtime: {max_parallel_runs: 8}\noutput: {}\n"
        )
    return workspace


class Campaign:
    """One workspace, many lives of its supervisor."""

    def __init__(
        self,
        workspace: Workspace,
        dice: random.Random,
        up_seconds: tuple[float, float] = UP_SECONDS,
        down_seconds: tuple[float, float] = DOWN_SECONDS,
    ) -> None:
        self.workspace, self.dice = workspace, dice
        self._up_seconds, self._down_seconds = up_seconds, down_seconds
        self.up: list[tuple[datetime, datetime]] = []  # when the schedules were registered, when the kill came
        self.problems: list[str] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """A supervisor whose schedules are registered."""
        with open(self.workspace.root / "up.log", "ab") as log:
            command = [sys.executable, "-m", "lily", "up", "--workspace", str(self.workspace.root)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True)
        return process

    def ready(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait until the scheduler ticks."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (((supervisor_status(self.workspace) or {}).get("scheduler") or {}).get("registered", 0)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self.workspace.root / "up.log").read_text()[-3000:])
            time.sleep(0.01)

    def life(self) -> None:
        """Up for a while, then SIGKILL, then down for a while; some are killed while they start."""
        process = self.start()
        if self.dice.random() < 0.1:
            time.sleep(self.dice.uniform(0.2, 1.2))
            process.kill()
            process.wait()
        else:
            self.ready(process)
            began = datetime.now(UTC)
            time.sleep(self.dice.uniform(*self._up_seconds))
            self.up.append((began, datetime.now(UTC)))
            process.kill()
            process.wait()
        time.sleep(self.dice.uniform(*self._down_seconds))

    def finish(self) -> None:
        """One more life that works off what is owed and drains."""
        process = self.start()
        self.ready(process)
        began = datetime.now(UTC)
        deadline = time.monotonic() + PATIENCE_SECONDS
        # What fell due before is claimed first: until a window of this life has run, nothing may be owed because nobody has looked.
        ran = "select not exists(select 1 from run where queued_at > ? and written = 1)"
        owed = f"select ({ran}) + (select count(*) from run where written = 0)"
        while self.count(owed, stamp(began)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.up.append((began, datetime.now(UTC)))
        process.send_signal(signal.SIGTERM)
        if process.wait(PATIENCE_SECONDS) != 0:
            self.problems.append("the supervisor did not end with status 0")

    def rows(self, query: str, *values: object) -> list[tuple[str, ...]]:
        """Of the store."""
        with closing(sqlite3.connect(self.workspace.database)) as db:
            return db.execute(query, values).fetchall()

    def count(self, query: str, *values: object) -> int:
        """The one number that a query gives."""
        return int(self.rows(query, *values)[0][0])

    # -- what must hold ---------------------------------------------------------------------------

    def check(self, share: float = 0.99) -> None:
        """Compare the ledger with triggers, with cronsim and with the targets' own log; `share` of what was due while up must have run."""
        command = [sys.executable, "-m", "lily", "schedule", "verify", "--workspace", str(self.workspace.root)]
        verified = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
        print("schedule verify:", verified.stdout.strip().splitlines()[-1:] or verified.stderr[-500:])
        if verified.returncode:
            self.problems.append(f"schedule verify: {verified.stdout[-500:]}{verified.stderr[-500:]}")
        self.check_cron()
        self.check_log()
        self.check_fired(share)
        self.check_said()

    def check_said(self) -> None:
        """No supervisor told of an error, or died with a trace: the next one puts right what it left, and nothing else would show it."""
        said = (self.workspace.root / "up.log").read_text(errors="replace")
        self.problems += [f"the supervisor's log: {line}" for line in errors_in(said)[:5]]

    def check_cron(self) -> None:
        """The windows of cron jobs are those of an independent implementation."""
        checked = 0
        versions = self.rows(
            "select v.job_id, v.since, s.settled, v.trigger, v.timezone from trigger_version v join schedule s using (job_id)"
        )
        for job_id, since, settled, trigger, timezone in versions:
            if not job_id.startswith("cron-"):
                continue
            expression = trigger.split('"cron":"')[1].split('"')[0]
            zone, end = ZoneInfo(timezone), parse_stamp(settled)
            want = set()
            for at in CronSim(expression, parse_stamp(since).astimezone(zone)):
                if at.astimezone(UTC) > end:
                    break
                want.add(stamp(at))
            have = {row[0] for row in self.rows("select at from window where job_id = ?", job_id)}
            checked += len(want)
            if want != have:
                self.problems.append(f"{job_id}: {len(want - have)} missing, {len(have - want)} too many")
        print(f"cronsim agrees on {checked} windows of cron jobs")

    def check_log(self) -> None:
        """What the targets wrote themselves is what the ledger calls fired."""
        lines = [line.split() for line in (self.workspace.root / "witness.log").read_text().splitlines()]
        wrote = {(job, stamp(datetime.fromisoformat(at)), run) for job, at, run, _ in lines}
        failed = self.rows("select run_id, status from run where status not in ('succeeded', 'missed', 'canceled')")
        if failed:
            self.problems.append(f"runs that did not succeed: {failed[:5]}")
        done = "select w.job_id, at, run_id from window w join run r using (run_id) where w.status = 'fired' and r.status = 'succeeded'"
        ended = set(self.rows(done))
        fired = set(self.rows("select job_id, at, run_id from window where status = 'fired'"))
        if not wrote <= fired:
            self.problems.append(f"the targets ran for windows that are not fired: {sorted(wrote - fired)[:5]}")
        if not ended <= wrote:
            self.problems.append(f"windows that succeeded and whose target did not run: {sorted(ended - wrote)[:5]}")
        twice = [key for key, n in Counter((job, at) for job, at, _ in wrote).items() if n > 1]
        if twice:
            self.problems.append(f"two runs for one window: {twice[:5]}")
        doubled = [key for key, n in Counter((run, attempt) for _, _, run, attempt in lines).items() if n > 1]
        if doubled:
            self.problems.append(f"attempts that ran twice: {doubled[:5]}")
        again = len(lines) - len(wrote)
        print(f"targets' own log: {len(wrote)} windows ({again} lines again, after a kill in the middle); ledger: {len(fired)} fired")

    def check_fired(self, least: float) -> None:
        """Of the windows that were due while the supervisor was up, nearly all ran, but for those of its last moment, which a kill can cut
        off, and those that had no need to because the run before was still at work."""
        due: Counter[str] = Counter()
        rows = self.rows("select at, status, job_id from window")
        for at, status, _ in rows:
            when = parse_stamp(at)
            if any(began <= when <= ended - LAST_MOMENT for began, ended in self.up) and status not in ("excluded", "skipped_overlap"):
                due[status] += 1
        total = sum(due.values())
        share = due["fired"] / total if total else 0.0
        print(f"windows: {len(rows)} in all, {dict(Counter(status for _, status, _ in rows))}")
        print(f"due while the supervisor was up: {total}, {share * 100:.2f} % of them fired; {dict(due)}")
        if share < least:
            self.problems.append(f"only {share * 100:.2f} % of the windows due while the supervisor was up are fired")


def main() -> int:
    """Run the campaign; status 1 when something does not hold."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--kills", type=int, default=100)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--keep", action="store_true", help="leave the workspace there")
    given = ask.parse_args()
    if given.kills < 1:
        ask.error("without a kill nothing is tested")
    root = Path(tempfile.mkdtemp(prefix="lily-windows-")) / "workspace"
    campaign = Campaign(make(root, datetime.now(UTC)), random.Random(given.seed))
    for number in range(given.kills):
        campaign.life()
        if number % 10 == 9:
            print(f"{number + 1} kills", flush=True)
    campaign.finish()
    campaign.check()
    for problem in campaign.problems:
        print("BROKEN", problem)
    if given.keep or campaign.problems:
        print(f"left at {root}")
    else:
        shutil.rmtree(root.parent)
    up = sum((ended - began).total_seconds() for began, ended in campaign.up)
    print(f"{given.kills} kills, {len(campaign.problems)} promises broken; up for {up:.0f} s")
    return int(bool(campaign.problems))


if __name__ == "__main__":
    sys.exit(main())
