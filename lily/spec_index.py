"""The catalog of a workspace's jobs: unchanged files are not read again, and one bad file hides no other."""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from lily import __version__
from lily.clock import Clock, SystemClock
from lily.decoding import prepared
from lily.diagnostics import Diagnostic, to_error
from lily.errors import Code, LilyError
from lily.retry_defaults import RetryDefaults, defaults_of, stamp_of
from lily.spec_files import SUFFIXES, UNTRUSTED, Stamp, bytes_of, claimed_in, names_in, stamp_at, unheeded_in
from lily.trigger_forms import bare
from lily.workspace import Workspace

if TYPE_CHECKING:
    from lily.own_jobs import OwnJob
    from lily.specs import JobSpec

_FORMAT = f"lily specs 3 {__version__}"
# A file that changed this short a time before it was read may change again within the same timestamp.
_RACY_NS = 50_000_000


class SpecEntry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What lists and the scheduler need of one job. `path` is relative to the workspace; `line` and `column` are those of its id.

    `digest` is that of the spec that a run pins, `file_digest` that of what the file alone says: without the workspace's defaults.
    """

    id: str
    title: str
    target_id: str
    target_version: str | None
    trigger: dict[str, Any]
    timezone: str | None
    labels: dict[str, str]
    digest: str
    path: str
    priority: str
    max_parallel_runs: int
    line: int = 1
    column: int = 1
    file_digest: str = ""


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of one file, as long as its stamp (mtime_ns, size, inode) stays the same."""

    stamp: Stamp
    entry: SpecEntry | None
    diagnostics: list[Diagnostic]
    claimed: str | None  # the id that the text or else the name gives, also when something else in it is wrong


class _Cache(msgspec.Struct, array_like=True):
    format: str
    records: dict[str, _Record]  # by file name
    config: Stamp  # the stamp of the settings' file
    retries: RetryDefaults  # what it says of them


class Share(msgspec.Struct, array_like=True):
    """What was found in some of the files, by name, and what `SpecIndex.body` will be asked for of them."""

    records: dict[str, _Record]
    bodies: dict[str, bytes]


class Catalog(msgspec.Struct, frozen=True):
    """The good jobs by id, and everything that is wrong with the other files.

    `complete` is False when the folder itself could not be read: then nothing is known about what it holds. `claimed` are the ids
    that files which can't be used give themselves, or else have as their name, by path.
    """

    jobs: dict[str, SpecEntry]
    diagnostics: list[Diagnostic]
    complete: bool = True
    claimed: dict[str, str] = {}


