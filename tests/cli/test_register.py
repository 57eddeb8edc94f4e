"""Services: what a unit is made of, and that nothing is overwritten by surprise."""

from __future__ import annotations

import grp
import os
import shlex
from pathlib import Path

import pytest

from tunnel.cli import service
from tunnel.cli.commands.register import Manager, install, manager, remove
from tunnel.cli.service import closed_directories, describe
from tunnel.errors import ConfigError, TunnelError
from tunnel.ops.units import edited, unit_text

KEY = "a key of sixteen characters, or more"
SERVER = f'[server]\nauth_key = "{KEY}"\n'
CLIENT = f"""
[client]
server_addr = "localhost"
auth_key = "{KEY}"
[[proxies]]
name = "web"
publish_port = 8080
"""
LOCAL = "local_port = 80\n"


@pytest.fixture
def place(tmp_path):
    """A directory that a service could enter, were it not below pytest's."""
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


def written(directory, text, name="server.toml"):
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)
    return path


# --- What it is made of -----------------------------------------------------------------------


def test_a_server(place):
    config = written(place, SERVER + "shutdown_grace = 7\n")
    found = describe("server", config, name="mine")
    assert found.command[-3:] == ("server", "-c", str(config))
    assert os.path.isabs(found.command[0])
    assert (found.config, found.files, found.grace) == (config, (), 7)


def test_the_key_is_not_in_the_unit(place):
    config = written(place, SERVER)
    assert KEY not in unit_text(describe("server", config, name="mine"))


def test_files_are_those_that_the_configuration_names(place):
    for name in ("cert.pem", "key.pem", "one.key"):
        written(place, "x", name)
    config = written(
        place,
        f'[server]\ncert_path = "cert.pem"\nkey_path = "{place}/key.pem"\n'
        '[[server.clients]]\nname = "one"\nauth_key_file = "one.key"\n',
    )
    found = describe("server", config, name="mine")
    assert found.files == tuple(place / name for name in ("cert.pem", "key.pem", "one.key"))


def test_a_file_that_is_missing(place):
    config = written(place, '[server]\nauth_key_file = "no.key"\n')
    with pytest.raises(TunnelError, match=r"names .*no\.key, and there is no such file"):
        describe("server", config, name="mine")


def test_a_faulty_configuration(place):
    with pytest.raises(ConfigError, match="bind_port"):
        describe("server", written(place, SERVER + 'bind_port = "x"\n'), name="mine")


def test_the_environment_counts_for_nothing(place, monkeypatch):
    monkeypatch.setenv("TLS_TUNNEL_AUTH_KEY", KEY)
    with pytest.raises(ConfigError, match="auth_key"):
        describe("server", written(place, "[server]\n"), name="mine")


def test_a_client_s_file_for_a_server(place):
    with pytest.raises(ConfigError, match="client's file"):
        describe("server", written(place, CLIENT + LOCAL), name="mine")


def test_state_belongs_where_the_service_can_write(place):
    config = written(place, SERVER + 'state_dir = "/srv/state"\n')
    with pytest.raises(TunnelError, match="/var/lib/mine"):
        describe("server", config, name="mine")
    assert describe("server", config, name="mine", own=True).own


@pytest.mark.parametrize(
    ("text", "low"),
    [
        (SERVER, True),  # allow_ports is every port
        (SERVER + 'allow_ports = ["1024-65535"]\n', False),
        (SERVER + 'allow_ports = ["8000"]\nbind_port = 443\n', True),
        (SERVER + 'allow_ports = ["8000"]\nbind_port = 0\n', False),
        (SERVER + 'allow_ports = ["8000"]\nstats_port = 80\n', True),
        (
            SERVER + 'allow_ports = ["8000"]\n[[server.clients]]\nname = "a"\n'
            f'auth_key = "another {KEY}"\nallow_ports = ["25"]\n',
            True,
        ),
        (CLIENT + LOCAL, False),
        (
            CLIENT + LOCAL + '[[visitors]]\nname = "b"\npublish_port = 5432\nbind_port = 80\n',
            True,
        ),
    ],
)
def test_low_ports(place, text, low):
    kind = "server" if text.startswith("[server") else "client"
    assert describe(kind, written(place, text), name="mine").low_ports is low


