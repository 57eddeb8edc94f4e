"""One byte that arrives as another ends the session, and never reaches a visitor."""

from __future__ import annotations

from functools import partial

import pytest

from tests.e2e.rig import ask
from tests.e2e.rig import service as local
from tests.faults.lab import fault_lab
from tests.faults.proxy import Action, Fault, Way
from tests.reliability.test_truncation import SIZE, Service, transfer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("wanted", [b"d", b"u"], ids=["download", "upload"])
async def test_in_the_middle_of_a_transfer(tmp_path, certificate, carrier, wanted, times, chance):
    way = Way.UP if wanted == b"d" else Way.DOWN
    service = Service()
    async with fault_lab(tmp_path, certificate, carrier) as there, local(service.serve) as port:
        await there.start({"local_port": port})
        # Who hears the wrong byte says so; the other one sees the connection go.
        hears, event = {
            Way.UP: (there.server, "Client disconnected"),
            Way.DOWN: (there.client, "Connection lost"),
        }[way]
        for _ in range(times(50, 5)):
            offset = chance.randrange(SIZE - 100_000)  # there is more behind it, see below
            damage = partial(there.proxy.at, Action.CORRUPT, way, offset)
            received = await transfer(there.address, wanted, service, damage)
            received.check()  # the first bytes of what was sent, and nothing else
            assert not received.clean, offset
            line = await hears.wait_for(event)
            assert line["reason"].startswith("TLS: "), offset
            await there.back()
        assert hears.events().count(event) == times(50, 5)
        every_line_is_one(there)


async def test_in_the_middle_of_the_handshake(tmp_path, certificate, times, chance):
    async with fault_lab(tmp_path, certificate) as there, local() as port:
        await there.start(
            {"local_port": port},
            # A wrong length is only noticed when what it promises does not come.
            server={"handshake_timeout": 1.0},
            client={"connect_timeout": 1.0},
        )
        # What TLS and the handshake put on the wire; the last tenth may belong to the link.
        sizes = {
            way: carried * 9 // 10 for way, carried in there.proxy.connections[0].carried.items()
        }
        for _ in range(times(200, 20)):
            way = chance.choice(list(Way))
            offset = chance.randrange(sizes[way])
            there.proxy.planned = [Fault(Action.CORRUPT, way, offset)]
            before = there.client.events().count("Connecting")
            there.proxy.reset()
            await there.client.wait_for("Connection lost")
            await there.back()
            assert await ask(there.address) == b"hello", (way, offset)
            # Once for the reset, and once for the wrong byte, if it mattered (the version of the
            # first record does not).
            assert there.client.events().count("Connecting") - before <= 2, (way, offset)
        every_line_is_one(there)


def every_line_is_one(there) -> None:
    """No traceback, nothing that is not a line of the log."""
    for line in there.server.lines + there.client.lines:
        assert "level" in line, line
        assert line["level"] in ("info", "warning", "error"), line
