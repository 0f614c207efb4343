"""What a run leaves, however it ends: three artifacts that are whole, agree with one another and with the store, and can be trusted."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.messages import Rung
from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import blueprint
from lily.operations.changes import cancel, replay
from lily.operations.run_check import remade as remade_receipt
from lily.receipts import Receipt, encode_receipt
from lily.runs import ErrorInfo, Run
from lily.storage.artifacts import whole
from lily.storage.receipt_reads import ReceiptReads
from lily.summary import summary_of
from lily.testing import World
from tests.contract.conform import ARTIFACTS, check_run, check_summary, receipt_in, rendered
from tests.contract.conftest import MakeWorld

NO_PAUSE = {"strategy": "none"}
PAUSE = {"strategy": "fixed", "base_seconds": 100.0}


class Killed(BaseException):
    """The process is gone: no actor sees it, nothing is tidied up."""


def killed_after(world: World, seconds: float) -> None:
    """A life that ends as by SIGKILL."""

    async def body(world: World) -> None:
        await anyio.sleep(seconds)
        raise Killed

    with pytest.raises(BaseExceptionGroup):
        world.live(body)


def lived(world: World, *runs: Run) -> None:
    """A life until these runs have ended."""

    async def body(world: World) -> None:
        await world.ended(*(run.run_id for run in runs))

    world.live(body)


def canceled_after(world: World, run: Run, seconds: float) -> None:
    """A life in which the run is canceled at that time."""

    async def body(world: World) -> None:
        await anyio.sleep(seconds)
        cancel(world.workspace, world.store, run.run_id, by="tester", reason="enough", clock=world.clock)
        assert world.system is not None
        world.system.runner_box.post(Rung())
        await world.ended(run.run_id)

    world.live(body)


# -- the ways a run can end ------------------------------------------------------------------------


def succeeded(world: World) -> Run:
    run = world.submit("noop.v1")
    lived(world, run)
    return run


def failed_after_retries(world: World) -> Run:
    run = world.submit("deed.v1", bindings={"do": "ValueError"}, runtime={"retry_max": 2, "backoff": PAUSE})
    lived(world, run)
    return run


def succeeded_after_a_retry(world: World) -> Run:
    run = world.submit("deed.v1", bindings={"do": "error", "until": 1}, runtime={"retry_max": 2, "backoff": NO_PAUSE})
    lived(world, run)
    return run


def timed_out(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": 9.0}, runtime={"timeout_seconds": 1.5})
    lived(world, run)
    return run


def contract_broken(world: World) -> Run:
    run = world.submit("deed.v1", bindings={"do": "nan"}, runtime={"retry_max": 3})
    lived(world, run)
    return run


def base_exception(world: World) -> Run:
    run = world.submit("deed.v1", bindings={"do": "BaseException"})
    lived(world, run)
    return run


def canceled_queued(world: World) -> Run:
    run = world.submit("noop.v1")
    cancel(world.workspace, world.store, run.run_id, by="tester", reason="enough", clock=world.clock)
    lived(world, run)
    return run


def canceled_running(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": 9.0})
    canceled_after(world, run, 3)
    return run


def canceled_between_attempts(world: World) -> Run:
    run = world.submit("deed.v1", bindings={"do": "ValueError"}, runtime={"retry_max": 2, "backoff": PAUSE})
    canceled_after(world, run, 3)
    return run


def refused_by_target(world: World) -> Run:
    run = world.submit("nobody.v1")
    lived(world, run)
    return run


def refused_by_bindings(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": "long"})
    lived(world, run)
    return run


def refused_by_policy(world: World) -> Run:
    run = world.submit("program.v1", bindings={"argv": ["true"]})
    lived(world, run)
    return run


def recovered(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": 9.0})
    killed_after(world, 3)
    lived(world, run)
    return run


def interrupted_too_often(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": 9.0}, runtime={"interrupt_max": 0})
    killed_after(world, 3)
    lived(world, run)
    return run


def recovered_and_canceled(world: World) -> Run:
    run = world.submit("nap.v1", bindings={"seconds": 9.0})
    killed_after(world, 3)
    cancel(world.workspace, world.store, run.run_id, by="tester", reason="enough", clock=world.clock)
    lived(world, run)
    return run


def torn_and_recovered(world: World) -> Run:
    run = world.submit("chatty.v1")
    killed_after(world, 3)
    log = world.workspace.run_dir("job", run.run_id) / "events.jsonl"
    os.truncate(log, log.stat().st_size - 7)
    lived(world, run)
    return run


def replayed(world: World) -> Run:
    first = succeeded(world)
    run = replay(
        world.workspace, world.store, world.run(first.run_id), which="pinned", approve=True, reason="again", by="tester", clock=world.clock
    )
    lived(world, run)
    return run


def with_steps_and_output(world: World) -> Run:
    run = world.submit("chatty.v1", runtime={"retry_max": 1, "backoff": NO_PAUSE}, output={"artifacts": ["*.txt"]})
    lived(world, run)
    return run


@dataclass(frozen=True)
class Way:
    """How a run ends, and what its receipt then says."""

    end: Callable[[World], Run]
    status: str
    attempts: tuple[str, ...] = ()
    code: str | None = None
    own: str | None = None
    r0: str | None = None


FAILED, OWN = "job_execution_failed", "blueprint_execution_failed"
WAYS = [
    Way(succeeded, "succeeded", ("succeeded",), r0="ok"),
    Way(succeeded_after_a_retry, "succeeded", ("failed", "succeeded"), r0="ok"),
    Way(failed_after_retries, "failed", ("failed", "failed", "failed"), FAILED, OWN, "error"),
    Way(timed_out, "failed", ("timed_out",), FAILED, OWN, "error"),
    Way(contract_broken, "failed", ("failed",), FAILED, "blueprint_contract_invalid", "error"),
    Way(base_exception, "failed", ("failed",), FAILED, OWN, "error"),
    Way(canceled_queued, "canceled"),
    Way(canceled_running, "canceled", ("canceled",)),
    Way(canceled_between_attempts, "canceled", ("failed",), r0="error"),
    Way(refused_by_target, "failed", (), "job_target_unresolved", "blueprint_not_found"),
    Way(refused_by_bindings, "failed", (), "job_bindings_invalid", "blueprint_bindings_invalid"),
    Way(refused_by_policy, "failed", (), "job_policy_denied"),
    Way(recovered, "succeeded", ("interrupted", "succeeded"), r0="ok"),
    Way(interrupted_too_often, "failed", ("interrupted",), FAILED),
    Way(recovered_and_canceled, "canceled", ("canceled",)),
    Way(torn_and_recovered, "succeeded", ("interrupted", "succeeded"), r0="ok"),
    Way(replayed, "succeeded", ("succeeded",), r0="ok"),
    Way(with_steps_and_output, "succeeded", ("failed", "succeeded"), r0="ok"),
]


@blueprint("chatty.v1")
async def chatty(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Says everything that can be said, takes its time, and fails once."""

    async def one() -> dict[str, int]:
        return {"n": 1}

    await ctx.log.info("begun", code="not_a_failure", seq=99)
    await ctx.progress(1, 3, "first")
    await ctx.step("once", one)
    with ctx.artifact("left.txt") as file:
        file.write(b"here")
    await anyio.sleep(5)
    if ctx.attempt == 1:
        raise BlueprintError("not yet", code="too_early")
    return {"run_id": "mine", "status": "odd", "event": "job_failed", "seq": 0, "error": {"code": "mine"}}


