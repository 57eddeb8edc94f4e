"""Many clients in one process, to weigh a link. `python -m tests.benchmarks.links CLIENT.TOML`

Each line of standard input, "LINKS PROXIES", makes so many clients more, each with so many
proxies on any free port; it answers "done" when all of them are connected. They share what one
process has once: the key, the TLS context, the event loop.
"""

from __future__ import annotations

import gc
import logging
import secrets
import sys
from pathlib import Path

import attrs
import trio

from tests.benchmarks.processes import prepared_client
from tests.rig import proxy
from tunnel.client.run import run_client
from tunnel.client.state import Client
from tunnel.views import ClientState


async def main(path: Path) -> None:
    """Make clients as told, until standard input ends."""
    model = prepared_client(path)
    async with trio.open_nursery() as nursery:
        async for line in trio.wrap_file(sys.stdin):
            links, proxies = map(int, line.split())
            for _ in range(links):
                handle = await nursery.start(run_client, _like(model, proxies))
                await handle.state.wait_value(ClientState.CONNECTED)
            gc.collect()
            print("done", file=sys.stderr, flush=True)
        nursery.cancel_scope.cancel()


def _like(model: Client, proxies: int) -> Client:
    local = model.proxies[0].spec.local_port
    wanted = tuple(proxy(local, name=f"p{number}") for number in range(proxies))
    return attrs.evolve(model, client_id=secrets.token_hex(16), proxies=wanted)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(main, Path(sys.argv[1]))
