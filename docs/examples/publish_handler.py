"""Publish a function: every visitor is a stream, and nothing listens on this machine.

python docs/examples/publish_handler.py client.toml
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import tunnel


async def shout(stream: trio.abc.HalfCloseableStream, peer: tunnel.Peer) -> None:
    """Send back in capitals what the visitor says."""
    await stream.send_all(f"Hello {peer.address.host}\n".encode())
    async for data in stream:
        await stream.send_all(data.upper())


async def main(
    where: Path, task_status: trio.TaskStatus[tunnel.Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Publish it until cancelled."""
    async with tunnel.connect(where) as link:
        async with link.publish(handler=shout, name="shout") as address:
            print(f"try: nc {address.host} {address.port}", flush=True)
            task_status.started(address)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
