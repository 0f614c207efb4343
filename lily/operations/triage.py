"""Dead letters in groups, as an operator may show them to others: without secrets."""

from collections.abc import Iterable

import msgspec

from lily.blueprints.contract import BlueprintError
from lily.blueprints.secrets import secret_text
from lily.dead_letters import Group
from lily.redaction import redacted, references
from lily.settings import Settings
from lily.storage.letters import Letters
from lily.storage.store import Store


def triage(store: Store, settings: Settings) -> list[Group]:
    """All dead letters by fingerprint and cause, the largest group first; what they say is redacted."""
    letters = Letters(store)
    groups = letters.groups()
    owed = letters.owed([group.example for group in groups])
    own = settings.llm.api_key.secret
    made = []
    for group in groups:
        known = owed.get(group.example)
        bindings = store.spec(known.spec_hash).bindings if known is not None else {}
        reason = redacted(group.reason, readable([own, *references(bindings)]))
        made.append(msgspec.structs.replace(group, reason=reason))
    return made


def readable(named: Iterable[str]) -> list[str]:
    """The secrets that this process can read; the others are known by their look alone."""
    found = []
    for reference in dict.fromkeys(named):
        try:
            found.append(secret_text(reference))
        except BlueprintError:
            continue
    return found
