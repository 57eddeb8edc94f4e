"""A server and its key as one word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.join import Join, JoinFormatError
from tunnel.protocol.keys import armoured, generate_key

KEY = generate_key(bytes(range(32)))
JOIN = Join("tunnel.example.com", 8443, KEY, "sha256:" + "ab" * 32)


@given(
    st.from_regex(r"[a-z0-9.:-]{1,255}", fullmatch=True),
    st.integers(1, 65535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)
def test_what_is_written_is_read(host, port, entropy, pin):
    join = Join(host, port, generate_key(entropy), f"sha256:{pin.hex()}")
    assert Join.from_text(join.to_text()) == join
    assert Join.from_text(f" {join.to_text()}\n") == join


def test_it_is_one_short_word():
    text = JOIN.to_text()
    assert text.startswith("ttj1_")
    assert text.isalnum() or text.replace("_", "").isalnum()
    assert len(text) < 160


def test_it_does_not_show_the_key():
    assert KEY not in repr(JOIN)


@given(st.integers(5, 140), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_slip_is_noticed(position, letter):
    text = JOIN.to_text()
    changed = text[:position] + letter + text[position + 1 :]
    if changed != text:
        with pytest.raises(JoinFormatError):
            Join.from_text(changed)


@given(st.text(max_size=300))
def test_any_text_gives_the_documented_error(text):
    for given_text in (text, "ttj1_" + text):
        with pytest.raises(JoinFormatError):
            Join.from_text(given_text)


@given(st.binary(max_size=400))
def test_any_payload_with_a_right_checksum_too(payload):
    text = armoured("ttj1_", b"tls-tunnel/1 join checksum\0", payload)
    try:
        join = Join.from_text(text)
    except JoinFormatError:
        return
    assert join.to_text() == text


@pytest.mark.parametrize(
    "join",
    [
        Join("", 1, KEY, JOIN.pin),
        Join("a b", 1, KEY, JOIN.pin),
        Join("x" * 256, 1, KEY, JOIN.pin),
        Join("x", 0, KEY, JOIN.pin),
        Join("x", 1, "a key that a person made up", JOIN.pin),
        Join("x", 1, KEY, ""),
    ],
)
def test_what_does_not_fit(join):
    with pytest.raises(JoinFormatError):
        join.to_text()
