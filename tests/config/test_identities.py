"""Who may do what: keys of clients, what each may publish, who may visit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import limits
from tunnel.config import (
    PLACEHOLDER_KEY,
    ClientConfig,
    IdentityConfig,
    ProxyConfig,
    ServerConfig,
    load_client,
    load_server,
)
from tunnel.config.values import NETWORKS
from tunnel.errors import ConfigError, Fault
from tunnel.model import PortRange

KEY = "correct-horse-battery-staple"
VERIFIER = "ttv1_" + "a2" * 67 + "b"
SHARED = f'[server]\nauth_key = "{KEY}"\n'
CLIENT = f'[client]\nserver_addr = "a"\nauth_key = "{KEY}"\n'
PROXY = '[[proxies]]\nname = "web"\npublish_port = 80\nlocal_port = 80\n'


def server(text: str) -> ServerConfig:
    return load_server(text, source="s", environ={}).value


def client(text: str) -> ClientConfig:
    return load_client(text, source="c", environ={}).value


def entry(lines: str, *, name: str = "office") -> str:
    return f'[[server.clients]]\nname = "{name}"\n{lines}\n'


def identity(lines: str) -> IdentityConfig:
    (only,) = server("[server]\n" + entry(lines)).clients
    return only


def proxy(lines: str) -> ProxyConfig:
    (only,) = client(CLIENT + PROXY + lines).proxies
    return only


def faults(load, text: str, **environ: str) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        load(text, source="x", environ=environ)
    return caught.value.faults


def fault(load, text: str, **environ: str) -> Fault:
    (only,) = faults(load, text, **environ)
    return only


# --- Identities -------------------------------------------------------------------------------


def test_an_identity_with_everything():
    assert identity(f"""\
