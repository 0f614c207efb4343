"""plan_execute_verify.v1: three parts in rounds, until the third one's verdict is `pass`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable
from lily.blueprints.define import BlueprintBase
from lily.blueprints.parts import Part, check_folders, needs_of, problem_with, run_part
from lily.blueprints.references import references, root_of
from lily.errors import Code

PHASES = ("plan", "execute", "verify")
_ALWAYS = frozenset({"input", "round", "notes"})
# What references in each part may begin with: what is there when it runs.
_KNOWN = {"plan": _ALWAYS, "execute": _ALWAYS | {"plan"}, "verify": _ALWAYS | {"plan", "execute"}}


class Bindings(BaseModel):
    """The three parts. Each is offered, as input, those of these that its schema has a field for: what the run's input holds,
    `round`, `notes` (of all earlier verdicts), and after planning `plan`, after executing `result`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Part
    execute: Part
    verify: Part
    max_rounds: Annotated[int, Field(ge=1, le=10)] = 3


class Input(BaseModel):
    """Anything; the parts find it under `{from: "input.NAME"}`."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Output(BaseModel):
    """The payload: the verdict, after how many rounds, and what the last one gave. Where it is `fail`, the run has failed, and
    `message` says so."""

    verdict: Literal["pass", "fail"]
    rounds: int
    notes: list[str]
    plan: Any = None
    result: Any = None
    verification: Any = None


class PlanExecuteVerify(BlueprintBase):
    """The rounds are the retries: a verdict of `fail` after the last one fails the run, and a later attempt would only find
    the stored results again, so it is not retried. Its payload has the verdict all the same."""

    id = "plan_execute_verify.v1"
    summary = "Plan, execute and verify, in rounds, until the verdict is pass."
    bindings_schema = Bindings
    input_schema = Input
    output_schema = Output
    example: Mapping[str, Any] = {
        "plan": {"blueprint": "python.v1", "bindings": {"callable": "builtins:dict", "kwargs": {"word": "hello"}}},
        "execute": {"blueprint": "command.v1", "bindings": {"argv": ["echo", {"from": "plan.payload.word"}]}},
        "verify": {"blueprint": "python.v1", "bindings": {"callable": "builtins:dict", "kwargs": {"verdict": "pass"}}},
        "max_rounds": 2,
    }

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry

    def attach(self, registry: Any) -> "PlanExecuteVerify":
        """The same blueprint, with the registry in which its parts are looked up."""
        return PlanExecuteVerify(registry)

    def capabilities_for(self, bindings: Bindings) -> frozenset[str]:
        """All that any part needs."""
        return frozenset().union(*(needs_of(self._registry, getattr(bindings, phase)) for phase in PHASES))

    def check_folders(self, bindings: Bindings, policy: Any, workspace: Path) -> None:
        """Those of all parts whose bindings are known."""
        for phase in PHASES:
            check_folders(self._registry, getattr(bindings, phase), policy, workspace, name=phase)

    def compile(self, bindings: Bindings) -> Runnable:
        """Raises BlueprintError `blueprint_compile_failed` that names everything wrong with the parts at once."""
        problems = []
        for phase in PHASES:
            part: Part = getattr(bindings, phase)
            said = [problem_with(self._registry, part, input_is_whole=False), *_bad_references(phase, part)]
            problems += [f"{phase}: {one}" for one in said if one]
        if problems:
            raise BlueprintError("; ".join(problems), code=Code.BLUEPRINT_COMPILE_FAILED, retryable=False, problems=problems)

        async def run(ctx: Context, run_input: Input, /) -> Envelope:
            return await self._rounds(ctx, bindings, run_input.model_dump(mode="json"))

        return run

    async def _rounds(self, ctx: Context, bindings: Bindings, run_input: dict[str, Any]) -> Envelope:
        notes: list[str] = []
        for number in range(1, bindings.max_rounds + 1):
            last = await self._round(ctx, bindings, {"input": run_input, "round": number, "notes": list(notes)})
            verdict, said = verdict_of(last["verify"]["payload"])
            payload = {
                "verdict": verdict,
                "rounds": number,
                "notes": notes + said,
                "plan": last["plan"]["payload"],
                "result": last["execute"]["payload"],
                "verification": last["verify"]["payload"],
            }
            files = [file for phase in PHASES for file in last[phase]["artifacts"]]
            if verdict == "pass":
                return Envelope(payload=payload, artifacts=files)
            await ctx.log.info(f"round {number} of {bindings.max_rounds}: the verdict is fail", notes=said)
            notes += said or [f"round {number} failed without notes"]
        message = f"the verdict is still fail after round {number} of {bindings.max_rounds}"
        return Envelope(status="error", payload={**payload, "message": message, "retryable": False}, artifacts=files)

    async def _round(self, ctx: Context, bindings: Bindings, known: dict[str, Any]) -> dict[str, Any]:
        """One round's results, added to `known`; a step that an earlier attempt finished is not run again."""
        offered = {**known["input"], "round": known["round"], "notes": known["notes"]}
        for phase, offered_as in zip(PHASES, ("plan", "result", ""), strict=True):
            part: Part = getattr(bindings, phase)
            name = f"{phase}-{known['round']}"
            known[phase] = await ctx.step(name, _work(self._registry, ctx, part, dict(known), name, dict(offered)))
            offered[offered_as] = known[phase]["payload"]
            done = (known["round"] - 1) * len(PHASES) + PHASES.index(phase) + 1
            await ctx.progress(done, bindings.max_rounds * len(PHASES), name)
        return known


def _work(registry: Any, ctx: Context, part: Part, known: Mapping[str, Any], name: str, offered: Mapping[str, Any]) -> Any:
    return lambda: run_part(registry, ctx, part, known, name=name, offered=offered)


def _bad_references(phase: str, part: Part) -> list[str]:
    """The references that can lead nowhere when the part runs."""
    problems = []
    for path in references([part.bindings, part.input]):
        try:
            root = root_of(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if root not in _KNOWN[phase]:
            problems.append(f"the reference {path!r} begins with {root!r}; here are {', '.join(sorted(_KNOWN[phase]))}")
    return problems


def verdict_of(payload: Any) -> tuple[str, list[str]]:
    """The verdict and the notes in what the verifier gave. Raises BlueprintError `blueprint_contract_invalid`, not retryable."""
    verdict = payload.get("verdict") if isinstance(payload, Mapping) else None
    if verdict not in ("pass", "fail"):
        raise BlueprintError(
            f"verify must give a payload with `verdict: pass` or `verdict: fail`, and gave {verdict!r}",
            code=Code.BLUEPRINT_CONTRACT_INVALID,
            retryable=False,
        )
    notes = payload.get("notes") or []
    return str(verdict), [notes] if isinstance(notes, str) else [str(note) for note in notes] if isinstance(notes, list) else [str(notes)]


plan_execute_verify = PlanExecuteVerify()
