"""A job that says nothing of retries gets the workspace's, in its spec, before the spec gets its hash."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lily.errors import Code, LilyError
from lily.retry_defaults import RetryDefaults, retry_defaults
from lily.settings import load_settings, parse_settings
from lily.spec_index import SpecIndex
from lily.specs import JobSpec, parse, spec_hash
from lily.workspace import Workspace

BODY: dict[str, Any] = {
    "id": "a",
    "title": "A",
    "target": {"kind": "blueprint", "id": "command.v1"},
    "bindings": {"argv": ["true"]},
    "trigger": {"type": "interval", "every": "1h"},
    "runtime": {},
    "output": {},
}
LONG_AGO = (1_000_000_000, 1_000_000_000)


def job(**runtime: Any) -> JobSpec:
    found = parse(json.dumps({**BODY, "runtime": runtime}), "a.job.yaml")
    assert isinstance(found, JobSpec)
    return found


def defaults(text: str) -> RetryDefaults:
    return retry_defaults(parse_settings(text.encode()))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.jobs.mkdir(parents=True)
    (made.jobs / "a.job.yaml").write_text(json.dumps(BODY))
    os.utime(made.jobs / "a.job.yaml", LONG_AGO)
    return made


def configure(workspace: Workspace, text: str, at: tuple[int, int] = LONG_AGO) -> None:
    workspace.config.write_text(text)
    os.utime(workspace.config, at)


@pytest.mark.parametrize(
    ("config", "runtime", "retry_max", "strategy", "base", "most"),
    [
        ("", {}, 0, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: null}", {}, 0, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 1}", {}, 0, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 3}", {}, 2, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 11}", {}, 10, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 3}", {"retry_max": 0}, 0, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 3}", {"retry_max": 5}, 5, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 9}\npolicy: {max: {retry_max: 4}}", {}, 4, "exponential", 60, 3600),
        ("scheduler: {default_max_attempts: 9}\npolicy: {max: {retry_max: null}}", {}, 8, "exponential", 60, 3600),
        ("scheduler: {default_backoff_strategy: fixed, backoff_base_seconds: 5}", {}, 0, "fixed", 5, 3600),
        ("scheduler: {default_backoff_strategy: none}", {"retry_max": 1}, 1, "none", 60, 3600),
        ("scheduler: {default_backoff_strategy: fixed}", {"backoff": {"base_seconds": 9}}, 0, "exponential", 9, 3600),
        ("scheduler: {default_max_attempts: 3, backoff_base_seconds: 9}", {"backoff": {}}, 2, "exponential", 60, 3600),
        ("scheduler: {backoff_base_seconds: 7200}", {}, 0, "exponential", 7200, 7200),
    ],
)
def test_a_setting_holds_where_the_job_says_nothing(
    config: str, runtime: dict[str, Any], retry_max: int, strategy: str, base: float, most: float
) -> None:
    """Of attempts and of pauses, each on its own; N attempts are N - 1 retries, and never more than the policy allows."""
    found = defaults(config).apply(job(**runtime)).runtime
    backoff = found.backoff
    assert (found.retry_max, backoff.strategy, backoff.base_seconds, backoff.max_seconds) == (retry_max, strategy, base, most)


def test_without_settings_the_spec_and_its_hash_are_what_they_were() -> None:
    """A workspace that never heard of these settings keeps all its hashes; twice is once."""
    assert RetryDefaults().apply(job()) == job()
    some = defaults("scheduler: {default_max_attempts: 3}")
    assert some.apply(some.apply(job())) == some.apply(job())
    assert spec_hash(some.apply(job()).canonical()) == spec_hash(job(retry_max=2).canonical())


def test_each_value_says_where_it_comes_from() -> None:
    """The job, a setting with its line, or the default of job files."""
    some = defaults("policy: {max: {retry_max: 1}}\nscheduler:\n  default_max_attempts: 3\n  default_backoff_strategy: fixed\n")
    assert some.told(job()) == {
        "runtime.retry_max": "scheduler.default_max_attempts: 3 (.lily/config.yaml:3), cut to policy.max.retry_max (.lily/config.yaml:1)",
        "runtime.backoff.strategy": "scheduler.default_backoff_strategy (.lily/config.yaml:4)",
        "runtime.backoff.base_seconds": "the default of job files",
    }
    assert set(some.told(job(retry_max=1, backoff={})).values()) == {"the job"}
    assert some.note(job(retry_max=1, backoff={})) is None
    assert "at most 2 attempts" in (some.note(job()) or "")


@pytest.mark.parametrize("value", ["0", "12", "2.5", "'3'", "true"])
def test_a_number_of_attempts_that_no_job_could_have_is_refused(value: str) -> None:
    with pytest.raises(LilyError) as caught:
        defaults(f"scheduler: {{default_max_attempts: {value}}}")
    assert caught.value.code is Code.CONFIG_INVALID
    assert "a whole number from 1 to 11" in caught.value.message


def test_what_the_catalog_says_follows_the_settings_file(workspace: Workspace) -> None:
    """Also what was remembered of the job's file, which did not change; the hash of the file alone stays."""
    plain = SpecIndex(workspace).scan().jobs["a"]
    assert plain.digest == plain.file_digest
    configure(workspace, "scheduler: {default_max_attempts: 3}")
    index = SpecIndex(workspace)
    found = index.scan().jobs["a"]
    assert index.load("a").runtime.retry_max == 2
    assert found.digest == spec_hash(index.load("a").canonical()) != plain.digest
    assert found.file_digest == plain.digest
    assert index.body(found) == index.load("a").canonical()
    configure(workspace, "scheduler: {default_max_attempts: 4}", (LONG_AGO[0] + 1, LONG_AGO[1] + 1))
    assert SpecIndex(workspace).load("a").runtime.retry_max == 3
    workspace.config.unlink()
    assert SpecIndex(workspace).scan().jobs["a"] == plain


def test_files_are_not_read_again_while_settings_stay(workspace: Workspace) -> None:
    """The settings' file itself is only looked at, not read."""
    configure(workspace, "scheduler: {default_max_attempts: 3}")
    SpecIndex(workspace).scan()
    again = SpecIndex(workspace)
    again.scan()
    assert (again.parsed, again.retries.retry_max) == (0, 2)
    given = SpecIndex(workspace, retries=retry_defaults(load_settings(workspace)))  # as the supervisor does
    given.scan()
    assert given.parsed == 0


def test_settings_that_are_read_again_hold_from_the_next_look(workspace: Workspace) -> None:
    """The catalog is another one then, and says so by the digest."""
    index = SpecIndex(workspace, keep_bodies=True, retries=RetryDefaults())
    before = index.scan()
    index.use(RetryDefaults())
    assert index.scan() is before
    index.use(RetryDefaults(retry_max=4))
    after = index.scan().jobs["a"]
    assert after.digest != before.jobs["a"].digest
    body = index.body(after)
    assert body is not None
    assert json.loads(body)["runtime"]["retry_max"] == 4


def test_a_settings_file_that_is_wrong_hides_no_job(workspace: Workspace) -> None:
    """Whoever accepts a run says what is wrong with it; a list needs no settings."""
    configure(workspace, "scheduler: {default_max_attempts: 99}")
    assert SpecIndex(workspace).scan().jobs["a"].digest == SpecIndex(workspace, retries=RetryDefaults()).scan().jobs["a"].digest
