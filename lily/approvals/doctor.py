"""What the labels of issues need: the program gh, its login, and a repository."""

import json
from typing import Any

from lily.approvals.gh import Gh, GhError


async def examine(gh: Gh, repository: str) -> list[dict[str, Any]]:
    """Each check with what was found and what to do; those after one that failed for good are left out."""
    found = [await _program(gh)]
    if found[0]["ok"]:
        found += [await _login(gh), await _repository(gh, repository)]
    return found


def _result(name: str, ok: bool, message: str, hint: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "message": message, "hint": "" if ok else hint}


async def _program(gh: Gh) -> dict[str, Any]:
    try:
        version = (await gh.run("--version")).partition("\n")[0]
    except GhError as error:
        return _result("program", False, str(error), "install the GitHub command line, https://cli.github.com, on the supervisor's PATH")
    return _result("program", True, version)


async def _login(gh: Gh) -> dict[str, Any]:
    try:
        await gh.run("auth", "status")
    except GhError as error:
        return _result("login", False, str(error), "`gh auth login`, as the user whom the supervisor runs as")
    return _result("login", True, "gh is logged in")


async def _repository(gh: Gh, repository: str) -> dict[str, Any]:
    hint = "set approval.repository in .lily/config.yaml to owner/repo, or name it in each job: `issue: owner/repo#7`"
    try:
        said = await gh.run("repo", "view", *([repository] if repository else []), "--json", "nameWithOwner")
        name = json.loads(said)["nameWithOwner"]
    except GhError as error:
        return _result("repository", False, str(error), hint)
    except (ValueError, KeyError, TypeError):
        return _result("repository", False, f"gh's answer names no repository: {' '.join(said.split())[:80]!r}", hint)
    return _result("repository", True, str(name))
