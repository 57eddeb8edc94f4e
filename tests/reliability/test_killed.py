"""`kill -9` at any moment: back within the reconnect delay and a second."""

from __future__ import annotations

from datetime import datetime

import pytest
import trio

from tests.e2e.rig import Process, ask, published, visit
from tests.e2e.rig import service as local
from tests.faults.lab import fault_lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DELAY = 0.5


async def test_killed_at_random_moments(
    tmp_path, certificate, carrier, times, chance, record_property
):
    darkness = []
    async with fault_lab(tmp_path, certificate, carrier) as there, local() as port:
        await there.start({"local_port": port}, client={"reconnect_delay": DELAY})
        for number in range(times(30, 5)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_busy, there.address)
                await trio.sleep(chance.random() / 5)
                if number % 2:
                    await there.client.kill()
                    await there.start_client()
                    began = moment(there.client, "Connecting")
                else:
                    await there.server.kill()
                    await there.start_server()
                    began = moment(there.server, "Server listening")
                    await published(there.client)
                nursery.cancel_scope.cancel()
            darkness.append(moment(there.client, "Proxy published") - began)
            assert await ask(there.address) == b"hello"
    print(f"darkness: worst {max(darkness):.2f} s of {len(darkness)}, with a delay of {DELAY} s")
    record_property("darkness", max(darkness))
    assert max(darkness) < DELAY + 1


def moment(process: Process, event: str, *, first: bool = False) -> float:
    """When it last (or first) said so, by its log."""
    line = [line for line in process.lines if line["event"] == event][0 if first else -1]
    return datetime.fromisoformat(line["timestamp"]).timestamp()


async def keep_busy(address) -> None:
    """Visitors who come and go and talk, whatever happens to them."""
    while True:
        try:
            async with await visit(address) as visitor:
                await visitor.send_all(bytes(100_000))
                await visitor.receive_some()
        except (OSError, trio.BrokenResourceError):
            await trio.sleep(0.01)