def folder_of(world: World, run: Run) -> Path:
    """Where the run's files are."""
    return world.workspace.run_dir(run.job_id, run.run_id)


def remade(world: World, run: Run) -> Receipt:
    """The receipt as it follows from the store, with the files that the one on disk names."""
    ((stored,),) = ReceiptReads(world.store).pages(run_id=run.run_id)
    return remade_receipt(world.store, stored, receipt_in(folder_of(world, run)))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.end.__name__)
def test_every_end_leaves_three_whole_artifacts_that_agree_with_the_store(make_world: MakeWorld, way: Way) -> None:
    """Schemas, stamps, modes, digests, seq, the first failing code, a summary that follows from the others; the store says the same."""
    world = make_world(chatty)
    run = way.end(world)
    receipt, events = check_run(folder_of(world, run))
    assert (receipt["status"], receipt["r0_status"]) == (way.status, way.r0)
    assert tuple(attempt["status"] for attempt in receipt["attempts"]) == way.attempts
    check_envelope(receipt, way)
    error = receipt["error"] or {}
    assert (error.get("code"), error.get("blueprint_code")) == (way.code, way.own)
    stored = world.run(run.run_id)
    assert stored.written
    assert whole(world.workspace, stored)
    assert encode_receipt(remade(world, run)) == (folder_of(world, run) / "run_receipt.json").read_bytes()
    assert [event.event.value for event in world.stored(run.run_id)] == [e["event"] for e in events if e["event"] in LIFECYCLE]
    assert receipt["lily_version"] == "0.1.0"


