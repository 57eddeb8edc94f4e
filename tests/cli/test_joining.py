"""Where a join string comes from: exactly one place, and it never shows. And `--save`: a file that
says what the line says, and whatever else it said before."""

from __future__ import annotations

import io
import stat

import attrs
import pytest

from tunnel.cli.joining import VARIABLE, client_of, read_join, save_as_file
from tunnel.config import ProxyConfig, VisitorConfig, load_client
from tunnel.errors import ConfigError, StoreError, TunnelError
from tunnel.protocol.join import Join, JoinFormatError
from tunnel.protocol.keys import generate_key

JOIN = Join("tunnel.example.com", 443, generate_key(bytes(range(32))), "sha256:" + "ab" * 32)
TEXT = JOIN.to_text()
WEB = ProxyConfig(name="web", publish_port=8080, local_port=3000)
SSH = ProxyConfig(name="ssh", publish_port=0, local_port=22)
DB = VisitorConfig(name="db", bind_port=5432)


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


# --- Saving


@pytest.fixture
def path(tmp_path):
    return tmp_path / "client.toml"


def load(path):
    return load_client(path.read_text(), source="c", environ={}).value


@pytest.mark.parametrize("table", [WEB, DB])
def test_a_new_file_runs_and_is_its_owners(path, table):
    assert (
        save_as_file(path, JOIN, table, {})
        == f"saved as {path}; later: tls-tunnel client -c {path}"
    )
    config = load(path)
    assert (config.server_addr, config.server_port) == (("tunnel.example.com",), 443)
    assert (config.auth_key, config.pin) == (JOIN.key, (JOIN.pin,))
    assert (*config.proxies, *config.visitors) == (table,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_keeps_every_byte(path):
    save_as_file(path, JOIN, WEB, {})
    path.chmod(0o640)
    before = "# mine\n" + path.read_text()
    path.write_text(before)
    for table, header in ((SSH, "[[proxies]]"), (DB, "[[visitors]]")):
        assert save_as_file(path, JOIN, table, {}).startswith(f"added to {path}; later: ")
        assert path.read_text().startswith(f"{before}\n{header}\n")
        before = path.read_text()
    assert load(path).proxies == (WEB, SSH)
    assert load(path).visitors == (DB,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def state(path):
    """What a file is; not when it was last read."""
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize("table", [WEB, DB])
def test_the_same_line_again_changes_nothing(path, table):
    save_as_file(path, JOIN, table, {})
    before = state(path)
    assert save_as_file(path, JOIN, table, {}).startswith(f"{path} says so already; later: ")
    assert state(path) == before


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (attrs.evolve(JOIN, host="other.example.com"), "leads to another server"),
        (attrs.evolve(JOIN, port=444), "leads to another server"),
        (attrs.evolve(JOIN, key=generate_key(bytes(32))), "has another key"),
        (attrs.evolve(JOIN, pin="sha256:" + "cd" * 32), "has another pin"),
    ],
)
def test_a_file_for_another_server_is_left_alone(path, join, message):
    save_as_file(path, JOIN, WEB, {})
    before = path.read_text()
    with pytest.raises(ConfigError, match=f"{path}: this file {message}") as caught:
        save_as_file(path, join, SSH, {})
    assert path.read_text() == before
    assert join.key not in str(caught.value)


def test_a_key_in_a_file_of_its_own_and_a_list_of_servers(path, tmp_path):
    key_file = tmp_path / "auth.key"
    key_file.touch(0o600)
    key_file.write_text(JOIN.key)
    servers = f'["other.example", "{JOIN.host}"]'
    path.write_text(
        f'[client]\nserver_addr = {servers}\nserver_port = 443\nauth_key_file = "auth.key"\n'
    )
    save_as_file(path, JOIN, WEB, {})
    assert load(path).proxies == (WEB,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (attrs.evolve(WEB, local_port=1), "there is a proxy 'web' already"),
        (attrs.evolve(SSH, publish_port=8080), "the same publish_addr and publish_port"),
        (attrs.evolve(DB, name="other"), "the same bind_addr and bind_port"),
    ],
)
def test_what_would_not_fit_leaves_the_file_alone(path, table, message):
    save_as_file(path, JOIN, WEB, {})
    save_as_file(path, JOIN, DB, {})
    before = path.read_text()
    with pytest.raises(ConfigError, match=message):
        save_as_file(path, JOIN, table, {})
    assert path.read_text() == before


def test_a_file_with_faults_or_of_a_server_is_left_alone(path):
    for text in ("[client]\nserver_adr = 'x'\n", "[server]\n", "\x00"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            save_as_file(path, JOIN, WEB, {})
        assert path.read_text() == text


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(StoreError, match="check that the directory exists"):
        save_as_file(tmp_path / "none" / "client.toml", JOIN, WEB, {})
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match="there is no file"):
        save_as_file(tmp_path / "link", JOIN, WEB, {})
