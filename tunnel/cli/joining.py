"""Where a join string comes from, and the client that it stands for."""

from __future__ import annotations

import getpass
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, TextIO

from tunnel import limits, store
from tunnel.config import ClientConfig
from tunnel.config.load import load_client
from tunnel.config.template import dump
from tunnel.errors import StoreError, TunnelError
from tunnel.protocol.join import Join
from tunnel.quick import client_config

VARIABLE: Final = "TLS_TUNNEL_JOIN"
_STDIN: Final = "-"
_KEY_VARIABLE: Final = "TLS_TUNNEL_AUTH_KEY"


def read_join(text: str | None, file: Path | None, environ: MutableMapping[str, str]) -> Join:
    """The join string, from the one place that there is.

    Args:
      text: what the command line says; "-" is standard input.
      file: the file that it names.
      environ: the environment; the join string is taken out of it.

    Raises:
      TunnelError: there is none, or more than one, or it cannot be read.
      JoinFormatError: it is none.
    """
    variable = environ.pop(VARIABLE, None)
    given = [
        name
        for name, value in (("--join", text), ("--join-file", file), (VARIABLE, variable))
        if value is not None
    ]
    if not given:
        raise TunnelError(
            "which server? give its join string with --join, --join-file or "
            f"{VARIABLE}; `tls-tunnel server --quick` prints one"
        )
    if len(given) > 1:
        raise TunnelError(f"{' and '.join(given)} both give a join string: keep one of them")
    if file is not None:
        return Join.from_text(_read_file(file))
    return Join.from_text(_read_stdin(sys.stdin) if text == _STDIN else text or variable or "")


def client_of(join: Join, environ: MutableMapping[str, str]) -> ClientConfig:
    """The client of a join string, by the rules of a file, and with what the environment says.

    Raises:
      ConfigError: the environment has faults.
    """
    # (The key is in the join string, which goes before that of the environment.)
    others = {name: value for name, value in environ.items() if name != _KEY_VARIABLE}
    text = dump(client_config(join))
    return load_client(text, source="join string", environ=others, idle=True).value


def _read_file(path: Path) -> str:
    if problem := store.exposed(path):
        print(f"warning: {problem}", file=sys.stderr)
    try:
        with path.open("rb") as file:
            return file.read(limits.MAX_JOIN_FILE).decode(errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot read the join string in {path}: {reason}") from error


def _read_stdin(stdin: TextIO) -> str:
    if stdin.isatty():
        return getpass.getpass("Join string (it does not show): ")
    return stdin.readline(limits.MAX_JOIN_FILE)
