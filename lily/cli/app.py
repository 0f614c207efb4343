"""Every command by name. A command's module is imported when the command is called, or its help is asked for."""

from cyclopts import App, Parameter

from lily import __version__

_JOBS = {
    "list": "jobs:list_jobs",
    "show": "jobs:show",
    "validate": "validate:validate",
    "schema": "schemas:schema",
    "new": "new_job:new",
    "run": "run_job:run_job",
    "tail": "tail:tail",
    "history": "jobs:history",
    "next": "times:next_windows",
    "why": "times:why",
    "plan": "edits:plan",
    "pause": "controls:pause",
    "resume": "controls:resume",
    "disable": "controls:disable",
    "enable": "controls:enable",
}
_SCHEDULE = {
    "list": "schedule:list_schedules",
    "status": "schedule:status",
    "verify": "schedule:verify",
    "rebuild": "schedule:rebuild",
    "simulate": "simulate:simulate",
}
_RUNS = {
    "list": "runs:list_runs",
    "show": "runs:show",
    "active": "runs:active",
    "cancel": "runs:cancel",
    "retry-now": "retry_now:retry_now",
    "fail": "fail_runs:fail",
    "replay": "replay:replay",
    "diff": "runs:diff",
    "prune": "prune:prune",
    "verify": "verify_runs:verify",
}
_DLQ = {
    "list": "dlq:list_letters",
    "show": "dlq:show",
    "triage": "dlq:triage",
    "retry": "dlq_retry:retry",
    "clear": "dlq_out:clear",
    "prune": "dlq_out:prune",
}
_WORKER = {"status": "worker:status", "pause": "worker:pause", "resume": "worker:resume"}
_STORE = {"export": "store:export", "checkpoint": "store:checkpoint", "reset": "store:reset"}
_DB = {
    "status": "db:status",
    "check": "db:check",
    "upgrade": "db:upgrade",
    "backup": "db:backup",
    "restore": "db:restore",
    "rebuild": "db_rebuild:rebuild",
}
_SUPPORT = {"bundle": "support:bundle"}
_EVENTS = {"tail": "events:tail"}
_AUDIT = {"list": "audit:list_audit", "verify": "audit:verify"}
_APPROVALS = {
    "list": "approvals:list_approvals",
    "show": "approvals:show",
    "approve": "approvals:approve",
    "deny": "approvals:deny",
    "check": "approvals:check",
    "doctor": "approvals:doctor",
}
_REVIEW = {
    "run": "review:run",
    "list": "review:list_findings",
    "show": "review:show",
    "ack": "review_acks:ack",
    "unack": "review_acks:unack",
}
_ALERTS = {"list": "alerts:list_alerts", "test": "alerts:try_sinks", "explain": "alerts:explain"}
_CONDITIONS = {"list": "conditions:list_conditions", "check": "conditions:check"}
_BLUEPRINTS = {"list": "blueprints:list_blueprints", "show": "blueprints:show"}
_QUEUE = {"stats": "queue:stats", "list": "queue:list_queue", "cancel": "queue:cancel", "set": "queue:set_limits"}
_CONFIG = {"show": "config:show", "validate": "config:validate", "reload": "config:reload"}
_SELFTEST = {"crash": "selftest:crash", "disk": "selftest:disk", "clock": "selftest:clock", "power": "selftest:power"}
_TOP = {
    "init": "init:init",
    "up": "supervisor:up",
    "down": "supervisor:down",
    "status": "supervisor:status",
    "health": "health:health",
    "report": "report:report",
    "metrics": "metrics:metrics",
    "doctor": "doctor:doctor",
    "completion": "completion:completion",
}


def _group(name: str, help: str, commands: dict[str, str], sort_key: int) -> App:
    group = App(name=name, help=help, sort_key=sort_key)
    _add(group, commands)
    return group


def _add(to: App, commands: dict[str, str]) -> None:
    for number, (name, place) in enumerate(commands.items()):
        to.command(f"lily.cli.{place}", name=name, sort_key=number)


app = App(
    name="lily",
    help="Durable, inspectable jobs on one machine: from a YAML file to a receipt.",
    version=__version__,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)
_add(app, _TOP)
app.command(_group("jobs", "Job files, and running them.", _JOBS, sort_key=10))
app.command(_group("runs", "Runs of all jobs.", _RUNS, sort_key=11))
app.command(_group("queue", "What waits, and the queue's limits.", _QUEUE, sort_key=11))
app.command(_group("dlq", "Dead letters: runs that failed for good.", _DLQ, sort_key=11))
app.command(_group("schedule", "Schedules: windows, states, and testing them.", _SCHEDULE, sort_key=12))
app.command(_group("review", "What went unnoticed: findings about jobs.", _REVIEW, sort_key=12))
app.command(_group("conditions", "What conditional triggers look at.", _CONDITIONS, sort_key=12))
app.command(_group("approvals", "Runs that wait for a person's consent.", _APPROVALS, sort_key=12))
app.command(_group("alerts", "Telling people of jobs that keep failing.", _ALERTS, sort_key=12))
app.command(_group("worker", "Whether runs are taken, and what runs.", _WORKER, sort_key=13))
app.command(_group("events", "The one stream of everything that happens.", _EVENTS, sort_key=14))
app.command(_group("audit", "Who changed what, and why.", _AUDIT, sort_key=14))
app.command(_group("store", "The database: copies, and starting over.", _STORE, sort_key=15))
app.command(_group("db", "The database: how it stands, its schema, backups.", _DB, sort_key=16))
app.command(_group("support", "What helps those who help.", _SUPPORT, sort_key=17))
app.command(_group("blueprints", "What jobs can be made of.", _BLUEPRINTS, sort_key=20))
app.command(_group("config", "Settings of the workspace.", _CONFIG, sort_key=21))
app.command(_group("selftest", "Lily's promises, put to the test on this machine.", _SELFTEST, sort_key=22))


def load_all() -> App:
    """The application with every command's module imported: help of a group shows what its commands say of themselves."""
    for name in _TOP:
        app[name]
    groups = {
        "jobs": _JOBS,
        "runs": _RUNS,
        "queue": _QUEUE,
        "dlq": _DLQ,
        "approvals": _APPROVALS,
        "review": _REVIEW,
        "alerts": _ALERTS,
        "schedule": _SCHEDULE,
        "conditions": _CONDITIONS,
        "worker": _WORKER,
        "events": _EVENTS,
        "audit": _AUDIT,
        "store": _STORE,
        "db": _DB,
        "support": _SUPPORT,
        "blueprints": _BLUEPRINTS,
        "config": _CONFIG,
        "selftest": _SELFTEST,
    }
    for group, commands in groups.items():
        for name in commands:
            app[group][name]
    return app
