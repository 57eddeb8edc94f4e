"""What requests are answered."""

from __future__ import annotations

import json

import attrs
import pytest

from tests.ops.views import connections, counters, program
from tunnel.ops.http import Application
from tunnel.ops.statistics import Statistics
from tunnel.views import Snapshots

TOKEN = "a-token-of-some-length"
GUARDED = ["/stats", "/status", "/events", "/metrics"]
OPEN = ["/", "/healthz", "/readyz"]


def statistics(view):
    return Statistics(Snapshots("server", lambda: view, connections, lambda: counters(view)))


def application(view=None, **settings):
    return Application(statistics(view or program()), **settings)


async def ask(
    app, path, *, method="GET", host="localhost", query=b"", server="127.0.0.1", **headers
):
    fields = {name.encode().replace(b"_", b"-"): value.encode() for name, value in headers.items()}
    if host is not None:
        fields[b"host"] = host.encode()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(fields.items()),
        "server": (server, 9090),
    }
    return await app.answer(scope)


def said(answer):
    return json.loads(answer.body)


@pytest.mark.parametrize("path", OPEN + GUARDED)
async def test_everything_there_is(path):
    answer = await ask(application(), path)
    assert answer.status == 200
    assert answer.body


@pytest.mark.parametrize("path", ["/stats/", "/metrics/"])
async def test_a_slash_at_the_end_does_no_harm(path):
    assert (await ask(application(), path)).status == 200


@pytest.mark.parametrize("path", ["/nothing", "//", "/stats/x", "/../etc/passwd", "/stats\0"])
async def test_what_there_is_not(path):
    answer = await ask(application(), path)
    assert answer.status == (200 if path == "//" else 404)  # a slash at the end
    if answer.status == 404:
        assert "/metrics" in said(answer)["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods(method):
    answer = await ask(application(), "/stats", method=method)
    assert answer.status == 405
    assert (b"allow", b"GET, HEAD") in answer.headers


async def test_no_other_origin_may_read_it_and_nobody_keeps_it():
    answer = await ask(application(), "/stats", origin="http://evil.example")
    names = [name for name, _ in answer.headers]
    assert not any(name.startswith(b"access-control") for name in names)
    assert (b"cache-control", b"no-store") in answer.headers


async def test_a_mistake_of_the_program_is_said_and_survived(caplog):
    class Mistaken(Application):
        async def answer(self, _scope):
            raise KeyError("oops")

    sent = []

    async def send(message):
        sent.append(message)

    app = Mistaken(statistics(program()))
    await app({"type": "http", "method": "GET"}, None, send)
    assert sent[0]["status"] == 500
    assert "oops" in caplog.text


# --- Ready ---------------------------------------------------------------------------------------


async def test_ready_or_why_not():
    assert said(await ask(application(), "/readyz")) == {"ready": True, "reason": None}
    answer = await ask(application(attrs.evolve(program(), unready="it stops")), "/readyz")
    assert answer.status == 503
    assert said(answer) == {"ready": False, "reason": "it stops"}


async def test_health_does_not_depend_on_that():
    unready = application(attrs.evolve(program(), unready="it stops"))
    assert (await ask(unready, "/healthz")).status == 200


# --- Events --------------------------------------------------------------------------------------


async def test_events_from_a_number_on():
    assert said(await ask(application(), "/events", query=b"after=0"))["events"] == []
    assert said(await ask(application(), "/events", query=b"after=17&x=1"))["last"] == 0


@pytest.mark.parametrize("query", [b"after=-1", b"after=x", b"after=" + b"9" * 5000, b"after=%B2"])
async def test_a_number_that_is_none(query):
    answer = await ask(application(), "/events", query=query)
    assert answer.status == 400
    assert "whole number" in said(answer)["error"]


# --- The host that is asked for ------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9090",
        "localhost.",
        "127.0.0.1:9090",
        "127.9.9.9",
        "[::1]:9090",
        None,
    ],
)
async def test_own_names(host):
    assert (await ask(application(), "/stats", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9090", "192.0.2.1", "localhost.evil.example", "", "[::", "::1"],
)
@pytest.mark.parametrize("path", ["/", "/stats", "/healthz", "/nothing"])
async def test_names_of_others(host, path):
    """A page of evil.example, whose name now leads here, must not read anything (DNS rebinding)."""
    answer = await ask(application(), path, host=host)
    assert answer.status == 403
    assert "stats_hosts" in said(answer)["error"]


async def test_the_address_that_was_connected_to():
    assert (
        await ask(application(), "/stats", host="192.0.2.1:9090", server="192.0.2.1")
    ).status == 200
    assert (
        await ask(application(), "/stats", host="[2001:db8::1]", server="2001:db8:0::1")
    ).status == 200
    assert (await ask(application(), "/stats", host="192.0.2.1", server="192.0.2.2")).status == 403


async def test_names_that_the_configuration_allows():
    app = application(hosts=("Stats.Example.com", "192.0.2.9"))
    assert (await ask(app, "/stats", host="stats.example.com:443")).status == 200
    assert (await ask(app, "/stats", host="192.0.2.9")).status == 200
    assert (await ask(app, "/stats", host="other.example.com")).status == 403


# --- The token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GUARDED)
async def test_with_a_token_only_who_shows_it(path):
    app = application(token=TOKEN)
    assert (await ask(app, path, authorization=f"Bearer {TOKEN}")).status == 200
    assert (await ask(app, path, authorization=f"bearer  {TOKEN}")).status == 200
    for wrong in [
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer é",
    ]:
        answer = await ask(app, path, authorization=wrong)
        assert answer.status == 401
        assert (b"www-authenticate", b'Bearer realm="tls-tunnel"') in answer.headers
        assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize("path", OPEN)
async def test_health_and_the_empty_page_ask_for_none(path):
    assert (await ask(application(token=TOKEN), path)).status == 200


async def test_a_token_does_not_excuse_a_strange_host():
    answer = await ask(
        application(token=TOKEN), "/stats", host="evil.example", authorization=f"Bearer {TOKEN}"
    )
    assert answer.status == 403
