"""What threads decode is worked out before there are any: see `lily.decoding`."""

import subprocess
import sys

import pytest

_LOOK = """
import importlib, sys, msgspec
module = importlib.import_module("{module}")
kind, worked_out = eval("{kind}", vars(module)), []

def watch(frame, event, arg):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        worked_out.append(frame.f_locals)

sys.setprofile(watch)
try:
    msgspec.json.decode(b"[0]", type=kind)
except msgspec.ValidationError:
    pass
sys.setprofile(None)
sys.exit(len(worked_out))
"""


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("lily.runs", "PinnedSpec"),
        ("lily.runs", "list[Attempt]"),
        ("lily.receipts", "Receipt"),
        ("lily.receipts", "ReceiptV1"),
        ("lily.settings", "Settings"),
        ("lily.storage.history", "_Spec"),
        ("lily.spec_index", "_Cache"),
        ("lily.approvals.record", "list[Approval]"),
    ],
)
def test_nothing_is_left_to_be_worked_out_when_it_is_first_decoded(module: str, kind: str) -> None:
    """Two threads that do it at once would end the supervisor by a signal that nobody can catch."""
    subprocess.run([sys.executable, "-c", _LOOK.format(module=module, kind=kind)], check=True)


def test_a_type_that_is_not_prepared_is_found_out() -> None:
    told = _LOOK.replace("module = importlib", "import lily.runs; msgspec.json.Decoder = lambda kind: None; module = importlib")
    ended = subprocess.run([sys.executable, "-c", told.format(module="lily.receipts", kind="Receipt")], check=False)
    assert ended.returncode > 0
