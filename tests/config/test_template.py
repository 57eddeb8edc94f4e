"""Templates load, show every key, and any configuration survives being written and read."""

from __future__ import annotations

import re
from ipaddress import ip_network

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.parts import check
from tunnel.config import (
    PLACEHOLDER_KEY,
    ClientConfig,
    IdentityConfig,
    ProxyConfig,
    RateLimit,
    ServerConfig,
    VisitorConfig,
    client_template,
    dump,
    load_client,
    load_server,
    server_template,
)
from tunnel.config.schema import header, keys
from tunnel.config.tables import TABLES
from tunnel.model import PortRange, name_fault

KEY = "correct-horse-battery-staple"
PIN = "sha256:" + "0f" * 32


def test_the_server_template_loads():
    text = server_template(auth_key=KEY)
    loaded = load_server(text, source="server.toml", environ={})
    assert loaded.value == ServerConfig(auth_key=KEY)
    assert loaded.warnings == ()


def test_the_client_template_loads():
    text = client_template(auth_key=KEY)
    loaded = load_client(text, source="client.toml", environ={})
    proxy = ProxyConfig(name="web", publish_port=8080, local_port=3000)
    expected = ClientConfig(server_addr=("tunnel.example.com",), auth_key=KEY, proxies=(proxy,))
    assert loaded.value == expected
    assert loaded.warnings == ()


def test_templates_take_what_is_known():
    text = server_template(auth_key=KEY, cert_path="cert.pem", key_path="key.pem", bind_port=443)
    server = load_server(text, source="server.toml", environ={}).value
    assert (server.cert_path, server.key_path, server.bind_port) == ("cert.pem", "key.pem", 443)
    text = client_template(
        auth_key=KEY, server_addr="2001:db8::1", server_port=443, pin=PIN, ca_cert_path="ca.pem"
    )
    client = load_client(text, source="client.toml", environ={}).value
    assert (client.server_addr, client.server_port) == (("2001:db8::1",), 443)
    assert (client.pin, client.ca_cert_path) == ((PIN,), "ca.pem")


@pytest.mark.parametrize("template", [server_template, client_template])
def test_the_placeholder_is_refused_with_the_remedy(template):
    text = template()
    (error,) = check(text, environ={}).errors
    assert text.splitlines()[error.line - 1] == f'auth_key = "{PLACEHOLDER_KEY}"'
    assert "`tls-tunnel keygen`" in error.message


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        (server_template(), ("server", "server.rate_limit", "server.clients")),
        (client_template(), ("client", "proxies", "visitors")),
    ],
)
def test_every_key_is_there_once_with_its_meaning(text, tables):
    headers = re.findall(r"^(?:# )?(\[+[a-z_.]+\]+)$", text, re.MULTILINE)
    assert headers == [header(name) for name in tables]
    written = re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE)
    assert written == [key for name in tables for key in keys(TABLES[name])]
    words = text.replace("\n# ", " ")
    assert all(key.help in words for name in tables for key in keys(TABLES[name]).values())
    assert max(len(line) for line in text.splitlines() if "verifier = " not in line) <= 100


def switched_on(text: str, names: str = r"[a-z_]+") -> str:
    """The text with its commented keys and headers as if they were not, but for secrets."""
    text = re.sub(rf"^# ({names} = |\[+[a-z_.]+\]+$)", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"^(?:auth_key|stats_token|visitor_secret) = .*\n", "", text, flags=re.MULTILINE)


