"""What commands share: the global options, the options that several have, and how a command fails.

The global options may stand before or after the name of the command.
"""

from __future__ import annotations

import enum
import functools
import inspect
import ipaddress
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TextIO

import attrs
import typer

from tunnel import limits
from tunnel._version import __version__
from tunnel.errors import ConfigError, Fault, TunnelError
from tunnel.model import Address

LOG_FORMAT_VARIABLE = "TLS_TUNNEL_LOG_FORMAT"


class Form(enum.StrEnum):
    """For people or for programs."""

    TEXT = "text"
    JSON = "json"


class Kind(enum.StrEnum):
    """Whose configuration."""

    SERVER = "server"
    CLIENT = "client"


@attrs.define
class Settings:
    """What the global options said, wherever they stood.

    Args:
      verbosity: how often `-v` was given.
      quiet: whether `-q` was given; it goes before `-v`.
      log_format: None to go by the environment.
    """

    verbosity: int = 0
    quiet: bool = False
    log_format: Form | None = None

    @property
    def level(self) -> int:
        """The least level that is shown."""
        from tunnel.model import TRACE

        if self.quiet:
            return logging.WARNING
        return (logging.INFO, logging.DEBUG, TRACE)[min(self.verbosity, 2)]


def _show_version(wanted: bool) -> None:
    if wanted:
        from tunnel.yamux import COMPILED

        print(f"tls-tunnel {__version__}" + COMPILED * " (engine compiled)")
        raise typer.Exit


Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Log more: -v debug, -vv trace."
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", show_default=False, help="Log warnings and errors only."),
]
LogFormat = Annotated[
    Form | None,
    typer.Option("--log-format", help=f"How log lines look. [{LOG_FORMAT_VARIABLE}, text]"),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
]
_SHARED = {
    name: inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
    for name, default, annotation in (
        ("verbose", 0, Verbose),
        ("quiet", False, Quiet),
        ("log_format", None, LogFormat),
        ("version", False, Version),
        ("ctx", inspect.Parameter.empty, typer.Context),
    )
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the global options, and turn its errors into messages for people.

    A `TunnelError` is printed without a traceback, and the exit status is 1. Any other exception
    is a bug of ours: it passes, and Python prints its traceback.

    Args:
      function: the command, as Typer takes it. If it has a parameter `ctx`, then `ctx.obj` is the
        `Settings` that the global options add up to.
    """
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def wrapped(
        ctx: typer.Context,
        *,
        verbose: int,
        quiet: bool,
        log_format: Form | None,
        version: bool,  # noqa: ARG001  # its callback has done everything
        **own: object,
    ) -> None:
        settings = ctx.ensure_object(Settings)
        settings.verbosity += verbose
        settings.quiet |= quiet
        settings.log_format = log_format or settings.log_format
        try:
            function(**own, **({"ctx": ctx} if "ctx" in signature.parameters else {}))
        except TunnelError as error:
            complain(str(error))
            raise typer.Exit(1) from error

    by_name = {**signature.parameters, **_SHARED}
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in by_name.values()]
    # Typer reads a command's options from these two.
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped


def given(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter was given on the command line, and is not its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def complain(text: str) -> None:
    """Say what is wrong on stderr, for people."""
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)


def start_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Begin to log in the format that the command line, else the environment, says.

    Args:
      settings: what the command line says.
      stream: where to; None for stderr.

    Raises:
      ConfigError: the environment asks for a format that does not exist.
    """
    from tunnel.ops.logs import configure_logging

    configure_logging(
        level=settings.level,
        form=_log_form(settings).value,
        stream=sys.stderr if stream is None else stream,
        environ=os.environ,
    )


def _log_form(settings: Settings) -> Form:
    named = settings.log_format or os.environ.get(LOG_FORMAT_VARIABLE) or Form.TEXT
    try:
        return Form(named)
    except ValueError:
        fault = Fault(None, LOG_FORMAT_VARIABLE, f"must be text or json, not {named!r}")
        raise ConfigError("environment", [fault]) from None


# --- Options of several commands ------------------------------------------------------------


def _parse_server(text: str) -> Address:
    return parse_address(text, limits.SERVER_PORT)


Config = Annotated[
    Path,
    # Typer does not look whether the file can be read: our own error says what to do about it.
    typer.Option("--config", "-c", metavar="FILE", readable=False, help="The configuration."),
]
Server = Annotated[
    Address | None,
    typer.Option(
        parser=_parse_server,
        metavar="HOST[:PORT]",
        help="Where clients reach the server (port 8443).",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
FormOption = Annotated[Form, typer.Option("--format", "-f", help="For people or for programs.")]
JoinText = Annotated[
    str | None,
    typer.Option("--join", metavar="STRING", help="The server's join string; - is standard input."),
]
JoinFile = Annotated[
    Path | None,
    # As with `Config`, the error of a file that cannot be read is ours.
    typer.Option("--join-file", metavar="FILE", readable=False, help="Or a file that holds it."),
]
Save = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write what this line says as a file.")
]


def parse_address(text: str, default_port: int) -> Address:
    """Parse HOST, HOST:PORT, [IPv6]:PORT or a bare IPv6 address.

    Args:
      text: what was typed.
      default_port: the port where the text has none.

    Raises:
      typer.BadParameter: it is none of these.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not HOST, HOST:PORT or [IPv6]:PORT")
    host = found["bracketed"] or found["bare"] or found["name"]
    if not found["name"]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise typer.BadParameter(f"{host!r} is not an IPv6 address") from error
    port = int(found["port"] or default_port)
    if not 0 < port < 65536:
        raise typer.BadParameter(f"{port} is not a port: 1 to 65535")
    return Address(host, port)


_ADDRESS = re.compile(
    r"""(?: \[ (?P<bracketed>[^\[\]\s]+) \] | (?P<name>[^\[\]:\s/]+) ) (?: : (?P<port>[0-9]{1,5}) )?
    | (?P<bare> [^\[\]\s/:]* : [^\[\]\s/]* : [^\[\]\s/]* )""",
    re.VERBOSE,
)
