"""Databases of a PostgreSQL server, made and dropped: for tests of Lily on a user's own server."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, make_url

from lily.storage.database import store_errors


@contextmanager
def scratch_database(server: str, name: str) -> Iterator[str]:
    """Make the database `name` on the server at this URL and drop it at the end; gives its URL. Raises `store_unavailable`."""
    url = make_url(server).set(drivername="postgresql+psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with store_errors(admin), admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            with store_errors(admin), admin.connect() as connection:
                connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        admin.dispose()
