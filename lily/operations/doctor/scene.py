"""What the checks share: the workspace, its settings, its owner, and its store once that is known to be sound."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lily.errors import LilyError
from lily.settings import Settings, load_settings, parse_settings
from lily.spec_index import Catalog, SpecIndex
from lily.storage.audit import Actor
from lily.storage.database import sqlite_path
from lily.storage.store import Store
from lily.workspace import Owner, Workspace, current_owner

AskGh = Callable[[str], Sequence[Mapping[str, Any]]]  # `lily.approvals.doctor.examine`, for this repository


@dataclass
class Scene:
    """One look at one workspace. `store` is None until it was found to be usable, and where it is not."""

    workspace: Workspace
    now: datetime
    ask_gh: AskGh
    settings: Settings
    config_error: LilyError | None
    owner: Owner | None
    actor: Actor
    store: Store | None = None
    said: dict[str, Any] | None = None  # what the supervisor says of itself
    hidden_owner: bool = False  # a supervisor lives whose lock file was deleted
    locked: bool = False  # a repair holds the lock of the store's server itself
    torn: list[tuple[str, str]] = field(default_factory=list)  # (job, run) of those with files that are to be written again
    _catalog: list[Catalog] = field(default_factory=list)

    @property
    def catalog(self) -> Catalog:
        """The job files."""
        if not self._catalog:
            self._catalog.append(SpecIndex(self.workspace, read_only=True).scan())
        return self._catalog[0]

    @property
    def database(self) -> Path | None:
        """SQLite's file; None on PostgreSQL."""
        return database_file(self.workspace, self.settings)

    def shown(self, path: Path) -> str:
        """A path as findings name it: from the workspace on, where it is inside."""
        return str(path.relative_to(self.workspace.root)) if path.is_relative_to(self.workspace.root) else str(path)

    def close(self) -> None:
        """Give the store back."""
        if self.store is not None:
            self.store.close()
            self.store = None


def database_file(workspace: Workspace, settings: Settings) -> Path | None:
    """SQLite's file; None on PostgreSQL."""
    return sqlite_path(settings.store.url, workspace.database)


def scene_of(workspace: Workspace, now: datetime, ask_gh: AskGh, actor: Actor) -> Scene:
    """The scene before anything was looked at. Settings that can't be read are the defaults, and what is wrong with them is kept."""
    wrong = None
    try:
        settings = load_settings(workspace)
    except LilyError as error:
        settings, wrong = parse_settings(b""), error
    return Scene(workspace, now, ask_gh, settings, wrong, current_owner(workspace), actor)
