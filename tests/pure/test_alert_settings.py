"""Sinks and quiet hours: what is accepted, what is refused with its place, how they are shown, and when quiet hours end."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.alerts.decide import Kind, Terms
from lily.alerts.message import Message, command_for, written
from lily.alerts.quiet import quiet_until
from lily.alerts.terms import QuietHours, Sink, masked_address
from lily.errors import Code, LilyError
from lily.operations.alerts import terms_of
from lily.settings import explain, load_settings, parse_settings
from lily.workspace import Workspace


def sinks(text: str) -> dict[str, Sink]:
    return parse_settings(b"alerts: {sinks: {" + text.encode() + b"}}").alerts.sinks


def test_without_any_sink_alerts_go_to_the_log() -> None:
    """Once one is named, only those that are named are there."""
    assert parse_settings(b"").alerts.sinks == {"log": Sink(kind="log", quiet_hours=False)}
    assert parse_settings(b"alerts: {sinks: {}}").alerts.sinks.keys() == {"log"}
    assert sinks("a: {kind: file, path: x}").keys() == {"a"}


def test_every_kind_of_sink_is_taken() -> None:
    found = sinks(
        "l: {kind: log}, f: {kind: file, path: a.jsonl}, c: {kind: command, argv: [notify, -x], timeout_seconds: 3},"
        'w: {kind: webhook, url: "https://x.example/hook", headers: {Authorization: {secret: "env:TOKEN"}}},'
        'm: {kind: email, host: mx.example, from: lily@x.example, to: [ann@x.example], username: lily, password: {secret: "file:/run/pw"}},'
        'a: {kind: apprise, urls: [{secret: "env:SLACK"}], quiet_hours: false}'
    )
    assert {name: sink.kind for name, sink in found.items()} == {
        "l": "log",
        "f": "file",
        "c": "command",
        "w": "webhook",
        "m": "email",
        "a": "apprise",
    }
    # A record disturbs nobody.
    assert {name for name, sink in found.items() if sink.quiet_hours} == {"c", "w", "m"}
    assert (found["m"].sender, found["c"].timeout_seconds) == ("lily@x.example", 3)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: {kind: pigeon}", "3:15", "`kind` is one of log, file"),
        ("a: {}", "3:8", "`kind` is one of"),
        ("a: 5", "3:8", "a mapping with `kind`"),
        ("A: {kind: log}", "3:5", "lower-case letters"),
        ("a: {kind: log, path: x}", "3:20", "unknown key `path`"),
        ("a: {kind: file}", "3:8", "needs `path`"),
        ("a: {kind: command, argv: ls}", "3:30", "found 'ls'; accepted: a list"),
        ("a: {kind: webhook, url: ftp://x}", "3:29", "found something else"),
        ("a: {kind: webhook, url: 'http://x', headers: {A: \"b\\nc\"}}", "3:50", "headers"),
        ("a: {kind: webhook, url: 'http://'}", "3:29", "an address such as https://host/path"),
        ("a: {kind: webhook, url: 'http://x:99999/y'}", "3:29", "an address such as https://host/path"),
        ("a: {kind: webhook, url: 'http://x', headers: {X-Team: größe}}", "3:50", "names to ASCII text"),
        ("a: {kind: webhook, url: 'http://x', headers: {X-Team: ' ops'}}", "3:50", "names to ASCII text"),
        ("a: {kind: webhook, url: 'http://x', headers: {X-Team: ops, content-length: '5'}}", "3:64", "content-length is not accepted"),
        ("a: {kind: webhook, url: 'http://x', headers: {Transfer-Encoding: {secret: 'env:T'}}}", "3:51", "Transfer-Encoding is not"),
        ("a: {kind: webhook, url: 'http://x', timeout_seconds: 0}", "3:58", "0.1 to 120"),
        ("a: {kind: email, host: h, from: x, to: [a@b]}", "3:37", "a mail address"),
        ('a: {kind: email, host: h, from: a@b, to: ["a@b\\nBcc: c@d"]}', "3:46", "a list of mail addresses"),
        ("a: {kind: email, host: h, from: a@b, to: [a@b], password: hunter22}", "3:63", "never the secret itself"),
        ("a: {kind: email, host: h, from: a@b, to: [a@b], username: u}", "3:63", "username needs `password`"),
        ("a: {kind: email, host: h, from: a@b, to: [a@b], tls: none, username: u, password: {secret: 'env:P'}}", "3:58", "without TLS"),
        ("a: {kind: apprise, urls: [slack://a/b/c]}", "3:30", "addresses as Apprise writes them hold secrets"),
        ("a: {kind: apprise, urls: [{secret: 'slack://a/b/c'}]}", "3:30", "found something else"),
    ],
)
def test_a_sink_that_is_wrong_is_refused_with_its_place(text: str, place: str, words: str) -> None:
    """And what may be a secret is not repeated."""
    with pytest.raises(LilyError) as caught:
        parse_settings(f"alerts:\n  sinks:\n    {text}\n".encode())
    error = caught.value
    assert (error.code, error.where) == (Code.CONFIG_INVALID, f".lily/config.yaml:{place}")
    assert words in error.message
    assert "hunter22" not in str(error.to_dict())
    assert "slack://" not in str(error.to_dict())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("start: '22:00'", "a start and an end"),
        ("start: '22:00', end: '22:00'", "never end"),
        ("start: '24:00', end: '07:00'", "HH:MM"),
        ("start: 22:00, end: '7:00'", "HH:MM"),
        ("start: '22:00', end: '07:00', timezone: Mars/Olympus", "an IANA zone"),
    ],
)
def test_quiet_hours_that_are_wrong_are_refused(text: str, words: str) -> None:
    with pytest.raises(LilyError, match=words) as caught:
        parse_settings(f"alerts: {{quiet_hours: {{{text}}}}}".encode())
    assert caught.value.where.startswith(".lily/config.yaml:1")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("failure_notification_threshold", "0", "1 to 1000"),
        ("failure_notification_threshold", "2.5", "a whole number"),
        ("failure_notification_throttle_seconds", "-1", "0 to 31536000"),
        ("default_backoff_strategy", "sometimes", "none, fixed or exponential"),
        ("backoff_base_seconds", "true", "a number of seconds"),
    ],
)
def test_a_setting_of_the_scheduler_that_is_wrong_is_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(LilyError, match=words):
        parse_settings(f"scheduler: {{{key}: {value}}}".encode())


def test_when_an_alert_is_raised_is_what_the_settings_say() -> None:
    """Both of the scheduler's numbers; without them, three failures and an hour."""
    given = parse_settings(b"scheduler: {failure_notification_threshold: 5, failure_notification_throttle_seconds: 60}")
    assert terms_of(given) == Terms(threshold=5, throttle_seconds=60)
    assert terms_of(parse_settings(b"")) == Terms(threshold=3, throttle_seconds=3600)


