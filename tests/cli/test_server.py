"""`tls-tunnel server --quick`: what it needs, and what it guesses."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from tunnel.cli.commands.server import guess_address, quick_config
from tunnel.config import ServerConfig
from tunnel.protocol.keys import generate_key

KEY = generate_key(bytes(range(32)))


def test_the_configuration_is_the_same_at_each_start(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    config = quick_config(8443, environ)
    assert quick_config(8443, environ) == config
    assert config == ServerConfig(
        auth_key=config.auth_key, state_dir=str(tmp_path / "tls-tunnel"), bind_port=8443
    )
    assert config.auth_key.startswith("ttk1_")


def test_a_key_of_the_environment_goes_first(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path), "TLS_TUNNEL_AUTH_KEY": KEY}
    assert quick_config(0, environ).auth_key == KEY
    assert not list(tmp_path.iterdir())


class Routes:
    """What a machine would send from, by family; no entry is no way out."""

    def __init__(self, addresses):
        self._addresses = addresses

    def __call__(self, family, kind):
        assert kind is socket.SOCK_DGRAM  # which sends nothing to connect
        return Sender(self._addresses.get(family))


class Sender:
    def __init__(self, address):
        self._address = address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, _far):
        if self._address is None:
            raise OSError(101, "Network is unreachable")

    def getsockname(self):
        return (self._address, 1)


@pytest.mark.parametrize(
    ("four", "six", "guess"),
    [
        ("8.8.8.8", "2a00::1", "8.8.8.8"),
        ("10.0.0.1", "2a00::1", "2a00::1"),
        ("100.64.0.1", "2a00::1", "2a00::1"),
        ("172.32.0.1", "2a00::1", "172.32.0.1"),
        ("10.0.0.1", "fd00::1", "10.0.0.1"),
        (None, "fd00::1", "fd00::1"),
        (None, None, "127.0.0.1"),
    ],
)
def test_an_address_that_others_may_reach(monkeypatch, four, six, guess):
    routes = {socket.AF_INET: four, socket.AF_INET6: six}
    monkeypatch.setattr("socket.socket", Routes(routes))
    assert guess_address() == guess


def test_this_machine_has_one():
    assert ipaddress.ip_address(guess_address())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "-c", "server.toml"), "--quick is without a file"),
        (("--port", "1"), "Invalid value for --port: is for --quick"),
        (("--public-addr", "x"), "Invalid value for --public-addr: is for --quick"),
        (("--quick", "--port", "65536"), "Invalid value for '--port'"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(run, arguments, message):
    assert message in run("server", *arguments, exit_code=2).stderr


@pytest.mark.parametrize("host", ["tunnel.example.org:8443", "https://x", "", "a b", "[::1]"])
def test_a_public_address_that_is_none(run, monkeypatch, tmp_path, host):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = run("server", "--quick", "--public-addr", host, exit_code=1)
    assert result.stderr.startswith("error: --public-addr: expected a host name or address")


def test_a_key_that_a_person_made_up_fits_no_join_string(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TLS_TUNNEL_AUTH_KEY", "k" * 20)
    result = run("server", "--quick", exit_code=1)
    assert result.stderr == ("error: only a key that `tls-tunnel keygen` made fits a join string\n")
