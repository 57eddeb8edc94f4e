"""`--save`: a file that says what the line says, and whatever else it said before."""

from __future__ import annotations

import stat

import attrs
import pytest

from tunnel.cli.saving import save
from tunnel.config import ProxyConfig, VisitorConfig, load_client
from tunnel.errors import ConfigError, StoreError
from tunnel.protocol.join import Join
from tunnel.protocol.keys import generate_key

JOIN = Join("tunnel.example.com", 443, generate_key(bytes(range(32))), "sha256:" + "ab" * 32)
WEB = ProxyConfig(name="web", publish_port=8080, local_port=3000)
SSH = ProxyConfig(name="ssh", publish_port=0, local_port=22)
DB = VisitorConfig(name="db", bind_port=5432)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "client.toml"


def load(path):
    return load_client(path.read_text(), source="c", environ={}).value


@pytest.mark.parametrize("table", [WEB, DB])
def test_a_new_file_runs_and_is_its_owners(path, table):
    assert save(path, JOIN, table, {}) == f"saved as {path}; later: tls-tunnel client -c {path}"
    config = load(path)
    assert (config.server_addr, config.server_port) == (("tunnel.example.com",), 443)
    assert (config.auth_key, config.pin) == (JOIN.key, (JOIN.pin,))
    assert (*config.proxies, *config.visitors) == (table,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_keeps_every_byte(path):
    save(path, JOIN, WEB, {})
    path.chmod(0o640)
    before = "# mine\n" + path.read_text()
    path.write_text(before)
    for table, header in ((SSH, "[[proxies]]"), (DB, "[[visitors]]")):
        assert save(path, JOIN, table, {}).startswith(f"added to {path}; later: ")
        assert path.read_text().startswith(f"{before}\n{header}\n")
        before = path.read_text()
    assert load(path).proxies == (WEB, SSH)
    assert load(path).visitors == (DB,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("table", [WEB, DB])
def test_the_same_line_again_changes_nothing(path, table):
    save(path, JOIN, table, {})
    before = path.stat()
    assert save(path, JOIN, table, {}).startswith(f"{path} says so already; later: ")
    assert path.stat() == before


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
    save(path, JOIN, WEB, {})
    before = path.read_text()
    with pytest.raises(ConfigError, match=f"{path}: this file {message}") as caught:
        save(path, join, SSH, {})
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
    save(path, JOIN, WEB, {})
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
    save(path, JOIN, WEB, {})
    save(path, JOIN, DB, {})
    before = path.read_text()
    with pytest.raises(ConfigError, match=message):
        save(path, JOIN, table, {})
    assert path.read_text() == before


def test_a_file_with_faults_or_of_a_server_is_left_alone(path):
    for text in ("[client]\nserver_adr = 'x'\n", "[server]\n", "\x00"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            save(path, JOIN, WEB, {})
        assert path.read_text() == text


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(StoreError, match="check that the directory exists"):
        save(tmp_path / "none" / "client.toml", JOIN, WEB, {})
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match="there is no file"):
        save(tmp_path / "link", JOIN, WEB, {})
