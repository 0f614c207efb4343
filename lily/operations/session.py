"""Opening what an operation works on."""

import os
import random

from lily.clock import Clock, SystemClock
from lily.errors import Code, LilyError
from lily.settings import Settings
from lily.storage.store import Store
from lily.workspace import Workspace, current_owner


def open_store(workspace: Workspace, settings: Settings, *, clock: Clock | None = None, dice: random.Random | None = None) -> Store:
    """The workspace's store, its schema up to date. Raises `store_unavailable`, `disk_full`, `store_schema_newer`.

    An older schema is brought up to date, unless another process owns the workspace: then `owner_conflict`.
    """
    return Store(
        settings.store.url,
        database_file=workspace.database,
        clock=clock or SystemClock(),
        dice=dice,
        limits=settings.queue,
        max_dead_letters=settings.dlq.max_entries,
        may_upgrade=lambda found: _refuse_beside_owner(workspace, found),
    )


def _refuse_beside_owner(workspace: Workspace, found: str) -> None:
    """An owner that lives is of the Lily that knows the schema as it is; it would fail with another one."""
    owner = current_owner(workspace)
    if owner is not None and not (owner.near and owner.pid == os.getpid()):
        raise LilyError(
            Code.OWNER_CONFLICT,
            f"the store's schema is {found}, and {owner.process} (lily {owner.kind}), of an older Lily, is using it",
            where=str(workspace.root),
            hint="`lily down` first; the next command then brings the store up to date",
            pid=owner.pid,
        )
