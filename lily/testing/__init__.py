"""Testing support for those who write blueprints and jobs: a fake clock, a supervisor in virtual time, golden receipts."""

from lily.blueprints.testkit import FakeContext
from lily.engines.fake_processes import FakeProcesses
from lily.testing.clock import FakeClock
from lily.testing.golden import check_golden, golden_text
from lily.testing.world import World, run_blueprint

__all__ = ["FakeClock", "FakeContext", "FakeProcesses", "World", "check_golden", "golden_text", "run_blueprint"]
