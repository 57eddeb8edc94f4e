"""Why a port cannot be had."""

from __future__ import annotations

import errno
import os
import socket
import sys

import pytest

from tunnel.model import Address
from tunnel.ops.port_owner import cannot_listen, port_owner

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def taken(request):
    with socket.create_server(("", 0), family=request.param) as sock:
        yield sock.getsockname()[1]


@linux
def test_the_program_is_named(taken):
    assert f"(process {os.getpid()})" in port_owner(taken)


@linux
def test_a_port_that_is_free():
    with socket.socket() as sock:  # bound, but nobody listens
        sock.bind(("127.0.0.1", 0))
        assert port_owner(sock.getsockname()[1]) is None


def test_without_proc(tmp_path):
    assert port_owner(80, tmp_path) is None


def test_a_process_of_somebody_else(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address st …\n"
        "   0: 00000000:0050 00000000:0000 0A 0:0 00:0 0 0 0 4711 1\n"
        "   1: 00000000:0051 0100007F:0050 01 0:0 00:0 0 0 0 4712 1\n"
    )
    (tmp_path / "17" / "fd").mkdir(parents=True)
    (tmp_path / "17" / "comm").write_text("nginx\n")
    assert port_owner(80, tmp_path) is None
    (tmp_path / "17" / "fd" / "3").symlink_to("socket:[4711]")
    (tmp_path / "17" / "fd" / "4").symlink_to("socket:[4712]")
    assert port_owner(80, tmp_path) == "nginx (process 17)"
    assert port_owner(81, tmp_path) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "has the port; end that program"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "no address 192.0.2.9; change bind_addr"),
        (errno.ENETDOWN, "change bind_addr or bind_port"),
    ],
)
def test_each_reason_has_its_advice(number, words):
    text = cannot_listen(OSError(number, os.strerror(number)), Address("192.0.2.9", 1))
    assert text.startswith("cannot listen on 192.0.2.9:1: ")
    assert words in text


def test_the_keys_are_those_of_what_wants_to_listen():
    error = OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
    text = cannot_listen(error, Address("192.0.2.9", 1), "stats")
    assert text.endswith("; change stats_addr or stats_port")
