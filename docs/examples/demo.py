"""A tunnel on one machine, to play with: kill a process and watch what the others do.

Run it with `make demo`. It starts a sample web service, a server, and a client that is started
again when it dies, all on loopback and with a certificate and a key made on the spot.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import trio

HOME = Path(".demo")
PAGE = """<!doctype html><meta charset=utf-8><title>tls-tunnel</title>
<body style="font: 1.2em/1.6 system-ui; max-width: 36em; margin: 4em auto; padding: 0 1em">
<h1>It works</h1><p>This page came through the tunnel: your browser &rarr; the server's port
&rarr; one TLS connection &rarr; the client &rarr; a small web service that only the client can
reach.</p><p>Kill the client (<code>kill -9</code> and its process id), reload, wait a moment, and
reload again.</p></body>
"""


class Page(BaseHTTPRequestHandler):
    """The sample web service: one page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page."""
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the tunnel's own lines are what there is to see."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def configure(tunnel_port: int, public_port: int, web_port: int) -> None:
    """Make certificate, key and both configurations, and point them at the demo's ports."""
    subprocess.run(
        [*TUNNEL, "init", str(HOME), "--server", f"127.0.0.1:{tunnel_port}", "--force"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    server, client = HOME / "server.toml", HOME / "client.toml"
    server.write_text(set_keys(server.read_text(), bind_addr='"127.0.0.1"'))
    client.write_text(
        set_keys(
            client.read_text(),
            publish_addr='"127.0.0.1"',
            publish_port=public_port,
            local_port=web_port,
            reconnect_delay=2,
        )
    )


def set_keys(text: str, **keys: object) -> str:
    """The configuration with these keys set, whether they were commented out or not."""
    lines = text.splitlines()
    for key, value in keys.items():
        for number, line in enumerate(lines):
            if line.lstrip("# ").startswith(f"{key} ="):
                lines[number] = f"{key} = {value}"
                break
    return "\n".join(lines) + "\n"


TUNNEL = (sys.executable, "-m", "tunnel")


async def keep_running(name: str, *command: str) -> None:
    """Start a program, and start it again whenever it ends."""
    while True:
        process = await trio.lowlevel.open_process([*TUNNEL, *command])
        print(f"demo: {name} runs, process {process.pid}", flush=True)
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(3, shield=True):
                    await process.wait()
        print(f"demo: {name} ended ({describe(code)}), starting it again", flush=True)
        await trio.sleep(1)


def describe(code: int) -> str:
    """An exit code for people."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


async def wait_until_it_works(url: str) -> bool:
    """True as soon as the page comes through."""
    for _ in range(100):
        try:
            with await trio.to_thread.run_sync(urllib.request.urlopen, url) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            await trio.sleep(0.1)
    return False


async def main(once: bool) -> bool:
    """Start everything, say where it is, and go on until Ctrl+C; True if the page came."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    public_port = free_port()
    configure(free_port(), public_port, web.server_port)
    url = f"http://127.0.0.1:{public_port}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, web.serve_forever)
        nursery.start_soon(keep_running, "server", "server", "-c", str(HOME / "server.toml"))
        nursery.start_soon(keep_running, "client", "client", "-c", str(HOME / "client.toml"))
        try:
            works = await wait_until_it_works(url)
            if works:
                print(f"\ndemo: open {url}\n", flush=True)
                print(
                    "demo: kill -9 one of the processes above and watch. Ctrl+C ends it all.",
                    flush=True,
                )
            else:
                print("demo: the page does not come through; see the lines above", flush=True)
            if works and not once:
                await trio.sleep_forever()
        finally:
            web.shutdown()
            nursery.cancel_scope.cancel()
    return works


async def until_signal(once: bool) -> int:
    """Run `main`; Ctrl+C or SIGTERM ends it, and every process that it started."""
    works = True
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            works = await main(once)
            nursery.cancel_scope.cancel()
    return 0 if works else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="end as soon as the page came through")
    sys.exit(trio.run(until_signal, parser.parse_args().once))
