"""The examples of the documentation run."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs/examples"


@pytest.fixture
def echo_server():
    command = [sys.executable, EXAMPLES / "yamux_echo.py", "serve", "127.0.0.1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.kill()


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_the_engine_by_itself_echoes(echo_server, size):
    question = random.Random(size).randbytes(size)
    command = [sys.executable, EXAMPLES / "yamux_echo.py", "ask", "127.0.0.1", echo_server]
    for _ in range(2):  # the server goes on after a connection
        done = subprocess.run(command, input=question, capture_output=True, timeout=30)
        assert done.stdout == question, done.stderr
