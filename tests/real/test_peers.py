"""The peers that Lily is measured beside: each answers for itself where its packages are; servers are given back as they were."""

import json
import os
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks.peers import environments, services
from benchmarks.peers.outside import Failed, Peers, plain
from benchmarks.peers.roster import MEASURES, SYSTEMS, System
from benchmarks.scratch import REPOSITORY

MEASURED_FROM_OUTSIDE = {"cli"}


def at_hand(system: System) -> Path:
    """Its commands. Skips where they are not."""
    commands = environments.ready(environments.default_cache(), system.module, system.requirements)
    if commands is None:
        pytest.skip(f"no environment of {system.module} in {environments.default_cache()}: `just bench-peers` makes it")
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_each_peer_answers_a_self_check_with_the_measures_that_the_roster_gives_it(system: System, tmp_path: Path) -> None:
    """What has no means for a measure says so in the roster, and nothing else does. Without a server in the way, a body is run, too."""
    commands = at_hand(system)
    scratch = tmp_path / "peer" / "scratch"
    scratch.mkdir(parents=True)
    told = {"PEER_SCRATCH": str(scratch), "PEER_STORE": system.store, "PEER_OPTIONS": system.options["noop"]}
    command = [str(commands / "python"), "-m", "benchmarks.peers.inside", system.module, "--self-check"]
    env = {**plain(), "PYTHONPATH": str(REPOSITORY), **told}
    done = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    alone = (
        {"register", "reload", "cli"} if system.name == "huey-redis" else set()
    )  # the same as with its other store, so not measured twice
    wanted = {measure.name for measure in MEASURES} - MEASURED_FROM_OUTSIDE - (system.absent.keys() - alone)
    assert "failed" not in found, found
    assert set(found["measures"]) == wanted
    assert found["ran"] is (system.store == "sqlite")
    assert not system.version_command or (commands / system.version_command[0]).exists()


@pytest.mark.parametrize("last", ["echo 'ImportError: no celery' >&2", """echo '{"failed": "ImportError: no celery"}'; echo more >&2"""])
def test_a_pass_that_breaks_gives_its_last_words(last: str, tmp_path: Path) -> None:
    """A figure that is not there has a reason, whether the process could still say it or not."""
    (tmp_path / "python").write_text(f"#!/bin/sh\necho Traceback >&2\n{last}\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    system = next(each for each in SYSTEMS if each.store == "sqlite")
    measure = next(each for each in MEASURES if each.name == "noop")
    peers = Peers(tmp_path / "root", {system.module: tmp_path}, services.Services())
    with pytest.raises(Failed, match="ImportError: no celery"):
        peers.one(system, measure, 10, 0)


def test_a_server_that_is_not_there_is_a_reason_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured all the same."""
    monkeypatch.setattr(services, "REDIS", "redis://127.0.0.1:1")
    monkeypatch.setattr(services, "POSTGRES", "postgresql://postgres@127.0.0.1:1/postgres")
    monkeypatch.setenv("PATH", str(tmp_path))
    with ExitStack() as stack:
        found = services.start(tmp_path, stack)
    assert set(found.missing) == {"redis", "durable-redis", "postgres"}
    assert found.missing["durable-redis"] == "durable-redis can't be used here: redis-server is not on PATH"
    assert set(found.environment) == {"sqlite"}
    celery = next(each for each in SYSTEMS if each.name == "celery")
    noop = next(each for each in MEASURES if each.name == "noop")
    assert "can't be used here" in Peers(tmp_path, {}, found).missing(celery, noop)


def test_databases_of_a_shared_redis_are_empty_before_and_after(tmp_path: Path) -> None:
    """Nobody's keys are touched; what was written into the two is gone."""
    try:
        server = services.Redis(services.REDIS)
    except OSError as exc:
        pytest.skip(f"no Redis at {services.REDIS}: {exc}")
    with closing(server), ExitStack() as stack:
        places, said = services.shared_redis(tmp_path, stack)
        assert len(set(places.values())) == 2
        assert "appendonly" in said
        numbers = [url.rpartition("/")[2] for url in places.values()]
        for number in numbers:
            server.ask("SELECT", number)
            assert server.ask("DBSIZE") == "0"
            server.ask("SET", f"lily-test-{os.getpid()}", "1")
        assert not set(numbers) & {str(number) for number in server.empty_databases(2)}
        stack.close()
        for number in numbers:
            server.ask("SELECT", number)
            assert server.ask("DBSIZE") == "0"
