"""Every rule of the two files: what is accepted, and where and how the rest is refused."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.parts import check
from tunnel import limits
from tunnel.config import (
    PLACEHOLDER_KEY,
    ClientConfig,
    Kind,
    ProxyConfig,
    RateLimit,
    ServerConfig,
    VisitorConfig,
    detect,
    load_client,
    load_server,
)
from tunnel.errors import ConfigError, Fault
from tunnel.model import PortRange

KEY = "correct-horse-battery-staple"
PIN = "sha256:" + "0f" * 32
OTHER_PIN = "sha256:" + "a1" * 32

SERVER = f"""\
[server]
auth_key = "{KEY}"
"""
CLIENT = f"""\
[client]
server_addr = "tunnel.example.com"
auth_key = "{KEY}"
"""
PROXY = """\
[[proxies]]
name = "web"
publish_port = 8080
local_port = 3000
"""


def server(text: str, **environ: str) -> ServerConfig:
    return load_server(text, source="server.toml", environ=environ).value


def client(text: str, **environ: str) -> ClientConfig:
    return load_client(text, source="client.toml", environ=environ).value


def proxy(text: str) -> ProxyConfig:
    return client(CLIENT + "[[proxies]]\n" + text).proxies[0]


def faults(text: str, kind: Kind | None = None, **environ: str) -> list[Fault]:
    load = {Kind.SERVER: load_server, Kind.CLIENT: load_client}[kind or detect(text)]
    with pytest.raises(ConfigError) as caught:
        load(text, source="it.toml", environ=environ)
    assert caught.value.source == "it.toml"
    for fault in caught.value.faults:
        assert fault.text("it.toml") in str(caught.value).splitlines()
    return caught.value.faults


def fault(text: str, kind: Kind | None = None, **environ: str) -> Fault:
    (only,) = faults(text, kind, **environ)
    return only


def warnings(text: str, **environ: str) -> tuple[Fault, ...]:
    load = load_server if detect(text) is Kind.SERVER else load_client
    return load(text, source="it.toml", environ=environ).warnings


# --- What is accepted ---------------------------------------------------------------------------


def test_server_defaults():
    assert server(SERVER) == ServerConfig(auth_key=KEY)
    assert attrs.asdict(server(SERVER)) == {
        "bind_addr": "*",
        "bind_port": 8443,
        "auth_key": KEY,
        "auth_key_file": None,
        "cert_path": None,
        "key_path": None,
        "client_ca_path": None,
        "allow_ports": ({"first": 1, "last": 65535},),
        "allow_publish_addrs": ("*",),
        "stats_port": None,
        "stats_addr": "127.0.0.1",
        "stats_token": None,
        "stats_token_file": None,
        "stats_hosts": (),
        "audit_log": None,
        "watch": False,
        "state_dir": None,
        "handshake_timeout": 10.0,
        "keepalive_interval": 5.0,
        "keepalive_timeout": 5.0,
        "shutdown_grace": 10.0,
        "max_unauthenticated": 1024,
        "max_connections_per_proxy": 16_384,
        "max_connections_per_visitor": 4096,
        "rate_limit": None,
        "clients": (),
    }


def test_client_defaults():
    assert attrs.asdict(client(CLIENT + PROXY)) == {
        "server_addr": ("tunnel.example.com",),
        "server_port": 8443,
        "auth_key": KEY,
        "auth_key_file": None,
        "pin": (),
        "ca_cert_path": None,
        "skip_verify": False,
        "cert_path": None,
        "key_path": None,
        "name": None,
        "client_id": None,
        "stats_port": None,
        "stats_addr": "127.0.0.1",
        "stats_token": None,
        "stats_token_file": None,
        "stats_hosts": (),
        "audit_log": None,
        "watch": False,
        "state_dir": None,
        "connect_timeout": 10.0,
        "reconnect_delay": 5.0,
        "reconnect_max_delay": 5.0,
        "keepalive_interval": 5.0,
        "keepalive_timeout": 5.0,
        "local_connect_retries": 3,
        "local_retry_delay_ms": 1000,
        "proxies": (
            {
                "name": "web",
                "publish_addr": "*",
                "publish_port": 8080,
                "local_addr": "127.0.0.1",
                "local_port": 3000,
                "proxy_type": "tcp",
                "proxy_protocol": None,
                "allow_from": (),
                "visitors_only": False,
                "allow_visitors": (),
                "visitor_secret": None,
                "visitor_secret_file": None,
            },
        ),
        "visitors": (),
    }
    assert client(CLIENT + PROXY).local_retry_delay == 1.0


def test_a_full_server():
    text = f"""\
[server]
bind_addr = "::1"
bind_port = 0
cert_path = "tls/cert.pem"
key_path = "~/tls/key.pem"
auth_key = "{KEY}"
state_dir = "/var/lib/tunnel"
stats_port = 9090
stats_addr = "*"
handshake_timeout = 2.5
keepalive_interval = 1
keepalive_timeout = 86400
allow_ports = [80, "443", "8000-8999"]
shutdown_grace = 0

