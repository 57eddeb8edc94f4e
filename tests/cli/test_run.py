from __future__ import annotations

import gc
import signal

import pytest
import trio

from tunnel.cli.run import until_signal
from tunnel.errors import StoreError, TunnelError


class Program:
    """Something that runs until it is drained, and notes what becomes of it."""

    def __init__(self, *, ends_when_drained=True, signal_before_start=False):
        self.ends_when_drained = ends_when_drained
        self.signal_before_start = signal_before_start
        self.drained = trio.Event()
        self.seen = []

    async def run(self, *, task_status):
        try:
            if self.signal_before_start:
                signal.raise_signal(signal.SIGTERM)
                await trio.sleep_forever()
            task_status.started(self)
            await self.drained.wait()
            self.seen.append("drained")
            if not self.ends_when_drained:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.seen.append("cancelled")
            raise

    def drain(self):
        self.drained.set()


def drain(program):
    program.drain()


async def run_with_signals(program, *signals, drain=drain):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_signal, program.run, drain)
        for number in signals:
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(number)


@pytest.fixture(autouse=True)
def thawed():
    """The programs freeze what is there when they start; the tests' own process goes on."""
    yield
    gc.unfreeze()


async def test_what_is_there_at_the_start_is_not_looked_through_again():
    program = Program()
    assert gc.get_freeze_count() == 0
    await run_with_signals(program, signal.SIGTERM)
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains(number):
    program = Program()
    await run_with_signals(program, number)
    assert program.seen == ["drained"]


async def test_a_second_signal_does_not_wait():
    program = Program(ends_when_drained=False)
    await run_with_signals(program, signal.SIGTERM, signal.SIGTERM)
    assert program.seen == ["drained", "cancelled"]


async def test_what_cannot_drain_is_cancelled():
    program = Program()
    await run_with_signals(program, signal.SIGINT, drain=None)
    assert program.seen == ["cancelled"]


async def test_a_signal_during_the_start_cancels():
    program = Program(signal_before_start=True)
    await until_signal(program.run, drain)
    assert program.seen == ["cancelled"]


async def test_an_end_without_a_signal_is_an_end():
    program = Program()
    program.drain()
    await until_signal(program.run, drain)
    assert program.seen == ["drained"]


@pytest.mark.parametrize("error", [OSError(98, "Address in use"), StoreError("no key")])
async def test_a_failed_start_is_one_error(error):
    async def run(*, task_status):
        raise error

    with pytest.raises(TunnelError, match=r"could not start: .*(Address in use|no key)") as caught:
        await until_signal(run)
    assert caught.value.__cause__ is error


async def test_a_bug_is_not_hidden():
    async def run(*, task_status):
        task_status.started()
        raise KeyError("bug")

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await until_signal(run)


async def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    program = Program()
    program.drain()
    await until_signal(program.run)
    assert signal.getsignal(signal.SIGTERM) is before
