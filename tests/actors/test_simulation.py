"""Simulations play what the engine would do: each window once, troubles settled as in a live supervisor, the same bytes twice."""

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from actors.scheduler import LOOK_SECONDS
from lily.ledger import WindowStatus
from lily.simulation.plan import Durations, Pause, Span, Step
from lily.triggers.schedule import schedule_of
from tests.simulated import at, job, played, rows, told

HOURS = [f"{hour:02d}" for hour in range(24)]


def span(start: str, end: str) -> Span:
    return Span(at(start), at(end))


@pytest.mark.parametrize(
    "options",
    [
        {"cron": "*/7 * * * *"},
        {"cron": "30 1,2,3 * * *", "timezone": "Europe/Lisbon"},
        {"cron": "*/20 * * * *", "timezone": "Europe/Lisbon"},
        {"cron": "*/10 * * * *", "jitter_seconds": 120},
        {"type": "interval", "every": "13m"},
        {"type": "calendar", "rrule": "FREQ=HOURLY;INTERVAL=5", "anchor": "2026-03-01T00:30"},
        {"cron": "0 * * * *", "exclude": {"dates": ["2026-03-29"]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("day", ["2026-03-28", "2026-03-29", "2026-10-25"])
def test_an_undisturbed_day_has_a_row_for_each_window_of_the_trigger(options: dict[str, Any], day: str) -> None:
    """From the first instant on, up to the last, without it; days of changing clocks included."""
    made = job("a", **options)
    start, end = at(day), at(day) + timedelta(days=1)
    report = played(made, start=day, end=end.date().isoformat(), seconds=1.0)
    tick = timedelta(microseconds=1)
    windows = list(schedule_of(made[0].trigger, made[0].timezone).windows(start - tick, end - tick))
    found = [(row.at, row.status is WindowStatus.EXCLUDED) for row in rows(report, "a")]
    late = len(windows) - len(found)  # with a jitter, the last may be due after the end
    assert late in ((0, 1) if "jitter_seconds" in options else (0,))
    assert found == [(window.at, window.excluded) for window in windows[: len(found)]]
    assert {row.status for row in rows(report, "a")} <= {WindowStatus.FIRED, WindowStatus.EXCLUDED}


def test_windows_of_an_outage_are_missed() -> None:
    """From its first instant on; the window at its end finds the supervisor there."""
    report = played(job("a"), outages=[span("2026-05-04T03:00", "2026-05-04T06:00")])
    assert told(report, "a")[2:7] == [
        ("04 02:00", "fired"),
        ("04 03:00", "missed"),
        ("04 04:00", "missed"),
        ("04 05:00", "missed"),
        ("04 06:00", "fired"),
    ]
    assert len(rows(report, "a")) == 24


def test_windows_of_an_outage_are_caught_up_as_the_trigger_says() -> None:
    """The latest alone, with the others coalesced into it; or all of them."""
    outage = span("2026-05-04T03:00", "2026-05-04T06:30")
    report = played(job("latest", catch_up="latest"), job("all", catch_up="all", overlap="queue"), outages=[outage])
    assert [status for _, status in told(report, "latest")[3:8]] == ["coalesced", "coalesced", "coalesced", "fired", "fired"]
    assert {row.into for row in rows(report, "latest")[3:6]} == {at("2026-05-04T06:00")}
    assert [status for _, status in told(report, "all")[3:8]] == ["fired"] * 5
    caught_up = [report.run_of("all", row) for row in rows(report, "all")[3:7]]
    assert [run and run.started_at for run in caught_up] == [at(f"2026-05-04T06:{minute}") for minute in (30, 31, 32, 33)]


def test_an_outage_interrupts_runs_which_start_over_after_it() -> None:
    """And then take all of their time again."""
    report = played(job("a", "0 2 * * *"), seconds=3600.0, outages=[span("2026-05-04T02:30", "2026-05-04T06:00")])
    run = report.run_of("a", rows(report, "a")[0])
    assert run is not None
    assert (run.interruptions, run.outcome, run.ended_at) == (1, "succeeded", at("2026-05-04T07:00"))


def test_windows_that_nobody_is_there_to_decide_are_counted() -> None:
    """An outage that lasts to the end leaves them for a later start."""
    report = played(job("a"), outages=[span("2026-05-04T20:00", "2026-05-06")])
    assert len(rows(report, "a")) == 20
    assert report.total()["undecided"] == 4


def test_an_outage_may_be_all_there_is() -> None:
    """From the first instant: the jobs are known all the same. A supervisor that starts at the end decides nothing any more."""
    most = played(job("a"), outages=[span("2026-05-04", "2026-05-04T20:30")])
    assert Counter(status for _, status in told(most, "a")) == {"missed": 21, "fired": 3}
    whole = played(job("a"), outages=[span("2026-05-04", "2026-05-05")])
    assert not rows(whole, "a")
    assert whole.total()["undecided"] == 24


def test_troubles_in_troubles_come_in_their_order() -> None:
    """A kill while the machine sleeps is felt when it wakes; a sleeping machine without a supervisor is an outage."""
    asleep = span("2026-05-04T03:30", "2026-05-04T06:30")
    for outage in (span("2026-05-04T04:10", "2026-05-04T08:10"), span("2026-05-04T04:10", "2026-05-04T05:10")):
        report = played(job("a"), outages=[outage], suspends=[asleep], pauses=[Pause("a", span("2026-05-04T05:00", "2026-05-04T06:00"))])
        assert [row.at for row in rows(report, "a")] == [at(f"2026-05-04T{hour}:00") for hour in HOURS]
        assert [status for _, status in told(report, "a")[4:7]] == ["missed", "skipped_paused", "missed"]


def test_a_suspend_stops_the_runs_with_the_machine() -> None:
    """Windows in it are missed, like those of an outage; a run goes on when the machine wakes up."""
    report = played(job("a", "30 * * * *"), seconds=1200.0, suspends=[span("2026-05-04T03:40", "2026-05-04T06:00")])
    assert told(report, "a")[2:7] == [
        ("04 02:30", "fired"),
        ("04 03:30", "fired"),
        ("04 04:30", "missed"),
        ("04 05:30", "missed"),
        ("04 06:30", "fired"),
    ]
    run = report.run_of("a", rows(report, "a")[3])
    assert run is not None
    assert abs((run.ended_at or at(" ")) - at("2026-05-04T06:10")) < timedelta(seconds=1)
    assert [note["message"] for note in report.notes] == ["the clock jumped"]


@pytest.mark.parametrize(("seconds", "statuses"), [(7200.0, ["missed", "missed", "fired"]), (-7200.0, ["fired"] * 3)])
def test_a_clock_step_makes_no_window_twice_and_none_vanish(seconds: float, statuses: list[str]) -> None:
    """Forward: what was stepped over is missed. Back: what has its row does not fire again."""
    report = played(job("a"), steps=[Step(at("2026-05-04T09:30"), seconds)])
    assert [row.at for row in rows(report, "a")] == [at(f"2026-05-04T{hour}:00") for hour in HOURS]
    assert [status for _, status in told(report, "a")[10:13]] == statuses


def test_a_small_step_is_followed() -> None:
    """Too short to be noticed as a jump; the scheduler looks at the wall all the same."""
    report = played(job("a"), steps=[Step(at("2026-05-04T09:30"), 1.0), Step(at("2026-05-04T10:30"), -1.0)])
    assert [status for _, status in told(report, "a")] == ["fired"] * 24
    starts = [run.started_at for row in rows(report, "a") if (run := report.run_of("a", row))]
    assert starts == [at(f"2026-05-04T{hour}:00") for hour in HOURS]


def test_a_run_that_lasts_into_the_next_window_makes_it_skip() -> None:
    """One that ends at that very instant does not."""
    long = played(job("a"), seconds=3601.0)
    exact = played(job("a"), seconds=3600.0)
    assert [status for _, status in told(long, "a")][:4] == ["fired", "skipped_overlap", "fired", "skipped_overlap"]
    assert {status for _, status in told(exact, "a")} == {"fired"}


def test_overlap_can_queue_or_cancel() -> None:
    """As in the store: a queued run waits for the job's own, a cancelled one ends when the next window fires."""
    report = played(job("queues", overlap="queue"), job("cancels", overlap="cancel_previous"), seconds=5400.0)
    assert {status for job_id in ("queues", "cancels") for _, status in told(report, job_id)} == {"fired"}
    ended = [run for row in rows(report, "cancels") if (run := report.run_of("cancels", row))]
    assert [(run.outcome, run.took) for run in ended[:23]] == [("canceled", 3600.0)] * 23
    waited = [run.waited for row in rows(report, "queues") if (run := report.run_of("queues", row))]
    assert waited[:4] == [0, 1800, 3600, 5400]


def test_runs_wait_for_slots() -> None:
    """One slot, three jobs at the same minute."""
    report = played(*[job(name, "0 3 * * *") for name in "abc"], slots=1, seconds=600.0)
    waits = sorted(run.waited for run in report.runs.values())
    assert waits == [0, 600, 1200]
    assert report.slots.peak == 1
    assert report.total()["longest_wait_seconds"] == 1200


def test_a_pause_skips_its_windows() -> None:
    """From its first instant on, to the last before its end."""
    report = played(job("a"), job("b"), pauses=[Pause("a", span("2026-05-04T03:00", "2026-05-04T05:00"))])
    assert [status for _, status in told(report, "a")[2:6]] == ["fired", "skipped_paused", "skipped_paused", "fired"]
    assert {status for _, status in told(report, "b")} == {"fired"}


def test_durations_from_history_are_drawn() -> None:
    """From the numbers given, and no others."""
    report = played(job("a"), durations=Durations(history={"a": [5.0, 7.0]}, seed=3))
    assert {run.took for run in report.runs.values()} == {5.0, 7.0}


def test_an_approval_counts_as_given() -> None:
    """Runs of a job that needs one start when they are due: what people do is not simulated."""
    entry, body = job("a")
    report = played((entry, msgspec.json.encode({**msgspec.json.decode(body), "approval": {"required": True}})))
    assert {row.status for row in rows(report, "a")} == {WindowStatus.FIRED}


def test_nothing_is_overlooked_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live scheduler looks at the wall every two seconds; a simulation, when it knows that there is something to see."""

    def once() -> list[tuple[Any, ...]]:
        report = played(
            job("a", "*/5 * * * *", catch_up="latest"),
            job("b", "*/7 * * * *"),
            end="2026-05-04T04:00",
            outages=[span("2026-05-04T00:33", "2026-05-04T01:01")],
            suspends=[span("2026-05-04T02:01", "2026-05-04T02:31")],
            steps=[Step(at("2026-05-04T03:06"), -600.0), Step(at("2026-05-04T03:32"), 900.0)],
            pauses=[Pause("b", span("2026-05-04T00:10", "2026-05-04T00:20"))],
        )
        return [(job_id, row.at, row.status, row.into) for job_id in "ab" for row in rows(report, job_id)]

    rarely = once()
    monkeypatch.setattr("actors.simulation.LOOKS", LOOK_SECONDS)
    assert once() == rarely
    assert {status for _, _, status, _ in rarely} >= {WindowStatus.MISSED, WindowStatus.COALESCED, WindowStatus.SKIPPED_PAUSED}


def test_the_same_plan_gives_the_same_bytes() -> None:
    """With everything in it that could come in another order."""
    jobs = [job(f"job-{n}", f"*/{5 + n % 3} * * * *", overlap="queue", jitter_seconds=n * 10) for n in range(8)]
    trouble: dict[str, Any] = {
        "outages": [span("2026-05-04T03:00", "2026-05-04T06:10")],
        "suspends": [span("2026-05-04T09:02", "2026-05-04T09:40")],
        "steps": [Step(at("2026-05-04T12:01"), -1800.0), Step(at("2026-05-04T15:01"), 1800.0)],
    }

    def once(seed: int) -> bytes:
        return msgspec.json.encode(played(*jobs, slots=2, seconds=170.0, seed=seed, **trouble).view())

    assert once(1) == once(1)
    view = msgspec.json.decode(once(1))
    assert len({(each["job_id"], each["at"]) for each in view["windows"]}) == view["total"]["windows"]
