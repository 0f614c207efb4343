"""Copies of stores on PostgreSQL: which schema they are of, and how PostgreSQL's programs find the server."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from lily.clock import SystemClock
from lily.identity import SUPERVISOR
from lily.operations.accept import new_run
from lily.storage import server_copies
from lily.storage.store import Store
from lily.storage.worker import pause, paused
from lily.testing import FakeClock

SCHEMA = 'An "odd" place.x'
SPEC = b'{"bindings":{},"id":"job","runtime":{},"target":{"id":"noop.v1","kind":"blueprint"},"title":"job","trigger":{"type":"manual"}}'
Opened = Callable[..., Store]


@pytest.fixture
def opened(postgres_database: str, tmp_path: Path) -> Iterator[Opened]:
    """Opens the store in a schema of that name, which is made; `more` is said in the address."""
    made: list[Store] = []
    admin = create_engine(postgres_database, isolation_level="AUTOCOMMIT")
    schemas = []

    def in_schema(name: str, **more: str) -> Store:
        quoted = '"' + name.replace('"', '""') + '"'
        with admin.connect() as connection:
            connection.exec_driver_sql(f"create schema if not exists {quoted}")
        schemas.append(quoted)
        inside = quoted.replace(" ", "\\ ")
        url = make_url(postgres_database).update_query_dict({"options": f"-csearch_path={inside} -cstatement_timeout=0", **more})
        made.append(Store(url.render_as_string(hide_password=False), database_file=tmp_path / "db" / "none", clock=SystemClock()))
        return made[-1]

    yield in_schema
    for store in made:
        store.close()
    with closing(admin.connect()) as connection:
        for quoted in schemas:
            connection.exec_driver_sql(f"drop schema if exists {quoted} cascade")
    admin.dispose()


def submit(store: Store) -> str:
    """A run that waits."""
    (run,) = store.submit([new_run(SPEC, by="test", clock=FakeClock())])
    return run.run_id


@pytest.mark.postgres
def test_a_store_in_a_schema_of_any_name_is_copied_and_put_back(opened: Opened, tmp_path: Path) -> None:
    """Its name has to be quoted, and the address says more than one option, and a name with a space and a plus."""
    store = opened(SCHEMA, application_name="Lily + I")
    kept = submit(store)
    server_copies.dump(store.engine, tmp_path / "copy.dump")
    submit(store)
    found = server_copies.examine(store.engine, tmp_path / "copy.dump")
    assert found.problem == ""
    server_copies.restore(store.engine, tmp_path / "copy.dump")
    assert [run.run_id for run in store.runs()] == [kept]


@pytest.mark.postgres
def test_a_copy_of_a_store_in_another_schema_is_refused(opened: Opened, tmp_path: Path) -> None:
    """pg_restore would put it where it came from, in the place of another workspace's store, and leave this one as it is."""
    one, other = opened("copies a"), opened("copies b")
    server_copies.dump(one.engine, tmp_path / "copy.dump")
    found = server_copies.examine(other.engine, tmp_path / "copy.dump")
    assert ("'copies a'" in found.problem, "'copies b'" in found.problem) == (True, True)


@pytest.mark.postgres
def test_a_copy_is_of_the_schema_that_the_store_is_in_and_not_of_an_earlier_one_on_the_path(opened: Opened, tmp_path: Path) -> None:
    """A schema of the user's name, say, that was made after the store."""
    store = opened("copies c")
    pause(store, SUPERVISOR, "here", SystemClock().now())
    url = store.engine.url.update_query_dict({"options": '-csearch_path="copies\\ d","copies\\ c"'})
    later = Store(url.render_as_string(hide_password=False), database_file=tmp_path / "db" / "none", clock=SystemClock())
    with closing(later):
        with later.engine.begin() as connection:
            connection.execute(text('create schema "copies d"'))
        try:
            server_copies.dump(later.engine, tmp_path / "copy.dump")
            assert server_copies.examine(later.engine, tmp_path / "copy.dump").problem == ""
            assert paused(later) is not None
        finally:
            with later.engine.begin() as connection:
                connection.execute(text('drop schema "copies d"'))
