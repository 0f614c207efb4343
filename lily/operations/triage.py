"""Dead letters in groups, as an operator may show them to others: without secrets."""

from pathlib import Path

import msgspec

from lily.blueprints.secrets import values_of
from lily.dead_letters import Group
from lily.own_secrets import OwnSecrets
from lily.redaction import redacted, references
from lily.settings import Settings
from lily.storage.letters import Letters
from lily.storage.store import Store


def triage(store: Store, settings: Settings, base: Path) -> list[Group]:
    """All dead letters by fingerprint and cause, the largest group first; what they say is redacted."""
    letters = Letters(store)
    groups = letters.groups()
    owed = letters.owed([group.example for group in groups])
    own = OwnSecrets(settings, base).values()
    made = []
    for group in groups:
        known = owed.get(group.example)
        bindings = store.spec(known.spec_hash).bindings if known is not None else {}
        reason = redacted(group.reason, [*own, *values_of(references(bindings), base)])
        made.append(msgspec.structs.replace(group, reason=reason))
    return made
