"""Triggers as plain values: the same whether their defaults are written out or not."""

from typing import Any

import pytest

from lily.specs import JobSpec, parse
from lily.trigger_forms import DEFAULTS, bare, same_trigger, trigger_text
from lily.trigger_specs import KINDS

TRIGGERS = {
    "cron": "{type: cron, cron: '@daily', timezone: UTC}",
    "interval": "{type: interval, every: 15m, overlap: queue, exclude: ['2026-05-04']}",
    "once": "{type: once, at: '2031-05-04T09:00:00Z'}",
    "calendar": "{type: calendar, rrule: FREQ=DAILY, anchor: '2026-05-04T09:00', timezone: UTC, catch_up: all}",
    "condition": "{type: condition, every: 5m, subject: disk, operator: gt, value: 90}",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_are_those_of_the_models(kind: str) -> None:
    """Of every field that has one."""
    fields = KINDS[kind].model_fields
    for name, field in fields.items():
        if not field.is_required() and field.default is not None:
            assert DEFAULTS[name] == field.default


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_trigger_with_its_defaults_is_the_same_as_without(kind: str) -> None:
    """The canonical spec has all of them, a catalog none."""
    text = f"id: a\ntitle: a\ntarget: {{id: x.v1}}\nbindings: {{}}\ntrigger: {TRIGGERS[kind]}\nruntime: {{}}\noutput: {{}}\n"
    spec = parse(text, "a.job.yaml")
    assert isinstance(spec, JobSpec), spec
    whole, short = spec.trigger.model_dump(), spec.trigger.model_dump(exclude_defaults=True)
    assert bare(whole) == bare(short)
    assert same_trigger(whole, spec.timezone, short, spec.timezone)
    assert not same_trigger(whole, "Asia/Tokyo", short, "Europe/Lisbon")
    assert not same_trigger(whole, None, {**short, "jitter_seconds": 5.0}, None)
    assert trigger_text(whole, spec.timezone) == trigger_text(short, spec.timezone)


@pytest.mark.parametrize(
    ("trigger", "zone", "text"),
    [
        ({"type": "manual"}, None, "manual"),
        ({"overlap": "queue", "type": "cron", "cron": "0 5 * * *"}, "Europe/Lisbon", "cron 0 5 * * * Europe/Lisbon overlap=queue"),
        ({"type": "cron", "cron": "0 9\n* * *\n"}, "UTC", "cron 0 9 * * * UTC"),
        ({"type": "interval", "every": "1h", "jitter_seconds": 5.0}, None, "interval 1h jitter_seconds=5.0"),
        ({"type": "once", "at": "2031-05-04T09:00:00Z", "overlap": "skip"}, None, "once 2031-05-04T09:00:00Z"),
    ],
)
def test_a_trigger_in_one_cell_begins_with_what_it_is_about(trigger: dict[str, Any], zone: str | None, text: str) -> None:
    """Then its zone, then what differs from the defaults."""
    assert trigger_text(trigger, zone) == text
