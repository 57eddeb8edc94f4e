"""`tls-tunnel top`: what a running program does, on a screen; here, where to look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tunnel.errors import TunnelError
from tunnel.model import Address

if TYPE_CHECKING:
    from tunnel.config import ClientConfig, ServerConfig
    from tunnel.ops.topsource import Source

#: A program that listens on every address of its machine listens on this one, too.
_LOOPBACK: Final = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def top(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Of the program that is looked at."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", "-u", metavar="URL", help="Or where its statistics are."),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, max=3600, help="Seconds between looks.")
    ] = 2.0,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the token that it asks for."),
    ] = None,
) -> None:
    """Show what a running server or client does, in the terminal, until q."""
    if (config is None) == (url is None):
        raise typer.BadParameter("give one of the two", param_hint="-c or -u")
    from tunnel.cli.top_screen import show
    from tunnel.ops.topsource import Source

    token = None if token_file is None else read_token(token_file)
    show(source_of(config, token) if config else Source(url or "", token), interval)


def source_of(config: Path, token: str | None) -> Source:
    """Find where the program of a file serves its statistics.

    Args:
      config: the file.
      token: goes before the one that the file names.

    Raises:
      TunnelError: the file is faulty, or turns statistics off.
    """
    from tunnel.cli.loading import read_text
    from tunnel.config import Kind, detect, load_client, load_server
    from tunnel.ops.topsource import Source

    text = read_text(config)
    load = load_client if detect(text) is Kind.CLIENT else load_server
    value: ServerConfig | ClientConfig = load(text, source=str(config), environ=os.environ).value
    return Source(_url(value, config), token or _token(value, config))


def _url(value: ServerConfig | ClientConfig, config: Path) -> str:
    if not value.stats_port:
        what = "is 0, any free one: name it with -u" if value.stats_port == 0 else "is not set"
        raise TunnelError(f"{config}: stats_port {what}")
    host = _LOOPBACK.get(value.stats_addr, value.stats_addr)
    return f"http://{Address(host, value.stats_port)}"


def _token(value: ServerConfig | ClientConfig, config: Path) -> str | None:
    from tunnel import store

    if value.stats_token_file is None:
        return value.stats_token
    return read_token(store.resolve(value.stats_token_file, base=config.absolute().parent))


def read_token(path: Path) -> str:
    """Read the token in a file.

    Raises:
      TunnelError: the file cannot be read, or holds none.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TunnelError(f"cannot read a token from {path}: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise TunnelError(f"{path} has no token in it, which is one word")
    return token
