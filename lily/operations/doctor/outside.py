"""What Lily needs from others: GitHub, where approvals use it."""

from collections.abc import Iterator

from lily.errors import LilyError
from lily.findings import Finding, fine, found
from lily.operations.doctor.scene import Scene
from lily.spec_index import SpecIndex


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
