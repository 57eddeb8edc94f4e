"""Values that every layer shares: addresses, names, port ranges, and the fixed lists of codes."""

from __future__ import annotations

import enum
import ipaddress
import unicodedata
from collections.abc import Iterable
from typing import Final, TypeAlias

import attrs

from tunnel import limits

#: The log level of single frames, below debug.
TRACE: Final = 5

#: What `ipaddress.ip_network` makes.
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
"""The address that means every address of the machine, IPv4 and IPv6."""


@attrs.frozen(order=True)
class Address:
    """A numeric address, or a name, and a port; `str()` brackets IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


#: Characters that would change how a log line or a table is read: control, format (which has the
#: bidirectional overrides), surrogate, unassigned, line and paragraph separators.
_NOT_IN_NAMES: Final = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a client or proxy, for the end of a sentence; or None.

    Names are shown in logs, tables and pages as they are. Letters of any script may be in them;
    what could hide or move text may not, and of two spellings that look alike only NFC is taken.
    """
    if not 0 < len(name) <= limits.MAX_NAME_LENGTH:
        return f"must have 1 to {limits.MAX_NAME_LENGTH} characters"
    if name != name.strip():
        return "begins or ends with a space"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in Unicode's normal form NFC"
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in name):
        return "has a control or invisible character"
    return None


def unmap(host: str) -> str:
    """An IPv4-mapped IPv6 address as plain IPv4; anything else, and scope ids, untouched."""
    if ":" not in host:
        return host
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return host if mapped is None else str(mapped)


def within(host: str, networks: Iterable[Network]) -> bool:
    """True if an address is in one of the networks; a name is in none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # (An address of the other family is in no network.)
    return any(address in network for network in networks)


@attrs.frozen
class PortRange:
    """The ports `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class RefusalCode(enum.StrEnum):
    """Why a server refuses a whole client; `docs/protocol.md`, "refused", explains each.

    The reserved codes are never sent by this version, and understood: another may send them.
    """

    VERSION = "version"
    BINDING = "binding"
    AUTHENTICATION = "authentication"
    PROTOCOL = "protocol"
    BUSY = "busy"  # reserved
    ALREADY_CONNECTED = "already_connected"
    LIMIT = "limit"  # reserved
    STOPPING = "stopping"  # reserved
    INTERNAL = "internal"


class RejectionCode(enum.StrEnum):
    """Why a server does not publish one proxy; the client's other proxies go on.

    The reserved code is never sent by this version, and understood.
    """

    NOT_ALLOWED = "not_allowed"
    RESERVED = "reserved"
    DUPLICATE = "duplicate"
    IN_USE = "in_use"
    LIMIT = "limit"
    PERMISSION = "permission"
    BAD_ADDRESS = "bad_address"
    UNSUPPORTED = "unsupported"  # reserved
    INTERNAL = "internal"

    @property
    def passes(self) -> bool:
        """True if the server keeps trying, since the reason may pass by itself.

        The port is in use, the client has as many proxies as it may have, or the system had none
        of something, such as descriptors.
        """
        return self in (RejectionCode.IN_USE, RejectionCode.LIMIT, RejectionCode.INTERNAL)


class ResetCode(enum.IntEnum):
    """Why a stream was reset, carried in the RST frame between our own ends (0: not said).

    Both sides log the name, so that "connection reset" has a reason. The reserved code is never
    sent by this version, and understood.
    """

    NONE = 0
    CANCELLED = 1
    VISITOR_RESET = 2
    LOCAL_RESET = 3
    LOCAL_REFUSED = 4
    LOCAL_TIMEOUT = 5
    LOCAL_UNREACHABLE = 6
    UNKNOWN_PROXY = 7
    BAD_PREAMBLE = 8
    LIMIT = 9
    STOPPING = 10  # reserved
    LINK_LOST = 11
    NOT_ALLOWED = 12
    AWAY = 13
    WRONG_SECRET = 14
    UNPROVED = 15

    @property
    def text(self) -> str:
        """The code as a log line says it."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def of(cls, value: int) -> ResetCode:
        """The code for a number from the wire; `NONE` for one that is not known here."""
        try:
            return cls(value)
        except ValueError:
            return cls.NONE
