"""Dead letters in the store: reading them, and taking them out with what comes of each, in one transaction."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, bindparam, func, select, update

from lily.batched import batched
from lily.dead_letters import Cause, DeadLetter, Group
from lily.errors import Code, LilyError
from lily.runs import Attempt, Run
from lily.storage import schema
from lily.storage.audit import Actor, Change, record, record_all
from lily.storage.database import reading, writing
from lily.storage.letter_box import AT_ONCE, Pruned
from lily.storage.statements import ForRows
from lily.storage.store import Store

_box = schema.dead_letter.c
_LISTED = (_box.run_id, _box.job_id, _box.added_at, _box.code, _box.reason, _box.fingerprint, _box.cause)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; `match` is text that the last error has in it, whatever its case. Without any: all."""

    job_id: str | None = None
    cause: str | None = None
    fingerprint: str | None = None
    match: str | None = None

    def narrow(self, wanted: Select[Any]) -> Select[Any]:
        """The same query for those alone."""
        for column, value in ((_box.job_id, self.job_id), (_box.cause, self.cause), (_box.fingerprint, self.fingerprint)):
            if value is not None:
                wanted = wanted.where(column == value)
        return wanted if self.match is None else wanted.where(_box.reason.icontains(self.match, autoescape=True))


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """What a retry needs to know of a dead letter."""

    run_id: str
    job_id: str
    spec_hash: str
    key: str | None


