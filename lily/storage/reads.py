"""Reading the store: runs, their attempts, events and steps, pinned specs."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, Select, and_, or_, select

from lily.errors import Code, LilyError, is_spoilt, lacks_spec, lost_spec
from lily.runs import Attempt, Event, PinnedSpec, Run, Runtime, decode_spec
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.rows import NONSENSE, as_text, attempt_from, event_from, run_from, stand_in
from lily.storage.statements import Statements
from lily.text import one_line

_SPECS_REMEMBERED = 1000


class Spoilt(NamedTuple):
    """A run whose row was edited by hand into what no run can be, and why it can't be read. `row` is what its ids are in the store, which
    may be no text."""

    run_id: str
    row: tuple[Any, Any]
    error: LilyError


class Reads:
    """What can be asked of a store. All calls block."""

    engine: Engine
    statements: Statements

    def __init__(self) -> None:
        self._specs: dict[str, tuple[PinnedSpec, str]] = {}

    def steps(self, run_id: str) -> dict[str, Any]:
        """Results of the run's finished steps by name."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(schema.step.c.name, schema.step.c.value).where(schema.step.c.run_id == run_id))
            return {row.name: msgspec.json.decode(row.value) for row in rows}

    def known_spec(self, spec_hash: str) -> PinnedSpec | None:
        """The pinned spec with this hash if it was read before. Does not block."""
        known = self._specs.get(spec_hash)
        return known[0] if known else None

    def spec(self, spec_hash: str) -> PinnedSpec:
        """The pinned spec with this hash; remembered, because runs of one job share it. Raises `store_unavailable` where it is lost."""
        return self._pinned(spec_hash)[0]

    def spec_body(self, spec_hash: str) -> str:
        """The canonical JSON of a pinned spec. Raises `store_unavailable` where it is lost."""
        return self._pinned(spec_hash)[1]

    def _pinned(self, spec_hash: str) -> tuple[PinnedSpec, str]:
        known = self._specs.get(spec_hash)
        if known is None:
            with reading(self.engine) as connection:
                body = connection.execute(select(schema.spec.c.body).where(schema.spec.c.spec_hash == spec_hash)).scalar()
            if body is None:  # none is ever deleted: somebody else did, or changed what names it
                raise lost_spec(spec_hash)
            try:
                known = (decode_spec(body), body)
            except NONSENSE as exc:  # as good as lost
                raise lost_spec(spec_hash, one_line(exc)) from exc
            if len(self._specs) >= _SPECS_REMEMBERED:
                self._specs.clear()
            self._specs[spec_hash] = known
        return known

    def runtime(self, spec_hash: str) -> Runtime:
        """What the pinned spec says of how it is to be run; nothing where it is lost: its runs go back to the queue, and wait there."""
        try:
            return self.spec(spec_hash).runtime
        except LilyError as exc:
            if not lacks_spec(exc):
                raise
            return Runtime()

    def forget_specs(self, spec_hashes: Collection[str]) -> None:
        """Read these again when they are asked for: what was remembered may not be what is stored now."""
        for spec_hash in spec_hashes:
            self._specs.pop(spec_hash, None)

    def read_ahead(self, connection: Connection, spec_hashes: Collection[str]) -> None:
        """Remember these pinned specs, so that who asks for one by one need not wait; one that can't be read is left to who asks for it."""
        wanted = [spec_hash for spec_hash in spec_hashes if spec_hash not in self._specs][:_SPECS_REMEMBERED]
        if not wanted:
            return
        if len(self._specs) + len(wanted) > _SPECS_REMEMBERED:
            self._specs.clear()
        spec = schema.spec.c
        for spec_hash, body in connection.execute(select(spec.spec_hash, spec.body).where(spec.spec_hash.in_(wanted))):
            with suppress(msgspec.MsgspecError):
                self._specs[spec_hash] = decode_spec(body), body

    # -- what people ask --------------------------------------------------------------------------

    def find_run(self, run_id: str) -> Run | None:
        """One run with its attempts, or None. Raises LilyError (see `is_spoilt`) where its row can't be read."""
        with reading(self.engine) as connection:
            row = connection.execute(select(schema.run).where(schema.run.c.run_id == run_id)).one_or_none()
            return None if row is None else self.with_attempts(connection, [run_from(row)])[0]

    def run(self, run_id: str) -> Run:
        """One run with its attempts. Raises `run_not_found`."""
        found = self.find_run(run_id)
        if found is None:
            raise LilyError(Code.RUN_NOT_FOUND, f"no run {run_id!r}", hint="see `lily runs list`")
        return found

    def find(self, text: str) -> Run:
        """The run whose id is `text`, or begins or ends with it when that is unique. Raises `run_not_found`."""
        return self.run(self.find_id(text))

    def find_id(self, text: str) -> str:
        """Its id alone, for who asks what its row says. Raises `run_not_found`."""
        if not re.fullmatch(r"[0-9A-Za-z.-]{1,64}", text):
            raise LilyError(Code.RUN_NOT_FOUND, f"{text!r} can't be a run id", hint="see `lily runs list`")
        c = schema.run.c.run_id
        end = f"-{text.lower()}"  # which has no capitals: SQLite's LIKE takes them for small letters, PostgreSQL's does not
        with reading(self.engine) as connection:
            exact = connection.execute(select(c).where(c == text)).scalar()
            found = (
                [exact]
                if exact
                else list(connection.execute(select(c).where(or_(and_(c >= text, c < text + "~"), c.endswith(end))).limit(2)).scalars())
            )
        if len(found) != 1:
            said = "more than one run fits" if found else "no run"
            raise LilyError(Code.RUN_NOT_FOUND, f"{said} {text!r}", hint="see `lily runs list`")
        run_id: str = found[0]
        return run_id

    def runs(
        self,
        *,
        job_id: str | None = None,
        statuses: Collection[str] = (),
        since: str | None = None,
        before: str | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """Newest first, with those whose rows can't be read, of which the error says so. `since` and `before` bound the run ids' time
        part: 20260504T041500 and the like."""
        c = schema.run.c
        wanted: Select[Any] = select(schema.run).order_by(c.run_id.desc()).limit(limit)
        if job_id is not None:
            wanted = wanted.where(c.job_id == job_id)
        if statuses:
            wanted = wanted.where(c.status.in_(list(statuses)))
        if since is not None:
            wanted = wanted.where(c.run_id >= since)
        if before is not None:
            wanted = wanted.where(c.run_id < before)
        with reading(self.engine) as connection:
            return self.shown(connection, connection.execute(wanted).all())

    def job_ids(self) -> list[str]:
        """Jobs that have runs, by name."""
        with reading(self.engine) as connection:
            return list(connection.execute(select(schema.run.c.job_id).distinct().order_by(schema.run.c.job_id)).scalars())

    def every_run(self, job_id: str) -> Iterator[Run]:
        """All runs of a job, newest first, read page by page."""
        before: str | None = None
        while page := self.runs(job_id=job_id, before=before, limit=1000):
            yield from page
            before = page[-1].run_id

    def counts(self) -> dict[str, int]:
        """Runs by status; statuses without any are left out."""
        with reading(self.engine) as connection:
            tally = schema.tally.c
            return {row[0]: row[1] for row in connection.execute(select(tally.status, tally.runs).where(tally.runs > 0))}

    def events(self, run_id: str) -> list[Event]:
        """The run's lifecycle events in order. Raises LilyError (see `is_spoilt`) where one can't be read."""
        with reading(self.engine) as connection:
            return [event_from(row) for row in connection.execute(self.statements.events_of, {"run_id": run_id})]

    def with_attempts(self, connection: Connection, runs: list[Run]) -> list[Run]:
        """The same runs, each with its attempts."""
        wanted = [run.run_id for run in runs if run.started_at is not None]
        if wanted:
            of: dict[str, list[Attempt]] = {}
            for row in connection.execute(self.statements.attempts_of, {"ids": wanted}):
                of.setdefault(row.run_id, []).append(attempt_from(row))
            for run in runs:
                run.attempts = of.get(run.run_id, [])
        return runs

    def sound(self, connection: Connection, rows: Sequence[Any], spoilt: list[Spoilt] | None = None) -> list[Run]:
        """The runs of these rows of `select(schema.run)`, with their attempts. One that was edited by hand hides no other: it is left
        out, and `spoilt` gets it."""
        found, left = self._told_apart(connection, rows)
        if spoilt is not None:
            spoilt += [Spoilt(as_text(row[0]), (row[0], row[1]), error) for row, error in left.values()]
        return [run for run in found if run is not None]

    def shown(self, connection: Connection, rows: Sequence[Any]) -> list[Run]:
        """The same for lists: one that can't be read says so in its place."""
        found, left = self._told_apart(connection, rows)
        return [run or stand_in(left[n][0], str(left[n][1].detail["why"])) for n, run in enumerate(found)]

    def _told_apart(self, connection: Connection, rows: Sequence[Any]) -> tuple[list[Run | None], dict[int, tuple[Any, LilyError]]]:
        found: list[Run | None] = []
        left: dict[int, tuple[Any, LilyError]] = {}
        for n, row in enumerate(rows):
            try:
                found.append(run_from(row))
            except LilyError as exc:
                found.append(None)
                left[n] = row, exc
        try:
            self.with_attempts(connection, [run for run in found if run is not None])
        except LilyError as exc:
            if not is_spoilt(exc):
                raise
            for n, run in enumerate(found):  # only here one by one, for that is a statement each
                try:
                    self.with_attempts(connection, [run] if run is not None else [])
                except LilyError as error:
                    if not is_spoilt(error):
                        raise
                    found[n] = None
                    left[n] = rows[n], error
        return found, left
