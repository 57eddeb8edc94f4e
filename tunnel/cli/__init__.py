"""The commands: what is typed, what is read and written for it, and what is shown.

`app` names them, and `commands` has one module for each. A command imports what its body needs when
it runs, so asking for help loads no Trio.
"""

from __future__ import annotations


def main() -> None:
    """Run `tls-tunnel`."""
    from tunnel.cli.app import app

    app(prog_name="tls-tunnel")


def server_main() -> None:
    """Run `tls-tunnel-server`: the command `server` as a program of its own."""
    from tunnel.cli.app import run_single

    run_single("server")


def client_main() -> None:
    """Run `tls-tunnel-client`: the command `client` as a program of its own."""
    from tunnel.cli.app import run_single

    run_single("client")
