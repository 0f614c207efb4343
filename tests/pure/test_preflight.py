"""What is decided before the first attempt: each refusal has its code, and nothing a blueprint does gets out."""

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lily.blueprints import means
from lily.blueprints.contract import BlueprintError
from lily.blueprints.define import BlueprintBase
from lily.blueprints.registry import Registry
from lily.blueprints.secrets import Value
from lily.errors import Code, LilyError
from lily.preflight import Ready, Refused, decide, preflight
from lily.runs import PinnedSpec, Runtime, Target

MAX = {"timeout_seconds": 86400, "retry_max": 10, "max_parallel_runs": 64, "memory_mb": None, "cpu_seconds": None}
ROOT = Path("/workspace")
POLICY = SimpleNamespace(capabilities={"net.http": "allow", "message.send": "ask", "fs.write": "deny"}, max=MAX)


class Bindings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = 1
    names: tuple[str, ...] = ()
    crash: bool = Field(default=False, strict=False)

    @field_validator("crash")
    @classmethod
    def _crashes(cls, given: bool) -> bool:
        if given:
            raise KeyError("validator")
        return given


class Input(BaseModel):
    topic: str


class Strange(BaseException):
    """Not an Exception."""


class Probe(BlueprintBase):
    id = "probe.v1"
    version = "1.2.0"
    bindings_schema = Bindings

    def __init__(self, **changes: Any) -> None:
        self.raises: BaseException | None = None
        self.__dict__.update(changes)

    def compile(self, bindings: Any) -> Any:
        if self.raises is not None:
            raise self.raises
        return lambda ctx, run_input: None


def spec(**changes: Any) -> PinnedSpec:
    target = {"kind": "blueprint", "id": "probe.v1", **changes.pop("target", {})}
    runtime = Runtime(**changes.pop("runtime", {}))
    given = {"bindings": {}, "trigger": {"type": "manual"}, **changes}
    return PinnedSpec(id="job", title="Job", target=Target(**target), runtime=runtime, **given)


def checked(found: Any = None, policy: Any = POLICY, **changes: Any) -> Ready | Refused:
    registry = Registry()
    registry.register(found or Probe())
    return preflight(spec(**changes), registry, policy, ROOT)


def refused(code: Code, blueprint_code: Code | None, found: Any = None, **changes: Any) -> Refused:
    outcome = checked(found, **changes)
    assert isinstance(outcome, Refused)
    assert (outcome.error.code, outcome.error.blueprint_code) == (code, blueprint_code)
    assert outcome.denied is (code == Code.JOB_POLICY_DENIED)
    assert "\n" not in outcome.error.message
    return outcome


def test_a_good_run_is_ready() -> None:
    outcome = checked(Probe(capabilities=frozenset({"net.http"})), bindings={"names": ["a"]}, capabilities=["net.http", "fs.read"])
    assert isinstance(outcome, Ready)
    assert outcome.bindings == Bindings(names=("a",))
    assert outcome.target_version == "1.2.0"
    assert outcome.policy == {"needed": ["net.http"], "granted": ["fs.read", "net.http"], "decisions": {"net.http": "allow"}}
    assert outcome.allowed == {"net.http"}  # granted and not allowed by the policy is not enough
    assert callable(outcome.runnable)


def test_an_unknown_target_is_unresolved() -> None:
    outcome = refused(Code.JOB_TARGET_UNRESOLVED, Code.BLUEPRINT_NOT_FOUND, target={"id": "prob.v1"})
    assert "probe.v1" in outcome.error.message
    outcome = refused(Code.JOB_TARGET_UNRESOLVED, Code.BLUEPRINT_NOT_FOUND, target={"version": ">=2"})
    assert "1.2.0" in outcome.error.message


@pytest.mark.parametrize(
    ("bindings", "field", "named"),
    [
        ({"count": "30"}, "bindings.count", 'found "30"'),
        ({"count": True}, "bindings.count", "valid integer"),
        ({"count": 1.5}, "bindings.count", "valid integer"),
        ({"names": ["a", 2]}, "bindings.names[1]", "valid string"),
        ({"other": 1}, "bindings.other", "no such field"),
        ({"crash": True}, "bindings", "KeyError"),
    ],
)
def test_bindings_that_do_not_fit_name_the_field(bindings: dict[str, Any], field: str, named: str) -> None:
    """Nothing is coerced, and a validator that crashes is a refusal too."""
    outcome = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, bindings=bindings)
    assert field in outcome.error.message
    assert named in outcome.error.message
    assert outcome.error.data["problems"][0]["field"] == field
    assert outcome.target_version == "1.2.0"


