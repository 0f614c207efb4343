""".lily/config.yaml: every key has a default, a place it came from, and a rule."""

import subprocess
import sys
from pathlib import Path

import pytest

from lily.errors import Code, LilyError
from lily.settings import explain, load_settings
from lily.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".lily").mkdir()
    return Workspace(tmp_path)


def refused(workspace: Workspace, text: str | bytes) -> LilyError:
    workspace.config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LilyError) as caught:
        load_settings(workspace)
    assert caught.value.code is Code.CONFIG_INVALID
    return caught.value


def test_without_a_file_every_setting_has_its_default(workspace: Workspace) -> None:
    settings = load_settings(workspace)
    assert settings.store.url == ""
    queue = settings.queue
    assert (queue.max_concurrent, queue.max_size, queue.ageing_seconds) == (3, 100, None)
    assert (queue.backpressure_percent, queue.low_water_percent) == (80, 60)
    assert settings.policy.capabilities == {
        "process.exec": "allow",
        "net.http": "allow",
        "fs.read": "allow",
        "fs.write": "allow",
        "message.send": "ask",
        "publish": "ask",
    }
    most = settings.policy.max
    assert (most.timeout_seconds, most.retry_max, most.max_parallel_runs, most.memory_mb, most.cpu_seconds) == (86_400, 10, 64, None, None)
    assert settings.policy.cwd_outside_workspace is False
    assert settings.supervisor.drain_seconds == 30
    assert (settings.llm.base_url, settings.llm.model) == ("https://api.openai.com/v1", "")
    assert settings.llm.api_key.secret == "env:OPENAI_API_KEY"
    assert set(settings.origins.values()) == {"default"}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "null\n", "queue:\n  # max_concurrent: 5\n", "{}"])
def test_a_file_that_says_nothing_means_the_defaults(workspace: Workspace, text: str) -> None:
    workspace.config.write_text(text)
    assert load_settings(workspace) == load_settings(Workspace(workspace.root / "other"))


def test_every_key_is_explained_with_its_value_and_origin(workspace: Workspace) -> None:
    workspace.config.write_text(
        "queue: {max_concurrent: 5}\npolicy:\n  capabilities: {publish: allow, deploy.site: deny}\n  max:\n    memory_mb: 512\n"
    )
    told = {key: (value, origin) for key, value, origin in explain(workspace)}
    assert told["queue.max_concurrent"] == (5, ".lily/config.yaml:1")
    assert told["policy.capabilities.publish"] == ("allow", ".lily/config.yaml:3")
    assert told["policy.capabilities.deploy.site"] == ("deny", ".lily/config.yaml:3")
    assert told["policy.capabilities.process.exec"] == ("allow", "default")
    assert told["policy.max.memory_mb"] == (512, ".lily/config.yaml:5")
    assert told["policy.max.cpu_seconds"] == (None, "default")
    assert list(told) == sorted(told)


