"""Who is compared, with which versions and settings, and what a figure of theirs leaves out. Data alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field

QUICK = "-d 0.01 -m 0.05"


@dataclass(frozen=True)
class System:
    """One runner with one store. `options` are its worker's, by measure; `absent` says why it has no figure for one."""

    name: str
    title: str
    module: str
    requirements: tuple[str, ...]
    store: str  # sqlite, redis or postgres
    options: Mapping[str, str]
    leaves_out: str  # beside what Lily does for each run
    absent: Mapping[str, str]
    version_command: tuple[str, ...] = ()
    share: Mapping[str, float] = field(default_factory=dict)  # of a measure's count, where the whole would take minutes
    notes: Mapping[str, str] = field(default_factory=dict)  # by measure: how it was done


NO_LIST = "results are found by their id alone"
IN_CODE = "in code at every start; nothing stored"
_HUEY = "no receipt or output; a run is lost with its worker; no retries unless asked"

SYSTEMS = (
    System(
        "huey-sqlite",
        "Huey, SQLite",
        "huey",
        ("huey==3.5.4", "redis==8.1.0"),
        "sqlite",
        {"noop": f"-w 16 {QUICK}", "latency": QUICK, "sleep": f"-w 100 {QUICK}", "program": f"-w 2 {QUICK}"},
        _HUEY,
        {"history": NO_LIST},
        ("huey_consumer", "--help"),
        {"noop": 0.5, "sleep": 0.5},
        {"register": IN_CODE, "reload": IN_CODE, "latency": "polls every 10 to 50 ms (by default 0.1 to 10 s)"},
    ),
    System(
        "huey-redis",
        "Huey, Redis",
        "huey",
        ("huey==3.5.4", "redis==8.1.0"),
        "redis",
        {"noop": "-w 16", "latency": "", "sleep": "-w 100", "program": "-w 2"},
        _HUEY,
        {"history": NO_LIST, "register": "the same as with SQLite", "reload": "the same as with SQLite", "cli": "the same as with SQLite"},
    ),
    System(
        "celery",
        "Celery, Redis",
        "celery",
        ("celery[redis]==5.7.0", "redis==8.1.0"),
        "redis",
        {"noop": "-P threads -c 16", "latency": "-c 2", "sleep": "-P threads -c 100", "program": "-c 2"},
        "no receipt or output; acknowledged before it runs, so a run is lost with its worker; no retries unless asked",
        {"history": NO_LIST},
        ("celery", "--version"),
        {},
        {
            "register": "in the configuration; a file keeps when each last ran",
            "reload": "in the configuration; a file keeps when each last ran",
        },
    ),
    System(
        "rq",
        "RQ, Redis",
        "rq",
        ("rq==3.0.0", "redis==8.1.0"),
        "redis",
        {"noop": "-n 2", "latency": "-n 1", "sleep": "-n 20", "program": "-n 2"},
        "no receipt or output; a run that loses its worker is called failed; no retries unless asked; results expire",
        {},
        ("rq", "--version"),
        {"noop": 0.2, "sleep": 0.2, "program": 0.4},
        {
            "noop": "forks for each run",
            "program": "forks for each run",
            "sleep": "a process for each slot, so 20 at a time; a multiple of 100 at a time all the same",
            "history": "of the queue, not of one job",
            "register": "all in one field of Redis",
            "reload": "gone after two minutes in which no scheduler of it ran",
        },
    ),
    System(
        "dramatiq",
        "Dramatiq, Redis",
        "dramatiq",
        ("dramatiq==2.2.1", "redis==8.1.0"),
        "redis",
        {"noop": "-p 2 -t 8", "latency": "-p 1 -t 8", "sleep": "-p 1 -t 100", "program": "-p 1 -t 2"},
        "no receipt or output; a run whose worker dies is run again after a minute; retries up to 20 times; results expire",
        {"history": NO_LIST, "register": "no scheduler", "reload": "no scheduler"},
        ("dramatiq", "--version"),
        {},
        {"latency": "polls, more seldom the longer it was idle (up to a second)"},
    ),
    System(
        "taskiq",
        "taskiq, Redis stream",
        "taskiq",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0"),
        "redis",
        {
            "noop": "--workers 2",
            "latency": "--workers 1",
            "sleep": "--workers 1 --max-async-tasks 100",
            "program": "--workers 1 --max-async-tasks 2",
        },
        "no receipt or output; a run whose worker dies is run again after ten minutes; no retries unless asked",
        {"history": NO_LIST},
        ("taskiq", "--version"),
        {},
        {"register": "each an entry in Redis", "reload": "reads all of them at every tick"},
    ),
    System(
        "dbos",
        "DBOS, SQLite",
        "dbos",
        ("dbos==3.4.0",),
        "sqlite",
        {"noop": "slots=50 poll=0.05", "latency": "slots=10 poll=0.05", "sleep": "slots=100 poll=0.05", "program": "slots=2 poll=0.05"},
        "a row, no receipt or output; an interrupted run is taken up at the next start; no retries unless asked",
        {},
        ("dbos", "version"),
        {"submissions": 0.3, "noop": 0.2, "sleep": 0.2, "program": 0.4},
        {
            "latency": "polls every 50 ms (by default every second)",
            "register": "`apply_schedules`, all in one call",
            "reload": "a thread for each schedule: until all are there",
        },
    ),
    System(
        "procrastinate",
        "Procrastinate, PostgreSQL",
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
        "postgres",
        {"noop": "-c 50", "latency": "", "sleep": "-c 100", "program": "-c 2"},
        "a row, no receipt or output; a run whose worker dies stays `doing` until a task of yours retries it; no retries unless asked",
        {},
        ("procrastinate", "--version"),
        {"noop": 0.5, "sleep": 0.5},
        {
            "register": IN_CODE + " but each firing",
            "reload": IN_CODE + " but each firing",
            "history": "its list has no limit: all 1,000 of the job come and are sorted here",
        },
    ),
    System(
        "apscheduler",
        "APScheduler alone, SQLite",
        "apscheduler",
        ("apscheduler==3.11.3", "sqlalchemy==2.1.9"),
        "sqlite",
        {"noop": "threads=10", "latency": "threads=10", "sleep": "threads=100", "program": "threads=2"},
        "runs in the program's own process; nothing is recorded of a run, and it is lost with the process; no retries",
        {"history": "keeps none", "cli": "no command line"},
        (),
        {"submissions": 0.3, "noop": 0.2, "sleep": 0.2, "program": 0.4},
        {"register": "its SQLAlchemy store, a commit each", "reload": "`get_jobs` of its SQLAlchemy store"},
    ),
)


