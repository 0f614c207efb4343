"""`lily jobs new`: a first job file for a blueprint."""

import os
from typing import Annotated, Any

from cyclopts import Parameter

from lily.cli import output
from lily.cli.options import Place
from lily.cli.yaml_text import scalar, to_yaml
from lily.errors import Code, LilyError
from lily.workspace import Workspace, find_workspace, is_job_id

_OPTIONAL = """
# More that a job may say; the values shown are the defaults:
#
# runtime:
#   timeout_seconds: 300        # of each attempt
#   retry_max: 0                # further attempts after a failure that another attempt could mend
#   backoff: {strategy: exponential, base_seconds: 60, max_seconds: 3600, jitter: 0}
#   max_parallel_runs: 1        # runs of this job at a time
# output:
#   artifacts: []               # patterns of files that a run must leave, such as "*.csv"
# labels: {}                    # text to text, for your own filters
"""


def new(
    job_id: Annotated[str, Parameter(name="ID", help="The new job's id.")],
    /,
    *,
    blueprint: Annotated[str, Parameter(name="--blueprint", help="The blueprint's id, such as command.v1.")],
    title: Annotated[str | None, Parameter(name="--title", help="One line that says what the job is for.")] = None,
    workspace: Place = None,
) -> int:
    """Write a commented job file that runs the blueprint's example. A file or an id that is there is never overwritten."""
    from lily.blueprints.registry import Registry
    from lily.spec_index import SpecIndex
    from lily.specs import parse

    place = find_workspace(workspace)
    if not is_job_id(job_id):
        hint = "lower-case letters, digits, dots, dashes and underscores; a letter or digit first"
        raise LilyError(Code.JOB_INVALID_SPEC, f"{job_id[:128]!r} can't be a job id", hint=hint)
    taken = SpecIndex(place).scan().jobs.get(job_id)
    if taken is not None:
        raise LilyError(Code.JOB_INVALID_SPEC, f"there is a job {job_id} already", where=taken.path, hint="choose another id")
    told = Registry(place.blueprints).describe(blueprint)
    text = job_text(job_id, title, told)
    path = f".lily/jobs/{job_id}.job.yaml"
    wrong = parse(text, path)
    if isinstance(wrong, list):
        from lily.diagnostics import to_error

        raise to_error(wrong)
    _write(place, path, text)
    output.put(path)
    output.tell(f"edit it, then `lily jobs validate {job_id}` and `lily jobs run {job_id}`")
    return 0


def job_text(job_id: str, title: str | None, told: dict[str, Any]) -> str:
    """The file's text, from what `Registry.describe` says of the blueprint."""
    job = {**told["example_job"], "id": job_id}
    job["title"] = title or f"Run {told['id']}"
    lines = [f"# {' '.join(str(told['summary']).split())}", f"# `lily blueprints show {told['id']}` prints what it takes."]
    for key in ("id", "title", "target"):
        lines += to_yaml({key: job[key]})
    lines += [f"bindings:{'' if job['bindings'] else ' {}'}", *to_yaml(job["bindings"], 1)]
    lines.append("capabilities: " + scalar(job["capabilities"]) + "  # what the job lets its target do")
    lines += ["trigger: {type: manual}", f"runtime: {scalar(job['runtime'])}", f"output: {scalar(job['output'])}"]
    return "\n".join(lines) + "\n" + _OPTIONAL


def _write(place: Workspace, path: str, text: str) -> None:
    place.jobs.mkdir(mode=0o700, exist_ok=True)
    try:
        fd = os.open(place.root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise LilyError(Code.JOB_INVALID_SPEC, "there is such a file already", where=path, hint="remove it, or choose another id") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
