"""The local services behind the tunnels: nginx, iperf3, and a receiver that checks digests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.benchmarks import digest
from tests.benchmarks.peers.peer import Command, find_program
from tests.benchmarks.processes import free_ports
from tests.benchmarks.running import LOCAL, ROOT, Failed, Program, Service, direct, wait_for

SMALL, KIB = "/small", "/kib"
#: iperf3 begins with a cookie of 36 characters and a zero, which the server answers.
COOKIE = b"b" * 36 + b"\0"
GET = b"GET /small HTTP/1.0\r\n\r\n"

NGINX = """\
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 19000;
events {{ worker_connections 9000; }}
http {{
    access_log off;
    default_type text/plain;
    tcp_nodelay on;
    sendfile on;
    open_file_cache max=100;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{ listen {local}:{port} backlog=4096; root {directory}/www; }}
}}
"""


@attrs.frozen
class Services:
    """What is published; None where the program is not installed."""

    http: Service | None
    bulk: Service | None
    digest: Service

    def all(self) -> list[Service]:
        """Those that run."""
        return [service for service in (self.http, self.bulk, self.digest) if service]


def nginx(directory: Path, port: int) -> Command:
    """One worker that serves two small files from memory; writes its configuration."""
    www = directory / "www"
    www.mkdir()
    (www / SMALL[1:]).write_bytes(b"s" * 100)
    (www / KIB[1:]).write_bytes(b"k" * 1024)
    www.chmod(0o755)
    directory.chmod(0o755)  # the worker is somebody else when root starts it
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(directory=directory, local=LOCAL, port=port))
    return Command(("nginx", "-p", str(directory), "-c", str(file), "-g", "daemon off;"))


@contextmanager
def services() -> Iterator[Services]:
    """The services of a run, from when they answer; raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="bench-services-") as name, ExitStack() as stack:
        directory = Path(name)

        def start(command: Command, port: int, hello: bytes) -> Service:
            program = Program(command, directory / f"{Path(command.argv[0]).name}-{port}.log")
            stack.callback(program.close)
            service = Service(port, hello)
            here = direct([service])
            here.servers.append(program)
            wait_for(here, {port: hello})
            return service

        http_port, bulk_port, digest_port = free_ports(3)
        http = bulk = None
        if find_program("nginx"):
            http = start(nginx(directory, http_port), http_port, GET)
        if find_program("iperf3"):
            command = Command(("iperf3", "-s", "-B", LOCAL, "-p", str(bulk_port)))
            bulk = start(command, bulk_port, COOKIE)
        argv = (sys.executable, "-m", "tests.benchmarks.digest", str(digest_port))
        checked = start(Command(argv, {"PYTHONPATH": str(ROOT)}), digest_port, digest.job("up", 0))
        yield Services(http, bulk, checked)


__all__ = ["GET", "KIB", "SMALL", "Failed", "Services", "nginx", "services"]
