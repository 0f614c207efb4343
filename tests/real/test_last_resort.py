"""Signals that nobody takes: what ends the process then, and when."""

import os
import subprocess
import sys

from actors.last_resort import STATUS
from tests.real.nursery import REPOSITORY

FULL = """
import os, signal
from actors import last_resort
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
last_resort.UNANSWERED_SECONDS = -1
with last_resort.last_resort(signal.SIGTERM):
    signal.raise_signal(signal.SIGTERM)
"""

CLOSING = """
import signal, sys
from actors import last_resort
came = last_resort.outlast(signal.SIGTERM)
for _ in range(3):
    signal.raise_signal(signal.SIGTERM)
print(len(came), flush=True)
last_resort.UNANSWERED_SECONDS = -1
signal.raise_signal(signal.SIGTERM)
"""


def test_a_process_that_hangs_in_its_log_is_ended_though_nobody_reads_why() -> None:
    """Else the only way out would hang in the same write."""
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", FULL], cwd=REPOSITORY, stderr=write) as process:
        try:
            assert process.wait(30) == STATUS
        finally:
            process.kill()
            os.close(read)
            os.close(write)


def test_while_it_closes_down_a_process_outlasts_signals_for_a_moment_only() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSING], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (STATUS, "3\n")
    assert "closing down takes too long; stopped at once" in done.stderr
