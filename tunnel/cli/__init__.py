"""The commands. What they need is imported when they run: asking for help loads no Trio."""

from __future__ import annotations


def main() -> None:
    """Run `tls-tunnel`."""
    from tunnel.cli.app import app

    app(prog_name="tls-tunnel")


def server_main() -> None:
    """Run `tls-tunnel-server`: the command `server` as a program of its own."""
    from tunnel.cli.app import single

    single("server")


def client_main() -> None:
    """Run `tls-tunnel-client`: the command `client` as a program of its own."""
    from tunnel.cli.app import single

    single("client")
