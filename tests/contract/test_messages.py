"""The message map names every message there is."""

import re
from pathlib import Path
from typing import get_args

import actors.messages as messages

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"


def test_the_message_map_lists_exactly_the_messages_of_all_mailboxes() -> None:
    """A message that nobody documented, or that is gone, fails here."""
    unions = (messages.WriterMessage, messages.RunnerMessage, messages.SpecFact, messages.BridgeMessage)
    there = {member.__name__ for union in unions for member in get_args(union)} | {messages.TailMessage.__name__}
    told = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == there
