"""`lily jobs schema`: the published JSON Schemas."""

from typing import Annotated

from lily.cli import output
from lily.cli.options import flag, usage


def schema(
    *,
    receipt: Annotated[bool, flag("--receipt", "The schema of run_receipt.json.")] = False,
    event: Annotated[bool, flag("--event", "The schema of a line of events.jsonl.")] = False,
) -> int:
    """Print the JSON Schema of job files, with which editors complete and check them; or of what a run leaves."""
    from lily.schemas import event_schema, job_schema, receipt_schema, text_of

    if receipt and event:
        raise usage("--receipt and --event are two schemas", "give one of them")
    made = receipt_schema() if receipt else event_schema() if event else job_schema()
    output.put(text_of(made).rstrip("\n"))
    return 0