LIFECYCLE = {"policy_denied"} | {
    f"job_{name}"
    for name in (
        *("queued", "started", "attempt_started", "attempt_failed", "attempt_succeeded", "retry_scheduled", "dead_lettered"),
        *("approved", "completed", "failed", "canceled", "interrupted", "recovered"),
    )
}


ENVELOPE = {"status", "r0_status", "artifacts", "approvals_requested", "references", "payload"}
JOB_LEVEL = {"run_id", "job_id", "started_at", "ended_at", "target"}


def check_envelope(receipt: dict[str, Any], way: Way) -> None:
    """Assert that R0's parts and the job level's are there, times in order, and what was enforced told wherever something was tried."""
    assert receipt.keys() >= ENVELOPE | JOB_LEVEL
    assert receipt["queued_at"] <= (receipt["started_at"] or receipt["queued_at"]) <= receipt["ended_at"]
    assert [attempt["number"] for attempt in receipt["attempts"]] == list(range(1, len(receipt["attempts"]) + 1))
    for attempt in receipt["attempts"]:
        assert receipt["started_at"] <= attempt["started_at"] <= attempt["ended_at"] <= receipt["ended_at"]
        assert (attempt["next_attempt_at"] is not None) == attempt["will_retry"]
    assert receipt["spec"]["id"] == receipt["job_id"]
    assert (receipt["host"] == "testhost") == bool(receipt["started_at"])
    if receipt["attempts"] and way.end not in (interrupted_too_often, recovered_and_canceled):
        assert receipt["limits"]["timeout_seconds"] > 0
        assert receipt["target"]["version"] == "1.0.0"
        assert receipt["policy"]["decisions"] == {}


def test_a_replay_names_the_first_run_and_who_approved_it(make_world: MakeWorld) -> None:
    """In trigger, lineage, approvals and the events; both receipts stand."""
    world = make_world()
    run = replayed(world)
    receipt, events = check_run(folder_of(world, run))
    first = receipt["lineage"]["replayed_from"]
    assert first != run.run_id
    assert (receipt["trigger"]["type"], receipt["trigger"]["replayed_from"]) == ("replay", first)
    (approval,) = receipt["approvals"]
    assert (approval["by"], approval["note"], approval["bound_to"]["replayed_from"]) == ("tester", "again", first)
    assert [event["event"] for event in events][:2] == ["job_queued", "job_approved"]
    check_run(folder_of(world, run).parent / first)


