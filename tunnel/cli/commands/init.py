"""`tls-tunnel init`: the configurations of a server and a client that fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from tunnel import limits
from tunnel.cli.options import Force, Server
from tunnel.errors import StoreError
from tunnel.model import Address

_NEXT_STEPS: Final = """\
Wrote {names} to {directory}.

On the server, which clients reach as {address}:
    tls-tunnel server -c {directory}/server.toml
Beside the services, with client.toml alone; say in its [[proxies]] what to publish:
    tls-tunnel client -c {directory}/client.toml

server.toml, client.toml and key.pem hold secrets: copy them over a safe way such as scp.
"""


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to; made if it is missing.")
    ] = Path(),
    server: Server = None,
    force: Force = False,
) -> None:
    """Write a server's and a client's configuration that fit together, and a certificate."""
    from tunnel import store
    from tunnel.cli.templates import refuse_overwriting

    address = server or Address("localhost", limits.SERVER_PORT)
    files = _contents(address)
    refuse_overwriting([directory / name for name in files], force=force)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the directory {directory}: {error.strerror}") from error
    # All of them or none: a pair of which only one half is new would not fit together.
    store.write_atomic(
        *(store.File(directory / name, text.encode()) for name, text in files.items())
    )
    names = ", ".join(files)
    print(_NEXT_STEPS.format(names=names, directory=directory, address=address), end="")


def _contents(server: Address) -> dict[str, str]:
    """All that a server and a client need to know each other, by the names of the files.

    Raises:
      ConfigError: the server's name is none.
      StoreError: it cannot be a name in a certificate.
    """
    from tunnel import store
    from tunnel.certificates import first_der
    from tunnel.cli.templates import client_text, new_key, server_text

    key, made = new_key(), store.make_certificate(server.host, store.OWN_NAMES)
    pin = store.spki_pin(first_der(made.cert))
    return {
        "server.toml": server_text(key=key, port=server.port, cert="cert.pem", cert_key="key.pem"),
        "client.toml": client_text(key=key, server=server, pin=pin),
        "cert.pem": made.cert.decode(),
        "key.pem": made.key.decode(),
    }
