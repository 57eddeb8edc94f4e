import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.parts import frame
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.framing import FrameDecoder, decode_json, encode_frame, frame_body

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=6)


# --- JSON ---------------------------------------------------------------------------------------


@given(OBJECTS)
def test_what_is_encoded_is_decoded(value):
    assert decode_json(frame_body(encode_frame(value))) == value


def test_text_goes_as_utf_8():
    assert encode_frame({"name": "数据库"}) == frame('{"name":"数据库"}'.encode())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "UTF-8"),
        (b'{"\\udfff": 1}', "UTF-8"),
        (b'{"a": 1', "JSON"),
        (b'{"a": 1} x', "JSON"),
        (b"{'a': 1}", "JSON"),
        (b'{"a": 01}', "JSON"),
        (b'{"a": "\n"}', "JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "JSON"),
        (b"", "JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b'{"a": 1, "a": 1}', "same key twice"),
        (b'{"a": {"b": 1, "b": 2}}', "same key twice"),
        (b'{"a": 1, "\\u0061": 2}', "same key twice"),
        (b'{"a": NaN}', "number NaN"),
        (b'{"a": -Infinity}', "number -Infinity"),
        (b'{"a": 123456789012345678901}', "too many digits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a":' + b"[" * 30_000, "nested"),
        (b'{"a":' * 10_000, "nested"),
        (b'{"a":"' + b"]" * 30_000 + b'","b":' + b"[" * 30_000, "nested"),
    ],
)
def test_what_lax_readers_let_through_is_refused(body, reason):
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_json(body)


def test_a_pair_of_surrogates_is_a_character():
    assert decode_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_brackets_in_a_text_are_not_nesting():
    value = {"names": ["[" * 60] * 256}
    assert decode_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_an_error(body):
    with contextlib.suppress(RemoteProtocolError):
        assert type(decode_json(body)) is dict


# --- Frames -------------------------------------------------------------------------------------


def frames_of(decoder):
    found = []
    while (whole := decoder.next_frame()) is not None:
        found.append(whole)
    return found


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_frames_do_not_depend_on_how_the_wire_is_cut(bodies, behind, cuts):
    wire = b"".join(map(frame, bodies)) + behind
    decoder = FrameDecoder(100)
    found = []
    position = turn = 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        decoder.feed(wire[position : position + size])
        position, turn = position + size, turn + 1
        found += frames_of(decoder)
    assert found == [frame(body) for body in bodies]
    assert decoder.trailing == behind


def test_the_limit_is_for_the_body():
    decoder = FrameDecoder(10)
    decoder.feed(frame(b"x" * 10))
    assert frames_of(decoder) == [frame(b"x" * 10)]


@pytest.mark.parametrize("size", [0, 11, 2**16, 2**32 - 1])
def test_a_wrong_length_is_refused_before_the_body_comes(size):
    decoder = FrameDecoder(10)
    decoder.feed(struct.pack("!I", size))
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes; at most 10"):
        decoder.next_frame()


def test_the_limit_can_be_raised():
    decoder = FrameDecoder(10)
    decoder.limit = 11
    decoder.feed(frame(b"x" * 11))
    assert decoder.next_frame() == frame(b"x" * 11)
