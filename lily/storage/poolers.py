"""Poolers between here and PostgreSQL's server: whether what is asked on one connection reaches one session of the server's."""

from sqlalchemy import Connection, Engine, text

from lily.errors import Code, LilyError

# What is said of such a store, also by `lily doctor` and `lily health`.
NO_SESSION = (
    "lies behind a pooler that keeps no session of the server's for each client (PgBouncer does with pool_mode = session): the owner's lock"
    " would protect nothing"
)


def no_session() -> LilyError:
    """For who would own such a store."""
    hint = "have the pooler keep sessions, or name the server itself"
    return LilyError(Code.CONFIG_INVALID, f"the store {NO_SESSION}", where="store.url", hint=hint)


def backend(connection: Connection) -> int:
    """The server's process that answers, asked in a transaction of its own."""
    with connection.begin():
        return int(connection.execute(text("select pg_backend_pid()")).scalar_one())


def keeps_no_session(engine: Engine, connection: Connection) -> bool:
    """Whether a pooler gives each transaction any session: nobody would hold a lock that is a session's, or two would at once."""
    its_own = backend(connection)
    with engine.connect() as other:
        # PgBouncer takes the session that was used last, or, with server_round_robin, the one that was not used for longest: so many
        # questions on either side, and one of them is answered by whom it should not be, however many sessions there are.
        return backend(other) == its_own or {backend(connection), backend(connection)} != {its_own}
