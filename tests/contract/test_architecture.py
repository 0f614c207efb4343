"""Who may import whom, and the few things that no module may do. The table itself stands in `imports.py`."""

import ast
import operator
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lily.runs import EventName
from lily.settings import parse_settings, values_of
from tests.contract.imports import FORBIDDEN, HEAVY, LAYERS, REPOSITORY, SAMPLES, Import, all_imports, layer_of, modules, within

OURS = ("lily", "actors")
IMPORTS = all_imports()


def ours(found: Import) -> bool:
    return found.imported.split(".")[0] in OURS


def test_every_module_has_a_layer() -> None:
    """A new file says where it belongs before anything else is asked of it."""
    homeless = [module for module in modules() if layer_of(module) is None and not within(module, frozenset({SAMPLES}))]
    assert not homeless, f"name these in a layer of tests/contract/imports.py: {homeless}"


def test_imports_go_down() -> None:
    """No module imports one from a layer above its own."""
    wrong = []
    for found in filter(ours, IMPORTS):
        here, there = layer_of(found.importer), layer_of(found.imported)
        if here is not None and there is not None and there > here:
            wrong.append(f"{found.place}: {found.importer} ({LAYERS[here][0]}) imports {found.imported} ({LAYERS[there][0]})")
    assert not wrong, "\n".join(wrong)


def test_imports_are_absolute() -> None:
    """A file can be moved or read alone without counting dots."""
    assert not [found.place for found in IMPORTS if found.imported.startswith(".")]


def test_modules_that_load_each_other_form_no_cycle() -> None:
    """What a module needs in order to load never leads back to it."""
    edges: dict[str, set[str]] = {}
    for found in IMPORTS:
        if ours(found) and found.at_load and found.imported != found.importer:
            edges.setdefault(found.importer, set()).add(found.imported)

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for there in sorted(edges.get(module, ())):
                visit(there, (*trail, module))
            done.add(module)

    done: set[str] = set()
    for start in sorted(edges):
        visit(start, ())


# An actor is a module that nobody but the tree that wires it may know; these are what actors share.
SHARED_BY_ACTORS = frozenset(
    {
        "actors",
        "actors.messages",
        "actors.mailbox",
        "actors.supervisor",
        "actors.subscription",
        "actors.slot",
        "actors.queue_ahead",
        "actors.retries",
        "actors.looking",
        "actors.placing",
        "actors.conductor",
        "actors.last_resort",
        "actors.vitals",
        "actors.live_settings",  # who lives asks it for settings
        "actors.approval_gate",
    }
    | {"actors.scheduler", "actors.job_store"}  # APScheduler's engine, which the bridge alone drives
)
# These wire the tree, and so know its actors.
WIRING = frozenset({"actors.system", "actors.owning", "actors.up", "actors.here", "actors.simulation"})


def test_no_actor_imports_another() -> None:
    """Actors know messages and mailboxes; only what wires the tree knows actors."""
    wrong = [
        f"{found.place}: {found.importer} imports {found.imported}"
        for found in IMPORTS
        if found.imported.startswith("actors.")
        and found.importer.startswith("actors.")
        and found.importer not in WIRING
        and found.imported not in SHARED_BY_ACTORS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_stands_only_where_the_table_allows(library: str) -> None:
    """Each library has its port; everywhere else it would slow a command that has no use for it."""
    wrong = [
        f"{found.place}: {found.importer}"
        for found in IMPORTS
        if found.imported.split(".")[0] == library and not within(found.importer, HEAVY[library])
    ]
    assert not wrong, f"{library} is imported outside {sorted(HEAVY[library])}: {wrong}"


def test_nothing_is_stored_in_a_form_that_runs_code_when_read() -> None:
    """No pickle and its kin."""
    assert not [f"{found.place}: {found.imported}" for found in IMPORTS if found.imported.split(".")[0] in FORBIDDEN]


def calls() -> Iterator[tuple[Path, int, str]]:
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node.lineno, ast.unparse(node.func)


def test_only_the_clock_reads_wall_time() -> None:
    """Everything else is handed the time, so that a test replaces it in one place."""
    reading = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now"}
    clock = REPOSITORY / "lily" / "clock.py"
    assert not [f"{path.relative_to(REPOSITORY)}:{line}: {name}" for path, line, name in calls() if name in reading and path != clock]


def named_in(path: Path) -> set[str]:
    """What code names as an attribute or as a word of its own."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def named_outside(*homes: str) -> set[str]:
    """The same of all code but for these files."""
    return {name for path in modules().values() if str(path.relative_to(REPOSITORY)) not in homes for name in named_in(path)}


def handled_in(path: Path) -> set[str]:
    """What a file imports, asks of something, or has in a variable."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = {each.name for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names}
    asked = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return imported | asked | {node.arg for node in nodes if isinstance(node, ast.arg)}


def test_every_setting_is_read_by_some_code() -> None:
    """None is taken and then heeded by nobody: a file that has to do with its section names it, for much is called `start`."""
    files = [(named_in(path), handled_in(path)) for path in modules().values() if path.name != "settings.py"]
    settings = parse_settings(b"")
    keys = [key for key in values_of(settings) if not key.startswith(("policy.capabilities.", "alerts.sinks."))]
    assert len(keys) > 30
    unread = []
    for key in keys:
        section, _, name = key.rpartition(".")
        kind = type(operator.attrgetter(section)(settings)).__name__
        if not any(name in named and {section.rpartition(".")[2], kind} & handled for named, handled in files):
            unread.append(key)
    assert not unread


def test_every_event_is_said_by_some_code() -> None:
    """None is documented and never sent."""
    said = named_outside("lily/runs.py", "lily/event_fields.py")
    assert not [name for name in EventName.__members__ if name not in said]


def test_no_thread_is_started_by_hand() -> None:
    """Every task has a parent: blocking work goes through a worker thread that a scope waits for. Self-tests play the world outside, and
    the first scan comes before there is a task, a thread or a lock."""
    starting = {"threading.Thread", "Thread", "threading.Timer", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "os.fork"}
    found = [f"{path.relative_to(REPOSITORY)}:{line}: {name}" for path, line, name in calls() if name in starting]
    assert not [place for place in found if not place.startswith(("lily/selftest/", "lily/first_scan.py:"))]


def test_nothing_catches_everything() -> None:
    """What catches BaseException raises again, for cancellation must pass; an `except Exception` that only passes would hide a fault."""
    wrong = []
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                silent = all(isinstance(line, ast.Pass) for line in node.body)
                greedy = "BaseException" in caught or caught == "everything"
                raises = any(isinstance(inner, ast.Raise) for line in node.body for inner in ast.walk(line))
                if (greedy and not raises) or (caught == "Exception" and silent):
                    wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {caught}")
    assert not wrong, wrong


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


LIGHT = ("lily", "lily.errors", "lily.runs", "lily.workspace", "lily.settings", "lily.spec_index", "lily.receipts")


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    """What every command imports costs none of the libraries that only some need."""
    heavy = set(HEAVY) - {"yaml", "asyncio"}
    assert not loaded_by(f"import {module}") & heavy


def test_files_and_functions_stay_short() -> None:
    """Files stay near 300 lines, functions under 60: what grows is split by who may import it."""
    long = []
    for path in modules().values():
        source = path.read_text(encoding="utf-8")
        if source.count("\n") > 450:
            long.append(f"{path.relative_to(REPOSITORY)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(
                    f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
                )
    assert not long, long
