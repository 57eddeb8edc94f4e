"""Which message may come when, ends at every point, and ends that have failed."""

import pytest

from tests.protocol.parts import (
    ANSWERS,
    CLIENT_ACTS,
    INSTANCE_ID,
    PROXIES,
    SERVER_ACTS,
    WAITING,
    client,
    client_in,
    frame,
    hear,
    meet,
    opened,
    server,
    server_in,
    split,
)
from tunnel import limits
from tunnel.errors import LocalProtocolError, Refused, RemoteProtocolError
from tunnel.model import Address, RefusalCode, RejectionCode
from tunnel.protocol import messages
from tunnel.protocol.handshake import (
    CLIENT,
    NEED_DATA,
    SERVER,
    ConfiguredReceived,
    ConfigureReceived,
    State,
)
from tunnel.protocol.messages import (
    Authenticate,
    Authenticated,
    Bound,
    Capabilities,
    Challenge,
    Configure,
    Configured,
    Proof,
    ProxyRequest,
    RefusedMessage,
    Rejected,
    Stopping,
)

MESSAGES = (
    Challenge(1, ("certificate",), bytes(32)),
    Authenticate(
        1, "certificate", bytes(32), bytes(16), "x", "00" * 16, INSTANCE_ID, 1, Capabilities()
    ),
    Proof(bytes(32)),
    Authenticated("00" * 16, "x", "1", Capabilities()),
    RefusedMessage(RefusalCode.BUSY, "come back later"),
    Configure(PROXIES),
    Configured(ANSWERS),
    Bound(0, (Address("0.0.0.0", 80),)),
    Stopping(),
)
WIRES = {message.kind: messages.encode(message) for message in MESSAGES}
WIRES["unknown"] = frame({"type": "hello of a later version"})


def made(where):
    make, state, _expected = WAITING[where]
    return make(state)


def test_every_state_is_looked_at():
    waiting = {(make.__name__, state) for make, state, _kind in WAITING.values()}
    assert waiting == {("server_in", state.name) for state in SERVER} | {
        ("client_in", state.name) for state in CLIENT
    }
    looked_at = {state for _make, state in waiting} | {*SERVER_ACTS, *CLIENT_ACTS, "FAILED"}
    assert looked_at == set(State.__members__)


@pytest.mark.parametrize("where", WAITING)
@pytest.mark.parametrize("kind", WIRES)
def test_a_message_at_the_wrong_time(where, kind):
    if kind == WAITING[where][2]:
        return
    end = made(where)
    if kind == "refused" and where.startswith("client"):
        with pytest.raises(Refused) as caught:
            hear(end, WIRES[kind])
        assert caught.value.code is RefusalCode.BUSY
    else:
        with pytest.raises(RemoteProtocolError, match=r"came while this end|only a server refuses"):
            hear(end, WIRES[kind])
    has_failed(end)


def has_failed(end):
    """Whatever is asked of it, it says that it is over, and it keeps nothing any more."""
    end.receive_data(WIRES["challenge"])
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="failed before"):
            end.next_event()
    assert end.trailing_data == b""
    calls = [
        lambda: end.challenge(),
        lambda: end.accept(name="x"),
        lambda: end.configured(()),
        lambda: end.authenticate(),
        lambda: end.configure(()),
    ]
    own = [0, 1, 2] if hasattr(end, "refuse") else [3, 4]
    for index in own:
        with pytest.raises(LocalProtocolError, match="has failed"):
            calls[index]()


@pytest.mark.parametrize("where", WAITING)
def test_the_end_of_the_connection(where):
    end = made(where)
    with pytest.raises(RemoteProtocolError, match="closed"):
        hear(end, b"", eof=True)
    has_failed(end)


@pytest.mark.parametrize("where", WAITING)
@pytest.mark.parametrize("size", [1, 4, 20])
def test_the_end_of_the_connection_within_a_message(where, size):
    end = made(where)
    assert hear(end, WIRES[WAITING[where][2]][:size]) is NEED_DATA
    with pytest.raises(RemoteProtocolError, match="closed"):
        hear(end, b"", eof=True)


