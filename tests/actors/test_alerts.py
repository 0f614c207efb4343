"""Jobs that keep failing are told of, in virtual time: once, to every sink, through silence, quiet hours and kills."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from pydantic import BaseModel
from sqlalchemy import delete, event, select, update

from actors.alerts import PRUNE_SECONDS, Alerts
from lily.alerts.decide import Kind
from lily.alerts.errors import SinkError
from lily.alerts.message import Message
from lily.alerts.terms import Sink
from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import blueprint
from lily.faults import Faults, no_faults
from lily.offload import inline
from lily.operations.changes import cancel
from lily.runs import Run
from lily.settings import Settings, parse_settings
from lily.storage import schema
from lily.storage.alert_deliveries import KEPT
from lily.storage.alert_reads import alert, alerts, streaks
from lily.storage.alerts import mark
from lily.storage.database import reading
from lily.testing import World
from tests.actors.conftest import MakeWorld

TWO = "alerts: {sinks: {hook: {kind: webhook, url: 'http://hook'}, mail: {kind: webhook, url: 'http://mail'}}}"
HOOK = "alerts: {sinks: {hook: {kind: webhook, url: 'http://hook'}}}"
# The worlds begin a second past midnight.
NIGHT = HOOK.replace("alerts: {", "alerts: {quiet_hours: {start: '22:00', end: '07:00'}, ")


class Mood(BaseModel):
    """What the run fails with; empty: it succeeds."""

    error: str = ""
    pin: dict[str, str] = {}


@blueprint("moody.v1", bindings=Mood)
async def moody(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Fails with what its bindings say."""
    if bindings.error:
        raise BlueprintError(bindings.error, retryable=False)
    return {}


class Killed(BaseException):
    """The process is gone: nothing catches it."""


class Outside:
    """Everybody who can be told. `down` sinks fail, `hangs` never answer; `got` is what arrived: (seconds, sink, message)."""

    def __init__(self, world: World) -> None:
        self._world, self._began = world, world.clock.now()
        self.down: set[str] = set()
        self.hangs: set[str] = set()
        self.wish = 0.0  # the Retry-After of those that are down
        self.tries: Counter[str] = Counter()
        self.got: list[tuple[float, str, Message]] = []

    async def send(self, sink: Sink, message: Message) -> str:
        """As `Sender.send`."""
        name = str(sink.url).removeprefix("http://")
        self.tries[name] += 1
        if name in self.hangs:
            await anyio.sleep_forever()
        await anyio.sleep(0.01)
        if name in self.down:
            raise SinkError("no route to host", self.wish)
        self.got.append((round((self._world.clock.now() - self._began).total_seconds(), 1), name, message))
        return ""

    def told(self, sink: str = "hook") -> list[tuple[str, str, int]]:
        """What a sink got, in order: alert, kind, failures."""
        return [(each.alert, each.kind.value, each.failures) for _, name, each in self.got if name == sink]


class Scene:
    """A world with an actor of alerts at its edge, and jobs that end as a test says."""

    def __init__(self, world: World, config: str) -> None:
        self.world, self.outside = world, Outside(world)
        self.settings = self._settings(config)
        self.actor: Alerts | None = None

    def _settings(self, config: str) -> Settings:
        given = parse_settings(config.encode())
        return msgspec.structs.replace(self.world.settings, alerts=given.alerts, scheduler=given.scheduler)

    def live(self, *doing: Callable[[], Awaitable[None]], fault: Faults = no_faults) -> None:
        """One life in which these things are done, one after the other."""

        def actor(system: Any) -> dict[str, Any]:
            self.actor = Alerts(
                workspace=self.world.workspace,
                store=self.world.store,
                settings=self.settings,
                send=self.outside.send,
                offload=inline,
                clock=self.world.clock,
                log=self.world.log,
                fault=fault,
            )
            return {"alerts": self.actor.run}

        async def body(world: World) -> None:
            for each in doing:
                await each()

        self.world.live(body, extra=actor)

    def reload(self, config: str) -> Callable[[], Awaitable[None]]:
        """Have other settings hold."""

        async def change() -> None:
            self.settings = self._settings(config)
            assert self.actor is not None
            self.actor.follow(self.settings)
            await anyio.sleep(1)

        return change

    def ends(self, *errors: str, job: str = "job", pause: float = 10.0) -> Callable[[], Awaitable[None]]:
        """Runs of a job that end so, one after the other; an empty error is a success."""

        async def run() -> None:
            for error in errors:
                made = self.submit(error, job)
                await self.world.ended(made.run_id)
                await anyio.sleep(pause)

        return run

    def submit(self, error: str, job: str = "job") -> Run:
        return self.world.submit("moody.v1", job_id=job, bindings={"error": error})

    def sets(self, *, down: set[str]) -> Callable[[], Awaitable[None]]:
        async def change() -> None:
            self.outside.down = set(down)

        return change

    def runs(self) -> list[Run]:
        return self.world.store.runs(limit=100)[::-1]

    def audit(self) -> list[tuple[str, str]]:
        a = schema.audit.c
        with reading(self.world.store.engine) as connection:
            wanted = select(a.action, a.object, a.actor_kind).where(a.action.startswith("alert.")).order_by(a.sequence)
            rows = connection.execute(wanted).all()
        assert {row[2] for row in rows} <= {"supervisor"}
        return [(row[0], row[1]) for row in rows]


