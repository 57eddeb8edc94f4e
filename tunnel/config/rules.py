"""The rules between keys, for what each key's own type cannot say.

Each rule looks at what could be read (`values`: by key, with defaults for what the file leaves out)
and is silent about keys that are not in there, which have an error of their own. Where it matters
whether a key was written, `file` has the table as it came. Faults go into `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunnel import limits
from tunnel.config.locate import Path
from tunnel.config.report import Notes, dotted
from tunnel.config.server import RateLimit
from tunnel.config.tables import Values
from tunnel.config.values import PLACEHOLDER_KEY, PORT, UNIX

Tables = Mapping[int, Values]

AUTH_KEY_VARIABLE: Final = "TLS_TUNNEL_AUTH_KEY"
_PROOFS: Final = ("auth_key", "auth_key_file", "verifier")
_PLACEHOLDER: Final = "is still the placeholder of the template"
_KEYGEN: Final = "`tls-tunnel keygen` prints one; server and client need the same"


def server(file: Mapping[str, object], values: Values, notes: Notes) -> None:
    """The rules of ``[server]``."""
    _auth_key("server", file, values, notes, needed="clients" not in file)
    _certificate("server", file, notes)
    _stats("server", file, notes)
    _different_keys(file, values, notes)
    limit: RateLimit | None = values.get("rate_limit")
    if limit is not None and limit.burst_size < limit.requests_per_second:
        path = ("server", "rate_limit", "burst_size")
        notes.warn(path, "is less than requests_per_second, which can then never be reached")


def identities(tables: Tables, notes: Notes) -> None:
    """The rules of ``[[server.clients]]``."""
    path = ("server", "clients")
    _unique(path, tables, ("name",), notes)
    for index, table in tables.items():
        given = [key for key in _PROOFS if table.get(key) is not None]
        if len(given) > 1:
            notes.error((*path, index, given[0]), f"{' and '.join(given)}: keep one of them")
        elif not given and all(key in table for key in _PROOFS):
            where = "here, in a file that auth_key_file names, or as its verifier"
            notes.error((*path, index, "auth_key"), f"is missing: it goes {where}; {_KEYGEN}")
        elif table.get("auth_key") == PLACEHOLDER_KEY:
            notes.error((*path, index, "auth_key"), f"{_PLACEHOLDER}; {_KEYGEN}")


def client(file: Mapping[str, object], values: Values, notes: Notes) -> None:
    """The rules of ``[client]``."""
    _auth_key("client", file, values, notes)
    _certificate("client", file, notes)
    _stats("client", file, notes)
    _verification(values, notes)
    delay, most = values.get("reconnect_delay"), values.get("reconnect_max_delay")
    if delay is not None and most is not None and most < delay:
        path = ("client", "reconnect_max_delay")
        notes.error(path, f"{most:g} s is less than reconnect_delay, which is {delay:g} s")


def proxies(tables: Tables, notes: Notes) -> None:
    """The rules of ``[[proxies]]``."""
    _at_most(limits.MAX_PROXIES, tables, "proxies", notes)
    _unique(("proxies",), tables, ("name",), notes)
    published = {i: table for i, table in tables.items() if table.get("publish_port") != 0}
    _unique(("proxies",), published, ("publish_addr", "publish_port"), notes)
    _few_networks(tables, notes)
    _allowed_visitors(tables, notes)
    _secrets("proxies", tables, notes)
    for index, table in tables.items():
        _local_port(("proxies", index, "local_port"), table, notes)


def _allowed_visitors(tables: Tables, notes: Notes) -> None:
    """`allow_visitors` is for proxies without a public port; all names travel in one frame."""
    together = 0
    for index, table in tables.items():
        names, path = table.get("allow_visitors", ()), ("proxies", index, "allow_visitors")
        if names and not table.get("visitors_only"):
            message = "the published port is open to everybody: set visitors_only = true as well"
            notes.error(path, message)
        together += len(names)
        if together > limits.MAX_ALLOW_VISITORS_TOGETHER:
            most = limits.MAX_ALLOW_VISITORS_TOGETHER
            notes.error(path, f"all proxies of a file together name no more than {most} clients")
            return


def visitors(tables: Tables, notes: Notes) -> None:
    """The rules of ``[[visitors]]``."""
    _at_most(limits.MAX_VISITORS, tables, "visitors", notes)
    _unique(("visitors",), tables, ("bind_addr", "bind_port"), notes)
    _secrets("visitors", tables, notes)


def _secrets(array: str, tables: Tables, notes: Notes) -> None:
    for index, table in tables.items():
        path = (array, index, "visitor_secret")
        secret, file = table.get("visitor_secret"), table.get("visitor_secret_file")
        if secret is not None and file is not None:
            message = "visitor_secret and visitor_secret_file are both there: keep one of them"
            notes.error(path, message)
        elif secret == PLACEHOLDER_KEY:
            message = "`tls-tunnel keygen` prints one; the proxy and its visitors need the same"
            notes.error(path, f"{_PLACEHOLDER}; {message}")
        elif (secret or file) and table.get("visitors_only") is False:
            message = "is asked of [[visitors]] only; the published port is open to everybody"
            notes.warn(path if secret else (*path[:-1], "visitor_secret_file"), message)


def _auth_key(
    table: str, file: Mapping[str, object], values: Values, notes: Notes, *, needed: bool = True
) -> None:
    path = (table, "auth_key")
    if "auth_key" not in file and values.get("auth_key") is not None:
        # From the environment, so it goes before a file that the configuration names.
        values["auth_key_file"] = None
    if "auth_key" in file and "auth_key_file" in file:
        notes.error(path, "auth_key and auth_key_file are both there: keep one of them")
    elif needed and all(values.get(key, "") is None for key in ("auth_key", "auth_key_file")):
        where = f"here, in a file that auth_key_file names, or in {AUTH_KEY_VARIABLE}"
        notes.error(path, f"is missing: it goes {where}; {_KEYGEN}")
    elif values.get("auth_key") == PLACEHOLDER_KEY:
        notes.error(path, f"{_PLACEHOLDER}; {_KEYGEN}")


def _different_keys(file: Mapping[str, object], values: Values, notes: Notes) -> None:
    """No two entries may have the same key, since the key tells the server which client it is.

    (A key and a verifier of it, or two files, are compared when the keys have been derived.)
    """
    first: dict[str, str] = {}
    if values.get("auth_key") is not None:
        line = notes.line(("server", "auth_key"))
        place = f"[server] (line {line})" if "auth_key" in file else AUTH_KEY_VARIABLE
        first[values["auth_key"]] = place
    for index, entry in enumerate(values["clients"]):
        path = ("server", "clients", index, "auth_key" if entry.auth_key else "verifier")
        secret = entry.auth_key or entry.verifier
        if secret in first:
            notes.error(path, f"{first[secret]} has the same: give each client a key of its own")
        elif secret is not None:
            first[secret] = f"{dotted(path[:-1])} (line {notes.line(path)})"


def _certificate(table: str, file: Mapping[str, object], notes: Notes) -> None:
    for there, missing in (("cert_path", "key_path"), ("key_path", "cert_path")):
        if there in file and missing not in file:
            notes.error((table, there), f"{missing} is missing: set both, or neither")


def _stats(table: str, file: Mapping[str, object], notes: Notes) -> None:
    if "stats_token" in file and "stats_token_file" in file:
        message = "stats_token and stats_token_file are both there: keep one of them"
        notes.error((table, "stats_token"), message)


def _verification(values: Values, notes: Notes) -> None:
    if not values.get("skip_verify"):
        return
    path = ("client", "skip_verify")
    if values.get("pin"):
        notes.error(path, "contradicts pin, which is a way to verify: remove skip_verify")
    else:
        notes.warn(path, "anyone on the way can pass for the server; a pin is as easy and safe")


def _at_most(most: int, tables: Tables, name: str, notes: Notes) -> None:
    if len(tables) > most:
        message = f"there are {len(tables)} [[{name}]], more than {most}"
        notes.error((name, most), message)


def _few_networks(tables: Tables, notes: Notes) -> None:
    """The networks of all proxies together travel in one frame, which has a bound."""
    together = 0
    for index, table in tables.items():
        together += len(table.get("allow_from", ()))
        if together > limits.MAX_ALLOW_FROM_TOGETHER:
            message = f"all proxies together name more than {limits.MAX_ALLOW_FROM_TOGETHER}"
            notes.error(("proxies", index, "allow_from"), f"{message} networks: name wider ones")
            return


def _unique(array: Path, tables: Tables, keys: tuple[str, ...], notes: Notes) -> None:
    first: dict[tuple[object, ...], int] = {}
    for index, table in tables.items():
        value = tuple(table.get(key) for key in keys)
        if None in value:
            continue
        other = first.setdefault(value, index)
        if other != index:
            place = dotted((*array, other))
            line = notes.line((*array, other, keys[-1]))
            message = f"{place} (line {line}) has the same {' and '.join(keys)}"
            notes.error((*array, index, keys[-1]), message)


def _local_port(path: Path, table: Values, notes: Notes) -> None:
    if "local_addr" not in table or "local_port" not in table:
        return
    unix = table["local_addr"].startswith(UNIX)
    if unix and table["local_port"] is not None:
        notes.error(path, "a Unix socket has no port: remove the key")
    elif not unix and table["local_port"] is None:
        notes.error(path, f"is missing: expected {PORT.expects}")