@pytest.mark.parametrize("where", WAITING)
def test_what_came_before_the_end_counts(where):
    """A refusal and the end of the connection arrive together."""
    end = made(where)
    end.receive_data(WIRES["refused"])
    end.receive_data(b"")
    error = Refused if where.startswith("client") else RemoteProtocolError
    with pytest.raises(error):
        end.next_event()


@pytest.mark.parametrize("where", WAITING)
def test_nothing_new_is_nothing_wrong(where):
    end = made(where)
    for _ in range(3):
        assert end.next_event() is NEED_DATA


# --- An end that has to act does not wait ---------------------------------------------------------

ACTS = {
    "challenge": ("START", lambda end: end.challenge()),
    "accept": ("DECIDE", lambda end: end.accept(name="x")),
    "configured": ("ANSWER_CONFIGURE", lambda end: end.configured(ANSWERS)),
    "authenticate": ("ANSWER_CHALLENGE", lambda end: end.authenticate()),
    "configure": ("CONFIGURE", lambda end: end.configure(PROXIES)),
}
SERVER_STATES = (*SERVER_ACTS, *(state.name for state in SERVER))
CLIENT_STATES = (*CLIENT_ACTS, *(state.name for state in CLIENT))


@pytest.mark.parametrize("name", ACTS)
def test_each_step_has_its_time(name):
    right, act = ACTS[name]
    ours = right in SERVER_ACTS
    make, states = (server_in, SERVER_STATES) if ours else (client_in, CLIENT_STATES)
    for state in states:
        end = make(state)
        if state == right:
            assert act(end)
            continue
        with pytest.raises(LocalProtocolError, match="this end"):
            act(end)
        assert end._state.name == state


@pytest.mark.parametrize(
    ("make", "state"),
    [
        *((server_in, state) for state in SERVER_ACTS),
        *((client_in, state) for state in CLIENT_ACTS),
    ],
)
def test_whoever_has_to_act_cannot_wait(make, state):
    end = make(state)
    with pytest.raises(LocalProtocolError, match="this end"):
        end.next_event()
    assert end._state.name == state


@pytest.mark.parametrize("state", [state for state in SERVER_STATES if state != "DONE"])
def test_a_server_may_refuse_until_yamux_begins(state):
    end = server_in(state)
    wire = end.refuse(RefusalCode.STOPPING, "bye", 5)
    assert opened(wire) == {"type": "refused", "code": "stopping", "text": "bye", "retry_after": 5}
    has_failed(end)


def test_a_refusal_would_be_noise_in_yamux():
    end = server_in("DONE")
    with pytest.raises(LocalProtocolError, match="too late"):
        end.refuse(RefusalCode.STOPPING, "bye")


def test_a_server_that_has_failed_may_say_why():
    end = server_in("AWAIT_AUTHENTICATE")
    with pytest.raises(RemoteProtocolError):
        hear(end, WIRES["configure"])
    assert opened(end.refuse(RefusalCode.PROTOCOL, "no"))["code"] == "protocol"


# --- Versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 2**32 - 1])
def test_another_version_is_named_whatever_else_it_changed(version):
    with pytest.raises(Refused) as caught:
        hear(client(), frame({"type": "challenge", "version": version, "nonce": 1}))
    assert caught.value.code is RefusalCode.VERSION
    assert str(version) in caught.value.text
    end = server_in("AWAIT_AUTHENTICATE")
    with pytest.raises(Refused) as caught:
        hear(end, frame({"type": "authenticate", "version": version}))
    assert caught.value.code is RefusalCode.VERSION


# --- More than was asked for ----------------------------------------------------------------------


def test_a_client_that_does_not_wait_for_its_answer():
    """Behind the proof and behind `configure` comes nothing before the server has answered."""
    one, other = server(), client()
    hear(other, one.challenge())
    with pytest.raises(RemoteProtocolError, match="more than it was asked for"):
        hear(one, other.authenticate() + b"\0")
    has_failed(one)
    with pytest.raises(RemoteProtocolError, match="more than it was asked for"):
        hear(server_in("AWAIT_CONFIGURE"), WIRES["configure"] + b"\0")


