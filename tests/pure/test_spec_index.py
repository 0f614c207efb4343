"""The catalog of jobs: unchanged files are not read again, and one bad file hides no other."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lily import spec_index
from lily.errors import Code, LilyError
from lily.own_jobs import REVIEW, own_jobs_of
from lily.settings import Review
from lily.spec_index import SpecIndex
from lily.specs import spec_hash
from lily.workspace import Workspace
from tests.unprivileged import Unprivileged

LONG_AGO = 1_700_000_000
REPOSITORY = Path(__file__).resolve().parents[2]


class Fixed:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def body(id: str, title: str = "A job", more: str = "") -> str:
    return (
        f"id: {id}\ntitle: {title}\ntarget: {{id: command.v1}}\nbindings: {{argv: [echo]}}\n"
        f"trigger: {{type: manual}}\nruntime: {{}}\noutput: {{}}\n{more}"
    )


def put(workspace: Workspace, name: str, text: str | bytes, at: float = LONG_AGO) -> Path:
    path = workspace.jobs / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (at, at))
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".lily" / "jobs").mkdir(parents=True)
    return Workspace(tmp_path)


def test_a_workspace_without_jobs_has_an_empty_catalog(workspace: Workspace) -> None:
    assert (SpecIndex(workspace).scan().jobs, SpecIndex(workspace).scan().diagnostics) == ({}, [])
    workspace.jobs.rmdir()
    catalog = SpecIndex(workspace).scan()
    assert (catalog.jobs, catalog.diagnostics, catalog.complete) == ({}, [], True)


def test_an_entry_says_what_a_list_shows(workspace: Workspace) -> None:
    text = body("nightly", "Night", "labels: {team: a}\ntimezone: UTC\n").replace("{type: manual}", '{type: cron, cron: "@daily"}')
    put(
        workspace,
        "x.job.yml",
        text.replace("{id: command.v1}", '{id: command.v1, version: ">=1"}').replace("runtime: {}", "runtime: {priority: high}"),
    )
    index = SpecIndex(workspace)
    entry = index.scan().jobs["nightly"]
    assert (entry.id, entry.title, entry.target_id, entry.target_version) == ("nightly", "Night", "command.v1", ">=1")
    assert (entry.trigger, entry.timezone, entry.labels) == ({"type": "cron", "cron": "@daily"}, "UTC", {"team": "a"})
    assert (entry.path, entry.priority, entry.max_parallel_runs) == (".lily/jobs/x.job.yml", "high", 1)
    assert entry.digest == spec_hash(index.load("nightly").canonical())


def test_only_job_files_count(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("a"))
    put(workspace, "b.job.yml", body("b"))
    for name in ("c.yaml", "d.job.yaml.bak", ".e.job.yaml", "f.job.json", "README.md"):
        put(workspace, name, body("no"))
    (workspace.jobs / "deeper").mkdir()
    put(workspace, "deeper/g.job.yaml", body("no"))
    catalog = SpecIndex(workspace).scan()
    assert sorted(catalog.jobs) == ["a", "b"]
    assert catalog.diagnostics == []


def test_bad_files_are_named_with_their_lines_and_hide_no_good_one(workspace: Workspace) -> None:
    put(workspace, "good.job.yaml", body("good"))
    put(workspace, "bytes.job.yaml", b"id: a\ntitle: \xff\n")
    put(workspace, "cron.job.yaml", body("cron").replace("{type: manual}", "{type: cron, cron: banana, timezone: UTC}"))
    put(workspace, "key.job.yaml", body("key") + "id: again\n")
    put(workspace, "path.job.yaml", body("../../x"))
    put(workspace, "types.job.yaml", body("types").replace("runtime: {}", 'runtime: {retry_max: "3"}'))
    put(workspace, "empty.job.yaml", "")
    put(workspace, "large.job.yaml", b"# " + b"x" * 300_000)
    put(
        workspace,
        "laughs.job.yaml",
        "a: &a [x, x]\n" + "".join(f"b{n}: &{'a' * (n + 2)} [*{'a' * (n + 1)}, *{'a' * (n + 1)}]\n" for n in range(64)),
    )
    (workspace.jobs / "folder.job.yaml").mkdir()
    os.mkfifo(workspace.jobs / "pipe.job.yaml")
    catalog = SpecIndex(workspace).scan()
    assert list(catalog.jobs) == ["good"]
    told = {each.path.removeprefix(".lily/jobs/").removesuffix(".job.yaml"): (each.line, each.code) for each in catalog.diagnostics}
    assert told == {
        "bytes": (2, Code.JOB_INVALID_SPEC),
        "cron": (5, Code.JOB_TRIGGER_INVALID),
        "key": (8, Code.JOB_INVALID_SPEC),
        "path": (1, Code.JOB_INVALID_SPEC),
        "types": (6, Code.JOB_INVALID_SPEC),
        "empty": (1, Code.JOB_INVALID_SPEC),
        "large": (1, Code.JOB_INVALID_SPEC),
        "laughs": (12, Code.JOB_INVALID_SPEC),
        "folder": (1, Code.JOB_INVALID_SPEC),
        "pipe": (1, Code.JOB_INVALID_SPEC),
    }


def test_two_files_with_one_id_are_both_refused_and_name_each_other(workspace: Workspace) -> None:
    for name in ("one", "two", "three"):
        put(workspace, f"{name}.job.yaml", "# first\n" + body("same", name))
    put(workspace, "other.job.yaml", body("other"))
    index = SpecIndex(workspace)
    catalog = index.scan()
    assert list(catalog.jobs) == ["other"]
    assert [(each.path, each.line, each.column, each.field) for each in catalog.diagnostics] == [
        (f".lily/jobs/{name}.job.yaml", 2, 5, "id") for name in ("one", "three", "two")
    ]
    assert ".lily/jobs/three.job.yaml, .lily/jobs/two.job.yaml" in catalog.diagnostics[0].message
    with pytest.raises(LilyError) as caught:
        index.load("same")
    assert caught.value.code is Code.JOB_INVALID_SPEC
    (workspace.jobs / "one.job.yaml").unlink()
    (workspace.jobs / "three.job.yaml").unlink()
    assert index.scan().jobs["same"].title == "two"


def test_links_are_followed_only_inside_the_jobs_folder(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "outside.job.yaml").write_text(body("outside"))
    put(workspace, "kept.yaml", body("inside"))
    (workspace.jobs / "in.job.yaml").symlink_to("kept.yaml")
    (workspace.jobs / "out.job.yaml").symlink_to(tmp_path / "outside.job.yaml")
    (workspace.jobs / "up.job.yaml").symlink_to("../../outside.job.yaml")
    (workspace.jobs / "gone.job.yaml").symlink_to("nothing")
    (workspace.jobs / "loop.job.yaml").symlink_to("loop.job.yaml")
    index = SpecIndex(workspace)
    catalog = index.scan()
    assert list(catalog.jobs) == ["inside"]
    assert [each.path.rpartition("/")[2] for each in catalog.diagnostics] == [f"{name}.job.yaml" for name in ("gone", "loop", "out", "up")]
    assert "leaves .lily/jobs" in catalog.diagnostics[2].message
    put(workspace, "kept.yaml", body("inside", "Edited"), LONG_AGO + 1)
    assert index.scan().jobs["inside"].title == "Edited"


def test_a_file_that_is_removed_while_the_folder_is_looked_at_is_no_bad_file(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    put(workspace, "a.job.yaml", body("a"))
    listed = ["a.job.yaml", "gone.job.yaml"]
    monkeypatch.setattr(spec_index, "names_in", lambda folder: listed)
    catalog = SpecIndex(workspace).scan()
    assert (list(catalog.jobs), catalog.diagnostics, catalog.claimed) == (["a"], [], {})
    assert list(SpecIndex(workspace).read(listed).records) == ["a.job.yaml"]


def test_the_jobs_folder_itself_may_be_a_link(workspace: Workspace, tmp_path: Path) -> None:
    workspace.jobs.rename(tmp_path / "elsewhere")
    workspace.jobs.symlink_to(tmp_path / "elsewhere")
    put(workspace, "a.yaml", body("a"))
    (workspace.jobs / "a.job.yaml").symlink_to("a.yaml")
    assert list(SpecIndex(workspace).scan().jobs) == ["a"]


def test_a_file_name_that_is_not_utf_8_is_told_and_breaks_nothing(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("a"))
    name = os.fsencode(workspace.jobs) + b"/\xff.job.yaml"
    try:
        with open(name, "wb") as file:
            file.write(body("b").encode())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for _ in range(2):
        catalog = SpecIndex(workspace).scan()
        assert list(catalog.jobs) == ["a"]
        assert [each.path for each in catalog.diagnostics] == [".lily/jobs/\\xff.job.yaml"]
        assert "UTF-8" in catalog.diagnostics[0].message


# -- the cache ---------------------------------------------------------------------------------------


def test_unchanged_files_are_not_read_again_by_this_index_or_the_next(workspace: Workspace) -> None:
    for n in range(5):
        put(workspace, f"{n}.job.yaml", body(f"job-{n}"))
    put(workspace, "bad.job.yaml", "id: [")
    first = SpecIndex(workspace)
    before = first.scan()
    assert first.parsed == 6
    assert first.scan() == before
    assert first.parsed == 6
    second = SpecIndex(workspace)
    assert second.scan() == before
    assert second.parsed == 0
    put(workspace, "3.job.yaml", body("job-3", "Edited"), LONG_AGO + 1)
    assert second.scan().jobs["job-3"].title == "Edited"
    assert second.parsed == 1


def test_an_unchanged_catalog_imports_no_parser_and_no_pydantic(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("a"))
    SpecIndex(workspace).scan()
    program = (
        "import sys; from pathlib import Path; from lily.spec_index import SpecIndex; from lily.workspace import Workspace\n"
        f"assert list(SpecIndex(Workspace(Path({str(workspace.root)!r}))).scan().jobs) == ['a']\n"
        "print([name for name in ('yaml', 'pydantic', 'anyio', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_the_cache_is_the_users_own_and_is_written_only_when_something_changed(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("a"))
    SpecIndex(workspace).scan()
    cache = workspace.runtime / "specs.index"
    assert cache.stat().st_mode & 0o777 == 0o600
    assert workspace.runtime.stat().st_mode & 0o777 == 0o700
    written = cache.stat().st_mtime_ns, cache.stat().st_ino
    SpecIndex(workspace).scan()
    assert (cache.stat().st_mtime_ns, cache.stat().st_ino) == written
    put(workspace, "b.job.yaml", body("b"))
    SpecIndex(workspace).scan()
    assert cache.stat().st_ino != written[1]
    assert [path.name for path in workspace.runtime.iterdir()] == ["specs.index"]
    (workspace.jobs / "a.job.yaml").unlink()
    SpecIndex(workspace).scan()
    assert SpecIndex(workspace).scan().jobs.keys() == {"b"}


@pytest.mark.parametrize("damage", [b"", b"\xff", b"\x92\xa3abc\x80", b"\x81" * 5000, b"not msgpack at all"])
def test_a_damaged_cache_is_made_again(workspace: Workspace, damage: bytes) -> None:
    put(workspace, "a.job.yaml", body("a"))
    SpecIndex(workspace).scan()
    (workspace.runtime / "specs.index").write_bytes(damage)
    index = SpecIndex(workspace)
    assert list(index.scan().jobs) == ["a"]
    assert index.parsed == 1
    again = SpecIndex(workspace)
    again.scan()
    assert again.parsed == 0


def test_a_cache_that_can_not_be_written_costs_time_and_nothing_else(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("a"))
    workspace.runtime.write_text("a file is in the way")
    for _ in range(2):
        index = SpecIndex(workspace)
        assert list(index.scan().jobs) == ["a"]
        assert index.parsed == 1


def test_a_file_that_changed_just_before_it_was_read_is_read_once_more(workspace: Workspace) -> None:
    """A second edit within one tick of the file system's clock leaves the same stamp."""
    clock = Fixed()
    now = clock.at.timestamp()
    path = put(workspace, "a.job.yaml", body("a", "One"), now)
    index = SpecIndex(workspace, clock)
    assert index.scan().jobs["a"].title == "One"
    with path.open("r+b") as file:
        file.write(body("a", "Two").encode())
    os.utime(path, (now, now))
    assert index.scan().jobs["a"].title == "Two"
    assert SpecIndex(workspace, clock).scan().jobs["a"].title == "Two"
    clock.at += timedelta(seconds=1)
    index.scan()
    settled = SpecIndex(workspace, clock)
    settled.scan()
    assert settled.parsed == 0


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["good", "bad", "same", "gone"]), st.booleans()), max_size=12))
def test_what_the_cache_says_is_what_reading_everything_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool]]
) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("w"))
    workspace.jobs.mkdir(parents=True)
    index = SpecIndex(workspace)
    for n, (name, what, restart) in enumerate(steps):
        texts = {"good": body(name, f"Title {n}"), "bad": f"id: [{n}", "same": body("same", f"Title {n}")}
        if what == "gone":
            (workspace.jobs / f"{name}.job.yaml").unlink(missing_ok=True)
        else:
            put(workspace, f"{name}.job.yaml", texts[what], LONG_AGO + n)
        index = SpecIndex(workspace) if restart else index
        found = index.scan()
        (workspace.runtime / "specs.index").rename(workspace.root / "aside") if (workspace.runtime / "specs.index").exists() else None
        fresh = SpecIndex(workspace).scan()
        assert found == fresh
        if (workspace.root / "aside").exists():
            (workspace.root / "aside").rename(workspace.runtime / "specs.index")