@pytest.fixture
def scene(make_world: MakeWorld) -> Callable[..., Scene]:
    def make(config: str = HOOK) -> Scene:
        return Scene(make_world(moody), config)

    return make


def pause(seconds: float) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await anyio.sleep(seconds)

    return wait


def test_three_failures_in_a_row_raise_one_alert_with_run_and_trace(scene: Callable[..., Scene]) -> None:
    """Not two, and not a fourth time; every sink gets it; the audit says so."""
    here = scene(TWO)
    here.live(here.ends("x", "x"), pause(100))
    assert here.outside.got == []
    here.live(here.ends("x", "x", "x"))
    third = here.runs()[2]
    assert sorted((name, each.run_id, each.trace_id, each.failures) for _, name, each in here.outside.got) == [
        ("hook", third.run_id, third.trace_id, 3),
        ("mail", third.run_id, third.trace_id, 3),
    ]
    message = here.outside.got[0][2]
    assert (message.alert, message.kind, message.code, message.message) == ("A1", Kind.FAILING, "job_execution_failed", "x")
    for word in (third.run_id, third.trace_id, "failed 3 times", "job_execution_failed: x", f"lily runs show {third.run_id}"):
        assert word in message.text
    assert here.audit() == [("alert.raise", "A1"), ("alert.send", "A1"), ("alert.send", "A1")]
    (streak,) = streaks(here.world.store, "job")
    assert (streak.failures, streak.alert_id) == (5, 1)
    assert streak.verdict.startswith("throttled: A1 told of the same error at ")


