"""Alembic's entry: runs the migrations on the connection that `lily.storage.database` hands over."""

from alembic import context

from lily.storage.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
