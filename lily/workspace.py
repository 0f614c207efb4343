"""Every path under a workspace, as arithmetic, and the lock that says who owns it."""

import fcntl
import json
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lily.clock import boot_id, pid_namespace, process_start_ticks, this_process
from lily.errors import Code, LilyError

JOB_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[a-z0-9]{4,12}", re.ASCII)
ARTIFACT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", re.ASCII)

_TRIES, _PAUSE_SECONDS = 5, 0.01

RECEIPT, SUMMARY, EVENTS = "run_receipt.json", "summary.md", "events.jsonl"
RESERVED = frozenset({RECEIPT, SUMMARY, EVENTS})


def is_job_id(text: str) -> bool:
    """Whether `text` may name a job, and so a folder."""
    return JOB_ID.fullmatch(text) is not None and ".." not in text


def is_run_id(text: str) -> bool:
    """Whether `text` has the form of a run id, and so may name a folder."""
    return RUN_ID.fullmatch(text) is not None


def is_artifact_name(text: str) -> bool:
    """Whether a target may write a file of this name in its run's folder."""
    return ARTIFACT.fullmatch(text) is not None and ".." not in text and text not in RESERVED


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with `.lily` in it. Computes paths; touches nothing."""

    root: Path

    @property
    def lily(self) -> Path:
        return self.root / ".lily"

    @property
    def config(self) -> Path:
        return self.lily / "config.yaml"

    @property
    def jobs(self) -> Path:
        return self.lily / "jobs"

    @property
    def blueprints(self) -> Path:
        return self.lily / "blueprints"

    @property
    def runs(self) -> Path:
        return self.lily / "runs"

    @property
    def runtime(self) -> Path:
        """Locks, sockets and caches: nothing in here matters after the processes are gone."""
        return self.lily / "run"

    @property
    def database(self) -> Path:
        return self.root / "db" / "lily.sqlite3"

    @property
    def job_store(self) -> Path:
        """APScheduler's rows: a cache of what specs and ledger say."""
        return self.root / "db" / "scheduler.sqlite3"

    def job_dir(self, job_id: str) -> Path:
        """The folder of a job's runs. Raises `job_not_found` for what can't be a job id."""
        return self.root / _job_dir(job_id)

    def run_dir(self, job_id: str, run_id: str) -> Path:
        """The folder of one run. Raises `run_not_found` for what can't be a run id."""
        return Path(self.run_path(job_id, run_id))

    def run_path(self, job_id: str, run_id: str) -> str:
        """The same as text: every run asks for it several times."""
        if not is_run_id(run_id):
            raise LilyError(Code.RUN_NOT_FOUND, f"{run_id!r} can't be a run id", hint="see `lily runs list`")
        return f"{self.root}/{_job_dir(job_id)}/{run_id}"


@lru_cache(maxsize=256)
def _job_dir(job_id: str) -> str:
    if not is_job_id(job_id):
        raise LilyError(Code.JOB_NOT_FOUND, f"{job_id!r} can't be a job id", hint="see `lily jobs list`")
    return f".lily/runs/{job_id}"


