"""Where blueprints come from, and what happens to those that can't be used."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from lily.blueprints import means
from lily.blueprints.catalog import BLUEPRINT, BUILT_IN
from lily.blueprints.define import BlueprintBase, blueprint
from lily.blueprints.envelope import checked
from lily.blueprints.means import is_spent, is_without_descriptors
from lily.blueprints.registry import Registry
from lily.blueprints.schemas import validated
from lily.blueprints.testkit import FakeContext
from lily.blueprints.versions import matches, parse_version
from lily.errors import Code, LilyError
from lily.preflight import Ready, preflight
from lily.runs import PinnedSpec

GREET = '''
from lily.blueprints.define import blueprint

@blueprint("{id}", version="{version}")
async def greet(ctx, bindings, run_input):
    """Greets."""
    return {{"word": "{word}"}}
'''


def write(
    folder: Path, name: str = "greet.py", *, id: str = "greet.v1", version: str = "1.0.0", word: str = "hello", text: str | None = None
) -> Path:
    path = folder / name
    path.write_text(GREET.format(id=id, version=version, word=word) if text is None else text)
    return path


async def silent(ctx: Any, bindings: Any, run_input: Any) -> None:
    """Nothing."""


def failure(registry: Registry, *arguments: Any) -> LilyError:
    with pytest.raises(LilyError) as caught:
        registry.resolve(*arguments)
    return caught.value


def test_the_catalogue_says_what_the_objects_say() -> None:
    registry = Registry()
    for row in BUILT_IN:
        if row.kind == BLUEPRINT:
            found = registry.resolve(row.id)
            assert (row.version, row.summary, frozenset(row.capabilities)) == (found.version, found.summary, found.capabilities), row.id
        else:
            assert getattr(registry, row.kind)(row.id).summary == row.summary, row.id


@pytest.mark.parametrize("id", [row.id for row in BUILT_IN if row.kind == BLUEPRINT])
def test_the_example_of_a_built_in_fits_and_compiles(id: str) -> None:
    registry = Registry()
    found = registry.resolve(id)
    bindings = validated(found.bindings_schema, found.example, "bindings")
    assert callable(found.compile(bindings))
    shown = registry.describe(id)
    assert shown["example_job"]["capabilities"] == sorted(found.capabilities_for(bindings))
    assert shown["bindings_schema"]["type"] == "object"
    assert shown["origin"] == "built-in"


@pytest.mark.anyio
@pytest.mark.parametrize("id", ["council.v1", "pipeline.v1"])
async def test_an_example_that_needs_nothing_from_outside_runs(id: str, tmp_path: Path) -> None:
    """What `lily blueprints show` prints can be pasted and run."""
    registry = Registry()
    job = {**registry.describe(id)["example_job"], "runtime": {}}
    ready = preflight(msgspec.convert(job, PinnedSpec), registry, SimpleNamespace(capabilities={}, max={}), tmp_path)
    assert isinstance(ready, Ready), ready
    envelope = checked(await ready.runnable(FakeContext(tmp_path, registry=registry), ready.run_input), ready.blueprint)
    assert envelope.status == "ok"
    assert envelope.artifacts
    assert all((tmp_path / "run" / name).is_file() for name in envelope.artifacts)


def test_listing_imports_nothing_heavy() -> None:
    """A listing says what is there; only using one costs its libraries."""
    code = (
        "import sys; from lily.blueprints.registry import Registry; print(len(Registry().list()));"
        "print([name for name in ('pydantic', 'httpx', 'openai', 'anyio', 'trio', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.stdout.splitlines() == ["7", "[]"]


def test_blueprints_of_the_workspace_are_found(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "_helper.py", text="raise RuntimeError('never loaded')")
    registry = Registry(tmp_path)
    row = next(row for row in registry.list() if row.id == "greet.v1")
    assert (row.summary, row.origin, row.version) == ("Greets.", ".lily/blueprints/greet.py", "1.0.0")
    assert not registry.problems()


def test_a_class_can_be_a_blueprint(tmp_path: Path) -> None:
    """Its instance at module level, or the class itself where there is none."""
    text = """
from lily.blueprints.contract import Envelope
from lily.blueprints.define import BlueprintBase

class One(BlueprintBase):
    id = "one.v1"
    summary = "One."
    def compile(self, bindings):
        async def run(ctx, run_input):
            return Envelope()
        return run

class Two(One):
    id = "two.v1"
    def __init__(self, word):
        self.word = word

