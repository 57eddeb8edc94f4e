"""Texts of new configurations, fresh keys for them, and the rule that nothing is overwritten."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from tunnel import limits
from tunnel.config.load import load_client, load_server
from tunnel.config.template import client_template, server_template
from tunnel.errors import StoreError
from tunnel.model import Address
from tunnel.protocol.keys import KEY_SIZE, generate_key


def new_key() -> str:
    """Make a key for `auth_key`: 256 bits from the operating system."""
    return generate_key(secrets.token_bytes(KEY_SIZE))


def server_text(
    *,
    key: str,
    port: int = limits.SERVER_PORT,
    cert: str | None = None,
    cert_key: str | None = None,
) -> str:
    """Write a server's configuration.

    Args:
      key: the shared `auth_key`.
      port: where clients connect to.
      cert: the path of the certificate; None if the server makes its own.
      cert_key: the path of the certificate's key.

    Raises:
      ConfigError: it would not load, for an argument is not valid.
    """
    text = server_template(auth_key=key, bind_port=port, cert_path=cert, key_path=cert_key)
    load_server(text, source="server template", environ={})
    return text


def client_text(*, key: str, server: Address, pin: str | None = None) -> str:
    """Write a client's configuration.

    Args:
      key: the `auth_key`.
      server: where the server is.
      pin: of the server's certificate; None to trust the first one.

    Raises:
      ConfigError: it would not load, for an argument is not valid.
    """
    text = client_template(auth_key=key, server_addr=server.host, server_port=server.port, pin=pin)
    load_client(text, source="client template", environ={})
    return text


def refuse_overwriting(paths: Iterable[Path], *, force: bool) -> None:
    """Go on only if none of the files exists, or if they may be overwritten.

    Args:
      paths: what is about to be written. A link counts, wherever it leads.
      force: they may be overwritten.

    Raises:
      StoreError: names the files that exist.
    """
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing and not force:
        raise StoreError(
            f"nothing was written, for there is {' and '.join(existing)} already; "
            "give another name, or --force to overwrite"
        )
