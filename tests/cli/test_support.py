"""`lily support bundle`: what is in it, and what never is."""

import base64
import errno
import json
import os
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.operations.scrub import Scrubber, encodings, secrets_of, tail_of
from lily.settings import parse_settings
from lily.workspace import Workspace
from tests.cli.conftest import Lily, shell, write_job
from tests.cli.damage import past, truncated
from tests.contract.conform import check_fits

SECRET = 'pässw"ord\\1/=+x'
SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=" *"), min_size=8, max_size=40).filter(
    lambda text: len(set(text)) > 5
)
AROUND = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=7)


def members(path: Path) -> dict[str, str]:
    """The files of a bundle by name, the folder left out."""
    with tarfile.open(path) as archive:
        made = {}
        for each in archive.getmembers():
            assert each.isfile()
            assert each.mode == 0o600
            file = archive.extractfile(each)
            assert file is not None
            made[each.name.partition("/")[2]] = file.read().decode()
        return made


def written(secret: str, before: str, after: str) -> dict[str, str]:
    """How programs write a secret that stands between other text."""
    whole = f"{before}{secret}{after}"
    return {
        "plain": whole,
        "json": json.dumps({"text": whole}),
        "json as it is": json.dumps([whole], ensure_ascii=False),
        "json in json": json.dumps(json.dumps(whole)),
        "python": repr(whole),
        "base64": base64.b64encode(whole.encode()).decode(),
        "base64 for addresses": base64.urlsafe_b64encode(whole.encode()).decode(),
        "address": quote(whole, safe=""),
        "hexadecimal": whole.encode().hex(),
        "HEXADECIMAL": whole.encode().hex().upper(),
    }


def shows(text: str, secret: str) -> bool:
    """Whether somebody who reads the text, and decodes what is in it, sees the secret."""
    plain = secret.encode()
    if secret in text or any(form in text for form in encodings(secret)):
        return True
    if json.dumps(secret)[1:-1] in text or quote(secret, safe="") in text or plain.hex() in text.lower():
        return True
    for skip in range(4):
        coded = text[skip:].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            if plain in base64.b64decode(coded + "=" * (-len(coded) % 4)):
                return True
        except ValueError:
            continue
    return False


def test_short_secrets_and_those_that_come_together_in_the_text_alone_are_taken_out() -> None:
    """Four characters are enough where all is given to others; a key and its value stand beside one another only as text."""
    assert Scrubber(["pin1"]).text("the pin1.") == "the ***."
    assert 'b": "1' not in Scrubber(['b": "1']).lines('{"a b": "1 c"}')


def test_what_a_job_file_refers_to_is_known_before_the_job_ever_ran(workspace: Path) -> None:
    """With each of its lines."""
    (workspace / "key").write_text("line one of it\nline two of it\n")
    write_job(workspace, "j", bindings={"argv": ["a"], "env": {"KEY": {"secret": "file:key"}}})
    known = secrets_of(Workspace(workspace), parse_settings(b""), [], {})
    assert {"line one of it\nline two of it", "line one of it", "line two of it"} <= known


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    """The rest of a line that was cut may be the rest of a secret, which nothing would know for one."""
    (tmp_path / "log").write_text("one\nhunter2-of-mine\nthree\n")
    assert tail_of(tmp_path / "log", 14) == ("three\n", True)
    assert tail_of(tmp_path / "log", 100) == ("one\nhunter2-of-mine\nthree\n", False)


@pytest.mark.slow
@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_no_form_of_a_secret_gets_through(secret: str, before: str, after: str) -> None:
    """As it is and encoded, in the middle of other text, as text, as a line and as a document."""
    scrub = Scrubber([secret])
    for how, text in written(secret, before, after).items():
        for clean in (scrub.text(text), scrub.lines(text), scrub.document({"said": text, secret: [text]})):
            assert not shows(clean, secret), (how, text, clean)


