"""The processes that owned this workspace, and how far their files are known to have reached the disk. Everything blocks."""

import os
from contextlib import suppress

from sqlalchemy import ColumnElement, Connection, Engine, func, select, text, update
from sqlalchemy.exc import DBAPIError

from lily import __version__
from lily.clock import boot_id, process_start_ticks
from lily.errors import Code, LilyError
from lily.moves import Place
from lily.runs import TERMINAL
from lily.storage import schema
from lily.storage.artifacts import whole
from lily.storage.audit import Actor, Change, record
from lily.storage.database import PG_OWNER_LOCK, reading, store_errors, writing
from lily.storage.files import sync_disk
from lily.storage.kept import WRITERS
from lily.storage.poolers import backend, keeps_no_session, no_session
from lily.storage.receipt_chain import unchain
from lily.storage.store import Store
from lily.workspace import Workspace

_DESCRIPTORS, _DELETED = "/proc/self/fd", " (deleted)"  # of this process, and what stands behind the name of a file that was deleted
_SYNCED = "synced_through"  # lifecycle sequence up to which the artifacts survive a power cut


def last_boot(engine: Engine) -> str | None:
    """The boot id of the last owner; None where there was none. When it is not this boot's, a power cut may have damaged what was written
    last: that has to be looked for before this life begins, so that who is killed meanwhile leaves it to the next."""
    with reading(engine) as connection:
        return connection.execute(select(schema.life.c.boot).order_by(schema.life.c.started_at.desc()).limit(1)).scalar()


def begin_life(engine: Engine, place: Place, kind: str, at: str, by: Actor | None = None) -> None:
    """Record that this process owns the store now. A supervisor's start is audited for `by`.

    Raises `owner_conflict` while another supervisor lives: its lock file may have been deleted under it.
    """
    with writing(engine) as connection:
        _check_no_other(connection, place)
        connection.execute(
            schema.life.insert().values(
                life=place.life,
                kind=kind,
                pid=place.pid,
                start_ticks=process_start_ticks(place.pid),
                boot=boot_id(),
                host=place.host,
                version=__version__,
                started_at=at,
            )
        )
        if by is not None:
            record(connection, by, _started(connection, place), at)


def _started(connection: Connection, place: Place) -> Change:
    """A supervisor starts: after one that stopped, or in the place of one that never said that it did."""
    life = schema.life.c
    wanted = select(life.life, life.pid, life.started_at, life.ended_at).where(life.kind == "up", life.life != place.life)
    last = connection.execute(wanted.order_by(life.started_at.desc()).limit(1)).one_or_none()
    before = dict(last._mapping) if last is not None else None
    action = "supervisor.take_over" if last is not None and last.ended_at is None else "supervisor.start"
    after = {"life": place.life, "pid": place.pid, "host": place.host, "version": __version__}
    return Change(action=action, object=place.life, before=before, after=after)


def _check_no_other(connection: Connection, place: Place) -> None:
    life = schema.life.c
    wanted = select(life.pid, life.start_ticks, life.started_at).where(
        life.kind == "up", life.ended_at.is_(None), life.boot == boot_id(), life.host == place.host, life.pid != place.pid
    )
    for pid, ticks, since in connection.execute(wanted):
        if ticks is not None and process_start_ticks(pid) == ticks:
            raise LilyError(
                Code.OWNER_CONFLICT,
                f"this workspace is owned by pid {pid} (lily up, since {since}), whose lock in .lily/run was deleted",
                hint="end that process first; it can't be reached in any other way",
                pid=pid,
            )


def knows(engine: Engine, life: str) -> bool:
    """Whether this is the store that the life began with: another one, or an older copy, may have been put in its place."""
    with reading(engine) as connection:
        return connection.execute(select(schema.life.c.life).where(schema.life.c.life == life)).first() is not None


def log_of(engine: Engine) -> str:
    """Where SQLite has its log: beside the file itself, also where the store is a link to that."""
    return f"{os.path.realpath(engine.url.database or '')}-wal"


def fold_lost_log(engine: Engine) -> bool:
    """Whether somebody has deleted SQLite's log under this process. It goes on in a file without a name, which is gone with it: what is
    there is moved into the store."""
    if engine.dialect.name != "sqlite" or not _has_open(log_of(engine) + _DELETED):
        return False
    with writing(engine):  # on a connection that was there before: a new one would be given another log
        pass
    writers = WRITERS[engine]
    with store_errors(engine), writers.turn:
        if writers.connection is not None:
            writers.connection.exec_driver_sql("pragma wal_checkpoint(passive)").all()
    return True


