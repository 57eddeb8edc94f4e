"""Where a join string comes from: exactly one place, and it never shows."""

from __future__ import annotations

import io

import pytest

from tunnel.cli.joining import VARIABLE, client_of, read_join
from tunnel.errors import ConfigError, StoreError, TunnelError
from tunnel.protocol.join import Join, JoinFormatError
from tunnel.protocol.keys import generate_key

JOIN = Join("tunnel.example.com", 443, generate_key(bytes(range(32))), "sha256:" + "ab" * 32)
TEXT = JOIN.to_text()


class Stdin(io.StringIO):
    def __init__(self, text="", *, terminal=False):
        super().__init__(text)
        self.isatty = lambda: terminal


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "office.join"
    path.touch(0o600)
    path.write_text(f"{TEXT}\n")
    return path


def test_from_the_command_line():
    assert read_join(TEXT, None, {}) == JOIN


def test_from_a_file(file, capsys):
    assert read_join(None, file, {}) == JOIN
    assert capsys.readouterr() == ("", "")


def test_a_file_that_others_can_read_is_warned_of(file, capsys):
    file.chmod(0o644)
    assert read_join(None, file, {}) == JOIN
    assert f"chmod 600 {file}" in capsys.readouterr().err


def test_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(f"{TEXT}\nmore\n"))
    assert read_join("-", None, {}) == JOIN


def test_at_a_terminal_it_is_asked_for_and_does_not_show(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(terminal=True))
    monkeypatch.setattr("getpass.getpass", lambda _: TEXT)
    assert read_join("-", None, {}) == JOIN


def test_from_the_environment_it_is_taken_away():
    environ = {VARIABLE: TEXT, "other": "1"}
    assert read_join(None, None, environ) == JOIN
    assert environ == {"other": "1"}


def test_none_is_an_error():
    with pytest.raises(TunnelError, match=r"which server\? .* --join-file or TLS_TUNNEL_JOIN"):
        read_join(None, None, {})


@pytest.mark.parametrize(
    ("text", "has_file", "variable", "message"),
    [
        (TEXT, True, None, "--join and --join-file both"),
        (TEXT, False, TEXT, "--join and TLS_TUNNEL_JOIN both"),
        (None, True, "", "--join-file and TLS_TUNNEL_JOIN both"),
    ],
)
def test_two_are_an_error(file, text, has_file, variable, message):
    environ = {} if variable is None else {VARIABLE: variable}
    with pytest.raises(TunnelError, match=message) as caught:
        read_join(text, file if has_file else None, environ)
    assert TEXT not in str(caught.value)
    assert not environ


@pytest.mark.parametrize("text", ["", "ttj1_", TEXT[:-1], TEXT[:40] + "a" + TEXT[41:], JOIN.key])
def test_what_is_none_is_an_error_that_does_not_show_it(text, file):
    file.write_text(text)
    for given, path in ((text, None), (None, file)):
        with pytest.raises(JoinFormatError) as caught:
            read_join(given, path, {})
        assert not text[5:] or text[5:] not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StoreError, match=r"join string in .*none: No such file"):
        read_join(None, tmp_path / "none", {})
    with pytest.raises(StoreError, match="Is a directory"):
        read_join(None, tmp_path, {})


def test_a_file_without_an_end_is_not_read_to_its_end():
    from pathlib import Path

    with pytest.raises(JoinFormatError):
        read_join(None, Path("/dev/zero"), {})


def test_the_client_is_that_of_the_join_string():
    config = client_of(JOIN, {})
    assert (config.server_addr, config.server_port) == (("tunnel.example.com",), 443)
    assert (config.auth_key, config.pin) == (JOIN.key, (JOIN.pin,))
    assert config.proxies == config.visitors == ()


def test_the_environment_counts_but_for_its_key():
    environ = {"TLS_TUNNEL_AUTH_KEY": "k" * 20, "TLS_TUNNEL_RECONNECT_DELAY_SECS": "0.5"}
    config = client_of(JOIN, environ)
    assert (config.auth_key, config.reconnect_delay) == (JOIN.key, 0.5)
    with pytest.raises(ConfigError, match="TLS_TUNNEL_RECONNECT_DELAY_SECS"):
        client_of(JOIN, {"TLS_TUNNEL_RECONNECT_DELAY_SECS": "soon"})
