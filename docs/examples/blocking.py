"""Publish a web server of a program that does not use Trio, here one of threads.

python docs/examples/blocking.py client.toml
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tunnel import blocking


def main(where: Path, until: Callable[[str], object]) -> None:
    """Publish this directory until `until`, which is told the URL, returns."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever).start()
        try:
            with blocking.expose(web.server_port, join=where, name="files") as address:
                until(f"http://{address}/")
        finally:
            web.shutdown()


def wait_for_enter(url: str) -> None:
    """Until somebody has seen enough."""
    input(f"open {url}; Enter ends it\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), wait_for_enter)
