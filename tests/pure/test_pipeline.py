"""pipeline.v1: order, side by side, references, retries, and going on where an earlier attempt stopped."""

import itertools
import re
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from trio.testing import MockClock

from lily.blueprints.contract import BlueprintError, Context, Envelope
from lily.blueprints.define import blueprint
from lily.blueprints.envelope import checked
from lily.blueprints.paths import PathMissing, lookup, parse_path, same
from lily.blueprints.pipeline import Bindings, Input, Step, find_cycle, graph_problems, needs
from lily.blueprints.references import references, resolved
from lily.blueprints.registry import Registry
from lily.blueprints.testkit import FakeContext
from lily.errors import Code
from tests.raised import RAISED

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Work(BaseModel):
    """What the probe does: sleep, fail so many times, give back."""

    model_config = ConfigDict(extra="forbid")

    gives: Any = None
    sleeps: float = 0
    fails: int = 0
    retryable: bool = True
    envelope: bool = False
    needs_net: bool = False


class World:
    """What happened, in order, with the loop's time."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.times: dict[str, float] = {}
        self.failures: dict[str, int] = {}
        self.raises: dict[str, BaseException] = {}
        self.registry = Registry()
        self.registry.register(self._probe())

    def _probe(self) -> Any:
        class Probe:
            id, version, summary = "probe.v1", "1.0.0", "Does as told."
            bindings_schema, input_schema, output_schema = Work, Input, None
            capabilities, in_process = frozenset({"net.http"}), True
            example: ClassVar[dict[str, Any]] = {}

            @staticmethod
            def capabilities_for(bindings: Work) -> frozenset[str]:
                return frozenset({"net.http"}) if bindings.needs_net else frozenset()

            @staticmethod
            def compile(bindings: Work) -> Any:
                return lambda ctx, run_input: self.work(ctx, bindings, run_input)

        return Probe()

    async def work(self, ctx: Any, bindings: Work, run_input: Input) -> Envelope:
        name = step = ctx._prefix
        self.log.append(("start", name))
        await anyio.sleep(bindings.sleeps)
        if step in self.raises:
            raise self.raises[step]
        if self.failures.get(step, 0) < bindings.fails:
            self.failures[step] = self.failures.get(step, 0) + 1
            if bindings.envelope:
                return Envelope(status="error", payload={"message": "said no"})
            raise BlueprintError("broke", retryable=bindings.retryable)
        with ctx.artifact("out.txt") as file:
            file.write(name.encode())
        self.log.append(("end", name))
        self.times[step] = anyio.current_time()
        return Envelope(payload={"gives": bindings.gives, "input": run_input.model_dump()}, artifacts=["out.txt"])


@pytest.fixture
def world() -> World:
    return World()


OUTER = ("timeout_seconds", "retry_max", "retry_delay_seconds", "blueprint", "version")


def step(name: str, *wanted: str, input: Any = None, **rest: Any) -> dict[str, Any]:
    outer: dict[str, Any] = {key: rest.pop(key) for key in OUTER if key in rest}
    return {"name": name, "blueprint": "probe.v1", "needs": list(wanted), "bindings": rest, "input": input or {}, **outer}


def compiled(world: World, *steps: dict[str, Any]) -> Any:
    return world.registry.resolve("pipeline.v1").compile(Bindings.model_validate({"steps": list(steps)}))


async def run(world: World, ctx: FakeContext, *steps: dict[str, Any], run_input: Input | None = None) -> Envelope:
    found = world.registry.resolve("pipeline.v1")
    return checked(await compiled(world, *steps)(ctx, run_input or Input()), found)


@pytest.fixture
def ctx(world: World, tmp_path: Path) -> FakeContext:
    return FakeContext(tmp_path, registry=world.registry)


async def test_steps_run_after_their_needs_and_side_by_side_otherwise(world: World, ctx: FakeContext) -> None:
    started = anyio.current_time()
    await run(world, ctx, step("c", "a", "b", sleeps=1), step("a", sleeps=5), step("b", sleeps=5))
    assert world.log[-1] == ("end", "c")
    assert world.log.index(("start", "c")) > max(world.log.index(("end", "a")), world.log.index(("end", "b")))
    assert world.times["c"] - started == pytest.approx(6)


async def test_outputs_are_inputs_of_later_steps(world: World, ctx: FakeContext) -> None:
    """A reference is a need, and stands for the value itself, whatever its type."""
    envelope = await run(
        world,
        ctx,
        step(
            "last", gives={"from": "first.payload.gives.list[1]"}, input={"all": [{"from": "first.payload"}], "who": {"from": "input.who"}}
        ),
        step("first", gives={"list": [1, {"deep": True}]}),
        run_input=Input.model_validate({"who": "Ada"}),
    )
    last = envelope.payload["steps"]["last"]["payload"]
    assert last["gives"] == {"deep": True}
    assert last["input"]["who"] == "Ada"
    assert last["input"]["all"][0]["gives"]["list"][0] == 1
    assert set(envelope.artifacts) == {"first-out.txt", "last-out.txt"}
    assert (ctx.run_dir / "first-out.txt").read_bytes() == b"first"


async def test_what_is_literal_is_left_alone(world: World, ctx: FakeContext) -> None:
    envelope = await run(world, ctx, step("a", gives={"literal": {"from": "nobody@example.org"}}))
    assert envelope.payload["steps"]["a"]["payload"]["gives"] == {"from": "nobody@example.org"}


async def test_a_later_attempt_goes_on_from_the_first_unfinished_step(world: World, tmp_path: Path) -> None:
    steps = [step("a", gives=7), step("b", "a", fails=1, gives={"from": "a.payload.gives"}), step("c", "b")]
    stored: dict[str, Any] = {}
    first = FakeContext(tmp_path, registry=world.registry, steps=stored)
    with pytest.raises(BlueprintError) as caught:
        await run(world, first, *steps)
    assert caught.value.retryable
    assert caught.value.data["failed_steps"] == ["b"]
    assert caught.value.data["steps_not_run"] == ["c"]
    assert caught.value.data["finished_steps"] == ["a"]
    second = FakeContext(tmp_path, registry=world.registry, steps=stored, attempt=2)
    envelope = await run(world, second, *steps)
    assert [name for what, name in world.log if what == "start"] == ["a", "b", "b", "c"]
    assert second.told.named("step_skipped") == [{"step": "a"}]
    assert envelope.payload["steps"]["b"]["payload"]["gives"] == 7


async def test_steps_that_do_not_depend_on_a_failed_one_are_finished(world: World, ctx: FakeContext) -> None:
    """What is finished is kept, so the next attempt is shorter."""
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("bad", fails=9), step("slow", sleeps=60), step("after", "slow"))
    assert caught.value.data["finished_steps"] == ["after", "slow"]


async def test_progress_counts_only_the_steps_that_are_done(world: World, ctx: FakeContext) -> None:
    """One that failed, and one that was left out after it, are not."""
    with pytest.raises(BlueprintError):
        await run(world, ctx, step("good"), step("bad", "good", fails=9), step("after", "bad"))
    assert ctx.told.named("progress") == [{"done": 1, "total": 3, "note": "good"}]


async def test_a_step_is_retried_with_growing_pauses(world: World, ctx: FakeContext) -> None:
    started = anyio.current_time()
    envelope = await run(world, ctx, step("a", fails=2, retry_max=2, retry_delay_seconds=10))
    assert [name for what, name in world.log if what == "start"] == ["a"] * 3
    assert world.times["a"] - started == pytest.approx(30)
    assert list(envelope.artifacts) == ["a-out.txt"]
    assert len(ctx.told.named("log")) == 2


@pytest.mark.parametrize("envelope", [False, True])
async def test_what_is_done_inside_of_a_step_is_not_done_again_when_the_step_is_tried_again(
    envelope: bool, world: World, ctx: FakeContext, tmp_path: Path
) -> None:
    """Nor by the next attempt: whichever try did it, and however deep."""
    deepest = {"name": "deepest", "blueprint": "pipeline.v1", "bindings": {"steps": {"literal": [step("pay")]}}}
    inner = [deepest, step("flaky", "deepest", fails=3, envelope=envelope)]
    outer = {"name": "out", "blueprint": "pipeline.v1", "bindings": {"steps": {"literal": inner}}, "retry_max": 1}
    with pytest.raises(BlueprintError):
        await run(world, ctx, outer)
    later = FakeContext(tmp_path, registry=world.registry, steps=ctx.steps)
    result = (await run(world, later, outer)).payload["steps"]["out"]
    started = [name for what, name in world.log if what == "start"]
    assert started == ["out-deepest-pay", *["out-flaky"] * 4]
    assert all((tmp_path / "run" / file).is_file() for file in result["artifacts"])
    assert [event["step"] for event in later.told.named("step_skipped")] == ["out/deepest", "out/deepest"]


@pytest.mark.parametrize("wish", ["soon", float("inf"), float("nan"), -5])
async def test_a_wish_for_a_pause_that_is_no_time_is_not_kept(wish: Any, world: World, ctx: FakeContext) -> None:
    world.raises["a"] = BlueprintError("busy", retry_after=wish)
    started = anyio.current_time()
    with pytest.raises(BlueprintError, match="step a failed: busy"):
        await run(world, ctx, step("a", retry_max=1, retry_delay_seconds=10))
    assert anyio.current_time() - started == pytest.approx(10)


async def test_the_pause_that_a_failed_step_asked_for_is_asked_of_the_run(world: World, ctx: FakeContext) -> None:
    world.raises |= {"a": BlueprintError("busy", retry_after=600), "b": BlueprintError("busy too", retry_after=30), "c": OSError("gone")}
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("a"), step("b"), step("c"))
    assert (caught.value.retryable, caught.value.retry_after) == (True, 600)


async def test_a_step_is_not_kept_waiting_for_a_try_that_the_attempt_will_not_see(world: World, ctx: FakeContext) -> None:
    """It fails with what was wrong with it, and the run waits in its place."""
    world.raises["a"] = BlueprintError("busy", retry_after=600)
    started = anyio.current_time()
    with pytest.raises(BlueprintError, match="step a failed: busy") as caught, anyio.fail_after(300):
        await run(world, ctx, step("a", retry_max=1))
    assert anyio.current_time() - started < 1
    assert caught.value.retry_after == 600


@pytest.mark.parametrize(("raised", "said"), RAISED)
async def test_whatever_a_step_raises_the_others_are_finished(raised: BaseException, said: str, world: World, ctx: FakeContext) -> None:
    """It is tried again, and named, as for any failure."""
    world.raises["bad"] = raised
    with pytest.raises(BlueprintError, match="step bad failed: ") as caught:
        await run(world, ctx, step("bad", retry_max=1), step("slow", sleeps=60), step("after", "slow"))
    assert said in caught.value.message
    assert caught.value.data["finished_steps"] == ["after", "slow"]
    assert world.log.count(("start", "bad")) == 2
    assert [event["step"] for event in ctx.told.named("step_failed")] == ["bad"]


async def test_what_the_code_of_a_step_raised_is_told_with_its_place(world: World, ctx: FakeContext) -> None:
    """And with its traceback; not so what the code meant to be read."""
    world.raises |= {"a": KeyError("x"), "b": BlueprintError("no such table", table="t")}
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("a"), step("b"))
    assert caught.value.message == "step a failed: KeyError: 'x'; step b failed: no such table"
    told = {event["step"]: event["message"] for event in ctx.told.named("step_failed")}
    place = re.escape(f"{Path(__file__).parent}/") + r"\w+\.py, line \d+, in \w+"
    assert re.fullmatch(rf"KeyError: 'x' \({place}\)", told["a"])
    assert told["b"] == "no such table"
    data = {name: error["data"] for name, error in caught.value.data["errors"].items()}
    assert data["a"]["traceback"].endswith("KeyError: 'x'\n")
    assert data["b"] == {"table": "t"}


async def test_an_error_alone_in_a_group_says_itself_whether_a_retry_can_mend_it(world: World, ctx: FakeContext) -> None:
    """As when the group is raised by a job's own target: a task group makes one of every failure."""
    world.raises["a"] = ExceptionGroup("tasks", [BlueprintError("no such table", code="table_missing", retryable=False)])
    with pytest.raises(BlueprintError, match="step a failed: no such table") as caught:
        await run(world, ctx, step("a", retry_max=3))
    assert (caught.value.code, caught.value.retryable) == ("table_missing", False)
    assert len([name for what, name in world.log if what == "start"]) == 1


