"""The plugin in runs of pytest of its own, as its users have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import BLOCK

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs/testing-your-programs.md").read_text(encoding="utf-8")
#: The beginning of all files: what the tests of the plugin's users have at hand.
HEAD = """
import asyncio
import socket
import sys
import threading
import urllib.request

import pytest
import tunnel

async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})

async def echo(stream, peer):
    async for data in stream:
        await stream.send_all(data)

def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()
"""


@pytest.fixture
def run(pytester):
    """Run a file of tests in a pytest of its own, in which every warning is an error."""

    def run(text, *options, head=HEAD):
        path = pytester.makepyfile(test_theirs=head + text)
        strict = ("-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist")
        return pytester.runpytest_subprocess(*strict, *options, path, timeout=50)

    return run


@pytest.mark.parametrize(
    "text", [text for language, text in BLOCK.findall(PAGE) if language == "python"]
)
def test_what_the_documentation_shows(run, text):
    run(text, head="").assert_outcomes(passed=text.count("def test_"))


def test_in_a_thread(run):
    run(
        """
def test_an_application(public_url):
    assert get(public_url(app)) == b"hello"
    assert get(public_url(app)) == b"hello"  # another one

def test_a_local_port(public_url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = public_url(listener.getsockname()[1])
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as visitor:
            local, _ = listener.accept()
            with local:
                visitor.sendall(b"x")
                assert local.recv(1) == b"x"

def test_asyncio(public_url):
    async def main():
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        await writer.wait_closed()

    url = public_url(app)
    asyncio.run(main())

def test_a_cut_is_a_reset_and_the_client_comes_back(tunnel_client, tunnel_server, link_fault):
    with tunnel_client.publish(handler=echo, host="127.0.0.1", name="it") as address:
        with socket.create_connection((address.host, address.port)) as visitor:
            visitor.sendall(b"x")
            assert visitor.recv(1) == b"x"
            link_fault.cut()
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)
        tunnel_client.wait_state(tunnel.ClientState.CONNECTED)
        assert tunnel_client.published == {"it": address}
        with socket.create_connection((address.host, address.port)) as visitor:
            visitor.sendall(b"x")
            assert visitor.recv(1) == b"x"
        [session] = tunnel_server.sessions()
        assert session.name == "client"
    assert not tunnel_client.published

def test_while_it_is_away_the_port_is_free(public_url, link_fault, tunnel_client, tunnel_server):
    url = public_url(app)
    link_fault.cut()
    link_fault.stall()
    assert tunnel_server.sessions() == ()
    with pytest.raises(OSError):
        get(url)
    link_fault.heal()
    tunnel_client.wait_state(tunnel.ClientState.CONNECTED)
    assert get(url) == b"hello"

def test_a_stall_is_noticed(tunnel_client, link_fault):
    assert tunnel_client.state is tunnel.ClientState.CONNECTED
    link_fault.stall()
    tunnel_client.wait_state(tunnel.ClientState.WAITING)
    link_fault.heal()
    tunnel_client.wait_state(tunnel.ClientState.CONNECTED)

def test_delay(public_url, link_fault):
    import time

    url = public_url(app)
    link_fault.delay(0.1)
    started = time.monotonic()
    assert get(url) == b"hello"
    assert time.monotonic() - started >= 0.2

def test_a_client_of_ones_own(tunnel_server, link_fault):
    from tunnel import blocking

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with blocking.expose(port, join=tunnel_server.join, host="127.0.0.1"):
            assert len(tunnel_server.sessions()) == 1

def test_what_cannot_be_published_is_raised(tunnel_client):
    with tunnel_client.publish(handler=echo, host="127.0.0.1") as address:
        with pytest.raises(tunnel.PublishError):
            with tunnel_client.publish(address.port, handler=echo, host="127.0.0.1"):
                raise AssertionError("not reached")

def test_nothing_is_left():
    assert [thread for thread in threading.enumerate() if "tls-tunnel" in thread.name] == []
""",
        "-p",
        "no:randomly",
    ).assert_outcomes(passed=10)


def test_in_their_own_event_loop(run):
    run("""
import trio

@pytest.mark.trio
async def test_an_application(public_url):
    url = await public_url(app)
    assert await trio.to_thread.run_sync(get, url) == b"hello"

@pytest.mark.trio
async def test_a_cut_is_a_reset_and_the_client_comes_back(tunnel_client, link_fault):
    async with tunnel_client.publish(handler=echo, host="127.0.0.1") as address:
        async with await trio.open_tcp_stream(address.host, address.port) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            await link_fault.cut()
            assert tunnel_client.state.value is not tunnel.ClientState.CONNECTED
            with pytest.raises(trio.BrokenResourceError) as caught:
                await visitor.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        await tunnel_client.state.wait_value(tunnel.ClientState.CONNECTED)
        assert address in tunnel_client.published.value.values()

