"""Run Contract R0: every built-in blueprint, with its own example, through the real engine."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lily.blueprints.catalog import BUILT_IN
from lily.blueprints.contract import Blueprint, Context, Envelope
from lily.blueprints.council import Output
from lily.blueprints.registry import Registry, example_job
from lily.blueprints.schemas import validated, validated_json
from lily.engines.context import RunContext
from lily.testing import FakeContext, World
from tests.cli.conftest import Lily
from tests.contract.conform import check_run, check_summary
from tests.real.loopback import serving

IDS = [row.id for row in BUILT_IN if row.kind == "blueprint"]
# What the example needs, and nothing else: what its blueprint declares may be more, for other bindings.
NEEDS = {
    "command.v1": {"process.exec"},
    "python.v1": {"process.exec"},
    "http.v1": {"net.http"},
    "council.v1": set(),
    "pipeline.v1": set(),
    "plan_execute_verify.v1": {"process.exec"},
    "review.v1": set(),
}


@pytest.fixture
def port() -> Iterator[str]:
    """A web server on loopback that answers 200."""
    with serving() as server:
        yield server.url


def job_of(id: str, url: str = "http://127.0.0.1:8000") -> dict[str, Any]:
    """The blueprint's example as a job; the address of the HTTP one's server is put in."""
    body = json.dumps(example_job(Registry(None).resolve(id)))
    job: dict[str, Any] = json.loads(body.replace("http://127.0.0.1:8000", url))
    return job


def found(id: str) -> Blueprint:
    """The built-in blueprint."""
    return Registry(None).resolve(id)


def test_the_built_in_blueprints_are_these_seven() -> None:
    """The contract names them."""
    assert set(IDS) == NEEDS.keys()


@pytest.mark.parametrize("id", IDS)
def test_the_example_of_a_built_in_blueprint_succeeds(lily: Lily, place: Path, port: str, id: str) -> None:
    """By `lily jobs run`, granted exactly what it needs: a whole envelope, a payload that fits its schema, three artifacts."""
    job = job_of(id, port)
    assert set(job["capabilities"]) == NEEDS[id]
    (place / ".lily" / "jobs" / "a.job.yaml").write_text(json.dumps(job))
    said = lily("jobs", "run", job["id"], "--json")
    assert said.status == 0, said
    (folder,) = (place / ".lily" / "runs" / job["id"]).iterdir()
    receipt, events = check_run(folder)
    assert (receipt["r0_status"], receipt["error"]) == ("ok", None)
    assert receipt["target"] == {"kind": "blueprint", "id": id, "version": "1.0.0"}
    assert receipt["policy"] == {
        "needed": sorted(NEEDS[id]),
        "granted": sorted(NEEDS[id]),
        "decisions": dict.fromkeys(sorted(NEEDS[id]), "allow"),
    }
    schema = found(id).output_schema
    if schema is not None:
        validated_json(schema, json.dumps(receipt["payload"]).encode(), "payload")
        assert receipt["payload"].keys() == schema.model_json_schema()["properties"].keys()
    assert events[-1]["event"] == "job_completed"
    assert "## Result" in check_summary(folder)


@pytest.mark.parametrize("id", [id for id in IDS if NEEDS[id]])
def test_without_what_it_needs_a_blueprint_does_not_start(lily: Lily, place: Path, port: str, id: str) -> None:
    """Each declared capability is needed: take it away, and the run is refused before any attempt."""
    (place / ".lily" / "jobs" / "a.job.yaml").write_text(json.dumps({**job_of(id, port), "id": "a", "capabilities": []}))
    assert lily("jobs", "run", "a").status == 4
    (folder,) = (place / ".lily" / "runs" / "a").iterdir()
    receipt, _ = check_run(folder)
    assert receipt["attempts"] == []
    assert receipt["error"]["data"] == {"capabilities": dict.fromkeys(sorted(NEEDS[id]), "not_granted")}


@pytest.mark.parametrize("id", IDS)
def test_what_a_blueprint_declares_covers_what_any_bindings_need(id: str) -> None:
    """`capabilities` is the most that `capabilities_for` gives; those made of parts need what the parts need."""
    blueprint = found(id)
    needed = blueprint.capabilities_for(validated(blueprint.bindings_schema, dict(blueprint.example), "bindings"))
    assert needed == NEEDS[id]
    if id not in ("pipeline.v1", "plan_execute_verify.v1"):
        assert needed <= blueprint.capabilities


@pytest.mark.parametrize("id", IDS)
def test_compile_is_deterministic_and_has_no_effect(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same from the same bindings: the same code over equal values; nothing is written, and the bindings stay as they are."""
    monkeypatch.chdir(tmp_path)
    blueprint = found(id)
    bindings = validated(blueprint.bindings_schema, dict(blueprint.example), "bindings")
    before = bindings.model_dump_json()
    one, two = blueprint.compile(bindings), blueprint.compile(bindings)
    assert told(one) == told(two)
    assert bindings.model_dump_json() == before
    assert list(tmp_path.iterdir()) == []


