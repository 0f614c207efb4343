"""What Lily needs from others: GitHub, where approvals use it, and whoever takes alerts."""

from collections.abc import Iterator

from lily.alerts.ready import why_not
from lily.errors import LilyError
from lily.findings import Finding, fine, found
from lily.operations.doctor.scene import Scene
from lily.spec_index import SpecIndex
from lily.storage.alert_deliveries import undelivered
from lily.storage.database import reading
from lily.text import counted


def github(scene: Scene) -> Iterator[Finding]:
    """The program gh, its login and the repository; only where the settings or a job name one."""
    repository = scene.settings.approval.repository
    if not repository and not _issues(scene):
        return
    wrong = [each for each in scene.ask_gh(repository) if not each["ok"]]
    for each in wrong:
        yield found("gh", "gh_unusable", str(each["message"]), str(each["name"]), fix=str(each["hint"]) or None)
    if not wrong:
        yield fine("gh", "labels of issues can be read")


def sinks(scene: Scene) -> Iterator[Finding]:
    """Whether alerts could be taken, as far as it shows without sending one, and whether some wait."""
    wrong = {name: why for name, sink in sorted(scene.settings.alerts.sinks.items()) if (why := why_not(sink, scene.workspace.root))}
    for name, why in wrong.items():
        yield found("sinks", "sink_unusable", f"the sink {name} can take no alert: {why}", f"alerts.sinks.{name}")
    late = 0
    if scene.store is not None:
        with reading(scene.store.engine) as connection:
            late = undelivered(connection)
    if late:
        yield found(
            "sinks",
            "alerts_undelivered",
            f"{counted(late, 'alert could not be delivered and is', 'alerts could not be delivered and are')} tried again",
        )
    if not wrong and not late:
        yield fine("sinks", f"{counted(len(scene.settings.alerts.sinks), 'sink')} of alerts; none is known to refuse them")


def _issues(scene: Scene) -> bool:
    """Whether a job asks for an approval on an issue."""
    index = SpecIndex(scene.workspace, read_only=True)
    for job_id, entry in scene.catalog.jobs.items():
        try:
            text = (scene.workspace.root / entry.path).read_bytes()
            if b"issue" in text and (approval := index.load(job_id).approval) is not None and approval.issue:
                return True
        except (LilyError, OSError):
            continue
    return False
