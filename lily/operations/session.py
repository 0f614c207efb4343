"""Opening what an operation works on."""

import random

from lily.clock import Clock, SystemClock
from lily.settings import Settings
from lily.storage.store import Store
from lily.workspace import Workspace


def open_store(workspace: Workspace, settings: Settings, *, clock: Clock | None = None, dice: random.Random | None = None) -> Store:
    """The workspace's store, its schema up to date. Raises `store_unavailable`, `disk_full`, `store_schema_newer`."""
    return Store(
        settings.store.url,
        database_file=workspace.database,
        clock=clock or SystemClock(),
        dice=dice,
        limits=settings.queue,
        max_dead_letters=settings.dlq.max_entries,
    )
