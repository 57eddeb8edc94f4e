"""`tls-tunnel expose`: publish a local service with one line and no file."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunnel.cli.options import JoinFile, JoinText, Save
from tunnel.errors import PublishError, TunnelError
from tunnel.model import Address

if TYPE_CHECKING:
    from tunnel.cli.display import Progress
    from tunnel.config import ClientConfig, ProxyConfig


def expose(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(help="The service: PORT, HOST:PORT or unix:/path.", show_default=False)
    ],
    join: JoinText = None,
    join_file: JoinFile = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 takes any free one.")
    ] = 0,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What logs and `visit` call it. [as TARGET]")
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show a QR code of the address, too.")] = False,
    save: Save = None,
) -> None:
    """Publish a local service in one line, and show where."""
    from tunnel.cli.display import Progress, open_display
    from tunnel.cli.joining import client_of, read_join, save_as_file
    from tunnel.cli.running import run_line

    server = read_join(join, join_file, os.environ)
    proxy = proxy_of(target, port, name)
    config = client_of(server, os.environ)
    if save is not None:
        print(save_as_file(save, server, proxy, os.environ), file=sys.stderr)
    address = Address(server.host, server.port)
    progress = Progress(str(address), _service(proxy), "is not published: see the log")
    with open_display(progress, ctx.obj, qr=qr) as display:
        run_line(functools.partial(publish, config, proxy, progress), display.show)


def proxy_of(target: str, port: int, name: str | None) -> ProxyConfig:
    """Make the proxy that a line asks for.

    Args:
      target: PORT, HOST:PORT or unix:/path.
      port: the server's port; 0 for any free one.
      name: None to call it as its target.

    Raises:
      ConfigError: an argument is not valid.
    """
    from tunnel.config.values import UNIX
    from tunnel.library.arguments import local_address, proxy_config

    if name is None:
        name = Path(target).name if target.startswith(UNIX) else target
    return proxy_config({"name": name, "publish_port": port, **local_address(target)}, "expose")


async def publish(config: ClientConfig, proxy: ProxyConfig, progress: Progress) -> None:
    """Publish a service until cancelled; its port on the server is free when this returns.

    Args:
      config: the client.
      proxy: what it publishes.
      progress: told where the service is reached, and what is carried.

    Raises:
      TunnelError: the server cannot be reached, or says no.
    """
    from tunnel.library.link import connect

    async with connect(config) as link:
        try:
            async with link.publish(proxy.publish_port, to=_service(proxy), name=proxy.name):
                with link.published.open_transform(lambda at: at.get(proxy.name)) as reach:
                    await progress.follow(link, reach, lambda: link.statistics()[0].counters)
        except PublishError as error:
            raise TunnelError(f"the server does not publish it: {error}") from error


def _service(proxy: ProxyConfig) -> str:
    if proxy.local_port is None:
        return proxy.local_addr
    return str(Address(proxy.local_addr, proxy.local_port))
