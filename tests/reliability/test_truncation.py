"""A transfer that was cut never looks whole: the end comes with all bytes, or not at all."""

from __future__ import annotations

import hashlib
import random
import signal
from functools import partial

import pytest
import trio

from tests.e2e.rig import service as local
from tests.e2e.rig import visit
from tests.faults.lab import fault_lab
from tests.faults.proxy import Action, Way
from tests.rig import read_all
from tunnel.limits import MIB

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SIZE = 10 * MIB
WHOLE = random.Random(10).randbytes(SIZE)


class Received:
    """What one end got of a transfer, and how it ended."""

    def __init__(self) -> None:
        self.size = 0
        self.clean = False
        self.over = trio.Event()
        self._digest = hashlib.sha256()

    async def read(self, stream) -> None:
        try:
            async for data in stream:
                self.size += len(data)
                self._digest.update(data)
            self.clean = True
        except trio.BrokenResourceError:
            pass
        self.over.set()

    def check(self) -> None:
        """Whole and clean, or visibly broken; and what came is what was sent."""
        if self.clean:
            assert self.size == SIZE
        assert self._digest.digest() == hashlib.sha256(WHOLE[: self.size]).digest()


class Service:
    """A local service from which ("d") or to which ("u") 10 MiB go."""

    def __init__(self) -> None:
        self.received = Received()
        self.began = trio.Event()

    async def serve(self, stream) -> None:
        wanted = await stream.receive_some(1)
        self.began.set()
        if wanted == b"d":
            await send_whole(stream)
        else:
            await self.received.read(stream)


async def send_whole(stream) -> None:
    try:
        await stream.send_all(WHOLE)
        await stream.send_eof()
        await read_all(stream)  # until the other side has ended as well
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def transfer(address, wanted, service, damage) -> Received:
    """One transfer and the damage to it; what the receiver saw."""
    service.__init__()
    async with await visit(address) as visitor, trio.open_nursery() as nursery:
        if wanted == b"u":
            await visitor.send_all(wanted)
            await service.began.wait()
            damage()
            received = service.received
            nursery.start_soon(send_whole, visitor)
        else:
            damage()
            received = Received()
            nursery.start_soon(received.read, visitor)
            await visitor.send_all(wanted)
        with trio.fail_after(30):
            await received.over.wait()
        nursery.cancel_scope.cancel()
    return received


@pytest.mark.parametrize("wanted", [b"d", b"u"], ids=["download", "upload"])
async def test_cut_at_a_random_byte(tmp_path, certificate, carrier, wanted, times, chance):
    # What the service sends goes from the client to the server.
    way = Way.UP if wanted == b"d" else Way.DOWN
    service = Service()
    async with fault_lab(tmp_path, certificate, carrier) as there, local(service.serve) as port:
        await there.start({"local_port": port})
        for number in range(times(100, 10)):
            if number % 5 == 4:
                await killed_in_the_middle(there, wanted, way, service, chance)
                continue
            action = chance.choice([Action.CUT, Action.RESET, Action.TRUNCATE])
            offset = chance.randrange(SIZE)  # the link carries more bytes than that
            damage = partial(there.proxy.at, action, way, offset)
            received = await transfer(there.address, wanted, service, damage)
            received.check()
            assert not received.clean, (action, offset)
            await there.back()


async def killed_in_the_middle(there, wanted, way, service, chance) -> None:
    victim = chance.choice([there.server, there.client])
    kill = partial(victim.process.send_signal, signal.SIGKILL)
    damage = partial(there.proxy.at, kill, way, chance.randrange(SIZE))
    received = await transfer(there.address, wanted, service, damage)
    # What the killed one had given to its kernel still arrives, which may be all there was.
    received.check()
    await victim.process.wait()
    if victim is there.server:
        await there.start_server()
        await there.back()
    else:
        await there.server.wait_for("Client disconnected")
        await there.start_client()
