"""Changes to a configuration that leave every other byte as it is: text in, text out.

Comments, order and spelling of the rest stay, which no writer of TOML can promise. So lines are put
in or taken out, and nothing is parsed and written anew. As lines cannot tell every table from what
is around it (a text with a bracket in it, say), the result is read again, and refused if it loads
as anything else than the value that was wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs
import tomlkit

from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.load import load_client
from tunnel.config.locate import locate
from tunnel.errors import ConfigError, Fault

_HEADER: Final = re.compile(r"\s*\[\[\s*proxies\s*\]\]")
_ANY_HEADER: Final = re.compile(r"\s*\[")
#: As TOML has it: there are characters that only Python takes for the end of a line.
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_BY_HAND: Final = "edit it by hand"


def add_proxy(text: str, proxy: ProxyConfig, *, source: str, environ: Mapping[str, str]) -> str:
    """The text of a ``client.toml`` with one more proxy, at its end.

    Args:
      text: the file's contents; it may have nothing to do so far.
      proxy: the new one.
      source: the file's name, for messages.
      environ: the environment, which goes before the file.

    Raises:
      ConfigError: the file has faults, or would have with this proxy, such as a name twice.
    """
    before = _load(text, source, environ)
    if any(other.name == proxy.name for other in before.proxies):
        line = locate(text, ("proxies", _index(before, proxy.name, source), "name"))
        raise _refused(source, line, f"there is a proxy {proxy.name!r} already: give another name")
    wanted = attrs.evolve(before, proxies=(*before.proxies, proxy))
    return _checked(_with(text, "[[proxies]]", proxy), wanted, source, environ)


def add_visitor(
    text: str, visitor: VisitorConfig, *, source: str, environ: Mapping[str, str]
) -> str:
    """The text of a ``client.toml`` with one more visitor, at its end.

    Args:
      text: the file's contents; it may have nothing to do so far.
      visitor: the new one.
      source: the file's name, for messages.
      environ: the environment, which goes before the file.

    Raises:
      ConfigError: the file has faults, or would have with it, such as a local port twice.
    """
    before = _load(text, source, environ)
    wanted = attrs.evolve(before, visitors=(*before.visitors, visitor))
    return _checked(_with(text, "[[visitors]]", visitor), wanted, source, environ)


def remove_proxy(text: str, name: str, *, source: str, environ: Mapping[str, str]) -> str:
    """The text of a ``client.toml`` without one proxy, and the comment that stands right above it.

    Args:
      text: the file's contents.
      name: the proxy's.
      source: the file's name, for messages.
      environ: the environment, which goes before the file.

    Raises:
      ConfigError: the file has faults, or no such proxy, or would have nothing to do without it;
        or the proxy is written in a way that cannot be told from what is around it.
    """
    before = _load(text, source, environ)
    index = _index(before, name, source)
    lines = _LINE.findall(text)
    header = (locate(text, ("proxies", index)) or 0) - 1
    if not _HEADER.match(lines[header]):
        raise _refused(source, header + 1, f"this is no [[proxies]] table: {_BY_HAND}")
    others = (*before.proxies[:index], *before.proxies[index + 1 :])
    rest = lines[_end(lines, header) :]
    kept = lines[: _begin(lines, header)]
    while kept and not rest and not kept[-1].strip():
        kept.pop()  # the empty lines between it and the table before
    left = "".join((*kept, *rest))
    return _checked(left, attrs.evolve(before, proxies=others), source, environ, idle=False)


def _load(text: str, source: str, environ: Mapping[str, str], *, idle: bool = True) -> ClientConfig:
    return load_client(text, source=source, environ=environ, idle=idle).value


def _checked(
    text: str,
    wanted: ClientConfig,
    source: str,
    environ: Mapping[str, str],
    *,
    idle: bool = True,
) -> str:
    """The text, if it loads as what is wanted; else ConfigError."""
    if _load(text, source, environ, idle=idle) != wanted:
        raise _refused(source, None, f"cannot tell this table from what is around it: {_BY_HAND}")
    return text


def _with(text: str, header: str, table: ProxyConfig | VisitorConfig) -> str:
    """The text, and a table at its end."""
    newline = "\r\n" if "\r\n" in text else "\n"
    whole = text if text.endswith("\n") or not text else text + newline
    return whole + newline.join(("", header, *_lines(table), ""))


def _index(config: ClientConfig, name: str, source: str) -> int:
    names = [proxy.name for proxy in config.proxies]
    if name in names:
        return names.index(name)
    known = ", ".join(names) or "none"
    raise _refused(source, None, f"there is no proxy {name!r}; there is {known}")


def _lines(table: ProxyConfig | VisitorConfig) -> Iterator[str]:
    """The keys that are not at their default, as lines."""
    for field in attrs.fields(type(table)):
        value = getattr(table, field.name)
        if value is not None and value != field.default:
            value = list(value) if isinstance(value, tuple) else value
            yield f"{field.name} = {tomlkit.item(value).as_string()}"


def _begin(lines: list[str], header: int) -> int:
    """Where the table at this header begins: at the comment right above it."""
    while header and lines[header - 1].lstrip().startswith("#"):
        header -= 1
    return header


def _end(lines: list[str], header: int) -> int:
    """Where the next table begins; a line of this one that looks like a header, `_checked` sees."""
    for number in range(header + 1, len(lines)):
        if _ANY_HEADER.match(lines[number]):
            return _begin(lines, number)
    return len(lines)


def _refused(source: str, line: int | None, message: str) -> ConfigError:
    return ConfigError(source, [Fault(line, "proxies", message)])
