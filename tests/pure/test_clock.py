"""Stamps and identities."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lily.clock import SystemClock, boot_id, parse_stamp, process_start_ticks, stamp, this_process

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=offsets)


@given(at=moments)
def test_a_stamp_comes_back_as_the_moment_it_was(at: datetime) -> None:
    """To the microsecond, whatever the zone."""
    assert parse_stamp(stamp(at)) == at


@given(at=st.datetimes(min_value=datetime(1000, 1, 2), timezones=st.just(UTC)))
def test_a_stamp_has_one_form(at: datetime) -> None:
    """Twenty-seven characters: six digits of a second, and Z."""
    text = stamp(at)
    assert len(text) == 27
    assert text.endswith("Z")
    assert text[19] == "."
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) == at


@given(
    one=st.datetimes(min_value=datetime(1000, 1, 2), timezones=st.just(UTC)),
    two=st.datetimes(min_value=datetime(1000, 1, 2), timezones=st.just(UTC)),
)
def test_stamps_sort_as_their_moments(one: datetime, two: datetime) -> None:
    """As text, in files and in the store."""
    assert (stamp(one) < stamp(two)) == (one < two)


def test_text_without_an_offset_is_no_stamp() -> None:
    """Nobody knows when it is."""
    with pytest.raises(ValueError, match="no UTC offset"):
        parse_stamp("2026-03-02T00:00:00")


def test_the_machines_clock_is_in_utc() -> None:
    """Aware, always."""
    assert SystemClock().now().tzinfo is UTC


def test_a_process_is_named_by_pid_and_start() -> None:
    """Together with the boot they are never used again."""
    pid, ticks, boot = this_process()
    assert (pid, ticks, boot) == (os.getpid(), process_start_ticks(os.getpid()), boot_id())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = process_start_ticks(child.pid)
        assert started is None or started >= (ticks or 0)
    finally:
        child.communicate(b"\n")
    assert process_start_ticks(child.pid) is None


def test_a_process_that_has_ended_and_that_nobody_waited_for_is_none() -> None:
    """Its entry stays for as long as its parent takes no notice: it owns nothing any more."""
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_start_ticks(child.pid) is None
