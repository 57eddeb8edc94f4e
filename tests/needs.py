"""What tests need of the machine: without it they are skipped, and fail where REQUIRE_ALL=1.

A program, a network, a browser may be missing on the machine of whoever changes a line; CI has
everything (`make programs`), and there a test that does not run is a fault. The hooks below turn
every skip into a failure then, however it came about: a mark, `pytest.skip` or
`pytest.importorskip`. tests/conftest.py has them for all tests.
"""

from __future__ import annotations

import os
import shutil
import socket

import pytest


def needs(program: str, package: str | None = None) -> pytest.MarkDecorator:
    """A mark for tests that run a program; the package is Debian's, if its name is another."""
    reason = f"{program} is not installed (Debian: apt install {package or program})"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def can_listen(family: int, host: str) -> bool:
    """True if this machine has that address."""
    try:
        with socket.socket(family) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(
    not can_listen(socket.AF_INET6, "::1"), reason="there is no IPv6: ::1 cannot be bound"
)


def everything_required() -> bool:
    """True if a test must not be skipped."""
    return os.environ.get("REQUIRE_ALL", "") not in ("", "0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test, or a fixture of it, was skipped."""
    return _required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A whole file was skipped."""
    return _required((yield))


def _required(report):
    # (A failure that is expected counts as skipped, too.)
    if report.skipped and everything_required() and not hasattr(report, "wasxfail"):
        _file, _line, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL is set, so this must not be skipped: {reason}"
    return report
