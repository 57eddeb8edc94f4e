"""What names a server to connect to, or to run: a configuration, its file, or a join string."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TypeAlias, TypeVar

import attrs

from tunnel import config
from tunnel.config import ClientConfig, Loaded, ServerConfig
from tunnel.errors import StoreError

logger = logging.getLogger(__name__)

_C = TypeVar("_C", ServerConfig, ClientConfig)

#: What names a server, and the key for it.
ConfigurationSource: TypeAlias = str | ClientConfig | Path


def client_config(where: ConfigurationSource, name: str | None) -> tuple[ClientConfig, Path | None]:
    """The configuration, and the file that it is from; None if it is from none.

    Args:
      where: a join string, a configuration, or its file. Warnings about a file are logged.
      name: in the place of the client's name there; None keeps that.

    Raises:
      TunnelError: it cannot be read, or has faults.
    """
    source = where if isinstance(where, Path) else None
    if isinstance(where, str):
        found = _joined(where)
    elif isinstance(where, Path):
        loaded = config.load_client(_read(where), source=str(where), environ=os.environ, idle=True)
        found = _without_warnings(loaded, where)
    else:
        found = where
    return (found if name is None else attrs.evolve(found, name=name)), source


def server_config(where: ServerConfig | Path) -> tuple[ServerConfig, Path | None]:
    """A server's configuration, and the file that it is from; None if it is from none.

    Args:
      where: the configuration, or its file. Warnings about a file are logged.

    Raises:
      TunnelError: it cannot be read, or has faults.
    """
    if isinstance(where, ServerConfig):
        return where, None
    loaded = config.load_server(_read(where), source=str(where), environ=os.environ)
    return _without_warnings(loaded, where), where


def _joined(text: str) -> ClientConfig:
    from tunnel.compose import joined_client
    from tunnel.protocol.join import Join

    return joined_client(Join.from_text(text))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "this is not UTF-8 text"
        raise StoreError(f"cannot read the configuration {path}: {reason}") from error


def _without_warnings(loaded: Loaded[_C], path: Path) -> _C:
    for warning in loaded.warnings:
        logger.warning("Configuration", extra={"warning": warning.text(str(path))})
    return loaded.value
