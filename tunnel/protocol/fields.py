"""Reading one value of a message: there, of the right type, within bounds, or a named error.

Every function takes the message and the key, and raises `RemoteProtocolError`, which names the key,
for anything else than what it describes.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Any, Final, TypeVar

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import ANY, Address, name_fault
from tunnel.protocol.framing import Json

_HEX: Final = re.compile(r"[0-9a-f]*\Z")
#: An IPv6 zone; Python's `ipaddress` takes anything for one, a line break too.
_ZONE: Final = re.compile(r"[0-9A-Za-z._-]{1,15}\Z")
#: An address and a prefix; Python's `ipaddress` takes zones, and masks such as /255.0.0.0, too.
_PREFIXED: Final = re.compile(r"[0-9A-Fa-f:.]+/[0-9]{1,3}\Z")
_MISSING: Final = object()
_Code = TypeVar("_Code", bound=StrEnum)


def _value(message: Json, key: str, kind: type, default: object) -> Any:  # noqa: ANN401
    value = message.get(key, default)
    if value is _MISSING:
        raise RemoteProtocolError(f"{key} is missing")
    # bool is an int in Python and a different thing in JSON.
    if type(value) is not kind:
        raise RemoteProtocolError(f"{key} is not {_KINDS[kind]}")
    return value


_KINDS: Final = {
    int: "a whole number",
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


def integer(message: Json, key: str, low: int, high: int, default: object = _MISSING) -> int:
    """A whole number from `low` to `high`."""
    value: int = _value(message, key, int, default)
    if not low <= value <= high:
        raise RemoteProtocolError(f"{key} is {value}, not within {low} to {high}")
    return value


def switch(message: Json, key: str) -> bool:
    """True or false; false if it is missing."""
    value: bool = _value(message, key, bool, False)
    return value


def seconds(message: Json, key: str) -> float | None:
    """A time of at most `limits.MAX_RETRY_AFTER`; longer ones are cut to it, odd ones ignored."""
    value = message.get(key)
    if type(value) is bool or not isinstance(value, int | float) or not value >= 0:
        return None
    return min(float(value), limits.MAX_RETRY_AFTER)


def text(message: Json, key: str, most: int, default: object = _MISSING) -> str:
    """A text of at most `most` characters."""
    value: str = _value(message, key, str, default)
    if len(value) > most:
        raise RemoteProtocolError(f"{key} has {len(value)} characters, more than {most}")
    return value


def token(message: Json, key: str, size: int) -> bytes:
    """`size` bytes as lowercase hexadecimal digits, not one more or less."""
    value = text(message, key, 2 * size)
    if len(value) != 2 * size or not _HEX.match(value):
        raise RemoteProtocolError(f"{key} is not {2 * size} lowercase hexadecimal digits")
    return bytes.fromhex(value)


def name(message: Json, key: str) -> str:
    """A name that can be shown anywhere as it is."""
    value: str = _value(message, key, str, _MISSING)
    fault = name_fault(value)
    if fault:
        raise RemoteProtocolError(f"{key} {fault}")
    return value


def names(message: Json, key: str, most: int) -> tuple[str, ...]:
    """A list of at most `most` names; none if it is missing."""
    values = texts(message, key, most, limits.MAX_NAME_LENGTH)
    for value in values:
        if fault := name_fault(value):
            raise RemoteProtocolError(f"{key} has a name that {fault}")
    return values


def host(message: Json, key: str) -> str:
    """A literal IPv4 or IPv6 address, or "*"; in its usual spelling, whatever it came in."""
    value = text(message, key, 64)
    if value == ANY:
        return ANY
    _, percent, zone = value.partition("%")
    try:
        if percent and not _ZONE.match(zone):
            raise ValueError(zone)
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise RemoteProtocolError(f"{key} is neither an IP address nor {ANY}") from None


def networks(message: Json, key: str) -> tuple[str, ...]:
    """A list of IPv4 and IPv6 networks, in their usual spelling; none if it is missing."""
    values = texts(message, key, limits.MAX_ALLOW_FROM, limits.MAX_NETWORK_LENGTH)
    try:
        return tuple(_network(value) for value in values)
    except ValueError:
        raise RemoteProtocolError(f"{key} has an entry that is no network") from None


def _network(value: str) -> str:
    if not _PREFIXED.match(value):
        raise ValueError(value)
    return str(ipaddress.ip_network(value))


def code(message: Json, kind: type[_Code], default: _Code) -> _Code:
    """The key `code`, from a fixed list; `default` for one that a later version may have added."""
    value = text(message, "code", 32)
    return kind(value) if value in kind.__members__.values() else default


def objects(message: Json, key: str, most: int, default: object = _MISSING) -> list[Json]:
    """A list of at most `most` objects."""
    values: list[Any] = _value(message, key, list, default)
    if len(values) > most:
        raise RemoteProtocolError(f"{key} has {len(values)} entries, more than {most}")
    if not all(type(value) is dict for value in values):
        raise RemoteProtocolError(f"{key} has an entry that is not an object")
    return values


def texts(message: Json, key: str, most: int, longest: int) -> tuple[str, ...]:
    """A list of at most `most` texts of at most `longest` characters; none if it is missing."""
    values: list[Any] = _value(message, key, list, [])
    if len(values) > most or not all(type(v) is str and len(v) <= longest for v in values):
        raise RemoteProtocolError(f"{key} is not a list of at most {most} short texts")
    return tuple(values)


def integers(message: Json, key: str, most: int, low: int, high: int) -> tuple[int, ...]:
    """A list of at most `most` whole numbers from `low` to `high`."""
    values: list[Any] = _value(message, key, list, _MISSING)
    if len(values) > most or not all(type(v) is int and low <= v <= high for v in values):
        raise RemoteProtocolError(f"{key} is not a list of at most {most} numbers to {high}")
    return tuple(values)


def address(message: Json) -> Address:
    """A literal address and a port."""
    return Address(host(message, "host"), integer(message, "port", 1, 65535))


def harmless(text: str) -> str:
    """The text with what could move a cursor or hide something replaced, and cut to size."""
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return shown[: limits.MAX_REFUSAL_TEXT]
