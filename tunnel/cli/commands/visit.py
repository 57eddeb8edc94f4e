"""`tls-tunnel visit`: reach another client's service with one line and no file."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from tunnel.cli.options import JoinFile, JoinText, Save
from tunnel.model import Address

if TYPE_CHECKING:
    from tunnel.cli.display import Progress
    from tunnel.config import ClientConfig


def visit(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The other client's proxy.", show_default=False)],
    port: Annotated[int, typer.Option(min=1, max=65535, help="The local port to listen on.")],
    join: JoinText = None,
    join_file: JoinFile = None,
    publish_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Its publish_port; 0 if no other has its name.")
    ] = 0,
    owner: Annotated[
        str | None, typer.Option(metavar="CLIENT", help="The client that must have it.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the proxy's visitor_secret, if it has one."),
    ] = None,
    bind: Annotated[
        str, typer.Option(metavar="ADDR", help="The local address to listen on.")
    ] = "127.0.0.1",
    save: Save = None,
) -> None:
    """Reach another client's service at a local port, in one line."""
    from tunnel.cli.display import Progress, open_display
    from tunnel.cli.joining import client_of, read_join, save_as_file
    from tunnel.cli.running import run_line
    from tunnel.library.arguments import visitor_config

    server = read_join(join, join_file, os.environ)
    keys = {
        "name": name,
        "publish_port": publish_port,
        "owner": owner,
        "visitor_secret_file": secret_file and str(secret_file.absolute()),
        "bind_addr": bind,
        "bind_port": port,
    }
    visitor = visitor_config(keys, "visit")
    config = attrs.evolve(client_of(server, os.environ), visitors=(visitor,))
    if save is not None:
        print(save_as_file(save, server, visitor, os.environ), file=sys.stderr)
    progress = Progress(str(Address(server.host, server.port)), name, "is away")
    with open_display(progress, ctx.obj) as display:
        run_line(functools.partial(listen, config, progress), display.show)


async def listen(config: ClientConfig, progress: Progress) -> None:
    """Lead a local port to another client's proxy until cancelled.

    Args:
      config: the client, with one visitor.
      progress: told where the port is while the proxy can be reached, and what is carried.

    Raises:
      TunnelError: the server cannot be reached, or says no.
    """
    from tunnel.library.link import connect

    async with connect(config) as link:
        [visitor] = link.visitors
        await progress.follow(link, visitor.reach, visitor.counters.statistics)
