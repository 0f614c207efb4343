"""Job files: parse, validate, say what is wrong."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from lily import samples
from lily.diagnostics import Diagnostic, to_error
from lily.errors import Code
from lily.render import diagnostic_line
from lily.runs import decode_spec
from lily.spec_index import entry_of
from lily.specs import JobSpec, parse, spec_hash
from lily.triggers.schedule import schedule_of
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import bent, job, yaml_of

PATH = ".lily/jobs/x.job.yaml"
_CODES = (Code.JOB_INVALID_SPEC, Code.JOB_TRIGGER_INVALID)
_LONGEST = 2000  # characters of what is said of one thing
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
WORDS = rb"""id: title: target: bindings: trigger: timezone: capabilities: runtime: output: approval: labels: type: cron
interval once calendar condition manual every: anchor: at: rrule: exclude: dates: start_at: end_at:
jitter_seconds: catch_up: overlap: subject: operator: value: mode: kind: path: url: query: Europe/Berlin UTC
@daily 15m 1mo 2026-05-04T09:00:00Z FREQ=DAILY ;COUNT=3 ;BYDAY=MO */5 mon-fri retry_max: timeout_seconds:
backoff: !!str !!float &a *a << | > ? - : # [ ] { } "" '' ~ null true 0x1f 1e3 .inf 010""".split()


class Specs:
    """Whatever a file says, it is a job that means the same when it is written again, or there is a list of what is wrong, and where."""

    name = "specs"
    words: Sequence[bytes] = WORDS
    seconds = 2.0

    def __init__(self) -> None:
        folder = Path(samples.__file__).parent / "jobs"
        self.corpus: Sequence[bytes] = [path.read_bytes() for path in sorted(folder.iterdir())]

    def fresh(self, rng: random.Random) -> bytes:
        """A job file."""
        made = job(rng)
        while rng.random() < 0.4:
            made = bent(rng, made)
            if not isinstance(made, dict):
                break
        return yaml_of(rng, made).encode("utf-8", "surrogatepass")

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        found = parse(given, PATH)
        return self._accepted(found) if isinstance(found, JobSpec) else self._refused(found, given)

    def _accepted(self, spec: JobSpec) -> str:
        canonical = spec.canonical()
        again = JobSpec.model_validate_json(canonical)  # no YAML, in which some characters may stand only as escapes
        if again.canonical() != canonical or again != spec:
            raise Broken("a job that is written again is another one")
        decode_spec(canonical)
        entry_of(spec, spec_hash(canonical), PATH, (1, 1), spec_hash(canonical))
        if spec.trigger.type != "manual":
            schedule_of(json.loads(canonical)["trigger"], spec.timezone)
        return f"accepted {spec.trigger.type} {sorted(spec.model_fields_set)} {sorted(spec.trigger.model_fields_set)}"

    def _refused(self, found: list[Diagnostic], given: bytes) -> str:
        if not found:
            raise Broken("refused without a word")
        lines = given.count(b"\n") + given.count(b"\r") + given.count(b"\xc2\x85") + given.count(b"\xe2\x80") + 1
        for each in found:
            said = (each.field, each.message, each.hint)
            if each.code not in _CODES or not each.message or not (1 <= each.line <= lines + 1 and each.column >= 1):
                raise Broken(f"a diagnostic without a code, a text or a place: {each}")
            if any(_UNSAFE.search(text) for text in said):
                raise Broken(f"a diagnostic that a terminal obeys: {each}")
            if len(each.message) + len(each.hint) > _LONGEST:
                raise Broken(f"a diagnostic of {len(each.message)} characters")
            diagnostic_line(each)
        json.dumps(to_error(found).to_dict()).encode()
        shapes = sorted({f"{each.field} {re.sub(r'[^a-z ]', '', each.message)[:30]}" for each in found})
        return f"refused {shapes[:3]}"

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """Nothing is held."""


def target() -> Specs:
    """For the command line."""
    return Specs()
