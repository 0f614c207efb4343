"""A program that stands in for `gh`: the same commands and the same answers, from a state that a test writes; and its failures."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

SCRIPT = """#!{python} -SE
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
state = json.load(open(os.path.join(here, "state.json")))
args = sys.argv[1:]
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(json.dumps(args) + chr(10))

def fail(text, status=1):
    sys.stderr.write(text + chr(10))
    sys.exit(status)

mode = state["mode"]
if args == ["--version"]:
    print("gh version 2.63.2 (2024-12-05)")
    print("https://github.com/cli/cli/releases/tag/v2.63.2")
    sys.exit(0)
if mode == "hang":
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(600)
if mode == "logged out":
    if args == ["auth", "status"]:
        fail("You are not logged into any GitHub hosts. To log in, run: gh auth login")
    fail("To get started with GitHub CLI, please run:  gh auth login", 4)
if args == ["auth", "status"]:
    print("github.com")
    print("  Logged in to github.com account ann (keyring)")
    sys.exit(0)
if mode == "away":
    fail("error connecting to api.github.com" + chr(10) + "check your internet connection or https://githubstatus.com")
if mode == "garbage":
    print("<html>502 Bad Gateway</html>")
    sys.exit(0)
if mode == "half":
    print('{{"labels":[{{"id":"LA_1","na', end="")
    sys.exit(0)
if mode == "huge":
    sys.stdout.write("x" * 9_000_000)
    sys.exit(0)
if args[:2] == ["repo", "view"]:
    repository = args[2] if args[2] != "--json" else state["repository"]
    if not repository:
        fail("no git remotes found")
    print(json.dumps({{"nameWithOwner": repository}}))
    sys.exit(0)
if args[:2] == ["issue", "view"] and args[-2:] == ["--json", "labels,url"] and args[2].isdigit():
    repository = args[args.index("--repo") + 1] if "--repo" in args else state["repository"]
    if not repository:
        fail("no git remotes found")
    host, _, rest = repository.rpartition("/")[0].rpartition("/")
    address = ("https://" + repository if repository.count("/") == 2 else "https://github.com/" + repository)
    labels = [{{"id": "LA_" + name, "name": name, "description": "", "color": "ededed"}} for name in state["labels"]]
    print(json.dumps({{"labels": labels, "url": address + "/issues/" + args[2]}}))
    sys.exit(0)
if args[0] == "api" and "--paginate" in args and args[-1].endswith("/timeline?per_page=100"):
    if mode == "no timeline":
        fail("gh: Not Found (HTTP 404)")
    events = state["timeline"]
    for first in range(0, max(1, len(events)), 2):
        sys.stdout.write(json.dumps(events[first : first + 2]))
    sys.exit(0)
fail("unknown command " + json.dumps(args) + " for gh")
"""


class StandIn:
    """The program in a folder that stands first on PATH."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        program = folder / "gh"
        program.write_text(SCRIPT.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.state: dict[str, Any] = {"mode": "ok", "repository": "acme/site", "labels": [], "timeline": []}
        self.save()

    @property
    def path(self) -> str:
        """A value of PATH."""
        return f"{self.folder}:{os.environ['PATH']}"

    def save(self) -> None:
        """What it answers from now on."""
        temporary = self.folder / "state.new"
        temporary.write_text(json.dumps(self.state))
        temporary.rename(self.folder / "state.json")

    def is_in(self, mode: str) -> None:
        """From now on it fails in this way, or is `ok`."""
        self.state["mode"] = mode
        self.save()

    def label(self, name: str, *, by: str = "ann", at: str = "2100-01-01T00:00:00Z") -> None:
        """Somebody sets a label."""
        self.state["labels"] = [*self.state["labels"], name]
        actor = {"login": by, "id": 7, "type": "User"}
        self.state["timeline"] += [
            {"event": "commented", "actor": actor, "created_at": at, "body": "a word"},
            {"event": "labeled", "actor": actor, "created_at": at, "label": {"name": name, "color": "ededed"}},
        ]
        self.save()

    @property
    def calls(self) -> list[list[str]]:
        """What it was called with."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
