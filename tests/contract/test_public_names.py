"""What users build on: names of the packages, commands and their options, places and words that programs look up."""

import importlib
import subprocess
import sys

import lily
import lily.testing
from lily.blueprints.packages import GROUP
from lily.cli.app import load_all
from lily.workspace import EVENTS, RECEIPT, SUMMARY, Workspace
from tests.contract.imports import HEAVY, REPOSITORY

LILY = {
    *("run", "submit", "submit_many", "wait", "events", "Session", "Receipt", "StreamEvent"),
    *("retry_dead_letter", "retry_dead_letters", "Retries"),
    *(
        "blueprint",
        "specialist",
        "synthesizer",
        "subject",
        "Look",
        "BlueprintError",
        "Context",
        "Envelope",
        "ProcessRequest",
        "ProcessResult",
    ),
    *("Code", "LilyError", "__version__"),
}
TESTING = {"FakeClock", "FakeContext", "FakeProcesses", "World", "check_golden", "golden_text", "run_blueprint"}
JSON_HERE = {"--json", "--workspace"}
NARROW = {"--job", "--cause", "--fingerprint", "--match"}
COMMANDS: dict[str, set[str]] = {
    "init": {"DIR"},
    "up": {"--json-logs", "--workspace"},
    "down": {"--grace", "--now", "--reason", "--workspace"},
    "status": JSON_HERE,
    "jobs list": JSON_HERE,
    "jobs show": {"ID", *JSON_HERE},
    "jobs validate": {"ID|PATH", *JSON_HERE},
    "jobs schema": {"--receipt", "--event"},
    "jobs new": {"ID", "--blueprint", "--title", "--workspace"},
    "jobs run": {"ID", "--input", "--set", "--key", "--priority", "--batch", "--detach", "--dry-run", "--reason", *JSON_HERE},
    "jobs tail": {"ID", "-n", "--lines", "--follow", "--run", *JSON_HERE},
    "jobs history": {"ID", "--limit", "--status", "--since", *JSON_HERE},
    "jobs next": {"ID", "--all", "--count", "--from", *JSON_HERE},
    "jobs why": {"ID", "--at", *JSON_HERE},
    "jobs plan": {"PATH", *JSON_HERE},
    "jobs pause": {"ID", "--all", "--label", "--reason", "--until", *JSON_HERE},
    "jobs resume": {"ID", "--all", "--label", "--set", "--reason", *JSON_HERE},
    "jobs disable": {"ID", "--all", "--label", "--reason", "--until", *JSON_HERE},
    "jobs enable": {"ID", "--all", "--label", "--set", "--reason", *JSON_HERE},
    "runs fail": {"--running", "--reason", *JSON_HERE},
    "health": {"--check", "--watch", *JSON_HERE},
    "report": {"--period", *JSON_HERE},
    "metrics": {"--textfile", "--workspace"},
    "completion": {"SHELL"},
    "events tail": {"--follow", "--since", "--type", "--job", "-n", "--lines", *JSON_HERE},
    "store export": {"--jsonl", "--table", "--workspace"},
    "store checkpoint": {"--reason", *JSON_HERE},
    "audit list": {"--job", "--actor", "--action", "--since", "--limit", *JSON_HERE},
    "audit verify": {"--head", *JSON_HERE},
    "store reset": {"--yes", "--reason", *JSON_HERE},
    "worker status": JSON_HERE,
    "worker pause": {"--reason", *JSON_HERE},
    "worker resume": {"--reason", *JSON_HERE},
    "schedule list": JSON_HERE,
    "schedule status": JSON_HERE,
    "schedule verify": {"--since", "--job", *JSON_HERE},
    "schedule rebuild": {"--reason", *JSON_HERE},
    "schedule simulate": {
        *("--from", "--to", "--outage", "--suspend", "--step", "--pause", "--duration", "--default-duration", "--durations"),
        *("--slots", "--seed", "--svg", "--html", "--met"),
        *JSON_HERE,
    },
    "runs list": {"--limit", "--status", "--since", "--job", *JSON_HERE},
    "runs show": {"RUN", *JSON_HERE},
    "runs active": {"--limit", *JSON_HERE},
    "runs cancel": {"RUN", "--reason", *JSON_HERE},
    "runs retry-now": {"RUN", "--reason", *JSON_HERE},
    "runs replay": {"RUN", "--spec", "--approve", "--reason", "--detach", "--dry-run", *JSON_HERE},
    "runs diff": {"A", "B", *JSON_HERE},
    "runs prune": {"--reason", "--keep", "--older-than", "--job", "--dry-run", *JSON_HERE},
    "runs verify": {"RUN", "--job", "--all", *JSON_HERE},
    "db rebuild": {"--from", "--accept-losses", "--reason", "--dry-run", *JSON_HERE},
    "dlq list": {"--limit", *NARROW, *JSON_HERE},
    "dlq show": {"RUN", *JSON_HERE},
    "dlq triage": JSON_HERE,
    "dlq retry": {"RUN", "--all", *NARROW, "--limit", "--rate", "--canary", "--spec", "--reason", "--dry-run", *JSON_HERE},
    "dlq clear": {"RUN", *NARROW, "--yes", "--reason", *JSON_HERE},
    "dlq prune": {"--reason", "--older-than", "--dry-run", *JSON_HERE},
    "review run": JSON_HERE,
    "review list": {"--limit", "--job", "--kind", "--open", "--closed", *JSON_HERE},
    "review show": {"ID", *JSON_HERE},
    "review ack": {"ID", "--reason", "--until", *JSON_HERE},
    "review unack": {"ID", "--reason", *JSON_HERE},
    "conditions list": JSON_HERE,
    "conditions check": {"ID", *JSON_HERE},
    "doctor": {"--repair", *JSON_HERE},
    "db status": JSON_HERE,
    "db check": JSON_HERE,
    "db upgrade": JSON_HERE,
    "db backup": {"FILE", "--force", *JSON_HERE},
    "db restore": {"FILE", *JSON_HERE},
    "support bundle": {"RUN", "--output", *JSON_HERE},
    "selftest crash": {"--engine", "--lives", "--seed", "--matrix", "--no-matrix", "--keep", "--json"},
    "selftest disk": {"--keep", "--json"},
    "selftest clock": {"--seed", "--json"},
    "selftest power": {"--lives", "--seed", "--keep", "--json"},
    "approvals list": {"--expiring", *JSON_HERE},
    "approvals show": {"RUN", *JSON_HERE},
    "approvals approve": {"RUN", "--note", *JSON_HERE},
    "approvals deny": {"RUN", "--reason", *JSON_HERE},
    "approvals check": {"RUN", *JSON_HERE},
    "approvals doctor": JSON_HERE,
    "alerts list": {"--job", "--undelivered", "--limit", *JSON_HERE},
    "alerts test": {"SINK", *JSON_HERE},
    "alerts explain": {"ID", *JSON_HERE},
    "blueprints list": JSON_HERE,
    "blueprints show": {"ID", *JSON_HERE},
    "config show": JSON_HERE,
    "config validate": JSON_HERE,
    "config reload": {"--reason", *JSON_HERE},
    "queue stats": {"--watch", *JSON_HERE},
    "queue list": {"--status", "--priority", "--order-by", "--desc", "--limit", *JSON_HERE},
    "queue cancel": {"RUN", "--priority", "--job", "--all", "--running", "--reason", "--dry-run", *JSON_HERE},
    "queue set": {"--max-concurrent", "--max-size", "--persist", "--reason", *JSON_HERE},
}


