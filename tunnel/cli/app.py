"""What can be typed: the commands, their options, and what each says of itself."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunnel import limits
from tunnel.cli.oneliners import PublicAddr, Quick, QuickPort, oneliners, serves_quickly
from tunnel.cli.options import Form, command, parse_address, start_logging
from tunnel.errors import TunnelError
from tunnel.model import Address

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and keys are among them
    rich_markup_mode=None,  # plain text, and no third of a second for a frame around it
)


class Kind(enum.StrEnum):
    """Whose configuration."""

    SERVER = "server"
    CLIENT = "client"


#: What a client's template dials until somebody writes the name of a real server there.
EXAMPLE = Address("tunnel.example.com", limits.SERVER_PORT)


def _address(text: str) -> Address:
    return parse_address(text, limits.SERVER_PORT)


Config = Annotated[
    Path,
    # (What cannot be read is an error of ours, which says what to do about it.)
    typer.Option("--config", "-c", metavar="FILE", readable=False, help="The configuration."),
]
Server = Annotated[
    Address | None,
    typer.Option(
        parser=_address, metavar="HOST[:PORT]", help="Where clients reach the server (port 8443)."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]


@app.callback()
@command
def tls_tunnel() -> None:
    """Publish services from behind a NAT through a server with a public address."""


@app.command()
@command
def server(
    ctx: typer.Context,
    config: Config = Path("server.toml"),
    quick: Quick = False,
    public_addr: PublicAddr = None,
    port: QuickPort = None,
) -> None:
    """Run the server until SIGINT or SIGTERM."""
    if serves_quickly(ctx, quick=quick, public_addr=public_addr, port=port):
        return
    start_logging(ctx.obj)
    from tunnel.cli.loading import load_server

    value = load_server(config)
    from tunnel.cli.run import serve

    serve(value, config)


@app.command()
@command
def client(ctx: typer.Context, config: Config = Path("client.toml")) -> None:
    """Run the client, reconnecting for ever, until SIGINT or SIGTERM."""
    start_logging(ctx.obj)
    from tunnel.cli.loading import load_client

    value = load_client(config)
    from tunnel.cli.run import connect

    connect(value, config)


@app.command()
@command
def check(
    config: Config,
    form: Annotated[
        Form, typer.Option("--format", "-f", help="For people or for programs.")
    ] = Form.TEXT,
) -> None:
    """Say every fault of a configuration; exit with 1 if there is one."""
    from tunnel.cli import loading

    if form is Form.TEXT:
        report = loading.check(config)
        print(report.as_text(str(config)))
    else:
        import json

        report = loading.check_or_report(config)
        print(json.dumps(report.as_json(), indent=2))
    if not report.valid:
        raise typer.Exit(1)


@app.command()
@command
def reload(
    config: Config,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would change.")] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the program keeps its state. [as configured]"),
    ] = None,
) -> None:
    """Have the program that runs with this file do what it says now."""
    from tunnel.cli import reload as running

    print(running.reload(config, plan=plan, state_dir=state_dir), end="")


@app.command()
@command
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
    from tunnel.cli import making

    chosen = making.new_key() if key is None else key
    address = server or EXAMPLE
    if kind is Kind.CLIENT:
        text = making.client_text(key=chosen, server=address, pin=pin)
    elif pin is None:
        text = making.server_text(key=chosen, port=address.port)
    else:
        raise typer.BadParameter("a pin is for the client's configuration", param_hint="--pin")
    if output is None:
        print(text, end="")
    else:
        making.write_configuration(output, text, force=force)
    if key is None:
        print("note: this auth_key is new; the other side needs the same one", file=sys.stderr)


@app.command()
@command
def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to; made if it is missing.")
    ] = Path(),
    server: Server = None,
    force: Force = False,
) -> None:
    """Write a server's and a client's configuration that fit together, and a certificate."""
    from tunnel.cli.making import make_pair

    print(make_pair(directory, server or _address("localhost"), force=force), end="")


@app.command()
@command
def cert(
    cert_out: Annotated[Path, typer.Option(help="The certificate (PEM).")] = Path("cert.pem"),
    key_out: Annotated[Path, typer.Option(help="Its key (PEM, mode 0600).")] = Path("key.pem"),
    common_name: Annotated[str, typer.Option(help="The server's name or address.")] = "localhost",
    alt_names: Annotated[
        str, typer.Option(metavar="A,B", help="More names and addresses.", show_default=False)
    ] = "",
    force: Force = False,
) -> None:
    """Make a self-signed certificate; print its fingerprint and its pin."""
    from tunnel.cli.making import make_certificate

    names = [common_name, *filter(None, (name.strip() for name in alt_names.split(",")))]
    fingerprint, pin = make_certificate(cert_out, key_out, names, force=force)
    print(f"certificate          {cert_out}")
    print(f"key                  {key_out}")
    print(f"SHA-256 fingerprint  {fingerprint}")
    print(f"pin                  {pin}")


@app.command()
@command
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
    from tunnel.cli import making

    if key_file is not None and not verifier:
        raise typer.BadParameter("is for --verifier", param_hint="--key-file")
    if not verifier:
        print(making.new_key())
    elif key_file is not None:
        print(f'verifier = "{making.verifier_of_file(key_file)}"')
    else:
        key = making.new_key()
        print(f'auth_key = "{key}"')
        print(f'verifier = "{making.verifier_of(key)}"')


@app.command()
@command
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
    from tunnel.cli import top as screen
    from tunnel.ops.topsource import Source

    token = None if token_file is None else screen.read_token(token_file)
    source = screen.source_of(config, token) if config else Source(url or "", token)
    screen.top(source, interval)


UnitName = Annotated[
    str | None,
    typer.Option("--name", "-n", metavar="NAME", help="The unit's. [tls-tunnel-server|client]"),
]
Own = Annotated[bool, typer.Option("--user", help="A service of this user, not of the system.")]


@app.command()
@command
def register(
    kind: Annotated[Kind, typer.Argument(help="What to run.", show_default=False)],
    config: Config,
    name: UnitName = None,
    own: Own = False,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="Read the files in place, as a member of this group; so they can be reloaded.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print the unit, and change nothing.")
    ] = False,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start it now and at each boot.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a unit of somebody.")] = False,
) -> None:
    """Make a systemd service of a server or a client."""
    from tunnel.cli import register as systemd
    from tunnel.cli.service import describe, unreachable

    name = name or f"tls-tunnel-{kind}"
    service = describe(kind.value, config, name=name, own=own, group=group)
    problem = None if own else unreachable()
    if show:
        from tunnel.ops.units import unit_text

        print(unit_text(service), end="")
        if problem:
            print(f"note: {problem}", file=sys.stderr)
        return
    where = systemd.manager(own=own, environ=os.environ)
    if problem and not force:
        raise TunnelError(problem)
    print(systemd.install(service, where, start=start, force=force))


@app.command()
@command
def unregister(
    kind: Annotated[Kind, typer.Argument(help="What was registered.", show_default=False)],
    name: UnitName = None,
    own: Own = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the unit was edited.")] = False,
) -> None:
    """Stop such a service and remove it; its configuration and its state are kept."""
    from tunnel.cli import register as systemd

    where = systemd.manager(own=own, environ=os.environ)
    print(systemd.remove(name or f"tls-tunnel-{kind}", where, force=force))


app.add_typer(oneliners)

publications = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(publications, name="proxy")


@publications.callback()
@command
def proxy() -> None:
    """Add, remove or list what a client's file publishes; the rest of the file stays as it is."""


