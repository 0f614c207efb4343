"""What `lily doctor` can find: a closed table of codes, each with how bad it is and what mends it."""

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Severity(StrEnum):
    """How bad a finding is. `ok` and `info` ask for nothing; with any other the exit status is 1."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `code` is stable, and `ok` where nothing is wrong; `where` is a path, a run or a job; `fix` is a
    command, or what to do."""

    check: str
    code: str
    severity: Severity
    message: str
    where: str = ""
    fix: str = ""


class Known(NamedTuple):
    """What is always true of a code. `mends`: `lily doctor --repair` does it."""

    severity: Severity
    fix: str
    mends: bool = False


_REPAIR = "lily doctor --repair"
BY_BACKUP = "nothing but a backup has it: lily db restore"
_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

CODES: dict[str, Known] = {
    # the machine
    "python_too_old": Known(_E, "install Python 3.11 or newer, and Lily into it"),
    "package_missing": Known(_E, "install Lily again: pip install --force-reinstall lily-jobs"),
    "package_version": Known(_W, "install Lily again: pip install --upgrade lily-jobs"),
    "disk_low": Known(_W, "lily runs prune --keep 100 --dry-run"),
    "clock_far_off": Known(_E, "set the machine's clock, and have it kept: timedatectl set-ntp true"),
    "clock_behind": Known(_E, "set the machine's clock: windows that it goes through again are not run twice"),
    # the workspace
    "config_invalid": Known(_E, "lily config validate"),
    "config_open": Known(_W, _REPAIR, mends=True),
    "job_file_unusable": Known(_W, "lily jobs validate"),
    "folder_missing": Known(_W, _REPAIR, mends=True),
    "not_yours": Known(_E, "give it to the user who runs Lily: chown"),
    "not_usable": Known(_E, _REPAIR, mends=True),
    "mode_open": Known(_W, _REPAIR, mends=True),
    "owner_silent": Known(_E, "lily status; a supervisor that hangs is ended with `kill` and taken up again by `lily up`"),
    "lock_deleted": Known(_E, "end that process, then start again: lily up"),
    "lock_stale": Known(_I, "nothing: the next `lily up` writes it anew"),
    "socket_stale": Known(_I, _REPAIR, mends=True),
    # the store
    "store_missing": Known(_E, _REPAIR, mends=True),
    "store_damaged": Known(_E, _REPAIR, mends=True),
    "store_log_foreign": Known(_E, _REPAIR, mends=True),
    "store_log_alone": Known(_E, _REPAIR, mends=True),
    "store_unreachable": Known(_E, "see that the server is up and store.url is right: lily config show"),
    "store_read_only": Known(_E, "see who may write to it, and whether the disk is mounted read-only"),
    "store_busy": Known(_W, "lily status; something has been writing for long"),
    "store_log_large": Known(_W, _REPAIR, mends=True),
    "schema_older": Known(_W, "lily db upgrade", mends=True),
    "schema_newer": Known(_E, "use the Lily that wrote it, or go back: lily db restore FILE"),
    "schema_differs": Known(_E, "lily db restore FILE; somebody has changed tables by hand"),
    "tally_wrong": Known(_W, _REPAIR, mends=True),
    # runs
    "run_orphaned": Known(_W, "lily up; or `lily doctor --repair` to have them queued again", mends=True),
    "files_damaged": Known(_E, _REPAIR, mends=True),
    "artifact_differs": Known(_W, "put it back from a copy of the folder; lily runs verify"),
    "chain_broken": Known(_W, "lily runs verify; lily db rebuild --from receipts"),
    "files_owed": Known(_I, "lily up writes them"),
    "row_missing": Known(_E, _REPAIR, mends=True),
    "row_differs": Known(_E, _REPAIR, mends=True),
    "folder_unknown": Known(_I, "look into it; nothing of Lily's needs it"),
    "audit_broken": Known(_W, "lily audit verify; the audit was edited, or a copy of an older store was put back by hand"),
    # schedules
    "windows_unaccounted": Known(_W, "lily schedule verify"),
    "job_store_damaged": Known(_W, _REPAIR, mends=True),
    "job_store_missing": Known(_I, "lily up makes it"),
    "job_store_lost": Known(_W, "lily down, then lily up: it is written anew"),
    "schedule_drift": Known(_W, "lily schedule status"),
    # outside
    "gh_unusable": Known(_W, "lily approvals doctor"),
    "sink_unusable": Known(_W, "lily config show; then lily alerts test"),
    "alerts_undelivered": Known(_W, "lily alerts list --undelivered"),
    "check_failed": Known(_E, "report it, with what this line says"),
}


def found(check: str, code: str, message: str, where: str = "", *, severity: Severity | None = None, fix: str | None = None) -> Finding:
    """A finding of that code; severity and fix are the table's where nothing else is said."""
    known = CODES[code]
    return Finding(
        check=check,
        code=code,
        severity=known.severity if severity is None else severity,
        message=message,
        where=where,
        fix=known.fix if fix is None else fix,
    )


def fine(check: str, message: str, where: str = "") -> Finding:
    """Nothing is wrong."""
    return Finding(check=check, code="ok", severity=Severity.OK, message=message, where=where)


def is_mendable(finding: Finding) -> bool:
    """Whether a repair may be tried."""
    return finding.code != "ok" and CODES[finding.code].mends and finding.fix != BY_BACKUP


def is_wrong(finding: Finding) -> bool:
    """Whether somebody has to do something."""
    return finding.severity in (Severity.WARNING, Severity.ERROR)
