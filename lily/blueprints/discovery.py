"""Finding blueprints in modules: files of the workspace, and entry points of installed packages.

User code runs here. Whatever it does, the outcome is what was found and a list of problems, each with its place.
"""

import linecache
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from lily.blueprints.catalog import BLUEPRINT, SPECIALIST, SUBJECT, SYNTHESIZER
from lily.blueprints.define import DefinedBlueprint, Specialist, Synthesizer, check_blueprint
from lily.blueprints.means import HINT, is_doubtful, is_spent
from lily.blueprints.schemas import one_line, said
from lily.conditions.define import Subject
from lily.errors import Code
from lily.text import text_of

_DOUBTS = 2  # loads of one version that may lack descriptors while some are free again: with more of them it is that version's own doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a place where blueprints come from that can't be used."""

    path: str
    line: int | None
    code: Code
    message: str
    hint: str = ""

    @property
    def place(self) -> str:
        """`path:line`, or the path where no line is known."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A blueprint, specialist, synthesizer or subject, and where it comes from."""

    kind: str
    item: Any
    origin: str  # "built-in", "package NAME" or a path
    place: str  # path:line, for messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one file or entry point gave."""

    found: tuple[Found, ...] = ()
    problems: tuple[Problem, ...] = ()
    spent: bool = False  # descriptors or memory had run out: the next look tries it again
    doubts: int = field(default=0, compare=False)  # how many loads of this version were `means.is_doubtful`


def load_file(path: Path, module_name: str, *, origin: str, doubts: int = 0) -> Loaded:
    """Run a file as a module of that private name and collect what it defines. `doubts`: those of earlier loads of the same version.

    Compiled from its bytes each time: a cached .pyc is keyed by whole seconds, and would hide a quick second edit.
    """
    linecache.checkcache(str(path))
    module = ModuleType(module_name)
    module.__file__ = str(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return _failed(_unreadable(path, error), is_spent(error), doubts)
    sys.modules[module_name] = module  # dataclasses and annotations look their module up there
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        del sys.modules[module_name]
        return _raised(_crashed(path, error), error, doubts)
    return collect(module, origin=origin, path=str(path))


def load_entry_point(point: Any, *, doubts: int = 0) -> Loaded:
    """What an entry point of an installed package offers: it names a module, or one object in it. `doubts`: as for a file."""
    origin = f"package {getattr(getattr(point, 'dist', None), 'name', None) or 'unknown'}"
    try:
        target = point.load()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return _raised(_problem(f"{origin}, entry point {point.name}", None, said(error)), error, doubts)
    if isinstance(target, ModuleType):
        return collect(target, origin=origin, path=getattr(target, "__file__", None) or point.value)
    return examine([(point.name, target)], origin=origin, path=point.value)


def _raised(problem: Problem, error: BaseException, doubts: int) -> Loaded:
    doubts += is_doubtful(error)
    return _failed(problem, is_spent(error) and doubts <= _DOUBTS, doubts)


def _failed(problem: Problem, spent: bool, doubts: int) -> Loaded:
    if spent:
        problem = replace(problem, hint=f"its blueprints are missing until it can be loaded, which is tried again: {HINT}, or mend it")
    return Loaded(problems=(problem,), spent=spent, doubts=doubts)


def _unreadable(path: Path, error: Exception) -> Problem:
    line = error.lineno if isinstance(error, SyntaxError) else None
    return _problem(str(path), line, f"{type(error).__name__}: {getattr(error, 'msg', None) or error}")


def _crashed(path: Path, error: BaseException) -> Problem:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return _problem(str(path), lines[-1] if lines else None, said(error))


def _problem(path: str, line: int | None, message: str, code: Code = Code.BLUEPRINT_COMPILE_FAILED) -> Problem:
    return Problem(path=path, line=line, code=code, message=one_line(message), hint="its blueprints are missing until this is mended")


def collect(module: ModuleType, *, origin: str, path: str) -> Loaded:
    """Everything at the top level of a module that is a blueprint, specialist, synthesizer or subject.

    Blueprint classes count when the module itself defines them and makes no instance of its own.
    """
    members = list(vars(module).items())
    instances = {type(value) for _, value in members}
    own = [
        (name, value)
        for name, value in members
        if not isinstance(value, type) or (value.__module__ == module.__name__ and value not in instances)
    ]
    return examine(own, origin=origin, path=path)


def examine(members: Iterable[tuple[str, Any]], *, origin: str, path: str) -> Loaded:
    """Those of `members` that are usable; those that nearly are become problems."""
    found: list[Found] = []
    problems: list[Problem] = []
    for name, value in members:
        kind = kind_of(value)
        if kind is None or any(value is known.item for known in found):
            continue
        line = _line(value)
        try:
            item = value() if isinstance(value, type) else value
            if kind == BLUEPRINT:
                check_blueprint(item)
        except (TypeError, ValueError) as error:
            problems.append(_problem(path, line, f"{name}: {text_of(error)}", Code.BLUEPRINT_CONTRACT_INVALID))
            continue
        except BaseException as error:  # a class may do anything when it is made
            if isinstance(error, KeyboardInterrupt):
                raise
            problems.append(_problem(path, line, f"{name}: {said(error)}", Code.BLUEPRINT_CONTRACT_INVALID))
            continue
        found.append(Found(kind=kind, item=item, origin=origin, place=path if line is None else f"{path}:{line}"))
    return Loaded(found=tuple(found), problems=tuple(problems))


def kind_of(value: Any) -> str | None:
    """What a module's member is: blueprint, specialist, synthesizer, subject, or None for anything else."""
    if isinstance(value, Specialist):
        return SPECIALIST
    if isinstance(value, Synthesizer):
        return SYNTHESIZER
    if isinstance(value, Subject):
        return SUBJECT
    if isinstance(value, DefinedBlueprint):
        return BLUEPRINT
    if isinstance(value, ModuleType):
        return None
    try:
        looks = isinstance(value.id, str) and isinstance(value.version, str) and callable(value.compile)
    except Exception:  # an object may refuse to be asked; then it is none
        return None
    return BLUEPRINT if looks else None


def _line(value: Any) -> int | None:
    code = getattr(getattr(value, "body", None), "__code__", None)
    return getattr(code, "co_firstlineno", None)