[server.rate_limit]
requests_per_second = 10
burst_size = 20
"""
    loaded = load_server(text, source="server.toml", environ={})
    assert loaded.warnings == ()
    assert loaded.value == ServerConfig(
        bind_addr="::1",
        bind_port=0,
        cert_path="tls/cert.pem",
        key_path="~/tls/key.pem",
        auth_key=KEY,
        state_dir="/var/lib/tunnel",
        stats_port=9090,
        stats_addr="*",
        handshake_timeout=2.5,
        keepalive_interval=1.0,
        keepalive_timeout=86400.0,
        allow_ports=(PortRange(80, 80), PortRange(443, 443), PortRange(8000, 8999)),
        shutdown_grace=0.0,
        rate_limit=RateLimit(requests_per_second=10, burst_size=20),
    )
    assert type(loaded.value.keepalive_interval) is float


def test_a_full_client():
    text = f"""\
[client]
server_addr = ["tunnel.example.com", "192.0.2.1", "2001:db8:0::1", "隧道.example"]
server_port = 443
auth_key_file = "auth.key"
pin = ["{PIN}", "{OTHER_PIN}"]
ca_cert_path = "ca.pem"
name = "办公室"
client_id = "{"0a" * 16}"
connect_timeout = 3
reconnect_delay = 0.5
reconnect_max_delay = 60
local_connect_retries = 0
local_retry_delay_ms = 250

[[proxies]]
name = "app"
publish_addr = "::"
publish_port = 0
local_addr = "unix:/run/app.sock"
proxy_protocol = "v2"

[[visitors]]
name = "database"
publish_port = 5432
bind_addr = "::1"
bind_port = 15432
"""
    assert client(text) == ClientConfig(
        server_addr=("tunnel.example.com", "192.0.2.1", "2001:db8::1", "隧道.example"),
        server_port=443,
        auth_key_file="auth.key",
        pin=(PIN, OTHER_PIN),
        ca_cert_path="ca.pem",
        name="办公室",
        client_id="0a" * 16,
        connect_timeout=3.0,
        reconnect_delay=0.5,
        reconnect_max_delay=60.0,
        local_connect_retries=0,
        local_retry_delay_ms=250,
        proxies=(
            ProxyConfig(
                name="app",
                publish_addr="::",
                publish_port=0,
                local_addr="unix:/run/app.sock",
                proxy_protocol="v2",
            ),
        ),
        visitors=(
            VisitorConfig(name="database", publish_port=5432, bind_addr="::1", bind_port=15432),
        ),
    )
    assert client(text).proxies[0].unix_path == "/run/app.sock"


def test_one_text_for_a_list():
    config = client(CLIENT + f'pin = "{PIN}"\n' + PROXY)
    assert (config.server_addr, config.pin) == (("tunnel.example.com",), (PIN,))


def test_the_longest_delay_follows_the_delay():
    assert client(CLIENT + "reconnect_delay = 7\n" + PROXY).reconnect_max_delay == 7.0


def test_tables_may_be_written_inline():
    text = f"""\