@given(secret=st.integers(10_000_000, 10**15))
@pytest.mark.e2e
def test_a_number_that_is_a_secret_is_taken_out(secret: int) -> None:
    """Also where it stands as a number."""
    scrub = Scrubber([str(secret)])
    assert str(secret) not in scrub.document({"pin": secret, "n": [secret, 1]})


def test_what_stands_under_the_name_of_a_secret_is_taken_out() -> None:
    """Nobody refers to it, so only its name tells. References stay."""
    scrub = Scrubber([])
    made = json.loads(
        scrub.document({"api_key": "abcd1234", "env": {"DB_PASSWORD": "hunter22"}, "secret": "env:KEY", "run_id": "r", "n": 1})
    )
    assert made == {"api_key": "***", "env": {"DB_PASSWORD": "***"}, "secret": "env:KEY", "run_id": "r", "n": 1}


def test_all_of_what_stands_under_the_name_of_a_secret_is_taken_out() -> None:
    """In lists and mappings too, and a number that is as long as a password. A limit, a reference and where a setting is from stay."""
    scrub = Scrubber([])
    given = {
        "passwords": ["hunter22"],
        "credentials": {"user": "me", "pin": [{"k": "hunter22"}]},
        "db_password": 20231107,
        "token": 1.2345678,
    }
    assert json.loads(scrub.document(given)) == {
        "passwords": ["***"],
        "credentials": {"user": "***", "pin": [{"k": "***"}]},
        "db_password": "***",
        "token": "***",
    }
    kept = {
        "max_tokens": 4096,
        "secrets": ["env:A", {"secret": "file:b"}],
        "cookie": None,
        "api_key": {"value": "env:KEY", "origin": "x.yaml"},
    }
    assert json.loads(scrub.document(kept)) == kept


@pytest.mark.parametrize(
    "name",
    [
        *("DB_PASSWORD_OLD", "SMTP_PASS_2", "password2", "PASSPHRASE_1", "AUTH", "GITHUB_PAT", "pat2", "passwd", "dbPass", "PGPASS"),
        *("smtp-pass", "X-Auth-Key", "Authorization", "accessToken", "refresh_tokens", "api.key", "db_pwd", "SESSION_COOKIE"),
    ],
)
def test_a_name_of_a_secret_hides_its_value_wherever_both_stand(name: str) -> None:
    """In a mapping, and in the words of a command line."""
    scrub = Scrubber([])
    given = {name: "hunter 22", "argv": ["a", f"--{name}", "hunter 22", f"--{name}=hunter 22", f"{name}=hunter 22", "b"]}
    assert json.loads(scrub.document(given)) == {name: "***", "argv": ["a", f"--{name}", "***", f"--{name}=***", f"{name}=***", "b"]}
    assert scrub.text(f"run --{name}='hunter 22' b --{name}=hunter22\nc") == f"run --{name}=*** b --{name}=***\nc"


@pytest.mark.parametrize(
    "name",
    [
        *("path", "PATH", "pattern", "author", "authority", "compass", "bypass_cache", "pass_fds", "passed", "passes", "patch", "spat"),
        *("AUTH_MODE", "AUTH_TYPE", "auth-method", "authEnabled", "SSH_AUTH_SOCK", "AUTH_URL"),
        *("pass_rate", "pass_count", "PasswordAuthentication", "cookie-jar"),
    ],
)
def test_a_name_that_only_looks_like_a_secrets_hides_nothing(name: str) -> None:
    """Who helps needs to see it."""
    scrub = Scrubber([])
    given = {name: "of use", "argv": ["a", f"--{name}", "of use", f"--{name}=of use", f"{name}=of use", "b"]}
    assert json.loads(scrub.document(given)) == given
    assert scrub.text(f"run --{name} 'of use' --{name}=of-use") == f"run --{name} 'of use' --{name}=of-use"


@pytest.mark.parametrize(
    "prose", ["the option --password is not there", "[--password PASSWORD]", "use --token to log in", "lily up --no-pass-env hello"]
)
def test_what_follows_an_option_in_a_sentence_is_a_word_of_it(prose: str) -> None:
    """Only in the words of a command line it is the option's value."""
    assert Scrubber([]).text(prose) == prose


