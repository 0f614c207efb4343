"""Dead code: what nothing in the packages, their tests or the tools ever names. Ends with 1 when there is any.

vulture can't see that a field of a struct, a model or an enum is part of a format, so names inside classes are left to the tests of those
formats; unused locals are ruff's business. Everything else counts, unless ALLOWED says why it may stand unused.
"""

import re
import sys
from pathlib import Path

from vulture.config import make_config
from vulture.core import Item, Vulture

ROOT = Path(__file__).resolve().parents[1]

# (file, name): why. A file that ends with a slash stands for all in it.
ALLOWED = {
    ("lily/blueprints/", "debug"): "a level of the logger that only users use",
    ("lily/engines/", "debug"): "a level of the logger that only users use",
    ("lily/blueprints/", "council"): "found by the registry under its id",
    ("lily/blueprints/", "http"): "found by the registry under its id",
    ("lily/blueprints/", "pipeline"): "found by the registry under its id",
    ("lily/blueprints/", "plan_execute_verify"): "found by the registry under its id",
    ("lily/storage/migrations/", "down_revision"): "read by alembic",
    ("lily/storage/migrations/", "revision"): "read by alembic",
    ("lily/storage/migrations/", "upgrade"): "called by alembic",
    ("lily/storage/migrations/", "downgrade"): "called by alembic",
    ("actors/job_store.py", "get_all_jobs"): "called by APScheduler",
    ("actors/job_store.py", "get_next_run_time"): "called by APScheduler",
    ("actors/job_store.py", "lookup_job"): "called by APScheduler",
    ("actors/job_store.py", "update_job"): "called by APScheduler",
    ("lily/__init__.py", "__getattr__"): "called by Python for names that are loaded late",
    ("tests/", "log_message"): "called by http.server",
    ("tests/", "pytestmark"): "read by pytest",
}


def commands() -> set[tuple[str, str]]:
    """(file, function) of what the command line names as text, `jobs:show`, so that it is imported only when it runs."""
    text = (ROOT / "lily" / "cli" / "app.py").read_text(encoding="utf-8")
    return {(f"lily/cli/{module}.py", function) for module, function in re.findall(r'"(\w+):(\w+)"', text)}


def allowed(item: Item) -> bool:
    """Whether the table has an entry for it."""
    name = str(item.filename.relative_to(ROOT).as_posix())
    if (name, item.name) in COMMANDS:
        return True
    return any(str(item.name) == known and (name == file or (file.endswith("/") and name.startswith(file))) for file, known in ALLOWED)


COMMANDS = commands()


def in_a_class_or_function(item: Item) -> bool:
    """Whether the line is indented: a field, a class attribute, a local."""
    lines = Path(item.filename).read_text(encoding="utf-8").splitlines()
    return str(lines[item.first_lineno - 1]).startswith((" ", "\t"))


def counts(item: Item) -> bool:
    """Whether it is dead code in our sense."""
    if item.typ == "attribute" or (item.typ == "variable" and in_a_class_or_function(item)):
        return False
    return not allowed(item)


def main() -> int:
    """Print each finding with its place; the exit status."""
    config = make_config([], None)
    found = Vulture(ignore_names=config["ignore_names"], ignore_decorators=config["ignore_decorators"])
    found.scavenge([str(ROOT / path) for path in config["paths"]])
    dead = [item for item in found.get_unused_code(min_confidence=config["min_confidence"], sort_by_size=False) if counts(item)]
    for item in dead:
        print(f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: unused {item.typ} {item.name!r}")
    print(f"dead code: {len(dead) or 'none'} in {', '.join(config['paths'])}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