def find_workspace(given: str | os.PathLike[str] | None = None, start: Path | None = None) -> Workspace:
    """The workspace at `given`, else at LILY_WORKSPACE, else the nearest one above `start` (the current folder)."""
    named = given if given is not None else os.environ.get("LILY_WORKSPACE")
    if named:
        root = Path(named).absolute()
        if not (root / ".lily").is_dir():
            from shlex import quote  # only what fails needs it

            raise LilyError(
                Code.WORKSPACE_NOT_FOUND, "no .lily folder there", where=str(root), hint=f"`lily init {quote(str(root))}` makes one"
            )
        return Workspace(root)
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / ".lily").is_dir():
            return Workspace(folder)
    raise LilyError(
        Code.WORKSPACE_NOT_FOUND,
        "no .lily folder here or above",
        where=str(here),
        hint="`lily init` makes a workspace here; --workspace DIR names one elsewhere",
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a workspace: exact, because pid, start time and boot id together are never reused in one PID namespace."""

    pid: int
    start_ticks: int | None
    boot: str
    kind: str  # "up" (supervisor) or "run" (a command that runs jobs itself)
    since: str
    life: str
    namespace: str = ""  # empty: of ours, or nobody knows

    @property
    def near(self) -> bool:
        """Whether its process number means here what it means there; not so between a container and its host."""
        return self.namespace in ("", pid_namespace())

    @property
    def process(self) -> str:
        """The process, for a person."""
        return f"pid {self.pid}" if self.near else f"pid {self.pid} of another container or the host"

    def alive(self, lock: Path) -> bool:
        """Whether this very process still runs; of one whose number means nothing here, whether somebody holds `lock`."""
        if not self.near:
            return _is_held(lock)
        return self.boot == boot_id() and process_start_ticks(self.pid) == self.start_ticks


class OwnerLock:
    """An operating-system lock that dies with its process, with its holder's identity in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, *, kind: str, since: str, life: str) -> Owner:
        """Take the lock and write who holds it. Raises `owner_conflict`, naming the holder."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(fd)
        except OSError:
            os.close(fd)
            raise self._conflict() from None
        pid, ticks, boot = this_process()
        owner = Owner(pid, ticks, boot, kind, since, life, pid_namespace())
        body = json.dumps({name: getattr(owner, name) for name in Owner.__slots__}).encode() + b"\n"
        os.ftruncate(fd, 0)
        os.pwrite(fd, body, 0)
        self._fd = fd
        return owner

    def _lock(self, fd: int) -> None:
        """Raises OSError when somebody else holds it. Whoever only looks at a lock of another container's has it for a moment, too."""
        for _ in range(_TRIES):
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = read_owner(self._path)
                if owner is None or owner.near:
                    raise
            time.sleep(_PAUSE_SECONDS)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _conflict(self) -> LilyError:
        owner = read_owner(self._path)
        if owner is not None and owner.near and not owner.alive(self._path):
            return left_behind(owner, self._path)
        named = f"{owner.process} (lily {owner.kind}, since {owner.since})" if owner else "a process that is just starting"
        return LilyError(
            Code.OWNER_CONFLICT,
            f"this workspace is owned by {named}",
            where=str(self._path.parent.parent.parent),
            hint="`lily status` shows it, `lily down` stops it",
            pid=owner.pid if owner else None,
        )

    def fileno(self) -> int:
        """The lock as a descriptor: a process that inherits it holds the lock too, until it ends. Only while it is held."""
        assert self._fd is not None
        return self._fd

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # also for those who inherited it
            os.close(self._fd)
            self._fd = None


def lock_path(workspace: Workspace) -> Path:
    """Where the owner's lock is."""
    return workspace.runtime / "owner.lock"


def read_owner(path: Path) -> Owner | None:
    """Who the lock file names; None when nobody does. Says nothing about whether the lock is held: see `current_owner`."""
    try:
        given = json.loads(path.read_bytes())
        return Owner(**{name: given[name] for name in Owner.__slots__ if name in given})
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def current_owner(workspace: Workspace) -> Owner | None:
    """The living process that holds the workspace, or None. Changes nothing."""
    path = lock_path(workspace)
    owner = read_owner(path)
    return owner if owner is not None and owner.alive(path) else None


def left_behind(owner: Owner, path: Path) -> LilyError:
    """What there is to say where `owner` has ended and its lock is held all the same: `owner_conflict`."""
    pids = heirs(owner, path)
    holding = f"pid {', '.join(pids)}, which it started, still holds" if pids else "something that it started still holds"
    end = f"`kill -KILL {' '.join(pids)}` ends it" if pids else "it has to be ended"
    return LilyError(
        Code.OWNER_CONFLICT,
        f"{owner.process} (lily {owner.kind}, since {owner.since}) has ended, and {holding} this workspace",
        where=str(path.parent.parent.parent),
        hint=f"what writes files goes with its last batch; where that hangs, or is stopped, {end}",
        pid=owner.pid,
    )


def heirs(owner: Owner, path: Path) -> list[str]:
    """The process numbers of those that hold the lock that `owner`, which is dead, had taken; as far as the system shows them."""
    try:
        inode = str(path.stat().st_ino)
        return [pid for pid in os.listdir("/proc") if pid.isdecimal() and _inherited(pid, str(owner.pid), inode)]
    except OSError:
        return []


def _inherited(pid: str, taker: str, inode: str) -> bool:
    told = f"/proc/{pid}/fdinfo"
    try:
        lines = [line.split() for name in os.listdir(told) for line in Path(told, name).read_text(encoding="utf-8").splitlines()]
    except OSError:  # it ended, or is another user's
        return False
    # Such as: lock: 1: FLOCK ADVISORY WRITE 31416 fe:00:2869417 0 EOF. In a container the number of a taker that is dead is 0.
    locks = [words for words in lines if words[:1] == ["lock:"] and words[2:3] == ["FLOCK"]]
    return any(words[5] in (taker, "0") and words[6].rpartition(":")[2] == inode for words in locks)


def _is_held(path: Path) -> bool:
    """Whether somebody holds the lock, by taking it for a moment beside others who look."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
