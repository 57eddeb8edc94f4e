"""A running server and client are told what their files say now; nobody is cut off."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys

import pytest
import trio

from tests.e2e.rig import PATIENCE, Process, lab, toml, write_secret
from tests.rig import is_free, read_all, visit
from tunnel.model import Address

ROUNDS = 100 if os.environ.get("RELIABILITY") == "full" else 3
PROXIES = 50
DOWNLOADS = 100
STEPS = 10
KIB = 1024


def reload(path, *options):
    """`tls-tunnel reload`, as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "tunnel", "reload", "-c", str(path), *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


async def reloaded(path, *options):
    done = await trio.to_thread.run_sync(reload, path, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Files:
    """A service that sends a file of its own to each visitor, in as many pieces as it is told."""

    def __init__(self, size: int) -> None:
        self.body = secrets.token_bytes(size)
        self.digest = hashlib.sha256(self.body).hexdigest()
        self.go_on = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        half = len(self.body) // 2
        await stream.send_all(self.body[:half])
        await self.go_on.wait()
        await stream.send_all(self.body[half:])
        await stream.send_eof()


async def serve(nursery, handler) -> int:
    listeners = await nursery.start(_serve, handler)
    return listeners[0].socket.getsockname()[1]


async def _serve(handler, *, task_status):
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def greet(stream: trio.SocketStream) -> None:
    await stream.send_all(b"new")
    await stream.send_eof()


async def published(client: Process, names) -> dict[str, Address]:
    """Where these proxies are, by the client's log."""
    found = {}
    while set(found) < set(names):
        line = await client.wait_for("Proxy published")
        host, _, port = line["address"].rpartition(":")
        found[line["proxy"]] = Address(host, int(port))
    return found


@pytest.mark.timeout(60 + 6 * ROUNDS)
async def test_under_load(tmp_path, certificate):
    """50 proxies, 100 downloads; 10 come, 10 go, 10 change, again and again."""
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        files = Files(512 * KIB)
        old = await serve(place.nursery, files.serve)
        new = await serve(place.nursery, greet)
        names = iter(range(10**6))
        proxies = {f"p{next(names)}": old for _ in range(PROXIES)}

        def write():
            return place.write_client(
                *({"name": name, "local_port": port} for name, port in proxies.items())
            )

        client = await place.run("client", "-c", str(write()))
        where = await published(client, proxies)
        for _ in range(ROUNDS):
            await one_round(place, client, files, proxies, where, names, write, old, new)
        assert "Connection lost" not in client.events()


async def one_round(place, client, files, proxies, where, names, write, old, new):
    files.go_on = trio.Event()
    order = list(proxies)
    gone, changed = order[:STEPS], order[STEPS : 2 * STEPS]
    begun, digests, all_begun = [], [], trio.Event()

    async def download(address):
        stream = await visit(address)
        async with stream:
            digest = hashlib.sha256(first := await stream.receive_some())
            size = len(first)
            begun.append(address)
            if len(begun) == DOWNLOADS:
                all_begun.set()
            async for piece in stream:
                digest.update(piece)
                size += len(piece)
            digests.append(digest.hexdigest())

    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(DOWNLOADS):
                nursery.start_soon(download, where[order[number % len(order)]])
            await all_begun.wait()
            freed = [where[name] for name in gone]
            for name in gone:
                del proxies[name]
            for name in changed:
                proxies[name] = new
            added = {f"p{next(names)}": old for _ in range(STEPS)}
            proxies.update(added)
            said = await reloaded(write())
            assert "removed: " + ", ".join(gone) in said
            where.update(await published(client, added))
            for _ in gone:
                await client.wait_for("Proxy removed")
            assert all(map(is_free, freed))
            for name in changed:
                async with await visit(where[name]) as stream:
                    assert await read_all(stream) == b"new"
            files.go_on.set()
    # All of them: those of proxies that stayed, and of those that went or changed.
    assert digests == [files.digest] * DOWNLOADS
    for name in changed:
        proxies[name] = old
    await reloaded(write())


# --- How it is asked for -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["command", "SIGHUP", "watch"])
async def test_a_changed_file(tmp_path, certificate, how):
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        port = await serve(place.nursery, greet)
        keys = {"watch": True} if how == "watch" else {}
        first = {"name": "first", "local_port": port}
        client, [before] = await place.publish(first, **keys)
        path = place.write_client(first, {"name": "second", "local_port": port}, **keys)
        if how == "command":
            assert await reloaded(path) == "added: second\n"
        elif how == "SIGHUP":
            client.process.send_signal(signal.SIGHUP)
        after = (await published(client, ["second"]))["second"]
        for address in (before, after):
            async with await visit(address) as stream:
                assert await read_all(stream) == b"new"
        assert client.events().count("Connected") == 1
        assert await client.stop() == 0
        assert len(list(tmp_path.glob("control-*.sock"))) == 1  # the server's


@pytest.mark.parametrize("how", ["command", "SIGHUP", "watch"])
async def test_a_faulty_file_changes_nothing_and_is_told_once(tmp_path, certificate, how):
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        port = await serve(place.nursery, greet)
        keys = {"watch": True} if how == "watch" else {}
        client, [before] = await place.publish({"local_port": port}, **keys)
        path = place.write_client({"local_port": port, "publish_port": 70000}, **keys)
        if how == "command":
            done = await trio.to_thread.run_sync(reload, path)
            assert done.returncode == 1
            reason = done.stderr
        else:
            if how == "SIGHUP":
                client.process.send_signal(signal.SIGHUP)
            reason = (await client.wait_for("Configuration not reloaded"))["reason"]
        assert "proxies[0].publish_port: expected a port from 0" in reason
        async with await visit(before) as stream:
            assert await read_all(stream) == b"new"
        # It is put right.
        place.write_client({"local_port": port, "name": "right"}, **keys)
        if how != "watch":
            client.process.send_signal(signal.SIGHUP)
        await published(client, ["right"])
        said = client.events().count("Configuration not reloaded")
        assert said == (0 if how == "command" else 1)


async def test_a_plan_changes_nothing(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        files = Files(64 * KIB)
        port = await serve(place.nursery, files.serve)
        stays, goes, moves = (
            {"name": name, "local_port": port} for name in ("stays", "goes", "moves")
        )
        client, addresses = await place.publish(stays, goes, moves)
        async with await visit(addresses[1]) as goer, await visit(addresses[0]) as stayer:
            for stream in (goer, stayer):
                assert await stream.receive_some(1)
            path = place.write_client(
                stays | {"local_port": 1},
                {"name": "comes", "local_port": port},
                moves | {"publish_port": 1025},
            )
            for _ in range(2):
                assert (await reloaded(path, "--plan")).splitlines() == [
                    "added: comes",
                    "removed: goes",
                    "published elsewhere: moves",
                    "changed: stays",
                    "live connections that finish by themselves, on ports that go away: 1",
                    "live connections that go on as they are, at proxies that change: 1",
                ]
            place.write_client(stays, server_addr="127.0.0.1", stats_port=1)
            assert (await reloaded(path, "--plan")).splitlines() == [
                "removed: goes, moves",
                "with a new connection to the server: server_addr",
                "only with a restart: stats_port",
                "live connections that are cut: 2",
            ]
            files.go_on.set()
        assert "Configuration reloaded" not in client.events()
        assert not is_free(addresses[1])


async def test_another_server(tmp_path, certificate):
    """The client leaves the one and goes to the other at once."""
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        port = await serve(place.nursery, greet)
        client, _ = await place.publish({"local_port": port}, reconnect_delay=3600)
        path = place.write_client({"local_port": port}, reconnect_delay=3600, name="other")
        (tmp_path / "client.toml").write_text(path.read_text())
        assert "with a new connection to the server: name" in await reloaded(
            tmp_path / "client.toml"
        )
        await client.wait_for("Connection lost", reason="the configuration has changed")
        await client.wait_for("Connected")


async def test_what_takes_a_restart_is_said_each_time(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server()
        path = tmp_path / "server.toml"
        path.write_text(path.read_text() + 'allow_ports = ["1024-65535"]\nstats_port = 0\n')
        for _ in range(2):
            assert "only with a restart: stats_port" in await reloaded(path)
            line = await server.wait_for("Takes a restart")
            assert line["keys"] == "stats_port"


async def test_a_server_frees_what_it_no_longer_allows(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server()
        port = await serve(place.nursery, greet)
        client, [before] = await place.publish({"local_port": port})
        with socket.create_server((place.host, 0)) as sock:
            allowed = sock.getsockname()[1]
        path = tmp_path / "server.toml"
        text = path.read_text()
        path.write_text(text + f"allow_ports = [{allowed}]\n")
        assert await reloaded(path) == "at once: allow_ports\n"
        after = (await published(client, ["proxy0"]))["proxy0"]
        assert after.port == allowed
        assert is_free(before)
        path.write_text(text + "allow_ports = [1]\nallow_publish_addrs = '192.0.2.1'\n")
        server.process.send_signal(signal.SIGHUP)
        line = await client.wait_for("Proxy rejected")
        assert line["code"] == "not_allowed"
        assert is_free(after)
        path.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        await published(client, ["proxy0"])


async def test_a_client_whose_key_is_taken_out(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place:
        await place.start_server()
        port = await serve(place.nursery, greet)
        client, [address] = await place.publish({"local_port": port}, reconnect_delay=3600)
        path = tmp_path / "server.toml"
        path.write_text(path.read_text().replace(place.key, "another key of the server"))
        async with await visit(address) as stream:
            assert await read_all(stream) == b"new"
        assert "auth_key" in await reloaded(path)
        await client.wait_for("Connection lost")
        assert is_free(address)


def test_nobody_to_be_told(tmp_path, certificate):
    path = tmp_path / "server.toml"
    write_secret(path, "[server]\n" + toml({"auth_key": "x" * 20, "state_dir": str(tmp_path)}))
    done = reload(path)
    assert done.returncode == 1
    assert "no program that runs with this file" in done.stderr
    assert "--state-dir" in done.stderr
