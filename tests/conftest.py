"""What every test may ask for: the event loop it runs on, a PostgreSQL schema of its own, and a user who is not root."""

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unprivileged import Unprivileged, unprivileged_user

# How long an example takes says nothing on a machine that others share.
settings.register_profile("lily", deadline=None, max_examples=int(os.environ.get("LILY_EXAMPLES", "40")))
settings.load_profile("lily")

DEFAULT_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def pytest_xdist_auto_num_workers() -> int:
    """One more for each two cores: tests also wait for processes, disks and servers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on trio: its clock can be replaced and its task order seeded."""
    return "trio"


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a database made for this session and dropped after it.

    Skips with the reason where no server answers; fails instead when LILY_REQUIRE_POSTGRES is 1, as CI sets it.
    """
    from sqlalchemy import URL, create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    server = make_url(os.environ.get("LILY_TEST_POSTGRES_URL") or DEFAULT_POSTGRES).set(drivername="postgresql+psycopg")
    name = f"lily_test_{os.getpid()}_{secrets.token_hex(4)}"

    def administer(url: URL, statement: str) -> None:
        engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    try:
        administer(server, f'CREATE DATABASE "{name}"')
    except (SQLAlchemyError, ModuleNotFoundError) as exc:
        reason = f"no PostgreSQL at {server.render_as_string(hide_password=True)}: {' '.join(str(exc).split())[:160]}"
        if os.environ.get("LILY_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"LILY_REQUIRE_POSTGRES=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    yield server.set(database=name).render_as_string(hide_password=False)
    administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgres_url(postgres_database: str) -> Iterator[str]:
    """A PostgreSQL URL that sees one empty schema, made for this test alone. Tests that take it are marked `postgres`."""
    from sqlalchemy import create_engine, make_url

    schema = f"t_{secrets.token_hex(6)}"
    engine = create_engine(postgres_database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    yield make_url(postgres_database).update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP SCHEMA "{schema}" CASCADE')
    engine.dispose()


@pytest.fixture(scope="session")
def unprivileged() -> Iterator[Unprivileged]:
    """A user whom permissions and read-only folders stop, also when the tests run as root."""
    with unprivileged_user() as user:
        yield user


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever takes the PostgreSQL fixture is marked so, and can be left out with -m."""
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
