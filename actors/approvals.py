"""Runs that wait for a person: warned once, expired when their time is up, and looked for at GitHub, all off the runner's path.

The store is asked when a run begins to wait, when something is due, and every so often anyway, because the wall clock may have jumped.
Nothing is held here that the store does not know.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

import anyio
import anyio.abc

from actors.mailbox import Mailbox
from actors.messages import Apply, Reply, WriterMessage
from lily.approvals.gh import GhError, GitHub
from lily.approvals.labels import Issue, Label
from lily.approvals.record import Approval, pending
from lily.clock import Clock, parse_stamp
from lily.errors import Code, LilyError
from lily.faults import Faults, no_faults
from lily.identity import SUPERVISOR
from lily.log import Log
from lily.moves import expire, warn_expiring
from lily.offload import Offload
from lily.operations.approvals import issue_of, looked_after, next_look, note_failure, take_labels
from lily.runs import Move, Status
from lily.settings import Approval as Terms
from lily.storage.approvals import Waiting, waiting
from lily.storage.store import Store
from lily.workspace import Workspace

LOOK_SECONDS = 10.0  # between looks at the clock while something waits
STORE_RETRY_SECONDS = 2.0
AT_ONCE = 4  # programs that ask GitHub at the same time


class Approvals:
    """Only a decision that the store holds releases a run; what can't be asked decides nothing."""

    def __init__(
        self,
        writer: Mailbox[WriterMessage],
        *,
        workspace: Workspace,
        store: Store,
        github: GitHub,
        terms: Terms,
        offload: Offload,
        clock: Clock,
        log: Log,
        released: Callable[[], None],
        fault: Faults = no_faults,
    ) -> None:
        """`released` is called after a run was moved, so that the runner looks at once."""
        self._writer, self._workspace, self._store = writer, workspace, store
        self.terms = terms  # may be changed
        self._github, self._offload = github, offload
        self._clock, self._log, self._released, self._fault = clock, log, released, fault
        self._wake = anyio.Event()
        self._asking: set[Issue] = set()

    def ring(self) -> None:
        """A run may have begun to wait."""
        self._wake.set()

    async def run(self) -> None:
        """Until canceled, or until nobody writes any more."""
        self._asking.clear()
        limiter = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake = anyio.Event()
                try:
                    pause = await self._look(tasks, limiter)
                except LilyError as exc:
                    self._log.error("waiting approvals can't be read; trying again", error=str(exc))
                    pause = STORE_RETRY_SECONDS
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    break  # the writer has ended
                with anyio.move_on_after(pause):
                    await self._wake.wait()
            tasks.cancel_scope.cancel()

    async def _look(self, tasks: anyio.abc.TaskGroup, limiter: anyio.CapacityLimiter) -> float | None:
        """Do what is due; gives the seconds until something is due next, None while nothing waits."""
        self._fault("approvals:before-look")
        found = await self._offload(waiting, self._store)
        now, due, ask = self._clock.now(), list[datetime](), dict[Issue, list[Waiting]]()
        for each in found:
            approval = pending(each.run)
            if approval is None:
                continue
            issue = issue_of(approval, self.terms.repository)
            if issue is not None and issue not in self._asking:
                at = next_look(each, approval)
                if at is None or at <= now:
                    ask.setdefault(issue, []).append(each)
                else:
                    due.append(at)
            due += await self._by_the_clock(each, approval, issue, now)
        for issue, runs in ask.items():
            self._asking.add(issue)
            tasks.start_soon(self._ask, issue, runs, limiter)
        if not found:
            return None
        return max(0.0, min([LOOK_SECONDS, *((at - now).total_seconds() for at in due)]))

    # -- the clock --------------------------------------------------------------------------------

    async def _by_the_clock(self, each: Waiting, approval: Approval, issue: Issue | None, now: datetime) -> list[datetime]:
        """Warn, or expire; gives when this is due."""
        run, expires = each.run, approval.expires_at
        if expires is not None and parse_stamp(expires) <= now:
            # Somebody may have agreed in time where nobody has looked since.
            asked, why_not = looked_after(each, approval) if issue is not None else (True, "")
            if asked:
                self._fault("approvals:before-expire")
                await self._apply(expire(run, approval, now, why_not))
            return []
        if approval.warn_at is not None and not approval.warned:
            if parse_stamp(approval.warn_at) > now:
                return [parse_stamp(approval.warn_at)]
            self._fault("approvals:before-warn")
            await self._apply(warn_expiring(run, approval, now))
        return [parse_stamp(expires)] if expires is not None else []

    async def _apply(self, move: Move) -> None:
        reply: Reply[Status | None] = Reply()
        await self._writer.tell(Apply(move, reply))
        refusal = await reply.wait()  # somebody decided meanwhile: then that holds
        if refusal is None and move.run.status is not Status.WAITING_APPROVAL:
            self._released()

    # -- GitHub -----------------------------------------------------------------------------------

    async def _ask(self, issue: Issue, runs: list[Waiting], limiter: anyio.CapacityLimiter) -> None:
        """One look at an issue, for all runs that name it."""
        try:
            async with limiter:
                began = self._clock.now()
                answer = await self._answer(issue)
            self._fault("approvals:asked")
            for each in runs:
                if isinstance(answer, GhError):
                    await self._note(each, str(answer), began)
                else:
                    await self._take(each, answer, began)
        except LilyError as exc:
            self._log.error("what an issue says can't be stored; trying again", issue=issue.number, error=str(exc))
            await anyio.sleep(STORE_RETRY_SECONDS)
        finally:
            self._asking.discard(issue)
            self.ring()

    async def _answer(self, issue: Issue) -> list[Label] | GhError:
        try:
            return await self._github.labels(issue)
        except GhError as exc:
            return exc

    async def _take(self, each: Waiting, labels: list[Label], began: datetime) -> None:
        run, poll = each.run, self.terms.poll_seconds
        take = partial(take_labels, began=began, poll_seconds=poll, looker=SUPERVISOR, clock=self._clock)
        try:
            verdict = await self._offload(take, self._workspace, self._store, run, labels)
        except LilyError as exc:
            if exc.code is not Code.RUN_STATE_INVALID:
                raise
            return  # decided meanwhile by another way
        if verdict.decision is not None:
            self._released()
        before = each.check.error if each.check else ""
        said = "; ".join(verdict.ignored)
        if said and said != before:
            self._log.warning("a label does not count", run=run.run_id, trace=run.trace_id, issue=_issue_of(each), why=said)

    async def _note(self, each: Waiting, error: str, began: datetime) -> None:
        note = partial(note_failure, began=began, poll_seconds=self.terms.poll_seconds, clock=self._clock)
        check = await self._offload(note, self._store, each, error)
        self._log.warning(
            "the issue of an approval can't be looked at; the run goes on waiting",
            run=each.run.run_id,
            trace=each.run.trace_id,
            issue=_issue_of(each),
            error=error,
            failures=check.failures,
            next_look=check.next_at,
        )


def _issue_of(each: Waiting) -> str:
    """The issue as the job names it."""
    approval = pending(each.run)
    return approval.issue or "" if approval is not None else ""