def test_settings_are_shown_without_what_addresses_hide(tmp_path: Path) -> None:
    """A webhook's path and login are its secret."""
    (tmp_path / ".lily").mkdir()
    place = Workspace(tmp_path)
    place.config.write_text(
        'alerts: {sinks: {w: {kind: webhook, url: "https://u:pw@h.example/T0/B0/abc?x=1",\n'
        ' headers: {Authorization: "Bearer abcdef123456", X-Team: ops}}, c: {kind: command, argv: [notify, token=abcd1234]}}}'
    )
    (shown,) = [value for key, value, _ in explain(place) if key == "alerts.sinks.w"]
    assert (shown["kind"], shown["url"], shown["headers"]["X-Team"]) == ("webhook", "https://h.example/***", "ops")
    assert "abcdef123456" not in str(shown)
    assert {key: value for key, value, _ in explain(place)}["alerts.sinks.c"]["argv"] == ["notify", "token=***"]
    assert load_settings(place).alerts.sinks["w"].url == "https://u:pw@h.example/T0/B0/abc?x=1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h", "http://h"),
        ("http://h/", "http://h/"),
        ("http://h:80/a", "http://h:80/***"),
        ("http://u@h?a=b", "http://h"),
        ("h/token", "***"),
    ],
)
def test_an_address_is_shown_up_to_its_host(url: str, shown: str) -> None:
    assert masked_address(url) == shown


# -- quiet hours -----------------------------------------------------------------------------------

NIGHT = QuietHours(start="22:00", end="07:00", timezone="Europe/Berlin")
NOON = QuietHours(start="12:00", end="13:30", timezone="UTC")


