"""Every blueprint that a job may name: built in, from installed packages, and from the workspace."""

import difflib
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lily.blueprints import discovery
from lily.blueprints.catalog import BLUEPRINT, BUILT_IN, SPECIALIST, SUBJECT, SYNTHESIZER, Row
from lily.blueprints.contract import Blueprint
from lily.blueprints.define import Specialist, Synthesizer
from lily.blueprints.discovery import Found, Problem
from lily.blueprints.envelope import plain
from lily.blueprints.folder import Folder
from lily.blueprints.means import HINT, is_spent, spent
from lily.blueprints.packages import Packages
from lily.blueprints.schemas import json_schema, validated
from lily.blueprints.versions import matches
from lily.conditions.define import Subject
from lily.errors import Code, LilyError

_VERSION = re.compile(r"\.v\d+$")  # of an id


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of `lily blueprints list`."""

    id: str
    version: str
    summary: str
    capabilities: tuple[str, ...]
    origin: str


@dataclass(slots=True)
class _Entry:
    """What an id stands for. `item` is None until the module of a built-in one is imported."""

    kind: str
    id: str
    origin: str
    place: str
    item: Any = None
    source: Any = None  # the object as it was found: `attach` may have made `item` of it
    row: Row | None = None
    others: tuple[str, ...] = ()  # more places that claim the id; not empty means: refused


class Registry:
    """Resolves ids. Looking up runs user code only on the first look and in `refresh`; both may block, so offload them.

    `folder` is the workspace's `.lily/blueprints`; None for a registry without a workspace.
    """

    def __init__(self, folder: Path | None = None, *, entry_points: Callable[[], Iterable[Any]] | None = None) -> None:
        self._folder = Folder(folder)
        self._packages = Packages(entry_points)
        self._behind = True  # something was read that the table does not show yet
        self._registered: list[Found] = []
        self._table: dict[tuple[str, str], _Entry] = {}
        self._attached: dict[int, tuple[Any, Any]] = {}
        self._lock = threading.RLock()

    # -- what is there ---------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Look at the workspace's files again and load those that changed; whether anything did.

        Raises LilyError (`means.is_spent`) where nobody can look; then all stays as it was. A file or an entry point for which alone
        nothing was left is one of `problems`, and tried again by the next look.
        """
        with self._lock:
            with _means("blueprints can't be looked for now"):
                self._behind = self._packages.read() or self._behind
                self._behind = self._folder.read() or self._behind
            changed = self._behind
            if changed or not self._table:
                self._table = self._build()
            self._behind = False
            return changed

    def register(self, item: Any, origin: str = "this program") -> None:
        """Add a blueprint, specialist, synthesizer or subject by hand. Raises ValueError or TypeError for what is none."""
        loaded = discovery.examine([(str(getattr(item, "id", item)), item)], origin=origin, path=origin)
        if loaded.problems:
            raise TypeError(loaded.problems[0].message)
        if not loaded.found:
            raise TypeError(f"{item!r} is neither a blueprint, nor a specialist, nor a synthesizer, nor a subject")
        with self._lock:
            self._registered.extend(loaded.found)
            self._table = {}

    def problems(self) -> Sequence[Problem]:
        """The files and entry points that can't be used, and the ids that two places claim."""
        table = self._current()
        loaded = [*self._folder.loaded(), *self._packages.loaded()]
        doubles = [_duplicate_problem(entry) for entry in table.values() if entry.others]
        return sorted((p for one in loaded for p in one.problems), key=lambda p: (p.path, p.line or 0)) + doubles

    def list(self) -> Sequence[Listed]:
        """One row for each blueprint that resolves, by id."""
        rows = [_listed(entry) for entry in self._current().values() if entry.kind == BLUEPRINT and not entry.others]
        return sorted(rows, key=lambda row: row.id)

    def members(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """The specialists and synthesizers that councils may name, and the subjects of conditions, by id."""
        made: dict[str, Any] = {SPECIALIST + "s": [], SYNTHESIZER + "s": [], SUBJECT + "s": []}
        for (kind, id), entry in sorted(self._current().items()):
            if kind != BLUEPRINT and not entry.others:
                summary = entry.row.summary if entry.row else entry.item.summary
                made[kind + "s"].append({"id": id, "summary": summary, "origin": entry.origin})
        return made

    # -- one of them -----------------------------------------------------------------------------------------------

    def resolve(self, id: str, version: str | None = None) -> Blueprint:
        """The blueprint `id`, when its version is inside `version` (a pin or a range).

        Raises LilyError: `blueprint_not_found` (with what is close, or with the version that is there), `blueprint_duplicate`, or what
        `means.is_spent` knows, where it is not here and may be in what can't be loaded now.
        """
        entry = self._entry(BLUEPRINT, id)
        return _within(entry.item, version, entry.place)

    def specialist(self, id: str) -> Specialist:
        """The specialist `id`. Raises LilyError like `resolve`."""
        found: Specialist = self._get(SPECIALIST, id)
        return found

    def synthesizer(self, id: str) -> Synthesizer:
        """The synthesizer `id`. Raises LilyError like `resolve`."""
        found: Synthesizer = self._get(SYNTHESIZER, id)
        return found

    def subject(self, id: str) -> Subject:
        """The subject `id` of conditions. Raises LilyError like `resolve`."""
        found: Subject = self._get(SUBJECT, id)
        return found

    def describe(self, id: str) -> dict[str, Any]:
        """All there is to say of a blueprint: its row, its JSON Schemas, an example of bindings and of a job."""
        found = self.resolve(id)
        return {
            "id": found.id,
            "version": found.version,
            "summary": found.summary,
            "capabilities": sorted(found.capabilities),
            "origin": self._table[BLUEPRINT, id].origin,
            "in_process": found.in_process,
            "bindings_schema": json_schema(found.bindings_schema),
            "input_schema": json_schema(found.input_schema),
            "output_schema": json_schema(found.output_schema),
            "example": plain(found.example, "example"),
            "example_job": example_job(found),
        }

    # -- inside ----------------------------------------------------------------------------------------------------

    def _current(self) -> dict[tuple[str, str], _Entry]:
        if not self._table:
            self.refresh()
        return self._table

    def _get(self, kind: str, id: str) -> Any:
        return self._entry(kind, id).item

    def _entry(self, kind: str, id: str) -> _Entry:
        if not self._table or ((kind, id) not in self._table and self._spent()):
            self.refresh()
        entry = self._table.get((kind, id))
        if entry is None:
            missing = self._spent()
            raise self._not_now(kind, id, missing) if missing else self._unknown(kind, id)
        if entry.others:
            problem = _duplicate_problem(entry)
            raise LilyError(Code.BLUEPRINT_DUPLICATE, problem.message, hint=problem.hint, id=id, places=[entry.place, *entry.others])
        if entry.item is None:
            self._import(entry)
        return entry

    def _spent(self) -> Sequence[Problem]:
        return [problem for one in (*self._folder.loaded(), *self._packages.loaded()) if one.spent for problem in one.problems]

    @staticmethod
    def _not_now(kind: str, id: str, missing: Sequence[Problem]) -> LilyError:
        places = ", ".join(f"{problem.place} ({problem.message})" for problem in missing[:3])
        return LilyError(
            Code.BLUEPRINT_COMPILE_FAILED,
            f"{kind} {id} is not here, and may be in what can't be loaded now: {places}",
            hint=f"{HINT}, or mend what can't be loaded",
            spent=True,
            id=id,
            not_loaded=[problem.place for problem in missing[:20]],
        )

    def _unknown(self, kind: str, id: str) -> LilyError:
        known = sorted(name for have, name in self._table if have == kind)
        stems = [_VERSION.sub("", name) for name in known]  # nearly all have the same version, which makes none of them alike
        alike = difflib.get_close_matches(_VERSION.sub("", id), stems, n=3)
        close = [name for name, stem in zip(known, stems, strict=True) if stem in alike]
        problems = [problem for problem in self.problems() if problem.code != Code.BLUEPRINT_DUPLICATE]
        broken = [problem.place for problem in problems]
        hints = [f"did you mean {' or '.join(close)}?"] if close else [f"there are {', '.join(known)}"]
        if problems:
            # First, for it is the likelier reason.
            hints.insert(0, f"not loaded: {', '.join(f'{problem.place} ({problem.message})' for problem in problems[:3])}")
        return LilyError(
            Code.BLUEPRINT_NOT_FOUND, f"there is no {kind} {id}", hint="; ".join(hints), id=id, close=close, not_loaded=broken[:20]
        )

    def _import(self, entry: _Entry) -> None:
        assert entry.row is not None
        with self._lock, _means(f"{entry.id} can't be loaded now"):
            module = importlib.import_module(entry.row.module)
            for found in discovery.collect(module, origin=entry.origin, path=entry.place).found:
                if (found.kind, found.item.id) == (entry.kind, entry.id):
                    entry.source = found.item
                    entry.item = self._attach(found.item)
                    return
        raise LilyError(Code.INTERNAL_ERROR, f"{entry.row.module} does not define {entry.id}")

    def _attach(self, item: Any) -> Any:
        """Blueprints that look others up get this registry: `attach` returns the copy that knows it."""
        attach = getattr(item, "attach", None)
        if attach is None:
            return item
        if id(item) not in self._attached:  # keeps the original alive too, so the id stays its own
            self._attached[id(item)] = (item, attach(self) or item)
        return self._attached[id(item)][1]

    def _build(self) -> dict[tuple[str, str], _Entry]:
        table = {(row.kind, row.id): _Entry(row.kind, row.id, "built-in", f"built in ({row.module})", row=row) for row in BUILT_IN}
        loaded = [*self._packages.loaded(), *self._folder.loaded()]
        for found in [*(found for one in loaded for found in one.found), *self._registered]:
            self._add(table, found)
        return table

    def _add(self, table: dict[tuple[str, str], _Entry], found: Found) -> None:
        key = (found.kind, found.item.id)
        entry = table.get(key)
        if entry is None:
            table[key] = _Entry(*key, found.origin, found.place, item=self._attach(found.item), source=found.item)
        elif not _is_same(entry, found.item):
            table[key] = replace(entry, others=(*entry.others, found.place))


class Pinned:
    """The registry as it was when this was first asked: an attempt keeps what it began with, also in what it runs later inside of it.

    What was not there then, or could not be used, is looked for in the registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table: dict[tuple[str, str], _Entry] = {}  # of the registry, which a refresh replaces and never changes
        self._attached: dict[tuple[str, str], Any] = {}

    def resolve(self, id: str, version: str | None = None) -> Blueprint:
        """As that of the registry."""
        entry = self._entry(BLUEPRINT, id)
        return _within(self._of_mine(entry), version, entry.place)

    def specialist(self, id: str) -> Specialist:
        """As that of the registry."""
        found: Specialist = self._of_mine(self._entry(SPECIALIST, id))
        return found

    def synthesizer(self, id: str) -> Synthesizer:
        """As that of the registry."""
        found: Synthesizer = self._of_mine(self._entry(SYNTHESIZER, id))
        return found

    def _entry(self, kind: str, id: str) -> _Entry:
        if not self._table:
            self._table = self._registry._current()
        entry = self._table.get((kind, id))
        return self._registry._entry(kind, id) if entry is None or entry.item is None or entry.others else entry

    def _of_mine(self, entry: _Entry) -> Any:
        if entry.row is None or not hasattr(entry.item, "attach"):
            return entry.item
        key = entry.kind, entry.id
        if key not in self._attached:  # built-in ones look others up, and are to find them here
            self._attached[key] = entry.item.attach(self)
        return self._attached[key]


def _within(found: Blueprint, version: str | None, place: str) -> Blueprint:
    """`found`, where it is inside `version`. Raises LilyError `blueprint_not_found`."""
    try:
        if version is None or matches(found.version, version):
            return found
    except ValueError as error:
        raise LilyError(Code.BLUEPRINT_NOT_FOUND, str(error), hint=f"{found.id} is here as version {found.version}") from None
    raise LilyError(
        Code.BLUEPRINT_NOT_FOUND,
        f"{found.id} is here as version {found.version}, and {version} is asked for",
        where=place,
        hint="change target.version, or install a version inside it",
        id=found.id,
        version=version,
        available=[found.version],
    )


@contextmanager
def _means(what: str) -> Iterator[None]:
    """Nothing is remembered of a load for which descriptors or memory had run out: the next look does it again."""
    try:
        yield
    except OSError as error:
        if not is_spent(error):
            raise
        raise spent(what, error) from error


def example_job(found: Blueprint) -> dict[str, Any]:
    """A whole job spec that runs the blueprint's example by hand; `example_input` of the blueprint is its input."""
    example = plain(found.example, "example")
    try:
        needed = found.capabilities_for(validated(found.bindings_schema, example, "bindings")) if example else found.capabilities
    except Exception:  # an example that does not fit: `lily jobs validate` says why, of the job that is made of it
        needed = found.capabilities
    given = plain(getattr(found, "example_input", {}), "example_input")
    return {
        "id": f"{found.id.split('.')[0].replace('_', '-')}-example",
        "title": found.summary or found.id,
        "target": {"kind": "blueprint", "id": found.id, "version": f">={found.version}", **({"input": given} if given else {})},
        "bindings": example,
        "trigger": {"type": "manual"},
        "capabilities": sorted(needed),
        "runtime": {},
        "output": {},
    }


def _is_same(entry: _Entry, item: Any) -> bool:
    """Importing a blueprint into another module is no second definition of it."""
    if entry.row is None:
        return entry.source is item
    return any(item is value for value in vars(sys.modules.get(entry.row.module, object)).values())


def _listed(entry: _Entry) -> Listed:
    if entry.row is not None:
        return Listed(
            id=entry.id, version=entry.row.version, summary=entry.row.summary, capabilities=entry.row.capabilities, origin=entry.origin
        )
    item = entry.item
    return Listed(
        id=item.id, version=item.version, summary=item.summary, capabilities=tuple(sorted(item.capabilities)), origin=entry.origin
    )


def _duplicate_problem(entry: _Entry) -> Problem:
    places = [entry.place, *entry.others]
    path, _, line = entry.others[0].rpartition(":")
    known = line.isdigit()
    return Problem(
        path=path if known else entry.others[0],
        line=int(line) if known else None,
        code=Code.BLUEPRINT_DUPLICATE,
        message=f"{entry.kind} {entry.id} is defined in {' and in '.join(places)}",
        hint="rename all but one; until then none of them is used",
    )
