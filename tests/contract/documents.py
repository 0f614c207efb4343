"""Reading the documentation: its links, the commands it names, and the blocks that are marked to be carried out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.contract.imports import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "db" / "README.md"])
_LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"^<!-- (?P<mark>run|prints|file: [^\n]+?) -->\n`{3}(?P<kind>\w*)\n(?P<text>.*?)^`{3}$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(lily [^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block that a test carries out: `run`, `file: PATH`, or `prints`, what the block before it must print."""

    mark: str
    kind: str
    text: str


def title(page: Path) -> str:
    """The page's path inside the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def links(page: Path) -> Iterator[str]:
    """Targets of links, code left out."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from _LINK.findall(re.sub(r"`[^`\n]*`", "", text))


def anchors(page: Path) -> set[str]:
    """The fragments that headings of a page make, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#{1,6} +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def marked(page: Path) -> list[Block]:
    """The blocks that are carried out, in their order."""
    return [Block(found["mark"], found["kind"], found["text"]) for found in _MARKED.finditer(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> Iterator[str]:
    """Every `lily ...` that a page names, in a block of shell or in a line."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found["kind"] in {"sh", "console", "bash"}:
            yield from re.findall(r"^(?:\$ )?(lily [^\n#|]+)", found["text"], re.MULTILINE)
    yield from _INLINE.findall(_FENCE.sub("", text))