@pytest.mark.trio
async def test_a_stall_is_noticed_by_both(tunnel_client, tunnel_server, link_fault):
    events = tunnel_server.events()
    link_fault.stall()
    await tunnel_client.state.wait_value(tunnel.ClientState.WAITING)
    assert (await anext(events)).reason == "no sign of life"

@pytest.mark.trio
async def test_the_server_alone(tunnel_server):
    assert isinstance(tunnel_server, tunnel.EmbeddedServer)
    assert tunnel_server.sessions() == ()
    async with tunnel.connect(tunnel_server.join, name="own"):
        assert [session.name for session in tunnel_server.sessions()] == ["own"]
""").assert_outcomes(passed=4)


def test_in_memory(run):
    run("""
import trio

@pytest.mark.trio
async def test_a_cut(tunnel_client, link_fault, tunnel_visit, autojump_clock):
    async with tunnel_client.publish(handler=echo) as address:
        async with tunnel_visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            await link_fault.cut()
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
        with pytest.raises(ConnectionRefusedError):
            async with tunnel_visit(address):
                raise AssertionError("not reached")
        started = trio.current_time()
        await tunnel_client.state.wait_value(tunnel.ClientState.CONNECTED)
        assert trio.current_time() - started == pytest.approx(5)
        async with tunnel_visit(address) as visitor:
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"

@pytest.mark.trio
async def test_an_application(tunnel_client, tunnel_visit, autojump_clock):
    async with tunnel_client.publish_asgi(app) as address, tunnel_visit(address) as visitor:
        await visitor.send_all(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        answer = b""
        async for data in visitor:
            answer += data
        assert answer.endswith(b"hello")

@pytest.mark.trio
async def test_an_hour(tunnel_client, link_fault, autojump_clock):
    for _ in range(60):
        await trio.sleep(60)
        assert tunnel_client.state.value is tunnel.ClientState.CONNECTED
""").assert_outcomes(passed=3)


def test_what_fails_fails(run):
    result = run("""
import trio

def test_in_a_thread(public_url, link_fault):
    url = public_url(app)
    link_fault.cut()
    link_fault.stall()  # or the client might be back before the visitor is there
    assert get(url) == b"hello"  # it is away

@pytest.mark.trio
async def test_in_trio(tunnel_client, link_fault):
    link_fault.cut()  # not awaited

@pytest.mark.trio
async def test_in_memory(tunnel_client, autojump_clock):
    await trio.sleep(3600)
    raise ValueError("theirs")
""")
    result.assert_outcomes(failed=3)
    for words in ("URLError", "'LinkFault.cut' was never awaited", "ValueError: theirs"):
        assert words in result.stdout.str()


def test_what_does_not_work_says_what_does(run):
    result = run("""
@pytest.mark.trio
async def test_url(public_url, autojump_clock):
    await public_url(app)

def test_visit(tunnel_visit):
    pass
""")
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        ["*use tunnel_client.publish(handler=...)*", "*use socket.create_connection*"]
    )


def test_other_settings(run):
    run("""
@pytest.fixture
def tunnel_server_config():
    return {"allow_ports": ()}

@pytest.fixture
def tunnel_client_config(tunnel_client_config):
    return tunnel_client_config | {"name": "own"}

def test_of_client_and_server(tunnel_client, tunnel_server):
    assert [session.name for session in tunnel_server.sessions()] == ["own"]
    with pytest.raises(tunnel.PublishError, match="no port"):
        with tunnel_client.publish(handler=echo, host="127.0.0.1"):
            raise AssertionError("not reached")
""").assert_outcomes(passed=1)


def test_who_does_not_use_it_does_not_notice(run):
    run(
        """
import sys

def test_nothing_was_loaded():
    loaded = {name for name in sys.modules if name.partition(".")[0] == "tunnel"}
    assert loaded == {"tunnel", "tunnel.testing", "tunnel.testing.plugin"}
    assert "trio" not in sys.modules
""",
        *("-p", "no:trio"),
        head="",
    ).assert_outcomes(passed=1)


def test_whoever_imported_the_tunnel_before_pytest_is_not_warned(pytester):
    pytester.makepyfile("def test(): pass")
    # What pytest does about the plugins of installed distributions. (A checkout that is installed
    # has no list of its files, and so is not among them.)
    result = pytester.runpython_c("""
import sys
import pytest, tunnel
class Early:
    def pytest_load_initial_conftests(self, early_config):
        early_config.pluginmanager.rewrite_hook.mark_rewrite("tunnel")
sys.exit(pytest.main(["-q", "-W", "error"], plugins=[Early()]))
""")
    assert result.ret == 0
    assert "1 passed" in result.stdout.str()
