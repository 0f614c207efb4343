""".lily/config.yaml: what it may hold, and what is said of all else."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lily import samples
from lily.errors import Code, LilyError
from lily.own_jobs import own_jobs_of
from lily.retry_defaults import retry_defaults
from lily.settings import FILE, Settings, parse_settings, shown, values_of
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import ZONES, bent, cron, maybe, odd, yaml_of

_SAID = 1000  # characters of a refusal
_NUMBERS = (0, 0.001, 1, 3, 59.5, 80, 99, 100, 1000, 86_400, 2**53, -1, None, True)
WORDS = rb"""store: url: queue: max_concurrent: max_size: backpressure_percent: low_water_percent: dlq: policy: max: capabilities: allow ask
deny approval: ttl_hours: approvers: repository: supervisor: worker: enabled: health: review: cron: timezone: scheduler: alerts: sinks:
quiet_hours: start: end: kind: webhook email command apprise log argv: urls: to: from: host: headers: llm: api_key: secret: env:X file:x
null true false 0 1 80.5 22:00 owner/repo Europe/Berlin @daily { } [ ] - # &a *a !!str""".split()


def _sink(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        (
            {"kind": "log"},
            {"kind": "file", "path": "alerts.log"},
            {"kind": "command", "argv": ["notify", "x"], "timeout_seconds": rng.choice((0.1, 5, 121))},
            {"kind": "webhook", "url": rng.choice(("https://u:p@h/x?t=1", "http://", {"secret": "env:HOOK"})), "headers": {"A": "b"}},
            {"kind": "email", "host": "h", "from": "a@b", "to": ["c@d"], "username": "u", "password": {"secret": "file:p"}, "tls": "tls"},
            {"kind": "apprise", "urls": [{"secret": "env:A"}], "quiet_hours": False},
        )
    )


def _config(rng: random.Random) -> dict[str, Any]:
    number = lambda: rng.choice(_NUMBERS)  # noqa: E731 (a strategy, as the others are)
    sections: dict[str, dict[str, Any]] = {
        "store": {"url": lambda: rng.choice(("", "postgresql://u:p@h/d", "sqlite:///x"))},
        "queue": dict.fromkeys(("max_concurrent", "max_size", "backpressure_percent", "low_water_percent", "ageing_seconds"), number),
        "dlq": {"retention_days": number, "max_entries": number},
        "policy": {
            "capabilities": lambda: {rng.choice(("process.exec", "x", "a.b.c", "")): rng.choice(("allow", "ask", "deny", 1))},
            "max": lambda: maybe(rng, 0.5, {"retry_max": number, "memory_mb": number}),
        },
        "approval": {"ttl_hours": number, "approvers": lambda: ["me"], "repository": lambda: rng.choice(("o/r", "", "h/o/r", "o"))},
        "supervisor": {"drain_seconds": number},
        "worker": {"enabled": lambda: rng.random() < 0.5},
        "review": {"cron": lambda: cron(rng), "timezone": lambda: rng.choice(ZONES), "failures": number, "stale_days": number},
        "scheduler": {"default_max_attempts": number, "default_backoff_strategy": lambda: "fixed", "backoff_base_seconds": number},
        "alerts": {
            "sinks": lambda: {rng.choice(("team", "log", "A", "a-b")): _sink(rng) for _ in range(2)},
            "quiet_hours": lambda: {"start": "22:00", "end": rng.choice(("06:00", "22:00", "")), "timezone": rng.choice(ZONES)},
        },
        "llm": {"base_url": lambda: "https://h/v1", "api_key": lambda: rng.choice(({"secret": "env:K"}, "sk-123", {"secret": "x"}))},
    }
    chosen = rng.sample(tuple(sections), rng.choice((0, 1, 1, 2, 3, 11)))
    return {name: maybe(rng, 0.5, sections[name]) or None for name in chosen}


class Config:
    """Settings are refused with their place, or are in force and mean the same when they are written out."""

    name = "settings"
    words: Sequence[bytes] = WORDS
    seconds = 1.0

    def __init__(self) -> None:
        self.corpus: Sequence[bytes] = [(Path(samples.__file__).parent / "config.yaml").read_bytes(), b"queue: {max_concurrent: 5}\n"]

    def fresh(self, rng: random.Random) -> bytes:
        """A file of settings."""
        made: Any = _config(rng)
        while rng.random() < 0.25:
            made = bent(rng, made, odd)
            if not isinstance(made, dict):
                break
        return yaml_of(rng, made).encode("utf-8", "surrogatepass")

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        try:
            settings = parse_settings(given)
        except LilyError as error:
            if error.code != Code.CONFIG_INVALID or not error.where.startswith(FILE) or not error.message:
                raise Broken(f"refused with {error.code} at {error.where!r}") from error
            json.dumps(error.to_dict()).encode()
            if len(str(error)) > _SAID:
                raise Broken(f"a refusal of {len(str(error))} characters") from error
            return f"refused {re.sub(r'[^a-z_.: ]', '', error.message)[:50]}"
        own_jobs_of(settings.review)
        retry_defaults(settings)
        json.dumps([(key, shown(value)) for key, value in values_of(settings).items()]).encode()
        if _unsunk(parse_settings(_written(settings))) != _unsunk(settings):
            raise Broken("settings that are written out are others")
        return f"accepted {sorted(key for key, origin in settings.origins.items() if origin != 'default')}"

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """Nothing is held."""


def _unsunk(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in values_of(settings).items() if not key.startswith("alerts.sinks.")}


def _written(settings: Settings) -> bytes:
    """All settings but sinks, which are shown without their secrets."""
    body: dict[str, Any] = {}
    for key, value in _unsunk(settings).items():
        *parents, name = key.split(".") if not key.startswith("policy.capabilities.") else ("policy", "capabilities", key[20:])
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return json.dumps(body).encode()


def target() -> Config:
    """For the command line."""
    return Config()