@pytest.mark.parametrize(
    ("quiet", "at", "until"),
    [
        (QuietHours(start="", end="", timezone="UTC"), "2026-05-04T03:00", None),
        (NIGHT, "2026-05-04T19:59", None),  # 21:59 in Berlin
        (NIGHT, "2026-05-04T20:00", "2026-05-05T05:00"),
        (NIGHT, "2026-05-05T04:59", "2026-05-05T05:00"),
        (NIGHT, "2026-05-05T05:00", None),
        (NIGHT, "2026-03-28T23:00", "2026-03-29T05:00"),  # the night that is an hour shorter
        (NIGHT, "2026-10-24T23:00", "2026-10-25T06:00"),  # and the one that is longer
        (NOON, "2026-05-04T12:00", "2026-05-04T13:30"),
        (NOON, "2026-05-04T13:30", None),
        (NOON, "2026-05-04T11:59", None),
    ],
)
def test_quiet_hours_hold_by_the_clock_on_the_wall(quiet: QuietHours, at: str, until: str | None) -> None:
    """From the first minute on, up to the last; over midnight and over changes of the clock."""
    found = quiet_until(datetime.fromisoformat(at).replace(tzinfo=UTC), quiet)
    assert found == (datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None)


TIMES = st.integers(0, 24 * 60 - 1).map(lambda n: f"{n // 60:02}:{n % 60:02}")


@given(
    TIMES, TIMES, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), st.integers(0, 2 * 366 * 24 * 60)
)
def test_quiet_hours_always_end_and_do_not_begin_again_then(start: str, end: str, zone: str, minutes: int) -> None:
    """Whatever the zone does with its clocks: later than now, within a day and a change of the clock, at the end that was said."""
    quiet = QuietHours(start=start, end=end, timezone=zone)
    at = datetime(2025, 12, 31, tzinfo=UTC) + timedelta(minutes=minutes)
    until = quiet_until(at, quiet) if start != end else None
    if until is not None:
        assert at < until <= at + timedelta(hours=26)
        again = quiet_until(until, quiet)
        assert again is None or again - until <= timedelta(hours=2)  # an end that comes twice
        local = until.astimezone(ZoneInfo(zone))
        assert f"{local:%H:%M}" == end or local.utcoffset() != at.astimezone(ZoneInfo(zone)).utcoffset()


# -- the text --------------------------------------------------------------------------------------


def message(kind: Kind, **more: object) -> Message:
    given = {
        "alert": "A7",
        "job_id": "nightly",
        "run_id": "20260504T041500.123456Z-k3f9",
        "trace_id": "t" * 32,
        "failures": 3,
        "since": "2026-05-04T04:15:00.000000Z",
        "code": "job_execution_failed",
        "message": "sh exited with 3\nsecond line",
        "raised_at": "2026-05-04T04:15:01.000000Z",
        "host": "box",
        "workspace": "/srv/a b",
        "command": command_for(kind, "20260504T041500.123456Z-k3f9", "/srv/a b"),
        **more,
    }
    return written(Message(kind=kind, **given))  # type: ignore[arg-type]


def test_the_text_names_all_that_one_needs_at_night() -> None:
    """Job, run, trace id, count, last error, and the command to look further, which can be typed as it stands."""
    found = message(Kind.FAILING)
    assert found.subject == "[lily] job nightly failed 3 times in a row: job_execution_failed"
    assert found.text.splitlines() == [
        "job nightly failed 3 times in a row: job_execution_failed",
        "",
        "job: nightly",
        "run: 20260504T041500.123456Z-k3f9",
        f"trace: {'t' * 32}",
        "failures in a row: 3 since 2026-05-04T04:15:00.000000Z",
        "last error: job_execution_failed: sh exited with 3 second line",
        "alert: A7 of 2026-05-04T04:15:01.000000Z",
        "workspace: box:/srv/a b",
        "look further: lily runs show 20260504T041500.123456Z-k3f9 --workspace '/srv/a b'",
    ]


def test_a_recovery_says_what_is_over() -> None:
    found = message(Kind.RECOVERED, failures=1)
    assert found.subject == "[lily] job nightly works again after it failed 1 time in a row"
    assert "last error before: job_execution_failed" in found.text
