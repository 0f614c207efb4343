"""The import table, as data, and the reading of imports out of source. `test_architecture.py` holds the code to it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# From the bottom up. A module may import its own layer and those below it; inside a layer there are no cycles. A name stands for the module
# and, where it is a package, for everything in it.
LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "words",
        frozenset(
            {
                "lily",
                "lily.errors",
                "lily.clock",
                "lily.faults",
                "lily.offload",
                "lily.memory",
                "lily.time_text",
                "lily.diagnostics",
                "lily.batched",
                "lily.text",
                "lily.redaction",
                "lily.addresses",
                "lily.http_forms",
                "lily.secret_forms",
                "lily.decoding",
            }
        ),
    ),
    ("triggers", frozenset({"lily.triggers"})),
    (
        "values",
        frozenset(
            {
                "lily.runs",
                "lily.backlog",
                "lily.event_fields",
                "lily.ledger",
                "lily.retries",
                "lily.policies",
                "lily.moves",
                "lily.dead_letters",
                "lily.approvals.record",
                "lily.alerts.terms",
                "lily.alerts.decide",
                "lily.alerts.quiet",
                "lily.alerts.message",
                "lily.alerts.errors",
                "lily.approvals.labels",
                "lily.log",
                "lily.yaml_reader",
                "lily.yaml_scalars",
                "lily.workspace",
                "lily.identity",
                "lily.trigger_forms",
                "lily.conditions.verdict",
                "lily.conditions.compare",
                "lily.conditions.glob",
                "lily.findings",
            }
        ),
    ),
    (
        "forms",
        frozenset(
            {
                "lily.settings",
                "lily.own_jobs",
                "lily.retry_defaults",
                "lily.own_secrets",
                "lily.plain_secrets",
                "lily.specs",
                "lily.spec_messages",
                "lily.python_child",
                "lily.trigger_specs",
                "lily.subject_specs",
                "lily.spec_parts",
                "lily.conditions",
                "lily.condition_shapes",
                "lily.spec_files",
                "lily.spec_index",
                "lily.first_scan",
                "lily.receipts",
                "lily.shapes",
                "lily.approval_shapes",
                "lily.review",
                "lily.known_findings",
                "lily.review_shapes",
                "lily.alert_shapes",
                "lily.audit_shapes",
                "lily.doctor_shapes",
                "lily.schemas",
                "lily.summary",
                "lily.blueprints",
                "lily.render",
                "lily.time_views",
                "lily.time_shapes",
                "lily.letter_shapes",
                "lily.watch_shapes",
                "lily.watch_views",
                "lily.health",
                "lily.report",
                "lily.metrics",
                "lily.queue_shapes",
                "lily.selftest_shapes",
                "lily.receipt_shapes",
            }
        ),
    ),
    ("checks", frozenset({"lily.preflight", "lily.approvals.needs"})),
    ("storage", frozenset({"lily.storage"})),
    ("operations", frozenset({"lily.operations", "lily.engines", "lily.fire", "lily.simulation", "lily.approvals", "lily.alerts"})),
    ("actors", frozenset({"actors"})),
    ("api", frozenset({"lily.api", "lily.testing"})),
    ("selftest", frozenset({"lily.selftest"})),
    ("command line", frozenset({"lily.cli", "lily.__main__"})),
)

# The sample workspace is user code that happens to be shipped: what it may import is what a user may.
SAMPLES = "lily.samples"

# Who may import a library that costs time to load or that only one port may know..
HEAVY: dict[str, frozenset[str]] = {
    "pydantic": frozenset(
        {
            "lily.spec_parts",
            "lily.subject_specs",
            "lily.specs",
            "lily.spec_messages",
            "lily.trigger_specs",
            "lily.blueprints",
            "lily.samples",
        }
    ),
    "sqlalchemy": frozenset({"lily.storage"}),
    "alembic": frozenset({"lily.storage"}),
    "psycopg": frozenset(),
    "httpx": frozenset({"lily.blueprints.http", "lily.conditions.http", "lily.alerts.webhook"}),
    "apprise": frozenset({"lily.alerts.by_apprise"}),
    "openai": frozenset({"lily.blueprints"}),
    "apscheduler": frozenset({"lily.triggers", "actors.scheduler", "actors.job_store"}),
    "dateutil": frozenset({"lily.triggers"}),
    "watchfiles": frozenset({"actors.spec_loader"}),
    "cyclopts": frozenset({"lily.cli"}),
    "rich": frozenset({"lily.cli"}),
    "yaml": frozenset({"lily.yaml_reader"}),
    "anyio": frozenset(
        {
            "actors",
            "lily.engines",
            "lily.blueprints",
            "lily.offload",
            "lily.conditions",
            "lily.approvals.gh",
            "lily.alerts",
            "lily.api",
            "lily.testing",
            "lily.cli",
            "lily.samples",
        }
    ),
    # Where every run passes: there anyio's layer over trio would cost as much as all else that the loop does for it.
    "trio": frozenset(
        # gh, and a sink's program, are started in a process group of their own, which anyio can't do.
        {
            "lily.testing",
            "lily.engines.local",
            "lily.offload",
            "lily.approvals.gh",
            "lily.alerts.program",
            "actors.last_resort",  # what ends the process lasts as long as the loop, which no task group of anyio's does
            "actors.runner",
            "actors.slot",
            "actors.conductor",
            "actors.messages",
            "actors.order",
            "actors.simulation",
        }
    ),
    # The child of python.v1 runs a user's coroutine with the standard library alone.
    "asyncio": frozenset({"lily.python_child"}),
}

FORBIDDEN = frozenset({"pickle", "cPickle", "marshal", "shelve", "dill"})


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, where it is imported, and whether that happens when the importing module loads."""

    importer: str
    imported: str
    place: str
    at_load: bool


def modules() -> dict[str, Path]:
    """Every module of the two packages, by its dotted name."""
    found = {}
    for package in ("lily", "actors"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def within(module: str, names: frozenset[str]) -> bool:
    """Whether `module` is one of `names` or inside one of them; `lily` itself stands for its `__init__` alone."""
    return any(module == name or (name != "lily" and module.startswith(name + ".")) for name in names)


def layer_of(module: str) -> int | None:
    """The number of the layer that names `module`, from the bottom; None if none does."""
    return next((number for number, (_, names) in enumerate(LAYERS) if within(module, names)), None)


def imports_of(module: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """What one source file imports; imports for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node, at_load in _walk(tree, True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(module, name, f"{path.relative_to(REPOSITORY)}:{node.lineno}", at_load)


def _walk(node: ast.AST, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield child, at_load
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, at_load and not inside)


def all_imports() -> list[Import]:
    """Every import of both packages."""
    known = modules()
    return [found for module, path in known.items() for found in imports_of(module, path, known)]
