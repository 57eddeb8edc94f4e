"""A program as a service manager runs it: what it tells, and certificates that change."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
import trio

from tests.e2e.rig import PATIENCE, ask, lab, service, visit
from tunnel.certificates import make_certificate, spki_pin
from tunnel.store import File, leaf_der, write_atomic

pytestmark = pytest.mark.e2e


class Manager:
    """The socket that `NOTIFY_SOCKET` names, and what came in on it."""

    def __init__(self, sock):
        self._socket = sock
        self.said = []

    async def wait_for(self, line):
        """The next message that has this line."""
        with trio.fail_after(PATIENCE):
            while True:
                lines = (await self._socket.recv(4096)).decode().split("\n")
                self.said += lines
                if line in lines:
                    return lines


@pytest.fixture
async def manager(monkeypatch):
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as directory,
        trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as sock,
    ):
        await sock.bind(f"{directory}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        yield Manager(sock)


async def test_a_server_tells_how_it_is(tmp_path, certificate, manager):
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server()
        await manager.wait_for("READY=1")
        assert manager.said == ["READY=1"]
        await manager.wait_for("STATUS=0 clients, 0 proxies, 0 visitors")
        for _ in range(3):
            await manager.wait_for("WATCHDOG=1")
        server.process.send_signal(signal.SIGHUP)
        await manager.wait_for("RELOADING=1")
        await manager.wait_for("READY=1")
        assert await server.stop() == 0
        await manager.wait_for("STOPPING=1")


async def test_a_stopped_process_gives_no_sign_of_life(tmp_path, certificate, manager):
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server()
        await manager.wait_for("WATCHDOG=1")
        server.process.send_signal(signal.SIGSTOP)
        with trio.move_on_after(1) as silence:
            for _ in range(2):  # one may have been on its way
                await manager.wait_for("WATCHDOG=1")
        assert silence.cancelled_caught
        server.process.send_signal(signal.SIGCONT)
        await manager.wait_for("WATCHDOG=1")


async def test_a_client_is_ready_before_it_is_connected(tmp_path, certificate, manager):
    async with lab(tmp_path, certificate) as place, service() as port:
        client = await place.start_client({"local_port": port}, server_port=1)
        await manager.wait_for("READY=1")
        await manager.wait_for("WATCHDOG=1")
        assert await client.stop() == 0
        await manager.wait_for("STOPPING=1")


# --- Certificates that change


def make_files(directory):
    """A certificate and its key; the keys that configure a server with them."""
    cert, key = directory / "mine.pem", directory / "mine.key"
    made = make_certificate("localhost")
    write_atomic(File(cert, made.cert), File(key, made.key))
    return {"cert_path": str(cert), "key_path": str(key)}, spki_pin(leaf_der(cert))


@pytest.mark.parametrize("how", ["by itself", "on a hangup"])
async def test_a_new_certificate_is_shown_and_nobody_dropped(tmp_path, certificate, how):
    async with lab(tmp_path, certificate) as place, service() as port:
        files, place.pin = make_files(tmp_path)
        server = await place.start_server(**files)
        old, [address] = await place.publish({"local_port": port}, name="old")
        visitor = await visit(address)
        await visitor.send_all(b"before")
        assert await visitor.receive_some() == b"before"

        _, place.pin = make_files(tmp_path)
        if how == "on a hangup":
            server.process.send_signal(signal.SIGHUP)
        await server.wait_for("Certificate reloaded", pin=place.pin)

        _, [other] = await place.publish({"local_port": port}, name="new")
        assert await ask(other) == b"hello"
        await visitor.send_all(b"after")
        assert await visitor.receive_some() == b"after"
        await visitor.aclose()
        assert "Connection lost" not in old.events()


async def test_a_broken_certificate_is_not_shown(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        files, place.pin = make_files(tmp_path)
        server = await place.start_server(**files)
        os.truncate(files["cert_path"], 300)
        for _ in range(2):
            server.process.send_signal(signal.SIGHUP)
            line = await server.wait_for("Certificate cannot be used")
            assert files["cert_path"] in line["reason"]
        _, [address] = await place.publish({"local_port": port})
        assert await ask(address) == b"hello"
        assert await server.stop() == 0
