"""What can be typed: the commands of `tls-tunnel`, in the order that the help has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from tunnel.cli.commands import proxy
from tunnel.cli.commands.bench import bench
from tunnel.cli.commands.cert import cert
from tunnel.cli.commands.check import check
from tunnel.cli.commands.client import client
from tunnel.cli.commands.expose import expose
from tunnel.cli.commands.init import init
from tunnel.cli.commands.keygen import keygen
from tunnel.cli.commands.register import register, unregister
from tunnel.cli.commands.reload import reload
from tunnel.cli.commands.server import server
from tunnel.cli.commands.template import template
from tunnel.cli.commands.top import top
from tunnel.cli.commands.visit import visit
from tunnel.cli.options import command

#: Each is named as its function is.
_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    *(server, client, check, reload, template, init, cert, keygen, top),
    *(register, unregister, expose, visit, bench),
)
#: The commands that follow `tls-tunnel proxy`.
_PROXY_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "add": proxy.add,
    "remove": proxy.remove,
    "list": proxy.show,
}

app = typer.Typer(
    no_args_is_help=True,
    # Typer's tracebacks print local variables, and keys are among them.
    pretty_exceptions_enable=False,
    # Plain text. Rich would take a third of a second to put a frame around it.
    rich_markup_mode=None,
)


@app.callback()
@command
def tls_tunnel() -> None:
    """Publish services from behind a NAT through a server with a public address."""


for _function in _COMMANDS:
    app.command()(command(_function))

_proxy = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_proxy.callback()(command(proxy.proxy))
for _name, _function in _PROXY_COMMANDS.items():
    _proxy.command(_name)(command(_function))
app.add_typer(_proxy, name="proxy")


def run_single(name: str) -> None:
    """Run one command as the program `tls-tunnel-NAME`.

    Args:
      name: "server" or "client".
    """
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)(command({"server": server, "client": client}[name]))
    alone(prog_name=f"tls-tunnel-{name}")
