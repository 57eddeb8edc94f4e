"""What to say, and what to do about it, when something fails that a person can put right.

All of it stands here, so that the page about it (`docs/errors.md`) can be made from it. What is
wrong in a configuration is told by `tunnel.config`, with line and key.
"""

from __future__ import annotations

from typing import Final

import attrs

from tunnel.model import RefusalCode, RejectionCode


@attrs.frozen
class Remedy:
    """One failure.

    Args:
      code: names it, for the page.
      message: what is wrong, and where; a template for `str.format`.
      remedy: what to do about it; a template too.
    """

    code: str
    message: str
    remedy: str

    def text(self, **values: object) -> str:
        """Both in one line, with what the templates leave open."""
        return f"{self.message}; {self.remedy}".format(**values)


# --- Reaching the server ----------------------------------------------------------------------

NAME_UNKNOWN: Final = Remedy(
    "name_unknown",
    "cannot reach {server}: no address for that name ({reason})",
    "check server_addr, and that this machine can look names up",
)
NOTHING_LISTENS: Final = Remedy(
    "nothing_listens",
    "cannot reach {server}: nothing listens there ({reason})",
    "check that the server runs there, and server_port",
)
NO_ANSWER: Final = Remedy(
    "no_answer",
    "cannot reach {server}: no answer in time",
    "check server_addr and server_port, and what firewalls between let through",
)
NOT_TLS: Final = Remedy(
    "not_tls",
    "cannot reach {server}: it does not speak TLS ({reason})",
    "check that server_port is the server's bind_port, and no port of something else",
)
CANNOT_REACH: Final = Remedy(
    "cannot_reach",
    "cannot reach {server}: {reason}",
    "check server_addr and server_port, and that the server runs",
)
OTHER_PROTOCOL: Final = Remedy(
    "other_protocol",
    "{server} speaks TLS and is not a tls-tunnel server (no ALPN {alpn})",
    "check that server_port is the server's bind_port, and that nothing ends TLS before it",
)
WRONG_PIN: Final = Remedy(
    "wrong_pin",
    "{server} is not the server that the pin names: it has {shown}, the configuration says "
    "{expected}",
    "ask whoever runs the server for its pin, which it logs at each start, before you change yours",
)
NOT_YET_VALID: Final = Remedy(
    "not_yet_valid",
    "cannot reach {server}: its certificate is not valid yet ({reason})",
    "check the clocks of both machines: the certificate begins in the future of this one's",
)
EXPIRED: Final = Remedy(
    "expired",
    "cannot reach {server}: its certificate has expired ({reason})",
    "renew the server's certificate, and check this machine's clock",
)
WRONG_NAME: Final = Remedy(
    "wrong_name",
    "cannot reach {server}: its certificate is for another name ({reason})",
    "dial a name that the certificate has, or trust its key by pin",
)
NOT_TRUSTED: Final = Remedy(
    "not_trusted",
    "cannot reach {server}: nobody vouches for its certificate ({reason})",
    "set pin to what the server logs at its start, or ca_cert_path to who issued its certificate",
)

# --- Starting ---------------------------------------------------------------------------------

PORT_TAKEN: Final = Remedy(
    "port_taken",
    "cannot listen on {place}: {holder} has the port",
    "end that program, or change {bind_port}",
)
PORT_PRIVILEGED: Final = Remedy(
    "port_privileged",
    "cannot listen on {place}: {reason}; ports below {first} need the right to",
    "change {bind_port}, run it as a service (tls-tunnel register), or give the capability "
    "CAP_NET_BIND_SERVICE",
)
NO_SUCH_ADDRESS: Final = Remedy(
    "no_such_address",
    "cannot listen on {place}: this machine has no address {host}",
    'change {bind_addr}; "*" is every address',
)
CANNOT_LISTEN: Final = Remedy(
    "cannot_listen",
    "cannot listen on {place}: {reason}",
    "change {bind_addr} or {bind_port}",
)
NO_CONFIGURATION: Final = Remedy(
    "no_configuration",
    "there is no file {path}",
    "write one with: tls-tunnel template {kind} -o {path}",
)
NOT_ALLOWED_TO_READ: Final = Remedy(
    "not_allowed_to_read",
    "cannot read {path}: permission denied",
    "run this as the owner of the file, or let its group read: chmod 640 {path}",
)
CANNOT_READ: Final = Remedy(
    "cannot_read",
    "cannot read {path}: {reason}",
    "check that this is the configuration",
)

KEY_FILE: Final = Remedy(
    "key_file",
    "cannot read the key file {path}: {reason}",
    "check auth_key_file, and that this user may read the file",
)

#: All of them, in the order of the page.
REMEDIES: Final = (
    NAME_UNKNOWN,
    NOTHING_LISTENS,
    NO_ANSWER,
    NOT_TLS,
    CANNOT_REACH,
    OTHER_PROTOCOL,
    WRONG_PIN,
    NOT_YET_VALID,
    EXPIRED,
    WRONG_NAME,
    NOT_TRUSTED,
    PORT_TAKEN,
    PORT_PRIVILEGED,
    NO_SUCH_ADDRESS,
    CANNOT_LISTEN,
    NO_CONFIGURATION,
    NOT_ALLOWED_TO_READ,
    CANNOT_READ,
    KEY_FILE,
)

# --- What the server says no to ---------------------------------------------------------------

#: What the client can do about each refusal.
REFUSED: Final = {
    RefusalCode.VERSION: "upgrade the older of the two programs",
    RefusalCode.BINDING: "check that nothing between client and server ends TLS",
    RefusalCode.AUTHENTICATION: "put into this client's file the auth_key that the server has "
    "for it",
    RefusalCode.PROTOCOL: "check that both are tls-tunnel, and upgrade the older one",
    RefusalCode.BUSY: "wait: the client tries again by itself",
    RefusalCode.ALREADY_CONNECTED: "end the other client, or give this one a client_id of its own",
    RefusalCode.LIMIT: "ask whoever runs the server for a higher limit",
    RefusalCode.STOPPING: "wait: the client tries again by itself",
    RefusalCode.INTERNAL: "look into the server's log",
}
#: And about each proxy that is not published.
REJECTED: Final = {
    RejectionCode.NOT_ALLOWED: "publish another port or address, or ask whoever runs the server",
    RejectionCode.RESERVED: "publish another port: the server needs this one itself",
    RejectionCode.DUPLICATE: "give each proxy a publish_port of its own",
    RejectionCode.IN_USE: "wait until it is free, when it is published at once, or publish another",
    RejectionCode.LIMIT: "take proxies out, or ask whoever runs the server for a higher limit",
    RejectionCode.PERMISSION: "publish a port from 1024 on, or run the server as a service "
    "(tls-tunnel register)",
    RejectionCode.BAD_ADDRESS: "set publish_addr to an address that the server has",
    RejectionCode.UNSUPPORTED: "upgrade the server",
    RejectionCode.INTERNAL: "look into the server's log",
}


def refusal_remedy(code: str) -> str | None:
    """What to do about a refusal; None for a code that is not known here."""
    return REFUSED[RefusalCode(code)] if code in set(RefusalCode) else None