def test_what_is_commented_out_can_be_switched_on():
    """Defaults and examples are right: all of them together are a valid file."""
    text = re.sub(r"# verifier = .*", "", server_template())
    server = load_server(switched_on(text), source="x", environ={}).value
    assert server.auth_key_file == "auth.key"
    assert server.clients[0].auth_key_file == "office.key"
    text = re.sub(r"# auth_key_file = .*", "", server_template())
    server = load_server(switched_on(text), source="x", environ={}).value
    assert server.clients[0].verifier == "ttv1_" + "a" * 135
    assert server.rate_limit == RateLimit(requests_per_second=100, burst_size=200)
    text = re.sub(r"# skip_verify.*", "", client_template())
    text = text.replace("# visitors_only = false", "visitors_only = true")
    client = load_client(switched_on(text), source="x", environ={}).value
    assert client.visitors == (
        VisitorConfig(
            name="database",
            publish_port=0,
            owner="office",
            visitor_secret_file="database.secret",
            bind_port=15432,
        ),
    )
    assert client.proxies[0].visitor_secret_file == "database.secret"


def test_defaults_that_are_shown_are_the_defaults():
    names = r"(?:bind|allow|handshake|keepalive|shutdown)[a-z_]*"
    text = switched_on(server_template(auth_key=KEY), names).partition("[server.rate_limit]")[0]
    loaded = load_server(text, source="x", environ={"TLS_TUNNEL_AUTH_KEY": KEY})
    assert loaded.value == ServerConfig(auth_key=KEY)


# --- Round trip ---------------------------------------------------------------------------------

PORTS = st.integers(1, 65535)
SECONDS = st.floats(0.001, 86_400)
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, min_size=1, max_size=30)
KEYS = st.text(CHARACTERS, min_size=16, max_size=40)
PATHS = TEXTS.filter(lambda text: bool(text.strip()) and "\0" not in text)
TOKENS = st.from_regex(r"[!-~]{16,40}", fullmatch=True)
NAMES = TEXTS.filter(lambda text: name_fault(text) is None)
ADDRESSES = st.one_of(st.just("*"), st.ip_addresses().map(str))
HOSTS = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
)
PINS = st.binary(min_size=32, max_size=32).map(lambda digest: f"sha256:{digest.hex()}")
RANGES = st.tuples(PORTS, PORTS).map(sorted).map(lambda pair: PortRange(*pair))
UNIX = st.from_regex(r"unix:/[a-z ü/]{0,20}", fullmatch=True)


def tuples(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, min_size=1, max_size=3).map(tuple)


def optional(of: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | of


NETWORKS = st.tuples(st.ip_addresses(), st.integers(0, 32)).map(
    lambda pair: str(ip_network(pair, strict=False))
)
VERIFIERS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=135, max_size=135).map(
    lambda text: f"ttv1_{text}"
)


@st.composite
def identities(draw: st.DrawFn, name: str) -> IdentityConfig:
    proof = {"auth_key": KEYS, "auth_key_file": PATHS, "verifier": VERIFIERS}
    which = draw(st.sampled_from(sorted(proof)))
    return IdentityConfig(
        name=name,
        **{which: draw(proof[which])},
        allow_ports=draw(optional(tuples(RANGES))),
        allow_publish_addrs=draw(optional(tuples(ADDRESSES))),
        max_proxies=draw(st.integers(1, 256)),
        max_connections=draw(st.integers(1, 2**32 - 1)),
    )


def secret_of(entry: IdentityConfig) -> object:
    return entry.auth_key or entry.verifier or entry.name


@st.composite
def servers(draw: st.DrawFn) -> ServerConfig:
    tls = draw(optional(st.tuples(PATHS, PATHS))) or (None, None)
    in_file = draw(st.booleans())
    names = draw(st.lists(NAMES, unique=True, max_size=2))
    known = {secret_of(one): one for one in [draw(identities(name)) for name in names]}
    key = draw(KEYS.filter(lambda key: key not in known))
    return ServerConfig(
        bind_addr=draw(ADDRESSES),
        bind_port=draw(st.integers(0, 65535)),
        auth_key=None if in_file else key,
        auth_key_file=draw(PATHS) if in_file else None,
        cert_path=tls[0],
        key_path=tls[1],
        client_ca_path=draw(optional(PATHS)),
        allow_ports=draw(tuples(RANGES)),
        allow_publish_addrs=draw(tuples(ADDRESSES)),
        clients=tuple(known.values()),
        stats_port=draw(optional(st.integers(0, 65535))),
        stats_addr=draw(ADDRESSES),
        stats_token=draw(optional(TOKENS)),
        stats_hosts=draw(st.one_of(st.just(()), tuples(HOSTS))),
        state_dir=draw(optional(PATHS)),
        handshake_timeout=draw(SECONDS),
        keepalive_interval=draw(SECONDS),
        keepalive_timeout=draw(SECONDS),
        shutdown_grace=draw(st.floats(0, 86_400)),
        rate_limit=draw(
            optional(
                st.builds(
                    RateLimit,
                    requests_per_second=st.integers(1, 2**32 - 1),
                    burst_size=st.integers(1, 2**32 - 1),
                )
            )
        ),
    )


