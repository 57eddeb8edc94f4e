"""The keys of tls-tunnel 1.5, as a table: which are still used, ignored or refused."""

from __future__ import annotations

import enum
from typing import Final

import attrs


class Treatment(enum.StrEnum):
    """What the loader does with an old key."""

    USED = "used"
    IGNORED = "ignored, with a warning"
    REFUSED = "refused"


@attrs.frozen
class OldKey:
    """One key of tls-tunnel 1.5.

    Args:
      key: where it was, without indices: ``proxies.name``.
      treatment: what becomes of it.
      text: what happens instead, or what to do.
      harmless: values that say what happens anyway and are passed over in silence.
    """

    key: str
    treatment: Treatment
    text: str
    harmless: tuple[object, ...] = ()

    def concerns(self, value: object) -> bool:
        """False for a value that needs no word."""
        # 0 equals False in Python and is something else in TOML.
        return not any(type(value) is type(one) and value == one for one in self.harmless)


def _used(key: str, text: str = "As before.") -> OldKey:
    return OldKey(key, Treatment.USED, text)


def _ignored(key: str, text: str, *harmless: object) -> OldKey:
    return OldKey(key, Treatment.IGNORED, text, harmless)


def _refused(key: str, text: str, *harmless: object) -> OldKey:
    return OldKey(key, Treatment.REFUSED, text, harmless)


_TRANSPORT: Final = 'the only transport is TLS: write transport = "tls" or remove the key'
_AUTH_KEY: Final = "At least 16 characters, where 1.5 counted bytes."
_PROXY_TYPE: Final = (
    "makes no difference: every visitor gets a local connection of its own, without delay"
)
_POOL: Final = "there is no pool: every visitor gets a local connection of its own"

OLD_KEYS: Final = (
    _used("server.bind_addr", "A literal address; also IPv6."),
    _used("server.bind_port"),
    _refused("server.transport", _TRANSPORT, "tls"),
    _refused(
        "server.behind_proxy",
        "the server speaks TLS itself and cannot stand behind a proxy that ends it: remove the key"
        " and let the proxy pass TCP through",
        False,
    ),
    _used("server.cert_path", "Without it a certificate is made once and kept, not at each start."),
    _used("server.key_path"),
    _used("server.auth_key", _AUTH_KEY),
    _used("server.stats_port"),
    _used("server.stats_addr", 'Default "127.0.0.1", where 1.5 took bind_addr.'),
    _refused(
        "server.allow_forward",
        "the server forwards nothing to addresses that clients choose: remove the key",
        False,
    ),
    _used("server.rate_limit.requests_per_second", "Counted before TLS, where 1.5 did it after."),
    _used("server.rate_limit.burst_size"),
    _ignored(
        "server.size_limits",
        "had no effect in 1.5 either: messages have fixed limits, remove the table",
    ),
    _used("client.server_addr", "Also a list."),
    _used("client.server_port"),
    _ignored("client.server_path", "belonged to the WebSocket transport: remove the key"),
    _refused("client.transport", _TRANSPORT, "tls"),
    _used("client.skip_verify", "With a warning at each start; a pin is safer."),
    _used("client.ca_cert_path"),
    _used("client.auth_key", _AUTH_KEY),
    _used("client.stats_port"),
    _used("client.stats_addr", 'Default "127.0.0.1", where 1.5 took "0.0.0.0".'),
    _used("proxies.name"),
    _ignored("proxies.proxy_type", _PROXY_TYPE, "tcp"),
    _used("proxies.publish_addr", 'Default "*", where 1.5 took "0.0.0.0"; a literal address.'),
    _used("proxies.publish_port", "Also 0: any free port."),
    _used("proxies.local_port", "Two proxies may share one."),
    _used("visitors.name"),
    _used("visitors.publish_port"),
    _ignored("visitors.proxy_type", _PROXY_TYPE, "tcp"),
    _used("visitors.bind_addr"),
    _used("visitors.bind_port"),
    _refused(
        "forwarders", "there is no forward proxy: remove the table, run one beside the client"
    ),
)

#: Variables of the environment that only 1.5 knew, and what happens instead.
OLD_VARIABLES: Final = {
    f"TLS_TUNNEL_POOL_{name}": _POOL
    for name in (
        "MIN_IDLE",
        "MAX_SIZE",
        "MAX_IDLE_SECS",
        "CONNECT_TIMEOUT_MS",
        "KEEPALIVE_SECS",
        "KEEPALIVE_INTERVAL_SECS",
    )
}

_TABLE: Final = {old.key: old for old in OLD_KEYS}


def old_key(path: tuple[str | int, ...]) -> OldKey | None:
    """The entry for a key in a file, if 1.5 knew it."""
    return _TABLE.get(".".join(part for part in path if isinstance(part, str)))
