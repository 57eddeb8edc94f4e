"""`tls-tunnel template`: a commented configuration to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from tunnel import limits
from tunnel.cli.options import Force, Kind, Server
from tunnel.model import Address

#: What a client's template dials until the name of a real server stands there.
_EXAMPLE: Final = Address("tunnel.example.com", limits.SERVER_PORT)


def template(
    kind: Annotated[Kind, typer.Argument(help="Whose.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to, instead of stdout."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The auth_key; without it a new one.")
    ] = None,
    server: Server = None,
    pin: Annotated[
        str | None, typer.Option(metavar="PIN", help="The server's pin, for a client.")
    ] = None,
    force: Force = False,
) -> None:
    """Write a commented configuration to start from."""
    from tunnel import store
    from tunnel.cli import templates

    chosen = templates.new_key() if key is None else key
    address = server or _EXAMPLE
    if kind is Kind.CLIENT:
        text = templates.client_text(key=chosen, server=address, pin=pin)
    elif pin is None:
        text = templates.server_text(key=chosen, port=address.port)
    else:
        raise typer.BadParameter("a pin is for the client's configuration", param_hint="--pin")
    if output is None:
        print(text, end="")
    else:
        templates.refuse_overwriting([output], force=force)
        store.write_atomic(store.File(output, text.encode()))
    if key is None:
        print("note: this auth_key is new; the other side needs the same one", file=sys.stderr)
