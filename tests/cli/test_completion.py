"""What a shell is told when somebody presses Tab: commands, options, and that a file may come."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tunnel.cli import main


def asked_by(shell, *words):
    """The environment in which a shell with these words, the last one unfinished, asks."""
    line = " ".join(("tls-tunnel", *words))
    return {
        "_TLS_TUNNEL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


@pytest.fixture
def complete(monkeypatch, capsys):
    """What the program answers to a shell that has these words."""

    def complete(shell, *words):
        monkeypatch.setattr(sys, "argv", ["tls-tunnel"])
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            for name, value in asked_by(shell, *words).items():
                patch.setenv(name, value)
            main()
        return capsys.readouterr().out

    return complete


SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_process_answers(shell, complete):
    environment = os.environ | asked_by(shell, "c")
    command = [sys.executable, "-c", "from tunnel.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert "Traceback" not in done.stderr
    assert done.stdout == complete(shell, "c")


@pytest.mark.parametrize("shell", SHELLS)
def test_commands(shell, complete):
    found = complete(shell, "c")
    assert all(name in found for name in ("client", "check", "cert"))
    assert "keygen" not in found


@pytest.mark.parametrize("shell", SHELLS)
def test_options(shell, complete):
    found = complete(shell, "register", "--")
    assert all(name in found for name in ("--config", "--print", "--no-start"))


@pytest.mark.parametrize("shell", SHELLS)
def test_values(shell, complete):
    found = complete(shell, "template", "")
    assert "server" in found
    assert "client" in found


def test_files_are_left_to_the_shell(complete):
    assert complete("bash", "check", "-c", "").strip() == ""
    assert complete("zsh", "check", "-c", "").strip() == "_files"
    assert complete("fish", "check", "-c", "").strip() == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_of_one_line(shell, complete):
    assert "expose" in complete(shell, "e")
    found = complete(shell, "expose", "--")
    assert all(name in found for name in ("--join-file", "--port", "--qr", "--save"))
    assert all(name in complete(shell, "server", "--") for name in ("--quick", "--public-addr"))


@pytest.mark.parametrize("words", [("visit", "--save", ""), ("bench", "--join-file", "")])
def test_their_files_are_left_to_the_shell_as_well(words, complete):
    assert complete("zsh", *words).strip() == "_files"
