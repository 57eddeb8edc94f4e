"""Publish an ASGI application, here one without a framework; nothing listens on this machine.

python docs/examples/publish_asgi.py client.toml
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import tunnel


async def app(
    scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Tell visitors where they come from."""
    assert scope["type"] == "http"
    body = f"You are {scope['client'][0]}, and asked for {scope['path']}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(
    where: Path, task_status: trio.TaskStatus[tunnel.Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Publish it until cancelled."""
    async with tunnel.connect(where) as link:
        async with link.publish_asgi(app, name="pages") as address:
            print(f"open http://{address}/", flush=True)
            task_status.started(address)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
