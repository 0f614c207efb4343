"""Fingerprints, causes and redaction: what is the same error, what probably caused it, and what nobody may read."""

import base64
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.dead_letters import Cause, action, cause_of, fingerprint, is_dead, marks, normal
from lily.errors import Code
from lily.redaction import MASK, redacted, references
from lily.runs import ErrorInfo


def failed(message: str = "", code: str = "job_execution_failed", own: str | None = None, **data: object) -> ErrorInfo:
    return ErrorInfo(code=code, message=message, blueprint_code=own, data=dict(data))


# -- fingerprints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("took 12 s", "took 3.5 s"),
        ("at 2026-05-04T04:15:00.123456Z it broke", "at 2031-01-01 00:00:00 it broke"),
        ("object at 0x7f3b2c001d30", "object at 0x55d0c0ffee00"),
        ("run 20260504T041500.123456Z-k3f9 is gone", "run 20310101T000000.000001Z-zz00 is gone"),
        ("no row 6f1c7e5a-8a55-4d55-9a7e-0d7a3d6f2b11", "no row 00000000-0000-4000-8000-000000000000"),
        ("can't read /srv/data/a.csv", "can't read ../tmp/x/y/b.csv"),
        ("10.0.0.7:5432 refused", "192.168.1.200:6000 refused"),
        ("fe80::1:2:3 is away", "2001:db8:0:1::7 is away"),
        ("mail to ada@example.org bounced", "mail to bob.b@mail.example.com bounced"),
        ("GET https://api.example.com/v1/items/17?x=1 failed", "GET https://api.example.com/v2/users failed"),
        ("commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad is missing", "commit 9c1185a5c5e9fc54612808977ee8f548b2258d31 is missing"),
        ("several   spaces\nand lines", "several spaces and lines"),
    ],
)
def test_what_varies_makes_no_other_fingerprint(one: str, other: str) -> None:
    """Numbers, times, ids, addresses and paths say which, not what."""
    assert normal(one) == normal(other)
    assert fingerprint(failed(one)) == fingerprint(failed(other))


@pytest.mark.parametrize(
    "other",
    [
        failed("the disk is full"),
        failed("took 12 s", own="slow"),
        failed("took 12 s", code="job_bindings_invalid"),
        failed("took 12 minutes"),
    ],
)
def test_another_error_has_another_fingerprint(other: ErrorInfo) -> None:
    """By words, by the job's code, by the blueprint's."""
    assert fingerprint(other) != fingerprint(failed("took 12 s"))


def test_two_services_are_two_errors() -> None:
    """The host stays: what has to come back is another one."""
    one, other = (failed(f"GET https://{host}/v1 got no answer") for host in ("a.example.com", "b.example.com"))
    assert fingerprint(one) != fingerprint(other)


def test_a_fingerprint_is_the_same_in_every_version() -> None:
    """It is stored, and what was stored must group with what comes: a change of the rules would need a migration."""
    assert fingerprint(failed("curl exited with 7: connection to 10.0.0.7:5432 refused", own="x")) == "2135f7fa5e97"


@given(st.text(max_size=1500))
def test_any_text_has_a_fingerprint(text: str) -> None:
    """Twelve hex digits, the same again."""
    found = fingerprint(failed(text))
    assert len(found) == 12
    assert set(found) <= set(string.hexdigits.lower())
    assert found == fingerprint(failed(text))


@given(st.lists(st.integers(min_value=0), min_size=1, max_size=5), st.lists(st.integers(min_value=0), min_size=5, max_size=5))
def test_numbers_never_matter(some: list[int], others: list[int]) -> None:
    """However many digits they have."""
    words = ["row {}", "of {}", "after {} s", "at byte {}", "({} left)"][: len(some)]
    one, other = (", ".join(word.format(n) for word, n in zip(words, given, strict=False)) for given in (some, others))
    assert normal(one) == normal(other)


