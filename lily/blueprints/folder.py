"""The workspace's folder of blueprints: loads what is new, keeps what is unchanged, forgets what is gone."""

import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lily.blueprints.discovery import Loaded, load_file
from lily.blueprints.means import is_spent

Stamp = tuple[int, int, int]  # mtime_ns, size, inode: what tells one version of a file from the next

_serial = itertools.count(1)


class Folder:
    """What the `*.py` files of one folder define. A folder that is not there is an empty one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._files: dict[Path, tuple[Stamp, str, Loaded]] = {}

    def loaded(self) -> Sequence[Loaded]:
        """What each file gave, in the order of their names."""
        return [kept for _, (_, _, kept) in sorted(self._files.items())]

    def read(self) -> bool:
        """Load the files that changed since the last time; whether there were any. A broken file is a problem in its `Loaded`.

        One for which the machine has nothing left is such a problem until the next time, and loaded again then. Raises OSError, and
        has changed nothing, where there is nothing left to look into the folder with.
        """
        files = dict(_stamps(self._path)) if self._path else {}
        changed = False
        for path in self._files.keys() - files.keys():
            sys.modules.pop(self._files.pop(path)[1], None)
            changed = True
        for path, stamp in sorted(files.items()):
            before = self._files.get(path)
            if before is None or before[0] != stamp or before[2].spent:
                changed = self._load(path, stamp) or changed
        return changed

    def _load(self, path: Path, stamp: Stamp) -> bool:
        before = self._files.get(path)
        if before is not None:
            sys.modules.pop(before[1], None)
        name = _module_name(path)
        doubts = before[2].doubts if before is not None and before[0] == stamp else 0
        loaded = load_file(path, name, origin=f".lily/blueprints/{path.name}", doubts=doubts)
        self._files[path] = (stamp, name, loaded)
        return before is None or not before[2].spent or before[2] != loaded


def _stamps(folder: Path) -> Iterator[tuple[Path, Stamp]]:
    """The blueprint files; names that begin with an underscore or a dot are left alone."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if is_spent(error):
            raise
        return
    for entry in entries:
        if entry.name.endswith(".py") and not entry.name.startswith(("_", ".")):
            try:
                stat = entry.stat()
            except OSError:
                continue  # gone since the listing
            yield Path(entry.path), (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _module_name(path: Path) -> str:
    """Private and never used twice, so that a new version shares nothing with the old one."""
    return f"_lily_blueprint_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}_{next(_serial)}"
