"""Engines for SQLite and PostgreSQL, and transactions that mean what they say."""

import errno
import logging
import os
import re
import shutil
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import URL, Connection, Engine, RootTransaction, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as NoneFree

from lily.addresses import passwords_in, without_passwords, wrong_store
from lily.errors import Code, LilyError
from lily.redaction import Redactor
from lily.storage.kept import READERS, WRITERS, Writers
from lily.storage.kept import close_engine as close_engine
from lily.storage.kept import on_commit as on_commit
from lily.storage.poolers import no_session

BUSY_SECONDS = 15.0  # how long one process waits for another to let go of SQLite
_DAMAGED = ("malformed", "not a database")  # as SQLite says it
_PG_DISK_FULL = "53100"
_PG_READ_ONLY = "25006"
_PG_NOT_PREPARED = ("26000", "42P05")  # what was prepared is not there, or something else is: another session answers
_KEPT = {"lily_kept": True}  # of a connection whose transactions SQLAlchemy neither begins nor ends
FILE = "lily_file"  # in a connection's `info`: path and identity of SQLite's file when it was opened
_PAGES = 65_536  # bytes that a transaction, its log and the log's index may need
# What libpq is told, in seconds and, the last, milliseconds: a connection that says nothing is asked after half a minute, and given up when
# three questions, or something sent, get no answer in as long. A server that works on something long does answer: its system does.
_SILENCE = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}
# Any two transactions that hand out run ids or sequence numbers wait for each other on PostgreSQL, as they do on SQLite.
_PG_TRANSACTION_LOCK = 0x4C694C79
PG_OWNER_LOCK = 0x4C694C7A
_UNHEARD = logging.NullHandler()


def open_engine(url: str, *, database_file: Path) -> Engine:
    """An engine for `url`, or for the embedded database at `database_file` when `url` is empty.

    Raises `store_unavailable` when the database can't be reached, `config_invalid` for a URL of another kind.
    """
    path = sqlite_path(url, database_file)
    if path is not None:
        return _sqlite_engine(path)
    wrong = wrong_store(url)
    if wrong is not None:
        raise LilyError(Code.CONFIG_INVALID, f"store.url {wrong[0]}", where="store.url", hint=wrong[1])
    logging.getLogger("psycopg").addHandler(_UNHEARD)  # what it would say on stderr of a connection that breaks is told by its errors
    try:
        address = re.sub(r"^postgres(ql)?(\+psycopg)?", "postgresql+psycopg", url)
        # A server's own default may be stricter: who waited for the transaction lock would then see what was there before it waited.
        told = {"isolation_level": "READ COMMITTED", "connect_args": _server_settings(address)}
        engine = create_engine(address, pool_size=5, pool_pre_ping=True, **told)
    except ModuleNotFoundError:
        raise LilyError(
            Code.STORE_UNAVAILABLE, "store.url names PostgreSQL, and its driver is not installed", hint="pip install 'lily-jobs[postgres]'"
        ) from None
    event.listen(engine, "connect", _have_it_sync)
    return engine


def _have_it_sync(connection: Any, _record: Any) -> None:
    """Where the role or the database is content with less, a server that crashes would lose what was accepted."""
    connection.autocommit = True  # one question in place of three
    connection.execute("select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'")
    connection.autocommit = False


def _server_settings(address: str) -> dict[str, Any]:
    """How to speak to a server: in UTF-8, whatever the database's own, and not for ever to a network that lets everything vanish. What the
    address says of it itself is left as it is."""
    said = make_url(address).query
    return {"client_encoding": "utf8", **{name: value for name, value in _SILENCE.items() if name not in said}}


def sqlite_path(url: str, database_file: Path) -> Path | None:
    """SQLite's file; None on a server. A relative one begins at the workspace to which `database_file` belongs, wherever a command is
    given: from elsewhere it would be another store."""
    if not url:
        return database_file
    return database_file.parent.parent / url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else None


def shown_url(engine: Engine) -> str:
    """Where the store is, without passwords."""
    return without_passwords(engine.url.render_as_string(hide_password=True))


def said_by(engine: Engine, exc: BaseException) -> str:
    """The first line of a driver's error, without passwords."""
    text = str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]
    url = engine.url.render_as_string(hide_password=False)
    return Redactor(passwords_in(url, setting=True)).text(text) if engine.url.password or "password" in url else text


