"""`lily review`: what is printed, what is refused, and the built-in job among the commands for jobs."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lily.ledger import State
from lily.review import Kind, Thresholds, findings
from tests.cli.conftest import Lily, write_job
from tests.cli.ledgers import ledger
from tests.contract.conform import check_fits
from tests.contract.test_docs import help_of
from tests.pure.test_review import CASES, NOW, job

GONE: dict[str, Any] = {"target": {"kind": "blueprint", "id": "nobody.v1"}}
ID = "disabled_target:gone"


@pytest.fixture
def gone(workspace: Path, lily: Lily) -> Path:
    """A workspace with one finding."""
    write_job(workspace, "well")
    path = write_job(workspace, "gone", **GONE)
    assert lily("review", "run").status == 0
    return path


def test_a_review_prints_what_it_found_and_what_changed(lily: Lily, workspace: Path) -> None:
    """A table on stdout, a line of counts on stderr; findings do not change the exit status."""
    write_job(workspace, "well")
    said = lily("review", "run")
    assert (said.status, said.out, said.err) == (0, "", "1 job looked at; nothing found\n")
    path = write_job(workspace, "gone", **GONE)
    said = lily("review", "run")
    assert re.search(rf"^{ID} +medium +open .* it can't run: there is no blueprint nobody.v1$", said.out, re.MULTILINE)
    assert (said.status, said.err) == (0, "2 jobs looked at; 1 medium (1 new)\n")
    path.unlink()
    assert lily("review", "run").err == "1 job looked at; nothing found (1 gone)\n"


@pytest.mark.usefixtures("workspace")
def test_without_a_review_the_list_says_so_and_makes_no_store(lily: Lily, workspace: Path) -> None:
    """Looking changes nothing."""
    said = lily("review", "list")
    assert (said.status, said.out) == (0, "")
    assert said.err.startswith("no review yet: `lily review run`")
    assert lily("review", "list", "--json").json == {
        "last": None,
        "counts": {"high": 0, "medium": 0, "low": 0, "acknowledged": 0},
        "findings": [],
        "total": 0,
    }
    assert not (workspace / "db").exists()


def test_the_list_can_be_narrowed(lily: Lily, workspace: Path) -> None:
    """By job, kind, number, and whether somebody acknowledged it; the total counts all."""
    for name in ("a", "b", "c"):
        write_job(workspace, name, **GONE)
    lily("review", "run")
    lily("review", "ack", "disabled_target:b", "--reason", "r")

    def ids(*options: str) -> list[str]:
        found = lily("review", "list", *options, "--json").json
        assert found["total"] == 3
        return [each["id"].partition(":")[2] for each in found["findings"]]

    assert ids() == ["a", "c", "b"]
    assert ids("--open") == ["a", "c"]
    assert ids("--job", "b") == ["b"]
    assert ids("--kind", "orphaned") == ids("--closed") == []
    assert ids("--limit", "1") == ["a"]
    assert "1 of 3; --limit shows more" in lily("review", "list", "--limit", "1").err
    (workspace / ".lily/jobs/a.job.yaml").unlink()
    lily("review", "run")
    found = lily("review", "list", "--closed", "--json").json
    assert ([each["id"] for each in found["findings"]], found["total"]) == (["disabled_target:a"], 2)


def test_a_finding_is_shown_with_its_evidence_and_what_mends_it(lily: Lily, gone: Path) -> None:
    """And with who acknowledged it, until when, and that it is gone."""
    shown = lily("review", "show", ID)
    assert shown.status == 0
    assert re.search(r"^to mend it +lily jobs validate gone$", shown.out, re.MULTILINE)
    assert re.search(r"^ +target +nobody.v1$", shown.out, re.MULTILINE)
    assert lily("review", "ack", ID, "--reason", "soon", "--until", "7d").status == 0
    assert re.search(r"^acknowledged +by \S+ at .*, until .*: soon$", lily("review", "show", ID).out, re.MULTILINE)
    gone.unlink()
    lily("review", "run")
    assert re.search(r"^state +gone since ", lily("review", "show", ID).out, re.MULTILINE)


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("show", "failing:gone"), 3, "finding_not_found: no review found 'failing:gone'"),
        (("show", "gone"), 3, "finding_not_found: no review found 'gone'"),
        (("show", "rusty:gone"), 3, "finding_not_found"),
        (("show", "failing:\udcff"), 3, "finding_not_found"),
        (("ack", "failing:../x", "--reason", "r"), 3, "finding_not_found"),
        (("ack", "failing:gone", "--reason", "r"), 3, "finding_not_found"),
        (("ack", ID), 2, "usage"),
        (("ack", ID, "--reason", " "), 2, "usage: --reason is text of 1 to 1000 characters"),
        (("ack", "--reason", "r"), 2, "usage: which finding?"),
        (("ack", ID, "--reason", "r", "--until", "yesterday"), 2, "usage: --until"),
        (("ack", ID, "--reason", "r", "--until", "2020-01-01"), 2, "usage: --until: 2020-01-01 is in the past"),
        (("unack", "failing:gone"), 3, "finding_not_found: no review found 'failing:gone'"),
        (("unack", ID), 3, f"finding_not_found: nobody has acknowledged {ID}"),
        (("unack",), 2, "usage: which finding?"),
        (("unack", ID, "--reason", "x" * 1001), 2, "usage: --reason"),
        (("list", "--open", "--closed"), 2, "usage: --open and --closed"),
        (("list", "--kind", "rusty"), 2, "usage"),
        (("list", "--limit", "0"), 2, "usage: --limit"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(lily: Lily, words: tuple[str, ...], status: int, said: str) -> None:
    """With a code, and the exit status of that code."""
    found = lily("review", *words)
    assert (found.status, found.out, found.err.count("\n")) == (status, "", 1)
    assert found.err.startswith(said)


def test_an_acknowledgement_can_be_taken_back(lily: Lily, gone: Path) -> None:
    """The finding is open again, as if nobody had ever acknowledged it; the audit has who did, and who took it back."""
    never = lily("review", "list", "--json").json["findings"]
    lily("review", "ack", ID, "--reason", "soon", "--until", "7d")
    said = lily("review", "unack", ID, "--reason", "it was another job", "--json")
    assert said.status == 0, said
    check_fits("cli-review-unack", said.json)
    assert said.json["findings"] == lily("review", "list", "--open", "--json").json["findings"] == never
    newest, acked = lily("audit", "list", "--limit", "2", "--json").json["audit"]
    assert (newest["action"], newest["reason"], newest["job_id"]) == ("review.unack", "it was another job", "gone")
    assert newest["before"] == {name: acked["after"][name] for name in newest["before"]}
    assert newest["after"]["by"] == ""
    assert lily("review", "unack", ID).status == 3
    assert lily("review", "ack", ID, "--reason", "again").status == 0
    assert "open" in lily("review", "unack", ID).out


def test_what_is_gone_can_not_be_acknowledged_any_more(lily: Lily, gone: Path) -> None:
    """The line says since when."""
    gone.unlink()
    lily("review", "run")
    said = lily("review", "ack", ID, "--reason", "r")
    assert (said.status, f"{ID} is gone since 20" in said.err) == (3, True)


def test_every_command_that_a_finding_names_exists() -> None:
    """Whoever reads it types it."""
    named = {
        command.strip()
        for changes, _ in CASES
        for found in findings(job(**changes), Thresholds(), NOW)
        for command in (*found.look.split(";"), *found.mend.split(";"))
    }
    assert len(named) >= len(Kind)
    for command in named:
        words = [word for word in command.split()[1:3] if word not in ("a", "--job")]
        assert help_of(*words), command


# -- the built-in job ------------------------------------------------------------------------------


def test_the_built_in_job_stands_beside_the_files_in_a_list(lily: Lily, workspace: Path) -> None:
    """Not among them: what is said of files stays true."""
    said = lily("jobs", "list")
    assert (said.status, said.out) == (0, "")
    assert "no jobs yet" in said.err
    assert "built in: lily.review (cron 30 3 * * * UTC catch_up=latest)" in said.err
    found = lily("jobs", "list", "--json").json
    assert (found["jobs"], [each["id"] for each in found["built_in"]]) == ([], ["lily.review"])
    assert lily("schedule", "list", "--json").json == {"schedules": []}
    assert lily("jobs", "plan").out == "nothing would change\n"
    (workspace / ".lily" / "config.yaml").write_text("review: {enabled: false}\n")
    assert "built in: lily.review (manual)" in lily("jobs", "list").err


@pytest.mark.usefixtures("workspace")
@pytest.mark.e2e
def test_the_built_in_job_is_shown_checked_paused_and_run_like_any_other(lily: Lily) -> None:
    """By its id; and its runs have a history."""
    shown = lily("jobs", "show", "lily.review", "--json").json
    assert (shown["path"], shown["spec"]["target"]["id"]) == ("built in", "review.v1")
    assert "lily.review is right" in lily("jobs", "validate", "lily.review").out
    assert lily("jobs", "next", "lily.review", "--json").json["windows"][0]["utc"].endswith("T03:30:00.000000Z")
    assert lily("jobs", "why", "lily.review").status == 0
    assert lily("jobs", "run", "lily.review", "--dry-run").status == 0
    assert lily("jobs", "pause", "lily.review", "--reason", "loud").status == 0
    assert lily("jobs", "next", "lily.review", "--json").json["windows"][0]["skipped"] == "paused"
    assert lily("jobs", "run", "lily.review").status == 0
    (run,) = lily("jobs", "history", "lily.review", "--json").json["runs"]
    assert run["status"] == "succeeded"
    assert lily("review", "list", "--json").json["last"]["run_id"] == run["run_id"]
    said = lily("jobs", "show", "lily.nothing")
    assert (said.status, "job_not_found" in said.err) == (3, True)


def test_a_job_file_can_not_take_an_id_of_lilys_own(lily: Lily, workspace: Path) -> None:
    """It is refused with its line, hides no other, and the built-in job goes on."""
    write_job(workspace, "lily.review", name="mine")
    write_job(workspace, "a")
    said = lily("jobs", "validate")
    assert (said.status, "ids that begin with `lily.` are Lily's own: lily.review" in said.out + said.err) == (1, True)
    assert ".lily/jobs/mine.job.yaml:2:" in said.out + said.err
    found = lily("jobs", "list", "--json").json
    assert ([each["id"] for each in found["jobs"]], len(found["diagnostics"])) == (["a"], 1)
    assert lily("jobs", "run", "lily.review").status == 0


def test_a_registered_review_is_in_the_list_of_schedules_and_drifts_from_nothing(lily: Lily, workspace: Path) -> None:
    """No file holds it, and that is how it has to be."""
    write_job(workspace, "a", trigger={"type": "cron", "cron": "0 * * * *"}, timezone="UTC")
    with ledger(workspace) as made:
        from lily.own_jobs import REVIEW, own_jobs
        from lily.storage.windows import Registration

        made.register("a")
        own = own_jobs(made.workspace)[REVIEW]
        made.windows.register([Registration(REVIEW, own.spec.trigger, own.spec.timezone, own.digest, own.canonical)], made.now)
        made.change(REVIEW, State.PAUSED, reason="loud", until=timedelta(days=36_500))
    rows = {each["job_id"]: each for each in lily("schedule", "list", "--json").json["schedules"]}
    assert (rows[REVIEW]["note"], rows[REVIEW]["state"], rows["a"]["note"]) == ("built in", "paused", "")
    assert lily("schedule", "status", "--json").json["drift"]["file_gone"] == []
    assert lily("jobs", "plan").out == "nothing would change\n"
    assert lily("schedule", "rebuild", "--json").json["will_register"] == ["a", REVIEW]


def test_settings_of_the_review_are_checked(lily: Lily, workspace: Path) -> None:
    """With the place, and what is accepted."""
    config = workspace / ".lily" / "config.yaml"
    for text, said in (
        ("review: {cron: banana}", 'review.cron: found "banana"; accepted: five fields'),
        ("review: {cron: 0 0 31 2 *}", "review.cron"),
        ("review: {timezone: Mars/Base}", 'review.timezone: found "Mars/Base"; accepted: an IANA zone'),
        ("review: {failures: 0}", "review.failures"),
        ("review: {daily: true}", "review.daily: unknown key `daily`"),
    ):
        config.write_text(text)
        found = lily("config", "validate")
        assert (found.status, said in found.err + found.out) == (3, True), found
        listed = lily("jobs", "list")
        assert (listed.status, said in listed.err) == (0, True)
    config.write_text("review: {cron: '@daily', timezone: Europe/Lisbon, paused_days: 3}")
    spec = lily("jobs", "show", "lily.review", "--json").json["spec"]
    assert (spec["trigger"]["cron"], spec["timezone"], spec["bindings"]["paused_days"]) == ("@daily", "Europe/Lisbon", 3.0)


def test_open_findings_of_high_severity_are_a_warning_in_health(lily: Lily, workspace: Path) -> None:
    """Until they are acknowledged or gone."""

    def level() -> str:
        return str(next(check["level"] for check in lily("health", "--json").json["checks"] if check["name"] == "review"))

    assert level() == "healthy"
    write_job(workspace, "gone", trigger={"type": "cron", "cron": "0 * * * *"}, timezone="UTC", **GONE)
    lily("review", "run")
    assert level() == "warning"
    lily("review", "ack", ID, "--reason", "r")
    assert level() == "healthy"
    assert json.dumps(lily("review", "list", "--json").json["counts"]) == '{"high": 0, "medium": 0, "low": 0, "acknowledged": 1}'
