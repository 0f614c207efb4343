"""Conditions in virtual time: the bridge, the ledger and the evaluator, real; what is looked at is a double that a test steers."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import actors.runner
from lily.conditions.define import Look, subject
from lily.errors import Code, LilyError
from lily.ledger import State
from lily.log import SilentLog
from lily.runs import Status
from lily.settings import Queue
from lily.storage.database import reading
from lily.storage.looks import KEPT, LookReads
from lily.storage.schema import evaluation, event
from lily.storage.windows import Windows
from lily.testing import World
from tests.actors.conftest import MakeWorld
from tests.actors.test_scheduler_bridge import Killed, Once, killed
from tests.timetable import Timetable
from tests.work import ALL

MINUTE, HOUR = 60.0, 3600.0


class Probe:
    """A subject `probe` that gives `answer`: a value, an exception, or seconds to wait before it gives True."""

    def __init__(self) -> None:
        self.answer: Any = False
        self.slow = 0.0
        self.looks = 0
        self.under_way = self.most = 0
        self.subject = subject("probe", summary="What a test says.")(self._observe)

    async def _observe(self, look: Look, params: Any) -> Any:
        self.looks += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await anyio.sleep(self.slow)
        finally:
            self.under_way -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


TRUE = {"subject": "probe", "operator": "eq", "value": True, "every": "10m"}


@pytest.fixture
def probe() -> Probe:
    """What the tests' conditions look at."""
    return Probe()


