"""What the targets that knock at a supervisor share: a real one in a scratch workspace, and what must hold of it afterwards."""

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from lily.operations.client import supervisor_status
from lily.operations.sockets import address
from tests.fuzz.campaign import Broken, resident
from tests.real.house import House, until
from tests.real.nursery import Nursery

ANSWER = 120.0  # seconds in which a supervisor that is asked answers, started with little priority on a machine that others use


class Besieged:
    """A supervisor, and everything that it must still be after whatever was sent to it."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp())
        self.house = House(self._root / "home", Nursery(self._root))
        self.house.job("hello", "true")
        self.up = self.house.start("up")
        until(lambda: self.house.answers(self.up) or not self.up.alive(), "a supervisor that answers", timeout=ANSWER)
        self._run()
        self._descriptors = self._open()

    def _run(self) -> None:
        if self.house.until_ended(self.house.submit("hello"), timeout=ANSWER).status != "succeeded":
            raise Broken("a job that only says `true` fails")

    def _open(self) -> int:
        return len(os.listdir(f"/proc/{self.up.pid}/fd"))

    def connect(self, path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket that is connected to one of the supervisor's."""
        door = socket.socket(socket.AF_UNIX, kind)
        door.settimeout(ANSWER)
        with address(path) as where:
            door.connect(where)
        return door

    def check(self) -> None:
        """It answers."""
        status = supervisor_status(self.house.workspace, timeout=ANSWER)
        if status is None or status["pid"] != self.up.pid:
            raise Broken(f"the supervisor does not answer; its log ends: {self.up.said()[-2000:]}")

    def grown(self) -> float:
        """MiB of the supervisor."""
        return resident(self.up.pid)

    def close(self) -> None:
        """It answers, runs a job, has as few descriptors as before, and its log tells of no crash."""
        try:
            self.check()
            self._run()
            deadline = time.monotonic() + ANSWER
            while self._open() > self._descriptors + 5:
                if time.monotonic() > deadline:
                    raise Broken(f"{self._descriptors} descriptors before, {self._open()} after")
                time.sleep(0.05)
            said = [line for line in self.up.said().splitlines() if "crashed" in line or "could not be answered" in line]
            if said:
                raise Broken(f"the log has {len(said)} lines such as {said[0]}")
        finally:
            self.house.close()
            self.house.nursery.close()
            shutil.rmtree(self._root)
