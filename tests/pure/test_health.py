"""The table of health: each metric at each border, the levels of all together, and what a store that can't be asked makes of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.health import (
    MORE,
    Check,
    Figures,
    Level,
    Limits,
    QueueFacts,
    ScheduleFacts,
    StoreFacts,
    SupervisorFacts,
    assess,
    exit_status,
    worst,
)

ACTOR = {"name": "runner", "state": "running", "restarts": 0, "restarts_left": 5, "crashed_seconds_ago": None, "busy_seconds": 0.2}
WELL = Figures(
    store=StoreFacts(schema="0003", head="0003"),
    supervisor=SupervisorFacts(kind="up", pid=7, answers=True, uptime=60.0, actors=[ACTOR]),
    limits=Limits(max_size=100, backpressure_percent=80, low_water_percent=60, queued_seconds=3600),
    queue=QueueFacts(),
    schedule=ScheduleFacts(jobs=3),
    findings=0,
)
H, W, C = Level.HEALTHY, Level.WARNING, Level.CRITICAL


def with_(part: str, **changes: Any) -> Figures:
    """A healthy system with other facts in one part."""
    return msgspec.structs.replace(WELL, **{part: msgspec.structs.replace(getattr(WELL, part), **changes)})


def actor(**changes: Any) -> Figures:
    """One whose runner stands otherwise."""
    return with_("supervisor", actors=[{**ACTOR, **changes}])


def level(figures: Figures, name: str) -> Check:
    """The check of that name."""
    (found,) = [check for check in assess(figures) if check.name == name]
    return found


def test_a_system_that_is_well_is_healthy_in_every_metric_and_names_no_command() -> None:
    """Exit status 0."""
    checks = assess(WELL)
    assert [(check.level, check.command) for check in checks] == [(H, "")] * len(checks)
    assert exit_status(worst(checks)) == 0


QUEUED = [(0, H), (69, H), (70, W), (90, W), (91, C), (500, C)]
LETTERS = [(0, H), (1, W), (10, W), (11, C)]
BUSY = [(5.0, H), (5.1, W), (30.0, W), (30.1, C)]
LAG = [(0.9, H), (1.0, W), (10.0, W), (10.1, C)]
FREE = [(0.10, H), (0.0999, W), (0.02, W), (0.0199, C)]
AGE = [(None, H), (2879.0, H), (2880.0, W), (3600.0, W), (3600.1, C)]
LEFT = [(None, H), (3600.0, H), (3599.0, W), (0.1, W), (0.0, C), (-5.0, C)]
CASES: list[tuple[str, Figures, Level]] = [
    *[("queue", with_("queue", counts={"queued": queued}), found) for queued, found in QUEUED],
    *[("dead_letters", with_("queue", dead_letters=count), found) for count, found in LETTERS],
    ("backpressure", with_("queue", backpressure=True, backpressure_since="2026-03-02T00:00:00.000000Z"), C),
    ("worker", with_("supervisor", kind="", pid=0, answers=False, uptime=0.0), C),
    ("worker", with_("supervisor", kind="run"), C),
    ("worker", with_("supervisor", answers=False), C),
    ("worker", with_("supervisor", paused="ada paused the worker"), H),
    ("supervisor", with_("supervisor", kind="", pid=0, answers=False), C),
    ("supervisor", with_("supervisor", answers=False), C),
    ("supervisor", with_("supervisor", ended_badly="2026-03-02T00:00:00.000000Z", uptime=599.0), W),
    ("supervisor", with_("supervisor", ended_badly="2026-03-02T00:00:00.000000Z", uptime=600.0), H),
    ("supervisor", with_("supervisor", draining=True), W),
    *[("actor.runner", actor(busy_seconds=busy), found) for busy, found in BUSY],
    ("actor.runner", actor(restarts=1, restarts_left=4, crashed_seconds_ago=599.0), W),
    ("actor.runner", actor(restarts=1, restarts_left=5, crashed_seconds_ago=600.0), H),
    ("actor.runner", actor(restarts=5, restarts_left=0, crashed_seconds_ago=1.0), C),
    ("actor.runner", actor(state="restarting", restarts=1, restarts_left=4, crashed_seconds_ago=0.1), W),
    ("actor.runner", actor(state="ended"), C),
    *[("scheduler", with_("schedule", lag=lag), found) for lag, found in LAG],
    ("scheduler", with_("schedule", unaccounted=1), C),
    ("store", with_("store", there=False, schema=""), H),
    ("store", with_("store", problem="damaged: page 3"), C),
    ("store", with_("store", writable=False, why_not="attempt to write a readonly database"), C),
    ("store", with_("store", schema="0009", newer=True), C),
    ("store", with_("store", schema="0001"), W),
    ("store", with_("store", busy=True), W),
    ("store", with_("store", log_bytes=16 * 1024 * 1024), H),
    ("store", with_("store", log_bytes=16 * 1024 * 1024 + 1), W),
    *[("disk", with_("store", free=free), found) for free, found in FREE],
    *[("oldest_queued", with_("queue", oldest_queued=age), found) for age, found in AGE],
    *[("oldest_approval", with_("queue", approval_left=left), found) for left, found in LEFT],
    *[("review", msgspec.structs.replace(WELL, findings=found), level) for found, level in ((0, H), (1, W), (9, W))],
]


@pytest.mark.parametrize(("name", "figures", "wanted"), CASES, ids=[f"{name}-{n}-{found}" for n, (name, _, found) in enumerate(CASES)])
def test_each_metric_has_its_level_at_each_border(name: str, figures: Figures, wanted: Level) -> None:
    """What is not healthy names a command, is the worst of all, and so the exit status."""
    found = level(figures, name)
    assert found.level is wanted, found
    assert bool(found.command) == (wanted is not H)
    assert found.message
    assert exit_status(worst(assess(figures))) >= exit_status(wanted)


def test_every_level_of_every_metric_stands_in_these_cases() -> None:
    """No row of the table is left out."""
    seen = {(name.partition(".")[0], found) for name, _, found in CASES}
    three = {"queue", "dead_letters", "supervisor", "actor", "scheduler", "store", "disk", "oldest_queued", "oldest_approval"}
    assert {(name, each) for name in three for each in (W, C)} <= seen
    assert {("backpressure", C), ("worker", C)} <= seen


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (StoreFacts(there=False, head="0003"), H),
        (StoreFacts(problem="damaged", head="0003"), C),
        (StoreFacts(schema="0002", head="0003"), W),
    ],
)
def test_what_a_store_can_not_be_asked_is_as_bad_as_the_store(facts: StoreFacts, wanted: Level) -> None:
    """Nothing is called healthy that was not looked at, but for a store that nobody has made yet."""
    figures = msgspec.structs.replace(WELL, store=facts, queue=None, schedule=None, findings=None)
    unknown = [check for check in assess(figures) if check.value is None]
    names = {"queue", "dead_letters", "backpressure", "scheduler", "oldest_queued", "oldest_approval", "review", "alerts"}
    assert {check.name for check in unknown} == names
    assert {check.level for check in unknown} == {wanted}


@given(
    st.floats(0, 1e6),
    st.integers(0, 10_000),
    st.integers(0, 100),
    st.booleans(),
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(-1e6, 1e6),
    st.floats(0, 1),
)
def test_every_set_of_figures_has_one_level_for_each_metric(
    lag: float, queued: int, letters: int, on: bool, age: float | None, left: float | None, free: float
) -> None:
    """Names are unique, the worst is one of them, and every command comes from the one table."""
    facts = QueueFacts(counts={"queued": queued}, dead_letters=letters, backpressure=on, oldest_queued=age, approval_left=left)
    figures = msgspec.structs.replace(
        WELL, queue=facts, schedule=ScheduleFacts(jobs=1, lag=lag), store=msgspec.structs.replace(WELL.store, free=free)
    )
    checks = assess(figures)
    assert len({check.name for check in checks}) == len(checks)
    assert worst(checks) in {check.level for check in checks}
    assert {check.command for check in checks} <= {"", *MORE.values()}
