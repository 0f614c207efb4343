"""The sample workspace that `lily init` copies. The files here are the only source; this repository's own `.lily` holds the same bytes."""

from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).parent
_PLACES = {"config.yaml": ".lily", "report.py": "samples", "jobs": ".lily", "blueprints": ".lily"}


def sample_files() -> Iterator[tuple[str, bytes]]:
    """(path under a workspace, content) of each sample file, sorted by path."""
    found = []
    for name, place in _PLACES.items():
        source = _HERE / name
        files = [source] if source.is_file() else sorted(file for file in source.iterdir() if file.is_file())
        found += [(f"{place}/{file.relative_to(_HERE).as_posix()}", file.read_bytes()) for file in files]
    return iter(sorted(found))