def test_sockets_that_the_service_would_not_see(place):
    config = written(place, CLIENT + 'local_addr = "unix:/home/me/app/web.sock"\n')
    assert describe("client", config, name="mine").sockets == (Path("/home/me/app"),)
    config = written(place, CLIENT + 'local_addr = "unix:/run/web.sock"\n')
    assert describe("client", config, name="mine").sockets == ()


def test_closed_directories(place, monkeypatch):
    monkeypatch.setattr(service, "_HOMES", ())
    place.parent.chmod(0o755)
    live, archive = place / "live", place / "archive"
    for directory in (live, archive):
        (directory / "x").mkdir(parents=True)
        directory.chmod(0o700)
    written(archive / "x", "key", "key1.pem")
    link = live / "x" / "key.pem"
    link.symlink_to("../../archive/x/key1.pem")
    place.chmod(0o755)
    # (What pytest makes is closed itself, which is the outermost then.)
    above = [each for each in place.parents if not each.stat().st_mode & 0o001]
    assert closed_directories([link]) == (above[-1:] or [live, archive])
    live.chmod(0o755)
    assert closed_directories([link]) == (above[-1:] or [archive])


def test_homes_are_not_looked_into(place, monkeypatch):
    monkeypatch.setattr(service, "_HOMES", (place,))
    (place / "closed").mkdir(mode=0o700)
    assert closed_directories([written(place / "closed", "", "a")]) == []


def test_a_group_must_be_able_to_read(place):
    config = written(place, SERVER)
    group = grp.getgrgid(config.stat().st_gid).gr_name
    with pytest.raises(TunnelError, match=rf"chgrp {group} .* && chmod 640 {config}"):
        describe("server", config, name="mine", group=group)
    with pytest.raises(TunnelError, match="groupadd --system no-such"):
        describe("server", config, name="mine", group="no-such")
    config.chmod(0o640)
    for directory in (place, *place.parents):
        if directory.stat().st_uid == os.getuid() and "pytest" in str(directory):
            directory.chmod(0o755)
    assert describe("server", config, name="mine", group=group).group == group


@pytest.mark.parametrize("name", ["", "../x", "a b"])
def test_bad_names(place, name):
    with pytest.raises(TunnelError, match="letter or digit"):
        describe("server", written(place, SERVER), name=name)


def test_a_path_that_a_unit_cannot_name(place):
    with pytest.raises(TunnelError, match="'%'"):
        describe("server", written(place, SERVER, "100%.toml"), name="mine")


# --- Register and unregister ------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path):
    """A manager whose `systemctl` writes down what it is told, and fails at what `refuses` says."""
    script = tmp_path / "systemctl"
    log, refuses = tmp_path / "told", tmp_path / "refuses"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {shlex.quote(str(log))}\n'
        f'case " $* " in *" $(cat {shlex.quote(str(refuses))}) "*) echo broken >&2; exit 1;; esac\n'
    )
    script.chmod(0o755)
    log.write_text("")
    refuses.write_text("nothing")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    return Manager(directory=tmp_path / "units", shipped=(shipped,), systemctl=str(script))


def told(where):
    return Path(where.systemctl).with_name("told").read_text().splitlines()


def refuse(where, word):
    Path(where.systemctl).with_name("refuses").write_text(word)


@pytest.fixture
def mine(place):
    return describe("server", written(place, SERVER), name="mine")


def test_it_is_written_enabled_and_started(mine, systemd):
    assert "started" in install(mine, systemd, start=True, force=False)
    path = systemd.path("mine")
    assert path.read_text() == unit_text(mine)
    assert path.stat().st_mode & 0o777 == 0o644
    assert told(systemd) == ["daemon-reload", "enable mine", "restart mine"]


def test_it_is_only_written(mine, systemd):
    assert "systemctl enable --now mine" in install(mine, systemd, start=False, force=False)
    assert told(systemd) == ["daemon-reload"]


def test_one_of_ours_is_replaced(mine, systemd, place):
    install(mine, systemd, start=False, force=False)
    written(place, SERVER + "shutdown_grace = 99\n")
    other = describe("server", mine.config, name="mine")
    install(other, systemd, start=False, force=False)
    assert systemd.path("mine").read_text() == unit_text(other)


