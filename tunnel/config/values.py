"""The types of a configuration's values: from what TOML gives to ours, or a sentence why not.

A type says what it expects, so that each message is "expected ..., found ..." and no key needs
messages of its own. A secret is never quoted in one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import attrs

from tunnel import limits
from tunnel.model import ANY, PortRange, name_fault

T = TypeVar("T")

UNIX: Final = "unix:"
LOOPBACK: Final = "127.0.0.1"
#: What `client_template` and `server_template` fill in while there is no key.
PLACEHOLDER_KEY: Final = "replace-me-with-what-tls-tunnel-keygen-prints"

_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_VERIFIER: Final = re.compile(r"ttv1_[a-z2-7]{135}")
_PIN: Final = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{32}")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
#: Not in a host name, though people write them there: a URL, a port, a list, brackets.
_NOT_IN_HOSTS: Final = re.compile(r"[\s/:,;@\[\]]")
_SHOWN: Final = 60


class Mismatch(ValueError):
    """A value is not what its key takes.

    Args:
      hint: what to do, if that does not go without saying.
      found: the item that is meant, if the value is a list.
    """

    def __init__(self, hint: str = "", *, found: object = None) -> None:
        super().__init__(hint)
        self.hint = hint
        self.found = found


@attrs.frozen
class ValueType(Generic[T]):
    """One kind of value.

    Args:
      expects: what it is, as in "expected ...".
      parse: from what TOML gave; raises `Mismatch`.
      number: True if text from the environment stands for a number.
      secret: True if no message may show the value.
    """

    expects: str
    parse: Callable[[Any], T]
    number: bool = False
    secret: bool = False

    def read(self, value: object) -> T:
        """What the key is set to, from what TOML gave.

        Raises:
          ValueError: it is something else; `str()` is a sentence for people.
        """
        try:
            return self.parse(value)
        except Mismatch as error:
            found = value if error.found is None else error.found
            words = kind_of(found) if self.secret else describe(found)
            words += " in it" if error.found is not None else ""
            hint = error.hint and f"; {error.hint}"
            raise ValueError(f"expected {self.expects}, found {words}{hint}") from None

    def read_text(self, text: str) -> T:
        """The value of a variable of the environment, which is always a text.

        Raises:
          ValueError: see `read`.
        """
        return self.read(_number(text) if self.number else text)


def _number(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def kind_of(value: object) -> str:
    """What TOML calls this kind of value."""
    # A bool is an int in Python: the order matters.
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    return "a date or time"


_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "a text"),
    (list, "a list"),
    (dict, "a table"),
)


def describe(value: object) -> str:
    """A value as a message quotes it: on one line, short, without invisible characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # Very large integers take quadratic time to print, or are refused by Python.
        return str(value) if -1e18 < value < 1e18 or isinstance(value, float) else "a huge number"
    if not isinstance(value, str):
        return kind_of(value)
    if not value:
        return "an empty text"
    return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…")


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise Mismatch(_unquote(value))

    return parse


def _unquote(value: object) -> str:
    number = isinstance(value, str) and _NUMBER.fullmatch(value)
    return "write the number without quotes" if number else ""


