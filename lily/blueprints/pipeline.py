"""pipeline.v1: named steps, each another blueprint, in the order of their needs and side by side where there is none."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

import anyio
from pydantic import BaseModel, ConfigDict, Field

from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable, wished_pause
from lily.blueprints.define import BlueprintBase
from lily.blueprints.foreign import trace_of
from lily.blueprints.parts import Name, Part, check_folders, needs_of, problem_with, run_part
from lily.blueprints.references import references, root_of
from lily.blueprints.schemas import said
from lily.errors import Code, LilyError
from lily.redaction import here

INPUT = "input"  # the root under which references find the run's own input


class Step(Part):
    """A part with a name. A reference to another step is a need as well. Times are seconds."""

    name: Name
    needs: list[str] = Field(default_factory=list)
    timeout_seconds: Annotated[float, Field(gt=0, le=86400)] | None = None
    retry_max: Annotated[int, Field(ge=0, le=10)] = 0
    retry_delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0  # doubled after each try, at most a minute more


class Bindings(BaseModel):
    """The steps, in any order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[list[Step], Field(min_length=1, max_length=200)]


class Input(BaseModel):
    """Anything; steps find it under `{from: "input.NAME"}`."""

    model_config = ConfigDict(frozen=True, extra="allow")


class StepResult(BaseModel):
    """What a step gave."""

    payload: Any = None
    artifacts: list[str] = []
    references: list[str] = []


class Output(BaseModel):
    """The payload: each step's result under its name."""

    steps: dict[str, StepResult]


class Pipeline(BlueprintBase):
    """Every finished step is kept: a later attempt of the run goes on from the first unfinished one."""

    id = "pipeline.v1"
    summary = "Run named steps, each a blueprint, in the order of their needs."
    bindings_schema = Bindings
    input_schema = Input
    output_schema = Output
    example: Mapping[str, Any] = {
        "steps": [
            {
                "name": "ask",
                "blueprint": "council.v1",
                "bindings": {"specialists": ["security.v1", "operations.v1"]},
                "input": {"topic": "Moving the login page", "context": ["the new page keeps sessions in memory"]},
            },
            {
                "name": "ask-again",
                "blueprint": "council.v1",
                "needs": ["ask"],
                "bindings": {"specialists": ["security.v1", "operations.v1"], "max_findings": 3},
                "input": {"topic": {"from": "ask.payload.ranked_findings[0].title"}, "context": []},
                "retry_max": 1,
            },
        ]
    }

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry

    def attach(self, registry: Any) -> "Pipeline":
        """The same blueprint, with the registry in which its steps are looked up."""
        return Pipeline(registry)

    def capabilities_for(self, bindings: Bindings) -> frozenset[str]:
        """All that any step needs."""
        return frozenset().union(*(needs_of(self._registry, step) for step in bindings.steps))

    def check_folders(self, bindings: Bindings, policy: Any, workspace: Path) -> None:
        """Those of all steps whose bindings are known."""
        for step in bindings.steps:
            check_folders(self._registry, step, policy, workspace, name=f"step {step.name}")

    def compile(self, bindings: Bindings) -> Runnable:
        """Raises BlueprintError `blueprint_compile_failed` that names everything wrong with the steps at once."""
        problems = graph_problems(bindings.steps)
        for step in bindings.steps:
            said = problem_with(self._registry, step, input_is_whole=True)
            problems += [f"step {step.name}: {said}"] if said else []
        if problems:
            raise BlueprintError("; ".join(problems), code=Code.BLUEPRINT_COMPILE_FAILED, retryable=False, problems=problems)

        async def run(ctx: Context, run_input: Input, /) -> Envelope:
            return await _Run(self._registry, ctx, bindings.steps, run_input.model_dump(mode="json")).all()

        return run


def needs(step: Step) -> list[str]:
    """The names that must be done before `step`: those it lists and those it refers to, without the run's input."""
    referred = [root_of(path) for path in references([step.bindings, step.input])]
    return list(dict.fromkeys([*step.needs, *(name for name in referred if name != INPUT)]))


