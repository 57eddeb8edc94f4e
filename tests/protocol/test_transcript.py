"""One handshake with fixed keys and nonces, byte for byte, as `docs/protocol.md` prints it."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from tests.protocol.parts import CLIENT_ID, FRAMES, INSTANCE_ID, SESSION, meet, opened
from tunnel.protocol.handshake import ConfiguredReceived, ServerProved
from tunnel.protocol.keys import derive

TRANSCRIPT = json.loads((Path(__file__).parent / "data" / "transcript.json").read_text())
RECORDED = {name: bytes.fromhex(wire) for name, wire in TRANSCRIPT["frames"].items()}


def test_both_ends_say_exactly_this():
    said = {}

    def record(name, wire):
        said[name] = wire
        return wire

    _one, other, heard = meet(change=record)
    assert tuple(said) == FRAMES
    assert said == RECORDED
    assert isinstance(heard["3b"], ServerProved)
    assert isinstance(heard["5"], ConfiguredReceived)
    assert other.trailing_data == b""


def covered(*names):
    """T of the protocol, from the page's formula alone: binding, then the frames as sent."""
    binding = b"\1" + bytes.fromhex(TRANSCRIPT["certificate_sha256"])
    frames = b"".join(RECORDED[name] for name in names)
    return hashlib.sha256(b"tls-tunnel/1\0" + binding + frames).digest()


def test_the_client_s_proof_follows_the_formula():
    keys = derive(TRANSCRIPT["auth_key"])
    message = b"tls-tunnel/1 client proof\0" + covered("1", "2a")
    mask = hmac.digest(keys.verifier.stored_key, message, "sha256")
    proof = bytes(a ^ b for a, b in zip(keys.client_key, mask, strict=True))
    assert opened(RECORDED["2b"]) == {"type": "proof", "mac": proof.hex()}


def test_the_server_s_proof_follows_the_formula():
    keys = derive(TRANSCRIPT["auth_key"])
    message = b"tls-tunnel/1 server proof\0" + covered("1", "2a", "2b", "3a")
    proof = hmac.digest(keys.verifier.server_key, message, "sha256")
    assert opened(RECORDED["3b"]) == {"type": "proof", "mac": proof.hex()}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_a_length_and_json(name):
    wire = RECORDED[name]
    assert int.from_bytes(wire[:4], "big") == len(wire) - 4
    assert isinstance(opened(wire), dict)


def test_what_the_frames_carry():
    capabilities = {
        "max_frame": 65_536,
        "max_streams": 65_536,
        "backlog": 65_536,
        "window": 262_144,
        "features": [],
    }
    assert opened(RECORDED["1"]) == {
        "type": "challenge",
        "version": 1,
        "bindings": ["certificate"],
        "nonce": TRANSCRIPT["server_nonce"],
    }
    assert opened(RECORDED["2a"]) == {
        "type": "authenticate",
        "version": 1,
        "binding": "certificate",
        "nonce": TRANSCRIPT["client_nonce"],
        "key_id": derive(TRANSCRIPT["auth_key"]).verifier.key_id.hex(),
        "name": "家里",
        "client_id": CLIENT_ID,
        "instance_id": INSTANCE_ID,
        "attempt": 1,
        "capabilities": capabilities,
    }
    assert opened(RECORDED["3a"]) == {
        "type": "authenticated",
        "session": SESSION,
        "name": "家里",
        "server_version": "2.0",
        "capabilities": capabilities,
    }
    assert opened(RECORDED["4"]) == {
        "type": "configure",
        "proxies": [
            {
                "name": "网站",
                "publish_addr": "*",
                "publish_port": 8080,
                "preferred_port": 0,
                "local_port": 80,
            },
            {
                "name": "ssh",
                "publish_addr": "127.0.0.1",
                "publish_port": 0,
                "preferred_port": 2222,
                "local_port": 22,
            },
        ],
        "visitors": [],
    }
    assert opened(RECORDED["5"]) == {
        "type": "configured",
        "proxies": [
            {
                "id": 0,
                "bound": [{"host": "0.0.0.0", "port": 8080}, {"host": "::", "port": 8080}],
            },
            {"id": 1, "bound": [{"host": "127.0.0.1", "port": 2222}]},
        ],
    }


def test_the_key_never_crosses_the_wire():
    keys = derive(TRANSCRIPT["auth_key"])
    secrets = (keys.client_key, keys.verifier.stored_key, keys.verifier.server_key)
    for wire in RECORDED.values():
        assert TRANSCRIPT["auth_key"].encode() not in wire
        assert not any(secret.hex().encode() in wire for secret in secrets)