# -- one job -----------------------------------------------------------------------------------------


def test_one_job_is_looked_up_without_reading_the_others(workspace: Workspace) -> None:
    for n in range(20):
        put(workspace, f"{n}.job.yaml", body(f"job-{n}"))
    SpecIndex(workspace).scan()
    index = SpecIndex(workspace)
    assert index.load("job-7").title == "A job"
    assert index.parsed == 0


def test_a_job_that_is_not_there_is_not_found_with_close_matches(workspace: Workspace) -> None:
    put(workspace, "a.job.yaml", body("nightly-report"))
    with pytest.raises(LilyError) as caught:
        SpecIndex(workspace).load("nightly-repotr")
    assert caught.value.code is Code.JOB_NOT_FOUND
    assert "nightly-report" in caught.value.hint
    for strange in ("../../x", "", "x" * 500, "\ud800"):
        with pytest.raises(LilyError) as caught:
            SpecIndex(workspace).load(strange)
        assert caught.value.code is Code.JOB_NOT_FOUND


@pytest.mark.parametrize(
    ("name", "text", "code", "where"),
    [
        ("x", body("wanted").replace("runtime: {}", "runtime: {retry_max: 99}"), Code.JOB_INVALID_SPEC, "x.job.yaml:6:22"),
        ("wanted", "id: [", Code.JOB_INVALID_SPEC, "wanted.job.yaml:2:1"),
        ("x", body("wanted").replace("{type: manual}", "{type: corn}"), Code.JOB_TRIGGER_INVALID, "x.job.yaml:5:17"),
    ],
)
def test_asking_for_a_job_whose_file_is_wrong_tells_what_is_wrong(
    workspace: Workspace, name: str, text: str, code: Code, where: str
) -> None:
    put(workspace, f"{name}.job.yaml", text)
    put(workspace, "other.job.yaml", "also: wrong")
    with pytest.raises(LilyError) as caught:
        SpecIndex(workspace).load("wanted")
    assert caught.value.code is code
    assert caught.value.where == f".lily/jobs/{where}"


