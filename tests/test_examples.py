"""The examples of the documentation run."""

import importlib.util
import random
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trio

from tests.library.test_link import KEY, SERVER, say
from tests.rig import read_all, visit
from tunnel.library.server import serve

EXAMPLES = Path(__file__).parents[1] / "docs/examples"


@pytest.fixture
def echo_server():
    command = [sys.executable, EXAMPLES / "yamux_echo.py", "serve", "127.0.0.1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.kill()


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_the_engine_by_itself_echoes(echo_server, size):
    question = random.Random(size).randbytes(size)
    command = [sys.executable, EXAMPLES / "yamux_echo.py", "ask", "127.0.0.1", echo_server]
    for _ in range(2):  # the server goes on after a connection
        done = subprocess.run(command, input=question, capture_output=True, timeout=30)
        assert done.stdout == question, done.stderr


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def client_file(directory, server):
    [address] = server.addresses
    path = directory / "client.toml"
    text = (
        f'[client]\nserver_addr = "{address.host}"\nserver_port = {address.port}\n'
        f'auth_key = "{KEY}"\npin = "{server.pin}"\nstate_dir = "{directory}"\n'
    )
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_publish_handler(tmp_path):
    async with serve(SERVER) as server, trio.open_nursery() as nursery:
        where = client_file(tmp_path, server)
        address = await nursery.start(example("publish_handler").main, where)
        assert await say(address, b"hello") == b"Hello 127.0.0.1\nHELLO"
        nursery.cancel_scope.cancel()


async def test_publish_asgi(tmp_path):
    async with serve(SERVER) as server, trio.open_nursery() as nursery:
        where = client_file(tmp_path, server)
        address = await nursery.start(example("publish_asgi").main, where)
        async with await visit(address) as stream:
            await stream.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"You are 127.0.0.1, and asked for /x\n" in await read_all(stream)
        nursery.cancel_scope.cancel()


async def test_embed_server(capsys):
    await example("embed_server").main()
    out = capsys.readouterr().out
    assert "example publishes greeting at 127.0.0.1:" in out
    assert "hello from the other side" in out


async def test_blocking(tmp_path, capsys):
    seen = []

    def look(url):
        with urllib.request.urlopen(url) as answer:
            seen.append(answer.status)

    async with serve(SERVER) as server:
        where = client_file(tmp_path, server)
        await trio.to_thread.run_sync(example("blocking").main, where, look)
    assert seen == [200]
    assert "GET / HTTP" in capsys.readouterr().err
