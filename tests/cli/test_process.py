"""The commands as processes: what a shell sees, and how long it waits for it."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from tunnel._version import __version__
from tunnel.yamux import COMPILED

HEAVY = {"trio", "cryptography", "structlog", "tomlkit", "rich", "segno", "ssl", "asyncio"}
PROXY = "[[proxies]]\nname = 'web'\npublish_port = 0\nlocal_port = 1\n"
VERSION = f"tls-tunnel {__version__}" + COMPILED * " (engine compiled)" + "\n"


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=30, **options
    )


def test_python_m_tunnel_is_tls_tunnel():
    result = run("-m", "tunnel", "--version")
    assert (result.returncode, result.stdout) == (0, VERSION)


def test_keygen():
    result = run("-m", "tunnel", "keygen")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ttk1_")


def test_init_then_check(tmp_path):
    assert run("-m", "tunnel", "init", tmp_path, "--server", "example.org").returncode == 0
    for kind in ("server", "client"):
        result = run("-m", "tunnel", "check", "-c", tmp_path / f"{kind}.toml", "--format", "json")
        assert result.returncode == 0
        assert json.loads(result.stdout) == {
            "valid": True,
            "config_type": kind,
            "errors": [],
            "warnings": [],
        }


def test_wrong_usage_is_2_and_help_is_0():
    assert run("-m", "tunnel", "nonsense").returncode == 2
    assert run("-m", "tunnel", "--help").returncode == 0


@pytest.mark.parametrize(
    "code", ["import tunnel", "import tunnel.cli", "from tunnel.cli import main; main()"]
)
def test_asking_for_the_version_loads_nothing_heavy(code):
    watch = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules)))\n{code}"
    result = run("-c", watch, "--version")
    assert result.returncode == 0, result.stderr
    loaded = set(eval(result.stdout.splitlines()[-1]))
    assert not loaded & HEAVY


#: What the signatures of commands are made of.
LIGHT = {"tunnel", "tunnel._version", "tunnel.errors", "tunnel.limits", "tunnel.model"}


@pytest.mark.parametrize("arguments", [["--help"], ["server", "--help"], ["bench", "--help"]])
def test_asking_for_help_loads_commands_and_nothing_that_they_do(arguments):
    code = "from tunnel.cli import main; main()"
    watch = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules)))\n{code}"
    result = run("-c", watch, *arguments)
    assert result.returncode == 0, result.stderr
    loaded = set(eval(result.stdout.splitlines()[-1]))
    ours = {name for name in loaded if name.partition(".")[0] == "tunnel"}
    rooms = {"tunnel.cli", "tunnel.cli.app", "tunnel.cli.options"}
    assert {name for name in ours - rooms if not name.startswith("tunnel.cli.commands")} <= LIGHT
    assert not {"trio", "cryptography", "structlog", "tomlkit", "asyncio"} & loaded


@pytest.mark.parametrize("kind", ["server", "client"])
def test_each_program_has_a_name_of_its_own(tmp_path, kind):
    code = f"from tunnel.cli import {kind}_main; {kind}_main()"
    shown = run("-c", code, "--help")
    assert shown.stdout.startswith(f"Usage: tls-tunnel-{kind} [OPTIONS]")
    assert run("-c", code, "--version").stdout == VERSION
    missing = run("-c", code, "-v", cwd=tmp_path)
    assert missing.returncode == 1
    assert f"there is no file {kind}.toml" in missing.stderr


def test_a_reader_that_goes_is_no_traceback():
    command = f"{shlex.quote(sys.executable)} -m tunnel template server | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr


@contextlib.contextmanager
def started(directory, kind, keys, event, more=""):
    """A running program, and the line of its log that says that it runs."""
    path = directory / f"{kind}.toml"
    path.write_text(f'[{kind}]\nauth_key = "{"k" * 20}"\nstate_dir = "."\n{keys}\n{more}')
    path.chmod(0o600)
    command = [sys.executable, "-m", "tunnel", kind, "-c", path, "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if (shown := json.loads(line))["event"] == event:
                    yield process, shown
                    break
        finally:
            process.kill()


def stop(process, number):
    """Send a signal; the exit status and the last line of the log."""
    process.send_signal(number)
    *_, last = process.stderr
    return process.wait(30), json.loads(last)["event"]


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_cleanly(tmp_path, number):
    keys = "bind_addr = '127.0.0.1'\nbind_port = 0"
    with started(tmp_path, "server", keys, "Server listening") as (process, _):
        assert stop(process, number) == (0, "Server stopped")


@pytest.mark.e2e
def test_a_client_without_a_server_stops_cleanly(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        keys = f"server_addr = '127.0.0.1'\nserver_port = {nobody.getsockname()[1]}"
        with started(tmp_path, "client", keys, "Connecting", PROXY) as (process, _):
            assert stop(process, signal.SIGTERM) == (0, "Client stopped")


@pytest.mark.e2e
def test_a_server_whose_port_is_taken_is_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = tmp_path / "server.toml"
        path.write_text(
            f'[server]\nauth_key = "{"k" * 20}"\nstate_dir = "."\n'
            f'bind_addr = "127.0.0.1"\nbind_port = {port}\n'
        )
        path.chmod(0o600)
        result = run("-m", "tunnel", "server", "-c", path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: could not start: ")
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr
