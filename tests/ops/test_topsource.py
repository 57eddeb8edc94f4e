from __future__ import annotations

import functools
import http.server
import json
import threading
from contextlib import contextmanager

import pytest
import trio

from tests.ops.statuses import proxy, status
from tunnel import limits
from tunnel.errors import TunnelError
from tunnel.ops.topsource import Source


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers as it is told, and keeps what it was asked."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        code, body, headers = self.server.answer
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def program(code=200, body=None, **headers):
    """An HTTP server that gives one answer; yields it and its URL."""
    body = json.dumps(status(proxy())).encode() if body is None else body
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.answer, server.asked = (code, body, headers), []
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def failure(url, **more):
    with pytest.raises(TunnelError) as failed:
        await Source(url, **more).read()
    return str(failed.value)


@pytest.mark.parametrize(
    ("path", "asked"), [("", "/status"), ("/", "/status"), ("/a/", "/a/status")]
)
async def test_status_is_below_the_url(path, asked):
    with program() as (server, url):
        found = await Source(url + path).read()
    assert [row.name for row in found.proxies] == ["web"]
    [(path, headers)] = server.asked
    assert path == asked
    assert "Authorization" not in headers


async def test_a_token_is_shown_to_the_program_and_to_nobody_else(monkeypatch):
    with program() as (other, elsewhere), program(302, b"", Location=elsewhere) as (server, url):
        monkeypatch.setenv("http_proxy", elsewhere)
        assert "HTTP status 302" in await failure(url, token="secret")
    assert server.asked[0][1]["Authorization"] == "Bearer secret"
    assert other.asked == []
    assert "secret" not in repr(Source(url, "secret"))


@pytest.mark.parametrize(
    ("code", "advice"),
    [(401, "--token-file"), (403, "stats_hosts"), (404, "too old"), (500, "see the log")],
)
async def test_what_to_do_about_a_refusal(code, advice):
    with program(code, b"") as (_, url):
        text = await failure(url)
    assert text.startswith(f"HTTP status {code}: ")
    assert advice in text


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, b'{"role": 1}'])
async def test_another_program(body):
    with program(200, body) as (_, url):
        assert await failure(url) == "what answers there is not a tls-tunnel"


async def test_an_answer_has_a_bound(monkeypatch):
    body = json.dumps(status(proxy())).encode()
    monkeypatch.setattr(limits, "TOP_ANSWER", len(body))
    with program(body=body) as (_, url):
        assert await Source(url).read()
    with program(body=body + b" ") as (_, url):
        assert "not a tls-tunnel" in await failure(url)


async def test_not_a_number_is_unknown():
    with program(body=json.dumps(status(loop_lag=float("nan"))).encode()) as (_, url):
        assert (await Source(url).read()).loop_lag is None


async def test_nobody_there():
    with program() as (_, url):
        pass
    assert await failure(url) == "nothing there: Connection refused"


async def test_somebody_who_does_not_answer(monkeypatch):
    monkeypatch.setattr(limits, "TOP_TIMEOUT", 0.05)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        assert "time" in await failure(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "url", ["", "localhost:9090", "ftp://x", "http://", "http://x:99999", "http://a b", "http://é"]
)
def test_what_is_no_url(url):
    with pytest.raises(TunnelError, match="is not such as http://127"):
        Source(url)
