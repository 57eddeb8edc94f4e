"""The limit on open descriptors: every connection takes one, on both sides of a tunnel.

Systems start a program with a low *soft* limit (1024 on most), because `select` cannot handle
descriptors above it, and leave it to programs without `select` to raise that to the *hard* one.
"""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)

#: What macOS lets a process have where its hard limit is none (OPEN_MAX); it refuses more.
_OPEN_MAX = 10_240


class Resource(Protocol):
    """What is used of the standard library's `resource`."""

    RLIMIT_NOFILE: int
    RLIM_INFINITY: int

    def getrlimit(self, resource: int, /) -> tuple[int, int]:
        """The soft and the hard limit."""

    def setrlimit(self, resource: int, limits: tuple[int, int], /) -> None:
        """Set both."""


def raise_descriptor_limit(resource: Resource | None = None) -> None:
    """Raise this process's soft limit on open descriptors to the hard one.

    It is for programs: a library must not change the limits of the program that uses it, whose
    children inherit them. Where the system refuses, the limit stays as it was.

    Args:
      resource: the module of that name, if not the system's. Windows has none, and no limit.
    """
    resource = resource or _system()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = max(soft, _OPEN_MAX) if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft == goal:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    except (OSError, ValueError) as error:
        logger.debug("Descriptor limit kept", extra={"limit": soft, "reason": str(error)})
    else:
        logger.debug("Descriptor limit raised", extra={"old": soft, "new": goal})


def _system() -> Resource | None:
    try:
        import resource
    except ImportError:
        return None
    return resource
