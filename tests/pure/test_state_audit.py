"""What the audit says of runs that are submitted together."""

import pytest

from lily.identity import Actor
from lily.runs import Run, Status
from lily.storage.state_audit import Submission


def run(job_id: str, number: int) -> Run:
    return Run(
        run_id=f"r{number}", job_id=job_id, status=Status.QUEUED, spec_hash="h", trigger={}, queued_at="q", enqueued_at="q", trace_id="t"
    )


@pytest.mark.parametrize(
    ("jobs", "about", "after"),
    [
        (["a"], ("r0", "a"), None),
        (["a", "a"], ("", "a"), {"runs": 2, "first": "r0", "last": "r1", "jobs": {"a": 2}}),
        (["a", "b", "a"], ("", ""), {"runs": 3, "first": "r0", "last": "r2", "jobs": {"a": 2, "b": 1}}),
    ],
)
def test_a_batch_is_one_row_and_of_a_job_only_where_all_of_it_is(jobs: list[str], about: tuple[str, str], after: object) -> None:
    """Whoever asks what was done to a job is not told of others, and each run that is alone is named."""
    change = Submission(actor=Actor(name="ada")).change([run(job_id, number) for number, job_id in enumerate(jobs)])
    assert (change.object, change.job_id) == about
    if after is not None:
        assert change.after == after
