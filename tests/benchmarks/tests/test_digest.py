from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from tests.benchmarks import digest


@contextmanager
def served(serve):
    """A listener whose only visitor is served so; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            sock, _ = listener.accept()
            with sock:
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("size", [0, 1, digest.CHUNK, digest.CHUNK + 1, 1_000_000])
def test_both_ends_agree(way, size):
    with served(digest.serve) as port:
        assert len(digest.check("127.0.0.1", port, way, size)) == 64


def test_no_two_transfers_are_alike():
    found = set()
    for _ in range(2):
        with served(digest.serve) as port:
            found.add(digest.check("127.0.0.1", port, "up", 100))
    assert len(found) == 2


def test_no_two_chunks_are_alike():
    here, there = socket.socketpair()
    with here, there:
        digest.send(here, 2 * digest.CHUNK)
        one, other = (there.recv(digest.CHUNK, socket.MSG_WAITALL) for _ in range(2))
    assert one != other


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_flipped_bit_is_seen(way):
    def flip(sock):
        """As `serve`, but one byte is not what it was."""
        digest._exactly(sock, digest.JOB.size)
        if way == "up":
            data = bytearray(digest._exactly(sock, 1000))
            data[500] ^= 1
            sock.sendall(digest.hashlib.sha256(data).digest())
        else:
            data = bytearray(1000)
            right = digest.hashlib.sha256(data).digest()
            data[500] ^= 1
            sock.sendall(data + right)

    with served(flip) as port, pytest.raises(digest.Corrupt, match=f"1000 bytes {way}"):
        digest.check("127.0.0.1", port, way, 1000)


def test_an_early_end_is_seen():
    def cut(sock):
        digest._exactly(sock, digest.JOB.size)
        sock.sendall(bytes(600))

    with served(cut) as port, pytest.raises(digest.Corrupt, match="400 bytes early"):
        digest.check("127.0.0.1", port, "down", 1000)


def test_a_digest_that_does_not_come_is_seen():
    def keep(sock):
        digest._exactly(sock, digest.JOB.size)
        digest.receive(sock, 1000)

    with served(keep) as port, pytest.raises(digest.Corrupt, match="before the digest"):
        digest.check("127.0.0.1", port, "up", 1000)
