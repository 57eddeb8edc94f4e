from __future__ import annotations

import logging

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tunnel._version import __version__
from tunnel.cli.options import Form, Settings, command, parse_address, start_logging
from tunnel.errors import ConfigError, Fault, StoreError
from tunnel.model import TRACE, Address

app = typer.Typer(rich_markup_mode=None)


@app.callback()
@command
def group():
    pass


@app.command()
@command
def show(ctx: typer.Context, size: int = 3):
    print(f"{size} {ctx.obj.verbosity} {ctx.obj.quiet} {ctx.obj.log_format}")


@app.command()
@command
def fail(how: str):
    if how == "config":
        raise ConfigError("a.toml", [Fault(1, "x", "bad"), Fault(None, None, "worse")])
    if how == "bug":
        raise KeyError("bug")
    raise StoreError("no file x")


def run(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["show"], "3 0 False None"),
        (["-v", "show"], "3 1 False None"),
        (["show", "-v", "--size", "5"], "5 1 False None"),
        (["-v", "show", "-v"], "3 2 False None"),
        (["show", "-vv"], "3 2 False None"),
        (["--verbose", "show", "--quiet"], "3 1 True None"),
        (["-q", "show"], "3 0 True None"),
        (["--log-format", "json", "show"], "3 0 False json"),
        (["show", "--log-format=json"], "3 0 False json"),
        (["--log-format", "json", "show", "--log-format", "text"], "3 0 False text"),
    ],
)
def test_global_options_stand_before_or_after_the_command(arguments, shown):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{shown}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["show", "--version"], ["fail", "--version"]])
def test_version_goes_before_everything(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"tls-tunnel {__version__}")


@pytest.mark.parametrize("arguments", [["--log-format", "xml", "show"], ["show", "-x"], ["nope"]])
def test_wrong_usage_is_2(arguments):
    assert run(*arguments).exit_code == 2


def test_help_of_a_command_has_the_global_options():
    shown = run("show", "--help").stdout
    for option in ("--size", "-v", "-q", "--log-format", "--version", "--help"):
        assert option in shown


def test_an_error_is_for_people():
    result = run("fail", "store")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "error: no file x\n"


def test_all_faults_are_shown():
    result = run("fail", "config")
    assert result.exit_code == 1
    assert result.stderr == "error: a.toml:1: x: bad\nerror: a.toml: worse\n"


def test_a_bug_is_a_traceback():
    assert isinstance(run("fail", "bug").exception, KeyError)


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        (Settings(), logging.INFO),
        (Settings(1), logging.DEBUG),
        (Settings(2), TRACE),
        (Settings(9), TRACE),
        (Settings(2, quiet=True), logging.WARNING),
    ],
)
def test_level(settings, level):
    assert settings.level == level


@pytest.fixture
def restore_logging():
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.mark.parametrize(
    ("option", "variable", "is_json"),
    [
        (None, None, False),
        (None, "", False),
        (None, "json", True),
        (Form.TEXT, "json", False),
        (Form.JSON, "nonsense", True),
    ],
)
@pytest.mark.usefixtures("restore_logging")
def test_log_format(capsys, monkeypatch, option, variable, is_json):
    if variable is None:
        monkeypatch.delenv("TLS_TUNNEL_LOG_FORMAT", raising=False)
    else:
        monkeypatch.setenv("TLS_TUNNEL_LOG_FORMAT", variable)
    start_logging(Settings(log_format=option))
    logging.getLogger("tunnel.x").info("Connected")
    assert capsys.readouterr().err.startswith("{") == is_json


def test_an_unknown_log_format_in_the_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("TLS_TUNNEL_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError, match="TLS_TUNNEL_LOG_FORMAT: must be text or json, not 'xml'"):
        start_logging(Settings())


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.org", "example.org", 8443),
        ("example.org:1", "example.org", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("[2001:db8::1]", "2001:db8::1", 8443),
        ("2001:db8::1", "2001:db8::1", 8443),
        ("::", "::", 8443),
        ("隧道.example", "隧道.example", 8443),
    ],
)
def test_addresses(text, host, port):
    assert parse_address(text, 8443) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:99999999999",
        "a:-1",
        "a:x",
        "a:1:2",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[]",
        "[a]:1",
        "::g",
        "a b",
        "a\n",
        "https://a",
        "a/b",
        "a:١",
    ],
)
def test_bad_addresses(text):
    with pytest.raises(typer.BadParameter):
        parse_address(text, 8443)


@given(st.text())
def test_any_text_is_an_address_or_a_wrong_usage(text):
    try:
        found = parse_address(text, 8443)
    except typer.BadParameter:
        return
    assert parse_address(str(found), 8443) == found
