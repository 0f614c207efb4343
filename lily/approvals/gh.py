"""The `gh` program as the way to GitHub: bounded in time and size, and an error is never an answer."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import trio

from lily.approvals.labels import DECIDING, Issue, Label
from lily.clock import parse_stamp

TIMEOUT_SECONDS = 20.0
_MOST_BYTES = 8 * 1024 * 1024
_SAID_CHARS = 300
_ADDRESS = re.compile(r"https://([^/]+)/([^/]+/[^/]+)/(?:issues|pull)/[0-9]+")
_QUIET = {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1", "CLICOLOR_FORCE": "0", "GH_PAGER": "cat"}


class GhError(Exception):
    """GitHub could not be asked, or its answer is none: that says nothing about the approval. `kind`: missing, slow, failed, garbage."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class GitHub(Protocol):
    """Whatever tells the labels of an issue; `Gh` does."""

    async def labels(self, issue: Issue) -> list[Label]: ...


@dataclass(frozen=True, slots=True)
class Gh:
    """`gh`, run in the workspace, so that it finds the repository there."""

    folder: Path
    timeout: float = TIMEOUT_SECONDS

    async def labels(self, issue: Issue) -> list[Label]:
        """The labels that stand on the issue now; for those that decide, who set them and when. Raises GhError."""
        where = ["--repo", issue.place] if issue.place else []
        shown = _object(await self.run("issue", "view", issue.number, *where, "--json", "labels,url"))
        names = _names(shown)
        if not any(name.casefold() in DECIDING for name in names):
            return [Label(name) for name in names]
        setters = _setters(await self._timeline(issue, shown))
        return [setters.get(name.casefold(), Label(name)) for name in names]

    async def _timeline(self, issue: Issue, shown: dict[str, Any]) -> list[Any]:
        found = _ADDRESS.match(str(shown.get("url", "")))
        host, repository = found.groups() if found else (issue.host, issue.repository or "{owner}/{repo}")
        elsewhere = ["--hostname", host] if host and host != "github.com" else []
        path = f"repos/{repository}/issues/{issue.number}/timeline?per_page=100"
        return list(_values(await self.run("api", *elsewhere, "--paginate", path)))

    async def run(self, *words: str) -> str:
        """What `gh WORDS` prints. Raises GhError when it can't be started, takes too long, fails, or prints too much."""
        name = " ".join(["gh", *words[:2]])
        output: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        try:
            status = await self._finish(words, output)
        except FileNotFoundError:
            raise GhError("missing", "the program `gh` is not on PATH") from None
        except OSError as error:
            raise GhError("missing", f"the program `gh` can't be started: {error.strerror or error}") from None
        if status is None:
            raise GhError("slow", f"`{name}` did not answer within {self.timeout:g} s")
        if len(output["out"]) > _MOST_BYTES:
            raise GhError("garbage", f"`{name}` printed more than {_MOST_BYTES >> 20} MiB")
        if status:
            said = " ".join(output["err"].decode("utf-8", "replace").split())[:_SAID_CHARS]
            raise GhError("failed", f"`{name}` ended with {status}" + (f": {said}" if said else ""))
        return output["out"].decode("utf-8", "replace")

    async def _finish(self, words: Sequence[str], output: dict[str, bytearray]) -> int | None:
        """The exit status, or None when the time was up. Nothing of it is left running."""
        child = await trio.lowlevel.open_process(
            ["gh", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={**os.environ, **_QUIET},
            process_group=0,
        )
        try:
            with anyio.move_on_after(self.timeout):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_read, child.stdout, output["out"])
                    tasks.start_soon(_read, child.stderr, output["err"])
                return await child.wait()
            return None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await child.wait()
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        await pipe.aclose()


async def _read(pipe: Any, into: bytearray) -> None:
    async for piece in pipe:
        if len(into) <= _MOST_BYTES:
            into += piece


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise GhError("garbage", f"gh's answer is no JSON object: {' '.join(text.split())[:80]!r}")
    return found


def _names(shown: dict[str, Any]) -> list[str]:
    labels = shown.get("labels")
    if not isinstance(labels, list) or not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in labels):
        raise GhError("garbage", "gh's answer has no list of labels with names")
    return [each["name"] for each in labels]


def _values(text: str) -> Iterator[Any]:
    """The items of one JSON list after another: a page each."""
    decoder, at = json.JSONDecoder(), 0
    text = text.strip()
    while at < len(text):
        try:
            page, at = decoder.raw_decode(text, at)
        except ValueError:
            raise GhError("garbage", f"gh's answer is no JSON: {' '.join(text[at : at + 80].split())!r}") from None
        if not isinstance(page, list):
            raise GhError("garbage", "gh's answer is no list of events")
        yield from page
        while at < len(text) and text[at].isspace():
            at += 1


def _setters(timeline: Sequence[Any]) -> dict[str, Label]:
    """Who set each label last, by its name."""
    found: dict[str, Label] = {}
    for event in timeline:
        if not isinstance(event, dict) or event.get("event") != "labeled" or not isinstance(event.get("label"), dict):
            continue
        name, actor, at = event["label"].get("name"), event.get("actor"), event.get("created_at")
        if isinstance(name, str):
            by = actor.get("login") if isinstance(actor, dict) else None
            found[name.casefold()] = Label(name, by if isinstance(by, str) else "", at if _is_time(at) else None)
    return found


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse_stamp(value))
    except ValueError:
        return False