@pytest.fixture
def table(make_world: MakeWorld, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> Timetable:
    """A timetable whose world knows the probe. It is one second past midnight."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 60.0)
    return Timetable(make_world(probe.subject))


def statuses(table: Timetable, job_id: str = "job") -> list[str]:
    return [status for _, status in table.told(job_id)]


def codes(table: Timetable) -> list[str]:
    return [row.code for row in table.rows()]


def looks(table: Timetable) -> list[Any]:
    with reading(table.world.store.engine) as connection:
        return list(connection.execute(evaluation.select().order_by(evaluation.c.at)))


def workspace_events(table: Timetable) -> list[str]:
    with reading(table.world.store.engine) as connection:
        return [row.name for row in connection.execute(event.select().where(event.c.run_id == "").order_by(event.c.sequence))]


def playing(table: Timetable, probe: Probe, *answers: Any) -> Callable[[World], Awaitable[None]]:
    """A life in which the probe gives each answer for one look."""

    async def body(world: World) -> None:
        for answer in answers:
            probe.answer = answer
            await anyio.sleep(10 * MINUTE)

    return body


# -- edge and level ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "runs"), [("edge", 1), ("level", 5)])
def test_what_is_true_for_five_looks_runs_once_or_each_time(table: Timetable, probe: Probe, mode: str, runs: int) -> None:
    """A look's window is looked at once, and each has its row."""
    table.put("job", **TRUE, mode=mode)
    table.live(playing(table, probe, False, True, True, True, True, True))
    assert probe.looks == 6
    assert (statuses(table).count("fired"), len(table.runs())) == (runs, runs)
    assert statuses(table).count("not_met") == 6 - runs
    assert all(run.status is Status.SUCCEEDED for run in table.runs())
    assert table.differences() == []


def test_a_run_carries_the_look_that_fired_it(table: Timetable, probe: Probe) -> None:
    """In the trigger of its receipt, with what was compared and what was found."""
    table.put("job", subject={"kind": "probe"}, operator="gte", value=10, every="10m")
    table.live(playing(table, probe, 9, 12))
    (run,) = table.runs()
    kept = table.world.receipt(run.run_id).trigger["evaluation"]
    assert (kept["subject"], kept["operator"], kept["value"], kept["mode"]) == ({"kind": "probe"}, "gte", 10, "edge")
    assert (kept["observed"], kept["kind"], kept["message"]) == (12, "number", "12 is at least 10")
    assert run.trigger["type"] == "condition"
    summary = table.world.workspace.run_dir("job", run.run_id) / "summary.md"
    assert "Its condition was met: 12 is at least 10." in summary.read_text()
    assert table.names(run)[:3] == ["job_queued", "scheduler_executed", "job_started"]


def test_an_edge_is_remembered_over_restarts(table: Timetable, probe: Probe) -> None:
    """What was true before the supervisor ended is not becoming true after it; what was false then is."""
    table.put("job", **TRUE)
    table.live(playing(table, probe, True))
    table.live(playing(table, probe, True, True, False))
    table.live(playing(table, probe, True))
    assert statuses(table) == ["fired", "not_met", "not_met", "not_met", "fired"]
    assert codes(table)[1:4] == ["still_true", "still_true", ""]


def test_an_edited_predicate_starts_afresh_and_an_edited_cadence_does_not(table: Timetable, probe: Probe) -> None:
    """Nobody knows whether the new one was true before."""
    probe.answer = 7
    predicate = {"subject": "probe", "operator": "gt", "value": 3}

    async def body(world: World) -> None:
        table.put("job", **predicate, every="10m")
        await anyio.sleep(15 * MINUTE)
        table.put("job", **predicate, every="5m")
        await anyio.sleep(6 * MINUTE)
        table.put("job", **{**predicate, "value": 4}, every="5m")
        await anyio.sleep(10 * MINUTE)

    table.live(body)
    assert statuses(table) == ["fired", "not_met", "fired", "not_met"]
    assert table.differences() == []


def test_a_look_never_delays_what_is_due_meanwhile_and_comes_after_it(table: Timetable, probe: Probe) -> None:
    """A look longer than its cadence: windows that fall due meanwhile share the next look, and none is left out."""
    table.put("job", **{**TRUE, "every": "2s"}, mode="level")
    probe.answer, probe.slow = True, 7.0
    table.sleep(MINUTE)
    assert set(statuses(table)) == {"fired", "coalesced"}
    assert 6 <= probe.looks <= 9
    assert probe.most == 1
    assert table.differences() == []


# -- errors -------------------------------------------------------------------------------------------


def test_an_error_fires_nothing_and_is_seen(table: Timetable, probe: Probe) -> None:
    """Its code stands in the row; one event when a stretch of one code begins, one when it ends; the edge is as it was."""
    table.put("job", **TRUE)
    wrong = RuntimeError("the disk is gone")
    table.live(playing(table, probe, True, wrong, wrong, "text", True, False))
    assert statuses(table) == ["fired", "condition_error", "condition_error", "condition_error", "not_met", "not_met"]
    assert codes(table) == ["", "evaluation_failed", "evaluation_failed", "value_type_mismatch", "still_true", ""]
    assert workspace_events(table) == ["condition_error", "condition_error", "condition_recovered"]
    assert "RuntimeError: the disk is gone" in looks(table)[1].message
    assert len(table.runs()) == 1
    assert table.differences() == []


class Log(SilentLog):
    """Keeps what it was told of conditions."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def info(self, message: str, /, **fields: Any) -> None:
        if "condition" in message:
            self.said.append((message, ""))

    def warning(self, message: str, /, **fields: Any) -> None:
        self.said.append((message, fields.get("code", "")))


def test_the_log_has_a_line_when_errors_begin_and_when_they_end(table: Timetable, probe: Probe) -> None:
    """And not one for each look."""
    log = table.world.log = Log()
    table.put("job", **TRUE)
    wrong = RuntimeError("away")
    table.live(playing(table, probe, wrong, wrong, wrong, "text", False, False, wrong))
    cant, again = "a condition can't be evaluated", "a condition is evaluated again"
    assert log.said == [(cant, "evaluation_failed"), (cant, "value_type_mismatch"), (again, ""), (cant, "evaluation_failed")]


@pytest.mark.parametrize(
    "error",
    [
        *(SystemExit(3), KeyError("x"), GeneratorExit(), BaseException("bare")),
        *(ExceptionGroup("g", [ValueError("x")]), BaseExceptionGroup("g", [SystemExit(1)])),
    ],
)
def test_whatever_a_subject_raises_is_an_error_of_the_look(table: Timetable, probe: Probe, error: BaseException) -> None:
    """And not the end of anything."""
    table.put("job", **TRUE)
    table.put("other", every="10m")
    system = table.live(playing(table, probe, error, error))
    assert codes(table) == ["evaluation_failed"] * 2
    assert statuses(table, "other") == ["fired"] * 2
    assert system.crashes == []


def test_a_subject_that_does_not_answer_times_out(table: Timetable, probe: Probe) -> None:
    """After ten seconds; the window has its row then, and the time that it took is kept."""
    table.put("job", **TRUE)
    probe.slow = HOUR
    table.sleep(11 * MINUTE)
    assert codes(table) == ["timeout"]
    assert [round(row.duration_us / 1_000_000) for row in looks(table)] == [10]


def test_a_slow_look_delays_no_claim_of_another_job(table: Timetable, probe: Probe) -> None:
    """Others fire at their time, and as many looks as may be are under way together."""
    for n in range(12):
        table.put(f"slow-{n}", **{**TRUE, "every": "1m"}, mode="level")
    table.put("other", every="1m")
    probe.answer, probe.slow = True, 9.0
    table.sleep(5 * MINUTE)
    assert probe.most == 8
    assert statuses(table, "other") == ["fired"] * 5
    assert all(run.started_at == run.trigger["scheduled_for"] for run in table.runs("other"))
    assert {status for n in range(12) for status in statuses(table, f"slow-{n}")} == {"fired"}
    assert table.differences() == []


# -- the rules of all windows -------------------------------------------------------------------------


def test_nobody_looks_for_windows_that_are_paused_or_excluded_or_would_overlap(table: Timetable, probe: Probe) -> None:
    """They are what they are without a look, and an edge that comes true meanwhile is not used up."""
    nap = {"blueprint": "nap.v1", "bindings": {"seconds": 25 * MINUTE}, "runtime": {"timeout_seconds": 2 * HOUR}}
    table.put("job", **TRUE, spec=nap)

    async def body(world: World) -> None:
        probe.answer = True
        await anyio.sleep(15 * MINUTE)  # fires, and goes on until 00:35
        probe.answer = False
        await anyio.sleep(20 * MINUTE)
        table.change("job", State.PAUSED)
        await anyio.sleep(10 * MINUTE)
        table.change("job", State.ACTIVE)
        await anyio.sleep(10 * MINUTE)
        probe.answer = True
        await anyio.sleep(10 * MINUTE)

    table.live(body)
    assert statuses(table) == ["fired", "skipped_overlap", "skipped_overlap", "skipped_paused", "not_met", "fired"]
    assert probe.looks == 3


def test_looks_that_were_missed_are_gone_and_one_late_look_stands_for_those_it_may(table: Timetable, probe: Probe) -> None:
    """With catch_up latest, the last of a downtime is looked at when the supervisor is back."""
    probe.answer = True
    table.put("job", **TRUE, mode="level")
    table.put("late", **TRUE, mode="level", catch_up="latest")
    table.sleep(11 * MINUTE)
    table.world._loop_time += 45 * MINUTE
    table.sleep(5 * MINUTE)
    assert set(statuses(table)[1:5]) == {"missed"}
    assert statuses(table, "late")[1:5] == [*["coalesced"] * 3, "fired"]
    assert table.differences() == []


def test_a_full_queue_leaves_the_edge_for_the_next_look(table: Timetable, probe: Probe) -> None:
    """The window is refused, the run comes later, and it is one."""
    world = table.world
    world.store.queue.limits = Queue(max_concurrent=1, max_size=1)
    world.slots = 1
    table.put("job", **TRUE)
    probe.answer = True

    async def body(world: World) -> None:
        for _ in range(2):
            world.submit("nap.v1", job_id="other", bindings={"seconds": 20 * MINUTE}, runtime={"timeout_seconds": HOUR})
            await anyio.sleep(1)
        await anyio.sleep(70 * MINUTE)

    table.live(body)
    told = statuses(table)
    assert "refused" in told
    assert told[told.index("fired") - 1] == "refused"
    assert told.count("fired") == 1
    assert set(told[told.index("fired") + 1 :]) == {"not_met"}


def test_a_timed_trigger_that_becomes_a_condition_loses_no_window(table: Timetable, probe: Probe) -> None:
    """What was due before the edit runs, though the first look finds nothing."""
    table.put("job", every="10m", catch_up="latest")
    table.sleep(5 * MINUTE)
    table.world._loop_time += 20 * MINUTE
    windows = Windows(table.world.store)
    table.put("job", **TRUE)

    async def late(world: World) -> None:
        await anyio.sleep(20 * MINUTE)

    table.live(late)
    told = statuses(table)
    assert "fired" in told
    assert told[-1] == "not_met"
    assert windows.states(["job"])["job"].version is not None
    assert table.differences() == []


# -- crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kill_between_look_and_commit_is_looked_at_again_and_fires_once(table: Timetable, probe: Probe, nth: int) -> None:
    """Nothing was stored of the look, so nothing came of it."""
    probe.answer = True
    table.put("job", **TRUE, mode="level", catch_up="latest")
    killed(lambda: table.sleep(HOUR, fault=Once("bridge:looked", nth, Killed)))
    assert len(looks(table)) == len(table.runs()) == nth - 1
    table.sleep(20 * MINUTE)
    fired = [row.run_id for row in table.rows() if row.status == "fired"]
    assert len(fired) == len(set(fired)) == len(table.runs()) == len(looks(table))
    assert [run.status for run in table.runs()] == [Status.SUCCEEDED] * len(fired)
    assert table.differences() == []


@pytest.mark.parametrize("point", ["bridge:looked", "bridge:before-claim", "bridge:claimed"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_crash_of_the_bridge_in_mid_look_loses_and_doubles_nothing(table: Timetable, probe: Probe, point: str, nth: int) -> None:
    """It starts again, and every window has its row and its one run."""
    probe.answer, probe.slow = True, 1.0
    table.put("job", **TRUE, mode="level")
    table.sleep(HOUR, fault=Once(point, nth))
    assert statuses(table) == ["fired"] * 5
    assert [run.status for run in table.runs()] == [Status.SUCCEEDED] * 5
    assert table.differences() == []


def test_a_look_that_the_store_does_not_take_leaves_a_missed_window_and_the_edge(
    table: Timetable, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one fires."""
    table.put("job", **TRUE)
    probe.answer = True
    claim, left = table.windows.claim, [1]

    def away(*args: Any, looked: Any = None, **more: Any) -> Any:
        if looked and left and left.pop():
            raise LilyError(Code.STORE_UNAVAILABLE, "the store is away")
        return claim(*args, looked=looked, **more)

    monkeypatch.setattr(table.windows, "claim", away)
    table.sleep(25 * MINUTE)
    assert statuses(table) == ["missed", "fired"]
    assert codes(table)[0] == "store_unavailable"


# -- what is kept --------------------------------------------------------------------------------------


def test_the_last_looks_are_kept_and_the_edge_outlives_them(table: Timetable, probe: Probe) -> None:
    """More errors than are kept do not make what was true become true again."""
    table.put("job", **{**TRUE, "every": "1m"})
    probe.answer = True

    async def body(world: World) -> None:
        await anyio.sleep(1.5 * MINUTE)
        probe.answer = RuntimeError("away")
        await anyio.sleep((KEPT + 20) * MINUTE)
        probe.answer = True
        await anyio.sleep(2 * MINUTE)

    table.live(body)
    assert len(looks(table)) == KEPT
    assert statuses(table).count("fired") == 1
    last = LookReads(table.world.store).newest(["job"])["job"]
    assert (last.standing.held, last.evaluation.result) == ("true", "true")
    assert last.evaluation.evaluated_at > last.standing.since


@pytest.mark.parametrize("name", ["API_TOKEN", "DB_PASSWORD"])
def test_a_secret_of_the_environment_is_compared_and_never_kept(table: Timetable, name: str) -> None:
    """Its name says that it is one."""
    table.environ[name] = "hunter2-and-more"
    table.put("job", subject={"kind": "env", "name": name}, operator="matches", value="hunter*", every="10m")
    table.sleep(11 * MINUTE)
    (run,) = table.runs()
    assert run.trigger["evaluation"]["observed"] == "***"
    folder = table.world.workspace.run_dir("job", run.run_id)
    assert not any(b"hunter2" in path.read_bytes() for path in folder.iterdir())
    assert "hunter2" not in str(looks(table))


def test_long_text_is_cut(table: Timetable, probe: Probe) -> None:
    """And a list is kept as its JSON."""
    table.put("job", subject="probe", operator="exists", every="10m", mode="level")
    table.live(playing(table, probe, "x y " * 10_000, [1, {"a": None}]))
    first, second = looks(table)
    assert (len(first.observed), first.kind) == (502, "text")
    assert (second.observed, second.kind) == ('"[1,{\\"a\\":null}]"', "structure")


def test_the_same_day_gives_the_same_rows_whatever_the_order_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks of several jobs at one instant."""
    monkeypatch.setattr(actors.runner, "LOOK_SECONDS", 60.0)
    seen = []
    for seed in range(4):
        probe = Probe()
        world = World(tmp_path / str(seed), *ALL, probe.subject, seed=seed)
        table = Timetable(world)
        try:
            for n in range(5):
                table.put(f"job-{n}", **TRUE, mode="level" if n % 2 else "edge")
            table.live(playing(table, probe, False, True, ValueError("x"), True))
            seen.append([table.told(f"job-{n}") for n in range(5)])
        finally:
            world.close()
    assert all(each == seen[0] for each in seen)


# -- every code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "operator", "value", "code"),
    [
        ({"kind": "clock", "fild": "now"}, "exists", None, "invalid_predicate"),
        ("nobody", "exists", None, "subject_not_found"),
        ({"kind": "run", "job": "nobody"}, "eq", "failed", "subject_not_found"),
        ("probe", "gt", True, "operator_not_supported"),
        ("probe", "eq", "7", "value_type_mismatch"),
        ({"kind": "file", "path": "x"}, "exists", None, "forbidden"),
        ({"kind": "http", "url": "http://localhost/"}, "eq", 200, "forbidden"),
    ],
)
def test_every_code_comes_about(table: Timetable, probe: Probe, subject: Any, operator: str, value: Any, code: str) -> None:
    """A stored trigger may be of another Lily, or name what has gone since."""
    probe.answer = True
    table.put("job", subject=subject, operator=operator, value=value, every="10m")
    table.sleep(11 * MINUTE)
    assert (statuses(table), codes(table)) == (["condition_error"], [code])
    last = LookReads(table.world.store).newest(["job"])["job"]
    assert (last.evaluation.code, bool(last.evaluation.message)) == (code, True)
    assert workspace_events(table) == ["condition_error"]


@pytest.mark.parametrize(("decision", "said"), [("ask", "nobody can be asked"), ("deny", "the policy denies it")])
def test_a_capability_that_the_policy_does_not_allow_is_forbidden(make_world: MakeWorld, tmp_path: Path, decision: str, said: str) -> None:
    """Although the job grants it: at a look nobody can be asked."""
    (tmp_path / ".lily").mkdir()
    (tmp_path / ".lily" / "config.yaml").write_text(f"policy: {{capabilities: {{fs.read: {decision}}}}}\n")
    table = Timetable(make_world())
    table.put("job", subject={"kind": "file", "path": "x"}, operator="exists", every="10m", spec={"capabilities": ["fs.read"]})
    table.sleep(11 * MINUTE)
    assert codes(table) == ["forbidden"]
    assert said in looks(table)[0].message


def test_queue_and_runs_of_other_jobs_are_looked_at(table: Timetable) -> None:
    """How a job ended, how long ago, how many failed in a row, and what waits."""
    between = {"every": "10m", "anchor": "2024-01-01T00:05"}
    table.put("good", every="10m")
    table.put("bad", every="10m", spec={"blueprint": "nobody.v1"})
    for name, job, field, operator, value in (
        ("status", "good", "status", "eq", "succeeded"),
        ("age", "good", "age", "eq", 300),
        ("none", "good", "failures", "eq", 0),
        ("failed", "bad", "status", "eq", "failed"),
        ("twice", "bad", "failures", "gte", 2),
    ):
        table.put(name, subject={"kind": "run", "job": job, "field": field}, operator=operator, value=value, **between)
    table.put("depth", subject="queue", operator="eq", value=0, **between)
    letters = {"kind": "queue", "field": "dead_letters"}
    table.put("letters", subject=letters, operator="gte", value=1, **between)
    table.sleep(27 * MINUTE)
    for name in ("status", "age", "none", "failed"):
        assert table.told(name)[1:] == [("02 00:15", "fired"), ("02 00:25", "not_met")]
    assert statuses(table, "twice") == ["condition_error", "not_met", "fired"]
    assert statuses(table, "depth") == ["fired", "not_met", "not_met"]
    assert statuses(table, "letters") == ["not_met", "fired", "not_met"]