server.auth_key = "{KEY}"
server.rate_limit = {{ requests_per_second = 1, burst_size = 2 }}
"""
    assert server(text).rate_limit == RateLimit(requests_per_second=1, burst_size=2)
    text = 'proxies = [{ name = "a", publish_port = 1, local_port = 2 }]\n' + CLIENT
    assert client(text).proxies == (ProxyConfig(name="a", publish_port=1, local_port=2),)


def test_who_may_visit_is_asked_only_where_there_is_no_public_port():
    table = '[[proxies]]\nname = "db"\npublish_port = 1\nlocal_port = 2\n'
    text = CLIENT + table + 'allow_visitors = ["laptop", "phone"]\n'
    [fault] = faults(text)
    assert fault.key == "proxies[0].allow_visitors"
    assert "open to everybody" in fault.message
    [found] = client(text + "visitors_only = true\n").proxies
    assert found.allow_visitors == ("laptop", "phone")


def test_all_proxies_name_only_so_many_clients():
    names = [f"c{number}" for number in range(64)]
    tables = "".join(
        f'[[proxies]]\nname = "p{number}"\npublish_port = {number + 1}\nlocal_port = 2\n'
        f"visitors_only = true\nallow_visitors = {names}\n"
        for number in range(9)
    )
    [fault] = faults(CLIENT + tables)
    assert (fault.key, "512" in fault.message) == ("proxies[8].allow_visitors", True)


DB = '[[proxies]]\nname = "db"\npublish_port = 1\nlocal_port = 2\nvisitors_only = true\n'
GUEST = '[[visitors]]\nname = "db"\npublish_port = 1\nbind_port = 2\n'


@pytest.mark.parametrize(("table", "of"), [(DB, "proxies"), (GUEST, "visitors")])
def test_a_visitor_secret_is_here_or_in_a_file(table, of):
    here, there = f'visitor_secret = "{KEY}"\n', 'visitor_secret_file = "db.secret"\n'
    for line in (here, there):
        assert warnings(CLIENT + table + line) == ()
    [found] = getattr(client(CLIENT + table + here), of)
    assert (found.visitor_secret, found.visitor_secret_file) == (KEY, None)
    [fault] = faults(CLIENT + table + here + there)
    assert fault.key == f"{of}[0].visitor_secret"
    assert "keep one of them" in fault.message
    for wrong, why in (("short", "at least 16 characters"), (PLACEHOLDER_KEY, "placeholder")):
        [fault] = faults(CLIENT + table + f'visitor_secret = "{wrong}"\n')
        assert why in fault.message
        assert "short" not in fault.message


@pytest.mark.parametrize("key", ["visitor_secret", "visitor_secret_file"])
def test_a_visitor_secret_closes_no_public_port(key):
    text = CLIENT + DB.replace("true", "false") + f'{key} = "{KEY}"\n'
    [warning] = warnings(text)
    assert warning.key == f"proxies[0].{key}"
    assert "open to everybody" in warning.message


def test_only_visitors_are_enough():
    text = CLIENT + '[[visitors]]\nname = "db"\npublish_port = 1\nbind_port = 2\n'
    assert client(text).proxies == ()
    assert client(text).visitors == (VisitorConfig(name="db", publish_port=1, bind_port=2),)
    assert warnings(text) == ()


def test_a_byte_order_mark_is_no_key():
    assert server("\ufeff" + SERVER).auth_key == KEY
    assert detect("\ufeff" + CLIENT) is Kind.CLIENT


def test_windows_line_ends():
    text = (SERVER + "bind_port = 70000\n").replace("\n", "\r\n")
    assert fault(text).line == 3


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("*", "*"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("0:0::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_addresses(written, meant):
    assert server(SERVER + f'bind_addr = "{written}"\n').bind_addr == meant


@pytest.mark.parametrize("written", ['"off"', "false"])
def test_proxy_protocol_off(written):
    text = 'name = "a"\npublish_port = 1\nlocal_port = 2\nproxy_protocol = '
    assert proxy(text + written).proxy_protocol is None
    assert proxy(text + '"v1"').proxy_protocol == "v1"
    assert proxy(text + '"v1"').unix_path is None


# --- Values that are refused --------------------------------------------------------------------

ADDRESS = 'expected an IPv4 or IPv6 address, or "*" for all of them, found '
PORT = "expected a port from 1 to 65535, found "
ANY_PORT = "expected a port from 0 (any free one) to 65535, found "
SECONDS = "expected seconds, from 0.001 to 86400, found "
RANGES = 'expected a list of ports and ranges, such as ["80", "8000-8999"], found '
HOSTS = "expected a host name or address, or a list of them, found "
PINS = 'expected a pin ("sha256:" and 64 lowercase hexadecimal digits), or a list of them, found '
RETRIES = "expected a whole number from 0 to 1000, found "
NAME = "expected a name, found "
PATH = "expected the path of a file, found "
IN_QUOTES = "; write the number without quotes"
ONLY_HOST = "; only the name or address belongs here, the port has a key"
NO_PIN = "; `tls-tunnel cert` and the server's log print it"
FINGERPRINT = "; this looks like a certificate's fingerprint, a pin is another number: "


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('bind_addr = "example.com"', ADDRESS + "'example.com'"),
        ('bind_addr = "[::1]"', ADDRESS + "'[::1]'; write it without brackets"),
        ('bind_addr = ""', ADDRESS + "an empty text"),
        ("bind_addr = 0", ADDRESS + "0"),
        ("bind_addr = []", ADDRESS + "a list"),
        ("bind_port = 65536", ANY_PORT + "65536"),
        ("bind_port = -1", ANY_PORT + "-1"),
        ("bind_port = true", ANY_PORT + "true"),
        ("bind_port = 1.0", ANY_PORT + "1.0"),
        ('bind_port = "80"', ANY_PORT + "'80'" + IN_QUOTES),
        ('bind_port = "http"', ANY_PORT + "'http'"),
        ("bind_port = 0x" + "f" * 5000, ANY_PORT + "a huge number"),
        ("bind_port = 1979-05-27", ANY_PORT + "a date or time"),
        ("bind_port = { a = 1 }", ANY_PORT + "a table"),
        ("stats_port = 99999", ANY_PORT + "99999"),
        ('stats_addr = "example.com"', ADDRESS + "'example.com'"),
        ("state_dir = false", "expected the path of a directory, found false"),
        ('auth_key_file = "  "', PATH + "'  '"),
        ('auth_key_file = "a\\u0000b"', PATH + r"'a\x00b'"),
        ("handshake_timeout = 0", SECONDS + "0"),
        ("handshake_timeout = -1.5", SECONDS + "-1.5"),
        ("handshake_timeout = nan", SECONDS + "nan"),
        ("handshake_timeout = inf", SECONDS + "inf"),
        ("handshake_timeout = 86401", SECONDS + "86401"),
        ("handshake_timeout = true", SECONDS + "true"),
        ('handshake_timeout = "10"', SECONDS + "'10'" + IN_QUOTES),
        ('handshake_timeout = "10s"', SECONDS + "'10s'"),
        ("handshake_timeout = 0x" + "f" * 5000, SECONDS + "a huge number"),
        ("keepalive_interval = 0.0001", SECONDS + "0.0001"),
        ("keepalive_timeout = 0", SECONDS + "0"),
        ("shutdown_grace = -1", "expected seconds, from 0 to 86400, found -1"),
        ("allow_ports = []", RANGES + "a list; the list is empty"),
        ('allow_ports = "80"', RANGES + "'80'; write [ ] around it"),
        ('allow_ports = ["9-2"]', RANGES + "'9-2' in it"),
        ('allow_ports = [1, "0-5"]', RANGES + "'0-5' in it"),
        ('allow_ports = ["1-65536"]', RANGES + "'1-65536' in it"),
        ('allow_ports = ["٣"]', RANGES + "'٣' in it"),
        ("allow_ports = [true]", RANGES + "true in it"),
        ("allow_ports = [0]", RANGES + "0 in it"),
        ("allow_ports = [[1, 2]]", RANGES + "a list in it"),
    ],
)
def test_server_values(line, message):
    text = "[server]\n" + ("" if "auth_key_file" in line else f'auth_key = "{KEY}"\n')
    text += f"# a comment\n{line}\n"
    key = "server." + line.split(" ")[0]
    assert fault(text) == Fault(text.count("\n"), key, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("server_port = 0", PORT + "0"),
        ("connect_timeout = 0", SECONDS + "0"),
        ('ca_cert_path = ""', PATH + "an empty text"),
        (f'pin = "{PIN.upper()}"', PINS + repr(PIN.upper()[:59] + "…") + NO_PIN),
        ('pin = "sha256:abc"', PINS + "'sha256:abc'" + NO_PIN),
        ('pin = "sha256:AB:CD"', PINS + "'sha256:AB:CD'" + FINGERPRINT + NO_PIN[2:]),
        (f'pin = ["{PIN}", 5]', PINS + "5 in it" + NO_PIN),
        ("pin = []", PINS + "a list; the list is empty"),
        ("skip_verify = 1", "expected true or false, found 1"),
        (
            'skip_verify = "no"',
            "expected true or false, found 'no'; write true or false, without quotes",
        ),
        ('name = ""', NAME + "an empty text; it must have 1 to 64 characters"),
        (f'name = "{"x" * 65}"', NAME + repr("x" * 59 + "…") + "; it must have 1 to 64 characters"),
        ('name = " a"', NAME + "' a'; it begins or ends with a space"),
        (
            'name = "a\\u202Eb"',
            NAME + r"'a\u202eb'; it has a control or invisible character",
        ),
        ('name = "e\\u0301"', NAME + "'e\u0301'; it is not in Unicode's normal form NFC"),
        ("name = 5", NAME + "5"),
        (
            'client_id = "ABC"',
            "expected 32 lowercase hexadecimal digits, found 'ABC'; leave the key out and one is"
            " made and kept",
        ),
        ("reconnect_delay = 0", SECONDS + "0"),
        ("local_connect_retries = 1.5", RETRIES + "1.5"),
        ("local_connect_retries = -1", RETRIES + "-1"),
        ("local_connect_retries = 1001", RETRIES + "1001"),
        ("local_retry_delay_ms = 0.5", "expected a whole number from 0 to 86400000, found 0.5"),
        (
            "reconnect_max_delay = 4",
            "4 s is less than reconnect_delay, which is 5 s",
        ),
    ],
)
def test_client_values(line, message):
    text = CLIENT + f"{line}\n{PROXY}"
    assert fault(text) == Fault(4, "client." + line.split(" ")[0], message)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"https://a.example"', HOSTS + "'https://a.example'" + ONLY_HOST),
        ('"a.example:8443"', HOSTS + "'a.example:8443'" + ONLY_HOST),
        ('"[::1]"', HOSTS + "'[::1]'" + ONLY_HOST),
        ('["a", "b c"]', HOSTS + "'b c' in it" + ONLY_HOST),
        ('"a\\u200b"', HOSTS + r"'a\u200b'" + ONLY_HOST),
        ("[]", HOSTS + "a list; the list is empty"),
        ('""', HOSTS + "an empty text"),
        ("5", HOSTS + "5"),
    ],
)
def test_server_addr(written, message):
    text = CLIENT.replace('"tunnel.example.com"', written) + PROXY
    assert fault(text) == Fault(2, "client.server_addr", message)


LOCAL = 'expected a host name or address, or "unix:/path", found '


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('name = ""', NAME + "an empty text; it must have 1 to 64 characters"),
        ("publish_port = 65536", ANY_PORT + "65536"),
        ('publish_addr = "web.example"', ADDRESS + "'web.example'"),
        ("local_port = 0", PORT + "0"),
        ('local_addr = "a:80"', LOCAL + "'a:80'" + ONLY_HOST),
        (
            'local_addr = "unix:app.sock"',
            LOCAL + "'unix:app.sock'; the path of a socket begins with a slash: unix:/run/app.sock",
        ),
        (
            'proxy_type = "socks5"',
            'expected "tcp" or "ssh" or "http/1.1" or "http/2.0", found \'socks5\'',
        ),
        ('proxy_protocol = "v3"', 'expected "v1", "v2" or "off", found \'v3\''),
        ("proxy_protocol = true", 'expected "v1", "v2" or "off", found true'),
    ],
)
def test_proxy_values(line, message):
    key = line.split(" ")[0]
    kept = [one for one in PROXY.splitlines() if not one.startswith(f"{key} ")]
    text = CLIENT + "\n".join([*kept, line])
    assert fault(text) == Fault(text.count("\n") + 1, f"proxies[0].{key}", message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("publish_port = -1", "expected a port from 1 to 65535, or 0, found -1"),
        ("bind_port = 0", PORT + "0"),
        ('bind_addr = "a"', ADDRESS + "'a'"),
        ('name = "a\\n"', NAME + r"'a\n'; it begins or ends with a space"),
    ],
)
def test_visitor_values(line, message):
    lines = {
        "name": 'name = "db"',
        "publish_port": "publish_port = 1",
        "bind_port": "bind_port = 2",
    }
    key = line.split(" ")[0]
    lines.pop(key, None)
    text = CLIENT + "\n".join(["[[visitors]]", *lines.values(), line])
    assert fault(text) == Fault(text.count("\n") + 1, f"visitors[0].{key}", message)


# --- What is missing, doubled or unknown --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (CLIENT + "[[proxies]]\n", 4, "proxies[0].name", "is missing: expected a name"),
        (
            CLIENT + "[[proxies]]\n",
            4,
            "proxies[0].publish_port",
            "is missing: expected a port from 0 (any free one) to 65535",
        ),
        (
            CLIENT + "[[proxies]]\n",
            4,
            "proxies[0].local_port",
            "is missing: expected a port from 1 to 65535",
        ),
        (
            CLIENT + PROXY + "[[visitors]]\n",
            8,
            "visitors[0].bind_port",
            "is missing: expected a port from 1 to 65535",
        ),
        (
            SERVER + "[server.rate_limit]\n",
            3,
            "server.rate_limit.burst_size",
            "is missing: expected a whole number from 1 to 4294967295",
        ),
        (
            "[client]\n" + PROXY,
            1,
            "client.server_addr",
            "is missing: expected a host name or address, or a list of them",
        ),
    ],
)
def test_missing_keys(text, line, key, message):
    assert Fault(line, key, message) in faults(text)


def test_nothing_to_do():
    message = "there is nothing to do: add a [[proxies]] or [[visitors]] table"
    assert fault(CLIENT) == Fault(None, "proxies", message)
    assert fault("proxies = []\n" + CLIENT) == Fault(1, "proxies", message)


@pytest.mark.parametrize("kind", Kind)
def test_an_empty_file(kind):
    first = faults("", kind)[-1] if kind is Kind.CLIENT else fault("", kind)
    found = [one for one in faults("", kind) if one.key == kind]
    advice = f"`tls-tunnel template {kind}` prints a file to begin with"
    assert found == [Fault(None, kind, f"the table [{kind}] is missing; {advice}")]
    assert first.line is None


def test_the_other_ones_file():
    message = "this is a client's file: `tls-tunnel client` runs it, not server"
    assert fault(CLIENT, Kind.SERVER) == Fault(1, "client", message)
    message = "this is a server's file: `tls-tunnel server` runs it, not client"
    assert fault("\n" + SERVER, Kind.CLIENT) == Fault(2, "server", message)


def test_one_file_for_both():
    message = "is not for a server's file: server and client have one each"
    assert fault(SERVER + "[client]\n") == Fault(3, "client", message)


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (SERVER + "bind_prot = 1\n", 3, "server.bind_prot", "unknown key; did you mean bind_port?"),
        (SERVER + "Bind_Port = 1\n", 3, "server.Bind_Port", "unknown key; did you mean bind_port?"),
        (SERVER + "BIND_PORT = 1\n", 3, "server.BIND_PORT", "unknown key; did you mean bind_port?"),
        (SERVER + "bind-port = 1\n", 3, "server.bind-port", "unknown key; did you mean bind_port?"),
        (SERVER + "zzz = 1\n", 3, "server.zzz", "unknown key"),
        (
            SERVER + "[server.rate_limits]\n",
            3,
            "server.rate_limits",
            "unknown table; did you mean rate_limit?",
        ),
        (SERVER + "[sever]\n", 3, "sever", "unknown table; did you mean server?"),
        (
            CLIENT + PROXY + "reconnect_delay = 1\n",
            8,
            "proxies[0].reconnect_delay",
            "unknown key; it belongs in [client]",
        ),
        (
            "bind_port = 1\n" + SERVER,
            1,
            "bind_port",
            "unknown key; it belongs in [server] or [[visitors]]",
        ),
        (
            CLIENT + PROXY + '"a\\nb\\u202e" = 1\n',
            8,
            r"proxies[0].'a\nb\u202e'",
            "unknown key",
        ),
        (CLIENT + PROXY + "[[proxy]]\n", 8, "proxy", "unknown key; did you mean proxies?"),
    ],
)
def test_unknown_keys(text, line, key, message):
    assert fault(text) == Fault(line, key, message)


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("server = 5\n", 1, "server", "expected a table [server], found 5"),
        (
            SERVER + "rate_limit = 5\n",
            3,
            "server.rate_limit",
            "expected a table [server.rate_limit], found 5",
        ),
        (
            CLIENT + "[proxies]\n",
            4,
            "proxies",
            "expected [[proxies]] tables, found a table; write two brackets",
        ),
        ("proxies = 5\n" + CLIENT, 1, "proxies", "expected [[proxies]] tables, found 5"),
        ("proxies = [\n 5]\n" + CLIENT, 2, "proxies[0]", "expected a table, found 5"),
    ],
)
def test_what_should_be_a_table(text, line, key, message):
    assert fault(text) == Fault(line, key, message)


# --- Rules between keys -------------------------------------------------------------------------


def test_a_key_must_be_there():
    found = fault("[server]\nbind_port = 1\n")
    assert (found.line, found.key) == (1, "server.auth_key")
    assert found.message == (
        "is missing: it goes here, in a file that auth_key_file names, or in TLS_TUNNEL_AUTH_KEY;"
        " `tls-tunnel keygen` prints one; server and client need the same"
    )


def test_a_key_must_not_be_there_twice():
    found = fault(CLIENT + 'auth_key_file = "k"\n' + PROXY)
    message = "auth_key and auth_key_file are both there: keep one of them"
    assert found == Fault(3, "client.auth_key", message)


@pytest.mark.parametrize(
    ("token", "because"),
    [
        ("short", "at least 16 characters, found a text; this one has 5"),
        ("sixteen letters and spaces", "without spaces"),
        ("vierundzwanzig-Zeichen-äö", "of ASCII"),
        ("a-line-of-its-own\\r\\nX: y", "of ASCII"),
    ],
)
def test_a_token_that_cannot_be_one_is_not_shown(token, because):
    found = fault(f'[server]\nauth_key = "{KEY}"\nstats_token = "{token}"\n')
    assert found.key == "server.stats_token"
    assert because in found.message
    assert token not in found.message


def test_a_token_must_not_be_there_twice():
    text = CLIENT + 'stats_token = "sixteen-letters!"\nstats_token_file = "t"\n' + PROXY
    message = "stats_token and stats_token_file are both there: keep one of them"
    assert fault(text).message == message


def test_a_token_is_not_in_the_text_of_a_configuration():
    loaded = server(SERVER + 'stats_token = "sixteen-letters!"\nstats_hosts = "a.example"\n')
    assert loaded.stats_hosts == ("a.example",)
    assert "sixteen-letters!" not in repr(loaded)


def test_a_short_key_is_not_shown():
    found = fault('[server]\nauth_key = "fifteen-letters"\n')
    assert found == Fault(
        2,
        "server.auth_key",
        "expected a key of at least 16 characters, found a text; this one has 15; `tls-tunnel"
        " keygen` makes a strong one",
    )
    assert server('[server]\nauth_key = "sixteen-letters!"\n').auth_key == "sixteen-letters!"


@pytest.mark.parametrize("value", ["1234567890123456789", "[1234567890123456789]", "true"])
def test_a_key_of_another_type_is_not_shown(value):
    found = fault(f"[server]\nauth_key = {value}\n")
    assert found.key == "server.auth_key"
    assert "123" not in found.message


def test_characters_count_not_bytes():
    assert fault('[server]\nauth_key = "六六六六六六"\n').key == "server.auth_key"
    assert server(f'[server]\nauth_key = "{"六" * 16}"\n').auth_key == "六" * 16


def test_the_placeholder_is_no_key():
    text = SERVER.replace(KEY, PLACEHOLDER_KEY)
    assert fault(text) == Fault(
        2,
        "server.auth_key",
        "is still the placeholder of the template; `tls-tunnel keygen` prints one; server and"
        " client need the same",
    )
    assert server(text, TLS_TUNNEL_AUTH_KEY=KEY).auth_key == KEY
    assert fault(SERVER, TLS_TUNNEL_AUTH_KEY=PLACEHOLDER_KEY).key == "server.auth_key"


def test_secrets_are_not_in_the_repr():
    assert KEY not in repr(server(SERVER))
    assert KEY not in repr(client(CLIENT + PROXY))


@pytest.mark.parametrize(("there", "other"), [("cert_path", "key_path"), ("key_path", "cert_path")])
def test_certificate_and_key_come_together(there, other):
    found = fault(SERVER + f'{there} = "x.pem"\n')
    assert found == Fault(3, f"server.{there}", f"{other} is missing: set both, or neither")


def test_pin_and_skip_verify_contradict():
    found = fault(CLIENT + f'pin = "{PIN}"\nskip_verify = true\n' + PROXY)
    message = "contradicts pin, which is a way to verify: remove skip_verify"
    assert found == Fault(5, "client.skip_verify", message)


def test_skip_verify_warns():
    message = "anyone on the way can pass for the server; a pin is as easy and safe"
    assert warnings(CLIENT + "skip_verify = true\n" + PROXY) == (
        Fault(4, "client.skip_verify", message),
    )
    assert warnings(CLIENT + f'skip_verify = false\npin = "{PIN}"\n' + PROXY) == ()


def test_a_burst_below_the_rate_warns():
    text = SERVER + "[server.rate_limit]\nburst_size = 5\nrequests_per_second = 6\n"
    message = "is less than requests_per_second, which can then never be reached"
    assert warnings(text) == (Fault(4, "server.rate_limit.burst_size", message),)
    assert warnings(text.replace("6", "5")) == ()


def second(**changes: str) -> str:
    keys = {"name": '"api"', "publish_port": "8081", "local_port": "3000"} | changes
    return "[[proxies]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_names_of_proxies_are_unique():
    found = fault(CLIENT + PROXY + second(name='"web"'))
    assert found == Fault(9, "proxies[1].name", "proxies[0] (line 5) has the same name")


@pytest.mark.parametrize("publish_addr", ['"*"', None])
def test_published_ports_are_unique(publish_addr):
    changes = {"publish_port": "8080"} | ({"publish_addr": publish_addr} if publish_addr else {})
    found = fault(CLIENT + PROXY + second(**changes))
    assert found == Fault(
        10,
        "proxies[1].publish_port",
        "proxies[0] (line 6) has the same publish_addr and publish_port",
    )


def test_addresses_are_compared_by_meaning():
    one = second(name='"a"', publish_addr='"::1"')
    two = second(name='"b"', publish_addr='"0:0:0::1"')
    assert fault(CLIENT + one + two).key == "proxies[1].publish_port"


def test_the_same_port_on_another_address_is_another():
    config = client(CLIENT + PROXY + second(publish_port="8080", publish_addr='"127.0.0.1"'))
    assert len(config.proxies) == 2


def test_port_0_is_not_one_port():
    zero = {"publish_port": "0"}
    config = client(CLIENT + second(**zero) + second(name='"b"', **zero))
    assert [one.publish_port for one in config.proxies] == [0, 0]


def test_a_wrong_address_is_no_double():
    found = faults(CLIENT + PROXY + second(publish_port="8080", publish_addr='"x"'))
    assert [one.key for one in found] == ["proxies[1].publish_addr"]


def test_two_wrong_names_are_no_double():
    found = faults(CLIENT + second(name="1", publish_port="8082") + second(name="2"))
    assert [one.key for one in found] == ["proxies[0].name", "proxies[1].name"]
    assert all("expected a name" in one.message for one in found)


def test_a_unix_socket_has_no_port():
    found = fault(CLIENT + second(local_addr='"unix:/run/a"'))
    assert found == Fault(7, "proxies[0].local_port", "a Unix socket has no port: remove the key")


def test_visitors_listen_on_different_ports():
    visitor = '[[visitors]]\nname = "db"\npublish_port = 1\nbind_port = 2\n'
    found = fault(CLIENT + visitor + visitor)
    message = "visitors[0] (line 7) has the same bind_addr and bind_port"
    assert found == Fault(11, "visitors[1].bind_port", message)


def test_there_is_a_most_of_proxies():
    most = limits.MAX_PROXIES
    tables = [second(name=f'"{n}"', publish_port=str(n + 1)) for n in range(most + 1)]
    assert len(client(CLIENT + "".join(tables[:most])).proxies) == most
    found = fault(CLIENT + "".join(tables))
    message = f"there are {most + 1} [[proxies]], more than {most}"
    assert found == Fault(4 + 4 * most, f"proxies[{most}]", message)


def test_all_faults_at_once_in_the_order_of_lines():
    text = """\
