"""council.v1: who is asked, what becomes of those who fail, and the order of what they found."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trio.testing import MockClock

from lily.blueprints.contract import BlueprintError, Context, Envelope
from lily.blueprints.council import Bindings, Input
from lily.blueprints.council_default import OPERATIONS, SECURITY, apply
from lily.blueprints.define import Finding, Synthesis, SynthesisRequest, specialist, synthesizer
from lily.blueprints.envelope import checked
from lily.blueprints.findings import as_findings, in_order
from lily.blueprints.registry import Registry
from lily.blueprints.testkit import FakeContext
from lily.errors import Code
from tests.raised import RAISED

pytestmark = pytest.mark.anyio
TOPIC = Input(topic="Move the login page", context=["the api key is hard-coded", "sessions live in memory"])


@pytest.fixture
def anyio_backend() -> Any:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@specialist("same.v1")
async def same(ctx: Context, topic: str, context: Sequence[str]) -> list[Any]:
    """Says the same twice, once as a mapping, and claims to be another."""
    return [
        {"title": "Twice", "recommendation": "once", "confidence": 0.5},
        Finding(title="twice ", recommendation="Once", confidence=0.4, source_specialist="security.v1"),
    ]


@specialist("broken.v1")
async def broken(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
    """Fails."""
    raise RuntimeError("no model\nloaded")


@specialist("slow.v1")
async def slow(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
    """Takes an hour."""
    await anyio.sleep(3600)
    return []


@specialist("wrong.v1")
async def wrong(ctx: Context, topic: str, context: Sequence[str]) -> Any:
    """Is too sure."""
    return [{"title": "x", "recommendation": "y", "confidence": 1.5}]


@synthesizer("llm.v1", kind="llm")
async def llm(ctx: Context, request: SynthesisRequest) -> Synthesis:
    """Turns the order around."""
    return Synthesis(summary="turned", ranked_findings=list(reversed(request.findings)))


@synthesizer("down.v1", kind="llm")
async def down(ctx: Context, request: SynthesisRequest) -> Synthesis:
    """Is down."""
    raise BlueprintError("503", retry_after=7)


@synthesizer("liar.v1", kind="llm")
async def liar(ctx: Context, request: SynthesisRequest) -> Synthesis:
    """Makes things up."""
    return Synthesis(summary="x", ranked_findings=[Finding(title="a", recommendation="b", confidence=1, source_specialist="nobody")])


@synthesizer("crash.v1")
async def crash(ctx: Context, request: SynthesisRequest) -> Synthesis:
    """Crashes."""
    raise ValueError("crash")


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for member in (same, broken, slow, wrong, llm, down, liar, crash):
        made.register(member)
    return made


async def council(registry: Registry, ctx: FakeContext, run_input: Input = TOPIC, **bindings: Any) -> Envelope:
    found = registry.resolve("council.v1")
    return checked(await found.compile(Bindings.model_validate(bindings))(ctx, run_input), found)


async def test_the_default_council_reads_what_it_is_given(registry: Registry, tmp_path: Path) -> None:
    """Two specialists, a ranked list, and two files."""
    envelope = await council(registry, FakeContext(tmp_path))
    payload = envelope.payload
    titles = [one["title"] for one in payload["ranked_findings"]]
    assert titles[0] == "A secret may be in plain sight"
    assert "State lives in one process" in titles
    assert payload["participating_specialists"] == ["security.v1", "operations.v1"]
    assert (payload["failed_specialists"], payload["fallback_used"]) == ([], False)
    assert set(payload) == {"topic", "summary", "ranked_findings", "participating_specialists", "failed_specialists", "fallback_used"}
    assert "hard-coded" in payload["ranked_findings"][0]["recommendation"]
    assert list(envelope.artifacts) == ["report.md", "evidence.json"]
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.startswith("# Move the login page\n")
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_bytes())
    assert evidence["ranked_findings"] == payload["ranked_findings"]
    assert set(evidence["answers"]) == {"security.v1", "operations.v1"}


async def test_what_one_specialist_calls_its_steps_and_files_is_no_other_ones_affair(registry: Registry, tmp_path: Path) -> None:
    """Else one would be given what the other has found out, and nobody would see it."""
    fails = {"left.v1"}

    def looking(id: str) -> Any:
        @specialist(id)
        async def look(ctx: Context, topic: str, context: Sequence[str]) -> list[Any]:
            """Looks, and then fails once."""

            async def step() -> str:
                return f"{id} saw it"

            seen = await ctx.step("look", step)
            with ctx.artifact("notes.md") as file:
                file.write(seen.encode())
            if id in fails:
                raise RuntimeError
            return [{"title": seen, "recommendation": "x", "confidence": 0.5}]

        return look

    for id in ("left.v1", "right.v1"):
        registry.register(looking(id))
    steps: dict[str, Any] = {}
    with pytest.raises(BlueprintError, match="1 of 2 specialists answered"):
        await council(registry, FakeContext(tmp_path, steps=steps), specialists=["left.v1", "right.v1"], quorum=2)
    fails.clear()
    payload = (await council(registry, FakeContext(tmp_path, steps=steps), specialists=["left.v1", "right.v1"], quorum=2)).payload
    found = {(one["source_specialist"], one["title"]) for one in payload["ranked_findings"]}
    assert found == {("left.v1", "left.v1 saw it"), ("right.v1", "right.v1 saw it")}
    assert {file.name: file.read_text() for file in (tmp_path / "run").glob("*notes.md")} == {
        "left.v1-notes.md": "left.v1 saw it",
        "right.v1-notes.md": "right.v1 saw it",
    }


async def test_the_same_input_gives_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    for name in ("a", "b"):
        await council(registry, FakeContext(tmp_path / name))
    for file in ("report.md", "evidence.json"):
        assert (tmp_path / "a" / "run" / file).read_bytes() == (tmp_path / "b" / "run" / file).read_bytes()


async def test_what_is_settled_is_no_finding() -> None:
    """The heuristics read the whole context, not only the line that raised the question."""
    assert "No way back is described" in {one.title for one in apply(OPERATIONS, "Deploy", [])}
    assert "No way back is described" not in {one.title for one in apply(OPERATIONS, "Deploy", ["a rollback takes a minute"])}
    assert "A password is the only proof of identity" not in {one.title for one in apply(SECURITY, "password", ["and a passkey"])}


async def test_a_failing_specialist_is_contained_and_listed(registry: Registry, tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path)
    names = ["broken.v1", "wrong.v1", "slow.v1", "same.v1"]
    payload = (await council(registry, ctx, specialists=names, specialist_timeout_seconds=5)).payload
    assert payload["failed_specialists"] == ["broken.v1", "wrong.v1", "slow.v1"]
    assert payload["participating_specialists"] == ["same.v1"]
    failures = json.loads((tmp_path / "run" / "evidence.json").read_bytes())["failures"]
    assert failures["broken.v1"] == "RuntimeError: no model loaded"
    assert "1.5" in failures["wrong.v1"]
    assert "5 s" in failures["slow.v1"]
    assert len(ctx.told.named("step_failed")) == 3
    assert "broken.v1: failed: RuntimeError" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize(
    ("raised", "said"),
    [*RAISED, (ValueError("half \ud800"), "ValueError: half \\ud800")],
)
async def test_whatever_a_specialist_raises_is_contained(raised: BaseException, said: str, registry: Registry, tmp_path: Path) -> None:
    @specialist("odd.v1")
    async def odd(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
        """Raises what it likes."""
        raise raised

    registry.register(odd)
    ctx = FakeContext(tmp_path)
    payload = (await council(registry, ctx, specialists=["odd.v1", "same.v1"])).payload
    assert (payload["failed_specialists"], payload["participating_specialists"]) == (["odd.v1"], ["same.v1"])
    assert said in json.loads((tmp_path / "run" / "evidence.json").read_bytes())["failures"]["odd.v1"]
    assert len(ctx.told.named("step_failed")) == 1


async def test_a_language_model_that_ends_its_process_falls_back(registry: Registry, tmp_path: Path) -> None:
    @synthesizer("exits.v1", kind="llm")
    async def exits(ctx: Context, request: SynthesisRequest) -> Synthesis:
        """Thinks it is alone."""
        raise SystemExit(2)

    registry.register(exits)
    names = ["same.v1", "broken.v1"]
    envelope = await council(registry, FakeContext(tmp_path), specialists=names, synthesizer="exits.v1", synth_strategy="llm_with_fallback")
    assert envelope.payload["fallback_used"]


async def test_a_source_can_not_be_claimed_and_duplicates_are_dropped(registry: Registry, tmp_path: Path) -> None:
    payload = (await council(registry, FakeContext(tmp_path), specialists=["same.v1", "broken.v1"])).payload
    assert payload["ranked_findings"] == [{"title": "Twice", "recommendation": "once", "confidence": 0.5, "source_specialist": "same.v1"}]


async def test_too_few_good_specialists_fail_the_run(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BlueprintError) as caught:
        await council(registry, FakeContext(tmp_path), specialists=["same.v1", "broken.v1"], quorum=2)
    assert caught.value.retryable
    assert caught.value.data["failed_specialists"] == ["broken.v1"]
    assert "no model loaded" in caught.value.message


async def test_too_few_are_asked_again_when_they_wish(registry: Registry, tmp_path: Path) -> None:
    @specialist("busy.v1")
    async def busy(ctx: Context, topic: str, context: Sequence[str]) -> list[Any]:
        """Wants to be left alone."""
        raise BlueprintError("429", retry_after=90)

    registry.register(busy)
    with pytest.raises(BlueprintError) as caught:
        await council(registry, FakeContext(tmp_path), specialists=["busy.v1", "broken.v1"])
    assert (caught.value.retryable, caught.value.retry_after) == (True, 90)


async def test_a_later_attempt_asks_only_those_who_failed(registry: Registry, tmp_path: Path) -> None:
    steps: dict[str, Any] = {}
    for attempt in (1, 2):
        ctx = FakeContext(tmp_path, steps=steps, attempt=attempt)
        with pytest.raises(BlueprintError):
            await council(registry, ctx, specialists=["same.v1", "broken.v1"], quorum=2)
    assert ctx.told.named("step_skipped") == [{"step": "ask-same.v1"}]


async def test_what_a_language_model_has_said_is_not_asked_for_again(registry: Registry, tmp_path: Path) -> None:
    """Nor paid for twice, where the attempt fails after it; another answer of a specialist makes it another question."""
    asked: list[int] = []

    @synthesizer("paid.v1", kind="llm")
    async def paid(ctx: Context, request: SynthesisRequest) -> Synthesis:
        """Counts."""
        asked.append(len(request.findings))
        return Synthesis(summary=f"answer {len(asked)}", ranked_findings=request.findings)

    moody_is_up: list[bool] = []

    @specialist("moody.v1")
    async def moody(ctx: Context, topic: str, context: Sequence[str]) -> list[Any]:
        """Answers later."""
        if not moody_is_up:
            raise RuntimeError("not now")
        return [{"title": "Moody", "recommendation": "wait", "confidence": 0.1}]

    registry.register(paid)
    registry.register(moody)
    steps: dict[str, Any] = {}
    given: dict[str, Any] = {"specialists": ["security.v1", "moody.v1"], "synthesizer": "paid.v1", "synth_strategy": "llm"}
    (tmp_path / "run").write_text("no folder: nothing can be written there")
    for attempt in (1, 2):
        with pytest.raises(FileExistsError):
            await council(registry, FakeContext(tmp_path, steps=steps, attempt=attempt), **given)
    (tmp_path / "run").unlink()
    payload = (await council(registry, FakeContext(tmp_path, steps=steps, attempt=3), **given)).payload
    assert (payload["summary"], payload["participating_specialists"]) == ("answer 1", ["security.v1"])
    assert payload["ranked_findings"] == json.loads((tmp_path / "run" / "evidence.json").read_bytes())["answers"]["security.v1"]
    moody_is_up.append(True)
    payload = (await council(registry, FakeContext(tmp_path, steps=steps, attempt=4), **given)).payload
    assert (payload["summary"], payload["ranked_findings"][-1]["title"]) == ("answer 2", "Moody")
    assert asked[1] == asked[0] + 1


async def test_unknown_members_are_named_all_at_once(registry: Registry) -> None:
    found = registry.resolve("council.v1")
    bindings = Bindings(specialists=["nobody.v1", "security.v1", "none.v1"], synthesizer="no.v1")
    with pytest.raises(BlueprintError) as caught:
        found.compile(bindings)
    assert caught.value.code == Code.BLUEPRINT_COMPILE_FAILED
    assert all(name in caught.value.message for name in ("nobody.v1", "none.v1", "no.v1"))
    assert len(caught.value.data["problems"]) == 3


@pytest.mark.parametrize(
    "bindings",
    [
        {"specialists": ["security.v1"]},
        {"specialists": ["security.v1", "security.v1"]},
        {"max_findings": 0},
        {"max_findings": 21},
        {"quorum": 0},
        {"quorum": 3},
        {"specialist_timeout_seconds": 0},
        {"synth_strategy": "magic"},
        {"unknown": 1},
    ],
)
async def test_bindings_have_bounds(bindings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Bindings.model_validate(bindings)


async def test_only_a_language_model_needs_the_network(registry: Registry) -> None:
    found = registry.resolve("council.v1")
    assert found.capabilities_for(Bindings()) == frozenset()
    assert found.capabilities_for(Bindings(synth_strategy="llm")) == {"net.http"}


async def test_a_synthesizer_must_go_with_the_strategy(registry: Registry) -> None:
    found = registry.resolve("council.v1")
    for bindings in (Bindings(synthesizer="llm.v1"), Bindings(synthesizer="crash.v1", synth_strategy="llm")):
        with pytest.raises(BlueprintError, match="synth_strategy"):
            found.compile(bindings)
    assert found.compile(Bindings(synth_strategy="llm"))  # default.v1 stands for openai.v1 then


async def test_a_language_model_may_order_the_findings(registry: Registry, tmp_path: Path) -> None:
    payload = (await council(registry, FakeContext(tmp_path), synthesizer="llm.v1", synth_strategy="llm", max_findings=2)).payload
    assert payload["summary"] == "turned"
    assert len(payload["ranked_findings"]) == 2
    assert payload["ranked_findings"][0]["confidence"] <= payload["ranked_findings"][1]["confidence"]
    assert payload["fallback_used"] is False


@pytest.mark.parametrize("name", ["down.v1", "liar.v1"])
async def test_a_failing_language_model_fails_or_falls_back(name: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BlueprintError) as caught:
        await council(registry, FakeContext(tmp_path), synthesizer=name, synth_strategy="llm")
    assert caught.value.code == Code.LLM_SYNTH_FAILED
    assert (caught.value.retryable, caught.value.retry_after) == ((True, 7) if name == "down.v1" else (False, None))
    ctx = FakeContext(tmp_path)
    payload = (await council(registry, ctx, synthesizer=name, synth_strategy="llm_with_fallback")).payload
    assert payload["fallback_used"] is True
    assert payload["ranked_findings"]
    assert any(line.get("fields", {}).get("code") == "llm_synth_failed" for line in ctx.told.named("log"))
    assert "took over" in (tmp_path / "run" / "report.md").read_text()


async def test_a_failing_fallback_has_its_own_code(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BlueprintError) as caught:
        await council(
            registry, FakeContext(tmp_path), synthesizer="down.v1", synth_strategy="llm_with_fallback", fallback_synthesizer="crash.v1"
        )
    assert caught.value.code == Code.LLM_SYNTH_FALLBACK_FAILED
    assert "503" in caught.value.message
    assert "crash" in caught.value.message


async def test_words_of_others_are_no_markup_in_the_report(registry: Registry, tmp_path: Path) -> None:
    await council(registry, FakeContext(tmp_path), Input(topic="# [x](y)\n<b>*loud*", context=[]))
    assert (tmp_path / "run" / "report.md").read_text().startswith("# \\# \\[x\\](y) \\<b\\>\\*loud\\*\n")


findings = st.builds(
    Finding,
    title=st.sampled_from(["A", "a ", "B", "c"]),
    recommendation=st.sampled_from(["x", "X", "y"]),
    confidence=st.sampled_from([0.0, 0.5, 1.0]),
    source_specialist=st.sampled_from(["one.v1", "two.v1"]),
)


@given(st.lists(findings, max_size=12), st.randoms())
def test_the_order_depends_on_the_findings_alone(given_ones: list[Finding], random: Any) -> None:
    """By falling confidence, source, title; no duplicates; the same for every order of arrival."""
    ranked = list(in_order(given_ones))
    keys = [(-one.confidence, one.source_specialist, one.title) for one in ranked]
    assert keys == sorted(keys)
    folded = [(one.title.casefold().strip(), one.recommendation.casefold()) for one in ranked]
    assert len(set(folded)) == len(folded)
    assert set(folded) == {(one.title.casefold().strip(), one.recommendation.casefold()) for one in given_ones}
    shuffled = list(given_ones)
    random.shuffle(shuffled)
    assert list(in_order(shuffled)) == ranked
    assert list(in_order(ranked)) == ranked


@pytest.mark.parametrize(
    "given_one",
    [
        "text",
        [3],
        [{"title": "x"}],
        [{"title": " ", "recommendation": "y", "confidence": 1}],
        [{"title": "x", "recommendation": "y", "confidence": True}],
        [{"title": "x", "recommendation": "y", "confidence": float("nan")}],
        [Finding(title="x", recommendation="y", confidence=-0.1)],
        [Finding(title=3, recommendation="y", confidence=1)],  # type: ignore[arg-type]
    ],
)
def test_what_is_no_finding_is_refused(given_one: Any) -> None:
    with pytest.raises(BlueprintError):
        as_findings(given_one, "x.v1")
