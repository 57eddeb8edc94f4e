"""A scenario on the combinations of MATRIX: "all", or those that a seed draws.

`make matrix` and `make matrix-drawn` name this file; no other run collects it, since it needs the
compiled engine.
"""

from __future__ import annotations

import os
import subprocess

import pytest
import trio

from tests.e2e.rig import ask, lab, reset, service, visit
from tests.matrix.cover import Combination, all_combinations, draw_cover
from tests.matrix.dimensions import COMPILED, DIMENSIONS, ENGINES
from tests.matrix.entries import ENTRIES
from tests.rig import echo, read_all
from tunnel.limits import MIB

pytestmark = pytest.mark.e2e

MATRIX = os.environ.get("MATRIX", "all")
CHOSEN = all_combinations(DIMENSIONS) if MATRIX == "all" else draw_cover(DIMENSIONS, int(MATRIX))


def name_of(combination: Combination) -> str:
    return "-".join(combination.values())


def test_the_compiled_engine_is_compiled():
    """Or the combinations with it would tell nothing."""
    code = "import tunnel.yamux.connection as engine; print(engine.__file__)"
    command = [*ENGINES["compiled"][:-2], "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{COMPILED}/tunnel/yamux/connection.")
    assert done.stdout.strip().endswith(".so")


class Service:
    """Does what a visitor's first byte says, and remembers what it saw of the end."""

    def __init__(self) -> None:
        self.seen: dict[str, trio.Event] = {"late": trio.Event(), "reset": trio.Event()}

    async def __call__(self, stream: trio.SocketStream) -> None:
        match await stream.receive_some(1):
            case b"e":
                await echo(stream)
            case b"c":  # closes its half first
                await stream.send_eof()
                assert await read_all(stream) == b"late"
                self.seen["late"].set()
            case b"r":
                reset(stream)
            case b"w":
                await stream.send_all(b"w")
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
                self.seen["reset"].set()

    async def wait_seen(self, what: str) -> None:
        with trio.fail_after(20):
            await self.seen[what].wait()


@pytest.mark.parametrize("combination", CHOSEN, ids=name_of)
async def test_scenario(tmp_path, certificate, combination):
    """Traffic both ways, each kind of end, a client that is killed, and one that comes back."""
    handler = Service()
    async with (
        lab(tmp_path, certificate, combination["carrier"]) as place,
        service(handler) as port,
    ):
        place.commands = dict.fromkeys(place.commands, ENGINES[combination["engine"]])
        entry = ENTRIES[combination["entry"]](place, port)
        await entry.open()
        await carries(entry.address)
        await keeps_each_end(entry.address, handler)

        visitor = await visit(entry.address)
        await visitor.send_all(b"ex")
        assert await visitor.receive_some() == b"x"
        await entry.client.kill()
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        await visitor.aclose()
        await entry.wait_gone()

        await entry.publish_again()
        await carries(entry.address)


async def carries(address):
    """Bytes go both ways at once and arrive as they were sent, up to the end."""
    sent = os.urandom(4 * MIB)
    received = bytearray()
    async with await visit(address) as visitor, trio.open_nursery() as nursery:

        async def send():
            await visitor.send_all(b"e" + sent)
            await visitor.send_eof()

        nursery.start_soon(send)
        async for data in visitor:
            received += data
    assert received == sent


async def keeps_each_end(address, handler):
    """A half-close is one at the other side, and so is a reset, from either."""
    assert await ask(address, b"e") == b""
    async with await visit(address) as visitor:
        await visitor.send_all(b"c")
        assert await visitor.receive_some() == b""
        await visitor.send_all(b"late")
        await visitor.send_eof()
        await handler.wait_seen("late")
    async with await visit(address) as visitor:
        await visitor.send_all(b"r")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
    visitor = await visit(address)
    await visitor.send_all(b"w")
    assert await visitor.receive_some() == b"w"
    reset(visitor)
    await handler.wait_seen("reset")
