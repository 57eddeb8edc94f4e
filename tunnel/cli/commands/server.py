"""`tls-tunnel server`: a server of a file or, with `--quick`, one without a file.

The quick one prints its join string, which is all that its clients need.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tunnel import limits
from tunnel.cli.options import Config, given, start_logging
from tunnel.errors import TunnelError
from tunnel.model import within

if TYPE_CHECKING:
    import socket

    from tunnel.config import ServerConfig
    from tunnel.views import ServerHandle

Quick = Annotated[
    bool, typer.Option("--quick", help="Without a file; prints a join string for clients.")
]
PublicAddr = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="With --quick: by what clients reach it. [a guess]"),
]
QuickPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="With --quick: where it listens. [8443]")
]

#: Parameters that only a quick server has, and their options.
_OF_QUICK: Final = {"public_addr": "--public-addr", "port": "--port"}
#: Addresses for documentation (RFC 5737, RFC 3849): the route there is the default route.
_IPV4_ELSEWHERE: Final = "192.0.2.1"
_IPV6_ELSEWHERE: Final = "2001:db8::1"
_LOOPBACK: Final = "127.0.0.1"
#: Networks whose addresses are not reached from the internet (RFC 1918, 6598, 3927, 4193, 4291).
_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128"),
        ),
    )
)
_TITLE: Final = "\nJoin string:"
_NOTE: Final = """\

Beside the service, here one on port 3000:
    tls-tunnel expose 3000 --join {join}

Whoever has this join string can publish ports of this server. It stays the same over restarts:
key and certificate are kept in {state_dir}.
"""
_GUESS: Final = """\
{host} is a guess{doubt}. If clients reach this server by another name
or address, end it and give that with --public-addr.
"""


def server(
    ctx: typer.Context,
    config: Config = Path("server.toml"),
    quick: Quick = False,
    public_addr: PublicAddr = None,
    port: QuickPort = None,
) -> None:
    """Run the server until SIGINT or SIGTERM."""
    _refuse_mixture(ctx, quick=quick)
    start_logging(ctx.obj)
    if quick:
        run_quick(limits.SERVER_PORT if port is None else port, public_addr)
        return
    from tunnel.cli.loading import load_server

    run(load_server(config), config)


def _refuse_mixture(ctx: typer.Context, *, quick: bool) -> None:
    """Go on only if no option is for the other kind of server, the quick one or that of a file."""
    if quick and given(ctx, "config"):
        raise typer.BadParameter("--quick is without a file", param_hint="--config")
    for name, hint in _OF_QUICK.items():
        if not quick and given(ctx, name):
            raise typer.BadParameter("is for --quick; else it is in the file", param_hint=hint)


def run(config: ServerConfig, source: Path) -> None:
    """Run a server until SIGINT or SIGTERM; the first of them lets connections finish.

    SIGHUP has it read its configuration and its certificate again.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      TunnelError: it could not start.
    """
    from tunnel.api import run_server
    from tunnel.cli.reloading import RunningConfig
    from tunnel.cli.running import Program, run_program

    running = RunningConfig(source, config)
    run_program(
        Program(
            functools.partial(run_server, config, source=source),
            drain=lambda handle: handle.drain(),
            reload=running.reload,
            status=server_status,
            background=running.serve,
        )
    )


def server_status(handle: ServerHandle) -> str:
    """How many clients, proxies and visitors a server has, for `systemctl status`."""
    sessions = handle.statistics()
    proxies = sum(len(session.proxies) for session in sessions)
    visitors = sum(session.connections for session in sessions)
    return f"{len(sessions)} clients, {proxies} proxies, {visitors} visitors"


# --- Without a file -------------------------------------------------------------------------


def run_quick(port: int, public_addr: str | None) -> None:
    """Run a server that needs no file until SIGINT or SIGTERM; print its join string.

    Args:
      port: where clients connect to; 0 for any.
      public_addr: the name or address by which they reach it; None to guess.

    Raises:
      TunnelError: it could not start, or no join string can be made of what is given.
    """
    config = quick_config(port, os.environ)
    host = guess_address() if public_addr is None else public_addr
    _check_joinable(host, config)
    from tunnel.api import run_server
    from tunnel.cli.running import Program, run_program

    run_program(
        Program(
            functools.partial(run_server, config),
            drain=lambda handle: handle.drain(),
            status=server_status,
            background=functools.partial(_print_join, config, host, guessed=public_addr is None),
        )
    )


def quick_config(port: int, environ: Mapping[str, str]) -> ServerConfig:
    """Make the configuration of a server without a file.

    Its key is that of the environment, else that of the state directory, made there once.

    Args:
      port: where clients connect to; 0 for any.
      environ: usually `os.environ`.

    Raises:
      StoreError: the key that is kept is damaged.
    """
    from tunnel import store
    from tunnel.config import ServerConfig

    state_dir = store.state_directory(None, base=Path.cwd(), environ=environ)
    key = environ.get("TLS_TUNNEL_AUTH_KEY") or store.own_key(state_dir)
    return ServerConfig(bind_port=port, auth_key=key, state_dir=str(state_dir))


def guess_address() -> str:
    """Guess an address of this machine that others reach.

    It is one of those that this machine sends to the internet from: a public one if there is, else
    a private one, else that of the loopback.
    """
    import socket

    routes = (socket.AF_INET, _IPV4_ELSEWHERE), (socket.AF_INET6, _IPV6_ELSEWHERE)
    found = [host for family, far in routes if (host := _own_address(family, far)) is not None]
    public = [host for host in found if not within(host, _PRIVATE)]
    return (public or found or [_LOOPBACK])[0]


def _own_address(family: socket.AddressFamily, far: str) -> str | None:
    """The address that this machine would send to `far` from. Nothing is sent."""
    import socket

    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((far, 9))
            host: str = sock.getsockname()[0]
            return host
    except OSError:
        return None  # There is no route, or the machine does not know the family.


def _check_joinable(host: str, config: ServerConfig) -> None:
    """Before the server runs, see that a join string can be made.

    Raises:
      TunnelError: the name or the key does not fit into one.
    """
    from tunnel.config.values import HOSTS
    from tunnel.protocol.join import Join

    try:
        HOSTS.read(host)
    except ValueError as error:
        raise TunnelError(f"--public-addr: {error}") from error
    Join(host, 1, config.auth_key or "", "sha256:" + "0" * 64).to_text()


async def _print_join(
    config: ServerConfig, host: str, handle: ServerHandle, *, guessed: bool
) -> None:
    """Print the join string to stdout, and what to do with it to stderr."""
    import trio

    from tunnel.protocol.join import Join

    await trio.lowlevel.checkpoint()
    join = Join(host, handle.addresses[0].port, config.auth_key or "", handle.pin).to_text()
    print(_TITLE, file=sys.stderr)
    print(join, flush=True)
    print(_NOTE.format(join=join, state_dir=config.state_dir), end="", file=sys.stderr)
    if guessed:
        doubt = ", and an address of a private network" if within(host, _PRIVATE) else ""
        print(_GUESS.format(host=host, doubt=doubt), end="", file=sys.stderr)
