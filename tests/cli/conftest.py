from __future__ import annotations

import logging

import pytest
from typer.testing import CliRunner

from tunnel.cli.app import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty directory; logging is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    for variable in ("AUTH_KEY", "JOIN", "LOG_FORMAT"):
        monkeypatch.delenv(f"TLS_TUNNEL_{variable}", raising=False)
    for variable in ("JOURNAL_STREAM", "STATE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate

    def run(*arguments, exit_code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    yield run
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])