def test_read_ahead_is_refused_before_the_proof_is_looked_at():
    end = server_in("AWAIT_CLIENT_PROOF", lookup=lambda _key_id: pytest.fail("looked"))
    with pytest.raises(RemoteProtocolError, match="more than it was asked for"):
        hear(end, WIRES["proof"] + b"x")


def test_what_follows_configured_is_the_link_s():
    yamux = b"\0\2\0\1" + bytes(8)
    end = client_in("AWAIT_CONFIGURED")
    assert isinstance(hear(end, messages.encode(Configured(ANSWERS)) + yamux), ConfiguredReceived)
    assert end.trailing_data == yamux


def test_nothing_follows_when_nothing_follows():
    one, other, _heard = meet()
    assert one.trailing_data == other.trailing_data == b""


# --- Pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_pieces_make_no_difference(size):
    def told(end, wire):
        for start in range(0, len(wire) - 1, size):
            end.receive_data(wire[start : min(start + size, len(wire) - 1)])
            assert end.next_event() is NEED_DATA
        return hear(end, wire[-1:])

    whole = meet()[2]
    one, other = server(), client()
    assert told(other, one.challenge()) == whole["1"]
    assert (proved := told(one, other.authenticate())) == whole["2b"]
    assert told(other, one.accept(name=proved.name)) == whole["3b"]
    assert told(one, other.configure(PROXIES)) == whole["4"]
    assert told(other, one.configured(ANSWERS)) == whole["5"]


# --- What each end hears --------------------------------------------------------------------------


def test_the_server_assigns_the_name():
    one, other = server(), client(name="wish")
    hear(other, one.challenge())
    assert hear(one, other.authenticate()).name == "wish"
    assert hear(other, one.accept(name="正式的名字")).name == "正式的名字"


@pytest.mark.parametrize("make", [server, client])
def test_capabilities_are_told(make):
    mine = Capabilities(1024, 1, 2, 2**20, ("datagrams", "更多"))
    ends = (
        (server(capabilities=mine), client())
        if make is server
        else (None, client(capabilities=mine))
    )
    _one, _other, heard = meet(*ends)
    assert heard["3b" if make is server else "2b"].capabilities == mine


def test_proxies_and_answers_arrive_as_they_were():
    answers = (
        Bound(7, (Address("2001:db8::1", 1), Address("192.0.2.1", 65535))),
        Rejected(3, RejectionCode.IN_USE, "another client has port 80"),
    )
    end = server_in("AWAIT_CONFIGURE")
    assert hear(end, messages.encode(Configure(PROXIES))) == ConfigureReceived(PROXIES)
    other = client_in("AWAIT_CONFIGURED")
    assert hear(other, end.configured(answers)) == ConfiguredReceived(answers)


def test_a_client_without_proxies():
    one, other = server_in("AWAIT_CONFIGURE"), client_in("CONFIGURE")
    assert hear(one, other.configure(())) == ConfigureReceived(())
    assert hear(other, one.configured(())) == ConfiguredReceived(())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_answer_too_many_or_too_few(count):
    answers = tuple(Bound(number, (Address("::", 80),)) for number in range(count))
    end = client_in("AWAIT_CONFIGURED")
    with pytest.raises(RemoteProtocolError, match="every proxy"):
        hear(end, messages.encode(Configured(answers)))


# --- Sizes ----------------------------------------------------------------------------------------

BEFORE = limits.MAX_FRAME_BEFORE_AUTHENTICATION
AFTER = limits.MAX_FRAME_AFTER_AUTHENTICATION
AUTHENTICATED = ("server AWAIT_CONFIGURE", "client AWAIT_CONFIGURED")


@pytest.mark.parametrize("where", WAITING)
@pytest.mark.parametrize("announced", [0, BEFORE + 1, AFTER + 1, 2**31, 2**32 - 1])
def test_a_length_that_nobody_needs(where, announced):
    """Refused as soon as it is announced, and nothing of it is kept."""
    end = made(where)
    wire = announced.to_bytes(4, "big")
    if where in AUTHENTICATED and 0 < announced <= AFTER:
        assert hear(end, wire) is NEED_DATA
        return
    with pytest.raises(RemoteProtocolError, match=f"a message of {announced} bytes"):
        hear(end, wire)
    has_failed(end)


