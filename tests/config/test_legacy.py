"""Files of tls-tunnel 1.5: each of their keys is used, ignored with a warning, or refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tunnel.config import ProxyConfig, RateLimit, VisitorConfig, load_client, load_server
from tunnel.config.legacy import OLD_KEYS, OLD_VARIABLES, OldKey, Treatment, old_key
from tunnel.config.schema import keys
from tunnel.config.tables import TABLES
from tunnel.errors import ConfigError, Fault

DATA = Path(__file__).parent / "data"
OLD = {old.key: old for old in OLD_KEYS}
KEY = "correct-horse-battery-staple"


def text_of(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def line_of(text: str, beginning: str) -> int:
    (line,) = [n for n, one in enumerate(text.splitlines(), 1) if one.startswith(beginning)]
    return line


def test_a_full_old_server_loads():
    text = text_of("v15-server.toml")
    loaded = load_server(text, source="v15-server.toml", environ={})
    config = loaded.value
    assert (config.bind_addr, config.bind_port) == ("0.0.0.0", 9443)
    assert (config.cert_path, config.key_path) == ("certs/fullchain.pem", "certs/privkey.pem")
    assert config.auth_key == KEY
    assert (config.stats_addr, config.stats_port) == ("0.0.0.0", 9900)
    assert config.rate_limit == RateLimit(requests_per_second=50, burst_size=120)
    line = line_of(text, "[server.size_limits]")
    text = OLD["server.size_limits"].text
    assert loaded.warnings == (Fault(line, "server.size_limits", text),)


def test_an_old_client_loads():
    text = text_of("v15-client.toml")
    loaded = load_client(text, source="v15-client.toml", environ={})
    config = loaded.value
    assert (config.server_addr, config.server_port) == (("relay.example.net",), 9443)
    assert (config.skip_verify, config.ca_cert_path) == (True, "certs/ca.pem")
    assert (config.stats_addr, config.stats_port) == ("127.0.0.1", 9901)
    assert config.proxies == (
        ProxyConfig(
            name="shell",
            proxy_type="ssh",
            publish_addr="0.0.0.0",
            publish_port=2022,
            local_port=22,
        ),
        ProxyConfig(name="site", proxy_type="http/1.1", publish_port=8081, local_port=8000),
        ProxyConfig(name="api", proxy_type="http/2.0", publish_port=8082, local_port=8001),
        ProxyConfig(name="queue", publish_port=5671, local_port=5672),
    )
    assert config.visitors == (VisitorConfig(name="archive", publish_port=5433, bind_port=15433),)
    assert [(one.line, one.key) for one in loaded.warnings] == [
        (line_of(text, "server_path"), "client.server_path"),
        (line_of(text, "skip_verify"), "client.skip_verify"),
        (line_of(text, 'proxy_type = "ssh"'), "proxies[0].proxy_type"),
        (line_of(text, 'proxy_type = "http/1.1"'), "proxies[1].proxy_type"),
        (line_of(text, 'proxy_type = "http/2.0"'), "proxies[2].proxy_type"),
    ]


def test_an_old_server_behind_a_proxy_is_refused():
    text = text_of("v15-server-refused.toml")
    with pytest.raises(ConfigError) as caught:
        load_server(text, source="old.toml", environ={})
    assert caught.value.faults == [
        Fault(line_of(text, name), f"server.{name}", OLD[f"server.{name}"].text)
        for name in ("transport", "behind_proxy", "allow_forward")
    ]


def test_an_old_client_with_forwarders_is_refused():
    text = text_of("v15-client-refused.toml")
    with pytest.raises(ConfigError) as caught:
        load_client(text, source="old.toml", environ={})
    assert caught.value.faults == [
        Fault(line_of(text, "transport"), "client.transport", OLD["client.transport"].text),
        Fault(line_of(text, "[[forwarders]]"), "forwarders", OLD["forwarders"].text),
    ]


def leaves(value: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if isinstance(value, dict):
        return set().union(*(leaves(one, (*path, key)) for key, one in value.items()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(leaves(one, path) for one in value))
    return {path}


def test_the_table_knows_the_examples_and_the_examples_know_the_table():
    """A key of the examples is in the table, itself or with its whole table; and back."""
    found = set()
    for file in DATA.glob("v15-*.toml"):
        for path in leaves(tomllib.loads(file.read_text(encoding="utf-8"))):
            above = [path[:end] for end in range(1, len(path) + 1)]
            known = [".".join(one) for one in above if old_key(one)]
            assert known, f"{path} of {file.name}"
            found |= set(known)
    assert found == set(OLD)


def test_what_is_used_is_a_key_of_ours():
    ours = {f"{table}.{name}" for table, of in TABLES.items() for name in keys(of)}
    for old in OLD_KEYS:
        assert (old.key in ours) or old.treatment is not Treatment.USED
        assert (old.key not in ours) or old.treatment is not Treatment.REFUSED


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        ('transport = "tls"', True),
        ('transport = "TLS"', False),
        ("transport = 5", False),
        ("behind_proxy = false", True),
        ("behind_proxy = 0", False),
        ("allow_forward = false", True),
        ("allow_forward = true", False),
    ],
)
def test_harmless_values(line, silent):
    text = f'[server]\nauth_key = "{KEY}"\n{line}\n'
    if silent:
        assert load_server(text, source="x", environ={}).warnings == ()
        return
    with pytest.raises(ConfigError) as caught:
        load_server(text, source="x", environ={})
    assert [one.line for one in caught.value.faults] == [3]


def test_an_old_key_in_another_table_is_unknown():
    with pytest.raises(ConfigError, match="server_path: unknown key"):
        load_server(f'[server]\nauth_key = "{KEY}"\nserver_path = "/"\n', source="x", environ={})


def test_concerns_tells_bool_from_int():
    old = OldKey("x", Treatment.REFUSED, "", (False,))
    assert [old.concerns(value) for value in (False, 0, None, True)] == [False, True, True, True]


@pytest.mark.parametrize("variable", OLD_VARIABLES)
def test_variables_of_the_pool_warn_on_clients_only(variable):
    client = f'[client]\nserver_addr = "a"\nauth_key = "{KEY}"\n[[proxies]]\n'
    client += 'name = "a"\npublish_port = 1\nlocal_port = 2\n'
    loaded = load_client(client, source="x", environ={variable: "junk"})
    assert loaded.warnings == (Fault(None, variable, OLD_VARIABLES[variable]),)
    server = f'[server]\nauth_key = "{KEY}"\n'
    assert load_server(server, source="x", environ={variable: "1"}).warnings == ()
