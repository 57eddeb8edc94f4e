from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from tunnel.ops.descriptors import raise_descriptor_limit

INFINITE = -1


class System:
    """A `resource` module of a system that is not this one."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = INFINITE

    def __init__(self, soft, hard, error=None):
        self.soft, self.hard = soft, hard
        self.error = error
        self.asked = 0

    def getrlimit(self, resource):
        assert resource == self.RLIMIT_NOFILE
        return self.soft, self.hard

    def setrlimit(self, resource, limits):
        assert resource == self.RLIMIT_NOFILE
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.soft, self.hard = limits


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.DEBUG)
    return lambda: [
        (record.levelname, record.getMessage(), getattr(record, "old", None))
        for record in caplog.records
    ]


@pytest.mark.parametrize(
    ("soft", "hard", "new"),
    [
        (1024, 20_000, 20_000),
        (256, 1 << 20, 1 << 20),
        (256, INFINITE, 10_240),  # macOS: more is refused
    ],
)
def test_raised_to_the_hard_limit(said, soft, hard, new):
    system = System(soft, hard)
    raise_descriptor_limit(system)
    assert (system.soft, system.hard) == (new, hard)
    assert said() == [("DEBUG", "Descriptor limit raised", soft)]


@pytest.mark.parametrize(("soft", "hard"), [(4096, 4096), (20_000, INFINITE), (INFINITE, INFINITE)])
def test_one_that_is_high_enough_is_left_alone(said, soft, hard):
    system = System(soft, hard)
    raise_descriptor_limit(system)
    assert system.asked == 0
    assert said() == []


@pytest.mark.parametrize("error", [PermissionError(1, "not here"), ValueError("not so many")])
def test_a_system_that_refuses_is_no_error(said, error):
    system = System(256, 4096, error)
    raise_descriptor_limit(system)
    assert (system.asked, system.soft) == (1, 256)
    assert said() == [("DEBUG", "Descriptor limit kept", None)]


def test_a_system_without_limits(monkeypatch, said):
    monkeypatch.setitem(sys.modules, "resource", None)  # the import fails, as on Windows
    raise_descriptor_limit()
    assert said() == []


LOW = """
import resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
{}
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("from tunnel.ops import descriptors; descriptors.raise_descriptor_limit()", True),
        ("import tunnel; tunnel.run_server, tunnel.run_client; import tunnel.cli.running", False),
    ],
    ids=["asked for", "only imported"],
)
def test_in_a_process_of_its_own(code, raised):
    done = subprocess.run(
        [sys.executable, "-c", LOW.format(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{raised}\n"
