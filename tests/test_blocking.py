"""The tunnel in a program of threads or asyncio."""

import asyncio
import socket
import threading

import pytest
import trio

from tests.library.test_link import SERVER, client
from tests.rig import is_free, own_host
from tunnel import blocking
from tunnel.errors import LinkLost, Refused
from tunnel.library.server import serve


class Echo(threading.Thread):
    """A service of threads: one connection, sent back in capitals."""

    def __init__(self):
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self):
        with self.listener:
            sock, _ = self.listener.accept()
        with sock:
            sock.sendall(sock.recv(100).upper())


def say(address, text):
    with socket.create_connection((address.host, address.port)) as sock:
        sock.sendall(text)
        return sock.recv(100)


async def in_thread(work):
    """Run work(server) in a thread while a server runs here."""
    async with serve(SERVER) as server:
        return await trio.to_thread.run_sync(work, server)


async def test_threads():
    def work(server):
        service = Echo()
        service.start()
        with blocking.expose(service.port, join=client(server), host=own_host()) as address:
            assert say(address, b"hello") == b"HELLO"
        service.join()
        assert is_free(address)
        assert not [t for t in threading.enumerate() if t.name == "tls-tunnel"]

    await in_thread(work)


async def test_asyncio():
    async def main(server):
        service = Echo()
        service.start()
        exposed = blocking.expose(service.port, join=client(server), host=own_host())
        address = await asyncio.to_thread(exposed.__enter__)
        try:
            assert await asyncio.to_thread(say, address, b"hello") == b"HELLO"
        finally:
            await asyncio.to_thread(exposed.__exit__, None, None, None)
        service.join()
        assert is_free(address)

    await in_thread(lambda server: asyncio.run(main(server)))


async def test_what_keeps_it_from_starting_is_raised():
    def work(server):
        with pytest.raises(Refused):
            with blocking.expose(1, join=client(server, auth_key="not the right key")):
                raise AssertionError("not reached")
        assert not [t for t in threading.enumerate() if t.name == "tls-tunnel"]

    await in_thread(work)


async def test_errors_of_the_block_come_out_as_they_are():
    def work(server):
        with pytest.raises(ValueError, match="mine"):
            with blocking.expose(1, join=client(server), host="127.0.0.1"):
                raise ValueError("mine")

    await in_thread(work)


async def test_a_lost_connection_is_raised_at_the_end():
    lost = threading.Event()

    def work(server, token):
        with pytest.raises(LinkLost):
            with blocking.expose(1, join=client(server), host="127.0.0.1", reconnect=False):
                trio.from_thread.run_sync(server.drain)
                for thread in threading.enumerate():
                    if thread.name == "tls-tunnel":
                        thread.join()
                lost.set()

    await in_thread(lambda server: work(server, None))
    assert lost.is_set()


async def test_an_interrupt_while_it_connects_ends_the_thread(monkeypatch):
    class Interrupted(blocking.Future):
        def result(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(blocking, "Future", Interrupted)

    def work(server):
        with pytest.raises(KeyboardInterrupt):
            with blocking.expose(1, join=client(server), host="127.0.0.1"):
                raise AssertionError("not reached")
        assert not [t for t in threading.enumerate() if t.name == "tls-tunnel"]

    await in_thread(work)
