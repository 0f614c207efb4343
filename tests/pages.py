"""Where the rows of a table are in SQLite's file: a test that damages a page knows what was on it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

SIZE = 4096
_INNER, _LEAF = 5, 13  # the first byte of a page of a table's tree


class Leaf(NamedTuple):
    """A page that holds rows, and their row ids. `named_at` is where in the file the page above names it; 0: it is the whole table."""

    page: int
    rows: list[int]
    named_at: int


def leaves(path: Path, table: str) -> list[Leaf]:
    """The pages with rows of a table, in the order of its rows. The file has no log."""
    with closing(sqlite3.connect(path)) as database:
        ((root,),) = database.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchall()
        database.execute("pragma wal_checkpoint(truncate)")
    return _below(path.read_bytes(), root, 0)


def _below(body: bytes, page: int, named_at: int) -> list[Leaf]:
    start = (page - 1) * SIZE
    head = start + (100 if page == 1 else 0)
    count = int.from_bytes(body[head + 3 : head + 5])
    if body[head] == _LEAF:
        cells = [start + int.from_bytes(body[head + 8 + 2 * n : head + 10 + 2 * n]) for n in range(count)]
        return [Leaf(page, [_number(body, _number(body, cell)[1])[0] for cell in cells], named_at)]
    assert body[head] == _INNER
    named = [start + int.from_bytes(body[head + 12 + 2 * n : head + 14 + 2 * n]) for n in range(count)]
    return [leaf for at in (*named, head + 8) for leaf in _below(body, int.from_bytes(body[at : at + 4]), at)]


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A number as SQLite packs it, of at most eight bytes, and where it ends."""
    value = 0
    while True:
        value, at = value << 7 | body[at] & 127, at + 1
        if body[at - 1] < 128:
            return value, at


def overwrite(path: Path, page: int) -> None:
    """The page holds other bytes."""
    with open(path, "r+b") as file:
        file.seek((page - 1) * SIZE)
        file.write(b"\xa5" * SIZE)


def lead(path: Path, leaf: Leaf, to: Leaf) -> None:
    """The page above names another page in this one's place."""
    with open(path, "r+b") as file:
        file.seek(leaf.named_at)
        file.write(to.page.to_bytes(4))


def spoiling_log(path: Path, page: int) -> Path:
    """A log beside the file that SQLite takes for whole, and that puts other bytes in the place of a page."""
    salts, body = b"saltsalt", b"\xa5" * SIZE
    head = b"".join(word.to_bytes(4) for word in (0x377F0682, 3007000, SIZE, 0)) + salts
    sums = _sums(head, (0, 0))
    about = page.to_bytes(4) + (path.stat().st_size // SIZE).to_bytes(4)
    frame = about + salts + _packed(_sums(about + body, sums)) + body
    log = path.with_name(f"{path.name}-wal")
    log.write_bytes(head + _packed(sums) + frame)
    return log


def _sums(body: bytes, before: tuple[int, int]) -> tuple[int, int]:
    one, two = before
    for at in range(0, len(body), 8):
        one = (one + int.from_bytes(body[at : at + 4], "little") + two) & 0xFFFFFFFF
        two = (two + int.from_bytes(body[at + 4 : at + 8], "little") + one) & 0xFFFFFFFF
    return one, two


def _packed(sums: tuple[int, int]) -> bytes:
    return b"".join(each.to_bytes(4) for each in sums)
