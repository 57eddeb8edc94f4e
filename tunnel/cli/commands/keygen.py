"""`tls-tunnel keygen`: a new key, and its verifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def keygen(
    verifier: Annotated[
        bool,
        typer.Option(
            "--verifier", help="And its verifier, for the server's file: no secret of the client."
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --verifier: of the key in this file, not a new."),
    ] = None,
) -> None:
    """Print a new 256-bit key, for auth_key."""
    if key_file is not None and not verifier:
        raise typer.BadParameter("is for --verifier", param_hint="--key-file")
    from tunnel import store
    from tunnel.cli.templates import new_key
    from tunnel.protocol.keys import derive

    if not verifier:
        print(new_key())
    elif key_file is not None:
        print(f'verifier = "{derive(store.read_auth_key(key_file)).verifier.to_text()}"')
    else:
        key = new_key()
        print(f'auth_key = "{key}"')
        print(f'verifier = "{derive(key).verifier.to_text()}"')