@pytest.mark.parametrize("piece", [".-a", "--a", "-a ", '-a="', "-a='", "-a=b"])
def test_text_that_is_almost_an_option_over_and_over_takes_no_more_than_linear_time(piece: str) -> None:
    """A search that begins anew inside of each would take hours here."""
    text = piece * 1_000_000
    assert Scrubber([]).text(text) == text


def test_how_much_was_used_is_shown_however_much_it_is() -> None:
    scrub = Scrubber([])
    kept = {
        "token_usage": {"prompt": 12345678, "total_tokens": 123456789, "of": {"cached": 12345678.5, "none": None}},
        "tokens_used": 1234567.25,
        "tokenCount": 12345678,
        "max_tokens": 12345678,
        "session_token_limit": "12345678",
        "token_limit": {"value": 12345678, "origin": "x.yaml"},
        "argv": ["a", "--max-tokens", "12345678"],
    }
    assert json.loads(scrub.document(kept)) == kept


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"token_usage": "hunter22"}, {"token_usage": "***"}),
        ({"token_count": ["hunter22"]}, {"token_count": ["***"]}),
        ({"tokens": 12345678}, {"tokens": "***"}),
        ({"token_usage": {"x": "hunter22", "n": 12345678}}, {"token_usage": {"x": "***", "n": 12345678}}),
        ({"token_usage": {"api_key": 12345678, "of": {"x": "hunter22"}}}, {"token_usage": {"api_key": "***", "of": {"x": "***"}}}),
        ({"token_limit": {"k": "abc-secret"}}, {"token_limit": {"k": "***"}}),
        ({"token_limit": {"value": "abc-secret", "origin": "x.yaml"}}, {"token_limit": {"value": "***", "origin": "x.yaml"}}),
        ({"tokens_used": {"k": ["abc-secret"]}}, {"tokens_used": {"k": ["***"]}}),
        ({"secret_usage": {"value": "hunter2 hunter2"}}, {"secret_usage": {"value": "***"}}),
        ({"pin_secret_usage": 12345678901}, {"pin_secret_usage": "***"}),
    ],
)
def test_what_is_no_number_of_tokens_is_hidden_under_the_name_of_one(given: object, shown: object) -> None:
    assert json.loads(Scrubber([]).document(given)) == shown


def test_where_a_command_was_given_is_no_secret(workspace: Path) -> None:
    """Some call a password PWD, and a shell the folder that it is in: hidden, it would take every path in it away."""
    environment = {"PWD": "/srv/of/mine", "SSH_AUTH_SOCK": "/run/of/mine", "DB_PWD": "hunter22-of-mine"}
    assert secrets_of(Workspace(workspace), parse_settings(b""), [], environment) == {"hunter22-of-mine"}


def test_how_somebody_is_let_in_is_no_secret(workspace: Path) -> None:
    """The word would be taken out of all text."""
    environment = {"AUTH_MODE": "internal", "AUTH_TYPE": "password", "HTTP_AUTH": "hunter22-of-mine"}
    assert secrets_of(Workspace(workspace), parse_settings(b""), [], environment) == {"hunter22-of-mine"}


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_a_line_of_json_is_one_line_whatever_signs_are_in_it(end: str) -> None:
    """Cut in two at a sign that Python takes for the end of a line, it would be no JSON, and its secret would be shown."""
    given = json.dumps({"password": f"ab{end}cd hunter22", "n": 1}, ensure_ascii=False)
    assert Scrubber([]).lines(f"{given}\n{given}\n") == '{"password": "***", "n": 1}\n' * 2
    assert Scrubber([]).lines("") == ""
    assert Scrubber([]).lines('{"n": 1}\n\n{"n"') == '{"n": 1}\n\n{"n"\n'