def test_a_configured_capability_is_merged_over_the_defaults(workspace: Workspace) -> None:
    workspace.config.write_text("policy: {capabilities: {publish: allow}}")
    capabilities = load_settings(workspace).policy.capabilities
    assert capabilities["publish"] == "allow"
    assert capabilities["message.send"] == "ask"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('queue: {max_concurrent: "5"}', "1:25", 'found "5"'),
        ("queue: {max_concurrent: true}", "1:25", "found true"),
        ("queue: {max_concurrent: 0}", "1:25", "1 to 1000"),
        ("queue: {max_concurrent: 1001}", "1:25", "1 to 1000"),
        ("queue: {max_concurrent: 2.0}", "1:25", "a whole number"),
        ("queue: {max_size: 0}", "1:19", "1 to 10000000"),
        ("queue: {backpressure_percent: 0}", "1:31", "1 to 100"),
        ("queue: {low_water_percent: 100}", "1:28", "below queue.backpressure_percent"),
        ("queue: {ageing_seconds: 0}", "1:25", "or null"),
        ("queue: 5", "1:8", "a mapping"),
        ("queue: []", "1:8", "a mapping"),
        ("- a", "1:1", "a mapping"),
        ("policy:\n  capabilities:\n    publish: yes", "3:14", "allow, ask or deny"),
        ("policy: {max: {timeout_seconds: 0}}", "1:33", "found 0"),
        ("policy: {max: {retry_max: 11}}", "1:27", "found 11"),
        ("policy: {cwd_outside_workspace: no}", "1:33", "true or false"),
        ("supervisor: {drain_seconds: -1}", "1:29", "found -1"),
        ("supervisor: {drain_seconds: .inf}", "1:29", "finite"),
        ("llm: {base_url: ftp://x}", "1:17", "http"),
        ("store: {url: 5}", "1:14", "found 5"),
        ("store: {url: 'mysql://db/x'}", "1:14", "must begin with sqlite:/// or postgresql://"),
        ("queue: {}\nstore: {url: 'postgresql://me:p@ss@db/x'}", "2:14", "more than one @"),
        ("a: [", "2:1", "not YAML"),
        ("queue: {max_concurrent: 1}\nqueue: {max_concurrent: 2}", "2:1", "already at line 1"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_column(workspace: Workspace, text: str, place: str, words: str) -> None:
    error = refused(workspace, text)
    assert error.where == f".lily/config.yaml:{place}"
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("que: {}", "did you mean `queue`?"),
        ("queue: {max_concurent: 5}", "did you mean `max_concurrent`?"),
        ("policy: {max: {memory: 5}}", "did you mean `memory_mb`?"),
        ("policy: {capability: {}}", "did you mean `capabilities`?"),
        ("zzz: 1", "accepted here: alerts, approval, dlq, health, llm, policy, queue, review, scheduler, store, supervisor, worker"),
        ("policy.max: {}", "policy"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(workspace: Workspace, text: str, hint: str) -> None:
    error = refused(workspace, text)
    assert "unknown key" in error.message
    assert hint in error.hint


def test_all_mistakes_of_a_file_are_named_at_once_in_the_order_of_the_file(workspace: Workspace) -> None:
    """The first is the error, the others are counted; all stand in its detail, also those of one sink."""
    error = refused(
        workspace,
        'queue: {max_size: "3", low_water_percent: 90}\n'
        "storee: 5\n"
        "supervisor: {drain_seconds: .inf}\n"
        "alerts:\n"
        "  sinks: {a: {kind: fil}, b: {kind: webhook, tls: 4, timeout_seconds: 0}, c: {kind: log}}\n"
        "  quiet_hours: {start: '24:00'}\n"
        "llm: {api_key: sk-very-secret}\n",
    )
    assert (error.where, error.message) == (
        ".lily/config.yaml:1:19",
        'queue.max_size: found "3"; accepted: a whole number from 1 to 10000000 (and 7 more)',
    )
    assert error.hint == "`lily config validate` names all of them"
    found = error.detail["diagnostics"]
    assert isinstance(found, list)
    assert [(each["line"], each["field"]) for each in found] == [
        (1, "queue.max_size"),
        (2, "storee"),
        (3, ""),
        (5, "alerts.sinks.a"),
        (5, "alerts.sinks.b"),
        (5, "alerts.sinks.b"),
        (6, "alerts.quiet_hours.start"),
        (7, "llm.api_key"),
    ]
    assert found[1]["hint"] == "did you mean `store`?"
    assert "sk-very-secret" not in str(error.to_dict())


def test_what_two_keys_say_together_is_told_beside_the_mistakes_of_other_sections(workspace: Workspace) -> None:
    error = refused(workspace, "queue: {low_water_percent: 90}\nstoree: 5")
    assert "which is 80 (and 1 more)" in error.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'queue: {low_water_percent: 90, backpressure_percent: "95"}',
            'queue.backpressure_percent: found "95"; accepted: a number from 1 to 100',
        ),
        ("queue: {low_water_percent: 90, backpresure_percent: 95}", "queue.backpresure_percent: unknown key `backpresure_percent`"),
        ("queue: {low_water_percent: 90, low_water_percent: 50}", "`low_water_percent` stands here again"),
        ("alerts: {sinks: {a: {kind: webhook, ulr: 'https://x'}}}", "alerts.sinks.a: unknown key `ulr`"),
    ],
)
def test_what_keys_say_together_is_not_told_where_one_of_them_is_wrong(workspace: Workspace, text: str, said: str) -> None:
    """It may be what was meant."""
    error = refused(workspace, text)
    assert error.message.startswith(said)
    assert " more)" not in error.message


def test_a_secret_in_the_file_is_refused_and_not_repeated(workspace: Workspace) -> None:
    for text in ("llm: {api_key: sk-very-secret}", "llm: {api_key: {secret: sk-very-secret}}"):
        error = refused(workspace, text)
        assert "env:NAME or file:PATH" in error.message
        assert "sk-very-secret" not in str(error.to_dict())


def test_a_file_that_is_no_text_or_no_file_is_refused(workspace: Workspace) -> None:
    assert "not UTF-8" in refused(workspace, b"a: \xff").message
    workspace.config.unlink()
    workspace.config.mkdir()
    with pytest.raises(LilyError, match="can't be read"):
        load_settings(workspace)


def test_without_a_file_no_parser_is_loaded(workspace: Workspace) -> None:
    """A command that only needs the defaults starts without YAML and without pydantic."""
    program = (
        "import sys; from pathlib import Path; from lily.settings import load_settings; from lily.workspace import Workspace\n"
        f"load_settings(Workspace(Path({str(workspace.root)!r})))\n"
        "print([name for name in ('yaml', 'pydantic', 'anyio', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
