"""Nothing that Lily writes or deletes leaves its folder: by a name, by a link that is there, or by one that is put there meanwhile."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.errors import Code, LilyError
from lily.storage.files import make_inner_folder, open_folder, put_file, remove_folder
from lily.workspace import Workspace, is_artifact_name, is_job_id, is_run_id
from tests.real.house import House

RUN = "20260504T041500.123456Z-k3f9"
HOSTILE = st.text(st.sampled_from("./\\\0-_~ab\n:é%"), max_size=12) | st.sampled_from(
    ["..", ".", "", "../x", "a/../../b", "/etc/passwd", "a\0b"]
)


@given(HOSTILE)
def test_no_name_leads_out_of_its_folder(text: str) -> None:
    """Of job ids, run ids and artifacts' names, whatever is accepted is one plain step down."""
    workspace = Workspace(Path("/w"))
    if is_job_id(text):
        assert workspace.job_dir(text).parent == workspace.runs
    else:
        with pytest.raises(LilyError) as caught:
            workspace.job_dir(text)
        assert caught.value.code is Code.JOB_NOT_FOUND
    if is_run_id(text):
        assert workspace.run_dir("a", text).parent == workspace.job_dir("a")
    else:
        with pytest.raises(LilyError) as caught:
            workspace.run_dir("a", text)
        assert caught.value.code is Code.RUN_NOT_FOUND
    if is_artifact_name(text):
        assert os.path.normpath(f"/w/{text}") == f"/w/{text}"
        assert "/" not in text


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder elsewhere, with a run in it that is none of Lily's."""
    folder = tmp_path / "outside"
    (folder / RUN).mkdir(parents=True)
    (folder / RUN / "precious").write_text("stays")
    return folder


def precious(outside: Path) -> bool:
    return (
        (outside / RUN / "precious").read_text() == "stays" and os.listdir(outside) == [RUN] and os.listdir(outside / RUN) == ["precious"]
    )


class TestLinks:
    def test_a_jobs_folder_that_is_a_link_is_neither_written_nor_removed_through(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "job").symlink_to(outside)
        for attempt in (
            lambda: make_inner_folder(tmp_path / "job" / "new"),
            lambda: open_folder(tmp_path / "job" / RUN, create=False).__enter__(),
            lambda: open_folder(tmp_path / "job" / "new", create=True).__enter__(),
            lambda: remove_folder(tmp_path / "job" / RUN),
        ):
            with pytest.raises(NotADirectoryError):
                attempt()
        assert precious(outside)

    def test_of_a_runs_folder_that_is_a_link_only_the_link_is_removed(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "job" / RUN).symlink_to(outside / RUN)
        remove_folder(tmp_path / "job" / RUN)
        assert not os.path.lexists(tmp_path / "job" / RUN)
        assert precious(outside)

    def test_a_link_inside_of_a_run_goes_with_it_and_what_it_names_stays(self, tmp_path: Path, outside: Path) -> None:
        folder = tmp_path / "job" / RUN
        folder.mkdir(parents=True)
        (folder / "link").symlink_to(outside / RUN)
        (folder / "deep").mkdir()
        (folder / "deep" / "link").symlink_to(outside)
        remove_folder(folder)
        remove_folder(folder)  # what is gone is gone
        assert not folder.exists()
        assert precious(outside)

    def test_of_a_folder_to_which_the_way_leads_nowhere_it_is_not_said_that_it_is_gone(self, tmp_path: Path) -> None:
        """Its disk is not mounted; without anything in the way, nothing is there to remove."""
        (tmp_path / "runs").symlink_to(tmp_path / "disk")
        with pytest.raises(FileNotFoundError):
            remove_folder(tmp_path / "runs" / "job" / RUN)
        remove_folder(tmp_path / "none" / "job" / RUN)
        (tmp_path / "disk").mkdir()
        remove_folder(tmp_path / "runs" / "job" / RUN)

    def test_a_file_is_replaced_and_never_written_through_the_link_in_its_place(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "summary.md").symlink_to(outside / RUN / "precious")
        with open_folder(tmp_path, create=False) as folder:
            put_file(folder, "summary.md", b"mine")
        assert (tmp_path / "summary.md").read_text() == "mine"
        assert precious(outside)

    @pytest.mark.e2e
    def test_a_folder_that_is_swapped_for_a_link_again_and_again_is_never_left(self, tmp_path: Path, outside: Path) -> None:
        """Whatever is written while somebody swaps the job's folder for a link: nothing of it arrives behind the link."""
        job, real = tmp_path / "job", tmp_path / "real"
        real.mkdir()
        over = threading.Event()

        def swap() -> None:
            ways: list[tuple[Callable[..., None], tuple[Path, ...]]] = [
                (os.rename, (real, job)),
                (os.rename, (job, real)),
                (os.symlink, (outside, job)),
                (os.unlink, (job,)),
            ]
            while not over.is_set():
                for way, paths in ways:
                    with suppress(OSError):
                        way(*paths)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            for number in range(3000):
                try:
                    with open_folder(job / f"run-{number % 7}", create=number % 2 == 0) as folder:
                        put_file(folder, "file", b"mine")
                    remove_folder(job / f"run-{number % 5}")
                    remove_folder(job / RUN)
                except OSError:
                    continue
        finally:
            over.set()
            swapper.join()
        assert precious(outside)


