"""What tests of receipts share: runs that have ended, the chain on disk, and what is found when all is verified."""

import json
from pathlib import Path
from typing import Any

from actors.system import System
from lily.blueprints.define import blueprint
from lily.operations.changes import cancel
from lily.operations.rebuild import Order, Rebuilt, rebuild_files, rebuild_history
from lily.operations.rebuild_files import Step
from lily.operations.verify_runs import Tally, verify
from lily.receipts import ReceiptV1, decode_receipt, encode_receipt, sha256_of
from lily.runs import Run
from lily.storage import schema
from lily.storage.audit import Actor
from lily.storage.database import writing
from lily.testing import World
from lily.workspace import RECEIPT

TESTER = Actor(name="tester")


@blueprint("wordy.v1")
async def wordy(ctx: Any, bindings: Any, run_input: Any) -> Any:
    """Says something that stands in files alone, and leaves a file."""
    await ctx.log.info("begun")
    with ctx.artifact("left.txt") as file:
        file.write(b"here")
    await ctx.log.info("done")
    return {"n": 1}


def lived(world: World, *runs: Run, **options: Any) -> System:
    """A life until these runs have ended."""

    async def body(world: World) -> None:
        await world.ended(*(run.run_id for run in runs))

    return world.live(body, **options)


def ran(world: World, *blueprints: str, job_id: str = "job", **parts: Any) -> list[Run]:
    """A run of each of these, which have ended, one life for all."""
    runs = [world.submit(each, job_id=job_id, **parts) for each in blueprints]
    lived(world, *runs)
    return [world.run(run.run_id) for run in runs]


def with_a_past(world: World) -> World:
    """The world, in which runs have ended in several ways."""
    ran(world, "noop.v1", "wordy.v1", "noop.v1")
    ran(world, "deed.v1", job_id="fails", bindings={"do": "error", "until": 1}, runtime={"retry_max": 2, "backoff": {"strategy": "none"}})
    ran(world, "deed.v1", job_id="fails", bindings={"do": "ValueError"})
    canceled = world.submit("noop.v1", job_id="other")
    cancel(world.workspace, world.store, canceled.run_id, by="tester", reason="enough", clock=world.clock)
    lived(world, canceled)
    return world


def run_of(world: World, blueprint: str = "noop.v1") -> Run:
    """The first run of the job with this target."""
    return next(run for run in reversed(world.store.runs()) if world.store.spec(run.spec_hash).target.id == blueprint)


def folder_of(world: World, run: Run) -> Path:
    """Where the run's files are."""
    return world.workspace.run_dir(run.job_id, run.run_id)


def found(world: World, **scope: Any) -> list[tuple[str, str]]:
    """(code, run) of each finding."""
    return [(each.code, each.run_id) for each in verify(world.workspace, world.store, Tally(), **scope)]


def chain(world: World, job_id: str = "job") -> list[str]:
    """The job's runs in the order of their chain, read from the disk alone; asserts that it is one chain without a fork."""
    follows: dict[str | None, str] = {}
    digests: dict[str, str] = {}
    for path in sorted(world.workspace.job_dir(job_id).glob(f"*/{RECEIPT}")):
        body = path.read_bytes()
        receipt = decode_receipt(body)
        if receipt.schema_version == 1:
            continue
        digests[receipt.run_id] = sha256_of(body)
        before = receipt.previous.run_id if receipt.previous else None
        assert before not in follows, f"{before} is followed by {follows[before]} and {receipt.run_id}"
        follows[before] = receipt.run_id
        if receipt.previous is not None and receipt.previous.run_id < receipt.run_id and receipt.previous.run_id in digests:
            assert receipt.previous.receipt_sha256 == digests[receipt.previous.run_id]
    first = next((each for each in follows if each is None or each not in digests), None)
    order, at = [], follows.get(first)
    while at is not None:
        order.append(at)
        at = follows.get(at)
    assert len(order) == len(digests)
    return order


def made_old(world: World, *runs: Run) -> None:
    """Have these runs be of the time before receipts were chained: files and rows as they were then."""
    for run in runs:
        path = folder_of(world, run) / RECEIPT
        receipt = decode_receipt(path.read_bytes())
        old = {name: getattr(receipt, name) for name in ReceiptV1.__struct_fields__}
        path.write_bytes(encode_receipt(type(receipt)(**{**old, "schema_version": 1}, previous=None)))
    with writing(world.store.engine) as connection:
        table = schema.run
        cleared = {"receipt_sha256": None, "previous_run_id": None, "previous_sha256": None}
        connection.execute(table.update().where(table.c.run_id.in_([run.run_id for run in runs])).values(cleared))
        connection.execute(schema.receipt_head.delete())


def spoil(world: World, *statements: Any) -> None:
    """Change the store past everything that would keep it right."""
    with writing(world.store.engine) as connection:
        for statement in statements:
            connection.execute(statement)


def forget_rows(world: World, *runs: Run) -> None:
    """Lose the rows of these runs."""
    ids = [run.run_id for run in runs]
    spoil(
        world, *(table.delete().where(table.c.run_id.in_(ids)) for table in (schema.event, schema.attempt, schema.run, schema.dead_letter))
    )


def order(world: World, steps: list[Step] | None = None, **more: Any) -> Order:
    """An order to rebuild, by the tester; what is done goes into `steps`."""
    return Order(actor=TESTER, at=world.clock.now(), tell=(steps if steps is not None else []).append, **more)


def files_rebuilt(world: World, **more: Any) -> tuple[Rebuilt, list[str]]:
    """Rebuild files from the store; gives what came of it, and the actions."""
    steps: list[Step] = []
    return rebuild_files(world.workspace, world.store, order(world, steps, **more)), [step.action for step in steps]


def history_rebuilt(world: World, **more: Any) -> tuple[Rebuilt, list[str]]:
    """Rebuild rows from the receipts; gives what came of it, and the actions."""
    steps: list[Step] = []
    done = rebuild_history(world.workspace, world.store, order(world, steps, **more))
    return done, [step.action for step in steps if step.action != "head_noted"]


def bodies(world: World) -> dict[str, bytes]:
    """Every file of every run."""
    root = world.workspace.runs
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def rows(world: World) -> list[dict[str, Any]]:
    """Every row that history consists of, without what no receipt tells: keys, places in the queue, and the numbers of events."""
    from lily.storage.maintenance import rows as all_rows

    kept = ("run", "attempt", "event", "dead_letter", "tally", "spec", "receipt_head")
    told = [json.loads(line) for line in all_rows(world.store, kept)]
    for each in told:
        for name in ("sequence", "key", "enqueued_at", "cancel"):
            each["row"].pop(name, None)
        if each["row"].get("result"):  # what is empty need not be there
            each["row"]["result"] = {name: value for name, value in each["row"]["result"].items() if value not in (None, [], {})}
    kept_rows = [each for each in told if each["row"].get("runs") != 0]
    return sorted(kept_rows, key=lambda each: json.dumps(each, sort_keys=True))
