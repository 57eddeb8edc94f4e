import json
from typing import get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.parts import frame, opened
from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address, RefusalCode, RejectionCode
from tunnel.protocol.messages import (
    Authenticate,
    Authenticated,
    Bound,
    Capabilities,
    Challenge,
    Configure,
    Configured,
    Message,
    Proof,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    RefusedMessage,
    Rejected,
    Stopping,
    Target,
    Unknown,
    VisitorRequest,
    decode,
    encode,
)

IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
TOKENS = st.binary(min_size=32, max_size=32)
U32 = st.integers(0, 2**32 - 1)
PORTS = st.integers(0, 65535)
NAMES = st.text("abcXYZ 09-_.数据库é", min_size=1, max_size=64).filter(
    lambda name: name == name.strip()
)
TEXTS = st.text("abc \"\\数据库😀'", max_size=200)
HOSTS = st.ip_addresses().map(str)

CAPABILITIES = st.builds(
    Capabilities,
    st.integers(1024, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(limits.INITIAL_WINDOW, 2**32 - 1),
    st.lists(st.text("abc-", max_size=64), max_size=64).map(tuple),
)
ADDRESSES = st.builds(Address, HOSTS, st.integers(1, 65535))
BOUND = st.builds(Bound, U32, st.lists(ADDRESSES, min_size=1, max_size=8).map(tuple))
REJECTED = st.builds(Rejected, U32, st.sampled_from(RejectionCode), TEXTS)
REQUESTS = st.builds(
    ProxyRequest,
    NAMES,
    HOSTS | st.just("*"),
    PORTS,
    PORTS,
    PORTS,
    visitors_only=st.booleans(),
    allow_visitors=st.lists(NAMES, max_size=3).map(tuple),
    visit_nonce=st.just(b"") | TOKENS,
)


def each_once(key):
    return lambda values: len({key(value) for value in values}) == len(values)


VISITORS = (
    st.lists(
        st.builds(
            VisitorRequest,
            st.integers(0, 2**32 - 1),
            NAMES,
            st.integers(0, 65535),
            st.just("") | NAMES,
        ),
        max_size=6,
    )
    .filter(each_once(lambda visitor: visitor.visitor_id))
    .map(tuple)
)

MESSAGES = {
    Challenge: st.builds(
        Challenge, st.just(1), st.lists(st.text("abc", max_size=32), max_size=8).map(tuple), TOKENS
    ),
    Authenticate: st.builds(
        Authenticate,
        st.just(1),
        st.sampled_from(["certificate", "none", "exporter"]),
        TOKENS,
        st.binary(min_size=16, max_size=16),
        NAMES,
        IDS,
        IDS,
        st.integers(1, 2**53),
        CAPABILITIES,
    ),
    Proof: st.builds(Proof, TOKENS),
    Authenticated: st.builds(
        Authenticated, IDS, NAMES, st.text("1.2rc", max_size=64), CAPABILITIES
    ),
    RefusedMessage: st.builds(
        RefusedMessage, st.sampled_from(RefusalCode), TEXTS, st.none() | st.floats(0, 60)
    ),
    Configure: st.builds(
        Configure,
        st.lists(REQUESTS, max_size=6).filter(each_once(lambda want: want.name)).map(tuple),
        VISITORS,
    ),
    Configured: st.builds(
        Configured,
        st.lists(BOUND | REJECTED, max_size=6).filter(each_once(lambda it: it.proxy_id)).map(tuple),
    ),
    Bound: BOUND,
    Rejected: REJECTED,
    Reconfigure: st.builds(
        lambda removed, wanted, visitors: Reconfigure(
            tuple(number + 10 for number in removed), tuple(enumerate(wanted)), visitors
        ),
        st.sets(st.integers(0, 2**32 - 11), max_size=6).map(tuple),
        st.lists(REQUESTS, max_size=6).filter(each_once(lambda want: want.name)),
        st.none() | VISITORS,
    ),
    Reconfigured: st.builds(
        Reconfigured,
        st.lists(BOUND | REJECTED, max_size=6).filter(each_once(lambda it: it.proxy_id)).map(tuple),
    ),
    Stopping: st.just(Stopping()),
    Target: st.builds(
        Target,
        st.integers(0, 2**32 - 1),
        NAMES,
        st.integers(0, 65535),
        st.just(b"") | TOKENS,
        st.text("abc ", max_size=200),
    )
    | st.builds(Target, st.integers(0, 9), reason=st.text("abc ", max_size=200)),
}
ANY = st.one_of(*MESSAGES.values())


def test_every_message_is_tried_here():
    assert set(MESSAGES) == set(get_args(Message))


@given(ANY)
def test_what_is_encoded_is_decoded(message):
    assert decode(encode(message)) == message


@given(ANY)
def test_keys_of_a_later_version_are_ignored(message):
    said = opened(encode(message)) | {"later": {"deep": [1, None]}}
    assert decode(frame(said)) == message


# --- One key at a time --------------------------------------------------------------------------

HELLO = opened(
    encode(
        Authenticate(
            1, "certificate", bytes(32), bytes(16), "a", "0" * 32, "0" * 32, 1, Capabilities()
        )
    )
)
WELCOME = opened(encode(Authenticated("0" * 32, "a", "1", Capabilities())))
WANTED = opened(encode(Configure((ProxyRequest("web", "*", 80),))))
DONE = opened(
    encode(
        Configured(
            (Bound(0, (Address("::", 80),)), Rejected(1, RejectionCode.IN_USE, "busy")),
        )
    )
)
CHALLENGE = opened(encode(Challenge(1, ("certificate",), bytes(32))))
OTHERWISE = opened(
    encode(Reconfigure((5,), ((0, ProxyRequest("web", "*", 80)), (6, ProxyRequest("a", "*", 0)))))
)
OTHERWISE_DONE = DONE | {"type": "reconfigured"}
REFUSED = {"type": "refused", "code": "busy", "text": "later", "retry_after": 5}

#: Where, what with, and what the error must say.
WRONG = [
    (CHALLENGE, "version", ..., "version is missing"),
    (CHALLENGE, "version", 0, "version is 0, not within 1"),
    (CHALLENGE, "version", True, "version is not a whole number"),
    (CHALLENGE, "version", 1.0, "version is not a whole number"),
    (CHALLENGE, "bindings", "certificate", "bindings is not a list"),
    (CHALLENGE, "bindings", [1], "bindings is not a list of"),
    (CHALLENGE, "bindings", ["x"] * 9, "bindings is not a list of at most 8"),
    (CHALLENGE, "bindings", ["x" * 33], "bindings is not a list of"),
    (CHALLENGE, "nonce", "00" * 31, "nonce is not 64 lowercase"),
    (CHALLENGE, "nonce", "00" * 33, "nonce has 66 characters"),
    (CHALLENGE, "nonce", "AA" * 32, "nonce is not 64 lowercase"),
    (CHALLENGE, "nonce", "0 " * 32, "nonce is not 64 lowercase"),
    (CHALLENGE, "nonce", "0" * 63 + "\n", "nonce is not 64 lowercase"),
    (CHALLENGE, "nonce", "٠" * 64, "nonce is not 64 lowercase"),
    (CHALLENGE, "nonce", None, "nonce is not a text"),
    (HELLO, "type", 5, "type is not a text"),
    (HELLO, "type", "x" * 65, "type has 65 characters"),
    (HELLO, "binding", ["none"], "binding is not a text"),
    (HELLO, "binding", "x" * 33, "binding has 33 characters"),
    (HELLO, "key_id", "00" * 32, "key_id has 64 characters"),
    (HELLO, "name", ..., "name is missing"),
    (HELLO, "name", "", "name must have 1 to 64"),
    (HELLO, "name", "x" * 65, "name must have 1 to 64"),
    (HELLO, "name", " a", "name begins or ends"),
    (HELLO, "name", "e\u0301", "name is not in Unicode's normal form"),
    (HELLO, "name", "a\nb", "name has a control"),
    (HELLO, "name", "a\u202eb", "name has a control"),
    (HELLO, "name", "a\u2028b", "name has a control"),
    (HELLO, "name", "a\u0378b", "name has a control"),
    (HELLO, "client_id", "0" * 31, "client_id is not 32"),
    (HELLO, "instance_id", 7, "instance_id is not a text"),
    (HELLO, "attempt", 0, "attempt is 0"),
    (HELLO, "attempt", True, "attempt is not a whole number"),
    (HELLO, "attempt", 2**53 + 1, "attempt is 9007199254740993"),
    (HELLO, "capabilities", [], "capabilities is not an object"),
    (HELLO, "capabilities", {"max_frame": 1023}, "max_frame is 1023"),
    (HELLO, "capabilities", {"max_streams": 0}, "max_streams is 0"),
    (HELLO, "capabilities", {"backlog": 0}, "backlog is 0"),
    (HELLO, "capabilities", {"window": 1024}, "window is 1024"),
    (HELLO, "capabilities", {"features": ["x"] * 65}, "features is not a list"),
    (HELLO, "capabilities", {"features": {}}, "features is not a list"),
    (WELCOME, "session", "x" * 32, "session is not 32"),
    (WELCOME, "server_version", "1" * 65, "server_version has 65"),
    (WANTED, "proxies", ..., "proxies is missing"),
    (WANTED, "proxies", {}, "proxies is not a list"),
    (WANTED, "proxies", ["web"], "proxies has an entry that is not an object"),
    (WANTED, "proxies", [{}], "name is missing"),
    (WANTED, "proxies", [{}] * 257, "proxies has 257 entries"),
    (WANTED, "proxies", WANTED["proxies"] * 2, "proxies has the same name twice"),
    (WANTED, "proxies.0.publish_addr", "localhost", "publish_addr is neither"),
    (WANTED, "proxies.0.publish_addr", "127.0.0.1/8", "publish_addr is neither"),
    (WANTED, "proxies.0.publish_addr", "127.1", "publish_addr is neither"),
    (WANTED, "proxies.0.publish_addr", "::1%a\nb", "publish_addr is neither"),
    (WANTED, "proxies.0.publish_addr", "::1%", "publish_addr is neither"),
    (WANTED, "proxies.0.publish_addr", "x" * 65, "publish_addr has 65"),
    (WANTED, "proxies.0.publish_port", 65536, "publish_port is 65536"),
    (WANTED, "proxies.0.publish_port", -1, "publish_port is -1"),
    (WANTED, "proxies.0.publish_port", "80", "publish_port is not a whole number"),
    (WANTED, "proxies.0.preferred_port", 65536, "preferred_port is 65536"),
    (WANTED, "proxies.0.local_port", None, "local_port is not a whole number"),
    (WANTED, "visitors", "none", "visitors is not a list"),
    (WANTED, "visitors", [{}] * 257, "visitors has 257 entries"),
    (
        WANTED,
        "visitors",
        [{"id": 1, "name": "db", "publish_port": 0}] * 2,
        "visitors has the same id",
    ),
    (WANTED, "visitors", [{"id": 1, "name": " ", "publish_port": 0}], "name begins"),
    (WANTED, "visitors", [{"id": 1, "name": "d", "publish_port": 0, "owner": ""}], "owner must"),
    (WANTED, "proxies.0.visitors_only", 1, "visitors_only is not true or false"),
    (WANTED, "proxies.0.allow_visitors", ["a", "b\n"], "allow_visitors has a name that"),
    (WANTED, "proxies.0.visit_nonce", "00", "visit_nonce is not 64"),
    (DONE, "proxies", [{}], "neither bound nor rejected"),
    (DONE, "proxies", [{}] * 257, "proxies has 257 entries"),
    (DONE, "proxies", DONE["proxies"][:1] * 2, "proxies has the same id twice"),
    (DONE, "proxies.0.id", ..., "id is missing"),
    (DONE, "proxies.0.id", 2**32, "id is 4294967296"),
    (DONE, "proxies.0.bound", [{"host": "::", "port": 80}] * 9, "bound has 9 entries"),
    (DONE, "proxies.0.bound", [{"host": "::", "port": 0}], "port is 0"),
    (DONE, "proxies.0.bound", [{"host": "a name", "port": 1}], "host is neither"),
    (DONE, "proxies.1.rejected", "busy", "neither bound nor rejected"),
    (DONE, "proxies.1.rejected", {"text": "busy"}, "code is missing"),
    (DONE, "proxies.1.rejected", {"code": "in_use", "text": "x" * 1025}, "text has 1025"),
    (OTHERWISE, "remove", ..., "remove is missing"),
    (OTHERWISE, "remove", 5, "remove is not a list"),
    (OTHERWISE, "remove", [True], "remove is not a list of at most 256 numbers"),
    (OTHERWISE, "remove", [1.0], "remove is not a list of at most 256 numbers"),
    (OTHERWISE, "remove", [-1], "remove is not a list of at most 256 numbers"),
    (OTHERWISE, "remove", [2**32], "remove is not a list of at most 256 numbers to 4294967295"),
    (OTHERWISE, "remove", list(range(257)), "remove is not a list of at most 256"),
    (OTHERWISE, "remove", [5, 5], "proxies has the same id twice"),
    (OTHERWISE, "remove", [0], "proxies has the same id twice"),
    (OTHERWISE, "proxies.1.id", 0, "proxies has the same id twice"),
    (OTHERWISE, "proxies.1.id", ..., "id is missing"),
    (OTHERWISE, "proxies.1.name", "web", "proxies has the same name twice"),
    (OTHERWISE, "proxies", [{}] * 257, "proxies has 257 entries"),
    (OTHERWISE_DONE, "proxies.1.id", 0, "proxies has the same id twice"),
    (OTHERWISE_DONE, "proxies", [{}], "neither bound nor rejected"),
    (OTHERWISE_DONE, "proxies", ..., "proxies is missing"),
    (REFUSED, "code", ..., "code is missing"),
    (REFUSED, "code", "x" * 33, "code has 33"),
    (REFUSED, "text", 5, "text is not a text"),
]


def changed(message, path, value):
    """The message with one key changed, or gone."""
    message = inner = json.loads(json.dumps(message))
    *way, last = path.split(".")
    for step in way:
        inner = inner[int(step) if step.isdigit() else step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return frame(message)


@pytest.mark.parametrize(("message", "path", "value", "reason"), WRONG)
def test_a_wrong_key_is_named(message, path, value, reason):
    with pytest.raises(RemoteProtocolError) as caught:
        decode(changed(message, path, value))
    assert reason in str(caught.value)
    if path != "type":
        assert str(caught.value).startswith(f"{message['type']}: ")


@pytest.mark.parametrize(
    "message", [CHALLENGE, HELLO, WELCOME, WANTED, DONE, OTHERWISE, OTHERWISE_DONE, REFUSED]
)
def test_the_messages_above_are_right_where_nothing_is_changed(message):
    assert not isinstance(decode(frame(message)), Unknown)


def test_names_may_be_chinese():
    assert decode(changed(HELLO, "name", "深圳办公室")).name == "深圳办公室"
    assert decode(changed(HELLO, "name", "a" * 64)).name == "a" * 64


@pytest.mark.parametrize(
    ("came", "read"),
    [
        ("*", "*"),
        ("127.0.0.1", "127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0.7", "fe80::1%eth0.7"),
    ],
)
def test_an_address_has_one_spelling(came, read):
    assert decode(changed(WANTED, "proxies.0.publish_addr", came)).proxies[0].publish_addr == read


# --- Missing and unknown things that are fine ---------------------------------------------------


def test_a_peer_that_says_nothing_of_itself_is_treated_as_any_yamux():
    said = decode(changed(HELLO, "capabilities", ...)).capabilities
    assert said == Capabilities(
        limits.FOREIGN_FRAME,
        limits.FOREIGN_OUTBOUND_STREAMS,
        limits.FOREIGN_BACKLOG,
        limits.INITIAL_WINDOW,
    )


def test_optional_keys():
    entry = {"name": "web", "publish_addr": "*", "publish_port": 80}
    assert decode(frame({"type": "configure", "proxies": [entry]})) == Configure(
        (ProxyRequest("web", "*", 80, 0, 0, ()),)
    )


def test_who_may_visit():
    entry = {"name": "web", "publish_addr": "*", "publish_port": 80}
    message = {"type": "configure", "proxies": [entry | {"allow_from": ["2001:DB8::0/032"]}]}
    (wanted,) = decode(frame(message)).proxies
    assert wanted.allow_from == ("2001:db8::/32",)
    # Who does not say it says nothing at all: those who do not know the key read the same.
    assert (
        "allow_from" not in opened(encode(Configure((ProxyRequest("web", "*", 80),))))["proxies"][0]
    )


@pytest.mark.parametrize(
    "networks",
    [
        "::/0",
        {},
        None,
        [8],
        ["::/0"] * 65,
        ["192.0.2.1/24"],
        ["192.0.2.1"],
        ["example.org/24"],
        ["1.2.3.4/255.255.255.255"],
        ["fe80::%eth0/64"],
        ["::/0\n"],
        [" ::/0"],
        ["::/-1"],
        ["::/129"],
        ["٣.0.0.0/8"],
        ["0" * 60 + "::/0"],
    ],
)
def test_what_is_no_list_of_networks(networks):
    entry = {"name": "web", "publish_addr": "*", "publish_port": 80, "allow_from": networks}
    with pytest.raises(RemoteProtocolError, match="configure: allow_from"):
        decode(frame({"type": "configure", "proxies": [entry]}))


def test_a_notice_of_a_later_version_is_told_apart():
    assert decode(frame({"type": "reload", "what": 1})) == Unknown("reload")
    assert decode(frame({"type": "a\x1b[2J"})) == Unknown("a\ufffd[2J")


@pytest.mark.parametrize("kind", ["challenge", "authenticate"])
def test_of_another_version_only_its_number_is_read(kind):
    assert decode(frame({"type": kind, "version": 2, "nonce": 5})) == Unknown(kind, 2)


def test_codes_of_a_later_version():
    assert decode(frame(REFUSED | {"code": "moon"})).code is RefusalCode.INTERNAL
    rejected = {"code": "moon", "text": "full moon"}
    assert decode(changed(DONE, "proxies.1.rejected", rejected)).answers[1] == Rejected(
        1, RejectionCode.INTERNAL, "full moon"
    )


# --- What strangers write is shown to people ----------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "read"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.5, 0.5),
        (60, 60.0),
        (61, 60.0),
        (10**19, 60.0),
        (1e300, 60.0),
        (-1, None),
        (True, None),
        ("5", None),
        (None, None),
    ],
)
def test_a_wish_to_wait_is_bounded(wish, read):
    assert decode(frame(REFUSED | {"retry_after": wish})).retry_after == read