class Letters:
    """The dead letters of one store. All calls block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        run = schema.run
        self._retried = ForRows(
            update(run).where(run.c.run_id == bindparam("b_run_id")).values(retried_as=bindparam("b_new")), ["b_new", "b_run_id"]
        )

    def keep_at_most(self, most: int) -> None:
        """So many from now on: the next one that comes sends the oldest away."""
        self._store.letters.most = most

    # -- reading ----------------------------------------------------------------------------------

    def count(self) -> int:
        """How many there are."""
        with reading(self._store.engine) as connection:
            return self._store.letters.count(connection)

    def newest(self, which: Filter, limit: int) -> list[DeadLetter]:
        """The newest first, without their attempts."""
        wanted = which.narrow(select(*_LISTED)).order_by(_box.added_at.desc(), _box.run_id.desc()).limit(limit)
        with reading(self._store.engine) as connection:
            return [_letter(row) for row in connection.execute(wanted)]

    def ids(self, which: Filter, limit: int | None = None) -> list[str]:
        """Their run ids, the oldest first."""
        wanted = which.narrow(select(_box.run_id)).order_by(_box.added_at, _box.run_id).limit(limit)
        with reading(self._store.engine) as connection:
            return list(connection.execute(wanted).scalars())

    def find(self, run_id: str) -> DeadLetter | None:
        """One with its attempts; None when the run is no dead letter, or not any more."""
        with reading(self._store.engine) as connection:
            row = connection.execute(select(*_LISTED, _box.attempts).where(_box.run_id == run_id)).one_or_none()
            return None if row is None else _letter(row, msgspec.json.decode(row.attempts, type=list[Attempt]))

    def groups(self) -> list[Group]:
        """All of them by fingerprint and cause, the largest first."""
        newest = func.max(_box.run_id)
        wanted = (
            select(
                _box.fingerprint,
                _box.cause,
                func.count().label("n"),
                func.count(_box.job_id.distinct()),
                func.min(_box.added_at),
                func.max(_box.added_at),
                newest,
            )
            .group_by(_box.fingerprint, _box.cause)
            .order_by(func.count().desc(), newest.desc())
        )
        with reading(self._store.engine) as connection:
            rows = connection.execute(wanted).all()
            said = self._said(connection, [row[6] for row in rows])
        return [
            Group(
                fingerprint=row[0],
                cause=Cause(row[1]),
                code=said[row[6]][0],
                count=row[2],
                jobs=row[3],
                first_at=row[4],
                last_at=row[5],
                example=row[6],
                reason=said[row[6]][1],
            )
            for row in rows
        ]

    def _said(self, connection: Connection, run_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for some in batched(run_ids, AT_ONCE):
            rows = connection.execute(select(_box.run_id, _box.code, _box.reason).where(_box.run_id.in_(some)))
            found |= {row.run_id: (row.code, row.reason) for row in rows}
        return found

    def owed(self, run_ids: Sequence[str]) -> dict[str, Owed]:
        """Those of these runs that are dead letters, by their ids."""
        run = schema.run.c
        found: dict[str, Owed] = {}
        for some in batched(run_ids, AT_ONCE):
            wanted = select(run.run_id, run.job_id, run.spec_hash, run.key).where(run.run_id == _box.run_id, _box.run_id.in_(some))
            with reading(self._store.engine) as connection:
                for row in connection.execute(wanted):
                    found[row.run_id] = Owed(run_id=row.run_id, job_id=row.job_id, spec_hash=row.spec_hash, key=row.key)
        return found

    def retried(self, run_ids: Collection[str]) -> dict[str, str]:
        """What these runs were retried as, where they were."""
        run = schema.run.c
        found: dict[str, str] = {}
        for some in batched(run_ids, AT_ONCE):
            with reading(self._store.engine) as connection:
                wanted = select(run.run_id, run.retried_as).where(run.run_id.in_(some), run.retried_as.is_not(None))
                found |= {row.run_id: row.retried_as for row in connection.execute(wanted)}
        return found

    # -- taking out -------------------------------------------------------------------------------

    def retry(self, connection: Connection, pairs: Sequence[tuple[str, Run]], actor: Actor, reason: str, at: str) -> None:
        """Put each new run in the place of its dead letter, inside the transaction that stores the run.

        Raises `dead_letter_not_found` where somebody else was faster, `run_state_invalid` where a key gave a run that was there before.
        """
        for old, run in pairs:
            if run.lineage.get("retried_from") != old:
                raise LilyError(
                    Code.RUN_STATE_INVALID,
                    f"its key {run.key!r} belongs to run {run.run_id}, which has not ended",
                    where=f"run {old}",
                    hint="that run does the same work; retry this one when it has ended",
                )
        ids = [old for old, _ in pairs]
        if self._store.letters.drop(connection, ids) != len(ids):
            raise gone(ids[0])
        self._retried(connection, [{"b_run_id": old, "b_new": run.run_id} for old, run in pairs])
        changes = [
            Change(
                action="dead_letter.retry",
                object=old,
                job_id=run.job_id,
                reason=reason,
                trace_id=run.trace_id,
                before={"retried_as": None},
                after={"retried_as": run.run_id, "spec": run.lineage.get("spec"), "spec_hash": run.spec_hash},
            )
            for old, run in pairs
        ]
        record_all(connection, actor, changes, at)

    def clear(self, run_ids: Sequence[str], actor: Actor, reason: str, at: str) -> list[str]:
        """Take out those of these that are there; gives their ids. The runs and their files stay."""
        cleared: list[str] = []
        for some in batched(run_ids, AT_ONCE):
            with writing(self._store.engine) as connection:
                run = schema.run.c
                wanted = select(*_LISTED, run.trace_id).where(_box.run_id.in_(some), run.run_id == _box.run_id)
                rows = connection.execute(wanted.order_by(_box.added_at, _box.run_id)).all()
                self._store.letters.drop(connection, [row.run_id for row in rows])
                record_all(connection, actor, [_cleared(row, reason) for row in rows], at)
                cleared += [row.run_id for row in rows]
        return cleared

    def prune(self, before: str, at: str, actor: Actor, reason: str = "") -> list[Pruned]:
        """Take out what was added before a stamp, and what is more than the maximum: some at a time, so that nobody waits long.

        Each time is audited, and each entry that goes has an event.
        """
        gone: list[Pruned] = []
        with writing(self._store.engine) as connection:
            self._store.letters.recount(connection)
        while True:
            with writing(self._store.engine) as connection:
                box = self._store.letters
                went = box.expire(connection, before, at) or box.fit(connection, at)
                if went:
                    gone_now = {"runs": [each.run_id for each in went], "why": dict(Counter(each.reason for each in went))}
                    after = {"left": box.count(connection), "kept_since": before}
                    record(connection, actor, Change(action="dead_letter.prune", reason=reason, before=gone_now, after=after), at)
            if not went:
                return gone
            gone += went

    def prunable(self, before: str) -> list[Pruned]:
        """What `prune` would take out."""
        wanted = select(_box.run_id, _box.job_id, _box.added_at).order_by(_box.added_at, _box.run_id)
        with reading(self._store.engine) as connection:
            total = connection.execute(select(func.count()).select_from(schema.dead_letter)).scalar() or 0
            old = connection.execute(wanted.where(_box.added_at < before)).all()
            over = max(0, total - len(old) - self._store.letters.most)
            more = connection.execute(wanted.where(_box.added_at >= before).limit(over)).all() if over else []
        return [Pruned(run_id=row[0], job_id=row[1], reason="retention") for row in old] + [
            Pruned(run_id=row[0], job_id=row[1], reason="max_entries") for row in more
        ]


def gone(run_id: str, retried_as: str | None = None) -> LilyError:
    """The error for a run that is no dead letter, or not any more: then as what it was retried, where it was."""
    return LilyError(
        Code.DEAD_LETTER_NOT_FOUND,
        "this run is not among the dead letters" + (f" any more: it was retried as {retried_as}" if retried_as else ""),
        where=f"run {run_id}",
        hint="`lily dlq list` has those that are",
    )


def _cleared(row: Any, reason: str) -> Change:
    before = {"added_at": row.added_at, "code": row.code, "reason": row.reason, "fingerprint": row.fingerprint, "cause": row.cause}
    return Change(action="dead_letter.clear", object=row.run_id, job_id=row.job_id, reason=reason, trace_id=row.trace_id, before=before)


def _letter(row: Any, attempts: list[Attempt] | None = None) -> DeadLetter:
    return DeadLetter(
        run_id=row.run_id,
        job_id=row.job_id,
        added_at=row.added_at,
        code=row.code,
        reason=row.reason,
        fingerprint=row.fingerprint,
        cause=Cause(row.cause),
        attempts=attempts or [],
    )
