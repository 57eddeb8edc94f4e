"""`tls-tunnel bench`: what a server and the way there can do, seen from this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from tunnel.cli.options import JoinFile, JoinText, start_logging
from tunnel.errors import TunnelError

if TYPE_CHECKING:
    from tunnel.cli.measurement import Result


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
    import logging

    from tunnel.cli.display import open_progress_bar
    from tunnel.cli.joining import client_of, read_join
    from tunnel.cli.measurement import measure
    from tunnel.cli.running import run_line

    server = read_join(join, join_file, os.environ)
    start_logging(ctx.obj)
    if not ctx.obj.verbosity:
        # What goes wrong is raised here, and said once.
        logging.getLogger("tunnel").setLevel(logging.CRITICAL)
    config = client_of(server, os.environ)
    results: list[Result] = []

    async def work() -> None:
        results.append(await measure(config, seconds, bar))

    with open_progress_bar(seconds) as bar:
        run_line(work, bar.keep_moving)
    if not results:
        raise TunnelError("ended before all was measured")
    print(json.dumps(results[0].as_json(), indent=2) if as_json else results[0].as_text())
