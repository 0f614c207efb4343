"""From an accepted run to its end: followed at whoever owns the workspace, or run in this process."""

import time
from typing import Any

import msgspec

from lily.cli import output
from lily.cli.held import Held
from lily.cli.options import actor
from lily.errors import Code, LilyError, exit_code
from lily.operations.changes import cancel
from lily.operations.client import RESTART_SECONDS, Owners, follow
from lily.operations.tailing import EventFile
from lily.operations.worker import check_taking, elsewhere
from lily.receipts import Receipt
from lily.render import event_lines, run_view
from lily.runs import TERMINAL, Run, Status
from lily.settings import Settings
from lily.storage.artifacts import read_receipt
from lily.storage.running import holding
from lily.storage.store import Store
from lily.text import counted
from lily.workspace import SUMMARY, Workspace, current_owner

_LOOK_SECONDS, _LONGEST_SECONDS = 0.1, 2.0  # between tries with an owner that is starting or ending, or has too many followers
_BY_TERMINAL = "Ctrl-C"
_HOLDS = {
    Status.RUNNING.value: "is running",
    Status.RETRY_SCHEDULED.value: "waits for its next attempt",
    Status.WAITING_APPROVAL.value: "waits for an approval",
}


class Progress:
    """What is seen of a run while it goes: JSON lines on stdout, or, on a terminal, one line an event on stderr."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._live = output.interactive(output.errors())
        self._waits = ""
        self.last = 0

    def event(self, event: dict[str, Any]) -> None:
        """Take one line of events.jsonl; one that was shown before is left out."""
        seq = event.get("seq")
        if not isinstance(seq, int):
            if "dropped" in event:
                output.tell(f"{counted(event['dropped'], 'event is', 'events are')} not shown; events.jsonl has all")
            return
        if seq <= self.last:
            return
        self.last = seq
        if self._json:
            output.put_raw(msgspec.json.encode(event))
            return
        if event.get("event") == "job_waiting_approval":
            _tell_waiting(event)
        if self._live:
            for line in event_lines(event):
                output.tell(line)

    def waits(self, said: str) -> None:
        """Say, once, what keeps it from being run here."""
        if said != self._waits:
            self._waits = said
            output.tell(said)


def _tell_waiting(event: dict[str, Any]) -> None:
    """What it waits for and how to go on: said always, because nothing more comes until somebody has decided."""
    run_id = event["run_id"]
    issue = f", or by a label on issue {event['issue']}" if event.get("issue") else ""
    output.tell(f"run {run_id} waits for an approval of: {event['what']} ({event['why'] or 'no reason given'})")
    output.tell(f"until {event['expires_at']}: `lily approvals approve {run_id}` or `lily approvals deny {run_id} --reason R`{issue}")


def conduct(workspace: Workspace, settings: Settings, store: Store, run: Run, *, as_json: bool, held: Held | None = None) -> int:
    """See the run to its end, print what came of it, and give the exit status.

    Where Ctrl-C was `held` since before the run was accepted, one that came meanwhile cancels it as well.
    """
    progress = Progress(as_json)
    try:
        ended, stopped = to_its_end(workspace, settings, store, run, progress, held)
    except KeyboardInterrupt:
        return _left(store.run(run.run_id), as_json)
    except (LilyError, OSError):  # told as of every command; whoever reads it must not take the run for one that was not accepted
        output.tell(f"run {run.run_id} was accepted: where it has not ended, `lily up` or the next `lily jobs run` takes it up")
        raise
    if ended.status not in TERMINAL:
        return _left(ended, as_json)
    return conclude(workspace, settings, store, ended, as_json=as_json, stopped=stopped)


def to_its_end(
    workspace: Workspace, settings: Settings, store: Store, run: Run, progress: Progress, held: Held | None = None
) -> tuple[Run, bool]:
    """The run as it ended, and whether Ctrl-C asked for that. A second Ctrl-C raises KeyboardInterrupt."""
    _tell_full(workspace, store, run)
    stopped, pause, owners = False, _LOOK_SECONDS, Owners(workspace)
    while True:
        try:
            if held is not None:
                held.release()
            found = _once(workspace, settings, store, run.run_id, progress, owners)
            if found is not None:
                return found, stopped or found.result.get("canceled", {}).get("by") == _BY_TERMINAL
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_SECONDS)
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            _ask_to_stop(workspace, store, run.run_id)


def _tell_full(workspace: Workspace, store: Store, run: Run) -> None:
    """Say what keeps it from starting where its job has all the runs that it may have: nothing comes of it until one of them ends."""
    found = holding(store, run.job_id)
    if current_owner(workspace) is None:
        found = [(run_id, status) for run_id, status in found if status != Status.RUNNING]  # left by an owner that is dead
    if not found or any(run_id == run.run_id for run_id, _ in found):
        return
    most = store.spec(run.spec_hash).runtime.max_parallel_runs
    if len(found) >= most:
        run_id, status = found[0]
        more = f" and {counted(len(found) - 1, 'other')}" if len(found) > 1 else ""
        output.tell(f"run {run.run_id} waits for {run_id}{more}, which {_HOLDS[status]}: its job may have {counted(most, 'run')} at a time")


def _once(workspace: Workspace, settings: Settings, store: Store, run_id: str, progress: Progress, owners: Owners) -> Run | None:
    """One try with whoever owns the workspace now; None when ownership changed meanwhile."""
    run = store.run(run_id)
    if run.status in TERMINAL and run.written:
        _tell_rest(workspace, run, progress)
        return run
    try:
        ended = f"the supervisor has ended; run {run_id} waits {RESTART_SECONDS:g} s for another one, and goes on here then"
        if (owner := owners.now(lambda: output.tell(ended))) is None:
            if run.status not in TERMINAL:  # it would wait here for whoever ends the pause, and keep every supervisor out
                check_taking(workspace, settings, store, stored=True)
            return _here(workspace, settings, run_id, progress)
        silent = f"{owner.process}, which owns the workspace, does not answer; run {run_id} is stored and waits for it: see `lily health`"
        for event in follow(workspace, run_id=run_id, from_seq=progress.last, silent=lambda: output.tell(silent)):
            progress.event(event)
        return store.run(run_id)
    except LilyError as error:
        if error.code not in (Code.SUPERVISOR_NOT_RUNNING, Code.OWNER_CONFLICT):
            raise
        if error.code is Code.OWNER_CONFLICT and current_owner(workspace) is None:  # one that nobody here can follow
            other = elsewhere(workspace, settings, store)
            kept = f"{error.message}; run {run_id} is stored and waits: {error.hint}"
            progress.waits(f"run {run_id} is stored, and another process takes it: {other}" if other else kept)
    return None


def _tell_rest(workspace: Workspace, run: Run, progress: Progress) -> None:
    """What nobody has told of it: it ended between two tries."""
    events = EventFile(workspace.run_dir(run.job_id, run.run_id))
    try:
        for line in events.lines():
            progress.event(msgspec.json.decode(line, type=dict[str, Any]))
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return  # whoever damaged it, or took it away, has ended the telling: the receipt is what counts
    finally:
        events.close()


def _here(workspace: Workspace, settings: Settings, run_id: str, progress: Progress) -> Run:
    with Held():  # what was imported by half would stay so, and the run goes on in this process
        import anyio._backends._trio  # noqa: F401 - what the loop is made of

        from actors.here import run_here

    return run_here(workspace, settings, run_id, progress.event)


def _ask_to_stop(workspace: Workspace, store: Store, run_id: str) -> None:
    output.tell("canceling; Ctrl-C again leaves it to the supervisor")
    try:
        cancel(workspace, store, run_id, by=actor(workspace, "run.cancel"), reason="Ctrl-C at the terminal")
    except LilyError as error:
        if error.code is not Code.RUN_STATE_INVALID:
            raise  # else it ended by itself meanwhile


def _left(run: Run, as_json: bool) -> int:
    if run.status in TERMINAL:
        said = f"run {run.run_id} is {run.status}; its artifacts are written by `lily up` or the next `lily jobs run`"
    else:
        said = f"run {run.run_id} has not ended ({run.status}); `lily up` or the next `lily jobs run` takes it up again"
    if as_json:
        output.put_json({"run": run_view(run)})
    output.tell(said)
    return exit_code(Code.INTERRUPTED)


def conclude(workspace: Workspace, settings: Settings, store: Store, run: Run, *, as_json: bool, stopped: bool) -> int:
    """Print the summary, or with --json the receipt, of a run that has ended; give the exit status."""
    receipt = read_receipt(workspace, run.job_id, run.run_id)
    if as_json:
        output.put_raw(msgspec.json.encode({"receipt": receipt}))
    else:
        _print_summary(workspace, run)
    if receipt is None:
        other = elsewhere(workspace, settings, store)
        why = f"its files are not in this workspace: {other}" if other else "its receipt can't be read; `lily up` writes it again"
        output.tell(f"run {run.run_id} is {run.status}, and {why}")
    elif not as_json:
        output.tell(_last_line(workspace, run, stopped))
    return status_of(run, receipt, stopped)


def _last_line(workspace: Workspace, run: Run, stopped: bool) -> str:
    """Where the files are; for a run that failed or was stopped, the one line of the error, which says it too."""
    error, files = run.error, f"files: {workspace.run_dir(run.job_id, run.run_id)}"
    if error is not None:
        own = f" ({error.blueprint_code})" if error.blueprint_code else ""
        return str(LilyError(Code(error.code), error.message + own, where=f"run {run.run_id}", hint=files))
    if stopped and run.status is Status.CANCELED:
        return str(LilyError(Code.INTERRUPTED, "Ctrl-C canceled the run", where=f"run {run.run_id}", hint=files))
    return files


def status_of(run: Run, receipt: Receipt | None, stopped: bool) -> int:
    """The exit status that the outcome stands for."""
    if run.status is Status.SUCCEEDED:
        return 0
    if run.status is Status.CANCELED:
        return exit_code(Code.INTERRUPTED) if stopped else 1
    error = receipt.error if receipt else run.error
    known = error is not None and error.code in Code.__members__.values()
    return exit_code(Code(error.code)) if error is not None and known else 1


def _print_summary(workspace: Workspace, run: Run) -> None:
    folder = workspace.run_dir(run.job_id, run.run_id)
    try:
        text = (folder / SUMMARY).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        text = f"{run.status}: run {run.run_id}"
    output.put_text(text)