@publications.command("add")
@command
def proxy_add(
    name: Annotated[str, typer.Argument(help="Names it; unique.", show_default=False)],
    local: Annotated[
        str, typer.Option(metavar="TARGET", help="The service: PORT, HOST:PORT or unix:/path.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 takes any free one.")
    ] = 0,
    config: Config = Path("client.toml"),
) -> None:
    """Write one more proxy into a client's file."""
    from tunnel.cli import proxies

    print(proxies.add(config, name, local, port))


@publications.command("remove")
@command
def proxy_remove(
    name: Annotated[str, typer.Argument(help="Which.", show_default=False)],
    config: Config = Path("client.toml"),
) -> None:
    """Take a proxy out of a client's file, with the comment right above it."""
    from tunnel.cli import proxies

    print(proxies.remove(config, name))


@publications.command("list")
@command
def proxy_list(
    config: Config = Path("client.toml"),
    form: Annotated[
        Form, typer.Option("--format", "-f", help="For people or for programs.")
    ] = Form.TEXT,
) -> None:
    """Show what a client's file publishes."""
    import json

    from tunnel.cli import proxies

    found = proxies.found(config)
    print(json.dumps(found, indent=2) if form is Form.JSON else proxies.as_text(found).rstrip())


def single(name: str) -> None:
    """Run one command as the program `tls-tunnel-NAME`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)({"server": server, "client": client}[name])
    alone(prog_name=f"tls-tunnel-{name}")
