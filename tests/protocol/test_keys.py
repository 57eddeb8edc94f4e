"""Keys: the values that a second implementation must get, and what is not a key."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.keys import (
    KeyFormatError,
    Verifier,
    derive,
    generate_key,
    is_generated_key,
    mac,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "keys.json").read_text())
GENERATED = VECTORS["generated"]["auth_key"]


def test_a_key_is_made_of_its_entropy_and_a_checksum():
    entropy = bytes.fromhex(VECTORS["generated"]["entropy"])
    assert generate_key(entropy) == GENERATED
    raw = base64.b32decode(GENERATED.removeprefix("ttk1_").upper() + "=" * 6)
    checksum = hashlib.sha256(b"tls-tunnel/1 key checksum\0" + entropy).digest()[:4]
    assert raw == entropy + checksum


@pytest.mark.parametrize("kind", ["generated", "human"])
def test_the_key_schedule(kind):
    expected = VECTORS[kind]
    keys = derive(expected["auth_key"])
    assert keys.verifier.key_id.hex() == expected["key_id"]
    assert keys.client_key.hex() == expected["client_key"]
    assert keys.verifier.stored_key.hex() == expected["stored_key"]
    assert keys.verifier.server_key.hex() == expected["server_key"]


@pytest.mark.parametrize("kind", ["generated", "human"])
def test_the_vectors_follow_the_formulas(kind):
    vector = VECTORS[kind]
    key, salt = vector["auth_key"].encode(), b"tls-tunnel/1 auth_key"
    if kind == "generated":
        root = hmac.digest(salt, key, "sha256")
    else:
        root = hashlib.scrypt(key, salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    client_key = hmac.digest(root, b"tls-tunnel/1 client key", "sha256")
    assert root.hex() == vector["root"]
    assert hmac.digest(root, b"tls-tunnel/1 key id", "sha256")[:16].hex() == vector["key_id"]
    assert client_key.hex() == vector["client_key"]
    assert hashlib.sha256(client_key).hexdigest() == vector["stored_key"]
    server_key = hmac.digest(root, b"tls-tunnel/1 server key", "sha256")
    assert server_key.hex() == vector["server_key"]


def test_mac_is_hmac_sha256():
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert mac(b"Jefe", b"what do ya want for nothing?").hex() == expected


def test_what_a_server_keeps_is_not_what_a_client_needs():
    keys = derive(GENERATED)
    kept = (keys.verifier.key_id, keys.verifier.stored_key, keys.verifier.server_key)
    assert keys.client_key not in kept
    assert len({*kept, keys.client_key}) == 4


def test_keys_are_not_shown():
    keys = derive(GENERATED)
    for secret in (keys.client_key, keys.verifier.stored_key, keys.verifier.server_key):
        assert repr(secret) not in repr(keys)
        assert secret.hex() not in repr(keys)


@given(st.binary(min_size=32, max_size=32))
def test_generated_keys_are_recognised(entropy):
    assert is_generated_key(generate_key(entropy))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_needs_32_bytes(size):
    with pytest.raises(ValueError, match="32 random bytes"):
        generate_key(bytes(size))


def test_every_mistyped_character_is_noticed():
    for position in range(len("ttk1_"), len(GENERATED)):
        for other in "2a":
            typed = GENERATED[:position] + other + GENERATED[position + 1 :]
            if typed != GENERATED:
                with pytest.raises(KeyFormatError):
                    is_generated_key(typed)


@pytest.mark.parametrize(
    "text",
    [
        GENERATED[:-1],
        GENERATED + "a",
        GENERATED + "=",
        GENERATED + "\n",
        "ttk1_" + GENERATED.removeprefix("ttk1_").upper(),
        "ttk1_",
        "ttk1_钥匙",
        "ttk1_0189",
        GENERATED.replace("a", "а", 1),  # a Cyrillic letter
    ],
)
def test_what_only_looks_like_a_generated_key_is_an_error(text):
    with pytest.raises(KeyFormatError, match="copy it again"):
        derive(text)


@pytest.mark.parametrize("text", ["", "correct horse battery staple", "TTK1_x", " " + GENERATED])
def test_other_keys_are_people_s_own(text):
    assert not is_generated_key(text)


def test_a_key_that_is_no_text_is_an_error():
    with pytest.raises(KeyFormatError, match="UTF-8"):
        derive("from an environment \udcff variable")


# --- Verifiers as text ------------------------------------------------------------------------

HALVES = st.binary(min_size=32, max_size=32)
VERIFIERS = st.builds(Verifier, st.binary(min_size=16, max_size=16), HALVES, HALVES)
VERIFIER = derive(GENERATED).verifier
WRITTEN = VERIFIER.to_text()


def test_a_verifier_is_its_three_parts_and_a_checksum():
    payload = VERIFIER.key_id + VERIFIER.stored_key + VERIFIER.server_key
    checksum = hashlib.sha256(b"tls-tunnel/1 verifier checksum\0" + payload).digest()[:4]
    prefix, _, body = WRITTEN.partition("_")
    assert prefix == "ttv1"
    assert base64.b32decode(body.upper() + "=") == payload + checksum


def test_a_verifier_does_not_hold_the_key():
    keys = derive(GENERATED)
    raw = base64.b32decode(WRITTEN.removeprefix("ttv1_").upper() + "=")
    assert keys.client_key not in raw
    assert base64.b32decode(GENERATED.removeprefix("ttk1_").upper() + "=" * 6)[:32] not in raw


@given(VERIFIERS)
def test_a_verifier_survives_as_text(verifier):
    text = verifier.to_text()
    assert Verifier.from_text(text) == verifier
    assert len(text) == 140
    assert text.isascii()


def test_every_mistyped_character_of_a_verifier_is_noticed():
    for position in range(len(WRITTEN)):
        for other in "2a":
            typed = WRITTEN[:position] + other + WRITTEN[position + 1 :]
            if typed != WRITTEN:
                with pytest.raises(KeyFormatError, match="copy it again"):
                    Verifier.from_text(typed)


@pytest.mark.parametrize(
    "text",
    ["", "ttv1_", WRITTEN[:-1], WRITTEN + "a", WRITTEN + "\n", WRITTEN + "=", WRITTEN.upper(),
     GENERATED, "ttv1_钥匙", WRITTEN.replace("a", "а", 1)],
)  # fmt: skip
def test_what_only_looks_like_a_verifier(text):
    with pytest.raises(KeyFormatError) as caught:
        Verifier.from_text(text)
    assert text in ("", "ttv1_") or text not in str(caught.value)


def test_a_verifier_is_not_taken_for_a_key():
    with pytest.raises(KeyFormatError, match="is a verifier and no key: it goes under verifier"):
        derive(WRITTEN)


def test_a_verifier_is_not_shown():
    assert WRITTEN[5:40] not in repr(VERIFIER)