def leaking(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that refers to a secret, and tells it in every way."""
    monkeypatch.setenv("LILY_TEST_SECRET", SECRET)
    coded = base64.b64encode(f"user:{SECRET}".encode()).decode()
    write_job(
        root,
        "leak",
        bindings={
            "argv": ["sh", "-c", 'printf "%s\\n" "$KEY" | tee said; echo basic ' + coded + "; exit 3"],
            "env": {"KEY": {"secret": "env:LILY_TEST_SECRET"}},
        },
    )


@pytest.mark.e2e
def test_a_bundle_holds_what_helps_and_no_secret(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that printed its secret, with an error log that has it, too; and it says what is in it."""
    (workspace / ".lily" / "config.yaml").write_text("llm: {api_key: {secret: 'env:LILY_TEST_SECRET'}}\n")
    leaking(workspace, monkeypatch)
    lily("jobs", "run", "leak")
    (run,) = lily("runs", "list", "--json").json["runs"]
    (workspace / ".lily" / "run" / "errors.log").write_text(f"Traceback: {SECRET!r} {json.dumps(SECRET)} {quote(SECRET)}\n")
    said = lily("support", "bundle", run["run_id"], "--output", "bundle.tar.gz", "--json")
    assert said.status == 0, said
    check_fits("cli-support-bundle", said.json)
    path = workspace / "bundle.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    found = members(path)
    assert set(found) == {
        *("README.txt", "versions.json", "config.json", "doctor.json", "health.json", "status.json", "database.json", "jobs.json"),
        *("audit.jsonl", "event.jsonl", "errors.log"),
        *("run/files.json", "run/run_receipt.json", "run/summary.md", "run/events.jsonl", "run/row.json", "run/spec.json"),
    }
    assert said.json["left_out"] == []
    for name, text in found.items():
        assert not any(form in text for form in [SECRET, *encodings(SECRET)]), name
    assert json.loads(found["run/run_receipt.json"])["status"] == "failed"
    assert json.loads(found["run/spec.json"])["bindings"]["env"] == {"KEY": {"secret": "env:LILY_TEST_SECRET"}}
    assert all(name in found["README.txt"] for name in found if name != "README.txt")
    assert {each["name"] for each in said.json["files"]} == set(found) - {"README.txt"}


def test_a_bundle_is_made_of_a_workspace_that_is_broken(lily: Lily, workspace: Path) -> None:
    """A damaged store, a torn receipt, settings that can't be read: each is named, and hides nothing else. Nor does a job file whose
    secret stands where no file can."""
    was = past(workspace, lily)
    was.fold()
    truncated(was.store, 0.3)
    (was.folder(was.ended[0]) / "run_receipt.json").write_text('{"torn')
    (workspace / ".lily" / "config.yaml").write_text("queue: {max_size: many}\n")
    (workspace / ".lily" / "jobs" / "b.job.yaml").write_text('env: {KEY: {secret: "file:a\\0b"}}\n')
    said = lily("support", "bundle", was.ended[0], "--json")
    assert said.status == 0, said
    (path,) = workspace.glob("lily-support-*.tar.gz")
    found = members(path)
    assert found["run/run_receipt.json"] == '{"torn'
    assert "store_damaged" in found["doctor.json"]
    assert "config_invalid" in found["config.json"]
    assert any("the store can't be asked" in each for each in said.json["left_out"])


def test_a_receipt_that_is_nested_without_end_keeps_nothing_else_out(lily: Lily, workspace: Path) -> None:
    """A target may leave anything in its place: it is named as left out."""
    write_job(workspace, "j")
    lily("jobs", "run", "j")
    (folder,) = (workspace / ".lily" / "runs" / "j").iterdir()
    run_id = folder.name
    (folder / "run_receipt.json").write_text('{"a":' * 600 + "1" + "}" * 600)
    said = lily("support", "bundle", run_id, "--output", "b.tar.gz", "--json")
    assert said.status == 0
    assert any("run_receipt.json" in each for each in said.json["left_out"])
    assert "run/events.jsonl" in {each["name"] for each in said.json["files"]}


def test_a_password_in_an_address_and_a_variable_of_a_telling_name_are_taken_out(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to refer to them."""
    monkeypatch.setenv("SOME_TOKEN", "tok-84c1f2e09b7a")
    (workspace / ".lily" / "config.yaml").write_text("store:\n  url: postgresql://lily:pa55w%2Frd@127.0.0.1:9/none?connect_timeout=1\n")
    write_job(workspace, "a", bindings=shell("echo tok-84c1f2e09b7a pa55w/rd"), title="tok-84c1f2e09b7a")
    assert lily("support", "bundle").status == 0
    (path,) = workspace.glob("lily-support-*.tar.gz")
    text = json.dumps(members(path))
    assert not [each for each in ("tok-84c1f2e09b7a", "pa55w%2Frd", "pa55w/rd") if each in text]


@pytest.mark.e2e
def test_a_bundle_is_bounded_and_follows_no_link(lily: Lily, workspace: Path) -> None:
    """Of a large file the end is there, from a whole line on; what a link points at is not."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    (run,) = lily("runs", "list", "--json").json["runs"]
    folder = workspace / ".lily" / "runs" / "a" / run["run_id"]
    with open(folder / "events.jsonl", "a") as file:
        file.writelines(json.dumps({"seq": number, "text": "x" * 1000}) + "\n" for number in range(2000))
    (workspace / "outside").write_text("not yours")
    (folder / "summary.md").unlink()
    (folder / "summary.md").symlink_to(workspace / "outside")
    said = lily("support", "bundle", run["run_id"], "--json").json
    found = members(Path(said["path"]))
    assert len(found["run/events.jsonl"]) <= 512 * 1024
    assert json.loads(found["run/events.jsonl"].splitlines()[0])["seq"] > 1000
    assert [each["cut"] for each in said["files"] if each["name"] == "run/events.jsonl"] == [True]
    assert "run/summary.md" not in found
    assert any(each.startswith("run/summary.md") for each in said["left_out"])
    assert "not yours" not in json.dumps(found)


@pytest.mark.parametrize("words", [("nobody",), ("../x",), ("20260504T041500.123456Z-k3f9",)])
def test_a_run_that_is_not_there_is_refused(lily: Lily, workspace: Path, words: tuple[str, ...]) -> None:
    """And no file is made."""
    write_job(workspace, "a")
    lily("jobs", "run", "a")
    said = lily("support", "bundle", *words)
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (3, "run_not_found", 1)
    assert not list(workspace.glob("lily-support*"))


def test_a_file_that_is_there_is_not_replaced(lily: Lily, workspace: Path) -> None:
    """A bundle is cheap, and what was there may not be."""
    (workspace / "mine.tar.gz").write_text("mine")
    assert lily("support", "bundle", "--output", "mine.tar.gz").status == 2
    assert lily("support", "bundle", "--output", "none/such.tar.gz").status == 2
    assert (workspace / "mine.tar.gz").read_text() == "mine"


def test_a_folder_in_which_nothing_can_be_written_is_named_as_it_was_given(
    lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where not even a file that is not there can be removed, as on a disk that is mounted read-only."""

    def read_only(*given: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tarfile.TarFile.addfile", read_only)
    monkeypatch.setattr("lily.storage.copies.Path.unlink", read_only)
    said = lily("support", "bundle", "--output", "help.tar.gz")
    told = f"usage: this file can't be written: Read-only file system · {workspace}/help.tar.gz · name another one\n"
    assert (said.status, said.err) == (2, told)


def test_a_full_disk_is_no_mistake_in_the_command_line(lily: Lily, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`disk_full`, and nothing half made stays."""

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tarfile.TarFile.addfile", full)
    said = lily("support", "bundle", "--output", "help.tar.gz")
    assert (said.status, said.err.partition(":")[0], said.err.count("\n")) == (4, "disk_full", 1)
    assert not list(workspace.glob("*help*"))
