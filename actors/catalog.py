"""What the spec loader found, told in the log: jobs that are there, and files that are wrong."""

from actors.mailbox import Mailbox
from actors.messages import BridgeMessage, SpecFact, SpecLoaded, SpecRejected, SpecRemoved, SpecsRead
from lily.log import Log

_NAMED = 20  # so many are named one by one in a batch; of more only the number is said


class Catalog:
    """Follows the specs, and passes on what it was told."""

    def __init__(self, mailbox: Mailbox[SpecFact], *, log: Log, then: Mailbox[BridgeMessage] | None = None) -> None:
        self.mailbox, self._log, self._then = mailbox, log, then
        self.jobs = 0
        self._known: set[str] = set()

    async def run(self) -> None:
        """Until the mailbox is closed."""
        async for batch, _ in self.mailbox.batches():
            if self._then is not None:
                for fact in batch:
                    self._then.post(fact)
            self._tell_loaded([fact for fact in batch if isinstance(fact, SpecLoaded)])
            for fact in batch:
                match fact:
                    case SpecRemoved(job_id):
                        self._known.discard(job_id)
                        self._log.info("job is gone", job=job_id)
                    case SpecRejected():
                        self._tell_rejected(fact)
                    case SpecLoaded() | SpecsRead():
                        pass
            self.jobs = len(self._known)

    def _tell_loaded(self, facts: list[SpecLoaded]) -> None:
        changed = [fact.entry for fact in facts]
        for entry in changed[:_NAMED]:
            self._log.info("job changed" if entry.id in self._known else "job found", job=entry.id, path=entry.path)
        if len(changed) > _NAMED:
            self._log.info("more jobs found or changed", jobs=len(changed) - _NAMED)
        self._known.update(entry.id for entry in changed)

    def _tell_rejected(self, fact: SpecRejected) -> None:
        first = fact.diagnostics[0]
        where = f"{first.path}:{first.line}:{first.column}"
        self._log.warning("job file is not valid", path=where, code=first.code, why=first.message, more=len(fact.diagnostics) - 1)