def padded(wire, size):
    """The same message in a body of exactly that size."""
    body = wire[4:]
    return size.to_bytes(4, "big") + body + b" " * (size - len(body))


@pytest.mark.parametrize("where", WAITING)
def test_a_message_of_the_largest_size(where):
    make, state, kind = WAITING[where]
    most = AFTER if where in AUTHENTICATED else BEFORE
    largest = padded(WIRES[kind], most)
    if kind == "proof":
        with pytest.raises((Refused, RemoteProtocolError), match=r"auth_key"):
            hear(make(state), largest)
    else:
        hear(make(state), largest)
    with pytest.raises(RemoteProtocolError, match="at most"):
        hear(make(state), padded(WIRES[kind], most + 1)[: 4 + most])


CHINESE, ASTRAL = "网", "\N{CJK UNIFIED IDEOGRAPH-20000}"
LONGEST_HOST = "1111:2222:3333:4444:5555:6666:7777:8888"
LONGEST_NETWORK = f"{LONGEST_HOST}/128"


def most_proxies(letter):
    """As many proxies as there may be, with names as long as there may be, and as many networks."""
    networks = (LONGEST_NETWORK,) * (limits.MAX_ALLOW_FROM_TOGETHER // limits.MAX_PROXIES)
    return tuple(
        ProxyRequest(f"{number:03}" + letter * 61, LONGEST_HOST, 65535, 65535, 65535, networks)
        for number in range(limits.MAX_PROXIES)
    )


def configured_with(answers):
    one, other = server_in("AWAIT_CONFIGURE"), client_in("CONFIGURE")
    proxies = most_proxies(CHINESE)[: len(answers)]
    assert hear(one, other.configure(proxies)) == ConfigureReceived(proxies)
    wire = one.configured(answers)
    assert len(wire) <= 4 + AFTER
    return hear(other, wire)


@pytest.mark.parametrize("letter", [CHINESE, ASTRAL, '"', "\\"])
def test_the_largest_configure_fits(letter):
    proxies = most_proxies(letter)
    one, other = server_in("AWAIT_CONFIGURE"), client_in("CONFIGURE")
    wire = other.configure(proxies)
    assert len(wire) <= 4 + AFTER
    assert hear(one, wire) == ConfigureReceived(proxies)


@pytest.mark.parametrize("letter", [CHINESE, ASTRAL, '"', "\\"])
def test_the_largest_rejections_fit(letter):
    text = letter * limits.MAX_REFUSAL_TEXT
    answers = tuple(
        Rejected(number, RejectionCode.NOT_ALLOWED, text) for number in range(limits.MAX_PROXIES)
    )
    assert configured_with(answers) == ConfiguredReceived(answers)


def test_the_most_addresses_fit():
    addresses = tuple(Address(LONGEST_HOST, 65528 + number) for number in range(8))
    answers = tuple(Bound(number, addresses) for number in range(limits.MAX_PROXIES))
    assert configured_with(answers) == ConfiguredReceived(answers)


def test_the_largest_frames_of_strangers_fit():
    one, other = server(server_version="2" * 64), client(name=ASTRAL * 64, attempt=2**53)
    challenge = one.challenge()
    hear(other, challenge)
    hello = other.authenticate()
    proved = hear(one, hello)
    answer = one.accept(name=proved.name)
    refusal = server().refuse(RefusalCode.ALREADY_CONNECTED, ASTRAL * 300, 60)
    for wire in (*split(challenge + hello + answer), refusal):
        assert len(wire) <= 1024


def test_a_proxy_too_many():
    entry = {"name": "x", "publish_addr": "*", "publish_port": 1}
    proxies = [entry | {"name": str(number)} for number in range(limits.MAX_PROXIES + 1)]
    with pytest.raises(RemoteProtocolError, match="257 entries, more than 256"):
        hear(server_in("AWAIT_CONFIGURE"), frame({"type": "configure", "proxies": proxies}))