def test_the_same_end_in_two_workspaces_gives_the_same_receipt(make_world: MakeWorld, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In virtual time, from one seed, nothing is left to chance."""
    bodies = []
    for world in (make_world(chatty), World(tmp_path_factory.mktemp("other"), chatty)):
        run = with_steps_and_output(world)
        bodies.append([(folder_of(world, run) / name).read_bytes() for name in sorted(ARTIFACTS)])
        world.close()
    assert bodies[0] == bodies[1]


def test_the_first_failing_code_stands_before_all_later_ones(make_world: MakeWorld) -> None:
    """What a target logs under `code` is not mistaken for one: its fields stand inside of `fields`."""
    world = make_world(chatty)
    run = with_steps_and_output(world)
    _, events = check_run(folder_of(world, run))
    first = next(event for event in events if "code" in event)
    assert (first["event"], first["code"], first["blueprint_code"]) == ("job_attempt_failed", FAILED, "too_early")
    logged = next(event for event in events if event["event"] == "log")
    assert logged["fields"] == {"code": "not_a_failure", "seq": 99}


def test_a_torn_log_says_what_was_lost(make_world: MakeWorld) -> None:
    """One `events_lost` line, and seq goes on without a gap."""
    world = make_world(chatty)
    run = torn_and_recovered(world)
    _, events = check_run(folder_of(world, run))
    assert len([event for event in events if event["event"] == "events_lost"]) == 1


def test_payload_keys_named_like_the_runners_overwrite_nothing(make_world: MakeWorld) -> None:
    """They stay inside of the payload."""
    world = make_world(chatty)
    receipt, events = check_run(folder_of(world, with_steps_and_output(world)))
    assert receipt["status"] == "succeeded"
    assert receipt["payload"] == {"run_id": "mine", "status": "odd", "event": "job_failed", "seq": 0, "error": {"code": "mine"}}
    assert events[-1]["event"] == "job_completed"


# -- text of others --------------------------------------------------------------------------------

NASTY = [
    "[link](http://evil.example) ![image](x)",
    "one\ntwo\r\nthree\u2028four",
    "```\n# Succeeded: all is well\n```\n~~~\n",
    "\x1b[2J\x1b]0;title\x07\x00\x9b",
    "<script>alert(1)</script><!-- ",
    "\u202egnirts",
    "half a pair \ud800",
    "# heading\n- item\n> quote\n| a | b |\n---",
    "x" * 100_000,
    "",
]


ODD = b"/odd\xff [x](y)\n# name.txt"


def talking(text: str) -> Any:
    """A blueprint that says `text` in all places where a target can say something, then fails with it."""

    @blueprint("talker.v1")
    async def talker(ctx: Any, bindings: Any, run_input: Any) -> Any:
        await ctx.log.warning(text, field=text, nested={"deep": text})
        await ctx.progress(1, None, text)
        os.close(os.open(os.fsencode(ctx.run_dir) + ODD, os.O_CREAT | os.O_WRONLY))
        raise BlueprintError(text, code=text or "empty", key=text)

    return talker


def outside_of_fences(text: str) -> list[str]:
    """The lines that Markdown reads as such."""
    found, fence = [], ""
    for line in text.split("\n"):
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if line == fence else fence
        elif len(ticks) >= 3:
            fence = ticks
        else:
            found.append(line)
    assert not fence
    return found


HEADINGS = {"## Why", "## What to do next", "## Attempts", "## Times", "## Result", "## Files"}


def check_harmless(text: str) -> None:
    """Assert that a summary has no control characters, and no structure, link or HTML but Lily's own."""
    assert not [c for c in text if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202e"]
    lines = outside_of_fences(text)
    first, *rest = [line for line in lines if line.startswith("#")]
    assert first.startswith(("# Failed: ", "# Succeeded: "))
    assert set(rest) <= HEADINGS
    said = "\n".join(line for line in lines if not line.startswith("- ["))  # Lily's own links to the files
    assert not re.search(r"(?<!\\)(\\\\)*\][(\[:]", said)
    assert not re.search(r"(?<!\\)(\\\\)*<[A-Za-z/!?]", said)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_what_a_target_says_can_not_break_what_is_read(make_world: MakeWorld, text: str) -> None:
    """Messages, codes, log lines and file names with anything in them: whole artifacts, and a summary that only Lily structures."""
    world = make_world(talking(text))
    run = world.submit("talker.v1")
    lived(world, run)
    receipt, events = check_run(folder_of_listed(world, run))
    assert receipt["status"] == "failed"
    assert receipt["error"]["code"] == FAILED
    check_harmless(rendered(folder_of(world, run)))
    assert "log" in [event["event"] for event in events]
    assert [file["name"] for file in receipt["artifacts"] if file["name"].startswith("odd")] == ["odd\\xff [x](y)\n# name.txt"]
    assert whole(world.workspace, world.run(run.run_id))


def folder_of_listed(world: World, run: Run) -> Path:
    """The run's folder, its odd file renamed to how the receipt names it, so that the listing can be compared."""
    folder = folder_of(world, run)
    os.rename(os.fsencode(folder) + ODD, folder / "odd\\xff [x](y)\n# name.txt")
    return folder


def saying(payload: Any) -> Any:
    """A blueprint that returns this."""

    @blueprint("sayer.v1")
    async def sayer(ctx: Any, bindings: Any, run_input: Any) -> Any:
        return payload

    return sayer


@pytest.mark.parametrize("text", [text for text in NASTY if "\ud800" not in text], ids=str.__len__)
def test_what_a_payload_says_can_not_break_the_summary(make_world: MakeWorld, text: str) -> None:
    """Summaries, findings, tails and plain values."""
    finding = {"title": text, "recommendation": text, "confidence": 0.5, "source_specialist": text}
    payload = {"summary": text, "ranked_findings": [finding], "stdout_tail": text, "stderr_tail": text, text: text}
    world = make_world(saying(payload))
    run = world.submit("sayer.v1")
    lived(world, run)
    receipt, _ = check_run(folder_of(world, run))
    assert receipt["payload"] == payload
    check_harmless(check_summary(folder_of(world, run)))


@given(title=st.text(min_size=1, max_size=200), message=st.text(max_size=300), said=st.text(max_size=300))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_title_message_and_reason_give_a_harmless_summary(ended: Receipt, title: str, message: str, said: str) -> None:
    """Whatever text gets into a receipt, the summary has Lily's headings alone, and is the same each time."""
    error = ErrorInfo(code=FAILED, message=message, blueprint_code=said or None)
    changed = msgspec.structs.replace(ended, title=title, error=error, status="failed", payload={"summary": said, "stdout_tail": message})
    text = summary_of(changed, [])
    assert text == summary_of(changed, [])
    check_harmless(text)
    text.encode()


@pytest.fixture
def ended(make_world: MakeWorld) -> Receipt:
    """The receipt of a run that ended well."""
    world = make_world()
    return receipt_in(folder_of(world, succeeded(world)))


def test_an_exception_that_can_not_be_shown_fails_its_run_alone(make_world: MakeWorld) -> None:
    """Its text is the code of others and may raise; the run ends, and the supervisor goes on."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @blueprint("mute.v1")
    async def mute(ctx: Any, bindings: Any, run_input: Any) -> Any:
        raise Unspeakable

    world = make_world(mute)
    run, other = world.submit("mute.v1"), world.submit("noop.v1", job_id="other")
    lived(world, run, other)
    receipt, _ = check_run(folder_of(world, run))
    assert receipt["error"]["message"].startswith("Unspeakable: ")
    assert world.system is not None
    assert world.system.crashes == []
    check_run(folder_of(world, other))


def test_data_that_is_no_json_stands_as_its_text(make_world: MakeWorld) -> None:
    """Also of a blueprint that fails to compile: what an error says of itself can't lose the receipt."""

    @blueprint("data.v1")
    async def data(ctx: Any, bindings: Any, run_input: Any) -> Any:
        raise BlueprintError("odd", where=object(), set={1}, fine=[1])

    class Unbuildable:
        id, version, summary = "unbuilt.v1", "1.0.0", ""
        example: Mapping[str, Any] = {}
        bindings_schema = input_schema = output_schema = None
        capabilities: frozenset[str] = frozenset()
        in_process = True

        def capabilities_for(self, bindings: Any) -> frozenset[str]:
            return self.capabilities

        def compile(self, bindings: Any) -> Any:
            raise BlueprintError("odd \ud800", where=object(), fine=[1])

    world = make_world(data, Unbuildable())
    for id in ("data.v1", "unbuilt.v1"):
        run = world.submit(id)
        lived(world, run)
        receipt, _ = check_run(folder_of(world, run))
        assert receipt["error"]["data"]["fine"] == [1]
        assert receipt["error"]["data"]["where"].startswith("<object object")
    assert world.system is not None
    assert world.system.crashes == []


def test_a_queue_of_runs_leaves_folders_that_sort_in_their_order(make_world: MakeWorld) -> None:
    """Ids sort as the runs were accepted, also within one microsecond."""
    world = make_world()
    runs = [world.submit("noop.v1") for _ in range(5)]
    lived(world, *runs)
    assert [path.name for path in sorted(folder_of(world, runs[0]).parent.iterdir())] == [run.run_id for run in runs]
    for run in runs:
        check_run(folder_of(world, run))


def test_what_is_printed_is_what_is_kept(make_world: MakeWorld) -> None:
    """A receipt survives being read and written again, byte for byte."""
    world = make_world(chatty)
    folder = folder_of(world, with_steps_and_output(world))
    raw = (folder / "run_receipt.json").read_bytes()
    assert encode_receipt(receipt_in(folder)) == raw
    assert json.loads(raw)["schema_version"] == 2
