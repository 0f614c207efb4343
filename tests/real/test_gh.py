"""The `gh` program, by a stand-in that answers and fails as the real one does. An error is an error, never an answer."""

import os
import time
from pathlib import Path

import pytest
import trio

from lily.approvals.doctor import examine
from lily.approvals.gh import Gh, GhError
from lily.approvals.labels import Issue, Label
from tests.real.house import until
from tests.stand_in_gh import StandIn

AT = "2026-05-04T09:00:00Z"


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, first on PATH."""
    made = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", made.path)
    return made


def labels(folder: Path, issue: Issue, timeout: float = 20.0) -> list[Label]:
    return trio.run(Gh(folder, timeout).labels, issue)


def test_labels_come_with_who_set_them_and_when(gh: StandIn, tmp_path: Path) -> None:
    """From the last page of the timeline that speaks of them; set again means set by the last one."""
    gh.label("bug", by="eve", at=AT)
    gh.label("approved", by="eve", at=AT)
    gh.state["labels"].remove("approved")
    gh.label("approved", by="ann", at="2026-05-05T09:00:00Z")
    assert labels(tmp_path, Issue("12")) == [Label("bug", "eve", AT), Label("approved", "ann", "2026-05-05T09:00:00Z")]


def test_the_timeline_is_asked_for_only_when_a_label_could_decide(gh: StandIn, tmp_path: Path) -> None:
    """One call a look, nearly always."""
    gh.label("bug")
    assert labels(tmp_path, Issue("12", "acme/site")) == [Label("bug")]
    assert gh.calls == [["issue", "view", "12", "--repo", "acme/site", "--json", "labels,url"]]


@pytest.mark.parametrize(
    ("issue", "view", "api"),
    [
        (Issue("12"), [], ["repos/acme/site/issues/12/timeline?per_page=100"]),
        (Issue("12", "a/b"), ["--repo", "a/b"], ["repos/a/b/issues/12/timeline?per_page=100"]),
        (
            Issue("12", "a/b", "git.example.org"),
            ["--repo", "git.example.org/a/b"],
            ["--hostname", "git.example.org", "repos/a/b/issues/12/timeline?per_page=100"],
        ),
    ],
)
def test_the_repository_is_the_one_that_is_named_or_that_gh_finds(
    gh: StandIn, tmp_path: Path, issue: Issue, view: list[str], api: list[str]
) -> None:
    """Also at another host."""
    gh.label("lgtm")
    labels(tmp_path, issue)
    assert gh.calls == [["issue", "view", "12", *view, "--json", "labels,url"], ["api", *api[:-1], "--paginate", api[-1]]]


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        ("logged out", "failed", "gh auth login"),
        ("away", "failed", "error connecting to api.github.com check your internet"),
        ("garbage", "garbage", "502 Bad Gateway"),
        ("half", "garbage", "no JSON object"),
        ("huge", "garbage", "more than 8 MiB"),
        ("no timeline", "failed", "HTTP 404"),
    ],
)
def test_what_goes_wrong_is_said_and_is_no_answer(gh: StandIn, tmp_path: Path, mode: str, kind: str, says: str) -> None:
    """With what gh itself says, on one line."""
    gh.label("approved")
    gh.is_in(mode)
    with pytest.raises(GhError) as caught:
        labels(tmp_path, Issue("12"))
    assert (caught.value.kind, says in str(caught.value), "\n" in str(caught.value)) == (kind, True, False)


@pytest.mark.e2e
def test_one_that_hangs_is_ended_with_its_children(gh: StandIn, tmp_path: Path) -> None:
    """After the time-out nothing of it is left."""
    gh.is_in("hang")
    began = time.monotonic()
    with pytest.raises(GhError, match="did not answer within"):
        labels(tmp_path, Issue("12"), timeout=1.0)
    assert time.monotonic() - began < 10
    # What was killed takes a moment to go.
    until(lambda: not any(_runs(pid, str(gh.folder / "gh")) for pid in os.listdir("/proc") if pid.isdigit()), "the end of its children")


def _runs(pid: str, program: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file, open(f"/proc/{pid}/stat", "rb") as status:
            return program in file.read().decode(errors="replace") and b") Z" not in status.read()
    except OSError:
        return False


def test_a_machine_without_gh_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an error like the others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GhError, match="not on PATH"):
        labels(tmp_path, Issue("12"))


@pytest.mark.parametrize(
    ("mode", "repository", "wrong"),
    [
        ("ok", "acme/site", []),
        ("ok", "", ["repository"]),
        ("logged out", "acme/site", ["login", "repository"]),
        ("garbage", "", ["repository"]),
    ],
)
def test_the_doctor_names_what_is_wrong_and_what_to_do(gh: StandIn, tmp_path: Path, mode: str, repository: str, wrong: list[str]) -> None:
    """Program, login and repository, each by itself."""
    gh.state["repository"] = repository
    gh.is_in(mode)
    found = trio.run(examine, Gh(tmp_path), "")
    assert [each["name"] for each in found] == ["program", "login", "repository"]
    assert [each["name"] for each in found if not each["ok"]] == wrong
    assert all(each["hint"] for each in found if not each["ok"])