def test_a_file_that_can_not_be_read_is_told_and_tried_again(workspace: Workspace, unprivileged: Unprivileged) -> None:
    home = unprivileged.folder("spec-index")
    place = Workspace(home)
    for folder in (place.lily, place.jobs):
        folder.mkdir()
    put(place, "a.job.yaml", body("a"))
    locked = put(place, "b.job.yaml", body("b"))
    unprivileged.own(place.lily, place.jobs, place.jobs / "a.job.yaml", locked)
    locked.chmod(0)
    program = (
        "from pathlib import Path; from lily.spec_index import SpecIndex; from lily.workspace import Workspace\n"
        f"index = SpecIndex(Workspace(Path({str(home)!r})))\n"
        "found = index.scan()\n"
        "print(*found.jobs, *[each.path + ' ' + each.message for each in found.diagnostics])\n"
        "(index._workspace.jobs / 'b.job.yaml').chmod(0o600)\n"
        "print(*index.scan().jobs)\n"
        "index._workspace.jobs.chmod(0)\n"
        "found = index.scan()\n"
        "print(found.complete, *[each.message for each in found.diagnostics])\n"
        "try: index.load('a')\n"
        "except Exception as error: print(error.code, error.message)\n"
        "index._workspace.jobs.chmod(0o700)"
    )
    done = unprivileged.run("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a .lily/jobs/b.job.yaml can't be read: Permission denied",
        "a b",
        "False the folder can't be read: Permission denied",
        "job_invalid_spec the folder can't be read: Permission denied",
    ]