@pytest.mark.parametrize("retryable", [True, False])
async def test_what_a_retry_can_not_mend_is_not_retried(retryable: bool, world: World, ctx: FakeContext) -> None:
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("a", fails=9, retry_max=3, retryable=retryable))
    assert world.failures["a"] == (4 if retryable else 1)
    assert caught.value.retryable is retryable


async def test_a_step_has_its_own_timeout(world: World, ctx: FakeContext) -> None:
    with pytest.raises(BlueprintError, match="step a failed: took longer than 2 s"):
        await run(world, ctx, step("a", sleeps=100, timeout_seconds=2))


async def test_an_error_envelope_is_a_failed_step(world: World, ctx: FakeContext) -> None:
    with pytest.raises(BlueprintError, match="said no"):
        await run(world, ctx, step("a", fails=1, envelope=True))
    assert ctx.told.named("step_failed")


async def test_a_reference_to_nothing_says_where_it_stops(world: World, ctx: FakeContext) -> None:
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("a", gives={"x": 1}), step("b", gives={"from": "a.payload.gives.y.z"}))
    assert "a.payload.gives.y is not in an object with x" in caught.value.message
    assert caught.value.retryable is False


async def test_all_that_is_wrong_is_said_at_compile(world: World) -> None:
    with pytest.raises(BlueprintError) as caught:
        compiled(
            world,
            step("a", "nowhere"),
            step("a"),
            step("b", "c"),
            step("c", "b"),
            step("d", blueprint="prob.v1"),
            step("e", version=">=2"),
            step("f", sleeps="long"),
            step("g", gives={"from": "elsewhere.payload"}),
            step("h", gives={"from": "a b"}),
            step("input"),
        )
    assert caught.value.code == Code.BLUEPRINT_COMPILE_FAILED
    for named in (
        "two steps are named a",
        "step a needs nowhere",
        "circle: b -> c -> b",
        "there is no blueprint prob.v1",
        "step e: probe.v1 is here as version 1.0.0",
        "bindings.sleeps",
        "step g needs elsewhere",
        "step h",
        "can't be named input",
    ):
        assert named in caught.value.message