class TestCommands:
    def ran(self, house: House) -> Path:
        house.job("hello", "true")
        assert house.lily("jobs", "run", "hello").status == 0
        return house.workspace.run_dir("hello", house.only_run().run_id)

    @pytest.mark.parametrize("above", [False, True], ids=["run", "job"])
    @pytest.mark.e2e
    def test_prune_removes_nothing_behind_a_link(self, house: House, outside: Path, above: bool) -> None:
        folder = self.ran(house)
        if above:
            folder.parent.rename(house.root / "aside")
            folder.parent.symlink_to(outside)
            (outside / folder.name).mkdir()
            (outside / folder.name / "precious").write_text("stays")
        else:
            folder.rename(house.root / "aside")
            folder.symlink_to(outside / RUN)
        assert house.lily("runs", "prune", "--keep", "0").status == 0
        assert (outside / RUN / "precious").read_text() == "stays"
        assert not above or (outside / folder.name / "precious").read_text() == "stays"
        assert house.store.runs() == []

    @pytest.mark.e2e
    def test_the_next_run_moves_a_link_aside_and_has_its_files(self, house: House, outside: Path) -> None:
        folder = self.ran(house)
        assert house.lily("runs", "prune", "--keep", "0").status == 0  # else its receipt would be missed, and rightly
        folder.parent.rename(house.root / "aside")
        folder.parent.symlink_to(outside)
        house.up()
        run_id = house.submit("hello")
        receipt = house.until_ended(run_id)
        assert receipt.run_id == run_id
        assert precious(outside)

    def test_reading_where_a_link_stands_gives_one_clear_line(self, house: House, outside: Path) -> None:
        folder = self.ran(house)
        folder.parent.rename(house.root / "aside")
        folder.parent.symlink_to(outside)
        for command in (["jobs", "tail", "hello"], ["runs", "show", folder.name], ["jobs", "history", "hello"], ["store", "export"]):
            said = house.lily(*command)
            assert "internal_error" not in said.err
            assert "Traceback" not in said.err
        assert precious(outside)

    @pytest.mark.parametrize("name", ["../../x", "..", "a/b", "x\ny", "%2e%2e"])
    def test_hostile_ids_are_not_found(self, house: House, name: str) -> None:
        for command in (
            ["jobs", "show", name],
            ["jobs", "tail", name],
            ["runs", "show", name],
            ["runs", "cancel", name],
            ["jobs", "run", name],
        ):
            said = house.lily(*command)
            assert said.status == 3, said.err
            assert len(said.err.splitlines()) == 1


SAYS = """
import lily
@lily.blueprint("writes.v1", version="1.0.0", capabilities={"process.exec"})
async def writes(ctx, bindings, run_input):
    from lily.blueprints.contract import ProcessRequest
    refused = []
    for name in ("../x", "a/b", "..", "run_receipt.json", ".hidden", "x" * 300):
        try:
            with ctx.artifact(name):
                pass
        except lily.BlueprintError as error:
            refused.append(error.code)
        try:
            await ctx.run_process(ProcessRequest(argv=["true"], log_prefix=name + "/"))
        except lily.BlueprintError as error:
            refused.append(error.code)
    return lily.Envelope(payload=refused)
"""


def test_a_blueprint_can_name_no_file_outside_of_its_folder(house: House) -> None:
    (house.root / ".lily" / "blueprints" / "writes.py").write_text(SAYS)
    house.job("writes", target="writes.v1", bindings={})
    before = listing(house.root)
    assert house.lily("jobs", "run", "writes").status == 0
    payload: Any = house.receipt(house.only_run().run_id).payload
    assert payload == ["artifact_name_invalid"] * 12
    assert {path for path in listing(house.root) - before if not path.startswith((".lily/run", "db", "logs/"))} == set()


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if "__pycache__" not in path.parts}