def told(runnable: Any) -> tuple[str, str]:
    """What a runnable is made of."""
    assert inspect.iscoroutinefunction(runnable)
    return runnable.__code__.co_code.hex(), repr(inspect.getclosurevars(runnable).nonlocals)


@pytest.mark.parametrize("id", ["council.v1", "pipeline.v1"])
def test_the_same_input_gives_the_same_receipt(id: str, tmp_path: Path) -> None:
    """For blueprints that ask nobody outside: payload, files and events, in two worlds of one seed."""
    receipts = []
    for number in (1, 2):
        world = World(tmp_path / str(number))
        job = job_of(id)
        run = world.submit(id, bindings=job["bindings"], run_input=job["target"].get("input", {}))

        async def body(world: World, run_id: str = run.run_id) -> None:
            await world.ended(run_id)

        world.live(body)
        check_run(world.workspace.run_dir("job", run.run_id))
        receipts.append(world.receipt(run.run_id))
        world.close()
    assert receipts[0] == receipts[1]
    assert receipts[0].status == "succeeded"


def test_the_council_gives_exactly_the_fields_of_its_contract(lily: Lily, place: Path) -> None:
    """Names, order of findings, both files."""
    (place / ".lily" / "jobs" / "a.job.yaml").write_text(json.dumps({**job_of("council.v1"), "id": "a"}))
    assert lily("jobs", "run", "a").status == 0
    (folder,) = (place / ".lily" / "runs" / "a").iterdir()
    receipt, _ = check_run(folder)
    payload = receipt["payload"]
    fields = ["topic", "summary", "ranked_findings", "participating_specialists", "failed_specialists", "fallback_used"]
    assert list(Output.model_fields) == fields
    assert sorted(payload) == sorted(fields)
    assert payload["participating_specialists"] == ["security.v1", "operations.v1"]
    assert (payload["failed_specialists"], payload["fallback_used"]) == ([], False)
    findings = payload["ranked_findings"]
    assert findings
    assert all(one.keys() == {"title", "recommendation", "confidence", "source_specialist"} for one in findings)
    order = [(-one["confidence"], one["source_specialist"], one["title"]) for one in findings]
    assert order == sorted(order)
    assert {"report.md", "evidence.json"} <= {file["name"] for file in receipt["artifacts"]}


def test_the_envelope_has_the_parts_of_r0() -> None:
    """Status, artifacts, approvals asked for, references, payload; `ok` unless said otherwise."""
    assert Envelope.__struct_fields__ == ("status", "payload", "artifacts", "approvals_requested", "references")
    assert Envelope().status == "ok"


def test_a_context_offers_what_the_contract_names() -> None:
    """The real one and the one for tests alike, with the same parameters."""
    names = {"artifact", "progress", "step", "run_process", "run_blueprint", "request_approval"}
    for name in names:
        wanted = list(inspect.signature(getattr(Context, name)).parameters)
        assert list(inspect.signature(getattr(RunContext, name)).parameters) == wanted
        assert list(inspect.signature(getattr(FakeContext, name)).parameters) == wanted
    values = {"run_id", "job_id", "attempt", "deadline", "scheduled_for", "workspace", "run_dir", "trace_id", "log", "approvals"}
    assert set(Context.__annotations__) == values
