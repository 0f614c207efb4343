"""What is left of a disk's cache when its power is cut: any part, in sectors, of what was written since the last flush."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SECTOR = 512  # bytes that a disk writes whole or not at all


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the disk was handed: where, and what."""

    offset: int
    body: bytes


class How(StrEnum):
    """What a disk had put down of its cache."""

    NOTHING = "nothing"
    EVERYTHING = "everything"  # what the system had not handed to the disk is lost all the same
    FIRST = "the first"  # in order, and the last of them in part
    SOME = "some"  # in any order
    TORN = "some, torn"  # in any order, and each in any of its sectors


def survivors(pending: Sequence[Write], how: How, dice: random.Random) -> list[Write]:
    """The writes, or parts of them, that are on the disk afterwards; they are applied in this order."""
    match how:
        case How.NOTHING:
            return []
        case How.EVERYTHING:
            return list(pending)
        case How.FIRST:
            if not pending:
                return []
            last = dice.randrange(len(pending))
            whole = dice.randint(0, len(pending[last].body) // SECTOR)
            return [*pending[:last], Write(pending[last].offset, pending[last].body[: whole * SECTOR])]
        case How.SOME:
            return [write for write in pending if dice.random() < 0.5]
        case How.TORN:
            return [part for write in pending if dice.random() < 0.75 for part in _torn(write, dice)]


def _torn(write: Write, dice: random.Random) -> list[Write]:
    kept = dice.choice((0.5, 0.9, 1.0))
    starts = range(0, len(write.body), SECTOR)
    return [Write(write.offset + at, write.body[at : at + SECTOR]) for at in starts if dice.random() < kept]
