"""`tls-tunnel proxy`: what becomes of the file."""

from __future__ import annotations

import json
import stat

import pytest

TEXT = (
    "# mine\n[client]\nserver_addr = 'x'\nauth_key = 'aaaaaaaaaaaaaaaaaaaa'\n"
    "\n# kept\n[[proxies]]\nname = 'web'\npublish_port = 80\nlocal_port = 3000\n"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_add_list_remove(run, file):
    shown = run("proxy", "add", "ssh", "--local", "22", "--port", "2222").stdout
    assert shown == (
        "added ssh to client.toml; for a client that runs with it: tls-tunnel reload "
        "-c client.toml\n"
    )
    assert file.read_text().startswith(TEXT)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert run("check", "-c", file).exit_code == 0
    assert run("proxy", "list").stdout == (
        "web  *:80 -> 127.0.0.1:3000\nssh  *:2222 -> 127.0.0.1:22\n"
    )
    run("proxy", "remove", "ssh")
    assert file.read_text() == TEXT


def test_list_for_programs(run, file):
    assert json.loads(run("proxy", "list", "-c", file, "--format", "json").stdout) == [
        {
            "name": "web",
            "publish_addr": "*",
            "publish_port": 80,
            "local_addr": "127.0.0.1",
            "local_port": 3000,
        }
    ]


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("3001", "127.0.0.1:3001"),
        ("db.example:5432", "db.example:5432"),
        ("[::1]:22", "::1:22"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_targets(run, file, target, shown):
    run("proxy", "add", "new", "--local", target)
    assert run("proxy", "list").stdout.splitlines()[1] == f"new  *:any -> {shown}"


def test_a_client_that_watches_needs_no_reload(run, file):
    file.write_text(TEXT.replace("[client]", "[client]\nwatch = true"))
    shown = run("proxy", "add", "ssh", "--local", "22").stdout
    assert shown.endswith("a client that runs with this file does so at once\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "web", "--local", "1"), "client.toml:8: proxies: there is a proxy 'web' already"),
        (("add", "x", "--local", "99999"), "local_port: expected a port"),
        (("add", "x", "--local", "nonsense"), "local_port: expected a port"),
        (("add", "x", "--local", "1", "-c", "none.toml"), "there is no file none.toml"),
        (("remove", "x"), "there is no proxy 'x'; there is web"),
        (("remove", "web"), "there is nothing to do"),
        (("list", "-c", "none.toml"), "there is no file none.toml"),
    ],
)
def test_what_is_refused_leaves_the_file_alone(run, file, arguments, message):
    assert message in run("proxy", *arguments, exit_code=1).stderr
    assert file.read_text() == TEXT


def test_a_link_stays_a_link(run, file, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    run("proxy", "add", "ssh", "--local", "22", "-c", link)
    assert link.is_symlink()
    assert "ssh" in file.read_text()


def test_a_file_of_somebody_else_is_left_alone(run, file, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert (
        "belongs to another user" in run("proxy", "add", "ssh", "--local", "22", exit_code=1).stderr
    )
    assert file.read_text() == TEXT
