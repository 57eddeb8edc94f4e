"""The public names exist, are complete, and cost nothing until they are used."""

import subprocess
import sys

import pytest

import tunnel
from tunnel import api, config


def test_every_public_name_is_there():
    for name in tunnel.__all__:
        assert getattr(tunnel, name) is not None
    assert tunnel.run_server is api.run_server
    assert tunnel.ServerConfig is config.ServerConfig


def test_the_list_and_the_table_say_the_same():
    assert sorted(tunnel._HOME) == sorted(tunnel.__all__)


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tunnel.nothing


def test_using_one_name_loads_only_its_home():
    code = "import sys, tunnel; tunnel.TunnelError; print('trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