two = Two("x")
alias = two
"""
    write(tmp_path, text=text)
    registry = Registry(tmp_path)
    assert {"one.v1", "two.v1"} <= {row.id for row in registry.list()}
    assert registry.resolve("two.v1").word == "x"  # type: ignore[attr-defined]
    assert not registry.problems()


@pytest.mark.parametrize(
    ("text", "line", "code", "named"),
    [
        ("x = 1\ndef broken(:\n", 2, Code.BLUEPRINT_COMPILE_FAILED, "SyntaxError"),
        ("x = 1\n\nimport no_such_module_at_all\n", 3, Code.BLUEPRINT_COMPILE_FAILED, "no_such_module_at_all"),
        ("import sys\nsys.exit(3)\n", 2, Code.BLUEPRINT_COMPILE_FAILED, "SystemExit: 3"),
        (
            "from lily.blueprints.define import blueprint\n@blueprint('x.v1')\ndef f(c, b, i): ...\n",
            2,
            Code.BLUEPRINT_COMPILE_FAILED,
            "async def",
        ),
        ("x = '\x00'\n", None, Code.BLUEPRINT_COMPILE_FAILED, "null"),
        (
            "class Half:\n    id = 'half.v1'\n    version = '1.0.0'\n    def compile(self, b): ...\n",
            None,
            Code.BLUEPRINT_CONTRACT_INVALID,
            "lacks summary",
        ),
        ("class Panic(BaseException): ...\n\nraise Panic('rust')\n", 3, Code.BLUEPRINT_COMPILE_FAILED, "Panic: rust"),
        ("class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd\n", 3, Code.BLUEPRINT_COMPILE_FAILED, "text can't be read"),
        (
            "import sys\nclass Made:\n    id = 'made.v1'\n    version = '1.0.0'\n"
            "    def __init__(self): sys.exit(7)\n    def compile(self, b): ...\n",
            None,
            Code.BLUEPRINT_CONTRACT_INVALID,
            "SystemExit: 7",
        ),
    ],
)
def test_a_broken_file_is_a_problem_of_its_own(text: str, line: int | None, code: Code, named: str, tmp_path: Path) -> None:
    """It names its place, and hides no other file."""
    path = write(tmp_path, "broken.py", text=text)
    write(tmp_path)
    registry = Registry(tmp_path)
    assert registry.resolve("greet.v1")
    (problem,) = registry.problems()
    assert (problem.path, problem.line, problem.code) == (str(path), line, code)
    assert named in problem.message
    assert "\n" not in problem.message
    hint = failure(registry, "x.v1").hint
    assert hint.startswith("not loaded: ")
    assert f"{problem.place} ({problem.message})" in hint


def test_a_file_that_is_not_text_is_contained(tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff\xfe'\n")
    (tmp_path / "folder.py").mkdir()
    assert len(Registry(tmp_path).problems()) == 2


def test_two_files_with_one_id_are_both_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    write(tmp_path, "b.py")
    write(tmp_path, "c.py", id="other.v1")
    registry = Registry(tmp_path)
    error = failure(registry, "greet.v1")
    assert error.code == Code.BLUEPRINT_DUPLICATE
    assert "a.py:" in error.message
    assert "b.py:" in error.message
    assert [problem.code for problem in registry.problems()] == [Code.BLUEPRINT_DUPLICATE]
    assert "greet.v1" not in {row.id for row in registry.list()}
    assert registry.resolve("other.v1")


def test_a_built_in_can_not_be_replaced_in_silence(tmp_path: Path) -> None:
    write(tmp_path, id="council.v1")
    error = failure(Registry(tmp_path), "council.v1")
    assert error.code == Code.BLUEPRINT_DUPLICATE
    assert "lily.blueprints.council" in error.message


def test_importing_a_blueprint_is_no_second_definition(tmp_path: Path) -> None:
    text = "from lily.blueprints.council import council\nfrom lily.blueprints.council_default import security\n"
    write(tmp_path, "a.py", text=text)
    write(tmp_path, "b.py", text=text)
    registry = Registry(tmp_path)
    assert not registry.problems()
    assert registry.resolve("council.v1")
    assert registry.specialist("security.v1")


def test_an_example_may_be_made_of_models(tmp_path: Path) -> None:
    """A job's file is made of it, so it is told as plain JSON."""
    text = """
from pydantic import BaseModel
from lily import blueprint

class Server(BaseModel):
    host: str

class Bindings(BaseModel):
    servers: list[Server]

@blueprint("asks.v1", bindings=Bindings, example={"servers": [Server(host="a")]})
async def asks(ctx, bindings, run_input):
    return 1
"""
    write(tmp_path, text=text)
    told = Registry(tmp_path, entry_points=list).describe("asks.v1")
    assert told["example"] == told["example_job"]["bindings"] == {"servers": [{"host": "a"}]}