def graph_problems(steps: Sequence[Step]) -> list[str]:
    """Duplicate and reserved names, references that can't be read, needs that are no step, and a cycle of steps with names of their own."""
    problems, names = [], [step.name for step in steps]
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"two steps are named {name}" for name in doubled]
    if INPUT in names:
        problems.append(f"a step can't be named {INPUT}: references find the run's input under it")
    edges: dict[str, list[str]] = {}
    for step in steps:
        try:
            edges[step.name] = needs(step)
        except ValueError as error:
            problems.append(f"step {step.name}: {error}")
            continue
        unknown = [name for name in edges[step.name] if name not in names]
        problems += [f"step {step.name} needs {name}, which is no step" for name in unknown]
    cycle = find_cycle({name: wanted for name, wanted in edges.items() if name not in doubled})  # which of the two is needed?
    return [*problems, f"the steps need each other in a circle: {' -> '.join(cycle)}"] if cycle else problems


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """One circle of needs, as names that end where they began; empty when there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it names who is needed first
    return []


class _Run:
    """One attempt of a pipeline: every step waits for its needs, then runs."""

    def __init__(self, registry: Any, ctx: Context, steps: Sequence[Step], run_input: Any) -> None:
        self._registry, self._ctx, self._steps = registry, ctx, steps
        self._known: dict[str, Any] = {INPUT: run_input}
        self._over = {step.name: anyio.Event() for step in steps}
        self._failed: dict[str, BlueprintError | Exception] = {}
        self._left_out: list[str] = []

    async def all(self) -> Envelope:
        async with anyio.create_task_group() as group:
            for step in self._steps:
                group.start_soon(self._one, step)
        if self._failed:
            raise self._failure()
        results = {step.name: self._known[step.name] for step in self._steps}
        artifacts = [file for result in results.values() for file in result["artifacts"]]
        return Envelope(payload={"steps": results}, artifacts=artifacts)

    async def _one(self, step: Step) -> None:
        for name in needs(step):
            await self._over[name].wait()
        try:
            if all(name in self._known for name in needs(step)):
                self._known[step.name] = await self._ctx.step(step.name, lambda: self._tries(step))
            else:
                self._left_out.append(step.name)
        except Exception as error:  # the others go on: what they finish is kept for the next attempt
            self._failed[step.name] = error
        self._over[step.name].set()
        if step.name in self._known:
            await self._ctx.progress(len(self._known) - 1, len(self._steps), step.name)  # the input is known, too

    async def _tries(self, step: Step) -> Any:
        for number in range(1, step.retry_max + 2):
            # Under one name, as in attempts of the run: steps inside that are done stay done, and files are those of the last try.
            try:
                return await self._bounded(step)
            except Exception as error:
                if number > step.retry_max or not _retryable(error):
                    raise
                pause = max(min(step.retry_delay_seconds * 2 ** (number - 1), step.retry_delay_seconds + 60), wished_pause(error))
                if anyio.current_time() + pause >= anyio.current_effective_deadline():
                    raise  # the attempt would be over before the next try: better to say why, and have the run wait without a slot
                await self._ctx.log.warning(f"step {step.name}: try {number} failed, the next in {pause:g} s", error=said(error))
                await anyio.sleep(pause)
        raise AssertionError("a last try returns or raises")

    async def _bounded(self, step: Step) -> Any:
        with anyio.move_on_after(step.timeout_seconds if step.timeout_seconds is not None else float("inf")) as scope:
            return await run_part(self._registry, self._ctx, step, self._known, name=step.name)
        assert scope.cancelled_caught
        raise BlueprintError(f"took longer than {step.timeout_seconds:g} s", step=step.name, timeout_seconds=step.timeout_seconds)

    def _failure(self) -> BlueprintError:
        reasons = [f"step {name} failed: {said(error)}" for name, error in sorted(self._failed.items())]
        if self._left_out:
            reasons.append(f"not run: {', '.join(sorted(self._left_out))}")
        first = next(iter(self._failed.values()))
        return BlueprintError(
            "; ".join(reasons),
            code=_code(first),
            retryable=all(map(_retryable, self._failed.values())),
            retry_after=max(map(wished_pause, self._failed.values())) or None,
            failed_steps=sorted(self._failed),
            steps_not_run=sorted(self._left_out),
            finished_steps=sorted(self._known.keys() - {INPUT}),
            errors={name: _error_data(error) for name, error in sorted(self._failed.items())},
        )


def _code(error: Exception) -> str:
    return str(error.code) if isinstance(error, (BlueprintError, LilyError)) else str(Code.BLUEPRINT_EXECUTION_FAILED)


def _error_data(error: Exception) -> dict[str, Any]:
    if isinstance(error, BlueprintError):
        data = error.data
    else:
        data = {} if isinstance(error, LilyError) else {"traceback": trace_of(error, here())}
    return {"code": _code(error), "message": said(error), "data": data}


def _retryable(error: Exception) -> bool:
    return error.retryable if isinstance(error, BlueprintError) else not isinstance(error, LilyError)


pipeline = Pipeline()
