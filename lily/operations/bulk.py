"""Runs of a job that differ in input, bindings, priority and key alone: what is the same is checked and written out once."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from lily.backlog import PRIORITIES
from lily.clock import SystemClock, stamp
from lily.errors import Code, LilyError
from lily.operations.accept import new_run
from lily.runs import decode_spec
from lily.specs import JobSpec, canonical_json, not_plain, spec_hash, with_overrides
from lily.storage.new_runs import NewRun
from lily.text import encodable

AUTO = "auto"  # a key made of the job, its input and its bindings
_LONGEST = 500
_MARK = "\ue000lily\ue000{}\ue000"  # private characters, which stand for a part until it is known
_PARTS = ("bindings", "runtime", "input")  # in the order of the canonical form


def key_of(job_id: str, value: Any) -> str:
    """A key from plain values: their order in mappings does not matter. Raises `usage` for what JSON can't hold."""
    wrong = not_plain(value)
    if wrong:
        raise LilyError(Code.USAGE, f"a key is made of plain JSON values: {wrong}")
    try:
        written = canonical_json(value)
    except UnicodeEncodeError:
        raise LilyError(Code.USAGE, "a key holds text that is not UTF-8", where=f"job {job_id}") from None
    return f"{job_id}:sha256:{hashlib.sha256(written).hexdigest()}"


def auto_key(spec: Any) -> str:
    """The key that stands for a job with this input and these bindings. `spec` is a `JobSpec` or a `PinnedSpec`."""
    return key_of(spec.id, {"bindings": spec.bindings, "input": spec.target.input})


def checked_key(key: str) -> str:
    """`key` as it was given, when it can be one. Raises `usage`."""
    if not 1 <= len(key) <= _LONGEST or encodable(key) != key or "\0" in key:
        raise LilyError(Code.USAGE, f"a key is text of 1 to {_LONGEST} characters", hint="one made of the input is `auto`")
    return key


def checked_priority(priority: str | None) -> str | None:
    """`priority` when it is one, or none. Raises `usage`."""
    if priority is not None and priority not in PRIORITIES:
        raise LilyError(Code.USAGE, f"{priority!r:.60} is no priority", hint=f"one of {', '.join(PRIORITIES)}")
    return priority


