"""Whatever way out an attempt takes, a secret does not get out, in whatever form; and what stands around it does."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import lily
from lily.blueprints.contract import BlueprintError, Envelope
from lily.blueprints.schemas import Mismatch, one_line, validated
from lily.blueprints.secrets import Secret, revealed
from lily.clock import SystemClock
from lily.engines.local import LocalEngine
from lily.engines.output import Capture, Kept
from lily.errors import Code
from lily.log import StreamLog
from lily.offload import inline
from lily.redaction import Redactor, redacting
from lily.text import plain
from tests.actors.conftest import MakeWorld
from tests.encodings import AROUND, ENCODERS, SECRETS, TEXT, pieces

FORMS = st.sampled_from(TEXT)
# None is a word that Lily itself says, such as `approval`, which stands in what is kept without being the secret.
KEPT = SECRETS.filter(lambda secret: not secret.endswith(("\n", "\r")) and "\0" not in secret).map(
    lambda secret: f"{secret}§7" if re.fullmatch(r"[\w .:/-]+", secret, re.ASCII) else secret
)
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]  # an example is a whole life of a supervisor
FEW = settings(max_examples=20, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bindings(BaseModel):
    """Where the secret is."""

    key: Secret


class Counted(BaseModel):
    """What a text does not fit."""

    n: int


def talker(say: Callable[[str], str]) -> Any:
    """A blueprint that takes every way out with what `say` makes of its secret."""

    @lily.blueprint("talks.v1", version="1.0.0", bindings=Bindings)
    async def talks(ctx: Any, bindings: Bindings, run_input: Any) -> Any:
        text = say(revealed(bindings.key, base=ctx.workspace))
        if ctx.attempt == 1:
            await ctx.log.warning(text, field=text, inner={"a": [text], text: 1})
            await ctx.log.debug("strange", strange=ValueError(text))
            await ctx.progress(1, note=text)
            await ctx.run_blueprint("inner.v1", {}, name=f"{text}\ud800")
            assert text not in str(await ctx.step(f"step {text}", lambda: _given({"value": [text]})))
            with pytest.raises(ValueError, match=r".*"):
                await ctx.step("fails", lambda: _raised(text))
            raise ValueError("x" * 10 + text)
        if ctx.attempt == 2:
            raise BlueprintError(text, code=text, retryable=True, data=text, more={"inner": [text]})
        if ctx.attempt == 3:
            return Envelope(status="error", payload={"message": text, "code": text})
        return Envelope(payload={"text": text, text: [text]}, references=[text], approvals_requested=[{"what": text}])

    return talks


@lily.blueprint("inner.v1", version="1.0.0")
async def inner(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """What runs inside of another."""
    await ctx.log.info("here")
    return {}


async def _given(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value


async def _raised(text: str) -> None:
    await anyio.lowlevel.checkpoint()
    raise ValueError(text)


@FEW
@given(KEPT, FORMS, AROUND, AROUND)
def test_events_steps_errors_and_results_hold_the_text_around_a_secret(
    make_world: MakeWorld, tmp_path: Path, secret: str, form: str, before: str, after: str
) -> None:
    (tmp_path / "key").write_bytes(secret.encode())
    written = ENCODERS[form](secret).decode()
    world = make_world()
    world.registry.register(talker(lambda known: before + ENCODERS[form](known).decode() + after))
    world.registry.register(inner)
    retries = {"retry_max": 3, "backoff": {"strategy": "none"}}
    run = world.submit("talks.v1", bindings={"key": {"secret": "file:key"}}, runtime=retries)
    world.live(lambda world: world.ended(run.run_id))
    clean = f"{before}***{after}"
    receipt = world.receipt(run.run_id)
    assert receipt.payload == {"text": clean, clean: [clean]}
    said, _, nested = [line for line in world.lines(run.run_id) if line["event"] == "log"]
    assert (said["message"], said["fields"]) == (clean, {"field": clean, "inner": {"a": [clean], clean: 1}})
    assert (nested["message"], nested["blueprint"]) == ("here", f"{clean}\\ud800")
    ended = world.run(run.run_id)
    assert [attempt.error.message for attempt in ended.attempts if attempt.error] == [f"ValueError: {'x' * 10}{clean}", clean, clean]
    everything = str([world.lines(run.run_id), receipt, ended, world.stored(run.run_id), world.store.steps(run.run_id)])
    assert secret not in everything
    assert written not in everything


def test_a_fault_of_the_engine_ends_the_run_and_tells_no_secret(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lily did not foresee leaves a receipt like any other end."""
    (tmp_path / "key").write_text("correct horse battery")
    world = make_world(talker(lambda known: known))
    run = world.submit("talks.v1", bindings={"key": {"secret": "file:key"}})

    async def execute(*_: Any) -> Any:
        raise RuntimeError("no lock for correct horse battery")

    monkeypatch.setattr(LocalEngine, "execute", execute)
    world.live(lambda world: world.ended(run.run_id))
    receipt = world.receipt(run.run_id)
    assert receipt.error is not None
    assert (receipt.status, receipt.error.blueprint_code) == ("failed", Code.INTERNAL_ERROR)
    assert receipt.error.message == "internal error: RuntimeError: no lock for ***"
    assert "correct horse" not in str([world.lines(run.run_id), receipt, world.run(run.run_id)])


