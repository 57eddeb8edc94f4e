"""Many clients in one process. `python -m tests.benchmarks.scale.clients CLIENT.TOML`

The order `{"clients": 10, "ports": 4, "services": [5000]}` makes ten clients more, each with four
proxies on any free port, in front of these services in turn; it is answered, once all of them are
connected, with the published ports. They share what one process has once: the key, the TLS
context, the event loop. `{"connected": true}` is answered with how many are connected.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import secrets
import sys
from pathlib import Path

import attrs
import trio

from tests.benchmarks.processes import prepared_client
from tests.benchmarks.scale.worker import Order, say
from tests.rig import proxy
from tunnel.client.run import run_client
from tunnel.client.state import Client
from tunnel.ops.descriptors import raise_descriptor_limit
from tunnel.views import ClientHandle, ClientState


async def main(path: Path) -> None:
    """Make clients as told, until standard input ends."""
    model = prepared_client(path)
    handles: list[ClientHandle] = []
    async with trio.open_nursery() as nursery:
        gc.freeze()  # as the program does
        async for line in trio.wrap_file(sys.stdin):
            order = json.loads(line)
            if "clients" in order:
                added = [
                    await _start(nursery, model, order, number)
                    for number in range(order["clients"])
                ]
                handles += added
                say({"ports": [port for handle in added for port in _ports(handle)]})
            else:
                states = [handle.state.value for handle in handles]
                say({"connected": states.count(ClientState.CONNECTED)})
        nursery.cancel_scope.cancel()


async def _start(nursery: trio.Nursery, model: Client, order: Order, number: int) -> ClientHandle:
    services = itertools.islice(itertools.cycle(order["services"]), number, None)
    proxies = tuple(
        proxy(service, name=f"p{index}")
        for index, service in zip(range(order["ports"]), services, strict=False)
    )
    client = attrs.evolve(model, client_id=secrets.token_hex(16), proxies=proxies)
    handle: ClientHandle = await nursery.start(run_client, client)
    await handle.state.wait_value(ClientState.CONNECTED)
    return handle


def _ports(handle: ClientHandle) -> list[int]:
    return [proxy.addresses[0].port for proxy in handle.statistics()]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    raise_descriptor_limit()
    trio.run(main, Path(sys.argv[1]))
