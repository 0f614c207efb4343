"""Known secrets are taken out in whatever form they stand, however the text is cut, and all around them stays."""

import base64
import errno
import hashlib
import json
import os
import secrets
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lily.blueprints.contract import BlueprintError
from lily.blueprints.secrets import secret_text
from lily.redaction import MASK, Redactor, here, learn_here, redacted, redacting, references
from lily.secret_forms import forms
from tests.encodings import AROUND, ENCODERS, SECRETS, TEXT, pieces

_MASK = MASK.encode()
FORMS = st.sampled_from(sorted(ENCODERS))


@settings(max_examples=300)
@given(SECRETS, FORMS, AROUND, AROUND, st.lists(st.integers(0, 1000), max_size=6))
@example("0000000\\", "url in a url", "", "", [])
@example("\\\\\\\\\\\\\\\\", "json in json", "~", "|", [3])
def test_no_form_of_a_secret_passes_a_stream_however_it_is_cut(secret: str, form: str, before: str, after: str, cuts: list[int]) -> None:
    written = ENCODERS[form](secret)
    stream = Redactor([secret]).stream()
    out = b"".join(map(stream.feed, pieces(before.encode() + written + after.encode(), cuts))) + stream.finish()
    assert out == before.encode() + _MASK + after.encode()


# Every sign that any form writes in a way of its own; its base64 is longer than a line, and has both digits that URLs write otherwise.
HARD = 'it\'s \\"<&>"\n\r\t/?~=+%: pässwörd-€-\N{GRINNING FACE} \u00fb\u00ef\u00be\u00ff?>~ ' + "0123456789" * 3


@pytest.mark.parametrize("form", sorted(ENCODERS))
def test_every_form_that_programs_write_is_found(form: str) -> None:
    """Without luck, unlike those with random secrets."""
    written = ENCODERS[form](HARD)
    assert Redactor([HARD]).raw(b"<" + written + b">") == b"<***>"


def test_a_secret_as_latin_1_and_with_the_line_ends_of_windows_is_found() -> None:
    redactor = Redactor(["pässwörd-of-mine", "one line\nand another"])
    assert redactor.raw("is pässwörd-of-mine".encode("latin-1")) == b"is ***"
    for written in ("one line\r\nand another", "one line\\r\\nand another", "one%20line%0D%0Aand+another", "one%20line%0d%0aand%20another"):
        assert redactor.text(written) == MASK
    assert redactor.text(r"is p\xe4ssw\xf6rd-of-mine, p\U000000e4ssw\u00f6rd-of-mine") == "is ***, ***"
    assert redactor.text(r"is p\xC3\xA4ssw\xc3\xb6rd-of-mine") == "is ***"


def test_what_is_no_utf_8_in_a_variable_of_the_environment_is_found_as_its_bytes() -> None:
    assert Redactor([os.fsdecode(b"hunter2-\xff-of-mine")]).raw(b"is hunter2-\xff-of-mine") == b"is ***"


