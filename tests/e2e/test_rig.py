"""What the processes of the other tests are started with."""

from __future__ import annotations

import pytest

from tests.e2e.rig import OWN, command_of


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_command_is_this_trees_unless_another_is_named(monkeypatch, role):
    monkeypatch.delenv(f"{role.upper()}_COMMAND", raising=False)
    assert command_of(role) == OWN
    monkeypatch.setenv(f"{role.upper()}_COMMAND", "'/a path/bin/python' -P -m tunnel")
    assert command_of(role) == ("/a path/bin/python", "-P", "-m", "tunnel")
