"""plan_execute_verify.v1: rounds until the verdict is pass, and never more than were allowed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from lily.blueprints.contract import BlueprintError, Context, Envelope
from lily.blueprints.define import blueprint
from lily.blueprints.envelope import checked
from lily.blueprints.plan_execute_verify import Bindings, Input, verdict_of
from lily.blueprints.registry import Registry
from lily.blueprints.schemas import validated
from lily.blueprints.testkit import FakeContext
from lily.errors import Code

pytestmark = pytest.mark.anyio


class PlanInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    goal: str
    notes: list[str] = []


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class World:
    """Three blueprints that remember what they were given; verdicts are given in turn."""

    def __init__(self, verdicts: Sequence[Any]) -> None:
        self.given: list[tuple[str, Any]] = []
        self.verdicts = iter(verdicts)
        self.registry = Registry()

        @blueprint("plan.v1", input=PlanInput)
        async def plan(ctx: Context, bindings: Any, run_input: PlanInput) -> Any:
            self.given.append(("plan", run_input))
            return {"steps": len(run_input.notes) + 1}

        @blueprint("do.v1", bindings=Anything, capabilities=["fs.write"])
        async def do(ctx: Context, bindings: Anything, run_input: Any) -> Any:
            self.given.append(("do", bindings.model_dump()))
            with ctx.artifact("log.txt") as file:
                file.write(b"done")
            return Envelope(payload={"did": bindings.model_dump()}, artifacts=["log.txt"])

        @blueprint("look.v1", input=Anything)
        async def look(ctx: Context, bindings: Any, run_input: Anything) -> Any:
            self.given.append(("look", run_input.model_dump()))
            return next(self.verdicts)

        for one in (plan, do, look):
            self.registry.register(one)


BINDINGS: dict[str, Any] = {
    "plan": {"blueprint": "plan.v1"},
    "execute": {"blueprint": "do.v1", "bindings": {"count": {"from": "plan.payload.steps"}, "round": {"from": "round"}}},
    "verify": {"blueprint": "look.v1"},
}
GOAL = Input.model_validate({"goal": "tidy"})
FAIL, PASS = {"verdict": "fail", "notes": ["dust"]}, {"verdict": "pass"}


async def run(world: World, ctx: FakeContext, **changes: Any) -> Envelope:
    found = world.registry.resolve("plan_execute_verify.v1")
    runnable = found.compile(Bindings.model_validate({**BINDINGS, **changes}))
    return checked(await runnable(ctx, GOAL), found)


async def test_rounds_go_on_until_the_verdict_is_pass(tmp_path: Path) -> None:
    """Each plan is told what was wrong before; each execution gets its plan; the payload has the verdict."""
    world = World([FAIL, {"verdict": "fail", "notes": "a cobweb"}, PASS])
    ctx = FakeContext(tmp_path, registry=world.registry)
    envelope = await run(world, ctx)
    payload = envelope.payload
    assert (payload["verdict"], payload["rounds"], payload["notes"]) == ("pass", 3, ["dust", "a cobweb"])
    assert [given.notes for name, given in world.given if name == "plan"] == [[], ["dust"], ["dust", "a cobweb"]]
    assert [given for name, given in world.given if name == "do"] == [{"count": n, "round": n} for n in (1, 2, 3)]
    seen = next(given for name, given in world.given if name == "look")
    assert (seen["goal"], seen["plan"], seen["round"]) == ("tidy", {"steps": 1}, 1)
    assert seen["result"] == {"did": {"count": 1, "round": 1}}
    assert list(envelope.artifacts) == ["execute-3-log.txt"]
    assert (ctx.run_dir / "execute-1-log.txt").exists()


async def test_a_last_verdict_of_fail_fails_the_run_for_good(tmp_path: Path) -> None:
    """The rounds are the retries: another attempt would find the stored results of the same rounds."""
    world = World([FAIL] * 2)
    envelope = await run(world, FakeContext(tmp_path, registry=world.registry), max_rounds=2)
    payload = envelope.payload
    assert (envelope.status, payload["verdict"], payload["rounds"], payload["retryable"]) == ("error", "fail", 2, False)
    assert payload["message"] == "the verdict is still fail after round 2 of 2"
    assert payload["notes"] == ["dust", "dust"]
    assert payload["result"] == {"did": {"count": 2, "round": 2}}


async def test_a_last_verdict_of_fail_is_a_failed_part_that_is_not_tried_again(tmp_path: Path) -> None:
    """In a pipeline, say: its own rounds were the tries."""
    world = World([FAIL] * 4)
    bindings = {**BINDINGS, "execute": {"blueprint": "do.v1"}, "max_rounds": 1}
    step: dict[str, Any] = {"name": "a", "blueprint": "plan_execute_verify.v1", "bindings": bindings, "retry_max": 3}
    step["input"] = {"goal": "tidy"}
    found = world.registry.resolve("pipeline.v1")
    runnable = found.compile(validated(found.bindings_schema, {"steps": [step]}, "bindings"))
    with pytest.raises(BlueprintError, match="still fail after round 1 of 1") as caught:
        await runnable(FakeContext(tmp_path, registry=world.registry), Input())
    assert caught.value.retryable is False
    assert [name for name, _ in world.given] == ["plan", "do", "look"]


async def test_a_later_attempt_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    world = World([FAIL, "broken", PASS])
    stored: dict[str, Any] = {}
    with pytest.raises(BlueprintError):
        await run(world, FakeContext(tmp_path, registry=world.registry, steps=stored))
    del stored["verify-2"]
    envelope = await run(world, FakeContext(tmp_path, registry=world.registry, steps=stored, attempt=2))
    assert envelope.payload["rounds"] == 2
    assert [name for name, _ in world.given] == ["plan", "do", "look", "plan", "do", "look", "look"]


@pytest.mark.parametrize("payload", [None, {}, {"verdict": True}, {"verdict": "PASS"}, "pass", [1]])
def test_a_verdict_is_pass_or_fail(payload: Any) -> None:
    with pytest.raises(BlueprintError) as caught:
        verdict_of(payload)
    assert caught.value.code == Code.BLUEPRINT_CONTRACT_INVALID
    assert caught.value.retryable is False


async def test_all_that_is_wrong_is_said_at_compile() -> None:
    world = World([])
    found = world.registry.resolve("plan_execute_verify.v1")
    bindings = {
        "plan": {"blueprint": "none.v1"},
        "execute": {"blueprint": "do.v1", "bindings": {"x": {"from": "verify.payload"}}},
        "verify": {"blueprint": "look.v1", "bindings": {"x": 1}},
    }
    with pytest.raises(BlueprintError) as caught:
        found.compile(Bindings.model_validate(bindings))
    assert caught.value.code == Code.BLUEPRINT_COMPILE_FAILED
    for named in ("plan: there is no blueprint none.v1", "execute: the reference 'verify.payload'", "verify: the bindings of look.v1"):
        assert named in caught.value.message


async def test_it_needs_what_its_parts_need() -> None:
    found = World([]).registry.resolve("plan_execute_verify.v1")
    assert found.capabilities_for(Bindings.model_validate(BINDINGS)) == {"fs.write"}


@pytest.mark.parametrize("rounds", [0, 11, 1.5, "3"])
def test_rounds_are_bounded(rounds: Any) -> None:
    with pytest.raises(ValidationError):
        Bindings.model_validate({**BINDINGS, "max_rounds": rounds}, strict=True)
