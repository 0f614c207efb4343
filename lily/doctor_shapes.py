"""What `lily doctor`, `lily db` and `lily support` print with `--json`: published shapes, as those in `lily.shapes`."""

from typing import Literal

import msgspec


class FindingView(msgspec.Struct, kw_only=True):
    """One thing that was looked at. `code` is `ok` where nothing is wrong; `where` is a path, a run or a job; `fix` a command, or what
    to do."""

    check: str
    code: str
    severity: Literal["ok", "info", "warning", "error"]
    message: str
    where: str
    fix: str


class MendView(msgspec.Struct, kw_only=True):
    """What a repair did about a finding; `done` is false where it could not, and `what` says why."""

    code: str
    what: str
    where: str
    done: bool


class DoctorView(msgspec.Struct, kw_only=True):
    """`lily doctor --json`; `findings` are what was found last, after a repair if there was one"""

    ok: bool
    repair: bool
    findings: list[FindingView]
    repaired: list[MendView]


class BackupView(msgspec.Struct, kw_only=True):
    """A file in db/backups, or a folder with one in it."""

    path: str
    bytes: int
    made_at: str


class DbStatus(msgspec.Struct, kw_only=True):
    """`lily db status --json`; `bytes` and `log_bytes` are null on PostgreSQL, `schema` is empty where there is none"""

    kind: Literal["sqlite", "postgresql"]
    where: str
    state: Literal["none", "current", "older", "newer", "unusable"]
    problem: str
    schema: str
    head: str
    bytes: int | None
    log_bytes: int | None
    runs: int | None
    backups: list[BackupView]


class DbCheck(msgspec.Struct, kw_only=True):
    """`lily db check --json`"""

    ok: bool
    where: str
    schema: str
    problems: list[str]


class DbUpgrade(msgspec.Struct, kw_only=True):
    """`lily db upgrade --json`; `backup` is null where nothing was to be done"""

    before: str
    after: str
    backup: str | None


class DbBackup(msgspec.Struct, kw_only=True):
    """`lily db backup FILE --json`; `runs` is null on PostgreSQL"""

    path: str
    bytes: int
    schema: str
    runs: int | None


class DbRestore(msgspec.Struct, kw_only=True):
    """`lily db restore FILE --json`; `newer_runs` are on disk, and the restored store does not know them"""

    path: str
    schema: str
    upgraded_from: str | None
    runs: int
    aside: str | None
    newer_runs: int


class BundleMember(msgspec.Struct, kw_only=True):
    """A file in a bundle; `cut` says that only its end, or only a part, is there."""

    name: str
    bytes: int
    cut: bool


class SupportBundle(msgspec.Struct, kw_only=True):
    """`lily support bundle --json`; `left_out` are those that could not be made, and why"""

    path: str
    bytes: int
    files: list[BundleMember]
    left_out: list[str]


DOCTOR_SHAPES: dict[str, type[msgspec.Struct]] = {
    "doctor": DoctorView,
    "db-status": DbStatus,
    "db-check": DbCheck,
    "db-upgrade": DbUpgrade,
    "db-backup": DbBackup,
    "db-restore": DbRestore,
    "support-bundle": SupportBundle,
}