def test_a_number_beyond_all_floats_is_bounded_too():
    body = b'{"type":"refused","code":"busy","text":"","retry_after":1e999}'
    assert decode(frame(body)).retry_after == limits.MAX_RETRY_AFTER


def test_a_text_cannot_move_the_cursor():
    said = decode(frame(REFUSED | {"text": "a\x1b[2J\u202eb\nc\u2028数"})).text
    assert said == "a\ufffd[2J\ufffdb\ufffdc\ufffd数"


def test_texts_are_cut():
    text = "x" * (limits.MAX_REFUSAL_TEXT + 1)
    assert len(decode(frame(REFUSED | {"text": text})).text) == limits.MAX_REFUSAL_TEXT
    assert len(opened(encode(RefusedMessage(RefusalCode.BUSY, text)))["text"]) == 200
    sent = opened(encode(Configured((Rejected(0, RejectionCode.INTERNAL, text),))))
    assert len(sent["proxies"][0]["rejected"]["text"]) == limits.MAX_REFUSAL_TEXT


def test_a_text_that_no_wire_can_carry_is_sent_all_the_same():
    said = decode(encode(RefusedMessage(RefusalCode.INTERNAL, "disk \udcff")))
    assert said.text == "disk \ufffd"


def test_the_server_version_is_made_harmless():
    assert decode(changed(WELCOME, "server_version", "1\x07")).server_version == "1\ufffd"


