from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from tests.benchmarks import losses
from tests.benchmarks.losses import Forwarder, can_bind, first_answer, forwarder
from tests.benchmarks.running import Failed

HOST = "127.0.0.1"


def echo(listener):
    """Answer every visitor with what it says, until the listener is shut down."""
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)


@contextmanager
def service():
    """An echo for one visitor after the other; gives its port."""
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def forwarded():
    """An echo behind a forwarder; gives that and its port."""
    with service() as target, forwarder(HOST, 0, target) as forwards:
        yield forwards, forwards._listener.getsockname()[1]


def ask(sock):
    sock.sendall(b"hello")
    assert sock.recv(5) == b"hello"


def test_forwards_both_ways_until_cut():
    with forwarded() as (forwards, port), socket.create_connection((HOST, port), 10) as visitor:
        ask(visitor)
        forwards.cut()
        assert visitor.recv(1) == b""


def test_knows_when_it_was_dialled_again():
    with forwarded() as (forwards, port):
        with socket.create_connection((HOST, port), 10) as visitor:
            ask(visitor)
            cut = forwards.cut()
        with socket.create_connection((HOST, port), 10) as visitor:
            ask(visitor)
            assert cut < forwards.redialled() < time.perf_counter()


def test_a_dial_from_before_the_cut_does_not_count(monkeypatch):
    monkeypatch.setattr(losses, "PATIENCE", 0.01)
    with forwarded() as (forwards, port), socket.create_connection((HOST, port), 10) as visitor:
        ask(visitor)
        forwards.cut()
        with pytest.raises(Failed, match="did not dial again"):
            forwards.redialled()


def test_a_server_that_is_not_there_ends_the_visit():
    with forwarder(HOST, 0, 1) as forwards:
        port = forwards._listener.getsockname()[1]
        with socket.create_connection((HOST, port), 10) as visitor:
            assert visitor.recv(1) == b""


def test_forwarder_ends():
    with forwarded() as (forwards, port):
        pass
    assert isinstance(forwards, Forwarder)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 10)


def test_first_answer():
    with service() as port:
        begin = time.perf_counter()
        assert begin < first_answer(HOST, port) < time.perf_counter()


def test_first_answer_goes_past_visitors_who_are_dropped():
    with socket.create_server((HOST, 0)) as listener:

        def serve():
            for _ in range(3):
                listener.accept()[0].close()
            sock, _ = listener.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b"HTTP")

        thread = threading.Thread(target=serve)
        thread.start()
        first_answer(HOST, listener.getsockname()[1])
        thread.join()


def test_first_answer_does_not_wait_for_a_visitor_who_hangs():
    with socket.create_server((HOST, 0)) as listener:

        def serve():
            hanging, _ = listener.accept()
            with hanging:
                sock, _ = listener.accept()
                with sock:
                    sock.recv(100)
                    sock.sendall(b"HTTP")
                    done.wait()

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        first_answer(HOST, listener.getsockname()[1])
        done.set()
        thread.join()


def test_first_answer_gives_up(monkeypatch):
    monkeypatch.setattr(losses, "PATIENCE", 0.05)
    with socket.create_server((HOST, 0)) as listener, pytest.raises(Failed, match="was served"):
        first_answer(HOST, listener.getsockname()[1])


def test_can_bind():
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not can_bind(HOST, port)
    assert can_bind(HOST, port)