def _has_open(link: str) -> bool:
    for number in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else ():
        with suppress(OSError):  # it was closed meanwhile
            if os.readlink(f"{_DESCRIPTORS}/{number}") == link:
                return True
    return False


def end_life(engine: Engine, life: str, at: str, by: Actor | None = None, reason: str = "") -> None:
    """Record that this process gave the store back. A supervisor's stop is audited for `by`, who asked for it."""
    with writing(engine) as connection:
        connection.execute(update(schema.life).where(schema.life.c.life == life).values(ended_at=at))
        if by is not None:
            before, after = {"life": life, "ended_at": None}, {"life": life, "ended_at": at}
            record(connection, by, Change(action="supervisor.stop", object=life, reason=reason, before=before, after=after), at)


def sync_files(store: Store, workspace: Workspace) -> int:
    """Flush the file system and remember how far; gives the sequence reached, or -1 where nothing was new."""
    with reading(store.engine) as connection:
        reached = connection.execute(select(func.max(schema.event.c.sequence))).scalar() or 0
        marked = _mark(connection)
        waiting = connection.execute(select(schema.run.c.run_id).where(_ended(), schema.run.c.written == 0).limit(1)).first()
    if reached <= marked or waiting is not None:
        return -1
    sync_disk(workspace.runs)
    insert = store.upserts(schema.meta)
    with writing(store.engine) as connection:
        put = insert.values(key=_SYNCED, value=str(reached))
        connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}))
    return reached


def damaged_by_power_cut(store: Store, workspace: Workspace) -> list[str]:
    """Terminal runs since the last sync mark whose artifacts are not whole, and those whose receipts follow them in their job's chain: what
    was lost changes a receipt, and with it every link to it. They are marked as owed again."""
    event, run = schema.event, schema.run
    with reading(store.engine) as connection:
        since = _mark(connection)
        wanted = select(event.c.run_id).where(event.c.sequence > since).distinct()
        chosen = select(run.c.run_id, run.c.receipt_sha256).where(run.c.run_id.in_(wanted), _ended(), run.c.written == 1)
        recent: dict[str, str | None] = dict(connection.execute(chosen).all())
    damaged = [run_id for run_id, digest in recent.items() if not whole(workspace, store.run(run_id), digest)]
    if not damaged:
        return []
    with writing(store.engine) as connection:
        return unchain(connection, damaged, recent)


def _ended() -> ColumnElement[bool]:
    return schema.run.c.status.in_([status.value for status in TERMINAL])


def _mark(connection: Connection) -> int:
    try:
        return int(connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == _SYNCED)).scalar() or 0)
    except ValueError:  # edited by hand: all are put on disk once more
        return 0


class AdvisoryLock:
    """On PostgreSQL: a lock of one session, so that two machines can't own one store. Nothing on SQLite: the file lock does."""

    def __init__(self, engine: Engine) -> None:
        """Raises `store_unavailable`."""
        self._backend = 0
        with store_errors(engine):
            self._connection = engine.connect() if engine.dialect.name == "postgresql" else None

    def acquire(self) -> bool:
        """Whether this session holds the lock now. Raises `store_unavailable`, and `config_invalid` where a pooler keeps no session for it:
        nothing is locked then."""
        if self._connection is None:
            return True
        engine = self._connection.engine
        with store_errors(engine):
            if keeps_no_session(engine, self._connection):
                raise no_session()
            wanted = text("select pg_try_advisory_lock(:key), pg_backend_pid()")
            held, self._backend = self._connection.execute(wanted, {"key": PG_OWNER_LOCK}).one()
            self._connection.commit()
        return bool(held)

    def held(self) -> bool:
        """Whether the session still lives. Raises what the driver raises when it does not, and `config_invalid` where it is another one."""
        if self._connection is not None and backend(self._connection) != self._backend:
            raise no_session()
        return True

    def release(self) -> None:
        """Give the lock back, and its session; the server may take a while to see that a session has gone."""
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.execute(text("select pg_advisory_unlock(:key)"), {"key": PG_OWNER_LOCK})
                self._connection.commit()
        self.leave()

    def leave(self) -> None:
        """Give the session back without asking the server for anything; its lock, if it had it, goes with it. Once is enough."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