def test_the_names_of_the_package_stand_still() -> None:
    """Each of them is there, and has a text that says what it is for."""
    assert set(lily.__all__) == LILY
    for name in LILY - {"__version__"}:
        assert getattr(lily, name).__doc__, name


def test_the_names_for_tests_stand_still() -> None:
    """The test kit is part of the product."""
    assert set(lily.testing.__all__) == TESTING
    for name in TESTING:
        assert getattr(lily.testing, name).__doc__, name


def options() -> dict[str, set[str]]:
    """Every command with its arguments and options, as the program knows them."""
    app = load_all()
    made = {}
    for name in app:
        if name.startswith("-"):
            continue
        inner = [each for each in app[name] if not each.startswith("-")]
        for words in [[name, each] for each in inner] or [[name]]:
            command = app[words[0]][words[1]] if len(words) == 2 else app[name]
            made[" ".join(words)] = {each for argument in command.assemble_argument_collection() for each in argument.names}
    return made


def test_the_commands_and_their_options_stand_still() -> None:
    """Scripts use them; new ones may come."""
    assert options() == COMMANDS


def test_the_group_of_entry_points_stands_still() -> None:
    """Packages with blueprints name it."""
    assert GROUP == "lily.blueprints"


def test_the_places_in_a_workspace_stand_still() -> None:
    """Editors, backups and people know them."""
    place = Workspace(REPOSITORY)
    run = place.run_dir("a", "20260504T041500.123456Z-k3f9")
    found = [place.config, place.jobs, place.blueprints, place.runtime, place.database, run / RECEIPT, run / SUMMARY, run / EVENTS]
    assert [path.relative_to(REPOSITORY).as_posix() for path in found] == [
        ".lily/config.yaml",
        ".lily/jobs",
        ".lily/blueprints",
        ".lily/run",
        "db/lily.sqlite3",
        ".lily/runs/a/20260504T041500.123456Z-k3f9/run_receipt.json",
        ".lily/runs/a/20260504T041500.123456Z-k3f9/summary.md",
        ".lily/runs/a/20260504T041500.123456Z-k3f9/events.jsonl",
    ]


def test_importing_lily_loads_nothing_else() -> None:
    """Names are loaded when they are used, so that `import lily` costs a program nothing."""
    program = "import sys; before = set(sys.modules); import lily; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {"lily"}
    assert not loaded & {"asyncio", "ssl", "inspect", "dataclasses"}
    assert not loaded & set(HEAVY)


def test_every_public_name_can_be_imported_from_its_home() -> None:
    """The table of late names leads somewhere, and an unknown one is an AttributeError."""
    for name in LILY:
        assert hasattr(importlib.import_module("lily"), name)
    assert not hasattr(lily, "nothing_of_this_name")
