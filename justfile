# Every gate of this repository. `just` comes from PyPI (rust-just), so that a virtual environment holds all that is needed.

set positional-arguments

# The interpreter beside this very `just`, else the repository's .venv, else the one on PATH.
beside := parent_directory(just_executable()) / "python"
venv := justfile_directory() / ".venv/bin/python"
python := env("LILY_PYTHON", if path_exists(beside) == "true" { beside } else if path_exists(venv) == "true" { venv } else { "python3" })

# A few more processes than cores (tests/conftest.py); who is done first takes over from the other.
spread := "-n auto --dist worksteal"

# What can be done here.
default:
    @just --list

# Format, lint, strict types, import contracts, dead code, dependency audit, docs.
quality-check: lint types architecture dead-code audit docs

lint:
    {{python}} -m ruff format --check .
    {{python}} -m ruff check .

# Put the code into its form and mend what can be mended.
fix:
    {{python}} -m ruff check --fix .
    {{python}} -m ruff format .

types:
    {{python}} -m mypy

# Who may import whom, and which heavy import stands where.
architecture:
    {{python}} -m pytest -q tests/contract/test_architecture.py

dead-code:
    {{python}} -m tools.dead_code

audit:
    {{python}} -m tools.audit

# Links and examples in the documentation.
docs:
    {{python}} -m pytest -q {{spread}} tests/contract/test_docs.py

# The public contract as executable tests; docs and imports are the quality check's.
contract-conformance:
    {{python}} -m pytest -q {{spread}} tests/contract --ignore=tests/contract/test_docs.py --ignore=tests/contract/test_architecture.py

# Everything else, in three minutes on two cores; what follows is handed to pytest. Real processes in a process of their own: commands that
# tests run in process make theirs a subreaper.
test *ARGS:
    {{python}} -m pytest -q {{spread}} tests --ignore=tests/contract --ignore=tests/real -m "not slow and not e2e" "$@"
    {{python}} -m pytest -q {{spread}} tests/real -m "not slow and not e2e" "$@"

# Whole supervisors and servers, seconds each: started, killed, cut off, starved and taken up again. As long again as `test`.
test-e2e:
    {{python}} -m pytest -q {{spread}} tests --ignore=tests/contract --ignore=tests/real -m "e2e and not slow"
    {{python}} -m pytest -q {{spread}} tests/real -m "e2e and not slow"

# What both leave out: small forms of the campaigns, every older schema, and more examples of each property.
test-long *ARGS:
    {{python}} -m pytest -q {{spread}} tests -m slow "$@"
    LILY_EXAMPLES=300 {{python}} -m pytest -q {{spread}} tests/pure "$@"

# The quick ones: values, parsers, blueprints and actors in virtual time.
fast *ARGS:
    {{python}} -m pytest -q {{spread}} tests/pure tests/actors -m "not slow and not postgres" "$@"

# N lives of the actor tree on a fake clock, each from one seed, with crashes injected.
lives N="200":
    LILY_LIVES={{N}} {{python}} -m pytest -q tests/lives

# N random cron expressions, zones and starts against cronsim, an independent implementation; LILY_CRON_SEED=S for others.
cron-agreement N="100000":
    {{python}} -m tests.pure.test_cron_agreement {{N}}

# N hostile inputs for each of everything that reads what others wrote: job files, triggers, settings, receipts, events, runs' folders, the
# sockets. Prints the seed; --seed S repeats it, --only TARGETS, --keep FOLDER for the smallest input of each fault.
fuzz N="20000" *ARGS:
    {{python}} -m tests.fuzz {{N}} {{ARGS}}

# N times: SIGKILL the supervisor under load, start it again, check every promise; prints what was going on at each kill. --engine postgres, --seed S.
crash N="200" *ARGS:
    {{python}} -m lily selftest crash --no-matrix --lives {{N}} {{ARGS}}

# Every named transition: a SIGKILL before it, one after it, and a lie about it. --engine postgres.
crash-matrix *ARGS:
    {{python}} -m lily selftest crash --lives 0 {{ARGS}}

# N times: cut the power of a machine of its own, losing what was not synced; needs root. --seed S.
power-cut N="50" *ARGS:
    {{python}} -m lily selftest power --lives {{N}} {{ARGS}}

# N times: SIGKILL the supervisor while fifty schedules run, then account for every window. --seed S.
windows N="100" *ARGS:
    {{python}} -m benchmarks.windows --kills {{N}} {{ARGS}}

# Other job runners beside Lily, then Lily's own speed and memory, all as ratios. Half an hour, on a machine with nothing else to do; --quick, --write.
bench *ARGS:
    {{python}} -m benchmarks.peers.run "$@"
    {{python}} -m benchmarks.run "$@"

# Lily alone: --quick, --write.
bench-lily *ARGS:
    {{python}} -m benchmarks.run "$@"

# MINUTES of mixed load on one supervisor at the lowest priority: every promise, and whether anything that it uses grows. --csv FILE, --seed S, --keep.
soak MINUTES="60" *ARGS:
    {{python}} -m benchmarks.soak {{MINUTES}} {{ARGS}}

# Other job runners beside Lily, each in a virtual environment of its own: --quick, --write, --only NAMES, --measures NAMES.
bench-peers *ARGS:
    {{python}} -m benchmarks.peers.run "$@"

# Copy lily/samples over this repository's own .lily and samples.
samples:
    {{python}} -m tools.copy_samples