@FEW
@given(SECRETS, st.sampled_from(sorted(ENCODERS)), AROUND, AROUND, st.lists(st.integers(0, 300), max_size=5), st.sampled_from([30, 10**6]))
def test_output_that_is_read_in_pieces_is_clean_in_its_file_its_events_and_its_tail(
    tmp_path: Path, secret: str, form: str, before: str, after: str, cuts: list[int], limit: int
) -> None:
    written = ENCODERS[form](secret)
    whole = (b"~" + before.encode() + written + after.encode()) * 3
    told: list[str] = []

    async def hear(stream: str, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(text)

    async def main() -> str:
        pipe, end = os.pipe()
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        kept = Kept(log, limit, Redactor([secret]))
        capture = Capture("stdout", pipe, kept, on_output=hear, offload=inline, on_error=lambda: None)
        async with anyio.create_task_group() as group:
            group.start_soon(capture.pump)
            for piece in pieces(whole, cuts):
                os.write(end, piece)
                for _ in range(4):
                    await anyio.lowlevel.checkpoint()
            os.close(end)
        os.close(pipe)
        os.close(log)
        assert capture.error is None
        return kept.tail(4096)

    tail = anyio.run(main, backend="trio")
    kept = (tmp_path / "log").read_bytes()
    assert written not in kept
    assert written.decode("utf-8", "replace") not in "".join(told) + tail
    if limit > len(whole):
        clean = f"~{before}***{after}" * 3
        assert (kept.decode(), "".join(told), tail) == (clean, clean, clean)


@given(SECRETS, FORMS, AROUND)
def test_a_line_of_the_supervisors_log_has_none(secret: str, form: str, around: str) -> None:
    for as_json in (False, True):
        stream = io.StringIO()
        log = StreamLog(stream, SystemClock(), as_json=as_json)
        log.redactor.learn([secret])
        log.error("failed", error=around + ENCODERS[form](secret).decode())
        assert ENCODERS[form](secret).decode() not in stream.getvalue()
        assert "***" in stream.getvalue()


@given(SECRETS, FORMS, st.integers(0, 300))
def test_what_is_cut_is_redacted_first(secret: str, form: str, size: int) -> None:
    """Of a message that is cut in the middle of a secret no beginning of it is left."""
    text = "~" * size + ENCODERS[form](secret).decode() + "|" * 300
    with redacting(Redactor([secret])):
        assert set(one_line(text)) <= set("~|*.")

        class Strange:
            def __str__(self) -> str:
                return "~" * (16_384 - size) + ENCODERS[form](secret).decode()

        assert set(plain(Strange())) <= set("~*")


@given(SECRETS, FORMS, st.integers(0, 60))
def test_a_value_that_does_not_fit_its_schema_is_redacted_before_it_is_cut(secret: str, form: str, size: int) -> None:
    """The message says what was found, and of that the first sixty characters."""
    with redacting(Redactor([secret])), pytest.raises(Mismatch) as caught:
        validated(Counted, {"n": "~" * size + ENCODERS[form](secret).decode() + "|" * 60}, "payload")
    assert set(str(caught.value).partition(", found ")[2]) <= set('"~|*.')
