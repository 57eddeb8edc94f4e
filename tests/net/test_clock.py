"""A machine that slept: what is seen of it, and how soon."""

from __future__ import annotations

import time

import pytest
import trio

from tunnel import limits
from tunnel.net.clock import SleepDetector, asleep, sleep_while_awake


class Machine:
    """How long it has slept in all, set by the test; how often that was asked for."""

    def __init__(self):
        self.asleep = 1234.5
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return self.asleep


@pytest.fixture
def machine():
    return Machine()


def test_sleep_is_seen_once(machine):
    detector = SleepDetector(machine)
    assert not detector.slept()
    machine.asleep += 60
    assert detector.slept()
    assert not detector.slept()


def test_two_readings_a_moment_apart_are_no_sleep(machine):
    detector = SleepDetector(machine)
    for _ in range(50):
        machine.asleep += 0.05
        assert not detector.slept()
    machine.asleep -= 2.5
    assert not detector.slept()


def test_the_real_clocks_agree_while_nobody_sleeps():
    detector = SleepDetector()
    assert asleep() >= -0.1
    assert not detector.slept()


def test_a_clock_that_goes_on_while_the_machine_sleeps(monkeypatch):
    readings = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 100.0}
    monkeypatch.setattr(time, "clock_gettime", readings.__getitem__)
    detector = SleepDetector()
    readings[time.CLOCK_MONOTONIC] += 50
    readings[time.CLOCK_BOOTTIME] += 50
    assert not detector.slept()
    readings[time.CLOCK_BOOTTIME] += 8 * 3600
    assert detector.slept()


def test_without_such_a_clock_nothing_is_seen(monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert asleep() == 0.0
    assert not SleepDetector().slept()


async def test_a_sleep_that_is_not_interrupted_takes_as_long_as_it_says(machine, autojump_clock):
    for seconds in (0.0, 0.3, limits.SUSPEND_POLL_INTERVAL, 7.5):
        began = trio.current_time()
        assert not await sleep_while_awake(seconds, SleepDetector(machine))
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_it_ends_soon_after_the_machine_woke(machine, autojump_clock):
    """Trio's clock stands still while the machine sleeps; the other one does not."""
    async with trio.open_nursery() as nursery:

        async def suspend():
            await trio.sleep(10.2)
            machine.asleep += 3600

        nursery.start_soon(suspend)
        began = trio.current_time()
        assert await sleep_while_awake(600, SleepDetector(machine))
        assert 10.2 <= trio.current_time() - began <= 10.2 + limits.SUSPEND_POLL_INTERVAL


async def test_a_machine_that_slept_before_need_not_be_waited_for(machine, autojump_clock):
    detector = SleepDetector(machine)
    machine.asleep += 60
    began = trio.current_time()
    with trio.testing.assert_checkpoints():
        assert await sleep_while_awake(600, detector)
    assert trio.current_time() == began
    with trio.testing.assert_checkpoints():
        assert not await sleep_while_awake(0, detector)