async def test_two_steps_of_one_name_that_need_it_are_no_circle(world: World) -> None:
    """The second may well mean the first."""
    with pytest.raises(BlueprintError) as caught:
        compiled(world, step("a"), step("a", "b"), step("b", "a"))
    assert caught.value.message == "two steps are named a"


async def test_a_pipeline_needs_what_its_steps_need(world: World) -> None:
    """The most a blueprint may need when its bindings are not known before the run."""
    found = world.registry.resolve("pipeline.v1")

    def needed(*steps: dict[str, Any]) -> frozenset[str]:
        return found.capabilities_for(Bindings.model_validate({"steps": list(steps)}))

    assert needed(step("a")) == frozenset()
    assert needed(step("a", needs_net=True)) == {"net.http"}
    assert needed(step("a"), step("b", gives={"from": "a.payload"})) == {"net.http"}
    assert needed(step("a", blueprint="unknown.v1")) == frozenset()


async def test_the_data_of_a_step_can_not_widen_what_is_allowed(world: World, ctx: FakeContext) -> None:
    """A pipeline whose steps come out of an earlier step was never asked for process.exec, so it does not get it."""
    smuggled = [{"name": "x", "blueprint": "command.v1", "bindings": {"argv": ["id"]}}]
    inner = {"name": "b", "blueprint": "pipeline.v1", "bindings": {"steps": {"from": "a.payload.gives"}}}
    with pytest.raises(BlueprintError) as caught:
        await run(world, ctx, step("a", gives=smuggled), inner)
    assert "process.exec" in caught.value.message
    assert caught.value.code == Code.JOB_POLICY_DENIED
    assert not ctx.requests


