"""What a person should know about a window on a day when the clocks change."""

from datetime import datetime

from lily.triggers.rules import Rule
from lily.triggers.zones import Change, change_near, local_of


def note_on(rule: Rule, at: datetime) -> str:
    """A note on the window at an instant; empty when its local time is like any other."""
    change = change_near(rule.zone, at)
    if change is None:
        return ""
    if change.after > change.before:
        return _gap(rule, change) if change.at == at else ""
    return _repeated(rule, change, at)


def _gap(rule: Rule, change: Change) -> str:
    low, high = change.skipped()
    lost = list(rule.wanted(low, high)) if rule.moves else []
    if not lost:
        return ""
    # The date only where it is another one, as when Samoa left out a whole day.
    dated = any(local.date() != high.date() for local in lost)
    names = [_clock(local, dated) for local in lost]
    if len(names) == 1:
        what = f"{names[0]} does not exist"
    else:
        what = f"{names[0]} and {names[1]} do not exist" if len(names) == 2 else f"{names[0]} to {names[-1]} do not exist"
    runs = "runs" if len(names) == 1 else "runs once"
    return f"clocks go forward: {what}, {runs} at {_clock(high, dated)}"


def _repeated(rule: Rule, change: Change, at: datetime) -> str:
    twice = change.before - change.after
    if not change.at - twice <= at < change.at + twice:
        return ""
    local = _clock(local_of(at, rule.zone), False)
    if rule.moves:
        return f"clocks go back: {local} comes twice, runs the first time only"
    return f"{'first' if at < change.at else 'second'} {local} of the repeated hour"


def _clock(local: datetime, dated: bool) -> str:
    time = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{local:%Y-%m-%d} {time}" if dated else time
