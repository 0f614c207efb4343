"""Folders of runs as crashes, editors and forgers left them, read by all who read them: verify, rebuild in both directions, show.

Many inputs are made to agree with themselves again (the hashes of spec and events), as a forger would, so that what stands behind the
digests is met too.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from lily.cli.runs import run_object
from lily.operations.rebuild import Order, rebuild_files
from lily.operations.rebuild_history import Unbelievable, read_past
from lily.operations.verify_runs import Tally, verify
from lily.receipt_shapes import FindingCode
from lily.receipts import sha256_of
from lily.runs import Run
from lily.specs import canonical_json, spec_hash
from lily.storage.artifacts import read_receipt, whole
from lily.storage.database import writing
from lily.storage.history import Past, put_back
from lily.storage.run_checks import has_receipt
from lily.testing import World
from lily.text import all_encodable
from lily.workspace import EVENTS, RECEIPT
from tests.fuzz.campaign import Broken, own_memory
from tests.fuzz.grammar import bent, odd
from tests.fuzz.receipts import WORDS
from tests.receipts import TESTER, folder_of, made_old, with_a_past, wordy
from tests.work import ALL

_CODES = frozenset(get_args(FindingCode))
_APART = b"\n\x1e\n"  # between receipt and events


class _Undone(Exception):
    """The transaction that was only tried is not committed."""


class Folders:
    """Whatever stands in a run's folder, there are findings with known codes, reasons, or what a run was; and it is written again."""

    name = "folders"
    words: Sequence[bytes] = WORDS
    seconds = 2.0

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self._world = with_a_past(World(self._root, *ALL, wordy))
        runs = [run for run in self._world.store.runs() if run.job_id != "other"]
        made_old(self._world, runs[0], runs[1])
        self._runs = {bytes([48 + number]): run for number, run in enumerate(runs)}
        self._files = {mark: self._read(run) for mark, run in self._runs.items()}
        self.corpus: Sequence[bytes] = [mark + b"\n" + _APART.join(files) for mark, files in self._files.items()]

    def _read(self, run: Run) -> tuple[bytes, bytes]:
        folder = folder_of(self._world, run)
        return (folder / RECEIPT).read_bytes(), (folder / EVENTS).read_bytes()

    def fresh(self, rng: random.Random) -> bytes:
        """A run's receipt and events, in which something was changed and made to agree again."""
        mark = rng.choice(tuple(self._runs))
        told, events = self._files[mark]
        receipt = json.loads(told)
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            inner = receipt.get("spec")
            if rng.random() < 0.3 and isinstance(inner, dict):
                bent(rng, inner, odd)
            else:
                bent(rng, receipt, odd)
        lines = [json.loads(line) for line in events.splitlines()]
        if rng.random() < 0.4:
            lines = [bent(rng, line, odd) if rng.random() < 0.4 else line for line in lines]
        events = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return mark + b"\n" + _APART.join((_sealed(receipt, events), events))

    def feed(self, given: bytes) -> str:
        """See `Target`."""
        run, before = self._runs.get(given[:1]), self._files.get(given[:1])
        told, apart, events = given[2:].partition(_APART)
        if run is None or before is None or not apart:
            return "unshaped"
        folder = folder_of(self._world, run)
        (folder / RECEIPT).write_bytes(told)
        (folder / EVENTS).write_bytes(events)
        try:
            return self._seen(run)
        finally:
            for name, body in zip((RECEIPT, EVENTS), before, strict=True):
                (folder / name).write_bytes(body)

    def _seen(self, run: Run) -> str:
        place, store = self._world.workspace, self._world.store
        codes = [each.code for each in verify(place, store, Tally(), run_id=run.run_id)]
        if not set(codes) <= _CODES:
            raise Broken(f"findings with codes that are not public: {codes}")
        whole(place, run)
        has_receipt(place, run.job_id, run.run_id)
        receipt = read_receipt(place, run.job_id, run.run_id)
        msgspec.json.encode(all_encodable(msgspec.to_builtins(run_object(place, run, receipt))))
        try:
            self._try_to_put_back(read_past(place, run.job_id, run.run_id, {}, None))
            past = "past"
        except Unbelievable as why:
            past = str(why)[:40]
        rebuild_files(place, store, Order(actor=TESTER, at=self._world.clock.now(), dry_run=True), run_ids=[run.run_id])
        return f"{'found' if codes else 'whole'} {sorted(codes)} {past}"

    def _try_to_put_back(self, past: Past) -> None:
        try:
            with writing(self._world.store.engine) as connection:
                put_back(connection, self._world.store, [past], past.run.queued_at)
                raise _Undone
        except _Undone:
            return

    def grown(self) -> float:
        """See `Target`."""
        return own_memory()

    def close(self) -> None:
        """The runs are as they were."""
        found = [each.code for each in verify(self._world.workspace, self._world.store, Tally(), job_id="fails")]
        self._world.close()
        shutil.rmtree(self._root)
        if found:
            raise Broken(f"what was only looked at has changed: {found}")


def _sealed(receipt: Any, events: bytes) -> bytes:
    """The receipt as a forger writes it who knows of hashes."""
    if isinstance(receipt, dict):
        if "spec" in receipt:
            receipt["spec_hash"] = spec_hash(canonical_json(receipt["spec"]))
        for file in receipt.get("artifacts") or () if isinstance(receipt.get("artifacts"), list) else ():
            if isinstance(file, dict) and file.get("name") == EVENTS:
                file |= {"bytes": len(events), "sha256": sha256_of(events)}
    return msgspec.json.format(msgspec.json.encode(receipt, order="sorted"), indent=2) + b"\n"


def target() -> Folders:
    """For the command line."""
    return Folders()
