"""Proofs of a visit: each part of what they are about counts, and neither is the other."""

import hashlib
import hmac
import re
import struct
from pathlib import Path

import attrs
import pytest

from tests.protocol.parts import KEY
from tunnel.protocol.keys import KeyFormatError
from tunnel.protocol.proofs import Binding, VisitTranscript, visit_key

ABOUT = VisitTranscript("office", "数据库", 5432, "laptop", b"o" * 32, b"v" * 32)
VISIT_KEY = visit_key(KEY)


def test_the_binding_to_nothing_is_reserved():
    package = Path(__file__).parents[2] / "tunnel"
    made = {
        kind
        for path in package.rglob("*.py")
        for kind in re.findall(r"\bBinding\((.*?)[,)]", path.read_text())
    }
    assert made == {'"certificate"'}
    assert Binding("none").to_bytes() == bytes(33)


def test_the_proofs_are_what_the_protocol_says():
    names = [name.encode() for name in ("office", "数据库", "laptop")]
    owner, proxy, visitor = (struct.pack("!H", len(name)) + name for name in names)
    text = owner + proxy + struct.pack("!H", 5432) + visitor + b"o" * 32 + b"v" * 32
    root = hmac.digest(b"tls-tunnel/1 visitor key", KEY.encode(), "sha256")
    assert root == VISIT_KEY
    visit = hmac.digest(root, b"tls-tunnel/1 visit\0" + text, "sha256")
    visited = hmac.digest(root, b"tls-tunnel/1 visited\0" + text, "sha256")
    assert (ABOUT.visit_proof(root), ABOUT.visited_proof(root)) == (visit, visited)


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "offic"},
        {"proxy": "数据"},
        {"port": 5433},
        {"visitor": "laptop2"},
        {"owner_nonce": b"O" * 32},
        {"visitor_nonce": b"V" * 32},
        {"owner": "office数", "proxy": "据库"},
    ],
)
def test_everything_counts(changes):
    other = attrs.evolve(ABOUT, **changes)
    assert other.visit_proof(VISIT_KEY) != ABOUT.visit_proof(VISIT_KEY)
    assert other.visited_proof(VISIT_KEY) != ABOUT.visited_proof(VISIT_KEY)


def test_another_secret_is_another_proof():
    assert ABOUT.visit_proof(VISIT_KEY) != ABOUT.visit_proof(bytes(32))
    assert ABOUT.visit_proof(VISIT_KEY) != ABOUT.visited_proof(VISIT_KEY)


def test_a_secret_that_a_person_made_up_is_stretched():
    secret = "correct horse battery staple"
    salt = b"tls-tunnel/1 visitor key"
    expected = hashlib.scrypt(secret.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    assert visit_key(secret) == expected


def test_a_mistyped_secret_is_noticed():
    with pytest.raises(KeyFormatError):
        visit_key(KEY[:-1])
