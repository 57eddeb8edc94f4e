"""`tls-tunnel top` in a real terminal."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
import trio

from tests.e2e.rig import PATIENCE, ask, lab, service, visit
from tests.needs import needs

pytestmark = [
    pytest.mark.e2e,
    needs("tmux"),
]


_OWN_SIZE = ("COLUMNS", "LINES")


class Terminal:
    """A tmux server of its own with one window, in which a command runs."""

    def __init__(self, directory, *command, width=100, height=24):
        self._socket = str(directory / "tmux")
        words = [sys.executable, "-m", "tunnel", "top", *command]
        # What remains on the screen afterwards can be read, too: the shell waits.
        shell = f"{shlex.join(words)}; echo ended with $?; exec sleep 1000"
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, shell)

    def _tmux(self, *words):
        # (A test runner may set how wide it is itself.)
        inherited = {key: value for key, value in os.environ.items() if key not in _OWN_SIZE}
        environ = inherited | {"LC_ALL": "C.UTF-8"}
        command = ["tmux", "-u", "-S", self._socket, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environ)

    def press(self, key):
        self._tmux("send-keys", key)

    def resize(self, width, height):
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self):
        return self._tmux("capture-pane", "-p", "-J").stdout

    async def wait_for(self, pattern):
        """The first screen on which the pattern is found."""
        with trio.move_on_after(PATIENCE):
            # Nobody tells when a screen changes: it has to be looked at again.
            while not re.search(pattern, screen := self.screen(), re.MULTILINE):  # noqa: ASYNC110
                await trio.sleep(0.05)
            return screen
        raise AssertionError(f"{pattern!r} is not on the screen:\n{self.screen()}")

    def close(self):
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_terminal(*command, **size):
        directory = tmp_path / f"terminal{len(opened)}"
        directory.mkdir()
        opened.append(Terminal(directory, *command, **size))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def url_of(server):
    """Where its statistics are; it says so before it says that it listens."""
    [url] = [line["url"] for line in server.lines if line["event"] == "Statistics served"]
    return url.rstrip("/")


async def test_a_server_from_start_to_end(tmp_path, certificate, terminal):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server(stats_port=0)
        url = url_of(server)
        _, [address] = await place.publish({"local_port": port, "name": "web"})
        top = terminal("-u", url, "-i", "0.2", width=140)  # with the totals
        await top.wait_for(r"^1 client, 1 proxy, 0 connections")
        async with await visit(address) as visitor:
            await visitor.send_all(b"x" * 5000)
            assert await visitor.receive_some()
            await top.wait_for(r"^web +client +\S+:\d+ +1 ")
            await top.wait_for(r"1 connection,")  # a screen may be half drawn
        assert await ask(address, b"x" * 300_000)
        await top.wait_for(r"305 kB")
        top.press("s")
        await top.wait_for(r"sort \(connections\)")
        top.press("r")
        await top.wait_for(r"sort \(rate\)")
        top.resize(50, 12)
        screen = await top.wait_for(r"^PROXY +conns")
        assert all(len(line) <= 50 for line in screen.splitlines())
        top.press("q")
        screen = await top.wait_for("ended with 0")
        assert "PROXY" not in screen  # the terminal is as it was


async def test_a_client(tmp_path, certificate, terminal):
    async with lab(tmp_path, certificate) as place, service() as port:
        await place.start_server()
        client, _ = await place.publish({"local_port": port, "name": "web"}, stats_port=0)
        top = terminal("-u", url_of(client), "-i", "0.2")
        await top.wait_for(r"client client, connected, up")
        screen = await top.wait_for(r"^web +client +\S+:\d+ +0 ")
        assert re.search(r"^LINK +address", screen, re.MULTILINE)


async def test_a_program_that_is_not_there_and_comes_back(tmp_path, certificate, terminal):
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server(stats_port=0)
        url = url_of(server)
        stats_port = int(url.rpartition(":")[2])
        await server.kill()
        top = terminal("-c", str(tmp_path / "server.toml"), "-i", "0.2")
        await top.wait_for("stats_port is 0, any free one: name it with -u")
        top = terminal("-u", url, "-i", "0.2")
        await top.wait_for(r"nothing there: Connection refused\s+Asked again every 0.2 seconds")
        server = await place.start_server(stats_port=stats_port)
        await top.wait_for(r"server, running, up")
        await server.kill()
        await top.wait_for(r"nothing there: .*\s+Asked again .* The last answer came")
        await place.start_server(stats_port=stats_port)
        await top.wait_for(r"server, running, up")


async def test_a_token(tmp_path, certificate, terminal):
    token = tmp_path / "token"
    token.write_text("a-long-random-text-for-this")
    async with lab(tmp_path, certificate) as place:
        server = await place.start_server(stats_port=0, stats_token_file=str(token))
        url = url_of(server)
        top = terminal("-u", url)
        await top.wait_for("HTTP status 401: it asks for a token")
        top.press("q")
        await top.wait_for("ended with 0")
        top = terminal("-u", url, "--token-file", str(token))
        await top.wait_for(r"server, running, up")
        top.press("C-c")
        await top.wait_for("ended with 0")