def test_a_model_that_has_no_json_schema_is_shown_with_the_reason(tmp_path: Path) -> None:
    """The blueprint works: only its bindings can't be described."""
    text = """
from collections.abc import Callable
from pydantic import BaseModel
from lily import blueprint

class Bindings(BaseModel):
    key: Callable[[int], int] = abs

@blueprint("sorts.v1", bindings=Bindings)
async def sorts(ctx, bindings, run_input):
    return 1
"""
    write(tmp_path, text=text)
    told = Registry(tmp_path, entry_points=list).describe("sorts.v1")
    assert told["bindings_schema"]["title"] == "Bindings"
    assert "Cannot generate a JsonSchema" in told["bindings_schema"]["description"]


def test_refresh_loads_only_what_changed(tmp_path: Path) -> None:
    """A second edit inside one second is seen too: nothing is taken from a cache of bytecode."""
    path, other = write(tmp_path), write(tmp_path, "other.py", id="other.v1")
    registry = Registry(tmp_path)
    before, kept = registry.resolve("greet.v1"), registry.resolve("other.v1")
    assert registry.refresh() is False
    stat = path.stat()
    write(tmp_path, word="HELLO")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert registry.refresh() is True
    assert registry.resolve("greet.v1") is not before
    assert registry.resolve("other.v1") is kept
    other.unlink()
    assert registry.refresh() is True
    assert failure(registry, "other.v1").code == Code.BLUEPRINT_NOT_FOUND
    assert not list(tmp_path.glob("__pycache__"))


def test_a_broken_edit_takes_the_blueprint_away_and_a_mended_one_brings_it_back(tmp_path: Path) -> None:
    """Running older code than the file holds would be worse than saying so."""
    path = write(tmp_path)
    registry = Registry(tmp_path)
    registry.resolve("greet.v1")
    write(tmp_path, text="oops(")
    registry.refresh()
    assert str(path) in failure(registry, "greet.v1").hint
    write(tmp_path)
    registry.refresh()
    assert registry.resolve("greet.v1")


def none_left(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


class Missing:
    find_spec = staticmethod(none_left)


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has no descriptor left, as far as anybody looks."""
    monkeypatch.setattr(means, "has_descriptors", lambda: False)


@pytest.mark.parametrize("where", ["folder", "file", "code", "package", "built in"])
@pytest.mark.usefixtures("spent")
def test_a_load_for_which_no_descriptor_was_left_is_no_problem_of_what_was_loaded(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said as what it is, and the next look does it: nothing is known as broken for good."""
    write(tmp_path, text=("import later_needs\n" if where == "code" else "") + GREET.format(id="greet.v1", version="1.0.0", word="hello"))
    theirs = blueprint("theirs.v1")(silent)
    point = SimpleNamespace(name="theirs", value="theirs", load=lambda: theirs)
    registry, example = Registry(tmp_path, entry_points=lambda: [point]), Registry().describe("command.v1")["example_job"]
    with monkeypatch.context() as patched:
        match where:
            case "folder":
                patched.setattr(os, "scandir", none_left)
            case "file":
                patched.setattr(Path, "read_bytes", none_left)
            case "code":
                patched.setattr(sys, "meta_path", [Missing, *sys.meta_path])
            case "package":
                patched.setattr(point, "load", none_left)
            case _:
                patched.setattr("importlib.import_module", none_left)
        target = {"built in": "command.v1", "package": "theirs.v1"}.get(where, "greet.v1")
        for _ in range(2):
            error = failure(registry, target)
            assert (is_spent(error), "Too many open files" in error.message) == (True, True)
        spec = msgspec.convert({**example, "target": {"kind": "blueprint", "id": target}}, PinnedSpec)
        with pytest.raises(LilyError, match="Too many open files"):  # and it is no wrong target of a run
            preflight(spec, registry, SimpleNamespace(capabilities={}, max={}), tmp_path)
    if where == "code":
        monkeypatch.setitem(sys.modules, "later_needs", ModuleType("later_needs"))
    assert registry.resolve(target)
    assert registry.resolve("command.v1")
    assert registry.problems() == []


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.ENFILE])
@pytest.mark.usefixtures("spent")
def test_a_file_for_which_nothing_is_left_takes_no_other_down(number: int, tmp_path: Path) -> None:
    """It is named as a problem with what to do, and only what may be in it is waited for."""
    loads: list[int] = []
    path = write(tmp_path, "big.py", text=f"import greedy\ngreedy.loads.append(1)\nraise OSError({number}, 'none left')")
    write(tmp_path)
    sys.modules["greedy"] = SimpleNamespace(loads=loads)  # type: ignore[assignment]
    try:
        registry = Registry(tmp_path)
        assert registry.resolve("command.v1")
        assert registry.resolve("greet.v1")
        (problem,) = registry.problems()
        assert (problem.place, problem.code) == (f"{path}:3", Code.BLUEPRINT_COMPILE_FAILED)
        assert "none left" in problem.message
        assert "ulimit -n" in problem.hint
        assert {row.id for row in registry.list()} >= {"command.v1", "greet.v1"}
        assert len(loads) == 1  # nothing of this needed it
        error = failure(registry, "big.v1")
        assert (is_spent(error), len(loads)) == (True, 2)
        assert f"{path}:3 (" in error.message
        assert registry.refresh() is False  # it is as it was
        assert len(loads) == 3
        text = path.read_text().replace("raise", "x =")
        path.write_text(text + "\n" + GREET.format(id="big.v1", version="1.0.0", word="big"))
        assert registry.resolve("big.v1")  # whether or not anybody was told of the change
        assert registry.problems() == []
    finally:
        del sys.modules["greedy"]


