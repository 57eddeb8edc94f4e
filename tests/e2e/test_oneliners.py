"""A tunnel in a line for each end, as people type it: no file, a join string, real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
from contextlib import asynccontextmanager

import pytest
import trio

from tests.e2e.rig import PATIENCE, ask, is_free, lab, published, service
from tests.rig import echo
from tunnel.cli.commands.server import _PRIVATE as PRIVATE
from tunnel.model import Address, within
from tunnel.protocol.join import Join
from tunnel.protocol.keys import generate_key

pytestmark = pytest.mark.e2e

#: Nobody's, for tests without a server.
NOBODY = Join("127.0.0.1", 1, generate_key(bytes(32)), "sha256:" + "0" * 64)


class Lines:
    """A lab for commands of one line; what they keep is in its directory."""

    def __init__(self, place):
        self.place = place
        self.join = ""
        self.environ = {
            "XDG_STATE_HOME": str(place.directory / "state"),
            "TLS_TUNNEL_RECONNECT_DELAY_SECS": "0.05",
        }

    async def run(self, *arguments, **options):
        environ = self.environ | options.pop("environ", {})
        # (Files that are named are found in the lab's directory.)
        options = {"cwd": self.place.directory, "stdout": subprocess.PIPE} | options
        return await self.place.run(*arguments, environ=environ, **options)

    async def serve(self, *arguments):
        """Start a server; the second time on the port of the first. `join` is what it printed."""
        port = Join.from_text(self.join).port if self.join else 0
        quick = ("--quick", "--port", str(port), "--public-addr", "127.0.0.1")
        server = await self.run("server", *quick, *arguments)
        self.join = await line(server)
        return server

    async def expose(self, target, *arguments, **options):
        """Start publishing; and where."""
        client = await self.run("expose", str(target), "--join", self.join, *arguments, **options)
        return client, await address(client)


@pytest.fixture
def lines(tmp_path, certificate):
    """A context manager that gives a `Lines`."""

    @asynccontextmanager
    async def start():
        async with lab(tmp_path, certificate) as place:
            yield Lines(place)

    return start


async def line(process):
    """The next line of stdout."""
    text = b""
    with trio.fail_after(PATIENCE):
        while not text.endswith(b"\n"):
            data = await process.process.stdout.receive_some(1)
            assert data, (text, process.lines)
            text += data
    return text.decode().rstrip("\n")


async def address(process):
    host, _, port = (await line(process)).rpartition(":")
    return Address(host, int(port))


async def finished(process):
    """The exit status, and all that it said in the end."""
    with trio.fail_after(PATIENCE):
        out = b"".join([data async for data in process.process.stdout])
        await process.over.wait()
    return process.process.returncode, out.decode(), process.events()


async def test_a_tunnel_in_two_lines(tmp_path, lines):
    async with lines() as place, service() as port:
        server = await place.serve()
        client, where = await place.expose(port, "--name", "web")
        assert where.host == "127.0.0.1"
        assert await ask(where) == b"hello"
        await server.wait_for("Proxy listening", proxy="web")
        client.process.send_signal(signal.SIGINT)
        assert (await finished(client))[0] == 0
        assert is_free(where)
        goodbye = await server.wait_for("Client disconnected")
        assert goodbye["reason"] == "closed by the other side"
        assert await server.stop() == 0


async def test_the_server_says_what_to_type_and_where_its_secrets_are(tmp_path, lines):
    async with lines() as place:
        server = await place.serve()
        await server.wait_for(f"    tls-tunnel expose 3000 --join {place.join}")
        kept = tmp_path / "state" / "tls-tunnel"
        await server.wait_for(f"key and certificate are kept in {kept}.")
        assert not [entry for entry in server.events() if "guess" in entry]
        for name in ("server.key", "server.pem"):
            assert stat.S_IMODE((kept / name).stat().st_mode) == 0o600
        assert Join.from_text(place.join).host == "127.0.0.1"


async def test_without_an_address_it_says_that_it_guesses(tmp_path, lines):
    async with lines() as place:
        server = await place.run("server", "--quick", "--port", "0")
        host = Join.from_text(await line(server)).host
        doubt = ", and an address of a private network" if within(host, PRIVATE) else ""
        await server.wait_for(
            f"{host} is a guess{doubt}. If clients reach this server by another name"
        )


async def test_a_port_of_ones_choice_and_one_that_is_taken(tmp_path, lines):
    async with lines() as place, service() as port:
        await place.serve()
        _, where = await place.expose(port)
        second = await place.run(
            "expose", str(port), "--join", place.join, "--port", str(where.port)
        )
        status, out, events = await finished(second)
        assert (status, out) == (1, "")
        assert events[-1].startswith("error: the server does not publish it: client ")
        assert await ask(where) == b"hello"


async def test_a_server_that_was_killed_comes_back_with_the_same_word_and_address(tmp_path, lines):
    async with lines() as place, service() as port:
        server = await place.serve()
        join = place.join
        client, where = await place.expose(port)
        for _ in range(3):
            await server.kill()
            await client.wait_for("Connection lost")
            server = await place.serve()
            assert place.join == join
            await client.wait_for("Connected")
            assert await ask(where) == b"hello"
        client.process.send_signal(signal.SIGINT)
        # The address was the same all the time, so it was said once.
        assert (await finished(client))[:2] == (0, "")


async def test_a_client_that_is_killed_leaves_its_port_free(tmp_path, lines):
    async with lines() as place, service() as port:
        server = await place.serve()
        client, where = await place.expose(port)
        await client.kill()
        await server.wait_for("Client disconnected")
        assert is_free(where)
        _, again = await place.expose(port, "--port", str(where.port))
        assert again == where
        assert await ask(where) == b"hello"


@pytest.mark.parametrize("source", ["file", "stdin", "environment"])
async def test_the_join_string_from_elsewhere(tmp_path, lines, source):
    async with lines() as place, service() as port:
        await place.serve()
        arguments, options = [], {}
        if source == "file":
            (tmp_path / "office.join").touch(0o600)
            (tmp_path / "office.join").write_text(f"{place.join}\n")
            arguments = ["--join-file", "office.join"]
        elif source == "stdin":
            arguments, options = ["--join", "-"], {"stdin": subprocess.PIPE}
        else:
            options = {"environ": {"TLS_TUNNEL_JOIN": place.join}}
        client = await place.run("expose", str(port), *arguments, **options)
        if source == "stdin":
            await client.process.stdin.send_all(f"{place.join}\n".encode())
        assert await ask(await address(client)) == b"hello"
        command = trio.Path(f"/proc/{client.process.pid}/cmdline")
        assert place.join not in await command.read_text()


async def test_a_unix_socket(tmp_path, lines):
    path = str(tmp_path / "app.sock")
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    listeners = [trio.SocketListener(listener)]

    async with lines() as place:
        place.place.nursery.start_soon(trio.serve_listeners, echo, listeners)
        server = await place.serve()
        _, where = await place.expose(f"unix:{path}")
        await server.wait_for("Proxy listening", proxy="app.sock")
        assert await ask(where) == b"hello"


async def test_a_visit(tmp_path, lines):
    async with lines() as place, service() as port:
        await place.serve()
        client, _ = await place.expose(port, "--name", "db")
        host = place.place.host
        visitor = await place.run(
            "visit", "db", "--port", "5432", "--bind", host, "--join", place.join
        )
        here = await address(visitor)
        assert here == Address(host, 5432)
        assert await ask(here) == b"hello"
        await client.stop(signal.SIGINT)
        await visitor.wait_for("Target away")
        client, _ = await place.expose(port, "--name", "db")
        await visitor.wait_for("Target present")
        assert await ask(here) == b"hello"
        visitor.process.send_signal(signal.SIGINT)
        assert (await finished(visitor))[:2] == (0, "")
        assert is_free(here)


async def test_a_visit_with_a_secret(tmp_path, lines):
    secret, file = tmp_path / "db.secret", tmp_path / "owner.toml"
    secret.touch(mode=0o600)
    secret.write_text(generate_key(bytes(range(32))))
    async with lines() as place, service() as port:
        await place.serve()
        client, _ = await place.expose(port, "--name", "db", "--save", "owner.toml")
        await client.stop(signal.SIGINT)
        file.write_text(file.read_text() + f'visitor_secret_file = "{secret}"\n')
        await published(await place.run("client", "-c", "owner.toml"))
        visiting = ("visit", "db", "--bind", place.place.host, "--join", place.join)
        knows = await place.run(*visiting, "--port", "5432", "--secret-file", "db.secret")
        assert await ask(await address(knows)) == b"hello"
        guesses = await place.run(*visiting, "--port", "5433")
        with pytest.raises((trio.BrokenResourceError, ConnectionError)):
            await ask(await address(guesses))
        await guesses.wait_for("Visit refused")


async def test_what_is_saved_runs(tmp_path, lines):
    async with lines() as place, service() as port:
        await place.serve()
        host, file = place.place.host, tmp_path / "client.toml"
        client, _ = await place.expose(port, "--name", "web", "--save", "client.toml")
        await client.wait_for("saved as client.toml; later: tls-tunnel client -c client.toml")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        visiting = ("visit", "web", "--port", "5432", "--bind", host, "--save", "client.toml")
        visitor = await place.run(*visiting, "--join", place.join)
        assert await ask(await address(visitor)) == b"hello"
        await visitor.stop(signal.SIGINT)
        await client.stop(signal.SIGINT)
        again = await place.run("client", "-c", "client.toml")
        assert await ask(Address("127.0.0.1", (await published(again)).port)) == b"hello"
        await again.wait_said("Target present", "Visitor ready")
        assert await ask(Address(host, 5432)) == b"hello"
        assert await again.stop(signal.SIGINT) == 0


async def test_bench(tmp_path, lines):
    async with lines() as place:
        await place.serve()
        bench = await place.run("bench", "--join", place.join, "--seconds", "1", "--json")
        status, out, events = await finished(bench)
        assert (status, events) == (0, [])
        found = json.loads(out)
        assert found["server"] == f"127.0.0.1:{Join.from_text(place.join).port}"
        assert min(found["p50_ms"], found["to_visitors_mbit_s"], found["from_visitors_mbit_s"]) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_bench_that_is_ended(lines, number):
    async with lines() as place:
        server = await place.serve()
        bench = await place.run("bench", "--join", place.join, "--seconds", "600")
        for _ in range(2):
            await server.wait_for("Client connected")
        bench.process.send_signal(number)
        status, out, events = await finished(bench)
        assert (status, out, events) == (1, "", ["error: ended before all was measured"])


async def test_a_bench_without_a_server(tmp_path, lines):
    async with lines() as place:
        status, out, [error] = await finished(await place.run("bench", "--join", NOBODY.to_text()))
        assert (status, out) == (1, "")
        assert error.startswith("error: cannot reach 127.0.0.1:1: nothing listens there")


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self):
        self._near, self.far = pty.openpty()
        self.text = ""

    async def wait_for(self, words):
        with trio.fail_after(PATIENCE):
            while words not in self.text:
                await trio.lowlevel.wait_readable(self._near)
                self.text += os.read(self._near, 65536).decode(errors="replace")
        self.text = self.text.partition(words)[2]

    def close(self):
        os.close(self._near)
        os.close(self.far)


async def test_on_a_terminal_the_state_is_shown(tmp_path, lines):
    terminal = Terminal()
    async with lines() as place, service() as port:
        server = await place.serve()
        arguments = ("expose", str(port), "--join", place.join, "--qr")
        environ = {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100", "LINES": "40"}
        client = await place.run(*arguments, stdout=terminal.far, environ=environ)
        await terminal.wait_for("▄▄▄▄▄")  # of the code
        await terminal.wait_for("connected to 127.0.0.1:")
        await terminal.wait_for(f" -> 127.0.0.1:{port}")
        await terminal.wait_for("connections: 0 now")
        await server.kill()
        await terminal.wait_for("lost, tried again soon")
        await place.serve()
        await terminal.wait_for("connected to 127.0.0.1:")
        assert place.join not in terminal.text
        client.process.send_signal(signal.SIGINT)
        await terminal.wait_for(f"127.0.0.1:{port}: ended")
        assert await client.process.wait() == 0
    terminal.close()