class Either(BaseModel):
    """Fields that take several kinds of values, and one that a validator of the model makes."""

    model_config = ConfigDict(extra="forbid")

    env: dict[str, Value] = {}
    number: int | Literal["all"] = 1
    lists: int | list[int] = 1

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        return {"env": 5} if given == {"short": True} else given


@pytest.mark.parametrize(
    ("bindings", "problems"),
    [
        ({"env": {"PORT": 80}}, {"bindings.env.PORT": "input should be a valid string or an object, found 80 (in quotes it is text)"}),
        ({"env": {"A": None}}, {"bindings.env.A": "input should be a valid string or an object, found null"}),
        ({"env": {"A": {"secrt": "env:B"}}}, {"bindings.env.A.secret": "is required", "bindings.env.A.secrt": "there is no such field"}),
        ({"number": "most"}, {"bindings.number": "input should be a valid integer or 'all', found \"most\""}),
        ({"lists": [1, "x"]}, {"bindings.lists[1]": 'input should be a valid integer, found "x"'}),
        ({"short": True}, {"bindings.env": "input should be an object, found 5"}),
    ],
)
def test_a_field_of_several_kinds_has_one_problem_at_a_place_of_the_file(bindings: dict[str, Any], problems: dict[str, str]) -> None:
    """The names that pydantic has for the kinds of a union are no places, and of these the one that was meant has its say."""
    found = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=Either), bindings=bindings)
    said = {each["field"]: each["problem"] for each in found.error.data["problems"]}
    assert said == problems


class Named(BaseModel):
    env: dict[Annotated[str, Field(pattern="^[A-Z]+$")], Value] = {}


def test_a_wrong_key_and_its_wrong_value_are_two_problems() -> None:
    """And not one of several kinds, whose one text shows the key where the value was meant."""
    outcome = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=Named), bindings={"env": {"a": 1}})
    assert [each["problem"] for each in outcome.error.data["problems"]] == [
        "string should match pattern '^[A-Z]+$', found \"a\"",
        "input should be a valid string or an object, found 1 (in quotes it is text)",
    ]


def test_a_secret_in_place_of_a_reference_is_not_shown_whatever_else_the_field_takes() -> None:
    bindings = {"env": {"A": {"secret": "hunter2-of-mine"}}}
    found = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=Either), bindings=bindings)
    assert [each["field"] for each in found.error.data["problems"]] == ["bindings.env.A.secret"]
    assert "hunter2" not in found.error.message


def test_a_long_list_of_wrong_values_is_refused_in_time_that_grows_with_its_length() -> None:
    """Input of a megabyte kept the command, or the supervisor, busy for hours."""
    bindings = {"lists": ["x"] * 20_000}
    began = time.process_time()
    found = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=Either), bindings=bindings)
    assert time.process_time() - began < 3
    assert "bindings.lists[0]: input should be a valid integer" in found.error.message


def test_all_wrong_fields_are_named_at_once() -> None:
    outcome = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, bindings={"count": "x", "other": 1, "more": 2})
    assert all(name in outcome.error.message for name in ("bindings.count", "bindings.other", "bindings.more"))


def test_a_blueprint_without_a_schema_takes_nothing() -> None:
    outcome = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=None), bindings={"a": 1})
    assert "nothing is taken here" in outcome.error.message


def test_input_that_does_not_fit_fails_the_execution() -> None:
    outcome = refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_EXECUTION_FAILED, Probe(input_schema=Input))
    assert "input.topic: is required" in outcome.error.message
    assert isinstance(checked(Probe(input_schema=Input), target={"input": {"topic": "x"}}), Ready)
    refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_EXECUTION_FAILED, target={"input": {"topic": "x"}})


