"""Log lines that strangers cause: some at once, then one now and then that counts the others."""

import logging

import pytest
import trio

from tunnel import limits
from tunnel.server.complaints import Complaints


@pytest.fixture
def complaints(caplog):
    caplog.set_level(logging.INFO, "tests.complaints")
    return Complaints(logging.getLogger("tests.complaints"))


async def test_some_at_once_and_then_one_now_and_then(complaints, caplog, autojump_clock):
    for number in range(1000):
        complaints.say(logging.INFO, "Bad", address=str(number))
    assert [one.address for one in caplog.records] == list(map(str, range(20)))
    assert not any(hasattr(one, "left_out") for one in caplog.records)
    caplog.clear()
    await trio.sleep(limits.COMPLAINT_INTERVAL)
    for number in range(10):
        complaints.say(logging.INFO, "Bad", address=str(number))
    [line] = caplog.records
    assert (line.address, line.left_out) == ("0", 980)
    caplog.clear()
    await trio.sleep(3600)
    complaints.say(logging.INFO, "Bad", address="x")
    complaints.say(logging.INFO, "Bad", address="y")
    first, second = caplog.records
    assert first.left_out == 9
    assert not hasattr(second, "left_out")  # each is counted once


async def test_what_floods_does_not_hide_what_does_not(complaints, caplog, autojump_clock):
    for _ in range(100):
        complaints.say(logging.INFO, "Refused", kind="protocol")
    complaints.say(logging.WARNING, "Refused", kind="already_connected")
    complaints.say(logging.WARNING, "Turned away")
    assert [one.levelname for one in caplog.records] == ["INFO"] * 20 + ["WARNING"] * 2
