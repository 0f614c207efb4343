"""Alerts between the store and the sinks: what ended is taken up, what is due is put together, what came of a try is judged."""

import socket
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec

from lily.alerts.decide import GIVE_UP, Decision, Kind, Terms, retry_seconds
from lily.alerts.message import Message, command_for, written
from lily.alerts.quiet import quiet_until
from lily.alerts.terms import RECORDS, Alerts, Sink
from lily.blueprints.contract import BlueprintError
from lily.blueprints.secrets import secret_text
from lily.clock import parse_stamp, stamp
from lily.errors import LilyError, lacks_spec
from lily.redaction import redacted, references
from lily.settings import Settings
from lily.storage.alert_deliveries import AlertRow, Due, Result
from lily.storage.alerts import DELIVERED, DROPPED, GIVEN_UP, KEPT_APART, PAGE, WAITING, Redact, Route, ends_after, keep_mark, mark, take_up
from lily.storage.store import Store
from lily.text import counted
from lily.workspace import Workspace

_MOST_READ, _MOST_CHARS = 20_000, 2000  # characters of a message that are looked through, and that an alert has
_MOST_NOTE = 500  # of what a sink said


class TakingUp:
    """Takes ends up where they were left. `at` is how far; what is not stored of it led to nothing."""

    def __init__(self, store: Store, base: Path) -> None:
        """Relative paths of secrets begin at `base`."""
        self._store, self._base = store, base
        self.at: int | None = None
        self._stored = 0

    def step(self, settings: Settings, now: datetime) -> tuple[bool, list[tuple[int, Decision]]]:
        """Take up the next few thousand events. Gives whether there may be more, and the alerts raised or refreshed."""
        if self.at is None:
            self.at = self._stored = mark(self._store)
        found = ends_after(self._store, self.at)
        if found is None:
            return False, []
        alerts: list[tuple[int, Decision]] = []
        if found.ends:
            taken = take_up(
                self._store,
                found,
                self.at,
                terms=terms_of(settings),
                routes=lambda: routes_of(settings.alerts, now),
                redact=redactor(self._store, self._base),
                now=now,
            )
            if taken is None:
                self.at = None  # somebody else was there
                return True, []
            alerts, self._stored = taken, found.upto
        elif found.upto - self._stored >= KEPT_APART:
            keep_mark(self._store, found.upto)
            self._stored = found.upto
        full, self.at = found.upto - self.at >= PAGE, found.upto
        return full, alerts

    def all(self, settings: Settings, now: datetime) -> list[tuple[int, Decision]]:
        """Take up everything that there is."""
        more, alerts = True, list[tuple[int, Decision]]()
        while more:
            more, raised = self.step(settings, now)
            alerts += raised
        return alerts


def terms_of(settings: Settings) -> Terms:
    """When an alert is raised."""
    scheduler = settings.scheduler
    return Terms(threshold=scheduler.failure_notification_threshold, throttle_seconds=scheduler.failure_notification_throttle_seconds)


def routes_of(alerts: Alerts, now: datetime) -> list[Route]:
    """Every sink, and when it may be tried first."""
    made = []
    for name, sink in sorted(alerts.sinks.items()):
        until = quiet_until(now, alerts.quiet_hours) if sink.quiet_hours else None
        made.append(Route(name, stamp(until or now), _quiet_note(until) if until else ""))
    return made


def _quiet_note(until: datetime) -> str:
    return f"quiet hours until {stamp(until)}"


# -- secrets ---------------------------------------------------------------------------------------


def redactor(store: Store, base: Path) -> Redact:
    """Takes out of text what looks like a secret, and the secrets that the run's spec refers to."""
    known: dict[str, list[str]] = {}

    @cache  # what is broken says the same thing again and again
    def redact(text: str, spec_hash: str) -> str:
        if spec_hash not in known:
            known[spec_hash] = _secrets_of(store, spec_hash, base)
        return redacted(text[:_MOST_READ], known[spec_hash])[:_MOST_CHARS]  # cut last: half a secret is one too

    return redact


def _secrets_of(store: Store, spec_hash: str, base: Path) -> list[str]:
    """Those that this process can read; the others are known by their look alone."""
    try:
        spec, found = store.spec(spec_hash), list[str]()
    except LilyError as error:
        if not lacks_spec(error):
            raise
        return []
    for place in dict.fromkeys(references([spec.bindings, spec.target.input])):
        try:
            found.append(secret_text(place, base=base))
        except BlueprintError:
            continue
    return found


# -- one delivery ----------------------------------------------------------------------------------


def message_of(alert: AlertRow, workspace: Workspace) -> Message:
    """What a sink gets of a stored alert."""
    root = str(workspace.root)
    names = ("kind", "job_id", "run_id", "trace_id", "failures", "since", "code", "message", "raised_at")
    given = {name: getattr(alert, name) for name in names}
    command = command_for(alert.kind, alert.run_id, root)
    return written(Message(alert=f"A{alert.alert_id}", host=socket.gethostname(), workspace=root, command=command, **given))


def trial_message(workspace: Workspace, now: datetime) -> Message:
    """What `lily alerts test` sends."""
    at, root = stamp(now), str(workspace.root)
    alert = AlertRow(
        alert_id=0,
        kind=Kind.TEST,
        job_id="lily-alerts-test",
        run_id="",
        trace_id="",
        fingerprint="",
        failures=0,
        since=at,
        code="",
        message="",
        why="",
        raised_at=at,
        sent_at=None,
    )
    made = message_of(alert, workspace)
    return written(msgspec.structs.replace(made, alert="A0", command=command_for(Kind.TEST, "", root)))


def before_try(due: Due, alerts: Alerts, now: datetime) -> Result | None:
    """What keeps a delivery from being tried now; None when nothing does."""
    sink = alerts.sinks.get(due.sink)
    if sink is None:
        return Result(state=DROPPED, at=stamp(now), note="the sink is not in the settings any more", tried=False)
    until = quiet_until(now, alerts.quiet_hours) if sink.quiet_hours else None
    if until is not None:
        return Result(state=WAITING, at=stamp(now), note=_quiet_note(until), next_at=stamp(until), tried=False)
    return None


def after_try(due: Due, sink: Sink, alerts: Alerts, failed: str | None, said: str, now: datetime, retry_after: float = 0.0) -> Result:
    """What a try came to. `failed` says why nobody got it, `said` what the sink remarked when somebody did."""
    at = stamp(now)
    if failed is None:
        people = {each.kind for each in alerts.sinks.values()} - RECORDS
        return Result(state=DELIVERED, at=at, note=said[:_MOST_NOTE], sent=sink.kind not in RECORDS or not people)
    if now - parse_stamp(due.alert.raised_at) > GIVE_UP:
        return Result(state=GIVEN_UP, at=at, note=f"given up after {counted(due.tries + 1, 'try', 'tries')}: {failed}"[:_MOST_NOTE])
    pause = retry_seconds(due.tries + 1, retry_after)
    return Result(state=WAITING, at=at, note=failed[:_MOST_NOTE], next_at=stamp(now + timedelta(seconds=pause)))