def _sqlite_engine(path: Path) -> Engine:
    check_log(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never opened when it is there: closing any descriptor of it would drop the locks that SQLite holds in this process,
        # and another process could then take the log of changes away.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as exc:
        raise unavailable(exc, str(path), said=str(exc)) from None
    # No reset when a connection is given back: whoever takes one ends the transaction that it begins.
    url = URL.create("sqlite", database=str(path))  # as text, the %20 or ? of a folder's name would mean something, and another file
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS}, pool_reset_on_return=None)
    place = os.path.abspath(path)

    @event.listens_for(engine, "do_connect")
    def _note_file(_dialect: Any, record: Any, _cargs: Any, _cparams: Any) -> None:
        identity = _identity(place)
        if identity is None:  # it would be made anew, and empty
            raise sqlite3.OperationalError("its file is gone")
        record.info[FILE] = place, identity  # as before it is opened: one that is put there meanwhile is opened once more

    @event.listens_for(engine, "checkout")
    def _look_at_file(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info[FILE] != (place, _identity(place)):
            raise DisconnectionError  # to the pool, which opens it again

    @event.listens_for(engine, "connect")
    def _settle(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.create_function("lower", 1, str.lower, deterministic=True)  # SQLite's own knows no letters beyond ASCII
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("pragma synchronous=full")
        cursor.close()

    @event.listens_for(engine, "handle_error")
    def _stay_open(context: Any) -> None:  # at Ctrl-C: a connection that is closed under its statement goes on holding its locks
        context.is_disconnect &= isinstance(context.original_exception, Exception)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if "lily_kept" not in connection.get_execution_options():
            connection.exec_driver_sql("begin")

    return engine


def check_log(path: Path) -> None:
    """Raises `store_unavailable` for a log without its store: whoever opens that file, be it to read, has SQLite throw the log away."""
    # In this order: a log that is in use has had its file before it.
    if _size(f"{path}-wal") and not _size(path):
        raise LilyError(
            Code.STORE_UNAVAILABLE,
            "the store's file is gone or empty, and its log is there, which SQLite would throw away",
            where=str(path),
            hint="put the file back, or `lily doctor --repair` moves the log aside and makes a store of what the receipts say",
        )


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_replaced(connection: Connection) -> bool:
    """Whether another file stands in the place of the one that it has open: a restored one, say. What is written here would be lost."""
    name, identity = connection.info.get(FILE, ("", None))
    return bool(name) and _identity(name) != identity


def _usable(connection: Connection | None) -> Connection | None:
    if connection is None or connection.closed or connection.invalidated:
        return None
    if _is_replaced(connection):
        connection.close()
        return None
    return connection


def _write_ahead(cursor: Any) -> None:
    """Have the database log ahead. Changing that needs it alone, and SQLite's own patience does not cover it: several may be first."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def unavailable(exc: BaseException, where: str, path: str | None = None, said: str = "") -> LilyError:
    """`store_unavailable` or `disk_full`, in one line, for what a driver or the system raised: it, or what may be `said` of it.
    `config_invalid` where a pooler did it."""
    driver = getattr(exc, "orig", None) or exc
    said = said or str(driver).strip().splitlines()[0]
    full = "database or disk is full" in said or _sqlstate(exc) == _PG_DISK_FULL
    if full or getattr(exc, "errno", None) == errno.ENOSPC or _is_full(path):
        return LilyError(Code.DISK_FULL, f"the disk is full: {said}", where=where, hint="free some space and try again; nothing was stored")
    if _sqlstate(exc) in _PG_NOT_PREPARED:
        return no_session()
    hint = "`lily doctor` says what is wrong with it, and what mends it"
    more = {"damaged": True} if any(sign in said for sign in _DAMAGED) else {}
    return LilyError(Code.STORE_UNAVAILABLE, f"the store can't be used: {said}", where=where, hint=hint, **more)


def _sqlstate(exc: BaseException | None) -> str | None:
    """PostgreSQL's code of an error, whoever raises it."""
    return getattr(getattr(exc, "orig", None) or exc, "sqlstate", None)


def is_damage(error: BaseException) -> bool:
    """Whether the store itself is broken: no later try will do, and each write may make it worse."""
    return isinstance(error, LilyError) and error.detail.get("damaged") is True


def _is_full(path: str | None) -> bool:
    """Whether the disk of SQLite's file is full: it has many names for that."""
    if path is None:
        return False
    try:
        return shutil.disk_usage(os.path.dirname(path)).free < _PAGES
    except OSError:
        return False


def _told(engine: Engine, exc: BaseException) -> LilyError | None:
    """What the database's own error is to a person; None for an error of somebody else."""
    # Statements that go straight to the driver raise its own; where all connections are busy for long, the pool says so.
    if not isinstance(exc, (DBAPIError, NoneFree, engine.dialect.loaded_dbapi.Error)):
        return None
    path = engine.url.database if engine.dialect.name == "sqlite" else None
    return unavailable(exc, shown_url(engine), path, said_by(engine, exc))


def _asked_for(exc: BaseException) -> LilyError | None:
    """What is wrong with what was looked for: an id or a word of which no row can have any, because UTF-8 can't hold it."""
    if not isinstance(exc, UnicodeEncodeError):
        return None
    return LilyError(Code.USAGE, f"{exc.object!r:.100} is not UTF-8 text", hint="nothing has such a name")


@contextmanager
def store_errors(engine: Engine) -> Iterator[None]:
    """Turns the driver's errors into `store_unavailable` or `disk_full`, in one line."""
    try:
        yield
    except Exception as exc:
        told = _told(engine, exc)
        if told is None:
            raise
        raise told from exc


class _Straight:
    """A transaction of SQLite's on a connection that SQLAlchemy takes to be in one for good: it does more for each than SQLite does.

    One that can't be committed is taken back when its connection is closed.
    """

    def __init__(self, connection: Connection, begin: str) -> None:
        if not connection.in_transaction():
            connection.begin()
        driver: Any = connection.connection.driver_connection
        self._driver = driver
        driver.execute(begin)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if exc is None:
            self._driver.commit()
        else:
            self._driver.rollback()


def _transaction(connection: Connection, *, writes: bool) -> _Straight | RootTransaction:
    if connection.dialect.name == "sqlite":
        return _Straight(connection, "begin immediate" if writes else "begin")
    transaction = connection.begin()
    if writes:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_PG_TRANSACTION_LOCK})")
    return transaction


