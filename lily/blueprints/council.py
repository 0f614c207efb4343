"""council.v1: specialists look at one topic side by side, then a synthesizer puts their findings in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import anyio
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lily.blueprints.contract import BlueprintError, Context, Envelope, Runnable, wished_pause
from lily.blueprints.council_report import evidence, report
from lily.blueprints.define import BlueprintBase, Finding, Specialist, Synthesis, SynthesisRequest, Synthesizer
from lily.blueprints.findings import as_findings, in_order
from lily.blueprints.foreign import contained
from lily.blueprints.means import is_spent
from lily.blueprints.nested import inside
from lily.blueprints.schemas import said
from lily.blueprints.secrets import Secret
from lily.errors import Code, LilyError
from lily.text import counted

DEFAULT, DEFAULT_LLM = "default.v1", "openai.v1"


class Llm(BaseModel):
    """For LLM synthesizers; what is left out is taken from `llm` in the workspace's settings. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    base_url: str | None = None
    api_key: Secret | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0


class Bindings(BaseModel):
    """Who is asked, and how the answers are put together. `default.v1` with an LLM strategy stands for `openai.v1`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specialists: Annotated[list[str], Field(min_length=2, max_length=50)] = Field(["security.v1", "operations.v1"])
    synthesizer: str = DEFAULT
    synth_strategy: Literal["deterministic", "llm", "llm_with_fallback"] = "deterministic"
    fallback_synthesizer: str = DEFAULT
    max_findings: Annotated[int, Field(ge=1, le=20)] = 8
    quorum: Annotated[int, Field(ge=1)] = 1
    specialist_timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    llm: Llm = Llm()

    @field_validator("specialists")
    @classmethod
    def _no_duplicates(cls, given: list[str]) -> list[str]:
        twice = [name for name in dict.fromkeys(given) if given.count(name) > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)} more than once")
        return given

    @model_validator(mode="after")
    def _quorum_can_be_met(self) -> "Bindings":
        if self.quorum > len(self.specialists):
            raise ValueError(f"quorum is {self.quorum} with {counted(len(self.specialists), 'specialist')}")
        return self


class Input(BaseModel):
    """What the council looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: Annotated[str, Field(min_length=1, max_length=10_000)]
    context: list[str] = Field(default_factory=list)


class FindingOut(BaseModel):
    """A finding in the payload."""

    title: str
    recommendation: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    source_specialist: str


class Output(BaseModel):
    """The payload."""

    topic: str
    summary: str
    ranked_findings: list[FindingOut]
    participating_specialists: list[str]
    failed_specialists: list[str]
    fallback_used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members:
    """Everybody a run will ask, looked up at compile."""

    specialists: Sequence[Specialist]
    synthesizer: Synthesizer
    fallback: Synthesizer | None


