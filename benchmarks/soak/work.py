"""The workspace of a soak: jobs of every kind, light enough that all of them together leave most of a core alone."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lily.workspace import Workspace

BLUEPRINTS = '''\
"""What works in the supervisor's own process."""

import anyio

from pydantic import BaseModel

from lily import BlueprintError, blueprint


class Number(BaseModel):
    n: int = 0


@blueprint("idle.v1", input=Number, capabilities=[])
async def idle(ctx, bindings, run_input):
    """Returns at once."""
    return {"n": run_input.n}


@blueprint("tells.v1", capabilities=[])
async def tells(ctx, bindings, run_input):
    """Says much while it works."""
    for number in range(200):
        await ctx.log.info("at work", number=number, more="x" * 200)
        if number % 20 == 0:
            await ctx.progress(number / 200, "going on")
    return {"told": 200}


@blueprint("steps.v1", capabilities=[])
async def steps(ctx, bindings, run_input):
    """Keeps two steps; fails once between them."""
    one = await ctx.step("one", half)
    if ctx.attempt < 2:
        raise BlueprintError("fails between its steps")
    return {"one": one, "two": await ctx.step("two", half)}


async def half():
    await anyio.sleep(0.01)
    return "y" * 2000


@blueprint("asks.v1", capabilities=[])
async def asks(ctx, bindings, run_input):
    """Asks a person in the middle of its work."""
    await ctx.request_approval("the second half", why="it is the soak")
    return {}
