"""Several processes on one SQLite file."""

import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from lily.storage.database import open_engine, reading, writing


def test_a_store_that_is_opened_twice_in_one_process_keeps_its_locks(tmp_path: Path) -> None:
    """`lily jobs run` holds one engine and its actors a second; neither may let another process take the log of changes away.

    POSIX drops a process's locks on a file when it closes any descriptor of that file.
    """
    file = tmp_path / "db" / "lily.sqlite3"
    first = open_engine("", database_file=file)
    with writing(first) as connection:
        connection.execute(text("create table t (n integer)"))
    open_engine("", database_file=file).dispose()
    wal = file.with_name(file.name + "-wal")
    before = wal.stat().st_ino
    program = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('select * from t').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert wal.stat().st_ino == before
    with writing(first) as connection:
        connection.execute(text("insert into t values (1)"))
    with reading(first) as connection:
        assert connection.execute(text("select n from t")).scalar() == 1
    first.dispose()