@dataclass(slots=True)
class _Answers:
    """What the specialists said: findings of the good ones, the reason of each that failed, both by id, and the longest pause wished."""

    good: dict[str, list[Finding]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0


class Council(BlueprintBase):
    """A specialist that fails is listed; the run fails when fewer than `quorum` are good. Writes report.md and evidence.json."""

    id = "council.v1"
    summary = "Ask several specialists at once and put their findings in order."
    bindings_schema = Bindings
    input_schema = Input
    output_schema = Output
    capabilities = frozenset({"net.http"})  # only for the LLM strategies
    example: Mapping[str, Any] = {"specialists": ["security.v1", "operations.v1"], "max_findings": 5}
    example_input: Mapping[str, Any] = {
        "topic": "Open the admin page to the internet",
        "context": ["the page asks for a password", "there is no backup yet"],
    }

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry

    def attach(self, registry: Any) -> "Council":
        """The same blueprint, with the registry in which its members are looked up."""
        return Council(registry)

    def capabilities_for(self, bindings: Bindings) -> frozenset[str]:
        """`net.http` when a language model is asked, else nothing."""
        return frozenset() if bindings.synth_strategy == "deterministic" else self.capabilities

    def compile(self, bindings: Bindings) -> Runnable:
        """Raises BlueprintError `blueprint_compile_failed` that names all unknown specialists and synthesizers at once."""
        members = self._members(bindings)

        async def run(ctx: Context, run_input: Input, /) -> Envelope:
            answers = await _asked(ctx, members.specialists, run_input, bindings.specialist_timeout_seconds)
            if len(answers.good) < bindings.quorum:
                raise _no_quorum(bindings, answers)
            return await _concluded(ctx, bindings, members, run_input, answers)

        return run

    def _members(self, bindings: Bindings) -> _Members:
        problems: list[str] = []
        specialists = [self._found("specialist", name, problems) for name in bindings.specialists]
        llm = bindings.synth_strategy != "deterministic"
        chosen = DEFAULT_LLM if llm and bindings.synthesizer == DEFAULT else bindings.synthesizer
        synthesizer = self._found("synthesizer", chosen, problems)
        if synthesizer is not None and (synthesizer.kind == "llm") != llm:
            problems.append(f"synthesizer {chosen} is {synthesizer.kind}, which does not go with synth_strategy {bindings.synth_strategy}")
        fallback = None
        if bindings.synth_strategy == "llm_with_fallback":
            fallback = self._found("synthesizer", bindings.fallback_synthesizer, problems)
        if problems:
            raise BlueprintError("; ".join(problems), code=Code.BLUEPRINT_COMPILE_FAILED, retryable=False, problems=problems)
        return _Members(specialists=specialists, synthesizer=synthesizer, fallback=fallback)

    def _found(self, kind: str, name: str, problems: list[str]) -> Any:
        try:
            return getattr(self._registry, kind)(name)
        except LilyError as error:
            if is_spent(error):
                raise
            problems.append(f"{error.message} ({error.hint})" if error.hint else error.message)
            return None


async def _asked(ctx: Context, specialists: Sequence[Specialist], given: Input, limit: float | None) -> _Answers:
    """All specialists at once. Each is a step: a later attempt asks only those that have not answered."""
    answers = _Answers()

    async def ask(member: Specialist) -> None:
        async def answer() -> list[dict[str, Any]]:
            with anyio.move_on_after(limit if limit is not None else float("inf")):
                with contained():
                    found = await member(inside(ctx, member.id), given.topic, list(given.context))
                return [_as_json(one) for one in as_findings(found, member.id)]
            raise BlueprintError(f"took longer than {limit:g} s")

        try:
            stored = await ctx.step(f"ask-{member.id}", answer)
            answers.good[member.id] = as_findings(stored, member.id)
        except Exception as error:  # contained: the others' findings still count
            answers.failed[member.id] = said(error)
            answers.pause = max(answers.pause, wished_pause(error))
            await ctx.log.warning(f"specialist {member.id} failed", error=answers.failed[member.id])
        await ctx.progress(len(answers.good) + len(answers.failed), len(specialists), member.id)

    async with anyio.create_task_group() as group:
        for member in specialists:
            group.start_soon(ask, member)
    return answers


def _no_quorum(bindings: Bindings, answers: _Answers) -> BlueprintError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(answers.failed.items()))
    return BlueprintError(
        f"{len(answers.good)} of {counted(len(bindings.specialists), 'specialist')} answered, the quorum is {bindings.quorum}; {reasons}",
        retry_after=answers.pause or None,
        failed_specialists=sorted(answers.failed),
        failures=answers.failed,
        quorum=bindings.quorum,
    )