def test_the_first_look_for_what_may_be_in_such_a_file_loads_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    monkeypatch.setitem(sys.modules, "greedy", SimpleNamespace(loads=loads))
    write(tmp_path, "big.py", text="import greedy\ngreedy.loads.append(1)\nraise OSError(12, 'none left')")
    assert is_spent(failure(Registry(tmp_path), "big.v1"))
    assert len(loads) == 1


def test_what_changed_beside_such_a_file_is_known_at_once_and_stays_known(tmp_path: Path) -> None:
    """Also once that file is gone, when nothing is to be loaded any more."""
    edited, removed = write(tmp_path), write(tmp_path, "z.py", id="z.v1")
    registry = Registry(tmp_path)
    before = registry.resolve("greet.v1")
    stat = edited.stat()
    write(tmp_path, id="greet.v2")
    os.utime(edited, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    removed.unlink()
    big = write(tmp_path, "h.py", text="raise OSError(12, 'none left')")
    assert registry.refresh() is True
    assert registry.resolve("greet.v2") is not before
    assert {row.id for row in registry.list()} & {"greet.v1", "z.v1"} == set()
    big.unlink()
    assert registry.refresh() is True
    assert registry.resolve("greet.v2")
    assert [failure(registry, id).code for id in ("greet.v1", "z.v1")] == [Code.BLUEPRINT_NOT_FOUND] * 2


def test_an_edit_for_which_nothing_is_left_takes_the_old_one_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    registry = Registry(tmp_path)
    registry.resolve("greet.v1")
    write(tmp_path, word="good evening")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", none_left)
        assert registry.refresh() is True
        assert str(path) in failure(registry, "greet.v1").message
    assert registry.resolve("greet.v1")


def test_an_entry_point_for_which_nothing_is_left_takes_no_other_down() -> None:
    def load() -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    theirs = blueprint("theirs.v1")(silent)
    big, small = (SimpleNamespace(name=name, value=name, load=load) for name in ("big", "small"))
    small.load = lambda: theirs
    registry = Registry(entry_points=lambda: [big, small])
    assert registry.resolve("theirs.v1")
    assert registry.resolve("command.v1")
    (problem,) = registry.problems()
    assert ("entry point big" in problem.place, "ulimit -n" in problem.hint) == (True, True)
    assert is_spent(failure(registry, "big.v1"))
    big.load = lambda: blueprint("big.v1")(silent)
    assert registry.resolve("big.v1")
    assert registry.problems() == []


def test_what_packages_gave_is_known_although_the_folder_could_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="theirs", value="theirs", load=lambda: None)
    registry = Registry(tmp_path, entry_points=lambda: [point])
    point.load = lambda: (_ for _ in ()).throw(OSError(errno.ENOMEM, "Cannot allocate memory"))
    registry.refresh()
    point.load = lambda: blueprint("theirs.v1")(silent)
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", none_left)
        assert is_spent(failure(registry, "theirs.v1"))
        assert registry.resolve("command.v1")
    assert registry.refresh() is True
    assert registry.resolve("theirs.v1")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_file_that_says_so_three_times_while_there_are_descriptors_left_is_broken(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran into a limit of its own, as of inotify instances: it is not loaded again before it is changed, and then doubted anew."""
    loads: list[int] = []
    monkeypatch.setitem(sys.modules, "greedy", SimpleNamespace(loads=loads))
    text = f"import greedy\ngreedy.loads.append(1)\nraise OSError({number}, 'inotify instance limit reached')"
    write(tmp_path, "own.py", text=text)
    registry = Registry(tmp_path)
    for _ in range(2):
        assert is_spent(failure(registry, "own.v1"))
    for _ in range(2):
        error = failure(registry, "own.v1")
        assert (error.code, is_spent(error), len(loads)) == (Code.BLUEPRINT_NOT_FOUND, False, 3)
    (problem,) = registry.problems()
    assert "until this is mended" in problem.hint
    assert registry.refresh() is False
    write(tmp_path, "own.py", text=text + "  # changed")
    registry.refresh()
    assert (is_spent(failure(registry, "own.v1")), len(loads)) == (True, 5)


@pytest.mark.parametrize("where", ["file", "package"])
def test_descriptors_that_were_closed_before_anybody_asked_are_no_problem_of_what_was_loaded(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run ended, or a `with` of the code itself. However often there were none at all, and without a second load of the others."""
    loads: list[int] = []
    fails = iter([True] * 6)
    needed, counting = SimpleNamespace(take=lambda: none_left() if next(fails, False) else None), SimpleNamespace(loads=loads)
    monkeypatch.setitem(sys.modules, "needed", needed)
    monkeypatch.setitem(sys.modules, "counting", counting)
    theirs = blueprint("theirs.v1")(silent)
    point = SimpleNamespace(name="theirs", value="theirs", load=lambda: needed.take() or theirs)
    write(tmp_path, "own.py", text="import needed\nneeded.take()\n" + GREET.format(id="own.v1", version="1.0.0", word="own"))
    write(tmp_path, text="import counting\ncounting.loads.append(1)\n" + GREET.format(id="greet.v1", version="1.0.0", word="hello"))
    registry = Registry(None if where == "package" else tmp_path, entry_points=lambda: [point] if where == "package" else [])
    target = {"file": "own.v1", "package": "theirs.v1"}[where]
    with monkeypatch.context() as patched:
        patched.setattr(means, "has_descriptors", lambda: False)
        for _ in range(4):
            assert is_spent(failure(registry, target))
    for _ in range(2):
        assert is_spent(failure(registry, target))
        assert registry.resolve("command.v1")
    assert registry.resolve(target)
    assert registry.problems() == []
    assert loads == ([1] if where == "file" else [])


def test_an_entry_point_that_says_so_three_times_while_there_are_descriptors_left_is_broken() -> None:
    registry = Registry(entry_points=lambda: [SimpleNamespace(name="own", value="own", load=none_left)])
    assert [is_spent(failure(registry, "own.v1")) for _ in range(4)] == [True, True, False, False]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None can be had inside; those that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_packages_that_can_not_be_looked_for_are_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors there seem to be none, and the standard library remembers it."""
    looks: list[Any] = []

    def entry_points(**asked: Any) -> list[Any]:
        looks.append(asked)
        return []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    registry = Registry()
    with no_descriptors():
        error = failure(registry, "command.v1")
    assert (is_spent(error), looks) == (True, [])
    assert registry.resolve("command.v1")
    assert len(looks) == 1


def test_whether_descriptors_are_left_is_seen_by_taking_some() -> None:
    error = OSError(errno.EMFILE, "Too many open files")
    before = os.open(os.devnull, os.O_RDONLY)
    os.close(before)
    with no_descriptors():
        assert is_without_descriptors(error)
        assert not is_without_descriptors(OSError(errno.ENOENT, "No such file"))
    assert not is_without_descriptors(error)
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before  # and all of them were given back


@pytest.mark.parametrize(
    ("target", "bindings"),
    [
        ("pipeline.v1", {"steps": [{"name": "a", "blueprint": "big.v1"}]}),
        ("council.v1", {"specialists": ["security.v1", "big.v1"]}),
    ],
)
def test_a_run_made_of_what_can_not_be_loaded_now_waits(target: str, bindings: dict[str, Any], tmp_path: Path) -> None:
    """As one whose own target it is."""
    write(tmp_path, "big.py", text="raise OSError(12, 'none left')")
    registry = Registry(tmp_path)
    example = registry.describe(target)["example_job"]
    spec = msgspec.convert({**example, "target": {**example["target"], "id": target}, "bindings": bindings}, PinnedSpec)
    with pytest.raises(LilyError, match="none left") as caught:
        preflight(spec, registry, SimpleNamespace(capabilities={}, max={}), tmp_path)
    assert is_spent(caught.value)


def test_each_file_is_a_module_of_its_own(tmp_path: Path) -> None:
    """Two files of one name in two workspaces share nothing, and dataclasses find their module."""
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 0\n" + GREET
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, text=text.format(id="greet.v1", version="1.0.0", word=name))
    one, two = (Registry(tmp_path / name) for name in ("one", "two"))
    assert not one.problems()
    assert one.resolve("greet.v1") is not two.resolve("greet.v1")
    assert one.resolve("greet.v1").body.__module__ != two.resolve("greet.v1").body.__module__  # type: ignore[attr-defined]


def test_installed_packages_add_theirs() -> None:
    @blueprint("packaged.v1")
    async def packaged(ctx: Any, bindings: Any, run_input: Any) -> None:
        """From a package."""

    module = ModuleType("some_package")
    module.thing = packaged  # type: ignore[attr-defined]

    class Point(SimpleNamespace):
        def load(self) -> Any:
            if isinstance(self.target, Exception):
                raise self.target
            return self.target

    points = [
        Point(name="all", value="some_package", target=module, dist=SimpleNamespace(name="some-package")),
        Point(name="again", value="some_package:thing", target=packaged, dist=SimpleNamespace(name="some-package")),
        Point(name="bad", value="bad_package", target=ImportError("no libfoo"), dist=SimpleNamespace(name="bad-package")),
    ]
    registry = Registry(entry_points=lambda: points)
    assert registry.describe("packaged.v1")["origin"] == "package some-package"
    (problem,) = registry.problems()
    assert "package bad-package, entry point bad" in problem.place
    assert "no libfoo" in problem.message


def test_a_program_can_register_its_own() -> None:
    class Own(BlueprintBase):
        id = "own.v1"

        def compile(self, bindings: Any) -> Any:
            return None

    registry = Registry()
    registry.register(Own())
    assert registry.resolve("own.v1").version == "1.0.0"
    with pytest.raises(TypeError):
        registry.register(3)


def test_an_unknown_id_gets_the_close_ones() -> None:
    error = failure(Registry(), "comand.v1")
    assert error.code == Code.BLUEPRINT_NOT_FOUND
    assert error.hint == "did you mean command.v1?"
    for strange in ("zzzzzz", "mine.v1"):  # the latter has the version of all others, and nothing else of them
        assert failure(Registry(), strange).hint.startswith("there are ")


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("1.2.3", True),
        ("==1.2.3", True),
        ("1.2", False),
        (">=1,<2", True),
        (" >= 1.2 , != 1.2.4 ", True),
        (">1.2.3", False),
        ("<=1.2.3", True),
        (">=1,<1.2.3", False),
        ("!=1.2.3", False),
    ],
)
def test_a_version_can_be_pinned_or_ranged(wanted: str, fits: bool) -> None:
    assert matches("1.2.3", wanted) is fits


@pytest.mark.parametrize("wanted", ["", "latest", "1.x", "^1.0", ">=1,", "1.2.3.4", "01.2.3", "\uff11.0.0"])
def test_what_is_no_version_is_said_to_be_none(wanted: str) -> None:
    with pytest.raises(ValueError, match="version"):
        matches("1.2.3", wanted)


def test_versions_are_numbers() -> None:
    assert parse_version("1.10.0") > parse_version("1.9")
    with pytest.raises(ValueError, match="three numbers"):
        parse_version(">=1")


def test_a_version_that_is_not_here_is_named_with_the_one_that_is(tmp_path: Path) -> None:
    write(tmp_path, version="2.1.0")
    registry = Registry(tmp_path)
    assert registry.resolve("greet.v1", ">=2")
    error = failure(registry, "greet.v1", "1.0.0")
    assert error.code == Code.BLUEPRINT_NOT_FOUND
    assert "2.1.0" in error.message
    assert "1.0.0" in error.message
    assert failure(registry, "greet.v1", "newest").code == Code.BLUEPRINT_NOT_FOUND