async def test_pipelines_nest(world: World, ctx: FakeContext) -> None:
    inner = [step("x", gives=1), step("y", gives={"from": "x.payload.gives"})]
    nested = {"name": "in", "blueprint": "pipeline.v1", "bindings": {"steps": {"literal": inner}}}
    envelope = await run(world, ctx, nested)
    assert envelope.payload["steps"]["in"]["payload"]["steps"]["y"]["payload"]["gives"] == 1
    assert {"in", "in/x", "in/y"} <= ctx.steps.keys()
    for file in envelope.artifacts:
        assert (ctx.run_dir / file).exists()


async def test_a_blueprint_defined_in_a_program_can_be_a_step(world: World, ctx: FakeContext) -> None:
    @blueprint("twice.v1")
    async def twice(ctx: Context, bindings: Any, run_input: Any) -> Any:
        return 2

    world.registry.register(twice)
    envelope = await run(world, ctx, {"name": "t", "blueprint": "twice.v1"})
    assert envelope.payload["steps"]["t"]["payload"] == 2


@pytest.mark.parametrize("bad", [{"name": "A"}, {"name": "a.b"}, {"retry_max": 11}, {"timeout_seconds": 0}, {"other": 1}, {"needs": "a"}])
def test_a_step_has_bounds(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Step.model_validate({"name": "a", "blueprint": "b", **bad})


names = st.sampled_from([f"s{number}" for number in range(8)])


@given(st.dictionaries(names, st.lists(names, max_size=3), min_size=1))
def test_a_circle_is_found_exactly_when_there_is_one(edges: dict[str, list[str]]) -> None:
    """Against the definition: peel off what needs nothing until nothing changes."""
    left = {name: {need for need in wanted if need in edges} for name, wanted in edges.items()}
    while free := [name for name, wanted in left.items() if not wanted]:
        for name in free:
            del left[name]
        left = {name: wanted - set(free) for name, wanted in left.items()}
    circle = find_cycle({name: [need for need in wanted if need in edges] for name, wanted in edges.items()})
    assert bool(circle) is bool(left)
    for name, need in itertools.pairwise(circle):
        assert need in edges[name]
    if circle:
        assert circle[0] == circle[-1]


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_a_graph_that_only_looks_back_has_no_problem(graph: list[list[int]]) -> None:
    steps = [
        Step(name=f"s{number}", blueprint="x", needs=[f"s{back % number}" for back in wanted] if number else [])
        for number, wanted in enumerate(graph)
    ]
    assert graph_problems(steps) == []
    assert all(set(needs(one)) <= {other.name for other in steps} for one in steps)


def test_a_deep_and_wide_graph_is_checked_at_once() -> None:
    """A ladder of diamonds has 2**99 paths."""
    edges = {f"a{n}": [f"a{n - 1}", f"b{n - 1}"] if n else [] for n in range(100)}
    edges |= {f"b{n}": [f"a{n - 1}", f"b{n - 1}"] if n else [] for n in range(100)}
    assert find_cycle(edges) == []


@pytest.mark.parametrize(
    ("path", "value"), [("a.b[0].c", 1), ("$.a.b[1]", "x"), ("$", None), ('a["x.y"]', 2), ("list-1.k_2", 3), ("$[0]", 4)]
)
def test_paths_lead_to_values(path: str, value: Any) -> None:
    world = {"a": {"b": [{"c": 1}, "x"], "x.y": 2}, "list-1": {"k_2": 3}}
    assert lookup([4] if path == "$[0]" else None if path == "$" else world, path) == value


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a[", "a[x]", "a[-1]", "a b", "[0"])
def test_what_is_no_path_is_said_to_be_none(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(path)


def test_a_path_does_not_lead_into_text() -> None:
    with pytest.raises(PathMissing, match="a string"):
        lookup({"a": "text"}, "a[0]")


def test_true_is_not_one() -> None:
    assert not same(True, 1)
    assert not same([{"a": 0}], [{"a": False}])
    assert same({"a": [1.0, None]}, {"a": [1, None]})


def test_references_are_found_and_filled_in_wherever_they_stand() -> None:
    value = {"a": [{"from": "x.y"}, {"literal": {"from": "no.no"}}], "from": 1, "b": 2}
    assert list(references(value)) == ["x.y"]
    assert resolved(value, {"x": {"y": [1]}}) == {"a": [[1], {"from": "no.no"}], "from": 1, "b": 2}
