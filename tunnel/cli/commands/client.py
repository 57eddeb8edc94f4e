"""`tls-tunnel client`: a client of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunnel.cli.options import Config, start_logging

if TYPE_CHECKING:
    from tunnel.config import ClientConfig
    from tunnel.views import ClientHandle


def client(ctx: typer.Context, config: Config = Path("client.toml")) -> None:
    """Run the client, reconnecting for ever, until SIGINT or SIGTERM."""
    start_logging(ctx.obj)
    from tunnel.cli.loading import load_client

    run(load_client(config), config)


def run(config: ClientConfig, source: Path) -> None:
    """Run a client until SIGINT or SIGTERM. SIGHUP has it read its configuration again.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    import functools

    from tunnel.api import run_client
    from tunnel.cli.reloading import RunningConfig
    from tunnel.cli.running import Program, run_program

    running = RunningConfig(source, config)
    run_program(
        Program(
            functools.partial(run_client, config, source=source),
            reload=running.reload,
            status=client_status,
            background=running.serve,
        )
    )


def client_status(handle: ClientHandle) -> str:
    """Whether a client is connected, and how many proxies it publishes, for `systemctl status`."""
    published = sum(1 for proxy in handle.statistics() if proxy.addresses)
    return f"{handle.state.value.value}, {published} proxies published"