verifier = "{VERIFIER}"
allow_ports = [443, "8000-8999"]
allow_publish_addrs = ["192.0.2.1", "::"]
max_proxies = 3
max_connections = 100
""") == IdentityConfig(
        name="office",
        verifier=VERIFIER,
        allow_ports=(PortRange(443, 443), PortRange(8000, 8999)),
        allow_publish_addrs=("192.0.2.1", "::"),
        max_proxies=3,
        max_connections=100,
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f'auth_key = "{KEY}"', IdentityConfig(name="office", auth_key=KEY)),
        ('auth_key_file = "k"', IdentityConfig(name="office", auth_key_file="k")),
        (f'verifier = "{VERIFIER}"', IdentityConfig(name="office", verifier=VERIFIER)),
    ],
)
def test_each_way_to_say_whose_it_is(line, expected):
    found = identity(line)
    assert found == expected
    assert found.allow_ports is None
    assert found.allow_publish_addrs is None
    assert (found.max_proxies, found.max_connections) == (256, 65_536)
    assert KEY not in repr(found)
    assert VERIFIER not in repr(found)


def test_the_shared_key_may_stand_beside():
    config = server(SHARED + entry('auth_key_file = "k"') + entry('auth_key_file = "l"', name="b"))
    assert config.auth_key == KEY
    assert [one.name for one in config.clients] == ["office", "b"]


def test_the_shared_key_from_the_environment():
    loaded = load_server(
        "[server]\n" + entry('auth_key_file = "k"'),
        source="s",
        environ={"TLS_TUNNEL_AUTH_KEY": KEY},
    )
    assert loaded.value.auth_key == KEY


def test_no_key_at_all():
    assert fault(load_server, "[server]\n").key == "server.auth_key"


def test_two_ways_at_once():
    found = fault(load_server, "[server]\n" + entry(f'auth_key_file = "k"\nauth_key = "{KEY}"'))
    assert found == Fault(
        5, "server.clients[0].auth_key", "auth_key and auth_key_file: keep one of them"
    )


def test_none_of_them():
    found = fault(load_server, "[server]\n" + entry(""))
    assert (found.line, found.key) == (2, "server.clients[0].auth_key")
    assert found.message.startswith("is missing: it goes here, in a file that auth_key_file names,")


def test_the_placeholder():
    found = fault(load_server, "[server]\n" + entry(f'auth_key = "{PLACEHOLDER_KEY}"'))
    assert found.message.startswith("is still the placeholder of the template")


def test_a_wrong_key_is_not_missing_too():
    found = fault(load_server, "[server]\n" + entry('auth_key = "short"'))
    assert found.message.startswith("expected a key of at least 16 characters")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SHARED + entry(f'auth_key = "{KEY}"'),
            Fault(
                5,
                "server.clients[0].auth_key",
                "[server] (line 2) has the same: give each client a key of its own",
            ),
        ),
        (
            "[server]\n"
            + entry(f'verifier = "{VERIFIER}"')
            + entry(f'verifier = "{VERIFIER}"', name="b"),
            Fault(
                7,
                "server.clients[1].verifier",
                "server.clients[0] (line 4) has the same: give each client a key of its own",
            ),
        ),
    ],
)
def test_the_same_key_twice_names_both_places(text, expected):
    assert fault(load_server, text) == expected


def test_the_same_key_in_the_environment_and_in_the_file():
    found = fault(load_server, "[server]\n" + entry(f'auth_key = "{KEY}"'), TLS_TUNNEL_AUTH_KEY=KEY)
    assert found.message.startswith("TLS_TUNNEL_AUTH_KEY has the same")


def test_the_same_name_twice():
    text = "[server]\n" + entry('auth_key_file = "k"') + entry('auth_key_file = "l"')
    found = fault(load_server, text)
    assert found == Fault(
        6, "server.clients[1].name", "server.clients[0] (line 3) has the same name"
    )


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("[server.clients]\n", "server.clients", "expected [[server.clients]] tables"),
        ("[server]\nclients = 3\n", "server.clients", "expected [[server.clients]] tables"),
        ("[server]\nclients = [3]\n", "server.clients[0]", "expected a table"),
        (
            "[server]\n" + entry('auth_key_file = "k"\nverifer = "x"'),
            "server.clients[0].verifer",
            "unknown key; did you mean verifier?",
        ),
        (
            "[server]\n" + entry('bind_port = 1\nauth_key_file = "k"'),
            None,
            "it belongs in [server]",
        ),
        (SHARED + "[[clients]]\n", "clients", "unknown"),
    ],
)
def test_tables_that_are_no_identities(text, key, message):
    found = faults(load_server, text)[0]
    assert key in (None, found.key)
    assert message in found.message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_proxies = 0", "expected a whole number from 1 to 256, found 0"),
        ("max_proxies = 257", "expected a whole number from 1 to 256, found 257"),
        ("max_connections = 0", "expected a whole number from 1 to 4294967295, found 0"),
        ("allow_ports = []", "the list is empty"),
        ('allow_publish_addrs = "example.org"', "expected an IPv4 or IPv6 address"),
        ("allow_publish_addrs = []", "the list is empty"),
    ],
)
def test_what_an_identity_does_not_take(line, expected):
    assert (
        expected in fault(load_server, "[server]\n" + entry(f'auth_key_file = "k"\n{line}')).message
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ttk1_" + "a" * 58, "this one is a key"),
        (VERIFIER[:-1], "it is cut or mistyped"),
        (VERIFIER.upper(), "found a text"),
        ("", "found a text"),
    ],
)
def test_what_is_no_verifier_is_not_shown(text, hint):
    found = fault(load_server, "[server]\n" + entry(f'verifier = "{text}"'))
    assert found.message.startswith("expected a verifier, which `tls-tunnel keygen --verifier`")
    assert hint in found.message
    assert not text or text not in found.message


# --- Addresses and certificates ---------------------------------------------------------------


def test_addresses_to_publish_on():
    assert server(SHARED).allow_publish_addrs == ("*",)
    assert server(SHARED + 'allow_publish_addrs = "::0"\n').allow_publish_addrs == ("::",)


def test_client_certificates():
    assert server(SHARED + 'client_ca_path = "ca.pem"\n').client_ca_path == "ca.pem"
    config = client(CLIENT + 'cert_path = "c.pem"\nkey_path = "k.pem"\n' + PROXY)
    assert (config.cert_path, config.key_path) == ("c.pem", "k.pem")


@pytest.mark.parametrize(("there", "other"), [("cert_path", "key_path"), ("key_path", "cert_path")])
def test_a_clients_certificate_and_key_come_together(there, other):
    found = fault(load_client, CLIENT + f'{there} = "x.pem"\n' + PROXY)
    assert (found.key, found.message) == (
        f"client.{there}",
        f"{other} is missing: set both, or neither",
    )


# --- Who may visit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"192.0.2.0/24"', ("192.0.2.0/24",)),
        ('["10.0.0.0/8", "2001:DB8:0::/32"]', ("10.0.0.0/8", "2001:db8::/32")),
        ('"192.0.2.7"', ("192.0.2.7/32",)),
        ('["::1", "0.0.0.0/0"]', ("::1/128", "0.0.0.0/0")),
    ],
)
def test_who_may_visit(value, expected):
    assert proxy(f"allow_from = {value}\n").allow_from == expected


def test_everybody_may_if_nobody_is_named():
    assert proxy("").allow_from == ()


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("[]", "the list is empty"),
        ("3", "found 3"),
        ('["10.0.0.0/8", 3]', "found 3 in it"),
        ('"example.org"', "found 'example.org'"),
        ('"10.0.0.1/8"', "there are bits beyond the prefix: write 10.0.0.0/8"),
        ('"10.0.0.0/33"', "found '10.0.0.0/33'"),
        ('"10.0.0.0/255.0.0.0"', "found '10.0.0.0/255.0.0.0'"),
        ('"10.0.0.0/"', "found '10.0.0.0/'"),
        ('"10.0.0.0/8/8"', "found '10.0.0.0/8/8'"),
        ('"fe80::%eth0/64"', "found 'fe80::%eth0/64'"),
        ('"*"', "found '*'"),
        ('"10.0.0.0/²"', "found '10.0.0.0/²'"),
        ("[" + '"::/0",' * 65 + "]", "this one has 65"),
    ],
)
def test_what_is_no_network(value, hint):
    found = fault(load_client, CLIENT + PROXY + f"allow_from = {value}\n")
    assert (found.line, found.key) == (8, "proxies[0].allow_from")
    assert found.message.startswith("expected a network such as 192.0.2.0/24, or a list of at most")
    assert hint in found.message


def test_all_proxies_together_name_a_bounded_number():
    networks = '["' + '", "'.join(f"10.0.{n}.0/24" for n in range(64)) + '"]'
    few = limits.MAX_ALLOW_FROM_TOGETHER // 64
    tables = [
        f'[[proxies]]\nname = "{n}"\npublish_port = 0\nlocal_port = 1\nallow_from = {networks}\n'
        for n in range(few + 2)
    ]
    assert len(client(CLIENT + "".join(tables[:few])).proxies) == few
    found = fault(load_client, CLIENT + "".join(tables))
    assert found.key == f"proxies[{few}].allow_from"
    assert found.message == "all proxies together name more than 2048 networks: name wider ones"


@given(st.text(max_size=60))
def test_any_text_is_a_network_or_an_error(text):
    said = ""
    try:
        (found,) = NETWORKS.read(text)
        assert NETWORKS.read(found) == (found,)
        assert len(found) <= limits.MAX_NETWORK_LENGTH
    except ValueError as error:
        said = str(error)
    assert said.isprintable()
