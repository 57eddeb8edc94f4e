"""What can be typed without a configuration: a whole tunnel in a line for each end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tunnel import limits
from tunnel.cli.options import command, given, start_logging

oneliners = typer.Typer()

Quick = Annotated[
    bool, typer.Option("--quick", help="Without a file; prints a join string for clients.")
]
PublicAddr = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="With --quick: by what clients reach it. [a guess]"),
]
QuickPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="With --quick: where it listens. [8443]")
]
JoinText = Annotated[
    str | None,
    typer.Option("--join", metavar="STRING", help="The server's join string; - is standard input."),
]
JoinFile = Annotated[
    Path | None,
    # (What cannot be read is an error of ours.)
    typer.Option("--join-file", metavar="FILE", readable=False, help="Or a file that holds it."),
]
Save = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write what this line says as a file.")
]


def serves_quickly(
    ctx: typer.Context, *, quick: bool, public_addr: str | None, port: int | None
) -> bool:
    """Run a server without a file if that is asked for; False if it is not."""
    if not quick:
        if public_addr is not None or port is not None:
            hint = "--port" if public_addr is None else "--public-addr"
            raise typer.BadParameter("is for --quick; else it is in the file", param_hint=hint)
        return False
    if given(ctx, "config"):
        raise typer.BadParameter("--quick is without a file", param_hint="--config")
    start_logging(ctx.obj)
    from tunnel.cli.quick import serve_quickly

    serve_quickly(limits.SERVER_PORT if port is None else port, public_addr)
    return True


@oneliners.command()
@command
def expose(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(help="The service: PORT, HOST:PORT or unix:/path.", show_default=False)
    ],
    join: JoinText = None,
    join_file: JoinFile = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 takes any free one.")
    ] = 0,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What logs and `visit` call it. [as TARGET]")
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show a QR code of the address, too.")] = False,
    save: Save = None,
) -> None:
    """Publish a local service in one line, and show where."""
    from tunnel.cli import lines
    from tunnel.cli.joining import read_join

    server = read_join(join, join_file, os.environ)
    lines.expose(lines.Line(ctx.obj, server, save), target, port=port, name=name, qr=qr)


@oneliners.command()
@command
def visit(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The other client's proxy.", show_default=False)],
    port: Annotated[int, typer.Option(min=1, max=65535, help="The local port to listen on.")],
    join: JoinText = None,
    join_file: JoinFile = None,
    publish_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Its publish_port; 0 if no other has its name.")
    ] = 0,
    owner: Annotated[
        str | None, typer.Option(metavar="CLIENT", help="The client that must have it.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the proxy's visitor_secret, if it has one."),
    ] = None,
    bind: Annotated[
        str, typer.Option(metavar="ADDR", help="The local address to listen on.")
    ] = "127.0.0.1",
    save: Save = None,
) -> None:
    """Reach another client's service at a local port, in one line."""
    from tunnel.cli import lines
    from tunnel.cli.joining import read_join

    server = read_join(join, join_file, os.environ)
    wanted = {
        "name": name,
        "publish_port": publish_port,
        "owner": owner,
        "visitor_secret_file": secret_file and str(secret_file.absolute()),
        "bind_addr": bind,
        "bind_port": port,
    }
    lines.visit(lines.Line(ctx.obj, server, save), wanted)


@oneliners.command()
@command
def bench(
    ctx: typer.Context,
    join: JoinText = None,
    join_file: JoinFile = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="How long to measure altogether.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure round trips and throughput through a server, without a public port."""
    import json

    from tunnel.cli import bench as measuring
    from tunnel.cli.joining import read_join

    found = measuring.bench(ctx.obj, read_join(join, join_file, os.environ), seconds)
    print(json.dumps(found.as_json(), indent=2) if as_json else found.as_text())
