"""The built-in blueprints, specialists, synthesizers and subjects: what a listing says of them, and the module that holds each.

The modules are imported when one is used, not to list them; a test compares these rows with the objects.
"""

from typing import NamedTuple

BLUEPRINT, SPECIALIST, SYNTHESIZER, SUBJECT = "blueprint", "specialist", "synthesizer", "subject"


class Row(NamedTuple):
    """A built-in thing, before its module is imported."""

    kind: str
    id: str
    version: str
    summary: str
    capabilities: tuple[str, ...]
    module: str


_HERE = "lily.blueprints"
_LOOKS = "lily.conditions"

BUILT_IN: tuple[Row, ...] = (
    Row(BLUEPRINT, "command.v1", "1.0.0", "Run a program with arguments.", ("process.exec",), f"{_HERE}.command"),
    Row(BLUEPRINT, "python.v1", "1.0.0", "Call a Python function in a process of its own.", ("process.exec",), f"{_HERE}.python"),
    Row(BLUEPRINT, "http.v1", "1.0.0", "Send one HTTP request and check the answer.", ("net.http",), f"{_HERE}.http"),
    Row(
        BLUEPRINT,
        "council.v1",
        "1.0.0",
        "Ask several specialists at once and put their findings in order.",
        ("net.http",),
        f"{_HERE}.council",
    ),
    Row(BLUEPRINT, "pipeline.v1", "1.0.0", "Run named steps, each a blueprint, in the order of their needs.", (), f"{_HERE}.pipeline"),
    Row(
        BLUEPRINT,
        "plan_execute_verify.v1",
        "1.0.0",
        "Plan, execute and verify, in rounds, until the verdict is pass.",
        (),
        f"{_HERE}.plan_execute_verify",
    ),
    Row(BLUEPRINT, "review.v1", "1.0.0", "Look at all jobs for what went unnoticed.", (), f"{_HERE}.review"),
    Row(SPECIALIST, "security.v1", "", "Looks for secrets, access, input and exposure.", (), f"{_HERE}.council_default"),
    Row(SPECIALIST, "operations.v1", "", "Looks for roll-back, monitoring, capacity and recovery.", (), f"{_HERE}.council_default"),
    Row(SYNTHESIZER, "default.v1", "", "Counts and ranks; the same findings give the same text.", (), f"{_HERE}.council_default"),
    Row(SYNTHESIZER, "openai.v1", "", "Asks a model behind an OpenAI-compatible API.", (), f"{_HERE}.llm"),
    Row(
        SUBJECT, "file", "", "A file: whether it exists, its size, time or digest; how many fit a pattern.", ("fs.read",), f"{_LOOKS}.files"
    ),
    Row(SUBJECT, "http", "", "The status of a GET, or a value in the JSON of its answer.", ("net.http",), f"{_LOOKS}.http"),
    Row(SUBJECT, "run", "", "How the last run of a job ended, how long ago, and failures in a row.", (), f"{_LOOKS}.own"),
    Row(SUBJECT, "queue", "", "How many runs wait, and how many dead letters there are.", (), f"{_LOOKS}.own"),
    Row(SUBJECT, "env", "", "A variable of the supervisor's environment.", (), f"{_LOOKS}.own"),
    Row(SUBJECT, "sqlite", "", "One value that a query reads from an SQLite file.", ("fs.read",), f"{_LOOKS}.sqlite"),
    Row(SUBJECT, "clock", "", "The time of the look, in the job's zone.", (), f"{_LOOKS}.own"),
)
