"""PROXY protocol headers: what a server puts before a visitor's bytes, and the local ones."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address
from tunnel.protocol.preamble import (
    Preamble,
    PreambleDecoder,
    build_forwarded_preamble,
    build_preamble,
    build_visit_preamble,
    proxy_v1,
    proxy_v2,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
ID = bytes.fromhex("0123456789abcdef")
FOUR = Address("192.0.2.7", 50_000), Address("198.51.100.1", 443)
SIX = Address("2001:db8::7", 50_000), Address("2001:db8::1", 443)
TCP4 = bytes.fromhex("c0000207 c6336401 c350 01bb")
TCP6 = bytes.fromhex("20010db8000000000000000000000007 20010db8000000000000000000000001 c350 01bb")
TLVS = bytes.fromhex("05 0008 0123456789abcdef  e0 0004 00000003")

PORTS = st.integers(0, 65535)
IPV4 = st.builds(Address, st.ip_addresses(v=4).map(str), PORTS)
IPV6 = st.builds(Address, st.ip_addresses(v=6).map(str), PORTS)


def header(family, body, command=0x21, signature=SIGNATURE):
    return signature + struct.pack("!BBH", command, family, len(body)) + body


def decode(wire, size=None):
    """All that a decoder makes of these bytes, given in pieces: what it took, and the header."""
    decoder = PreambleDecoder()
    total = 0
    for start in range(0, len(wire), size or len(wire)):
        piece = wire[start : start + (size or len(wire))]
        taken, preamble = decoder.feed(piece)
        total += taken
        if preamble is not None:
            return total, preamble
        assert taken == len(piece)
    return total, None


# --- Ours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ends", "family", "body"), [(FOUR, 0x11, TCP4), (SIX, 0x21, TCP6)])
def test_the_bytes_of_a_preamble(ends, family, body):
    assert build_preamble(*ends, 3, ID) == header(family, body + TLVS)


@given(st.one_of(st.tuples(IPV4, IPV4), st.tuples(IPV6, IPV6)), st.integers(0, 2**32 - 1))
def test_what_is_built_is_read(ends, proxy_id):
    wire = build_preamble(*ends, proxy_id, ID)
    assert decode(wire) == (len(wire), Preamble(*ends, proxy_id, ID))


@given(IPV4, IPV6)
def test_two_kinds_of_addresses_meet_as_ipv6(four, six):
    wire = build_preamble(four, six, 1, ID)
    assert wire[13] == 0x21
    assert wire[16:32] == bytes(10) + b"\xff\xff" + bytes(map(int, four.host.split(".")))
    _taken, preamble = decode(wire)
    assert preamble.destination == six
    assert preamble.source.port == four.port
    back = build_preamble(six, four, 1, ID)
    assert back[16:32] == wire[32:48]
    assert back[32:48] == wire[16:32]


def test_a_scope_stays_at_home():
    scoped = Address("fe80::1%eth0", 1)
    assert build_preamble(scoped, SIX[1], 1, ID) == build_preamble(
        Address("fe80::1", 1), SIX[1], 1, ID
    )


@pytest.mark.parametrize("ends", [FOUR, SIX])
@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 1000])
def test_pieces_make_no_difference(ends, size):
    wire = build_preamble(*ends, 9, ID)
    expected = Preamble(*ends, 9, ID)
    assert decode(wire, size) == (len(wire), expected)
    assert decode(wire + b"GET / HTTP/1.1", size) == (len(wire), expected)


def outcome(wire, size=None):
    """The same, or the error that it makes."""
    try:
        return decode(wire, size)
    except RemoteProtocolError as error:
        return str(error)


@pytest.mark.parametrize("behind", [b"", b"GET"])
def test_a_header_is_read_whole_as_it_is_read_piece_by_piece_whatever_is_changed(behind):
    wire = build_preamble(*FOUR, 3, ID) + behind
    assert outcome(wire) == outcome(wire, 1)
    for index in range(len(wire)):
        for mask in (0x01, 0x10, 0x80, 0xFF):
            changed = bytearray(wire)
            changed[index] ^= mask
            assert outcome(bytes(changed)) == outcome(bytes(changed), 1)


def test_a_view_does_as_well_as_bytes():
    wire = memoryview(bytearray(build_preamble(*FOUR, 9, ID) + b"visitor"))
    taken, preamble = PreambleDecoder().feed(wire)
    assert bytes(wire[taken:]) == b"visitor"
    assert preamble == Preamble(*FOUR, 9, ID)


def test_the_decoder_keeps_no_view_of_a_buffer_that_will_be_used_again():
    scratch = bytearray(build_preamble(*FOUR, 9, ID))
    decoder = PreambleDecoder()
    decoder.feed(memoryview(scratch)[:20])
    rest = bytes(scratch[20:])
    scratch[:] = bytes(len(scratch))
    assert decoder.feed(rest) == (len(rest), Preamble(*FOUR, 9, ID))


@pytest.mark.parametrize("ends", [FOUR, SIX])
def test_a_header_cut_short_is_waited_for(ends):
    wire = build_preamble(*ends, 9, ID)
    for size in range(len(wire)):
        decoder = PreambleDecoder()
        assert decoder.feed(wire[:size]) == (size, None)
        assert decoder.feed(b"") == (0, None)


@pytest.mark.parametrize("ends", [FOUR, SIX])
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_a_changed_byte_gives_a_header_or_an_error(ends, mask):
    wire = build_preamble(*ends, 9, ID)
    good = Preamble(*ends, 9, ID)
    fixed = 16
    for position in range(len(wire)):
        changed = bytearray(wire)
        changed[position] ^= mask
        try:
            taken, preamble = decode(bytes(changed))
        except RemoteProtocolError:
            # Addresses and ports are what they are; all the rest has a form.
            assert not fixed <= position < len(wire) - len(TLVS)
            continue
        assert taken <= len(wire)
        assert preamble != good
        assert position >= fixed - 2 or preamble is None


def test_what_is_not_for_us_is_skipped():
    """TLVs of later versions, and those of the specification that say nothing to us."""
    more = bytes.fromhex("04 0002 0000  ef 0000  03 0004 deadbeef")
    wire = header(0x11, TCP4 + more + TLVS)
    assert decode(wire) == (len(wire), Preamble(*FOUR, 3, ID))


def test_a_header_of_exactly_the_largest_size():
    room = limits.MAX_PREAMBLE - 16 - len(TCP4) - len(TLVS) - 3
    filler = struct.pack("!BH", 0x04, room) + bytes(room)
    wire = header(0x11, TCP4 + TLVS + filler)
    assert len(wire) == limits.MAX_PREAMBLE
    assert decode(wire) == (limits.MAX_PREAMBLE, Preamble(*FOUR, 3, ID))
    with pytest.raises(RemoteProtocolError, match="bytes"):
        decode(header(0x11, TCP4 + TLVS + filler + b"x"))


WRONG = {
    "another signature": header(0x11, TCP4 + TLVS, signature=SIGNATURE[:-1] + b"\r"),
    "version 1": proxy_v1(*FOUR),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "version 3": header(0x11, TCP4 + TLVS, command=0x31),
    "a LOCAL command": header(0x11, TCP4 + TLVS, command=0x20),
    "an unknown command": header(0x11, TCP4 + TLVS, command=0x22),
    "no family": header(0x00, TCP4 + TLVS),
    "UDP": header(0x12, TCP4 + TLVS),
    "a Unix socket": header(0x31, bytes(216) + TLVS),
    "nothing": header(0x11, b""),
    "a short address": header(0x11, TCP4[:-1]),
    "a short IPv6 address": header(0x21, TCP6[:-1]),
    "IPv4 called IPv6": header(0x21, TCP4 + TLVS),
    "the largest announced": SIGNATURE + bytes.fromhex("21 11 ffff"),
    "no TLV": header(0x11, TCP4),
    "no proxy id": header(0x11, TCP4 + TLVS[:11]),
    "no connection id": header(0x11, TCP4 + TLVS[11:]),
    "the proxy id twice": header(0x11, TCP4 + TLVS + TLVS[11:]),
    "the connection id twice": header(0x11, TCP4 + TLVS + TLVS[:11]),
    "half a TLV": header(0x11, TCP4 + TLVS + b"\x04\x00"),
    "a TLV beyond the header": header(0x11, TCP4 + TLVS + b"\x04\x00\x01"),
    "a proxy id of 3 bytes": header(0x11, TCP4 + TLVS[:11] + bytes.fromhex("e0 0003 000003")),
    "a proxy id of 5 bytes": header(0x11, TCP4 + TLVS[:11] + bytes.fromhex("e0 0005 0000000003")),
    "both ids": header(0x11, TCP4 + TLVS + bytes.fromhex("e1 0004 00000003")),
    "a visitor id of 3 bytes": header(0x11, TCP4 + TLVS[:11] + bytes.fromhex("e1 0003 000003")),
    "a short proof": header(0x11, TCP4 + TLVS + b"\xe2\0\x3f" + bytes(63)),
    "a guest without a flag": header(0x11, TCP4 + TLVS + b"\xe3\0\0"),
    "a guest with an odd flag": header(0x11, TCP4 + TLVS + b"\xe3\0\2\2a"),
    "a guest without a name": header(0x11, TCP4 + TLVS + b"\xe3\0\1\1"),
    "a guest with a line break": header(0x11, TCP4 + TLVS + b"\xe3\0\3\1a\n"),
    "a guest that is not UTF-8": header(0x11, TCP4 + TLVS + b"\xe3\0\2\1\xff"),
    "an empty proxy id": header(0x11, TCP4 + TLVS[:11] + bytes.fromhex("e0 0000")),
    "a connection id of 7 bytes": header(0x11, TCP4 + b"\5\0\7" + ID[:7] + TLVS[11:]),
    "a connection id of 9 bytes": header(0x11, TCP4 + b"\5\0\x09" + ID + b"x" + TLVS[11:]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_server_of_ours_sends(name):
    with pytest.raises(RemoteProtocolError, match="PROXY"):
        decode(WRONG[name])
    with pytest.raises(RemoteProtocolError, match="PROXY"):
        decode(WRONG[name], 1)


@pytest.mark.parametrize("name", ["HTTP", "the largest announced", "no TLV"])
def test_a_decoder_that_has_failed_goes_on_failing(name):
    decoder = PreambleDecoder()
    for _ in range(3):
        with pytest.raises(RemoteProtocolError):
            decoder.feed(WRONG[name])


@given(st.binary(max_size=120))
@example(header(0x11, TCP4 + TLVS))
def test_any_tlvs_give_a_header_or_an_error(body):
    wire = header(0x11, TCP4 + body)
    try:
        assert decode(wire)[0] == len(wire)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            decode(wire, 1)


# --- For local services ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        # The examples and the longest lines of the specification, section 2.1.
        (
            Address("192.168.0.1", 56324),
            Address("192.168.0.11", 443),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ),
        (
            Address("255.255.255.255", 65535),
            Address("255.255.255.255", 65535),
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ),
        (
            Address(":".join(["ffff"] * 8), 65535),
            Address(":".join(["ffff"] * 8), 65535),
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
            b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ),
        (*SIX, b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n"),
        (
            Address("fe80::1%eth0", 1),
            Address("fe80::2%eth0", 2),
            b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
        ),
        (FOUR[0], SIX[1], b"PROXY UNKNOWN\r\n"),
        (SIX[0], FOUR[1], b"PROXY UNKNOWN\r\n"),
    ],
)
def test_version_1(source, destination, line):
    assert proxy_v1(source, destination) == line
    # Section 2.1: a receiver may rely on 107 characters, CRLF included, being enough.
    assert len(line) <= 107


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # Section 2.2: signature, 0x21 for version 2 and PROXY, family and protocol, length.
        (FOUR, "0d0a0d0a000d0a515549540a 21 11 000c c0000207 c6336401 c350 01bb"),
        (
            SIX,
            "0d0a0d0a000d0a515549540a 21 21 0024 20010db8000000000000000000000007"
            "20010db8000000000000000000000001 c350 01bb",
        ),
        (
            (FOUR[0], SIX[1]),
            "0d0a0d0a000d0a515549540a 21 21 0024 00000000000000000000ffffc0000207"
            "20010db8000000000000000000000001 c350 01bb",
        ),
    ],
)
def test_version_2(ends, expected):
    assert proxy_v2(*ends) == bytes.fromhex(expected)


@given(st.one_of(IPV4, IPV6), st.one_of(IPV4, IPV6))
def test_local_services_never_see_our_ids(source, destination):
    wire = proxy_v2(source, destination)
    assert len(wire) == 16 + (12 if wire[13] == 0x11 else 36)
    with pytest.raises(RemoteProtocolError, match="without a connection id"):
        decode(wire)


# --- Guests of other clients ---------------------------------------------------------------------

PROOF = bytes(range(64))


@pytest.mark.parametrize("proof", [b"", PROOF])
@pytest.mark.parametrize("ends", [FOUR, SIX])
def test_what_a_visiting_client_sends_is_read(ends, proof):
    wire = build_visit_preamble(*ends, 7, ID, proof)
    expected = Preamble(*ends, None, ID, visitor_id=7, proof=proof)
    assert decode(wire) == (len(wire), expected)


@given(names=st.text("abc数据库", min_size=1, max_size=64), assigned=st.booleans())
@pytest.mark.parametrize("proof", [b"", PROOF])
def test_what_the_owner_reads_is_the_servers_word_and_the_visitors_proof(names, assigned, proof):
    visit = Preamble(*SIX, None, ID, visitor_id=7, proof=proof)
    wire = build_forwarded_preamble(*FOUR, 3, visit, names, assigned=assigned)
    taken, seen = decode(wire)
    assert taken == len(wire) <= limits.MAX_PREAMBLE
    assert seen == Preamble(
        *FOUR, 3, ID, None, proof, through=names, assigned=assigned, claimed=str(SIX[0])
    )


def test_a_visiting_client_cannot_give_itself_a_name():
    """Of such a stream a server reads no name, whatever is in it."""
    wire = header(0x11, TCP4 + TLVS[:11] + bytes.fromhex("e1 0004 00000003  e3 0002 0161"))
    assert decode(wire)[1].through is None