@pytest.mark.parametrize("limits", [{**MAX, "timeout_seconds": 60, "retry_max": 0}, SimpleNamespace(timeout_seconds=60, retry_max=0)])
def test_caps_above_the_policy_are_denied(limits: Any) -> None:
    policy = SimpleNamespace(capabilities={}, max=limits)
    outcome = refused(Code.JOB_POLICY_DENIED, None, policy=policy, runtime={"timeout_seconds": 61.0, "retry_max": 1})
    assert "runtime.timeout_seconds is 61 and the policy's maximum is 60" in outcome.error.message
    assert "retry_max" in outcome.error.message
    assert isinstance(checked(policy=policy, runtime={"timeout_seconds": 60.0}), Ready)


def test_caps_that_can_not_be_enforced_are_denied() -> None:
    """A cap that nothing holds would be a lie in the receipt."""
    outcome = refused(Code.JOB_POLICY_DENIED, None, runtime={"memory_mb": 64, "cpu_seconds": 1})
    assert "runtime.memory_mb and runtime.cpu_seconds" in outcome.error.message
    assert isinstance(checked(Probe(in_process=False), runtime={"memory_mb": 64}), Ready)


@pytest.mark.parametrize(
    ("needed", "granted", "decision", "named"),
    [
        ("net.http", [], "not_granted", "does not grant"),
        ("fs.write", ["fs.write"], "deny", "denied by the policy"),
        ("launch.rockets", ["launch.rockets"], "deny", "denied by the policy"),
    ],
)
def test_a_capability_must_be_granted_and_allowed(needed: str, granted: list[str], decision: str, named: str) -> None:
    outcome = refused(Code.JOB_POLICY_DENIED, None, Probe(capabilities=frozenset({needed})), capabilities=granted)
    assert outcome.policy == {"needed": [needed], "granted": granted, "decisions": {needed: decision}}
    assert named in outcome.error.message
    assert "net.http" in outcome.error.message or needed in outcome.error.message


def test_a_capability_that_the_policy_asks_about_is_asked_for_before_the_start() -> None:
    """The run may start once somebody has agreed: then it may use it. What is granted and not needed is asked for only when it is used."""
    outcome = checked(Probe(capabilities=frozenset({"message.send"})), capabilities=["message.send"])
    assert isinstance(outcome, Ready)
    assert (outcome.asks, outcome.asking, outcome.allowed) == (("message.send",), frozenset({"message.send"}), frozenset({"message.send"}))
    assert outcome.policy["decisions"] == {"message.send": "ask"}
    outcome = checked(Probe(), capabilities=["message.send"])
    assert isinstance(outcome, Ready)
    assert (outcome.asks, outcome.asking, outcome.allowed) == ((), frozenset({"message.send"}), frozenset())


def test_a_strange_word_in_the_policy_is_no_permission() -> None:
    policy = SimpleNamespace(capabilities={"net.http": "perhaps"}, max={})
    refused(Code.JOB_POLICY_DENIED, None, Probe(capabilities=frozenset({"net.http"})), policy=policy, capabilities=["net.http"])
    assert decide(frozenset({"a", "b"}), frozenset({"a"}), {}) == {"a": "deny", "b": "not_granted"}


@pytest.mark.parametrize("raised", [SystemExit(3), Strange("x"), GeneratorExit()])
def test_a_validator_that_raises_anything_is_contained(raised: BaseException) -> None:
    class Odd(BaseModel):
        word: str

        @field_validator("word")
        @classmethod
        def _raises(cls, given: str) -> str:
            raise raised

    bad = {"word": "x"}
    outcome = refused(Code.JOB_BINDINGS_INVALID, Code.BLUEPRINT_BINDINGS_INVALID, Probe(bindings_schema=Odd), bindings=bad)
    assert f"its validator failed with {type(raised).__name__}" in outcome.error.message
    outcome = refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_EXECUTION_FAILED, Probe(input_schema=Odd), target={"input": bad})
    assert f"its validator failed with {type(raised).__name__}" in outcome.error.message