[client]
server_adr = "a"
pin = 5
[[proxies]]
name = "a"
publish_port = 1
local_port = "x"
[[proxies]]
name = "a"
publish_port = 1
local_port = 2
"""
    found = faults(text, TLS_TUNNEL_RECONNECT_DELAY_SECS="soon")
    assert [(one.line, one.key) for one in found] == [
        (1, "client.server_addr"),
        (1, "client.auth_key"),
        (2, "client.server_adr"),
        (3, "client.pin"),
        (7, "proxies[0].local_port"),
        (9, "proxies[1].name"),
        (10, "proxies[1].publish_port"),
        (None, "TLS_TUNNEL_RECONNECT_DELAY_SECS"),
    ]


# --- The environment ----------------------------------------------------------------------------


def test_the_environment_goes_before_the_file():
    text = CLIENT + "reconnect_delay = 1\nlocal_connect_retries = 1\nlocal_retry_delay_ms = 1\n"
    config = client(
        text + PROXY,
        TLS_TUNNEL_RECONNECT_DELAY_SECS="2.5",
        TLS_TUNNEL_LOCAL_CONNECT_RETRIES="7",
        TLS_TUNNEL_LOCAL_RETRY_DELAY_MS="20",
        TLS_TUNNEL_AUTH_KEY="another-key-of-24-letters",
        TLS_TUNNEL_SOMETHING="else",
    )
    assert config.reconnect_delay == config.reconnect_max_delay == 2.5
    assert (config.local_connect_retries, config.local_retry_delay_ms) == (7, 20)
    assert config.auth_key == "another-key-of-24-letters"
    assert client(text + PROXY).reconnect_delay == 1.0


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("line", ["", 'auth_key_file = "k"\n', f'auth_key = "{KEY}"\n'])
def test_the_key_of_the_environment_is_the_only_one(kind, line):
    text = "[server]\n" if kind is Kind.SERVER else '[client]\nserver_addr = "a"\n'
    load = server if kind is Kind.SERVER else client
    text += line + (PROXY if kind is Kind.CLIENT else "")
    config = load(text, TLS_TUNNEL_AUTH_KEY="x" * 16)
    assert (config.auth_key, config.auth_key_file) == ("x" * 16, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RECONNECT_DELAY_SECS", "", SECONDS + "an empty text"),
        ("RECONNECT_DELAY_SECS", "five", SECONDS + "'five'"),
        ("RECONNECT_DELAY_SECS", "1e3", SECONDS + "'1e3'"),
        ("RECONNECT_DELAY_SECS", "-1", SECONDS + "-1"),
        ("RECONNECT_DELAY_SECS", "0", SECONDS + "0"),
        ("RECONNECT_DELAY_SECS", "nan", SECONDS + "'nan'"),
        ("RECONNECT_DELAY_SECS", "٣", SECONDS + "'٣'"),
        ("LOCAL_CONNECT_RETRIES", "2.0", RETRIES + "2.0"),
        ("LOCAL_CONNECT_RETRIES", "1_0", RETRIES + "'1_0'"),
        ("LOCAL_CONNECT_RETRIES", " 3", RETRIES + "' 3'"),
        ("LOCAL_CONNECT_RETRIES", "9" * 5000, RETRIES + repr("9" * 59 + "…")),
        (
            "LOCAL_RETRY_DELAY_MS",
            "1s",
            "expected a whole number from 0 to 86400000, found '1s'",
        ),
        (
            "AUTH_KEY",
            "secret",
            "expected a key of at least 16 characters, found a text; this one has 6; `tls-tunnel"
            " keygen` makes a strong one",
        ),
        (
            "AUTH_KEY",
            "\udcff" * 16,
            "expected a key of at least 16 characters, found a text; it is not UTF-8",
        ),
    ],
)
def test_a_variable_that_does_not_parse(name, value, message):
    variable = f"TLS_TUNNEL_{name}"
    assert fault(CLIENT + PROXY, **{variable: value}) == Fault(None, variable, message)


def test_a_wrong_variable_leaves_one_error_not_two():
    text = CLIENT.replace(f'auth_key = "{KEY}"\n', "") + PROXY
    assert fault(text, TLS_TUNNEL_AUTH_KEY="x").key == "TLS_TUNNEL_AUTH_KEY"


def test_a_delay_from_the_environment_keeps_the_rule():
    text = CLIENT + "reconnect_max_delay = 8\n" + PROXY
    found = fault(text, TLS_TUNNEL_RECONNECT_DELAY_SECS="10")
    message = "8 s is less than reconnect_delay, which is 10 s"
    assert found == Fault(4, "client.reconnect_max_delay", message)


# --- No TOML at all -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (
            "[server]\nauth_key = secret\n",
            2,
            None,
            "not TOML, column 12: Invalid value (a text needs quotes)",
        ),
        (
            '[server]\nkey_path = "C:\\certs\\k.pem"\n',
            2,
            None,
            "not TOML, column 17: Unescaped '\\' in a string (write two of them, or put the text"
            " into single quotes)",
        ),
        (
            "[server\nbind_port = 1\n",
            1,
            None,
            "not TOML, column 8: Expected ']' at the end of a table declaration",
        ),
        (
            "[server]\nbind_port 1\n",
            2,
            None,
            "not TOML, column 11: Expected '=' after a key in a key/value pair (a line is: key ="
            " value)",
        ),
        ('[server]\na = "x\n', 2, None, "not TOML, column 7: Illegal character '\\n'"),
        ('[server]\na = """x\n\n\n', 2, None, "not TOML: Unterminated string (a quote is missing)"),
        (SERVER + "\n[server]\n", 4, "server", "is in the file twice"),
        (SERVER + "bind_port = 1\nbind_port = 2\n", 4, "server.bind_port", "is in the file twice"),
        ("[server]\na = " + "[" * 20_000, None, None, "brackets are nested too deeply"),
        ("[server]\na = " + "9" * 5_000, None, None, "a number has too many digits"),
        ('[server]\n"\u202e" = [', 2, None, "not TOML: Invalid value (a text needs quotes)"),
        ("[server]\n\x07 = 1", 2, None, "not TOML, column 1: Invalid statement"),
    ],
)
def test_syntax_errors(text, line, key, message):
    assert fault(text, Kind.SERVER) == Fault(line, key, message)