def test_the_same_error_is_told_again_once_the_throttle_is_over_and_a_new_one_at_once(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.live(here.ends("x", "x", "x", "x"), here.ends("other"), pause(3600), here.ends("x"))
    assert here.outside.told() == [("A1", "failing", 3), ("A2", "failing", 5), ("A3", "failing", 6)]
    assert [each[2].message for each in here.outside.got] == ["x", "other", "x"]


def test_alerts_of_long_ago_are_forgotten_while_the_supervisor_stays_up(scene: Callable[..., Scene]) -> None:
    """Within an hour after their time is over, so that a supervisor which never stops does not keep them for ever."""
    here = scene()

    async def much_later() -> None:
        here.world.clock.jump(days=KEPT.days + 1)
        await anyio.sleep(PRUNE_SECONDS + 1)
        assert alerts(here.world.store) == []

    here.live(here.ends("x", "x", "x"), much_later)
    assert here.outside.told() == [("A1", "failing", 3)]


def test_a_success_after_an_alert_brings_one_recovery_message(scene: Callable[..., Scene]) -> None:
    """And one without an alert none; canceled runs are neither failures nor successes."""
    here = scene()

    async def canceled() -> None:
        run = here.world.submit("nap.v1", bindings={"seconds": 50})
        await anyio.sleep(1)
        cancel(here.world.workspace, here.world.store, run.run_id, by="ann", reason="enough", clock=here.world.clock)
        here.world.system.ring()  # type: ignore[union-attr]
        await here.world.ended(run.run_id)

    here.live(here.ends("x", "x", ""), here.ends("x", "x"), canceled, here.ends("x", "", ""))
    assert here.outside.told() == [("A1", "failing", 3), ("A2", "recovered", 3)]
    assert here.outside.got[1][2].run_id == here.runs()[-2].run_id
    assert [each[0] for each in here.audit()] == ["alert.raise", "alert.send", "alert.recover", "alert.send"]
    assert streaks(here.world.store) == []


def test_a_job_that_flaps_is_not_told_of_more_often_than_the_throttle_allows(scene: Callable[..., Scene]) -> None:
    """The throttle of an error outlives a recovery; once it is over and the job still fails, that is told."""
    here = scene()
    flap = ("x", "x", "x", "")
    here.live(here.ends(*flap, *flap, *flap), pause(3600), here.ends("x", "x", "x"))
    assert here.outside.told() == [("A1", "failing", 3), ("A2", "recovered", 3), ("A3", "failing", 3)]


def test_a_sink_that_is_down_is_tried_again_with_back_off_and_its_alert_does_not_count_as_sent(scene: Callable[..., Scene]) -> None:
    """Later failures make no second alert and begin no throttle: what arrives at last says how things stand by then."""
    here = scene()
    here.outside.down = {"hook"}
    here.live(here.ends("x", "x", "x"), pause(200), here.ends("x", "x"), pause(30))
    assert here.outside.tries["hook"] == 5  # after 15, 30, 60 and 120 s
    (shown,) = alerts(here.world.store)
    assert (shown.alert.sent_at, shown.alert.failures) == (None, 5)
    assert [each["note"] for each in shown.deliveries[0].log] == ["no route to host"] * 5
    here.live(here.sets(down=set()), pause(300), here.ends("x"))
    assert here.outside.told() == [("A1", "failing", 5)]
    found = alert(here.world.store, 1)
    assert found is not None
    assert (found.deliveries[0].state, found.deliveries[0].tries) == ("delivered", 6)
    assert found.alert.sent_at is not None
    assert streaks(here.world.store)[0].verdict.startswith("throttled")


def test_a_sink_that_wants_to_be_left_alone_is_not_tried_with_other_alerts_meanwhile(scene: Callable[..., Scene]) -> None:
    """Its Retry-After is about the sink, whatever alert got it as its answer."""
    here = scene()
    here.outside.down, here.outside.wish = {"hook"}, 1800.0
    here.live(here.ends("x", "x", "x"), here.ends("y", "y", "y", job="b"), pause(1600), here.sets(down=set()), pause(300))
    assert here.outside.tries["hook"] == 3
    assert sorted(here.outside.told()) == [("A1", "failing", 3), ("A2", "failing", 3)]


def test_of_many_alerts_for_a_sink_that_is_down_one_is_tried(scene: Callable[..., Scene]) -> None:
    """The others wait with it: each try at a sink that does not answer may take as long as it is given."""
    here = scene()
    here.outside.down = {"hook"}
    here.live(*(here.ends("x", "x", "x", job=job, pause=1) for job in "abc"))
    assert len(alerts(here.world.store)) == 3
    here.outside.tries.clear()
    here.live(pause(10))
    assert here.outside.tries["hook"] == 1


@pytest.mark.parametrize("config", [HOOK, NIGHT])
def test_a_clock_that_is_set_back_puts_off_no_alert(scene: Callable[..., Scene], config: str) -> None:
    """What was to be tried again a minute later, or when the quiet hours end, would wait for three days more."""
    here = scene(config)
    here.outside.down = {"hook"}

    async def set_back() -> None:
        here.world.clock.jump(days=-3, hours=8)  # eight in the morning: nobody sleeps any more

    here.live(here.ends("x", "x", "x"), pause(20), here.sets(down=set()), set_back, pause(10))
    assert here.outside.told() == [("A1", "failing", 3)]


def test_what_a_sink_did_not_take_comes_in_order_when_it_is_up_again(scene: Callable[..., Scene]) -> None:
    """The alert, then the recovery; and what follows it is another alert."""
    here = scene()
    here.outside.down = {"hook"}
    here.live(here.ends("x", "x", "x", ""), here.ends("x", "x", "x"), here.ends("y", "y", "y", job="b"), pause(5000))
    assert here.outside.got == []
    here.live(here.sets(down=set()), pause(4000))
    assert [told for told in here.outside.told() if told[0] != "A4"] == [("A1", "failing", 3), ("A2", "recovered", 3), ("A3", "failing", 3)]
    assert ("A4", "failing", 3) in here.outside.told()


def test_sinks_do_not_wait_for_one_another(scene: Callable[..., Scene]) -> None:
    """One hangs, the other has all; a drain does not wait either."""
    here = scene(TWO)
    here.outside.hangs = {"mail"}
    here.live(here.ends("x", "x", "x", ""), pause(1000))
    assert here.outside.told("hook") == [("A1", "failing", 3), ("A2", "recovered", 3)]
    assert here.outside.tries == {"hook": 2, "mail": 1}
    here.outside.hangs = set()
    here.live(pause(10))
    assert here.outside.told("mail") == here.outside.told("hook")
    assert len(here.outside.got) == 4


def test_quiet_hours_defer_and_never_drop(scene: Callable[..., Scene]) -> None:
    """What is raised in them is delivered when they end, in order, also after a restart; and only then it counts as sent."""
    here = scene(NIGHT)
    here.live(here.ends("x", "x", "x", ""), pause(3600))
    assert (here.outside.tries, here.outside.got) == (Counter(), [])
    first = alerts(here.world.store)[-1]
    assert (first.alert.sent_at, first.deliveries[0].state) == (None, "waiting")
    assert first.deliveries[0].note == "quiet hours until 2026-03-02T07:00:00.000000Z"
    here.world.clock.jump(hours=5.9)
    here.live(pause(400))
    assert here.outside.told() == [("A1", "failing", 3), ("A2", "recovered", 3)]
    assert all(at >= 7 * 3600 - 1 for at, _, _ in here.outside.got)


def test_quiet_hours_that_are_taken_back_hold_nothing_up(scene: Callable[..., Scene]) -> None:
    """What they deferred is sent when the settings are read again."""
    here = scene(NIGHT)
    here.live(here.ends("x", "x", "x"), here.reload(HOOK), pause(5))
    assert here.outside.told() == [("A1", "failing", 3)]


def test_a_retry_that_falls_into_quiet_hours_waits_for_their_end(scene: Callable[..., Scene]) -> None:
    """And is no try."""
    here = scene(HOOK.replace("alerts: {", "alerts: {quiet_hours: {start: '00:01', end: '02:00'}, "))
    here.outside.down = {"hook"}
    here.live(here.ends("x", "x", "x", pause=1), pause(3600), here.sets(down=set()), pause(3700))
    assert here.outside.tries["hook"] == 4  # at 3, 18 and 48 s, and at two
    assert [at for at, _, _ in here.outside.got if at < 7199] == []
    assert here.outside.told() == [("A1", "failing", 3)]


@pytest.mark.parametrize("seam", ["alerts:before-taking-up", "alerts:taken-up", "alerts:sent"])
@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8])
def test_a_kill_loses_no_alert_and_doubles_none_but_one_that_was_not_noted(scene: Callable[..., Scene], seam: str, nth: int) -> None:
    """At each seam, at whichever time it is passed; the next life goes on where this one was."""
    here = scene()
    passed = Counter[str]()

    def kill(point: str) -> None:
        passed[point] += 1
        if point == seam and passed[point] == nth:
            raise Killed

    doing = (here.ends("x", "x", "x", ""), here.ends("y", "y", "y", job="b"), pause(20))
    with suppress(BaseExceptionGroup, Killed):
        here.live(*doing, fault=kill)
    missing = 8 - len(here.runs())
    rest = ("x", "x", "x", "", "y", "y", "y")[len(here.runs()) :]
    here.live(pause(60), *(here.ends(error, job="b" if error == "y" else "job") for error in rest), pause(60))
    assert missing >= 1
    expected = {("A1", "failing", 3), ("A2", "recovered", 3), ("A3", "failing", 3)}
    told = Counter(here.outside.told())
    assert set(told) == expected
    assert sum(told.values()) <= len(expected) + (seam == "alerts:sent")


