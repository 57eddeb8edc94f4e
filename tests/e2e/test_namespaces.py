"""The hosts and the cable that other tests build on. They need root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import namespaces
from tests.namespaces import Missing, cable, run

pytestmark = pytest.mark.e2e


@pytest.fixture
def wire():
    try:
        with cable() as pair:
            yield pair
    except Missing as error:
        pytest.skip(str(error))


def connect(wire) -> tuple[socket.socket, socket.socket]:
    """A connection over the cable: a's end and b's."""
    with wire.a.entered():
        listener = socket.create_server((wire.a.address, 0))
    with wire.b.entered():
        near = socket.socket()
    with listener:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    return far, near


def arrives(sender: socket.socket, receiver: socket.socket, seconds: float) -> bool:
    sender.send(b"x")
    receiver.settimeout(seconds)
    try:
        return bool(receiver.recv(1))
    except TimeoutError:
        return False


@pytest.mark.parametrize("end", ["a", "b"])
def test_a_pulled_cable_is_silent_and_can_be_put_back(wire, end):
    host = getattr(wire, end)
    a, b = connect(wire)
    with a, b:
        assert arrives(a, b, 5) and arrives(b, a, 5)
        wire.down(host)
        assert not arrives(a, b, 0.1) and not arrives(b, a, 0.1)
        wire.up(host)
        assert arrives(a, b, 10) and arrives(b, a, 10)


def test_a_lost_address_is_silent(wire):
    a, b = connect(wire)
    with a, b:
        wire.b.drop_addresses()
        assert not arrives(a, b, 0.1)
        wire.b.restore_address()
        assert arrives(b, a, 10)
        wire.b.drop_addresses()
        wire.b.take_address("10.213.0.3")
        assert not arrives(a, b, 0.1)
        other, former = connect(wire)
        with other, former:
            assert other.getpeername()[0] == "10.213.0.3"


def test_the_shape_is_the_rate(wire):
    wire.shape(20_000_000)
    a, b = connect(wire)
    with a, b:
        b.setblocking(False)
        begin, total = time.monotonic(), 0
        while total < 2_500_000:  # a second's worth
            try:
                a.setblocking(False)
                a.send(bytes(65536))
            except BlockingIOError:
                pass
            try:
                total += len(b.recv(1 << 20))
            except BlockingIOError:
                time.sleep(0.001)
        assert 0.9 < time.monotonic() - begin < 3


def test_each_congestion_control(wire):
    for name in namespaces.congestion_controls():
        for host in (wire.a, wire.b):
            host.set_congestion_control(name)
        for sock in connect(wire):
            with sock:
                used = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                assert used.rstrip(b"\0").decode() == name


def test_an_unknown_queueing_discipline_is_named(wire):
    with pytest.raises(Missing, match="this kernel has no nonesuch"):
        wire.a.set_qdisc("nonesuch")


def test_sockets_made_outside_are_not_of_the_host(wire):
    home = os.stat("/proc/thread-self/ns/net").st_ino
    with wire.a.entered():
        assert os.stat("/proc/thread-self/ns/net").st_ino != home
    assert os.stat("/proc/thread-self/ns/net").st_ino == home


def test_processes_end_with_the_cable(wire):
    with cable() as other:
        names = (other.a.name, other.b.name)
        command = [*other.b.prefix, "sh", "-c", "echo there; exec sleep 60"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"there\n"  # before, `ip` may not have entered yet
    process.stdout.close()
    assert process.wait(5) == -signal.SIGKILL
    assert not any(name in run("ip", "netns", "list") for name in names)


SELF_KILLER = """
import os, signal
from tests.namespaces import cable
# What a shell starts in the background ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
with cable() as pair:
    print(pair.a.name, pair.b.name, flush=True)
    os.kill(os.getpid(), signal.{signal})
    signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nothing_is_left_behind(wire, name):
    """After Ctrl-C at once; after `kill -9` when the next cable is made."""
    done = subprocess.run(
        [sys.executable, "-c", SELF_KILLER.format(signal=name)], capture_output=True, text=True
    )
    former = done.stdout.split()
    assert len(former) == 2
    if name == "SIGKILL":
        with cable():
            pass
    assert not any(host in run("ip", "netns", "list") for host in former)


def test_who_is_not_root_is_told(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces.missing() == "network namespaces need root"


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert namespaces.missing() == "`ip` is not installed (Debian: apt install iproute2)"
