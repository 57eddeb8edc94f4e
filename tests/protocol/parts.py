"""Two ends with fixed keys and nonces, and the handshake between them step by step."""

from __future__ import annotations

import hashlib
import json
import struct

from tunnel.errors import ProtocolError, Refused
from tunnel.model import Address
from tunnel.protocol.handshake import (
    NEED_DATA,
    Binding,
    ClientHandshake,
    ClientProved,
    ConfigureReceived,
    ServerHandshake,
    ServerProved,
)
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.messages import Bound, Capabilities, ProxyRequest

KEY = generate_key(bytes(range(32)))
KEYS = derive(KEY)
OTHER_KEYS = derive(generate_key(bytes(range(1, 33))))
DUMMY = derive(generate_key(bytes(32))).verifier
LEAF = hashlib.sha256(b"the server's certificate").digest()
BOUND_TO = Binding("certificate", LEAF)
UNBOUND = Binding("none")
SESSION = "5e" * 16
CLIENT_ID = "c1" * 16
INSTANCE_ID = "1d" * 16
PROXIES = (
    ProxyRequest("网站", "*", 8080, 0, 80),
    ProxyRequest("ssh", "127.0.0.1", 0, 2222, 22),
)
ANSWERS = (
    Bound(0, (Address("0.0.0.0", 8080), Address("::", 8080))),
    Bound(1, (Address("127.0.0.1", 2222),)),
)


def server(**changes):
    verifier = KEYS.verifier
    arguments = {
        "lookup": {verifier.key_id: verifier}.get,
        "dummy": DUMMY,
        "binding": BOUND_TO,
        "nonce": b"\x51" * 32,
        "session_id": SESSION,
        "capabilities": Capabilities(max_frame=65_536),
        "server_version": "2.0",
    }
    return ServerHandshake(**arguments | changes)


def client(**changes):
    arguments = {
        "keys": KEYS,
        "binding": BOUND_TO,
        "nonce": b"\xc1" * 32,
        "name": "家里",
        "client_id": CLIENT_ID,
        "instance_id": INSTANCE_ID,
        "attempt": 1,
        "capabilities": Capabilities(max_frame=65_536),
    }
    return ClientHandshake(**arguments | changes)


def frame(value):
    """Any JSON value, or a body as bytes, as a frame."""
    body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return struct.pack("!I", len(body)) + body


def split(wire):
    """The frames in these bytes."""
    frames = []
    while wire:
        end = 4 + struct.unpack_from("!I", wire)[0]
        frames.append(wire[:end])
        wire = wire[end:]
    return frames


def opened(wire_frame):
    """The JSON in a frame, read by nobody's own reader."""
    return json.loads(wire_frame[4:])


def hear(end, wire, eof=False):
    """What this end says about these bytes."""
    end.receive_data(wire)
    if eof:
        end.receive_data(b"")
    return end.next_event()


def unchanged(_number, wire_frame):
    return wire_frame


#: The frames by the names that the table in `docs/protocol.md` gives them.
FRAMES = ("1", "2a", "2b", "3a", "3b", "4", "5")


def meet(one=None, other=None, change=unchanged):
    """The whole handshake; `change(name, frame)` is what a man in the middle does.

    Returns the two ends and what each heard. Raises what the end raises that notices something;
    an end that waits for more than there is finds the connection closed.
    """
    one, other = one or server(), other or client()
    heard = {}

    def told(end, names, wire):
        frames = zip(names, split(wire), strict=True)
        changed = b"".join(change(name, wire_frame) for name, wire_frame in frames)
        event = hear(end, changed)
        if event is NEED_DATA:
            event = hear(end, b"", eof=True)
        heard[names[-1]] = event

    told(other, ["1"], one.challenge())
    told(one, ["2a", "2b"], other.authenticate())
    told(other, ["3a", "3b"], one.accept(name=heard["2b"].name))
    told(one, ["4"], other.configure(PROXIES))
    told(other, ["5"], one.configured(ANSWERS))
    return one, other, heard


def outcome(call):
    """The name of the error that a call raises, or None."""
    try:
        call()
    except (Refused, ProtocolError) as error:
        return type(error)
    return None


# --- Ends in each of their states -----------------------------------------------------------------


def server_in(state, **changes):
    """A server that has come as far as `state`, by the name of the member of `State`."""
    one, other = server(**changes), client()
    if state == "START":
        return one
    hear(other, one.challenge())
    if state == "AWAIT_AUTHENTICATE":
        return one
    first, second = split(other.authenticate())
    assert hear(one, first) is NEED_DATA
    if state == "AWAIT_CLIENT_PROOF":
        return one
    assert isinstance(hear(one, second), ClientProved)
    if state == "DECIDE":
        return one
    hear(other, one.accept(name="assigned"))
    if state == "AWAIT_CONFIGURE":
        return one
    assert isinstance(hear(one, other.configure(PROXIES)), ConfigureReceived)
    if state == "ANSWER_CONFIGURE":
        return one
    one.configured(ANSWERS)
    assert state == "DONE"
    return one


def client_in(state, **changes):
    """The same for a client."""
    one, other = server(), client(**changes)
    if state == "AWAIT_CHALLENGE":
        return other
    hear(other, one.challenge())
    if state == "ANSWER_CHALLENGE":
        return other
    hear(one, other.authenticate())
    if state == "AWAIT_AUTHENTICATED":
        return other
    first, second = split(one.accept(name="assigned"))
    assert hear(other, first) is NEED_DATA
    if state == "AWAIT_SERVER_PROOF":
        return other
    assert isinstance(hear(other, second), ServerProved)
    if state == "CONFIGURE":
        return other
    hear(one, other.configure(PROXIES))
    if state == "AWAIT_CONFIGURED":
        return other
    hear(other, one.configured(ANSWERS))
    assert state == "DONE"
    return other


SERVER_WAITS = {
    "AWAIT_AUTHENTICATE": "authenticate",
    "AWAIT_CLIENT_PROOF": "proof",
    "AWAIT_CONFIGURE": "configure",
}
CLIENT_WAITS = {
    "AWAIT_CHALLENGE": "challenge",
    "AWAIT_AUTHENTICATED": "authenticated",
    "AWAIT_SERVER_PROOF": "proof",
    "AWAIT_CONFIGURED": "configured",
}
#: Each end in each state in which it waits: what makes it, and what it waits for.
WAITING = {
    **{f"server {state}": (server_in, state, kind) for state, kind in SERVER_WAITS.items()},
    **{f"client {state}": (client_in, state, kind) for state, kind in CLIENT_WAITS.items()},
}
SERVER_ACTS = ("START", "DECIDE", "ANSWER_CONFIGURE", "DONE")
CLIENT_ACTS = ("ANSWER_CHALLENGE", "CONFIGURE", "DONE")
