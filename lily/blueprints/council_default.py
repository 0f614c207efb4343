"""The council's own members: two specialists that look for well-known gaps, and the synthesizer that counts and ranks.

They read words, not meaning: the same topic and context always give the same findings.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from lily.blueprints.contract import Context
from lily.blueprints.define import Finding, Synthesis, SynthesisRequest, specialist, synthesizer
from lily.blueprints.findings import in_order
from lily.blueprints.schemas import one_line


class Rule(NamedTuple):
    """What to look for. `seen`: a line with these words is the finding, unless one of `settled` is said anywhere.

    Without `seen`, the finding is that nothing of `settled` is said at all.
    """

    title: str
    recommendation: str
    confidence: float
    seen: str = ""
    settled: str = ""


SECURITY = (
    Rule(
        "A secret may be in plain sight",
        "Move it out of files and logs, into a secret store or the environment, and change it once.",
        0.9,
        r"(hard.?coded|plain.?text|in the (repo|code|log)s?).*(password|secret|token|key)"
        r"|(password|secret|token|api.?key)s?.*(hard.?coded|plain.?text|in the (repo|code|log)s?|\bis\b\s+\S*\d)",
    ),
    Rule(
        "Reachable from the internet",
        "Put it behind authentication and a rate limit, and open only the ports that are needed.",
        0.8,
        r"\b(public(ly)?|internet|expos\w+|open(ed)? to|0\.0\.0\.0|port \d+)\b",
        r"\b(firewall|vpn|allow.?list|waf)\b",
    ),
    Rule(
        "A password is the only proof of identity",
        "Ask for a second factor, or take identities from a provider that does.",
        0.7,
        r"\b(password|log.?in|sign.?in)s?\b",
        r"\b(mfa|2fa|second factor|two.factor|passkeys?|sso|oidc|saml)\b",
    ),
    Rule(
        "More rights than needed",
        "Give the smallest role that works, and say who may give a larger one.",
        0.75,
        r"\b(admin\w*|root|sudo|superuser|wildcard|full access|all permissions)\b",
        r"\b(least privilege|scoped|read.?only)\b",
    ),
    Rule(
        "Input from outside",
        "Check size, type and range where it enters; never build commands, queries or paths from it by joining text.",
        0.65,
        r"\b(user input|upload\w*|form|query|sql|shell|eval|deseriali[sz]\w*|webhook|pars(e|es|ing))\b",
        r"\b(validat\w+|sanitiz\w+|saniti[sz]ed|parameteri[sz]ed|escaped)\b",
    ),
    Rule(
        "Personal or secret data",
        "Write down what is kept, why, how long and who reads it; encrypt it in transit and at rest.",
        0.7,
        r"\b(personal|customer|patient|payment|credit card|gdpr|pii|e-?mail address\w*)\b",
        r"\b(encrypt\w+|pseudonymi[sz]\w+|anonymi[sz]\w+)\b",
    ),
    Rule(
        "Code of others",
        "Pin versions by hash, watch their advisories, and know how to remove them.",
        0.5,
        r"\b(dependenc(y|ies)|third.party|package|plugin|vendor|upgrade|library)\b",
        r"\b(pinned|lock.?file|audit(ed)?|sbom)\b",
    ),
    Rule(
        "Nothing is said about who may do this",
        "Name the people and programs that need access, and refuse all others.",
        0.35,
        settled=r"\b(auth\w*|access|permission|role|password|log.?in|token|identity)\w*\b",
    ),
)

OPERATIONS = (
    Rule(
        "No way back is described",
        "Write down the steps back and try them before the change, with the time they take.",
        0.75,
        settled=r"\b(roll.?back\w*|revert\w*|undo|way back|blue.green|canary|feature flag)\b",
    ),
    Rule(
        "Nobody would notice a failure",
        "Name the one number that shows it works, and an alert with an owner for when it does not.",
        0.6,
        settled=r"\b(monitor\w*|alert\w*|metric\w*|dashboard\w*|health.?check\w*|slo|observab\w+|on.?call)\b",
    ),
    Rule(
        "Data could be lost",
        "Take a backup before, restore it once somewhere else, and note how long that took.",
        0.85,
        r"\b(migrat\w+|delet\w+|drop\w*|truncat\w+|schema|database|no backups?|backup yet|purge)\b",
        r"\b(restor\w+ (test|tried)|tested backups?|backup (was )?restored)\b",
    ),
    Rule(
        "State lives in one process",
        "Keep it where a restart does not lose it, or say what users see when it is gone.",
        0.7,
        r"\b(in memory|sessions?|cache[ds]?|local disk|single (node|server|instance)|singleton)\b",
        r"\b(replicat\w+|redundan\w+|persist\w+|durable)\b",
    ),
    Rule(
        "Load is not known",
        "Measure at twice the load that is expected, and set limits that refuse the rest early.",
        0.55,
        r"\b(traffic|load|scal\w+|users|requests?|launch|peak|queue|latency)\b",
        r"\b(load.?test\w*|capacity|rate.?limit\w*|benchmark\w*|autoscal\w+)\b",
    ),
    Rule(
        "Depends on something else being up",
        "Give every call a timeout, bounded retries with growing pauses, and an answer for when it stays down.",
        0.6,
        r"\b(depends on|upstream|downstream|external|api|third.party|webhook|dns|provider)\b",
        r"\b(timeouts?|retr(y|ies)|circuit.?breaker|fallback)\b",
    ),
    Rule(
        "Time of change",
        "Do it when those who can mend it are awake, and say so to those who depend on it.",
        0.5,
        r"\b(friday|weekend|midnight|night|holiday|deploy\w*|release|cut.?over|downtime|maintenance)\b",
        r"\b(maintenance window|announced|office hours)\b",
    ),
    Rule(
        "Done by hand",
        "Put the steps into a script or a job, so that the second time is like the first.",
        0.6,
        r"\b(manual\w*|by hand|ssh|copy.?paste\w*|click\w*)\b",
    ),
)


def apply(rules: Sequence[Rule], topic: str, context: Sequence[str]) -> list[Finding]:
    """The findings of `rules`; each names the first line that led to it, and grows a little surer with every further one."""
    lines = [topic, *context]
    found = []
    for rule in rules:
        if rule.settled and any(re.search(rule.settled, line, re.IGNORECASE) for line in lines):
            continue
        seen = [line for line in lines if rule.seen and re.search(rule.seen, line, re.IGNORECASE)]
        if rule.seen and not seen:
            continue
        because = f" Because of: “{one_line(seen[0], 160)}”." if seen else ""
        confidence = round(min(0.95, rule.confidence + 0.05 * max(0, len(seen) - 1)), 2)
        found.append(Finding(title=rule.title, recommendation=rule.recommendation + because, confidence=confidence))
    return found


@specialist("security.v1", summary="Looks for secrets, access, input and exposure.")
async def security(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
    """Gaps that an attacker would look for."""
    return apply(SECURITY, topic, context)


@specialist("operations.v1", summary="Looks for roll-back, monitoring, capacity and recovery.")
async def operations(ctx: Context, topic: str, context: Sequence[str]) -> list[Finding]:
    """Gaps that show at night."""
    return apply(OPERATIONS, topic, context)


@synthesizer("default.v1", summary="Counts and ranks; the same findings give the same text.")
async def default(ctx: Context, request: SynthesisRequest) -> Synthesis:
    """The findings in order, and one sentence on them."""
    ranked = in_order(request.findings)[: request.max_findings]
    return Synthesis(summary=in_one_sentence(request, ranked), ranked_findings=ranked)


def in_one_sentence(request: SynthesisRequest, ranked: Sequence[Finding]) -> str:
    """How many findings there are, of whom, and the strongest."""
    if not ranked:
        return "No findings: nothing that these specialists look for was said, or all of it is settled."
    count, total = len(ranked), len(request.findings)
    sources = sorted({one.source_specialist for one in ranked})
    shown = f"{count} finding{'s' if count > 1 else ''}" + (f" of {total}" if count < total else "")
    first = ranked[0]
    return f"{shown} from {' and '.join(sources)}; first: {first.title} ({first.confidence:.2f}). {first.recommendation}"