@pytest.mark.parametrize("text", ["[Service]\nExecStart=/bin/other\n", None])
def test_one_of_somebody_else_is_not_replaced(mine, systemd, text):
    systemd.directory.mkdir()
    path = systemd.path("mine")
    text = text or unit_text(mine) + "# my change\n"
    path.write_text(text)
    with pytest.raises(TunnelError) as caught:
        install(mine, systemd, start=True, force=False)
    assert "was edited since" in str(caught.value)
    assert f"-{text.splitlines()[-1]}" in str(caught.value).splitlines()
    assert path.read_text() == text
    assert told(systemd) == []
    install(mine, systemd, start=True, force=True)
    assert not edited(path.read_text())


def test_one_of_a_package_is_not_hidden(mine, systemd):
    [directory] = systemd.shipped
    (directory / "mine.service").write_text("[Service]\n")
    with pytest.raises(TunnelError, match="another package"):
        install(mine, systemd, start=True, force=False)
    assert not systemd.path("mine").exists()


def test_it_says_where_to_look_if_the_service_does_not_start(mine, systemd):
    refuse(systemd, "restart")
    with pytest.raises(TunnelError, match="restart mine` failed: broken See: journalctl -u mine"):
        install(mine, systemd, start=True, force=False)


def test_it_is_removed(mine, systemd):
    install(mine, systemd, start=True, force=False)
    assert "its state is kept" in remove("mine", systemd, force=False)
    assert not systemd.path("mine").exists()
    assert told(systemd)[-2:] == ["disable --now mine", "daemon-reload"]


def test_one_of_somebody_else_is_not_removed(systemd):
    systemd.directory.mkdir()
    systemd.path("mine").write_text("[Service]\n")
    with pytest.raises(TunnelError, match="not written by"):
        remove("mine", systemd, force=False)
    assert told(systemd) == []
    remove("mine", systemd, force=True)
    assert not systemd.path("mine").exists()


def test_one_that_is_not_there(systemd):
    with pytest.raises(TunnelError, match="there is no unit"):
        remove("mine", systemd, force=True)
    with pytest.raises(TunnelError, match="letter or digit"):
        remove("../mine", systemd, force=True)


def test_what_cannot_be_stopped_is_not_removed(mine, systemd):
    install(mine, systemd, start=True, force=False)
    refuse(systemd, "disable")
    with pytest.raises(TunnelError, match="disable --now mine` failed: broken"):
        remove("mine", systemd, force=False)
    assert systemd.path("mine").exists()


def test_a_user_s_manager_is_told_as_such(mine, systemd):
    own = Manager(directory=systemd.directory, own=True, systemctl=systemd.systemctl)
    done = install(mine, own, start=True, force=False)
    assert "systemctl --user status mine" in done
    assert told(systemd)[0] == "--user daemon-reload"


def test_without_systemd(monkeypatch, tmp_path):
    monkeypatch.setattr("tunnel.cli.commands.register._BOOTED", tmp_path / "no")
    for own in (False, True):
        with pytest.raises(TunnelError, match=r"systemd does not run this machine.*--print"):
            manager(own=own, environ={})


# --- The commands -----------------------------------------------------------------------------


def test_print_changes_nothing(run, tmp_path):
    config = written(tmp_path, SERVER)
    before = sorted(tmp_path.rglob("*"))
    result = run("register", "server", "-c", config, "--print")
    assert not edited(result.stdout)
    assert "StateDirectory=tls-tunnel-server" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_and_a_user(run, tmp_path):
    config = written(tmp_path, CLIENT + LOCAL)
    text = run("register", "client", "-c", config, "-n", "office", "--user", "--print").stdout
    assert "WantedBy=default.target" in text
    assert "DynamicUser" not in text


def test_unregister_needs_systemd_too(run, monkeypatch, tmp_path):
    monkeypatch.setattr("tunnel.cli.commands.register._BOOTED", tmp_path / "no")
    result = run("unregister", "server", exit_code=1)
    assert "systemd does not run this machine" in result.stderr