@settings(max_examples=100)
@given(SECRETS, st.sampled_from(TEXT), AROUND, AROUND)
def test_text_and_what_json_holds_come_out_without_it(secret: str, form: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    text = before + ENCODERS[form](secret).decode() + after
    assert redactor.text(text) == before + MASK + after
    assert redactor.data({"a": [text, 1, None], text: {"b": text}}) == {
        "a": [redactor.text(text), 1, None],
        redactor.text(text): {"b": redactor.text(text)},
    }
    assert redactor.holds(text)


@settings(max_examples=80)
@given(SECRETS, st.integers(0, 2), st.binary(max_size=7), st.booleans())
def test_base64_has_none_of_it_at_any_of_its_alignments(secret: str, shift: int, after: bytes, for_urls: bool) -> None:
    encode = base64.urlsafe_b64encode if for_urls else base64.b64encode
    inner = encode(b"\0" * shift + secret.encode())[(0, 2, 3)[shift] : 8 * (shift + len(secret.encode())) // 6]
    made = Redactor([secret]).raw(encode(b"~|"[:shift] + secret.encode() + after))
    assert inner not in made
    assert _MASK in made


@settings(max_examples=80)
@given(st.lists(SECRETS, min_size=2, max_size=4), FORMS, AROUND, st.lists(st.integers(0, 1000), max_size=6))
def test_of_several_secrets_none_is_left(known: list[str], form: str, between: str, cuts: list[int]) -> None:
    written = [ENCODERS[form](secret) for secret in known]
    stream = Redactor(known).stream()
    out = b"".join(map(stream.feed, pieces(between.encode().join(written), cuts))) + stream.finish()
    assert not any(each in out for each in written)


@settings(max_examples=80)
@given(SECRETS, FORMS, AROUND, st.integers(0, 40), st.lists(st.integers(0, 1000), max_size=6))
def test_of_what_is_only_wanted_at_its_end_the_end_has_none(secret: str, form: str, around: str, size: int, cuts: list[int]) -> None:
    written = ENCODERS[form](secret)
    stream = Redactor([secret]).stream()
    for piece in pieces((around.encode() + written) * 40 + around.encode(), cuts):
        stream.skim(piece, size)
    out = stream.finish()
    assert written not in out
    assert set(out) <= set(b"~|*")


@given(SECRETS, FORMS, AROUND)
def test_of_a_text_that_is_cut_the_beginning_of_a_secret_goes_too(secret: str, form: str, before: str) -> None:
    written = ENCODERS[form](secret)
    for at in range(0, len(written), 1 + len(written) // 20):
        made = Redactor([secret]).raw(before.encode() + written[:at], cut=True)
        assert len(made) < len(before) + 80  # three characters in the longest of forms
        assert made.startswith(before.encode())


def test_a_form_is_held_back_wherever_it_is_cut() -> None:
    """Also where each of its parts is written in the longest way."""
    for form in forms(HARD):
        written = b"".join(ways[0] for ways in form)
        for at in range(1, 120):
            stream = Redactor([HARD]).stream()
            assert stream.feed(b"<" + written[:at]) == b"<"
            assert stream.feed(written[at:] + b">") + stream.finish() == b"***>"


@pytest.mark.parametrize("both", ["gh", "gh-12"])
def test_secrets_that_overlap_go_together_wherever_they_are_cut(both: str) -> None:
    redactor = Redactor([f"abcdef{both}", f"{both}klmnop"])
    for text, clean in ((f"<abcdef{both}klmnop>", b"<***>"), (f"<abcdef{both}kl>", b"<***kl>"), (f"<abcdef{both}", b"<***")):
        data = text.encode()
        assert redactor.raw(data) == redactor.raw(data, cut=True) == clean
        for at in range(len(data)):
            stream = redactor.stream()
            assert stream.feed(data[:at]) + stream.feed(data[at:]) + stream.finish() == clean


def test_of_a_secret_that_holds_another_nothing_stays_at_the_beginning_of_an_end() -> None:
    redactor = Redactor(["abc-SECRET-A-defghijk", "-SECRET-A-"])
    for size in range(30):
        stream = redactor.stream()
        stream.skim(b"abc-SECRET-A-defghijk", size)
        stream.skim(b"." * redactor.reach, size)
        assert set(stream.finish()) <= set(b"*.")


ORDINARY = (
    "commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad is missing",
    "run 20260504T041500.123456Z-k3f9 of backup-size exited with 3",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "trace 0af7651916cd43dd8448eb211c80319c, 12345678 bytes in /srv/data/Archive2026/measurements.csv",
)


@given(st.sampled_from(ORDINARY), st.lists(st.binary(min_size=12, max_size=24).map(bytes.hex) | st.uuids().map(str), max_size=3))
def test_hashes_run_ids_and_ordinary_text_stay_beside_secrets_that_look_like_them(text: str, known: list[str]) -> None:
    assert Redactor(["hunter2-of-mine", *known]).text(text) == text


@given(st.binary(max_size=400), SECRETS.filter(lambda secret: len(secret) > 12), st.lists(st.integers(0, 1000), max_size=6))
def test_what_holds_no_secret_comes_out_as_it_went_in(data: bytes, secret: str, cuts: list[int]) -> None:
    stream = Redactor([secret]).stream()
    out = b"".join(map(stream.feed, pieces(data, cuts))) + stream.finish()
    assert out == (data if not Redactor([secret]).spans(data, partial=False)[0] else out)


def test_values_under_eight_characters_are_no_secrets() -> None:
    assert not Redactor(["1234567", ""])
    assert Redactor(["1234567"]).text("1234567") == "1234567"
    assert Redactor(["12345678"]).text("1234567 12345678") == f"1234567 {MASK}"


@pytest.mark.parametrize("secret", ["hunter2-of-mine\n", "hunter2-of-mine\n\n", " hunter2-of-mine", "\thunter2-of-mine \r\n"])
def test_a_secret_goes_also_without_the_blanks_and_line_ends_around_it(secret: str) -> None:
    """As a shell or a program leaves it that takes its words apart."""
    redactor = Redactor([secret])
    assert redactor.text(f"is {secret}.") == f"is {MASK}."
    assert redactor.text('{"is": "hunter2-of-mine"}') == f'{{"is": "{MASK}"}}'
    assert redactor.raw(b"is " + base64.b64encode(secret.strip().encode()) + b".") == b"is ***."


def test_each_line_of_a_key_goes_and_the_lines_that_every_key_has_stay() -> None:
    lines = [base64.b64encode(hashlib.sha384(bytes([number])).digest()).decode() for number in range(4)]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    redactor = Redactor([key])
    assert redactor.text(f"key: {key}.") == f"key: {MASK}."
    assert redactor.text(f"> {lines[2]}") == f"> {MASK}"
    assert redactor.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"
    assert redactor.text(json.dumps({"key": key})) == f'{{"key": "{MASK}"}}'


def test_of_a_secret_of_several_lines_those_are_found_that_are_no_ordinary_words() -> None:
    """Without what they are indented by; 15 characters, words and a ruler are in many texts."""
    redactor = Redactor(["some words of a line\n  0123456789abcdef\n0123456789abcd-\n-----------------"])
    assert redactor.text("is 0123456789abcdef") == "is ***"
    for ordinary in ("0123456789abcd-", "some words of a line", "-----------------"):
        assert redactor.text(ordinary) == ordinary
    assert Redactor(["0123456789abcdef\nhunter2-of-mine-1"]).text("is hunter2-of-mine-1") == "is ***"


def test_of_a_cut_text_four_characters_are_taken_for_a_secrets_beginning() -> None:
    redactor = Redactor(["hunter2-of-mine"])
    assert [redactor.raw(text, cut=True) for text in (b"is hun", b"is hunt")] == [b"is hun", b"is ***"]


def test_as_much_of_the_end_is_there_as_was_wanted() -> None:
    stream = Redactor(["hunter2-of-mine"]).stream()
    for _ in range(100):
        stream.skim(b"0123456789" * 10, 500)
    assert stream.finish()[-500:] == b"0123456789" * 50


def test_a_number_that_is_a_secret_becomes_text() -> None:
    redactor = Redactor(["4929123412341234", "31415.92653"])
    assert redactor.data((4929123412341234, 31415.92653, 4929, 1.5, True)) == [MASK, MASK, 4929, 1.5, True]


def test_only_what_may_be_a_secrets_beginning_is_held_back() -> None:
    """A prompt is shown at once."""
    stream = Redactor(["hunter2-of-mine"]).stream()
    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"hunter2") == b""
    assert stream.feed(b"!") == b"hunter2!"
    assert stream.feed(b"hunter2-of-mine\nnext: h") == b"***\nnext: "
    assert stream.finish() == b"h"


def test_a_stream_takes_bounded_memory_whatever_comes() -> None:
    stream = Redactor([secrets.token_urlsafe(32)]).stream()
    piece = b"line of ordinary output, number 12345\n" * 1000
    stream.feed(piece)
    tracemalloc.start()
    for _ in range(100):
        stream.feed(piece)
    for _ in range(100):
        stream.skim(piece, 16_384)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(piece)


@pytest.mark.parametrize("secret", ["a" * 16 + "b", "&amp;" * 8, "\\" * 40, "%25" * 10, '\\"' * 20, "+ " * 12])
def test_secrets_that_repeat_themselves_take_no_more_than_linear_time(secret: str) -> None:
    """What is almost a secret, over and over: a search that goes back would not come to its end here."""
    data = (secret[:-1] * 40 + "~") * 20
    assert Redactor([secret]).text(data).count("~") == 20


def test_what_is_read_in_an_attempt_is_known_there_and_nowhere_else() -> None:
    redactor = Redactor(["hunter1-of-mine"])
    with redacting(redactor):
        learn_here("hunter2-of-mine")
        assert here().text("is hunter2-of-mine, was hunter1-of-mine") == "is ***, was ***"
    learn_here("hunter3-of-mine")
    assert here().text("hunter2-of-mine hunter3-of-mine") == "hunter2-of-mine hunter3-of-mine"
    assert redactor.text("hunter3-of-mine") == "hunter3-of-mine"


def test_references_are_found_wherever_they_stand() -> None:
    found = references({"argv": ["a", {"secret": "env:A"}], "env": {"B": {"secret": "file:b"}}, "of_another_form": {"secret": "c", "d": 1}})
    assert list(found) == ["env:A", "file:b"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY----- then", "*** then"),
        ("key: -----BEGIN PRIVATE KEY-----\nMIIabc, and it was cut here", "key: ***"),
        ("at postgresql://me:hunter2@db/x now", "at postgresql://***@db/x now"),
        ("Authorization is Basic bWU6aHVudGVyMg, it said", "Authorization is Basic ***, it said"),
        ("sent Bearer abcdef123 to it", "sent Bearer *** to it"),
        ("it was eyJhbGciOiJI.eyJzdWIi.abc_d, was it", "it was ***, was it"),
        ("AUTH_MODE=internal, smtp_auth: hunter22", "AUTH_MODE=internal, smtp_auth: ***"),
        ("pass_rate: 0.5, pass_count=3, pass=hunter22", "pass_rate: 0.5, pass_count=3, pass=***"),
        ("PasswordAuthentication=no --cookie-jar=file", "PasswordAuthentication=no --cookie-jar=file"),
        ("auth_url_password=hunter22 auth_mode_token: hunter22", "auth_url_password=*** auth_mode_token: ***"),
        ("passed: 12, passes: 3, pass_fds: 4, author: Jane", "passed: 12, passes: 3, pass_fds: 4, author: Jane"),
        ("authorization: hunter22, X-Token-For-Our-Server: hunter22", "authorization: ***, X-Token-For-Our-Server: ***"),
        ("my_credentials=hunter22&X-Amz-Signature=hunter22", "my_credentials=***&X-Amz-Signature=***"),
        ("at https://example.com/@me now", "at https://example.com/@me now"),
        ("as BEARER abcdef or bearer abcde", "as BEARER *** or bearer abcde"),
        ("ghp_12345678 AKIA12345678 ghp_1234567", "*** *** ghp_1234567"),
        ("QUJDREVGR0hJSktMTU5PUFFS== QUJDREVGR0hJSktMTU5PUFF=", "*** QUJDREVGR0hJSktMTU5PUFF="),
        (f"{'aB3_' * 8} {'aB3_' * 7}aB3", f"*** {'aB3_' * 7}aB3"),
        (f"{'aB__' * 8} {'3B__' * 8} {'a3__' * 8}", f"{'aB__' * 8} {'3B__' * 8} {'a3__' * 8}"),
        ("a basic test of 3b18e512dba79e4c8300dd08aeb37f8e728b8dad", "a basic test of 3b18e512dba79e4c8300dd08aeb37f8e728b8dad"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_what_is_shown_to_many(text: str, clean: str) -> None:
    """Nobody said that it is one."""
    assert redacted(text) == clean
    assert redacted(f"so_it_is {text}", ["so_it_is"]) == f"*** {clean}"


@pytest.mark.parametrize(("number", "retryable"), [(errno.EMFILE, True), (errno.ENOENT, False)])
def test_a_secret_that_can_not_be_read_now_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, number: int, retryable: bool) -> None:
    """Where no descriptor is left that says nothing of its file."""

    def refused(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("lily.blueprints.secrets.os.open", refused)
    with pytest.raises(BlueprintError, match="the secret in key can't be read") as caught:
        secret_text("file:key")
    assert caught.value.retryable is retryable
