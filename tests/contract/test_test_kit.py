"""What the other tests stand on."""

from pathlib import Path

from sqlalchemy import create_engine, text

from tests.unprivileged import Unprivileged


def test_the_unprivileged_user_is_stopped_by_permissions(unprivileged: Unprivileged) -> None:
    """Neither a folder without write permission nor a file without read permission opens for this user."""
    folder = unprivileged.folder("closed")
    secret = folder / "secret"
    secret.touch(mode=0o000)
    unprivileged.own(secret)
    folder.chmod(0o500)
    read = unprivileged.run("-c", "open('secret')", cwd=folder)
    write = unprivileged.run("-c", "open('new', 'w')", cwd=folder)
    folder.chmod(0o700)
    assert "PermissionError" in read.stderr
    assert "PermissionError" in write.stderr


def test_the_unprivileged_user_can_import_lily(unprivileged: Unprivileged) -> None:
    """The interpreter it gets sees the same packages as the tests."""
    done = unprivileged.run("-c", "import lily, os; print(lily.__version__, os.getuid() != 0)")
    assert done.stdout.split()[-1] == "True", done.stderr


def test_a_postgres_url_sees_a_schema_of_its_own(postgres_url: str) -> None:
    """What one test makes, another can't find."""
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("create table only_here (n int)"))
        assert (
            connection.execute(
                text("select count(*) from pg_tables where tablename = 'only_here' and schemaname = current_schema()")
            ).scalar()
            == 1
        )
    engine.dispose()


def test_the_repository_folder_is_a_workspace() -> None:
    """Every sample can be run from a checkout as it is."""
    assert (Path(__file__).parents[2] / ".lily" / "jobs").is_dir()
