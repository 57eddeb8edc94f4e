"""Property-based fuzzing of the tunnel protocol.

    python -m fuzz.fuzz_protocol --seconds 60

Each check gives one part whatever a peer may send, in whatever pieces: the handshake of each side
from each of its states, the reader of messages, the reader of preambles. The last one puts a man
in the middle of an honest handshake. `tests/protocol` runs them for a moment; here they run for as
long as one likes.
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections.abc import Callable

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol.parts import WAITING, frame, meet
from tunnel import limits
from tunnel.errors import Refused, RemoteProtocolError
from tunnel.model import Address
from tunnel.protocol import messages
from tunnel.protocol.framing import FrameDecoder
from tunnel.protocol.handshake import NEED_DATA, ClientHandshake, ServerHandshake
from tunnel.protocol.preamble import PreambleDecoder, build_preamble

Handshake = ServerHandshake | ClientHandshake

# --- What a peer may send -------------------------------------------------------------------------

KINDS = (
    "challenge",
    "authenticate",
    "proof",
    "authenticated",
    "refused",
    "configure",
    "configured",
    "bound",
    "rejected",
    "reconfigure",
    "reconfigured",
    "stopping",
    "unknown",
)
NUMBERS = st.one_of(
    st.integers(-1, 3),
    st.sampled_from([80, 65_535, 65_536, 262_144, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 10**19]),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "*", "::", "127.0.0.1", "fe80::1%eth0", "fe80::1%\n", "certificate", "none", "in_use"]
    ),
    st.sampled_from(["00" * 16, "00" * 32, "FF" * 32, "0" * 63, "网站", " x", "e\u0301", "\u202e"]),
    st.text(max_size=70),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
# fmt: off
KEYS = st.sampled_from((
    "type", "version", "bindings", "binding", "nonce", "key_id", "name", "client_id",
    "instance_id", "attempt", "capabilities", "max_frame", "max_streams", "backlog", "window",
    "features", "mac", "session", "server_version", "code", "text", "retry_after", "proxies",
    "visitors", "publish_addr", "publish_port", "preferred_port", "local_port", "id", "bound",
    "rejected", "host", "port", "allow_from", "remove", "other",
))
# fmt: on
NETWORKS = st.one_of(
    st.lists(
        st.tuples(st.ip_addresses(), st.integers(0, 129)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        max_size=3,
    ),
    st.lists(
        st.sampled_from(["0.0.0.0/0", "::/0", "::/00", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "::"]),
        max_size=66,
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=12,
)
RIGHT = {
    "version": st.just(1),
    "bindings": st.just(["certificate"]),
    "binding": st.just("certificate"),
    "nonce": st.just("00" * 32),
    "key_id": st.just("00" * 16),
    "name": st.just("网站"),
    "client_id": st.just("00" * 16),
    "instance_id": st.just("00" * 16),
    "attempt": st.just(1),
    "mac": st.just("00" * 32),
    "session": st.just("00" * 16),
    "server_version": st.just("2"),
    "code": st.sampled_from(["busy", "in_use", "later"]),
    "text": TEXTS,
    "retry_after": NUMBERS,
    "id": st.integers(0, 3),
    "bound": st.just([{"host": "::", "port": 80}]),
    "rejected": st.just({"code": "in_use", "text": "busy"}),
    "remove": st.lists(st.integers(0, 4), max_size=3),
    "proxies": st.lists(
        st.one_of(
            st.builds(
                lambda number, more: (
                    {
                        "id": number,
                        "name": f"proxy {number % 3}",
                        "publish_addr": "*",
                        "publish_port": 0,
                    }
                    | more
                ),
                st.integers(0, 4),
                st.one_of(st.just({}), st.fixed_dictionaries({"allow_from": NETWORKS})),
            ),
            st.builds(
                lambda number: {"id": number, "bound": [{"host": "::", "port": 80}]},
                st.integers(0, 2),
            ),
        ),
        max_size=3,
    ),
}


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A message of which most values are right."""
    message = {"type": draw(st.sampled_from(KINDS))}
    message |= {key: draw(value) for key, value in RIGHT.items()}
    message |= draw(st.dictionaries(KEYS, VALUES, max_size=2))
    for key in draw(st.lists(KEYS, max_size=2)):
        message.pop(key, None)
    # What Python writes for odd floats and surrogates is what lax peers send.
    return frame(json.dumps(message, ensure_ascii=draw(st.booleans())).encode(errors="replace"))