def _seconds(least: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Mismatch(_unquote(value))
        # The comparison first: it is False for NaN, and a huge int does not fit a float.
        if not least <= value <= limits.MAX_DURATION:
            raise Mismatch
        return float(value)

    return parse


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise Mismatch("write true or false, without quotes" if isinstance(value, str) else "")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Mismatch
    return value


def _auth_key(value: object) -> str:
    if not isinstance(value, str):
        raise Mismatch
    if len(value) < limits.MIN_AUTH_KEY_LENGTH:
        raise Mismatch(f"this one has {len(value)}; `tls-tunnel keygen` makes a strong one")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Mismatch("it is not UTF-8")
    return value


def _token(value: object) -> str:
    """A token travels in a header of HTTP: what RFC 6750 section 2.1 allows there, and more."""
    if not isinstance(value, str):
        raise Mismatch
    if len(value) < limits.MIN_TOKEN_LENGTH:
        raise Mismatch(f"this one has {len(value)}; `tls-tunnel keygen` makes a strong one")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise Mismatch("it can have letters, digits and signs of ASCII, without spaces")
    return value


def _verifier(value: object) -> str:
    if not isinstance(value, str) or not _VERIFIER.fullmatch(value):
        hint = "it is cut or mistyped" if str(value).startswith("ttv1_") else ""
        if str(value).startswith("ttk1_"):
            hint = "this one is a key: write auth_key, or have its verifier printed"
        raise Mismatch(hint)
    return value


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise Mismatch
    if fault := name_fault(value):
        raise Mismatch(f"it {fault}")
    return value


def _identifier(value: object) -> str:
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise Mismatch("leave the key out and one is made and kept")
    return value


def _address(value: object) -> str:
    if value == ANY:
        return ANY
    if value == "localhost":
        return "127.0.0.1"
    if not isinstance(value, str):
        raise Mismatch
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        hint = "write it without brackets" if value.startswith("[") else ""
        raise Mismatch(hint) from None


def _network(value: object) -> str:
    if not isinstance(value, str):
        raise Mismatch
    address, slash, prefix = value.partition("/")
    try:
        # A zone means nothing to a server elsewhere; "/255.0.0.0" is legal there and no CIDR.
        if "%" in address or (slash and not prefix.isdecimal()):
            raise ValueError(value)
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Mismatch from None
    if ipaddress.ip_address(address) != network.network_address:
        raise Mismatch(f"there are bits beyond the prefix: write {network}")
    return str(network)


def _host(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 255:
        raise Mismatch
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if _NOT_IN_HOSTS.search(value) or not value.isprintable():
            raise Mismatch("only the name or address belongs here, the port has a key") from None
    return value


def _local(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(UNIX):
        return _host(value)
    if not value.startswith(f"{UNIX}/") or "\0" in value:
        raise Mismatch(f"the path of a socket begins with a slash: {UNIX}/run/app.sock")
    return value


def _proxy_protocol(value: object) -> str | None:
    if value is False or value == "off":
        return None
    if not isinstance(value, str) or value not in ("v1", "v2"):
        raise Mismatch
    return value


def _pin(value: object) -> str:
    if not isinstance(value, str) or not _PIN.fullmatch(value):
        hint = "`tls-tunnel cert` and the server's log print it"
        if isinstance(value, str) and ":" in value.lower().removeprefix("sha256:"):
            hint = f"this looks like a certificate's fingerprint, a pin is another number: {hint}"
        raise Mismatch(hint)
    return value


def _port_range(value: object) -> PortRange:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 < value <= 65535 else ""
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Mismatch
    found = PortRange(int(match[1]), int(match[2] or match[1]))
    if not 0 < found.first <= found.last <= 65535:
        raise Mismatch
    return found


def _listed(item: Callable[[Any], T], values: list[Any]) -> tuple[T, ...]:
    if not values:
        raise Mismatch("the list is empty")
    result = []
    for value in values:
        try:
            result.append(item(value))
        except Mismatch as error:
            raise Mismatch(error.hint, found=value) from None
    return tuple(result)


def _one_or_more(item: Callable[[Any], T]) -> Callable[[object], tuple[T, ...]]:
    return lambda value: _listed(item, value) if isinstance(value, list) else (item(value),)


def _several(item: Callable[[Any], T]) -> Callable[[object], tuple[T, ...]]:
    def parse(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Mismatch("write [ ] around it")
        return _listed(item, value)

    return parse


def _at_most(most: int, parse: Callable[[object], tuple[T, ...]]) -> Callable[..., tuple[T, ...]]:
    def parse_few(value: object) -> tuple[T, ...]:
        found = parse(value)
        if len(found) > most:
            raise Mismatch(f"this one has {len(found)}")
        return found

    return parse_few


def choice(*accepted: str) -> ValueType[str]:
    """One of a few texts."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in accepted:
            raise Mismatch
        return value

    return ValueType(" or ".join(f'"{text}"' for text in accepted), parse)


def count(low: int, high: int) -> ValueType[int]:
    """A whole number from `low` to `high`."""
    return ValueType(f"a whole number from {low} to {high}", _integer(low, high), number=True)


_DAY: Final = f"{limits.MAX_DURATION:g}"

SWITCH: Final = ValueType("true or false", _switch)
PATH: Final = ValueType("the path of a file", _text)
DIRECTORY: Final = ValueType("the path of a directory", _text)
PORT: Final = ValueType("a port from 1 to 65535", _integer(1, 65535))
PORT_OR_ZERO: Final = ValueType("a port from 1 to 65535, or 0", _integer(0, 65535))
PORT_OR_ANY: Final = ValueType("a port from 0 (any free one) to 65535", _integer(0, 65535))
SECONDS: Final = ValueType(
    f"seconds, from {limits.MIN_DURATION:g} to {_DAY}", _seconds(limits.MIN_DURATION), number=True
)
SECONDS_OR_ZERO: Final = ValueType(f"seconds, from 0 to {_DAY}", _seconds(0.0))
AUTH_KEY: Final = ValueType(
    f"a key of at least {limits.MIN_AUTH_KEY_LENGTH} characters", _auth_key, secret=True
)
SECRET: Final = ValueType(
    f"a secret of at least {limits.MIN_AUTH_KEY_LENGTH} characters", _auth_key, secret=True
)
TOKEN: Final = ValueType(
    f"a token of at least {limits.MIN_TOKEN_LENGTH} characters", _token, secret=True
)
NAME: Final = ValueType("a name", _name)
IDENTIFIER: Final = ValueType("32 lowercase hexadecimal digits", _identifier)
ADDRESS: Final = ValueType('an IPv4 or IPv6 address, or "*" for all of them', _address)
HOSTS: Final = ValueType("a host name or address, or a list of them", _one_or_more(_host))
LOCAL: Final = ValueType(f'a host name or address, or "{UNIX}/path"', _local)
PROXY_PROTOCOL: Final = ValueType('"v1", "v2" or "off"', _proxy_protocol)
ADDRESSES: Final = ValueType(f"{ADDRESS.expects}, or a list of them", _one_or_more(_address))
NETWORKS: Final = ValueType(
    f"a network such as 192.0.2.0/24, or a list of at most {limits.MAX_ALLOW_FROM}",
    _at_most(limits.MAX_ALLOW_FROM, _one_or_more(_network)),
)
CLIENTS: Final = ValueType(
    f"the name of a client, or a list of at most {limits.MAX_ALLOW_VISITORS}",
    _at_most(limits.MAX_ALLOW_VISITORS, _one_or_more(_name)),
)
VERIFIER: Final = ValueType(
    "a verifier, which `tls-tunnel keygen --verifier` prints", _verifier, secret=True
)
PINS: Final = ValueType(
    'a pin ("sha256:" and 64 lowercase hexadecimal digits), or a list of them', _one_or_more(_pin)
)
PORT_RANGES: Final = ValueType(
    'a list of ports and ranges, such as ["80", "8000-8999"]', _several(_port_range)
)
