"""Making things to start from: keys, certificates, configurations, and all of them together."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from tunnel import limits, store
from tunnel.certificates import fingerprint, first_der, spki_pin
from tunnel.config.load import load_client, load_server
from tunnel.config.template import client_template, server_template
from tunnel.errors import StoreError
from tunnel.model import Address
from tunnel.protocol.keys import KEY_SIZE, derive, generate_key
from tunnel.store import File

_NEXT_STEPS = """\
Wrote {names} to {directory}.

On the server, which clients reach as {address}:
    tls-tunnel server -c {directory}/server.toml
Beside the services, with client.toml alone; say in its [[proxies]] what to publish:
    tls-tunnel client -c {directory}/client.toml

server.toml, client.toml and key.pem hold secrets: copy them over a safe way such as scp.
"""


def new_key() -> str:
    """A fresh key for `auth_key`."""
    return generate_key(secrets.token_bytes(KEY_SIZE))


def verifier_of(key: str) -> str:
    """What the server's file says of a client whose key it shall not know.

    Raises:
      KeyFormatError: the key is cut or mistyped.
    """
    return derive(key).verifier.to_text()


def verifier_of_file(path: Path) -> str:
    """The same for the key in a file.

    Raises:
      StoreError: it cannot be read, or holds no key that can be used.
      KeyFormatError: the key is cut or mistyped.
    """
    return verifier_of(store.read_auth_key(path))


def server_text(
    *,
    key: str,
    port: int = limits.SERVER_PORT,
    cert: str | None = None,
    cert_key: str | None = None,
) -> str:
    """A server's configuration; `cert` and `cert_key` are paths.

    Raises:
      ConfigError: it would not load, for what it was to be made of is no good.
    """
    text = server_template(auth_key=key, bind_port=port, cert_path=cert, key_path=cert_key)
    load_server(text, source="server template", environ={})
    return text


def client_text(*, key: str, server: Address, pin: str | None = None) -> str:
    """A client's configuration.

    Raises:
      ConfigError: it would not load, for what it was to be made of is no good.
    """
    text = client_template(auth_key=key, server_addr=server.host, server_port=server.port, pin=pin)
    load_client(text, source="client template", environ={})
    return text


def write_configuration(path: Path, text: str, *, force: bool) -> None:
    """Write a configuration that its owner alone can read, for it holds the key.

    Raises:
      StoreError: the file exists or cannot be written.
    """
    refuse_overwriting([path], force=force)
    store.write_atomic(File(path, text.encode()))


def make_certificate(
    cert_out: Path, key_out: Path, names: list[str], *, force: bool
) -> tuple[str, str]:
    """Write a self-signed certificate and its key; returns its fingerprint and its pin.

    Raises:
      StoreError: a file exists or cannot be written, or a name is none.
    """
    refuse_overwriting([cert_out, key_out], force=force)
    made = store.make_certificate(names[0], names[1:])
    store.write_atomic(File(key_out, made.key), File(cert_out, made.cert, 0o644))
    shown = first_der(made.cert)
    return fingerprint(shown), spki_pin(shown)


def make_pair(directory: Path, server: Address, *, force: bool) -> str:
    """Write all that a server and a client need to know each other; returns what to do next.

    Raises:
      ConfigError: the server's name is none.
      StoreError: a file exists or cannot be written; then none was.
    """
    key, made = new_key(), store.make_certificate(server.host, store.OWN_NAMES)
    pin = spki_pin(first_der(made.cert))
    files = {
        "server.toml": server_text(key=key, port=server.port, cert="cert.pem", cert_key="key.pem"),
        "client.toml": client_text(key=key, server=server, pin=pin),
        "cert.pem": made.cert.decode(),
        "key.pem": made.key.decode(),
    }
    refuse_overwriting([directory / name for name in files], force=force)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the directory {directory}: {error.strerror}") from error
    store.write_atomic(*(File(directory / name, text.encode()) for name, text in files.items()))
    return _NEXT_STEPS.format(names=", ".join(files), directory=directory, address=server)


def refuse_overwriting(paths: Iterable[Path], *, force: bool) -> None:
    """Go on only if none of the files exists, or if they may be overwritten.

    Raises:
      StoreError: names the files.
    """
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing and not force:
        raise StoreError(
            f"nothing was written, for there is {' and '.join(existing)} already; "
            "give another name, or --force to overwrite"
        )
