"""Approvals as values: which issue is meant, what labels decide, what an approval is bound to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.approvals.labels import APPROVING, DENYING, Issue, Label, judge, parse_issue
from lily.approvals.needs import binding, changes, requested
from lily.approvals.record import Approval, Need, may_decide, told
from lily.clock import stamp
from lily.runs import PinnedSpec, Target
from lily.settings import Approval as Terms

NOW = datetime(2026, 5, 4, 9, 0, 0, 500_000, tzinfo=UTC)
TERMS = Terms(ttl_hours=24.0, warn_hours=1.0, poll_seconds=30.0, approvers=["ann"], repository="")
ASKED = Approval(requested_at=stamp(NOW), expires_at=stamp(NOW + timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "issue"),
    [
        ("12", Issue("12", "me/mine")),
        ("#12", Issue("12", "me/mine")),
        ("acme/site#7", Issue("7", "acme/site")),
        ("https://github.com/acme/site/issues/7", Issue("7", "acme/site", "github.com")),
        ("https://github.com/acme/site/pull/7#issuecomment-1", Issue("7", "acme/site", "github.com")),
        ("https://git.example.org/a/b/issues/7?x=1", Issue("7", "a/b", "git.example.org")),
        ("0", None),
        ("--repo", None),
        ("acme/site", None),
        ("-x/y#1", None),
        ("a/../b#1", None),
        ("http://github.com/a/b/issues/7", None),
        ("12 --repo x/y", None),
        ("", None),
    ],
)
def test_an_issue_is_a_number_or_names_its_repository(text: str, issue: Issue | None) -> None:
    """Nothing else reaches the program's command line."""
    assert parse_issue(text, "me/mine") == issue


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_of_the_program(text: str) -> None:
    """Whatever is written: what comes of it is digits and names that begin with a letter or digit."""
    found = parse_issue(text)
    if found is not None:
        assert found.number.isascii()
        assert found.number.isdigit()
        assert not found.place.startswith("-")
        assert " " not in found.place


def at(seconds: float) -> str:
    """A second after the request, as GitHub writes it."""
    return stamp(NOW + timedelta(seconds=seconds))[:19] + "Z"


@pytest.mark.parametrize(
    ("labels", "decision"),
    [
        ([], None),
        ([Label("bug", "ann", at(5))], None),
        ([Label("LGTM", "ann", at(5))], "approved"),
        ([Label("approved", "ann", at(0))], "approved"),  # in the second of the request
        ([Label("approved", "ann", at(-1))], None),
        ([Label("approved", "ann", at(3600))], "approved"),
        ([Label("approved", "ann", at(3601))], None),
        ([Label("approved", "ann", at(5)), Label("rejected", "eve", at(6))], "denied"),
        ([Label("rejected", "eve", at(-900)), Label("approved", "ann", at(5))], "approved"),
        ([Label("approved")], "approved"),  # GitHub does not tell who and when
    ],
)
def test_labels_decide_while_the_request_waits(labels: list[Label], decision: str | None) -> None:
    """From the second of the request to the end of its time; a denial beats an approval."""
    verdict = judge(labels, ASKED)
    assert verdict.decision == decision
    deciding = [label for label in labels if label.name.casefold() in APPROVING | DENYING]
    assert bool(verdict.ignored) == ((decision is None and bool(deciding)) or any(label.at == at(-900) for label in labels))


@pytest.mark.parametrize(("by", "decision"), [("Ann", "approved"), ("eve", None), ("", None)])
def test_where_approvers_are_named_only_their_labels_count(by: str, decision: str | None) -> None:
    """One whose setter is not known does not count either."""
    asked = Approval(requested_at=ASKED.requested_at, expires_at=ASKED.expires_at, approvers=["ann"])
    assert judge([Label("approved", by, at(5))], asked).decision == decision


LABELS = st.lists(
    st.builds(
        Label,
        st.sampled_from(["approved", "lgtm", "denied", "Rejected", "bug"]),
        st.sampled_from(["", "ann", "eve"]),
        st.none() | st.integers(-100, 4000).map(at),
    ),
    max_size=5,
)


@given(LABELS, st.sampled_from([[], ["ann"], ["ann", "eve"]]))
def test_nobody_else_and_no_other_time_decides(labels: list[Label], approvers: list[str]) -> None:
    """What decides was set by one who may, in time, where that is known; and no denial that counts is passed over."""
    asked = Approval(requested_at=ASKED.requested_at, expires_at=ASKED.expires_at, approvers=approvers)
    verdict = judge(labels, asked)
    counting = [label for label in labels if label.name.casefold() != "bug" and judge([label], asked).decision]
    denied = any(label.name.casefold() in DENYING for label in counting)
    assert verdict.decision == ("denied" if denied else "approved" if counting else None)
    if verdict.label is not None:
        assert may_decide(verdict.label.by, approvers)
        assert verdict.label.at is None or at(0) <= verdict.label.at <= at(3600)


def spec(**approval: Any) -> PinnedSpec:
    return PinnedSpec(
        id="a", title="A", target=Target(kind="blueprint", id="x.v1"), bindings={"n": 1}, trigger={"type": "manual"}, approval=approval
    )


def test_the_job_says_how_long_and_who_and_the_settings_say_the_rest() -> None:
    """An approver list of the job stands in the place of the workspace's."""
    need = [Need("job", "job a", "because")]
    own = requested(1, 0, need, spec(required=True, ttl_hours=2.0, warn_hours=0.0, approvers=["bob"], issue="7"), {}, TERMS, NOW)
    assert (own.expires_at, own.warn_at, own.approvers, own.issue) == (stamp(NOW + timedelta(hours=2)), None, ["bob"], "7")
    other = requested(1, 0, need, spec(required=True), {}, TERMS, NOW)
    assert (other.expires_at, other.warn_at) == (stamp(NOW + timedelta(hours=24)), stamp(NOW + timedelta(hours=23)))
    assert other.approvers == ["ann"]


def test_a_warning_longer_than_the_time_comes_at_once() -> None:
    """And never before the request."""
    made = requested(1, 0, [Need("job", "job a")], spec(ttl_hours=0.5), {}, TERMS, NOW)
    assert made.warn_at == stamp(NOW)


def test_several_needs_are_one_request_that_names_them_all() -> None:
    """Under the kind of the first."""
    assert told([Need("replay", "replay of run x", "w"), Need("policy", "capability publish")]) == (
        "replay",
        "replay of run x; capability publish",
        "w",
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("spec_hash", "sha256:2", "the spec"),
        ("version", "2.0.0", "the blueprint's version"),
        ("job_file", "sha256:3", "the job's file"),
        ("job_file", "", "the job's file"),
    ],
)
def test_each_thing_that_changed_is_named(key: str, value: str, said: str) -> None:
    """And what is not known on one side is not compared."""
    bound = binding("sha256:1", spec(), "1.0.0", "sha256:1")
    (found,) = changes(bound, {**bound, key: value})
    assert found.startswith(said)
    assert changes(bound, bound) == changes(bound, {**bound, key: None}) == changes({**bound, key: None}, {**bound, key: value}) == []


def test_bindings_are_the_same_in_any_order_of_their_keys() -> None:
    """The digest is over their canonical form."""
    one, two = spec(), spec()
    one.bindings.update({"b": 1, "a": {"y": 1, "x": 2}})
    two.bindings.clear()
    two.bindings.update({"a": {"x": 2, "y": 1}, "b": 1, "n": 1})
    assert binding("h", one, None)["bindings"] == binding("h", two, None)["bindings"]