class SpecIndex:
    """The jobs of one workspace. May be used by several threads; keeps what it learnt in memory and in `.lily/run/specs.index`."""

    def __init__(
        self,
        workspace: Workspace,
        clock: Clock | None = None,
        *,
        keep_bodies: bool = False,
        read_only: bool = False,
        own: "Mapping[str, OwnJob] | None" = None,
        retries: RetryDefaults | None = None,
    ) -> None:
        """`keep_bodies`: what is parsed will be asked for with `body`, by whoever registers schedules. `read_only`: nothing is written.
        `own`: built-in jobs that catalogs are to hold beside those of files; without it only `find` and `load` know them.

        `retries` are the settings for jobs that say nothing of them; None: those that the file of settings has at the first look.
        """
        self.keep_bodies = keep_bodies
        self._read_only = read_only
        self._workspace = workspace
        self._clock = clock or SystemClock()
        self._cache = workspace.runtime / "specs.index"
        self._at = str(workspace.jobs)  # text: this runs once a file, and pathlib costs more than the stat
        self._folder = workspace.jobs.relative_to(workspace.root).as_posix()
        self._records: dict[str, _Record] | None = None
        self._catalog: Catalog | None = None  # what `_records` come to
        self._lock = threading.Lock()
        self._retries, self._config, self._news = retries, UNTRUSTED, False
        self._next: RetryDefaults | None = None
        self.parsed = 0  # files read and parsed by this index so far
        self._own = dict(own or {})
        self._bodies: dict[str, bytes] = {}  # canonical JSON by digest of jobs with a schedule that were parsed and not asked for yet

    def scan(self) -> Catalog:
        """Look at every file's stamp, read those that changed. Never raises for what the files or the folder hold.

        As long as nothing changes, the answer is the same object.
        """
        with self._lock:
            return self._scan()

    def unread(self) -> list[str]:
        """Names of the files of which nothing is known, for whoever shares that work before the first scan; none where it can't be told."""
        with self._lock:
            if self._records is None:
                self._records = self._load_cache()
            try:
                return sorted(set(names_in(self._at)) - self._records.keys())
            except OSError:
                return []

    def read(self, names: Iterable[str]) -> Share:
        """What is in these files, but for those whose name is not UTF-8, which no `Share` can hold. They are not known yet: see `learn`."""
        self._set_retries()
        found = ((name, stamp) for name in names if self._plain(name) and (stamp := self._stamp(name)) is not None)
        records = {name: record for name, stamp in found if (record := self._read(name, stamp)) is not None}
        bodies, self._bodies = self._bodies, {}
        return Share(records, bodies)

    def learn(self, share: Share) -> None:
        """Take what was found for known, as long as the files stay as they were."""
        with self._lock:
            self._records = {**(self._records or {}), **share.records}
            self._bodies.update(share.bodies)
            self._news = True

    def hold(self, own: "Mapping[str, OwnJob]") -> None:
        """Have catalogs hold these built-in jobs from now on."""
        with self._lock:
            self._own, self._catalog = dict(own), None

    def find(self, job_id: str) -> SpecEntry | None:
        """What is known of a job that can be used, a built-in one too; None for every other id."""
        return self.built_in(job_id) or self.scan().jobs.get(job_id)

    def built_in(self, job_id: str) -> SpecEntry | None:
        """A built-in job; None for every other id. Raises `config_invalid` where the settings that it comes from can't be read."""
        own = self._own_job(job_id)
        return None if own is None else _own_entry(own)

    def use(self, retries: RetryDefaults) -> None:
        """Have other settings of retries hold from the next look on; where they differ every file is read again then. Does not block."""
        self._next = retries

    @property
    def retries(self) -> RetryDefaults:
        """The settings of retries that hold here."""
        with self._lock:
            if self._retries is None:
                self._records = self._load_cache()
            return self._set_retries()

    def load(self, job_id: str) -> "JobSpec":
        """One job, read from its file now. Raises LilyError: `job_not_found`, or what is wrong with the file that should hold it."""
        own = self._own_job(job_id)
        if own is not None:
            from lily.specs import JobSpec

            return JobSpec.model_validate_json(own.canonical)
        catalog = self.scan()
        entry = catalog.jobs.get(job_id)
        if entry is None:
            raise self._missing(job_id, catalog)
        from lily.specs import JobSpec

        found = self._parsed(entry.path.rpartition("/")[2])
        if isinstance(found, list):
            raise to_error(found)
        if not isinstance(found, JobSpec) or found.id != job_id:
            raise self._missing(job_id, self.scan())  # the file changed between the two looks
        return found

    def body(self, entry: SpecEntry) -> bytes | None:
        """The canonical JSON of a job as it was found; None when its file says something else by now."""
        own = self._own.get(entry.id)
        if own is not None:
            return own.canonical if own.digest == entry.digest else None
        found = self._bodies.pop(entry.digest, None)
        if found is None:
            from lily.specs import JobSpec, spec_hash

            spec = self._parsed(entry.path.rpartition("/")[2])
            found = spec.canonical() if isinstance(spec, JobSpec) else None
            if found is None or spec_hash(found) != entry.digest:
                return None
        return found

    def _own_job(self, job_id: str) -> "OwnJob | None":
        from lily.own_jobs import is_own, own_jobs

        if not is_own(job_id):
            return None
        return (self._own or own_jobs(self._workspace)).get(job_id)

    def _missing(self, job_id: str, catalog: Catalog) -> LilyError:
        paths = {self._shown(name) for name, record in (self._records or {}).items() if record.claimed == job_id}
        paths |= {f"{self._folder}/{job_id}{suffix}" for suffix in SUFFIXES}
        # Where the folder itself can't be read, nobody knows which jobs there are.
        wrong = [each for each in catalog.diagnostics if each.path in paths] if catalog.complete else catalog.diagnostics
        if wrong:
            return to_error(wrong)
        from difflib import get_close_matches  # only a mistake pays for it

        close = [entry.id for entry in catalog.jobs.values() if entry.path.endswith(f"/{job_id}") or entry.path == job_id]
        close = close or get_close_matches(job_id[:128], catalog.jobs, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `lily jobs list`"
        for each in self.unheeded():
            if re.sub(r"(\.job)?\.ya?ml$", "", each.path.rpartition("/")[2], flags=re.IGNORECASE) == job_id:
                hint = f"{each.path} is not read: {each.hint}"
        return LilyError(Code.JOB_NOT_FOUND, f"no job has the id {job_id[:128]!r}", where=str(self._workspace.root), hint=hint)

    def unheeded(self) -> list[Diagnostic]:
        """What lies beside the job files, or below them, as if it were one: nobody reads it, and nothing else would say so."""
        found = []
        for name in unheeded_in(str(self._workspace.jobs)):
            hint = f"move it into {self._folder}" if "/" in name else "its name must end with .job.yaml"
            found.append(_whole_file(self._shown(name), "it is not read", hint))
        return found

    def _shown(self, name: str) -> str:
        return f"{self._folder}/{os.fsencode(name).decode('utf-8', 'backslashreplace')}"

    def _scan(self) -> Catalog:
        given, self._next = self._next, None
        if given is not None and given != self._retries:
            self._retries, self._records, self._catalog = given, None, None
            self._config = UNTRUSTED  # these need not be those of the file that was seen last
            self._bodies.clear()
        known = self._load_cache() if self._records is None else self._records
        try:
            found = [(name, stamp) for name in sorted(names_in(self._at)) if (stamp := self._stamp(name)) is not None]
        except FileNotFoundError:
            found = []
        except OSError as error:
            return Catalog({}, [_whole_file(self._folder, f"the folder can't be read: {error.strerror}", _PERMISSIONS)], complete=False)
        records: dict[str, _Record] = {}
        same = self._catalog is not None and len(found) == len(known)
        for name, stamp in found:
            record = known.get(name)
            if record is None or record.stamp != stamp or isinstance(stamp, str):
                record, same = self._read(name, stamp), False
            if record is not None:
                records[name] = record
        if same and self._catalog is not None:
            return self._catalog
        self._save(records, known)
        self._records, self._catalog = records, _catalog(records, self._shown)
        if self._own:
            self._catalog.jobs.update((job_id, _own_entry(job)) for job_id, job in self._own.items())
        return self._catalog

    def _stamp(self, name: str) -> Stamp | str | None:
        return stamp_at(self._at, name, self._folder)

    def _read(self, name: str, stamp: Stamp | str) -> _Record | None:
        if isinstance(stamp, str):
            return self._unread(name, stamp, "put a regular file there")
        before = int(self._clock.now().timestamp() * 1e9)
        try:
            found, stamp, claimed = self._parse_file(name)
        except FileNotFoundError:
            return None  # removed since the folder was listed
        except OSError as error:
            return self._unread(name, f"can't be read: {error.strerror}", _PERMISSIONS)
        trusted = stamp if stamp[0] < before - _RACY_NS else UNTRUSTED
        return _Record(trusted, None, found, claimed) if isinstance(found, list) else _Record(trusted, found, [], claimed)

    def _unread(self, name: str, why: str, hint: str) -> _Record:
        """Its name alone can tell which job goes on with its last good version."""
        return _Record(UNTRUSTED, None, [_whole_file(self._shown(name), why, hint)], claimed_in(name, b""))

    def _parsed(self, name: str) -> "JobSpec | list[Diagnostic]":
        from lily.specs import parse

        try:
            data, _ = bytes_of(f"{self._at}/{name}")
        except OSError as error:
            return [_whole_file(self._shown(name), f"can't be read: {error.strerror}", _PERMISSIONS)]
        spec = parse(data, self._shown(name))
        return spec if isinstance(spec, list) else self._set_retries().apply(spec)

    def _parse_file(self, name: str) -> tuple[SpecEntry | list[Diagnostic], Stamp, str | None]:
        from lily.specs import parse_located, spec_hash

        data, stamp = bytes_of(f"{self._at}/{name}")
        self.parsed += 1
        path = self._shown(name)
        if path != f"{self._folder}/{name}":
            return [_whole_file(path, "the file's name is not UTF-8", "rename it")], stamp, None
        spec, claimed, (line, column) = parse_located(data, path)
        if isinstance(spec, list):
            return spec, stamp, claimed or claimed_in(name, data)
        resolved = self._set_retries().apply(spec)
        canonical = resolved.canonical()
        digest = spec_hash(canonical)
        own = digest if resolved is spec else spec_hash(spec.canonical())
        entry = entry_of(resolved, digest, path, (line, column), own)
        if self.keep_bodies and spec.trigger.type != "manual":
            self._bodies[entry.digest] = canonical
        return entry, stamp, claimed

    def _load_cache(self) -> dict[str, _Record]:
        try:
            cache = msgspec.msgpack.decode(self._cache.read_bytes(), type=_Cache)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return {}  # a cache: what can't be read is made again
        if cache.format != _FORMAT:
            return {}
        at = stamp_of(self._workspace)
        if cache.config == at != UNTRUSTED and self._retries in (None, cache.retries):
            self._retries, self._config = cache.retries, at
        same = cache.retries == self._set_retries()
        self._news = not same or self._config not in (UNTRUSTED, cache.config)
        return cache.records if same else {}

    def _set_retries(self) -> RetryDefaults:
        """Those given, else those of the file of settings, which is read once."""
        if self._retries is None:
            at, before = stamp_of(self._workspace), self._clock.now().timestamp() * 1e9
            found = defaults_of(self._workspace)
            self._retries = found or RetryDefaults()
            self._config = at if found is not None and at[0] < before - _RACY_NS else UNTRUSTED
        return self._retries

    def _save(self, records: dict[str, _Record], known: dict[str, _Record]) -> None:
        if self._read_only or (records == known and not self._news):
            return
        plain = {name: each for name, each in records.items() if self._plain(name)}
        body = msgspec.msgpack.encode(_Cache(_FORMAT, plain, self._config, self._set_retries()))
        self._news = False
        temporary = self._cache.with_name(f".specs.index.{os.getpid()}.{threading.get_ident()}")
        try:
            self._cache.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(body)
            os.rename(temporary, self._cache)
        except OSError:
            with suppress(OSError):  # it was never made, or the folder is read-only
                temporary.unlink()
            # The next scan reads the files again, which is slower and just as right.

    def _plain(self, name: str) -> bool:
        return self._shown(name) == f"{self._folder}/{name}"


_PERMISSIONS = "check its permissions"


def entry_of(spec: "JobSpec", digest: str, path: str, place: tuple[int, int], file_digest: str) -> SpecEntry:
    """What a catalog says of a checked job: its digests, the path it is shown under, and where its id stands."""
    return SpecEntry(
        id=spec.id,
        title=spec.title,
        target_id=spec.target.id,
        target_version=spec.target.version,
        trigger=bare(spec.trigger.model_dump()),
        timezone=spec.timezone,
        labels=spec.labels,
        digest=digest,
        path=path,
        priority=spec.runtime.priority,
        max_parallel_runs=spec.runtime.max_parallel_runs,
        line=place[0],
        column=place[1],
        file_digest=file_digest,
    )


def _own_entry(job: "OwnJob") -> SpecEntry:
    from lily.own_jobs import PLACE

    spec = job.spec
    return SpecEntry(
        id=spec.id,
        title=spec.title,
        target_id=spec.target.id,
        target_version=spec.target.version,
        trigger=bare(spec.trigger),
        timezone=spec.timezone,
        labels=spec.labels,
        digest=job.digest,
        path=PLACE,
        priority=spec.runtime.priority,
        max_parallel_runs=spec.runtime.max_parallel_runs,
    )


def _whole_file(path: str, message: str, hint: str) -> Diagnostic:
    return Diagnostic(path=path, line=1, column=1, field="", code=Code.JOB_INVALID_SPEC, message=message, hint=hint)


def _catalog(records: dict[str, _Record], shown: Any) -> Catalog:
    by_id: dict[str, list[SpecEntry]] = {}
    diagnostics: list[Diagnostic] = []
    for record in records.values():
        diagnostics += record.diagnostics
        if record.entry is not None:
            by_id.setdefault(record.entry.id, []).append(record.entry)
    for entries in by_id.values():
        if len(entries) > 1:
            diagnostics += [_duplicate(entry, entries) for entry in entries]
    diagnostics.sort(key=lambda each: each.path)
    claimed = {shown(name): record.claimed for name, record in records.items() if record.entry is None and record.claimed}
    claimed |= {entry.path: entry.id for entries in by_id.values() if len(entries) > 1 for entry in entries}
    good = {id: entries[0] for id, entries in sorted(by_id.items()) if len(entries) == 1}
    return Catalog(good, diagnostics, claimed=claimed)


def _duplicate(entry: SpecEntry, entries: list[SpecEntry]) -> Diagnostic:
    others = [each.path for each in entries if each is not entry]
    named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    message = f"the id `{entry.id}` of {entry.path} is also in {named}; none of them is used"
    place = {"path": entry.path, "line": entry.line, "column": entry.column, "hint": "give each file an id of its own"}
    return Diagnostic(**place, field="id", code=Code.JOB_INVALID_SPEC, message=message)  # type: ignore[arg-type]


prepared(_Cache, Share)