def test_a_file_that_can_not_be_read_claims_the_job_of_its_name(workspace: Workspace) -> None:
    """So its last good version goes on also over a restart, as that of any file that turned bad."""
    (workspace.jobs / "folder.job.yaml").mkdir()
    (workspace.jobs / "link.job.yaml").symlink_to("nothing")
    put(workspace, "text.job.yaml", "id: said\ntrigger: [")
    (workspace.jobs / "Not an id.job.yaml").mkdir()
    assert sorted(SpecIndex(workspace).scan().claimed.values()) == ["folder", "link", "said"]


# -- built-in jobs ---------------------------------------------------------------------------------


def test_catalogs_hold_the_built_in_jobs_that_an_index_is_given(tmp_path: Path) -> None:
    """With the JSON that is to be registered; other settings make another catalog, and without them lists are of files alone."""
    workspace = Workspace(tmp_path)
    (tmp_path / ".lily" / "jobs").mkdir(parents=True)
    assert SpecIndex(workspace).scan().jobs == {}
    index = SpecIndex(workspace, own=own_jobs_of(Review()))
    first = index.scan()
    entry = first.jobs[REVIEW]
    assert index.scan() is first
    assert (entry.path, entry.trigger["cron"], index.find(REVIEW)) == ("built in", "30 3 * * *", entry)
    body = index.body(entry)
    assert body is not None
    assert spec_hash(body) == entry.digest
    assert index.load(REVIEW).canonical() == body
    index.hold(own_jobs_of(Review(cron="@daily")))
    assert index.scan().jobs[REVIEW].digest != entry.digest
    assert index.body(entry) is None


@pytest.mark.parametrize("job_id", ["lily.review", "lily.mine"])
def test_a_file_with_an_id_of_lilys_own_is_refused_and_hides_nothing(tmp_path: Path, job_id: str) -> None:
    """The built-in job goes on as it is."""
    workspace = Workspace(tmp_path)
    (tmp_path / ".lily" / "jobs").mkdir(parents=True)
    text = f"id: {job_id}\ntitle: x\ntarget: {{id: command.v1}}\nbindings: {{}}\ntrigger: {{type: manual}}\nruntime: {{}}\noutput: {{}}\n"
    (tmp_path / ".lily" / "jobs" / "mine.job.yaml").write_text(text)
    index = SpecIndex(workspace, own=own_jobs_of(Review()))
    catalog = index.scan()
    assert list(catalog.jobs) == [REVIEW]
    (wrong,) = catalog.diagnostics
    assert (wrong.path, wrong.line, wrong.field, wrong.code) == (".lily/jobs/mine.job.yaml", 1, "id", "job_invalid_spec")
    assert index.load(REVIEW).target.id == "review.v1"