def test_proofs_are_not_shown():
    assert repr(Proof(b"secret" * 5 + b"!!")) == "Proof()"


# --- Sizes --------------------------------------------------------------------------------------


def size(message):
    return len(encode(message)) - 4


def test_the_largest_honest_messages_fit():
    name = "\N{GRINNING FACE}" * limits.MAX_NAME_LENGTH
    host = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%ethernet-0.4095"
    largest = Capabilities(*[2**32 - 1] * 4)
    hello = Authenticate(
        1, "certificate", bytes(32), bytes(16), name, "0" * 32, "0" * 32, 2**53, largest
    )
    assert decode(encode(hello)) == hello
    assert size(hello) <= limits.MAX_FRAME_BEFORE_AUTHENTICATION
    host_only = host.partition("%")[0]
    networks = (f"{host_only}/128",) * (limits.MAX_ALLOW_FROM_TOGETHER // limits.MAX_PROXIES)
    guests = (name,) * (limits.MAX_ALLOW_VISITORS_TOGETHER // limits.MAX_PROXIES)
    want = ProxyRequest(name, host, 65535, 65535, 65535, networks, True, guests, bytes(32))
    visit = VisitorRequest(2**32 - 1, name, 65535, name)
    wanted = Configure((want,) * limits.MAX_PROXIES, (visit,) * limits.MAX_VISITORS)
    assert size(wanted) <= limits.MAX_FRAME_AFTER_AUTHENTICATION
    reason = "\N{GRINNING FACE}" * limits.MAX_REFUSAL_TEXT
    rejected = Rejected(2**32 - 1, RejectionCode.BAD_ADDRESS, reason)
    bound = Bound(2**32 - 1, (Address(host, 65535),) * 8)
    for answer in (rejected, bound):
        answers = Configured((answer,) * limits.MAX_PROXIES)
        assert size(answers) <= limits.MAX_FRAME_AFTER_AUTHENTICATION


def test_messages_are_values():
    hello = decode(frame(HELLO))
    assert hello == decode(frame(HELLO))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        hello.attempt = 2