# -- causes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (failed("sh exited with 1: curl: (7) Failed to connect to db: Connection refused", exit_code=1), Cause.EXTERNAL),
        (failed("GET https://x got no answer", reason="ConnectError"), Cause.EXTERNAL),
        (failed("it answered 503", status=503), Cause.EXTERNAL),
        (failed("it answered 429", status=429), Cause.TRANSIENT),
        (failed("sqlite3.OperationalError: database is locked"), Cause.TRANSIENT),
        (failed("sh exited with 75", exit_code=75), Cause.TRANSIENT),
        (failed("timed out after 30 s", own="blueprint_execution_failed", reason="timeout"), Cause.RESOURCES),
        (failed("cp exited with 1: No space left on device", exit_code=1), Cause.RESOURCES),
        (failed("python used up its cap memory_mb", cap_exceeded="memory_mb"), Cause.RESOURCES),
        (failed("can't run 'x': too little memory", errno="ENOMEM"), Cause.RESOURCES),
        (failed("the run's files could not be kept", errno=28), Cause.RESOURCES),
        (failed("sh was ended by SIGKILL", signal=9, exit_code=None), Cause.RESOURCES),
        (failed("sh exited with 127: sh: 1: frob: not found", exit_code=127), Cause.PARAMETERS),
        (failed("sh exited with 64", exit_code=64), Cause.PARAMETERS),
        (failed("argv: a list is expected", code="job_bindings_invalid"), Cause.PARAMETERS),
        (failed("nobody.v1 is not registered", code="job_target_unresolved", own="blueprint_not_found"), Cause.PARAMETERS),
        (failed("the input does not fit command.v1: nothing is taken here", own="blueprint_contract_invalid"), Cause.PARAMETERS),
        (failed("no key", variable="API_KEY"), Cause.PARAMETERS),
        (failed("it answered 404", status=404), Cause.PARAMETERS),
        (failed("interrupted 4 times", reason="interrupted"), Cause.UNKNOWN),
        (failed("internal error: KeyError", own="internal_error"), Cause.UNKNOWN),
        (failed("sh exited with 3", exit_code=3), Cause.UNKNOWN),
        (failed("no luck", status=["odd"], exit_code={"a": 1}, errno=None), Cause.UNKNOWN),
    ],
)
def test_the_cause_is_read_from_codes_data_words_and_exits(error: ErrorInfo, cause: Cause) -> None:
    """As an operator would."""
    assert cause_of(error) is cause


def test_codes_come_before_words() -> None:
    """A message quotes much."""
    assert cause_of(failed("the reply 'connection refused' is not valid JSON", own="blueprint_bindings_invalid")) is Cause.PARAMETERS


@given(
    st.text(max_size=300),
    st.dictionaries(
        st.sampled_from(["status", "errno", "exit_code", "signal", "reason"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.floats(),
    ),
)
def test_every_error_has_a_cause_and_an_action(text: str, data: dict[str, object]) -> None:
    """Whatever blueprints put into their data."""
    error = ErrorInfo(code="job_execution_failed", message=text, data=data)
    cause = cause_of(error)
    assert "`lily dlq" in action(cause, fingerprint(error), "RUN")
    assert marks(error)["cause"] == cause.value


def test_refusals_are_not_dead() -> None:
    """Policy and approvals, and nothing else."""
    dead = {code for code in Code if is_dead(failed(code=code))}
    assert set(Code) - dead <= {"job_policy_denied", "approval_denied", "approval_expired", "approval_void"}
    assert Code.JOB_EXECUTION_FAILED in dead
    assert not is_dead(failed(code="job_policy_denied"))


# -- redaction -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "login failed: password=hunter2xyz",
        'config {"api_key": "hunter2xyz", "user": "ada"}',
        "DB_PASSWORD: hunter2xyz",
        "--token 'x' --api-token=hunter2xyz",
        "postgresql://ada:hunter2xyz@db.example.com/lily refused",
        "Authorization: Bearer hunter2xyz",
        "sent header Bearer hunter2xyz",
        "sent header basic hunter2xyz",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2xyz\nand here it was cut",
        "access_key_id = hunter2xyz",
    ],
)
def test_what_is_called_a_secret_is_masked(text: str) -> None:
    """By its name, or by its place in an address."""
    assert "hunter2xyz" not in redacted(text)
    assert MASK in redacted(text)


@pytest.mark.parametrize(
    "token",
    [
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "sk-proj-abcdefgh12345678",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
        "dGhpcyBpcyBhIGxvbmcgc2VjcmV0IGtleQ==",
        "Zk3Jd8sLq0Wm2Xc7Vb5Nn1Rt6Yp4Ua9Eo3",
    ],
)
def test_what_looks_like_a_token_is_masked(token: str) -> None:
    """Wherever it stands."""
    assert redacted(f"the server said no to {token}, sorry") == f"the server said no to {MASK}, sorry"


@pytest.mark.parametrize(
    "text",
    [
        "commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad is missing",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "run 20260504T041500.123456Z-k3f9 of backup-size exited with 3",
        "can't read /srv/data/Archive2026/january/measurements.csv",
        "connection to db.example.com:5432 refused after 30 s",
    ],
)
def test_what_an_operator_needs_stays(text: str) -> None:
    """Hashes, run ids, paths and hosts are no secrets."""
    assert redacted(text) == text


@given(st.text(min_size=8, max_size=40).filter(lambda s: s.strip("*")), st.text(max_size=40))
def test_a_known_secret_is_gone_also_where_it_is_encoded(secret: str, around: str) -> None:
    """Plain, in an address, and in base64."""
    forms = [secret, quote(secret, safe=""), base64.b64encode(secret.encode("utf-8", "backslashreplace")).decode()]
    for form in forms:
        made = redacted(f"<{form}>", [secret])
        assert form not in made


def test_secrets_are_found_where_bindings_refer_to_them() -> None:
    """At any depth; what only looks like one is none."""
    bindings = {"env": {"KEY": {"secret": "env:KEY"}, "MODE": "fast"}, "parts": [{"api_key": {"secret": "file:/k"}}], "secret": 3}
    assert list(references(bindings)) == ["env:KEY", "file:/k"]
