"""The sample workspace: one source, valid, and what each blueprint of its own does."""

from pathlib import Path

import pytest

from lily.blueprints.registry import Registry
from lily.blueprints.testkit import FakeContext
from lily.preflight import Ready, preflight
from lily.runs import decode_spec
from lily.samples import report, sample_files
from lily.settings import explain, load_settings
from lily.specs import JobSpec, parse
from lily.workspace import Workspace
from tests.contract.imports import REPOSITORY

FILES = dict(sample_files())
JOBS = [name for name in FILES if name.endswith(".job.yaml")]
POLICY = load_settings(Workspace(REPOSITORY)).policy


def spec_of(name: str) -> JobSpec:
    spec = parse(FILES[name], name)
    assert isinstance(spec, JobSpec), spec
    return spec


@pytest.mark.parametrize("name", FILES)
def test_this_repository_holds_the_packaged_sample_byte_for_byte(name: str) -> None:
    """`just samples` copies them; there is one source."""
    assert (REPOSITORY / name).read_bytes() == FILES[name]


def test_there_is_a_sample_of_each_kind() -> None:
    """A newcomer finds a command, a function, a check, a council, a pipeline, and one that fails and is retried."""
    assert {Path(name).name.removesuffix(".job.yaml") for name in JOBS} == {
        "hello",
        "python-report",
        "http-check",
        "council-review",
        "pipeline-demo",
        "flaky",
    }


@pytest.mark.parametrize("name", JOBS)
def test_a_sample_job_is_ready_to_run(name: str, tmp_path: Path) -> None:
    """Valid, its target known, its bindings fitting, within the default policy; and the file is named like the job."""
    folder = tmp_path / "blueprints"
    folder.mkdir()
    for path, body in FILES.items():
        if path.startswith(".lily/blueprints/"):
            (folder / Path(path).name).write_bytes(body)
    spec = spec_of(name)
    found = preflight(decode_spec(spec.canonical()), Registry(folder), POLICY, folder)
    assert isinstance(found, Ready), found
    assert Path(name).name == f"{spec.id}.job.yaml"


@pytest.mark.anyio
async def test_the_loopback_check_finds_what_its_own_server_answers(tmp_path: Path) -> None:
    """The sample needs no network but loopback, and no fixed port."""
    registry = Registry(REPOSITORY / ".lily" / "blueprints")
    found = registry.resolve("sample.loopback_check.v1")
    bindings = found.bindings_schema.model_validate({"answer": {"healthy": True}})
    envelope = await found.compile(bindings)(FakeContext(tmp_path, registry=registry), {})
    assert envelope.status == "ok"
    assert envelope.payload["status"] == 200


def test_the_report_sample_returns_plain_values(tmp_path: Path) -> None:
    """What the function returns can be a payload."""
    (tmp_path / "one").touch()
    assert str(report.summarise(str(tmp_path))["summary"]).startswith("1 entries, disk ")


def test_the_sample_config_shows_the_defaults(tmp_path: Path) -> None:
    """Every key stands in the file, commented out or not, with the value that holds without the file."""
    import yaml

    text = FILES[".lily/config.yaml"].decode()
    written = yaml.safe_load(
        "\n".join(line.removeprefix("# ") if line.startswith("# ") and ":" in line else line for line in text.splitlines()[2:])
    )
    defaults = load_settings(Workspace(tmp_path))
    for key, value, _ in explain(Workspace(tmp_path)):
        found = written
        for part in [key] if key in found else _parts(key, found):
            found = found[part]
        assert found == value, key
    assert load_settings(Workspace(REPOSITORY)).policy == defaults.policy


def _parts(key: str, tree: object) -> list[str]:
    """The keys that lead to a dotted name; names of capabilities hold dots themselves."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            if key == name:
                return [name]
            if key.startswith(f"{name}."):
                return [name, *_parts(key[len(name) + 1 :], below)]
    raise KeyError(key)