'''
REPORT = """\
def make(rows):
    print(f"makes {rows} rows")
    return {"rows": [{"n": n, "square": n * n} for n in range(rows)]}


def break_down():
    raise ValueError("a function that fails on purpose")
"""
LASTING = ("long", "replaced", "overlaps")  # there is nearly always a run of each
SLOTS = range(7, 11)  # of which these leave enough
SECRET = "secret.txt"
INBOX = "inbox/letter"
CRON, ONCE_A_YEAR = (
    {"type": "cron", "cron": "* * * * *", "timezone": "Europe/Berlin"},
    {"type": "cron", "cron": "0 0 1 1 *", "timezone": "UTC"},
)


def every(seconds: float, **more: Any) -> dict[str, Any]:
    """A trigger."""
    return {"type": "interval", "every": f"{seconds:g}s", **more}


def _when(seconds: float, subject: dict[str, Any], operator: str, value: Any) -> dict[str, Any]:
    return {"type": "condition", "every": f"{seconds:g}s", "subject": subject, "operator": operator, "value": value}


def job(job_id: str, *, shell: str = "", target: str = "command.v1", trigger: dict[str, Any] | None = None, **more: Any) -> str:
    """The text of a job file. `runtime` and all else that is given replaces what it would have."""
    bindings: dict[str, Any] = {"argv": ["sh", "-c", shell], "kill_grace_seconds": 0.3} if shell else {}
    own = target in ("idle.v1", "tells.v1", "steps.v1", "asks.v1")
    runtime = {"timeout_seconds": 30, "max_parallel_runs": 4, "backoff": {"strategy": "fixed", "base_seconds": 0.2}}
    told = {
        "id": job_id,
        "title": f"Soak {job_id}",
        "target": {"id": target},
        "bindings": {**bindings, **more.pop("bindings", {})},
        "capabilities": [] if own else ["process.exec", "net.http", "fs.read"],
        "trigger": trigger or {"type": "manual"},
        "runtime": {**runtime, **more.pop("runtime", {})},
        "output": {},
    }
    return json.dumps({**told, **more})


def scheduled(site: str) -> dict[str, str]:
    """Jobs that run by themselves, by id; `site` is the address of the server that the soak brings along."""
    minutely = {"type": "calendar", "rrule": "FREQ=SECONDLY;INTERVAL=20", "anchor": "2026-01-01T00:00", "timezone": "Asia/Kathmandu"}
    retried = {"retry_max": 1}
    check = {"url": f"{site}/well", "expect": {"status": 200, "json": {"well": True}}}
    return {
        "tick": job("tick", target="idle.v1", trigger=every(2)),
        "beat": job("beat", shell="for n in 1 2 3 4 5; do echo line $n; echo oops >&2; done", trigger=every(5, jitter_seconds=1)),
        "minutely": job("minutely", shell="date", trigger=CRON),
        "calendar": job("calendar", shell="echo $LILY_SCHEDULED_FOR", trigger=minutely),
        "report": job("report", target="python.v1", trigger=every(30), bindings={"callable": "report:make", "kwargs": {"rows": 500}}),
        "breaks": job("breaks", target="python.v1", trigger=every(90), bindings={"callable": "report:break_down"}),
        "check": job("check", target="http.v1", trigger=every(10), bindings=check),
        "ill": job("ill", target="http.v1", trigger=every(25), runtime=retried, bindings={"url": f"{site}/ill"}),
        "absent": job("absent", target="http.v1", trigger=every(60), runtime=retried, bindings={"url": "http://127.0.0.1:1/"}),
        "overlaps": job("overlaps", shell="sleep 6", trigger=every(4, overlap="skip"), runtime={"max_parallel_runs": 1}),
        "replaced": job("replaced", shell="sleep 30", trigger=every(15, overlap="cancel_previous"), runtime={"max_parallel_runs": 1}),
        "hopeless": job("hopeless", shell="echo no use >&2; exit 3", trigger=every(20), runtime=retried),
        "late": job("late", shell="sleep 100 & sleep 100", trigger=every(30), runtime={"timeout_seconds": 1}),
        "orphans": job("orphans", shell="setsid sleep 1000 >/dev/null 2>&1 & echo left one", trigger=every(40)),
        "large": job(
            "large",
            shell="head -c 1500000 /dev/zero | tr '\\\\0' 'x' | fold -w 100",
            trigger=every(45),
            bindings={"output_limit_bytes": 1_000_000},
        ),
        "expires": job("expires", shell="true", trigger=every(60), approval={"required": True, "ttl_hours": 0.002}),
        "secretive": job(
            "secretive", shell='echo "the secret is $KEY"', trigger=every(30), bindings={"env": {"KEY": {"secret": f"file:{SECRET}"}}}
        ),
        "on-letter": job("on-letter", shell="cat inbox/letter", trigger=_when(5, {"kind": "file", "path": INBOX}, "eq", True)),
        "on-site": job("on-site", shell="true", trigger=_when(10, {"kind": "http", "url": f"{site}/well", "json_path": "odd"}, "eq", True)),
        "on-queue": job("on-queue", shell="true", trigger=_when(7, {"kind": "queue", "field": "depth"}, "gt", 10)),
        "on-nothing": job(
            "on-nothing", shell="true", trigger=_when(20, {"kind": "sqlite", "path": "none.db", "query": "select 1"}, "eq", 1)
        ),
    }


def manual() -> dict[str, str]:
    """Jobs that somebody submits, by id."""
    return {
        "idle": job("idle", target="idle.v1", runtime={"priority": "low"}),
        "hello": job("hello", shell="echo hello", runtime={"priority": "high"}),
        "flaky": job("flaky", shell="test $LILY_ATTEMPT -ge 2", runtime={"retry_max": 2}),
        "tells": job("tells", target="tells.v1"),
        "steps": job("steps", target="steps.v1", runtime={"retry_max": 1}),
        "long": job("long", shell="sleep 1000 & sleep 1000", runtime={"timeout_seconds": 3600}),
        "asked": job("asked", shell="echo allowed", approval={"required": True, "ttl_hours": 2}),
        "asks": job("asks", target="asks.v1", approval={"ttl_hours": 2}),
    }


def config(slots: int) -> str:
    """The text of the settings."""
    told = {
        "queue": {"max_concurrent": slots, "max_size": 200, "ageing_seconds": 60},
        "dlq": {"retention_days": 1, "max_entries": 2000},
        "supervisor": {"drain_seconds": 5},
        "review": {"cron": "*/10 * * * *"},
        "scheduler": {"failure_notification_throttle_seconds": 60},
    }
    return json.dumps(told)


def furnish(root: Path, site: str) -> Workspace:
    """The workspace, in the new folder `root`."""
    workspace = Workspace(root)
    for folder in (workspace.jobs, workspace.blueprints, root / "db", root / "inbox"):
        folder.mkdir(parents=True)
    workspace.config.write_text(config(SLOTS[-1]))
    (workspace.blueprints / "soak.py").write_text(BLUEPRINTS)
    (root / "report.py").write_text(REPORT)
    (root / SECRET).write_text("the-first-secret-of-the-soak")
    for job_id, text in {**scheduled(site), **manual()}.items():
        (workspace.jobs / f"{job_id}.job.yaml").write_text(text)
    return workspace


def _answer(request: BaseHTTPRequestHandler) -> None:
    well = request.path == "/well" or time.monotonic() % 60 < 30
    body = json.dumps({"well": True, "odd": int(time.time() // 30) % 2 == 1, "more": "z" * 5000}).encode()
    with suppress(OSError):  # whoever asked was ended meanwhile
        request.send_response(200 if well else 500)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


_HANDLER = {"protocol_version": "HTTP/1.1", "do_GET": _answer, "log_message": lambda *_: None}


@contextmanager
def site() -> Iterator[str]:
    """The address of a server on loopback while the block lasts: `/well` always is, `/ill` every other half minute."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (BaseHTTPRequestHandler,), _HANDLER))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