class Template:
    """One job, of which runs are made."""

    def __init__(self, spec: JobSpec, *, by: str, lineage: Mapping[str, Any] | None = None) -> None:
        """`lineage` is that of all its runs. Raises `feature_unavailable` for what this version can't honour."""
        self._spec, self._clock = spec, SystemClock()
        canonical = spec.canonical()
        self._first = new_run(canonical, by=by, lineage=lineage)
        self._trigger = self._first.trigger  # shared by all runs of one instant
        body = msgspec.json.decode(canonical)
        self._given = {"bindings": body["bindings"], "runtime": body["runtime"], "input": body["target"]["input"]}
        body |= {"bindings": _MARK.format(0), "runtime": _MARK.format(1)}
        body["target"]["input"] = _MARK.format(2)
        self._pieces = list(_pieces(canonical_json(body)))
        self._written = {name: canonical_json(part) for name, part in self._given.items()}

    def run(
        self,
        run_input: Mapping[str, Any] | None = None,
        bindings: Mapping[str, Any] | None = None,
        *,
        key: str | Mapping[str, Any] | None = None,
        auto_key: bool = False,
        priority: str | None = None,
        at: datetime | None = None,
    ) -> NewRun:
        """A run with these put over the spec's own, asked for `at` (now).

        Raises as `lily.specs.with_overrides`; `usage` for a key that can't be one."""
        _check_mapping("run_input", run_input)
        _check_mapping("bindings", bindings)
        text = self._auto(run_input, bindings) if auto_key else self._key(key)
        trigger = self._fired(stamp(at or self._clock.now()))
        if not run_input and not bindings and priority is None:
            return msgspec.structs.replace(self._first, key=text, trigger=trigger)
        canonical = self._canonical(run_input or {}, bindings or {}, priority)
        first = self._first
        return NewRun(
            job_id=first.job_id,
            spec=canonical,
            spec_hash=spec_hash(canonical),
            trigger=trigger,
            priority=priority or first.priority,
            key=text,
            lineage=first.lineage,
        )

    def _fired(self, at: str) -> dict[str, Any]:
        if self._trigger["fired_at"] != at:
            self._trigger = {**self._trigger, "fired_at": at}
        return self._trigger

    def _key(self, key: str | Mapping[str, Any] | None) -> str | None:
        if key is None:
            return None
        if isinstance(key, str):
            return checked_key(key)
        _check_mapping("key", key, or_else="text or ")
        return key_of(self._first.job_id, dict(key))

    def _auto(self, run_input: Mapping[str, Any] | None, bindings: Mapping[str, Any] | None) -> str:
        return auto_key(decode_spec(self._canonical(run_input or {}, bindings or {}, None)))

    def _canonical(self, run_input: Mapping[str, Any], bindings: Mapping[str, Any], priority: str | None) -> bytes:
        parts = dict(self._written)
        if not _fits(run_input) or (bindings and not (_named(bindings) and _fits(bindings))):
            return self._slowly(run_input, bindings, priority)  # a path into the bindings, or a mistake, which it names
        try:
            if run_input:
                parts["input"] = self._json("input", run_input)
            if bindings:
                parts["bindings"] = self._json("bindings", bindings)
        except UnicodeEncodeError:
            raise LilyError(Code.USAGE, "the input or bindings hold text that is not UTF-8", where=f"job {self._first.job_id}") from None
        if priority is not None:
            parts["runtime"] = canonical_json({**self._given["runtime"], "priority": priority})
        return b"".join([parts[piece] if isinstance(piece, str) else piece for piece in self._pieces])

    def _json(self, part: str, given: Mapping[str, Any]) -> bytes:
        """The canonical form of a part; most take the faster way."""
        merged = {**self._given[part], **given}
        return _encoder.encode(merged) if _simple(merged) else canonical_json(merged)

    def _slowly(self, run_input: Mapping[str, Any], bindings: Mapping[str, Any], priority: str | None) -> bytes:
        if not all(isinstance(name, str) for name in bindings):
            raise LilyError(Code.JOB_BINDINGS_INVALID, "bindings: a key is not text", where=self._first.job_id)
        sets = {f"bindings.{name}": value for name, value in bindings.items()}
        if priority is not None:
            sets["runtime.priority"] = priority
        return with_overrides(self._spec, dict(run_input), sets).canonical()


def _simple(value: Mapping[str, Any]) -> bool:
    """Whether it holds text, truth values, null and whole numbers alone, which both encoders write alike."""
    for name, each in value.items():
        kind = type(each)
        if not (kind is str or (kind is int and _LOW <= each <= _HIGH) or kind is bool or each is None) or type(name) is not str:
            return False
    return True


def _fits(value: Mapping[str, Any]) -> bool:
    """Whether JSON can hold it as it is."""
    return _simple(value) or not_plain(dict(value)) is None


def _named(bindings: Mapping[str, Any]) -> bool:
    """Whether none of them is a path into another."""
    return all(isinstance(name, str) and name and "." not in name for name in bindings)


def _check_mapping(name: str, given: object, or_else: str = "") -> None:
    """What a program passes on may be any JSON; only of a mapping can a run be made."""
    if given is not None and not isinstance(given, Mapping):
        raise LilyError(Code.USAGE, f"{name}: {or_else}a mapping is expected, found {type(given).__name__}")


_LOW, _HIGH = -(2**63), 2**63 - 1
_encoder = msgspec.json.Encoder(order="sorted")


def _pieces(canonical: bytes) -> Iterator[bytes | str]:
    """The canonical form as fixed bytes and names of parts."""
    rest = canonical
    for number, name in enumerate(_PARTS):
        before, _, rest = rest.partition(f'"{_MARK.format(number)}"'.encode())
        yield before
        yield name
    yield rest
