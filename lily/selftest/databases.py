"""Where the stores of a self-test are."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from lily.errors import Code, LilyError

DEFAULT_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
POSTGRES = "LILY_TEST_POSTGRES_URL"


@contextmanager
def database(engine: str) -> Iterator[str]:
    """A new store's URL while the block lasts: empty for the embedded one; a PostgreSQL database is made and dropped.

    Raises `store_unavailable` where none can be made.
    """
    if engine == "sqlite":
        yield ""
        return
    from lily.storage.servers import scratch_database

    server = os.environ.get(POSTGRES) or DEFAULT_POSTGRES
    try:
        with scratch_database(server, f"lily_selftest_{os.getpid()}_{secrets.token_hex(3)}") as url:
            yield url
    except ModuleNotFoundError:
        raise LilyError(Code.STORE_UNAVAILABLE, "psycopg is not installed", hint="pip install 'lily-jobs[postgres]'") from None