async def _concluded(ctx: Context, bindings: Bindings, members: _Members, given: Input, answers: _Answers) -> Envelope:
    """The synthesis, the two files, and the payload."""
    request = SynthesisRequest(
        topic=given.topic,
        context=list(given.context),
        findings=in_order([one for found in answers.good.values() for one in found]),
        max_findings=bindings.max_findings,
        options=bindings.llm.model_dump(mode="json"),
    )
    synthesis, llm_error = await _synthesized(ctx, members, request, len(answers.good))
    payload = {
        "topic": given.topic,
        "summary": synthesis.summary,
        "ranked_findings": [_as_json(one) for one in synthesis.ranked_findings],
        "participating_specialists": [name for name in bindings.specialists if name in answers.good],
        "failed_specialists": [name for name in bindings.specialists if name in answers.failed],
        "fallback_used": llm_error is not None,
    }
    used = members.fallback if llm_error is not None and members.fallback else members.synthesizer
    with ctx.artifact("report.md") as file:
        file.write(report(payload, answers.failed).encode())
    with ctx.artifact("evidence.json") as file:
        file.write(
            evidence(
                request,
                payload,
                answers={name: [_as_json(one) for one in found] for name, found in answers.good.items()},
                failures=answers.failed,
                synthesizer=used.id,
                strategy=bindings.synth_strategy,
                llm_error=llm_error,
            )
        )
    return Envelope(payload=payload, artifacts=["report.md", "evidence.json"])


async def _synthesized(ctx: Context, members: _Members, request: SynthesisRequest, answered: int) -> tuple[Synthesis, str | None]:
    """The synthesis, and why the language model's could not be used (None when it was, or none was asked)."""
    if members.synthesizer.kind != "llm":
        return await _from(ctx, members.synthesizer, request), None
    try:
        return await _kept(ctx, members.synthesizer, request, answered), None
    except Exception as error:
        failure = error
    reason = said(failure)
    if members.fallback is None:
        raise BlueprintError(
            f"{members.synthesizer.id} failed: {reason}",
            code=Code.LLM_SYNTH_FAILED,
            retryable=failure.retryable if isinstance(failure, BlueprintError) else True,
            retry_after=failure.retry_after if isinstance(failure, BlueprintError) else None,
        ) from failure
    takes_over = f"{members.synthesizer.id} failed; {members.fallback.id} takes over"
    await ctx.log.warning(takes_over, code=Code.LLM_SYNTH_FAILED.value, error=reason)
    try:
        return await _from(ctx, members.fallback, request), reason
    except Exception as error:
        raise BlueprintError(
            f"{members.synthesizer.id} failed: {reason}; its fallback {members.fallback.id} failed too: {said(error)}",
            code=Code.LLM_SYNTH_FALLBACK_FAILED,
        ) from error


async def _kept(ctx: Context, synthesizer: Synthesizer, request: SynthesisRequest, answered: int) -> Synthesis:
    """A language model's synthesis, as a step: who pays for it does so once."""

    async def asked() -> dict[str, Any]:
        made = await _from(ctx, synthesizer, request)
        return {"summary": made.summary, "ranked_findings": [_as_json(one) for one in made.ranked_findings]}

    # No answer of a specialist is lost from one attempt to the next, so their number says whether the model has seen them all.
    stored = await ctx.step(f"synthesize-{answered}", asked)
    return Synthesis(summary=stored["summary"], ranked_findings=as_findings(stored["ranked_findings"]))


async def _from(ctx: Context, synthesizer: Synthesizer, request: SynthesisRequest) -> Synthesis:
    with contained():
        made = await synthesizer(inside(ctx, synthesizer.id), request)
    if not isinstance(made, Synthesis) or not isinstance(made.summary, str):
        raise BlueprintError(f"{synthesizer.id} returned {type(made).__name__}; a Synthesis is expected", retryable=False)
    ranked = as_findings(made.ranked_findings)
    sources = {one.source_specialist for one in request.findings}
    strange = [one.source_specialist for one in ranked if one.source_specialist not in sources]
    if strange:
        raise BlueprintError(f"{synthesizer.id} gave a finding of {strange[0]!r}, who gave none", retryable=False)
    return Synthesis(summary=made.summary, ranked_findings=ranked[: request.max_findings])


def _as_json(one: Finding) -> dict[str, Any]:
    return {
        "title": one.title,
        "recommendation": one.recommendation,
        "confidence": one.confidence,
        "source_specialist": one.source_specialist,
    }


council = Council()
