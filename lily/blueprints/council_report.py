"""The two files that a council leaves: a report for people and the evidence for everyone who doubts it."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lily.blueprints.define import SynthesisRequest
from lily.redaction import here

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~])")


def report(payload: Mapping[str, Any], failures: Mapping[str, str]) -> str:
    """The payload as Markdown: outcome first. The same payload gives the same text."""
    payload, failures = here().data(payload), here().data(failures)  # a service's answer may repeat the key that it was given
    lines = [f"# {_text(payload['topic'])}", "", _text(payload["summary"]), "", "## Findings", ""]
    lines += ["None."] if not payload["ranked_findings"] else []
    for number, one in enumerate(payload["ranked_findings"], 1):
        lines.append(f"{number}. **{_text(one['title'])}** ({one['confidence']:.2f}, {_text(one['source_specialist'])})  ")
        lines.append(f"   {_text(one['recommendation'])}")
    lines += ["", "## Specialists", ""]
    lines += [f"- {_text(name)}: answered" for name in payload["participating_specialists"]]
    lines += [f"- {_text(name)}: failed: {_text(failures[name])}" for name in payload["failed_specialists"]]
    if payload["fallback_used"]:
        lines += ["", "The language model failed; the deterministic synthesizer took over."]
    return "\n".join(lines) + "\n"


def _text(given: str) -> str:
    """Words of others on one line, never read as markup."""
    return _MARKUP.sub(r"\\\1", " ".join(given.split()))


def evidence(
    request: SynthesisRequest,
    payload: Mapping[str, Any],
    *,
    answers: Mapping[str, Any],
    failures: Mapping[str, str],
    synthesizer: str,
    strategy: str,
    llm_error: str | None,
) -> bytes:
    """Everything that led to the payload, as JSON: what was asked, each answer or reason, and who put it together."""
    body = {
        "topic": request.topic,
        "context": list(request.context),
        "answers": dict(answers),
        "failures": dict(failures),
        "synthesizer": synthesizer,
        "synth_strategy": strategy,
        "llm_error": llm_error,
        "max_findings": request.max_findings,
        "ranked_findings": payload["ranked_findings"],
    }
    return msgspec.json.format(msgspec.json.encode(here().data(body), order="deterministic"), indent=2) + b"\n"
