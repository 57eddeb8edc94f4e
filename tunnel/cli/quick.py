"""`tls-tunnel server --quick`: a server without a file, and the one word that its clients need."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from tunnel import store
from tunnel.api import run_server
from tunnel.cli.run import Program, server_status, until_signal
from tunnel.config import ServerConfig
from tunnel.config.values import HOSTS
from tunnel.errors import TunnelError
from tunnel.model import within
from tunnel.ops.descriptors import raise_descriptor_limit
from tunnel.ops.notify import from_environment
from tunnel.protocol.join import Join
from tunnel.views import ServerHandle

#: Addresses that nobody has (RFC 5737, RFC 3849): the way there is the way to the internet.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_LOOPBACK: Final = "127.0.0.1"
#: Networks whose addresses are no way in from elsewhere (RFC 1918, 6598, 3927, 4193, 4291).
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


def serve_quickly(port: int, public_addr: str | None) -> None:
    """Run a server that needs no file until SIGINT or SIGTERM; prints its join string.

    Args:
      port: where clients connect to; 0 for any.
      public_addr: the name or address by which they reach it; None to guess.

    Raises:
      TunnelError: it could not start.
    """
    config = quick_config(port, os.environ)
    host = guess_address() if public_addr is None else public_addr
    _check(host, config)
    announce = functools.partial(_announce, config, host, guessed=public_addr is None)
    raise_descriptor_limit()
    program = Program(
        functools.partial(run_server, config),
        lambda it: it.drain(),
        status=server_status,
        beside=announce,
    )
    trio.run(until_signal, program, from_environment(os.environ, pid=os.getpid()))


def quick_config(port: int, environ: Mapping[str, str]) -> ServerConfig:
    """The configuration that nobody wrote; its key is made, and kept, if there is none yet.

    Raises:
      StoreError: the key that is kept is damaged.
    """
    state_dir = store.state_directory(None, beside=Path.cwd(), environ=environ)
    key = environ.get("TLS_TUNNEL_AUTH_KEY") or store.own_key(state_dir)
    return ServerConfig(bind_port=port, auth_key=key, state_dir=str(state_dir))


def guess_address() -> str:
    """An address of this machine that others may reach: a public one, else any that leads away."""
    found = [*filter(None, (_own_address(family, far) for family, far in _ELSEWHERE))]
    public = [host for host in found if not within(host, _PRIVATE)]
    return (public or found or [_LOOPBACK])[0]


def _own_address(family: socket.AddressFamily, far: str) -> str | None:
    """From where this machine would send to that address. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((far, 9))
            host: str = sock.getsockname()[0]
            return host
    except OSError:
        return None  # no way out, or no such family


def _check(host: str, config: ServerConfig) -> None:
    """Before the server runs, see that there can be a join string.

    Raises:
      TunnelError: name or key fit none.
    """
    try:
        HOSTS.read(host)
    except ValueError as error:
        raise TunnelError(f"--public-addr: {error}") from error
    Join(host, 1, config.auth_key or "", "sha256:" + "0" * 64).to_text()


async def _announce(
    config: ServerConfig, host: str, handle: ServerHandle, *, guessed: bool
) -> None:
    """Print the join string; what to do with it goes to stderr."""
    await trio.lowlevel.checkpoint()
    join = Join(host, handle.addresses[0].port, config.auth_key or "", handle.pin).to_text()
    print(_TITLE, file=sys.stderr)
    print(join, flush=True)
    print(_NOTE.format(join=join, state_dir=config.state_dir), end="", file=sys.stderr)
    if guessed:
        doubt = ", and an address of a private network" if within(host, _PRIVATE) else ""
        print(_GUESS.format(host=host, doubt=doubt), end="", file=sys.stderr)