@st.composite
def proxies(draw: st.DrawFn, name: str) -> ProxyConfig:
    unix = draw(st.booleans())
    return ProxyConfig(
        name=name,
        publish_addr=draw(ADDRESSES),
        publish_port=draw(st.integers(0, 65535)),
        local_addr=draw(UNIX if unix else HOSTS),
        local_port=None if unix else draw(PORTS),
        proxy_type=draw(st.sampled_from(["tcp", "ssh", "http/1.1", "http/2.0"])),
        proxy_protocol=draw(st.sampled_from([None, "v1", "v2"])),
        allow_from=draw(tuples(NETWORKS) | st.just(())),
        visitor_secret=draw(optional(KEYS)),
    )


VISITORS = st.builds(
    VisitorConfig,
    name=NAMES,
    publish_port=PORTS,
    visitor_secret_file=optional(PATHS),
    bind_addr=ADDRESSES,
    bind_port=PORTS,
)


@st.composite
def clients(draw: st.DrawFn) -> ClientConfig:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    delay = draw(st.floats(0.001, 1000))
    verify = draw(st.booleans())
    tls = draw(optional(st.tuples(PATHS, PATHS))) or (None, None)
    published = {
        (one.publish_addr, one.publish_port or one.name): one
        for one in [draw(proxies(name)) for name in names]
    }
    listening = {
        (one.bind_addr, one.bind_port): one for one in draw(st.lists(VISITORS, max_size=2))
    }
    return ClientConfig(
        server_addr=draw(tuples(HOSTS)),
        server_port=draw(PORTS),
        auth_key=draw(KEYS),
        pin=draw(tuples(PINS)) if verify else (),
        ca_cert_path=draw(optional(PATHS)),
        skip_verify=not verify,
        cert_path=tls[0],
        key_path=tls[1],
        name=draw(optional(NAMES)),
        client_id=draw(optional(st.binary(min_size=16, max_size=16).map(bytes.hex))),
        connect_timeout=draw(SECONDS),
        reconnect_delay=delay,
        reconnect_max_delay=delay * draw(st.floats(1, 80)),
        local_connect_retries=draw(st.integers(0, 1000)),
        local_retry_delay_ms=draw(st.integers(0, 10_000)),
        proxies=tuple(published.values()),
        visitors=tuple(listening.values()),
    )


@given(servers())
def test_a_server_survives(config):
    assert load_server(dump(config), source="x", environ={}).value == config


@given(clients())
def test_a_client_survives(config):
    assert load_client(dump(config), source="x", environ={}).value == config


@given(KEYS)
def test_any_key_survives_in_a_template(key):
    text = client_template(auth_key=key)
    assert load_client(text, source="x", environ={}).value.auth_key == key


def test_a_longest_delay_that_follows_stays_commented_out():
    config = ClientConfig(
        server_addr=("a",),
        auth_key=KEY,
        reconnect_delay=7.0,
        proxies=(ProxyConfig(name="a", publish_port=1, local_port=2),),
    )
    assert "\n# reconnect_max_delay = 7\n" in dump(config)
    assert "\nreconnect_max_delay = 8.5\n" in dump(attrs.evolve(config, reconnect_max_delay=8.5))