LENGTHS = st.one_of(
    st.integers(0, 40),
    st.sampled_from(
        [
            limits.MAX_FRAME_BEFORE_AUTHENTICATION,
            limits.MAX_FRAME_BEFORE_AUTHENTICATION + 1,
            limits.MAX_FRAME_AFTER_AUTHENTICATION + 1,
            2**32 - 1,
        ]
    ),
)
BODIES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value, ensure_ascii=True).encode()),
    st.sampled_from([b"[" * 4000, b'{"a":' * 800, b"1" * 4000, b'{"a":1,"a":1}', b"\xff"]),
)
WIRES = st.lists(
    st.one_of(
        nearly_right(),
        BODIES.map(frame),
        st.builds(lambda size, body: struct.pack("!I", size) + body, LENGTHS, BODIES),
    ),
    max_size=4,
).map(b"".join)
CUTS = st.lists(st.integers(1, 300), min_size=1, max_size=10)


# --- The handshake --------------------------------------------------------------------------------

TOO_EARLY = "the client sent more than it was asked for"


def check_handshake(where: str, wire: bytes, cuts: list[int]) -> None:
    """Any bytes give an event or a documented error, and the same one however they are cut."""
    answers = [answer(where, wire, pieces) for pieces in ([len(wire) or 1], cuts, [1])]
    # What comes too early is only seen by a server that has it already.
    if (RemoteProtocolError, TOO_EARLY) not in answers:
        assert answers[1] == answers[2] == answers[0]


def answer(where: str, wire: bytes, cuts: list[int]) -> object:
    """What an end in that state says first about these bytes and about the end behind them.

    It is not asked again: what it answers itself is the business of other checks.
    """
    make, state, _kind = WAITING[where]
    end = make(state)
    position = turn = 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        end.receive_data(wire[position : position + size])
        position, turn = position + size, turn + 1
        said = ask(end)
        assert len(end.trailing_data) <= max(size, end._decoder.limit + 4), "keeps too much"
        if said is not NEED_DATA:
            return said
    end.receive_data(b"")
    said = ask(end)
    assert said is not NEED_DATA, "waits for what will never come"
    return said


def ask(end: Handshake) -> object:
    """What the end says now; an error as its type and text, after a look at what is left."""
    try:
        return end.next_event()
    except (Refused, RemoteProtocolError) as caught:
        error = caught
    check_failed(end)
    assert str(error).isprintable()
    if isinstance(error, Refused):
        assert len(error.text) <= limits.MAX_REFUSAL_TEXT
        assert 0 <= (error.retry_after or 0) <= limits.MAX_RETRY_AFTER
    return type(error), str(error)


def check_failed(end: Handshake) -> None:
    """It keeps nothing, takes nothing, and says that it has failed."""
    end.receive_data(b"more")
    assert end.trailing_data == b""
    try:
        end.next_event()
    except RemoteProtocolError:
        return
    raise AssertionError("an end that has failed goes on")


# --- Messages and preambles -----------------------------------------------------------------------


def check_messages(wire: bytes) -> None:
    """What can be read can be written, and is then read as the same again."""
    decoder = FrameDecoder(limits.MAX_FRAME_AFTER_AUTHENTICATION)
    decoder.feed(wire)
    said = ""
    try:
        while (piece := decoder.next_frame()) is not None:
            message = messages.decode(piece)
            if not isinstance(message, messages.Unknown):
                assert messages.decode(messages.encode(message)) == message
    except RemoteProtocolError as error:
        said = str(error)
    assert said.isprintable()


HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ADDRESSES = st.builds(Address, HOSTS, st.integers(0, 65_535))
PREAMBLES = st.builds(
    build_preamble,
    ADDRESSES,
    ADDRESSES,
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
)


@st.composite
def spoilt_preambles(draw: st.DrawFn) -> bytes:
    """A preamble with a few bytes changed, left out or put in."""
    wire = bytearray(draw(PREAMBLES))
    for position in draw(st.lists(st.integers(0, len(wire) - 1), max_size=3)):
        wire[position] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        position = draw(st.integers(0, len(wire)))
        wire[position : position + draw(st.integers(0, 3))] = draw(st.binary(max_size=8))
    return bytes(wire) + draw(st.binary(max_size=20))


def check_preamble(wire: bytes, cuts: list[int]) -> None:
    """Any bytes give a header, an error or patience, and the same however they are cut."""
    assert preamble(wire, cuts) == preamble(wire, [len(wire) or 1]) == preamble(wire, [1])


def preamble(wire: bytes, cuts: list[int]) -> object:
    decoder = PreambleDecoder()
    position = turn = 0
    while position < len(wire):
        piece = wire[position : position + cuts[turn % len(cuts)]]
        turn += 1
        try:
            taken, header = decoder.feed(memoryview(piece))
        except RemoteProtocolError as error:
            return str(error)
        position += taken
        if header is not None:
            return position, header
        assert taken == len(piece)
        assert position <= limits.MAX_PREAMBLE, "keeps too much"
    return NEED_DATA


# --- A man in the middle --------------------------------------------------------------------------

#: What the proofs cover; the last proof itself may be spelled differently.
COVERED = ("1", "2a", "2b", "3a")


def check_middle(which: str, change: Callable[[bytes], bytes]) -> None:
    """Whatever is changed in what the proofs cover, one of the two ends notices."""
    changed = []

    def meddle(name: str, wire: bytes) -> bytes:
        made = change(wire) if name == which else wire
        changed.append(made != wire)
        return made

    try:
        meet(change=meddle)
    except (Refused, RemoteProtocolError):
        return
    assert not any(changed), f"nobody noticed a change of {which}"


@attrs.frozen
class Splice:
    """Some bytes of a frame replaced by others."""

    position: int
    gone: int
    put: bytes

    def __call__(self, wire: bytes) -> bytes:
        position = self.position % (len(wire) + 1)
        return wire[:position] + self.put + wire[position + self.gone :]


SPLICES = st.builds(
    Splice, st.integers(0, 1000), st.integers(0, 4), st.one_of(st.binary(max_size=4), WIRES)
)


# --- Running --------------------------------------------------------------------------------------

QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def fuzz_handshake(profile: settings) -> None:
    """Each end in each state, and whatever a peer may send."""
    ends = st.sampled_from(sorted(WAITING))
    profile(given(where=ends, wire=WIRES, cuts=CUTS)(check_handshake))()


def fuzz_messages(profile: settings) -> None:
    """The reader and the writer of messages."""
    profile(given(wire=WIRES)(check_messages))()


def fuzz_preamble(profile: settings) -> None:
    """The reader of preambles."""
    profile(given(wire=spoilt_preambles(), cuts=CUTS)(check_preamble))()


def fuzz_middle(profile: settings) -> None:
    """An honest handshake with an attacker in between."""
    profile(given(which=st.sampled_from(COVERED), change=SPLICES)(check_middle))()


FUZZERS = (fuzz_handshake, fuzz_messages, fuzz_preamble, fuzz_middle)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the tunnel protocol.")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    start = time.monotonic()
    rounds = 0
    while (spent := time.monotonic() - start) < arguments.seconds:
        print(f"\r{spent:6.0f} s, {rounds} rounds", end="", flush=True)
        for fuzz in FUZZERS:
            fuzz(settings(QUICK, derandomize=False, max_examples=200))
        rounds += 1
    print(f"\r{time.monotonic() - start:6.0f} s, {rounds} rounds, nothing found")


if __name__ == "__main__":
    main()
