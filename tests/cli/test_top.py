from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tunnel.cli.app import app
from tunnel.cli.commands.top import source_of
from tunnel.errors import TunnelError
from tunnel.ops.topsource import Source

SERVER = '[server]\nauth_key = "correct-horse-battery-staple"\n'
CLIENT = (
    '[client]\nauth_key = "correct-horse-battery-staple"\nserver_addr = "x"\n{}\n'
    '[[proxies]]\nname = "web"\npublish_port = 1\nlocal_port = 1\n'
)


def run(*arguments):
    return CliRunner().invoke(app, ["top", *arguments])


def configured(tmp_path, text):
    path = tmp_path / "it.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("keys", "url"),
    [
        ("stats_port = 9090", "http://127.0.0.1:9090"),
        ('stats_port = 9090\nstats_addr = "192.0.2.1"', "http://192.0.2.1:9090"),
        ('stats_port = 9090\nstats_addr = "::1"', "http://[::1]:9090"),
        ('stats_port = 9090\nstats_addr = "*"', "http://127.0.0.1:9090"),
        ('stats_port = 9090\nstats_addr = "::"', "http://[::1]:9090"),
    ],
)
def test_the_file_says_where(tmp_path, keys, url):
    assert source_of(configured(tmp_path, SERVER + keys), None) == Source(url)
    assert source_of(configured(tmp_path, CLIENT.format(keys)), None) == Source(url)


def test_the_file_has_the_token(tmp_path):
    token = "a-long-random-text"
    text = f'{SERVER}stats_port = 9090\nstats_token = "{token}"\n'
    assert source_of(configured(tmp_path, text), None).token == token
    assert source_of(configured(tmp_path, text), "other").token == "other"
    (tmp_path / "token").write_text(token + "\n")
    text = f'{SERVER}stats_port = 9090\nstats_token_file = "token"\n'
    assert source_of(configured(tmp_path, text), None).token == token


@pytest.mark.parametrize(
    ("keys", "reason"), [("", "stats_port is not set"), ("stats_port = 0", "name it with -u")]
)
def test_a_file_that_does_not_say_where(tmp_path, keys, reason):
    with pytest.raises(TunnelError, match=reason):
        source_of(configured(tmp_path, SERVER + keys), None)


@pytest.mark.parametrize("arguments", [[], ["-c", "x.toml", "-u", "http://x"], ["-i", "0"]])
def test_wrong_usage(arguments):
    assert run(*arguments).exit_code == 2


def test_without_a_terminal_there_is_the_address_for_scripts(capfd):
    found = run("-u", "http://127.0.0.1:1/")
    assert found.exit_code == 1
    assert "for a script there is http://127.0.0.1:1/status" in found.output


@pytest.mark.parametrize("content", ["", "two words", "\x1b"])
def test_a_file_without_a_token(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    found = run("-u", "http://127.0.0.1:1", "--token-file", str(path))
    assert found.exit_code == 1
    assert "has no token in it" in found.output


def test_no_other_command_loads_rich():
    code = (
        "import sys, tunnel.cli.running, tunnel.cli.loading, tunnel.cli.options, tunnel.api;"
        "print('rich' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
