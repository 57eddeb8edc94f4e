"""What is different between two files, and what it takes."""

from __future__ import annotations

import attrs
import pytest

from tunnel.config import ClientConfig, ProxyConfig, ServerConfig
from tunnel.config.changes import Changes, client_changes, in_force, server_changes
from tunnel.config.server import IdentityConfig
from tunnel.model import PortRange

KEY = "a key of sixteen"
WEB = ProxyConfig(name="web", publish_port=80, local_port=80)
SSH = ProxyConfig(name="ssh", publish_port=22, local_port=22)
CLIENT = ClientConfig(server_addr=("example.org",), auth_key=KEY, proxies=(WEB, SSH))
OFFICE = IdentityConfig(name="office", auth_key="the key of the office")
SERVER = ServerConfig(auth_key=KEY, clients=(OFFICE,))


def test_nothing():
    assert client_changes(CLIENT, CLIENT) == Changes()
    assert server_changes(SERVER, SERVER) == Changes()


def test_proxies():
    db = ProxyConfig(name="db", publish_port=1, local_port=1)
    elsewhere = attrs.evolve(SSH, publish_port=2222)
    assert client_changes(CLIENT, attrs.evolve(CLIENT, proxies=(elsewhere, db))) == Changes(
        added=("db",), removed=("web",), moved=("ssh",)
    )


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("publish_addr", "::", "moved"),
        ("publish_port", 81, "moved"),
        ("local_addr", "::1", "changed"),
        ("local_port", 81, "changed"),
        ("proxy_protocol", "v2", "changed"),
        ("allow_from", ("192.0.2.0/24",), "changed"),
        ("proxy_type", "ssh", "changed"),
        ("visitors_only", True, "moved"),
        ("allow_visitors", ("laptop",), "changed"),
        ("visitor_secret", KEY, "changed"),
        ("visitor_secret_file", "db.secret", "changed"),
    ],
)
def test_what_is_different_of_a_proxy(key, value, part):
    now = attrs.evolve(CLIENT, proxies=(attrs.evolve(WEB, **{key: value}), SSH))
    assert client_changes(CLIENT, now) == Changes(**{part: ("web",)})


def test_every_key_of_a_proxy_is_tried_above():
    names = {field.name for field in attrs.fields(ProxyConfig)}
    tried = set()
    for mark in test_what_is_different_of_a_proxy.pytestmark:
        tried = {key for key, _, _ in mark.args[1]}
    assert names - tried == {"name"}


def test_clients_of_a_server():
    home = IdentityConfig(name="home", auth_key="the key of this home")
    other = attrs.evolve(OFFICE, max_proxies=1)
    assert server_changes(SERVER, attrs.evolve(SERVER, clients=(home,))) == Changes(
        added=("home",), removed=("office",)
    )
    assert server_changes(SERVER, attrs.evolve(SERVER, clients=(other,))) == Changes(
        changed=("office",)
    )


LIVE_OR_ANEW = {
    "server_port": "anew",
    "auth_key": "anew",
    "pin": "anew",
    "name": "anew",
    "keepalive_timeout": "anew",
    "connect_timeout": "live",
    "local_connect_retries": "live",
    "stats_port": "restart",
    "state_dir": "restart",
    "client_id": "restart",
    "watch": "restart",
}


@pytest.mark.parametrize(("key", "part"), LIVE_OR_ANEW.items())
def test_keys_of_a_client(key, part):
    now = attrs.evolve(CLIENT, **{key: "something else"})
    assert client_changes(CLIENT, now) == Changes(**{part: (key,)})


def test_several_keys_of_a_server():
    now = attrs.evolve(SERVER, allow_ports=(PortRange(1, 2),), bind_port=1, rate_limit="other")
    assert server_changes(SERVER, now) == Changes(
        live=("allow_ports", "rate_limit"), restart=("bind_port",)
    )


def test_a_key_that_nobody_thought_of_takes_a_restart():
    """Said too often is better than a key that seems to have taken effect."""
    known = {"proxies", "visitors"}
    for field in attrs.fields(ClientConfig):
        if field.name not in known:
            now = attrs.evolve(CLIENT, **{field.name: object()})
            found = client_changes(CLIENT, now)
            assert found.live + found.anew + found.restart == (field.name,)


def test_what_is_in_force_afterwards():
    now = attrs.evolve(SERVER, allow_ports=(PortRange(1, 2),), bind_port=1)
    after = in_force(SERVER, now, server_changes(SERVER, now))
    assert after == attrs.evolve(now, bind_port=SERVER.bind_port)
    # So it is said again the next time.
    assert server_changes(after, now) == Changes(restart=("bind_port",))