# --- Whose file it is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SERVER, Kind.SERVER),
        (CLIENT, Kind.CLIENT),
        (PROXY, Kind.CLIENT),
        ("[[forwarders]]\n", Kind.CLIENT),
        ("[server.rate_limit]\n", Kind.SERVER),
        ("x = 1\nserver.a = 1\n[client]\n", Kind.SERVER),
        ("[client]\n[server]\n", Kind.CLIENT),
        ("[client]\nbroken = \n", Kind.CLIENT),
        ("# [server]\n", None),
        ('a = """\n[server]\n"""\n', None),
        ("", None),
        ("[sever]\n", None),
    ],
)
def test_detect(text, kind):
    assert detect(text) is kind


# --- Anything ------------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(
        [
            *SERVER.splitlines(),
            *CLIENT.splitlines(),
            *PROXY.splitlines(),
            "[[visitors]]",
            "[server.rate_limit]",
            "burst_size = 3",
            "proxies = 5",
            "client = []",
            "server.bind_port = 1",
            'local_addr = "unix:/x"',
            "visitors = [1, { name = 2 }]",
            "pin = [[]]",
            '"" = { }',
            "forwarders = 1",
            "'a\tb'.c = 1979-05-27",
            "x = [",
            "]",
        ]
    ),
    max_size=12,
).map("\n".join)


