"""Called by the sample job `python-report`. Any function of the workspace will do: arguments and result are plain JSON."""

import shutil
from pathlib import Path


def summarise(folder: str) -> dict[str, object]:
    """How many entries `folder` has, and how full its disk is."""
    usage = shutil.disk_usage(folder)
    return {
        "summary": f"{len(list(Path(folder).iterdir()))} entries, disk {usage.used / usage.total:.0%} full",
        "disk_total_bytes": usage.total,
        "disk_free_bytes": usage.free,
    }
