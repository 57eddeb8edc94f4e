"""The text of a systemd unit: a server or a client as a service that can do nothing else.

Pure: values go in, text comes out (systemd.unit(5), systemd.exec(5)). What is on this machine is
the caller's business.

A service of the system runs as a user that exists only while it runs (`DynamicUser=`) and may read
no secret file of root's. So the configuration and the files that it names are handed over as
credentials, and bound to their own paths: inside, everything is where it is outside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

#: Seconds from a failure to the next start, and between two signs of life.
RESTART_DELAY: Final = 5
WATCHDOG: Final = 30
#: Open descriptors; each visitor takes one.
DESCRIPTORS: Final = 1_048_576
#: Seconds that a stopping service gets beyond `shutdown_grace` before it is killed.
STOP_RESERVE: Final = 20

_MARK: Final = "# Written by tls-tunnel register; sha256:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: What a unit would read as something else than a part of a path, even in quotes. A space at the
#: end is cut off where a path is not quoted.
_UNSAFE: Final = re.compile(r"[^\w ./+,=~@-]| $")


@attrs.frozen(kw_only=True)
class Service:
    """What a unit is to run, and how much it is allowed.

    Args:
      name: of the unit, without `.service`.
      description: for people.
      command: an absolute path and its arguments; secrets have no place in it.
      config: the configuration, an absolute path.
      files: the other files that it must read, absolute paths.
      closed: directories on the way to those that others may not enter.
      sockets: directories of Unix sockets that it connects to.
      low_ports: whether it may listen on ports below 1024.
      grace: seconds that it takes to stop, at most.
      own: run by the manager of a user, as that user.
      group: may read the files, and the service joins it; None to hand copies over.
    """

    name: str
    description: str
    command: tuple[str, ...]
    config: Path
    files: tuple[Path, ...] = ()
    closed: tuple[Path, ...] = ()
    sockets: tuple[Path, ...] = ()
    low_ports: bool = False
    grace: float = 0
    own: bool = False
    group: str | None = None


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a unit (without `.service`), or None."""
    if _NAME.fullmatch(name):
        return None
    return "must have 1 to 64 of the characters A-Z a-z 0-9 _ . - and begin with a letter or digit"


def path_fault(path: Path) -> str | None:
    """Why a unit cannot name a path, or None."""
    if (found := _UNSAFE.search(str(path))) is None:
        return None
    return f"has the character {found[0]!r}, which means something else in a unit: rename it"


def unit_text(service: Service) -> str:
    """The whole file, with a first line by which `edited` knows it again.

    Every path must be without fault (see `path_fault`).
    """
    body = "\n".join(_body(service)) + "\n"
    return f"{_MARK}{_digest(body)}\n{body}"


def edited(text: str) -> bool:
    """True unless a text is what `unit_text` made, to the letter."""
    first, _, body = text.partition("\n")
    return first != _MARK + _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _quoted(word: object) -> str:
    """A word of a line that systemd parts at spaces (systemd.syntax(7), "Quoting")."""
    return f'"{word}"' if " " in str(word) else str(word)


def _body(service: Service) -> Iterator[str]:
    yield from _unit(service)
    yield ""
    yield "[Service]"
    yield from _process(service)
    if not service.own:
        yield from _identity(service)
        yield from _walls(service)
    yield from _SANDBOX
    yield ""
    yield "[Install]"
    yield f"WantedBy={'default' if service.own else 'multi-user'}.target"


def _unit(service: Service) -> Iterator[str]:
    yield "[Unit]"
    yield f"Description={service.description}"
    if not service.own:  # the manager of a user knows no such target
        yield "Wants=network-online.target"
        yield "After=network-online.target"


def _process(service: Service) -> Iterator[str]:
    yield "Type=notify"
    yield f"ExecStart={' '.join(map(_quoted, service.command))}"
    if service.own or service.group is not None:
        # (Credentials are copies of the start: there is nothing new to read in them.)
        yield "ExecReload=/bin/kill -HUP $MAINPID"
    yield "Restart=on-failure"
    yield f"RestartSec={RESTART_DELAY}"
    yield "RestartPreventExitStatus=2"
    yield f"WatchdogSec={WATCHDOG}"
    yield f"TimeoutStopSec={round(service.grace) + STOP_RESERVE}"
    # A user's manager can pass on what it has, and no more: the program raises its limit itself.
    if not service.own:
        yield f"LimitNOFILE={DESCRIPTORS}"
    yield "UMask=0077"


def _identity(service: Service) -> Iterator[str]:
    """Who it runs as, and what it may read and keep."""
    yield "DynamicUser=yes"
    yield f"StateDirectory={service.name}"
    yield "StateDirectoryMode=0700"
    if service.group is not None:
        yield f"SupplementaryGroups={service.group}"
    else:
        yield from _credentials(service)


def _credentials(service: Service) -> Iterator[str]:
    for directory in service.closed:
        yield f"TemporaryFileSystem={_quoted(f'{directory}:ro')}"
    for number, file in enumerate((service.config, *service.files)):
        yield f"LoadCredential=file{number}:{file}"  # up to the end of the line, as it is
        yield f"BindReadOnlyPaths=%d/file{number}:{_quoted(file)}"


def _walls(service: Service) -> Iterator[str]:
    """What only the system's manager can take away, and what it gives."""
    power = "CAP_NET_BIND_SERVICE" if service.low_ports else ""
    yield f"CapabilityBoundingSet={power}"
    yield f"AmbientCapabilities={power}"
    if not service.low_ports:
        yield "PrivateUsers=yes"  # a capability in there would not hold for ports out here
    # An empty directory where homes are, or one that can be looked at if the files are there.
    yield f"ProtectHome={'tmpfs' if service.group is None else 'read-only'}"
    for directory in service.sockets:
        yield f"BindReadOnlyPaths={_quoted(f'-{directory}')}"
    yield from _WALLS


_WALLS: Final = (
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "DevicePolicy=closed",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "PrivateIPC=yes",
    "RemoveIPC=yes",
)
_SANDBOX: Final = (
    "NoNewPrivileges=yes",
    "KeyringMode=private",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
)