@dataclass(frozen=True)
class Measure:
    """What is measured. `unit` says how a figure reads: rate (more is better), seconds or multiple (less is better)."""

    name: str
    title: str
    unit: str
    count: int
    quick: int
    passes: int
    means: str
    floor: str = ""  # what the floor's figure is; empty when there is none
    of_runs: bool = False  # whether what a system leaves out of a run bears on the figure

    @property
    def more(self) -> bool:
        """Whether more is better."""
        return self.unit == "rate"


MEASURES = (
    Measure(
        "submissions",
        "Durable submissions",
        "rate",
        1000,
        100,
        3,
        "One at a time from one process, no worker up; on disk when the call returns. Redis here is a server of the benchmark's own with "
        "`appendfsync always`.",
        "bare commits to SQLite (WAL, synchronous FULL)",
        True,
    ),
    Measure(
        "lax",
        "Submissions to Redis as this machine runs it",
        "rate",
        1000,
        100,
        3,
        "The same, to the server whose settings stand below: as durable as those.",
        "bare commits to SQLite (WAL, synchronous FULL)",
        True,
    ),
    Measure(
        "noop",
        "No-op throughput",
        "rate",
        1000,
        100,
        3,
        "From before the first submission, in the quickest way there is, until the last run is recorded as ended; for Lily, until its "
        "three files are written.",
        "a folder with three files and three rows for each run, 20 runs a commit",
        True,
    ),
    Measure(
        "latency",
        "Submit → start",
        "seconds",
        30,
        5,
        2,
        "From the call to the first line of the body, with an idle worker; the median, and the 95th percentile behind it.",
        of_runs=True,
    ),
    Measure(
        "sleep",
        "1,000 sleepers of 100 ms, 100 at a time",
        "multiple",
        1000,
        200,
        2,
        "As a multiple of the time that sleeping alone takes.",
        "the sleep itself",
        True,
    ),
    Measure(
        "program",
        "500 subprocesses, two at a time",
        "rate",
        500,
        40,
        2,
        "`/bin/true` with a working directory and both pipes read.",
        "bare `subprocess.Popen` with both, two at a time",
        True,
    ),
    Measure(
        "register",
        "10,000 cron schedules: registered",
        "seconds",
        10_000,
        1000,
        1,
        "From the start of a process until its scheduler knows all of them.",
    ),
    Measure(
        "reload",
        "10,000 cron schedules: reloaded",
        "seconds",
        10_000,
        1000,
        1,
        "The same in a new process, nothing changed.",
    ),
    Measure(
        "cli",
        "Start of the command line",
        "seconds",
        0,
        0,
        5,
        "The lightest command, at its best; behind it, cold: the files of its environment and of Python dropped from the page cache, as "
        "far as nobody else uses them.",
        "`python -c pass`",
    ),
    Measure(
        "history",
        "The newest 20 runs of a job among 100,000",
        "seconds",
        100_000,
        10_000,
        1,
        "In process, after a first look.",
    ),
)


def count_of(system: System, measure: Measure, quick: bool) -> int:
    """How many of it this system does in one pass."""
    return max(10, int((measure.quick if quick else measure.count) * system.share.get(measure.name, 1.0)))