def test_a_stop_right_after_a_delivery_does_not_have_it_sent_again(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noted of it is stored first, whatever ends around it."""
    here, run, scopes = scene(), Alerts.run, list[anyio.CancelScope]()

    async def stoppable(alerts: Alerts) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await run(alerts)
        await anyio.sleep_forever()

    def stopped(point: str) -> None:
        if point == "alerts:sent":
            scopes[-1].cancel()

    with monkeypatch.context() as patch:
        patch.setattr(Alerts, "run", stoppable)
        here.live(here.ends("x", "x", "x"), fault=stopped)
    assert [scope.cancelled_caught for scope in scopes] == [True]
    here.live(pause(100))
    assert here.outside.told() == [("A1", "failing", 3)]


def test_a_store_that_is_away_when_a_sink_has_taken_an_alert_does_not_bring_it_twice(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became of the try is kept until the store takes it."""
    from lily.errors import Code, LilyError
    from lily.storage import alert_deliveries

    here, stored, fails = scene(), alert_deliveries.note, [3]

    def note(*given: Any) -> None:
        if fails[0]:
            fails[0] -= 1
            raise LilyError(Code.STORE_UNAVAILABLE, "away")
        stored(*given)

    monkeypatch.setattr("actors.alerts.note", note)
    here.live(here.ends("x", "x", "x"), pause(60))
    assert (here.outside.tries["hook"], here.outside.told()) == (1, [("A1", "failing", 3)])
    assert alerts(here.world.store)[0].deliveries[0].state == "delivered"


def test_whatever_breaks_in_alerts_ends_no_run(scene: Callable[..., Scene]) -> None:
    """It is said in the log and tried again."""
    here, broken = scene(), [True]

    def fault(point: str) -> None:
        if broken[0]:
            raise RuntimeError("a mistake of ours")

    async def mend() -> None:
        broken[0] = False

    here.live(here.ends("x", "x", "x"), mend, pause(120), fault=fault)
    assert here.outside.told() == [("A1", "failing", 3)]
    assert here.world.system is not None
    assert here.world.system.crashes == []


def test_a_sink_that_left_the_settings_is_dropped_and_one_that_was_mended_is_tried_at_once(scene: Callable[..., Scene]) -> None:
    here = scene(TWO)
    here.outside.down = {"hook", "mail"}
    mended = "alerts: {sinks: {hook: {kind: webhook, url: 'http://new'}}}"
    here.live(here.ends("x", "x", "x"), pause(2000), here.reload(mended), pause(5))
    assert here.outside.told("new") == [("A1", "failing", 3)]
    hook, mail = alerts(here.world.store)[0].deliveries
    assert (hook.state, mail.state) == ("delivered", "dropped")
    assert mail.note == "the sink is not in the settings any more"
    assert ("alert.drop", "A1") in here.audit()


def test_a_sink_that_was_changed_is_left_alone_no_longer_than_a_new_one(scene: Callable[..., Scene]) -> None:
    """How often the sink of before failed says nothing of it: other alerts do not wait for an hour."""
    here = scene()
    here.outside.down = {"hook", "new"}
    mended = HOOK.replace("http://hook", "http://new")
    here.live(
        here.ends("x", "x", "x"), pause(4000), here.reload(mended), pause(20), here.sets(down=set()), here.ends("y", "y", "y", job="b")
    )
    assert here.outside.told("new") == [("A2", "failing", 3), ("A1", "failing", 3)]


def test_an_alert_is_given_up_after_a_week_and_then_throttles_nothing(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.outside.down = {"hook"}
    here.live(here.ends("x", "x", "x"), pause(1000))
    here.world.clock.jump(days=7)
    here.live(pause(10))
    (shown,) = alerts(here.world.store)
    assert (shown.deliveries[0].state, shown.alert.sent_at) == ("given_up", None)
    assert shown.deliveries[0].note == "given up after 8 tries: no route to host"
    here.live(here.sets(down=set()), here.ends("x"))
    assert here.outside.told() == [("A2", "failing", 4)]


def test_a_record_counts_as_sent_only_where_nobody_else_is_told(scene: Callable[..., Scene], tmp_path: Path) -> None:
    """A log that takes everything must not throttle a webhook that is down."""
    both = "alerts: {sinks: {hook: {kind: webhook, url: 'http://hook'}, rec: {kind: file, path: x, quiet_hours: true}}}"
    here = scene(both)
    here.outside.down = {"hook"}
    here.live(here.ends("x", "x", "x"), pause(20))
    assert alerts(here.world.store)[0].alert.sent_at is None
    alone = scene("alerts: {sinks: {rec: {kind: file, path: x}}}")
    alone.live(alone.ends("z", "z", "z", job="c"), pause(20))
    assert alerts(alone.world.store, job_id="c")[0].alert.sent_at is not None


def test_successes_of_jobs_that_never_failed_cost_no_write(scene: Callable[..., Scene]) -> None:
    """They are passed over; the mark stands where it was, and is moved by what matters."""
    here = scene()
    written: list[str] = []

    def saw(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "alert" in statement and not statement.startswith("SELECT"):
            written.append(statement)

    event.listen(here.world.store.engine, "before_cursor_execute", saw)
    before = mark(here.world.store)
    here.live(here.ends(*[""] * 20, pause=1))
    assert (written, mark(here.world.store)) == ([], before)
    here.live(here.ends("x"))
    assert written
    assert mark(here.world.store) > before


def test_a_process_of_one_run_takes_up_what_ended_and_tries_once(scene: Callable[..., Scene]) -> None:
    """Within its time; what is left waits for the next supervisor, and so does what goes to a log, which is the supervisor's."""
    config = TWO.replace("mail: {", "log: {kind: log}, mail: {")
    here = scene(config)
    here.outside.hangs = {"mail"}
    here.world.live(lambda world: here.ends("x", "x", "x")())

    async def once(world: World) -> None:
        actor = Alerts(
            workspace=world.workspace,
            store=world.store,
            settings=here.settings,
            send=here.outside.send,
            offload=inline,
            clock=world.clock,
            log=world.log,
        )
        began = anyio.current_time()
        await actor.once(5.0)
        assert anyio.current_time() - began <= 5.0

    here.world.live(once)
    assert [(name, each.alert) for _, name, each in here.outside.got] == [("hook", "A1")]
    assert [(each.sink, each.state) for each in alerts(here.world.store)[0].deliveries] == [
        ("hook", "delivered"),
        ("log", "waiting"),
        ("mail", "waiting"),
    ]
    here.outside.hangs = set()
    here.live(pause(10))
    assert len(here.outside.told("mail")) == 1
    assert len(here.outside.told("hook")) == 1


def test_a_run_whose_spec_is_lost_keeps_no_alert_from_being_raised(scene: Callable[..., Scene]) -> None:
    """Neither that of its own job nor any other."""
    here = scene()
    here.world.live(lambda world: here.ends("boom", "boom", "boom")())
    lost = {run.spec_hash for run in here.runs()}
    with here.world.store.engine.begin() as connection:
        connection.execute(delete(schema.spec).where(schema.spec.c.spec_hash.in_(lost)))
    here.world.store.forget_specs(lost)
    here.live(here.ends("bang", "bang", "bang", job="other"))
    assert [message.job_id for _, _, message in here.outside.got] == ["job", "other"]


@pytest.mark.parametrize("data", ["nonsense", "[1]", '{"code": 5}'])
def test_a_failure_whose_event_says_nonsense_keeps_no_alert_from_being_raised(scene: Callable[..., Scene], data: str) -> None:
    """It counts as a failure all the same."""
    here = scene()
    here.world.live(lambda world: here.ends("boom", "boom", "boom")())
    with here.world.store.engine.begin() as connection:
        connection.execute(update(schema.event).where(schema.event.c.name == "job_failed").values(data=data))
    here.live(here.ends("bang", "bang", "bang", job="other"))
    assert [message.job_id for _, _, message in here.outside.got] == ["job", "other"]


def test_the_secrets_of_a_job_are_in_no_alert(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that its spec refers to nor what looks like one; the fingerprint stays that of the dead letter."""
    monkeypatch.setenv("PIN", "correct horse")
    here = scene()

    async def runs() -> None:
        for _ in range(3):
            bindings = {"error": "login with correct horse failed, token=abcd1234", "pin": {"secret": "env:PIN"}}
            run = here.world.submit("moody.v1", bindings=bindings)
            await here.world.ended(run.run_id)

    here.live(runs, pause(10))
    (_, _, message) = here.outside.got[0]
    assert message.message == "login with *** failed, token=***"
    assert "horse" not in message.text + str(streaks(here.world.store))
    with reading(here.world.store.engine) as connection:
        print_ = connection.execute(select(schema.dead_letter.c.fingerprint).limit(1)).scalar()
    assert alerts(here.world.store)[0].alert.fingerprint == print_