@pytest.mark.parametrize("raised", [ValueError("odd\nlines"), SystemExit(3), Strange("x"), RecursionError(), GeneratorExit()])
def test_a_compile_that_raises_anything_is_contained(raised: BaseException) -> None:
    outcome = refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_COMPILE_FAILED, Probe(raises=raised))
    assert type(raised).__name__ in outcome.error.message


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_a_compile_that_meets_a_limit_of_its_own_is_contained(number: int) -> None:
    """Trying it again for ever would not raise that limit."""
    outcome = refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_COMPILE_FAILED, Probe(raises=OSError(number, "none left")))
    assert "none left" in outcome.error.message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_compile_for_which_this_process_has_no_descriptor_says_nothing_of_the_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "has_descriptors", lambda: False)
    with pytest.raises(LilyError, match="compile failed: none left") as caught:
        checked(Probe(raises=OSError(number, "none left")))
    assert means.is_spent(caught.value)
    refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_COMPILE_FAILED, Probe(raises=OSError(errno.ENOMEM, "none left")))


def test_ctrl_c_is_not_a_blueprints_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        checked(Probe(raises=KeyboardInterrupt()))


def test_a_blueprints_own_code_stays() -> None:
    outcome = checked(Probe(raises=BlueprintError("no table", code="table_missing", table="x")))
    assert isinstance(outcome, Refused)
    assert (outcome.error.code, outcome.error.blueprint_code) == (Code.JOB_EXECUTION_FAILED, "table_missing")
    assert outcome.error.data == {"table": "x"}


def test_a_compile_that_gives_nothing_to_run_is_refused() -> None:
    refused(Code.JOB_EXECUTION_FAILED, Code.BLUEPRINT_COMPILE_FAILED, Probe(compile=lambda bindings: None))


def test_capabilities_come_before_compile() -> None:
    """Nothing is built for a run that may not start."""
    probe = Probe(raises=ValueError("built"), capabilities=frozenset({"fs.write"}))
    assert refused(Code.JOB_POLICY_DENIED, None, probe, capabilities=["fs.write"])


def working_in(folder: str) -> dict[str, Any]:
    """A part that runs a program in this folder."""
    return {"blueprint": "command.v1", "bindings": {"argv": ["true"], "cwd": folder}}


GOOD = working_in("inside")
REFERRING = {"blueprint": "command.v1", "bindings": {"argv": [{"from": "input.program"}], "cwd": ".."}}
ELSEWHERE: list[tuple[str, dict[str, Any], str]] = [
    ("command.v1", {"argv": ["true"], "cwd": ".."}, "cwd '..'"),
    ("python.v1", {"callable": "a:b", "cwd": "/"}, "cwd '/'"),
    ("pipeline.v1", {"steps": [{"name": "a", **GOOD}, {"name": "b", **working_in("..")}]}, "step b: cwd '..'"),
    ("plan_execute_verify.v1", {"plan": GOOD, "execute": working_in("../x"), "verify": GOOD}, "execute: cwd '../x'"),
]


@pytest.mark.parametrize(("id", "bindings", "said"), ELSEWHERE)
def test_a_folder_outside_of_the_workspace_is_denied_before_the_first_attempt(id: str, bindings: dict[str, Any], said: str) -> None:
    """Also that of a part; a policy that allows it does."""
    job: dict[str, Any] = {"target": {"id": id}, "bindings": bindings, "capabilities": ["process.exec"]}
    policy = SimpleNamespace(capabilities={"process.exec": "allow"}, max=MAX)
    outcome = checked(policy=policy, **job)
    assert isinstance(outcome, Refused)
    assert (outcome.error.code, outcome.denied) == (Code.JOB_POLICY_DENIED, True)
    assert outcome.error.message == f"{said} is outside of the workspace; policy.cwd_outside_workspace allows that"
    policy.cwd_outside_workspace = True
    assert isinstance(checked(policy=policy, **job), Ready)


def test_a_part_whose_bindings_are_not_known_yet_is_left_to_the_attempt() -> None:
    """As much of it as is known may still change."""
    job: dict[str, Any] = {"target": {"id": "pipeline.v1"}, "bindings": {"steps": [{"name": "a", **REFERRING}]}}
    policy = SimpleNamespace(capabilities={"process.exec": "allow"}, max=MAX)
    assert isinstance(checked(policy=policy, capabilities=["process.exec"], **job), Ready)