@given(st.one_of(LINES, st.text()))
def test_any_text_gives_only_faults(text):
    assert_only_faults(text)


VALUES = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.booleans().map(lambda value: str(value).lower()),
        st.sampled_from(["''", '"a"', "1979-05-27", "07:32:00", "0xffffffffffffffffffffff"]),
    ),
    lambda inner: st.lists(inner, max_size=2).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=3,
)


@given(st.sampled_from([Kind.SERVER, Kind.CLIENT]), st.data())
def test_any_value_under_any_key_gives_only_faults(kind, data):
    known = attrs.fields_dict(ServerConfig if kind is Kind.SERVER else ClientConfig)
    keys = data.draw(st.lists(st.sampled_from([*known, "transport"]), unique=True))
    lines = [f"{key} = {data.draw(VALUES)}" for key in keys]
    assert_only_faults("\n".join([f"[{kind}]", *lines]))


def assert_only_faults(text: str) -> None:
    last = text.count("\n") + 1
    for load in (load_server, load_client):
        found = None
        try:
            load(text, source="x", environ={})
        except ConfigError as error:
            found = error.faults
        assert found != []
        for one in found or []:
            assert one.message
            assert one.text("x").isprintable()
            assert one.line is None or 1 <= one.line <= last
    assert check(text, environ={}).valid in (True, False)