class _Transaction(ABC):
    """One transaction on a connection that is kept for such. No generator, because that and those that it would need take as long as a
    statement."""

    _WRITES = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        try:
            connection = self._connection = _usable(self._taken())
            if connection is None or not self._begun(connection):
                connection = self._connection = self._engine.connect().execution_options(**_KEPT)
                self._transaction = _transaction(connection, writes=self._WRITES)
        except BaseException as exc:
            self._put_back(whole=False)
            told = _told(self._engine, exc)
            if told is None:
                raise
            raise told from exc
        return connection

    def _begun(self, connection: Connection) -> bool:
        """Whether a kept connection has begun its transaction. The server may have ended it meanwhile: nothing was said on it that could be
        lost."""
        try:
            self._transaction = _transaction(connection, writes=self._WRITES)
        except DBAPIError as exc:
            if not exc.connection_invalidated:
                raise
            self._close()
            return False
        return True

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        failed, whole = exc, False
        try:
            self._transaction.__exit__(kind, exc, trace)
            whole = exc is None
        except Exception as error:
            failed = error if exc is None else exc  # Ctrl-C, say, whatever its end did to the connection
        finally:
            if self._connection is not None and _sqlstate(failed) == _PG_READ_ONLY:
                self._connection.invalidate()  # a session that began when the server took no writes never takes any, whatever comes
            self._put_back(whole=whole)
        if failed is not None:
            told = _told(self._engine, failed) or (None if self._WRITES else _asked_for(failed))
            if told is not None:
                raise told from failed
            if failed is not exc:
                raise failed

    @abstractmethod
    def _taken(self) -> Connection | None:
        """One that was kept; None where there is none."""

    @abstractmethod
    def _put_back(self, *, whole: bool) -> None:
        """Keep the connection if it is `whole`, else close it."""

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class writing(_Transaction):
    """One transaction that writes: on SQLite it begins IMMEDIATE, on PostgreSQL it takes the transaction lock.

    On the engine's one connection for writing: writers wait for each other anyway, and one from the pool costs as much as a commit.
    """

    _WRITES = True

    def __enter__(self) -> Connection:
        self._writers = WRITERS.setdefault(self._engine, Writers())
        self._writers.turn.acquire()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, exc, trace)
        if exc is None and self._writers.committed is not None:
            self._writers.committed()

    def _taken(self) -> Connection | None:
        connection, self._writers.connection = self._writers.connection, None  # whatever goes wrong, nobody knows then how it stands
        return connection

    def _put_back(self, *, whole: bool) -> None:
        try:
            if whole:
                self._writers.connection, self._connection = self._connection, None
            else:
                self._close()
        finally:
            self._writers.turn.release()


class reading(_Transaction):
    """One transaction that only reads, over one snapshot on SQLite.

    On one of a few connections that are kept for it on SQLite, where one from the pool costs more than most of what is read; each has a
    reader of its own. PostgreSQL's are the pool's, which asks whether they are still there.
    """

    def _taken(self) -> Connection | None:
        self._kept = READERS.setdefault(self._engine, [])
        try:
            return self._kept.pop()
        except IndexError:  # others take them, too
            return None

    def _put_back(self, *, whole: bool) -> None:
        if whole and self._connection is not None and len(self._kept) < _READERS_KEPT and self._engine.dialect.name == "sqlite":
            self._kept.append(self._connection)
            self._connection = None
        else:
            self._close()


_READERS_KEPT = 4
