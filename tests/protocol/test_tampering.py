"""What a man in the middle does, and that one side or the other notices."""

import attrs
import pytest

from tests.protocol.parts import (
    BOUND_TO,
    CLIENT_ID,
    INSTANCE_ID,
    KEYS,
    LEAF,
    OTHER_KEYS,
    PROXIES,
    UNBOUND,
    client,
    client_in,
    frame,
    hear,
    meet,
    opened,
    server,
    split,
)
from tunnel.errors import LocalProtocolError, Refused, RemoteProtocolError
from tunnel.model import RefusalCode
from tunnel.protocol import handshake, proofs
from tunnel.protocol.handshake import (
    Binding,
    ChallengeReceived,
    ClientProved,
    ServerProved,
    State,
)
from tunnel.protocol.messages import Capabilities

OTHER_LEAF = bytes(reversed(LEAF))


def changing(which, change):
    """A man in the middle who changes one frame."""
    return lambda name, wire: change(wire) if name == which else wire


def rewritten(**values):
    """The frame with other values, as honestly encoded as the first."""
    return lambda wire: frame(opened(wire) | values)


@pytest.fixture(scope="module")
def sizes():
    found = {}
    meet(change=lambda name, wire: found.setdefault(name, len(wire)) and wire)
    return found


@pytest.mark.parametrize("which", ["1", "2a", "2b", "3a", "3b"])
@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_byte_counts(which, mask, sizes):
    for position in range(sizes[which]):

        def flip(wire, position=position):
            changed = bytearray(wire)
            changed[position] ^= mask
            return bytes(changed)

        with pytest.raises((RemoteProtocolError, Refused)):
            meet(change=changing(which, flip))


@pytest.mark.parametrize(
    ("which", "values"),
    [
        ("1", {"nonce": "00" * 32}),
        ("1", {"bindings": ["certificate", "none"]}),
        ("1", {"more": 1}),
        ("2a", {"nonce": "00" * 32}),
        ("2a", {"attempt": 2}),
        ("2a", {"name": "someone else"}),
        ("2a", {"client_id": INSTANCE_ID}),
        ("2a", {"instance_id": CLIENT_ID}),
        ("2a", {"capabilities": {}}),
        ("2a", {"key_id": OTHER_KEYS.verifier.key_id.hex()}),
        ("2a", {"more": 1}),
        ("3a", {"name": "someone else"}),
        ("3a", {"session": "00" * 16}),
        ("3a", {"server_version": "1.0"}),
        ("3a", {"capabilities": {}}),
        ("3a", {"more": 1}),
    ],
)
def test_every_value_counts(which, values):
    keys = (KEYS.verifier, OTHER_KEYS.verifier)
    one = server(lookup={verifier.key_id: verifier for verifier in keys}.get)
    with pytest.raises((RemoteProtocolError, Refused)) as caught:
        meet(one, change=changing(which, rewritten(**values)))
    if which != "3a":
        assert caught.value.code is RefusalCode.AUTHENTICATION
    else:
        assert "could not prove" in str(caught.value)


@pytest.mark.parametrize("which", ["1", "2a", "3a"])
def test_even_the_same_message_in_other_bytes_counts(which):
    with pytest.raises((RemoteProtocolError, Refused)):
        meet(change=changing(which, lambda wire: frame(opened(wire))))


def test_a_proof_in_other_bytes_is_covered_by_the_next():
    # Only the server's own proof, which nothing follows, may be spelled differently.
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        meet(change=changing("2b", lambda wire: frame(opened(wire))))
    meet(change=changing("3b", lambda wire: frame(opened(wire))))


def test_the_proofs_are_not_each_other():
    proofs = {}

    def keep(name, wire):
        return proofs.setdefault(name, wire)

    meet(change=keep)
    with pytest.raises(Refused) as caught:
        meet(change=changing("2b", lambda _wire: proofs["3b"]))
    assert caught.value.code is RefusalCode.AUTHENTICATION
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        meet(change=changing("3b", lambda _wire: proofs["2b"]))


def test_a_server_that_sends_the_client_s_proof_back_proves_nothing():
    """A server without the key can only echo."""
    one, other = server(), client()
    hear(other, one.challenge())
    _hello, proof = split(other.authenticate())
    reply = frame(
        {"type": "authenticated", "session": "00" * 16, "name": "x", "server_version": "1"}
    )
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        hear(other, reply + proof)


# --- Bindings -------------------------------------------------------------------------------------


def test_another_certificate_in_between():
    with pytest.raises(Refused) as caught:
        meet(server(), client(binding=Binding("certificate", OTHER_LEAF)))
    assert caught.value.code is RefusalCode.AUTHENTICATION


def test_another_certificate_is_noticed_by_the_client_too():
    """Even a server that lets everybody in cannot prove itself over another's certificate."""
    one, other = server(binding=Binding("certificate", OTHER_LEAF)), client()
    hear(other, one.challenge())
    hello, proof = split(other.authenticate())
    hear(one, hello)
    one._state = State.DECIDE
    one._verifier = KEYS.verifier
    one._transcript.add(proof)
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        hear(other, one.accept(name="x"))


def test_both_unbound_is_fine():
    meet(server(binding=UNBOUND), client(binding=UNBOUND))


def test_nothing_is_bound_to_nothing():
    """The hash of an all-zero certificate is not the same as none."""
    assert UNBOUND.to_bytes() == bytes(33)
    assert Binding("certificate", bytes(32)).to_bytes() == b"\1" + bytes(32)
    assert BOUND_TO.to_bytes() == b"\1" + LEAF


@pytest.mark.parametrize(("one", "other"), [(UNBOUND, BOUND_TO), (BOUND_TO, UNBOUND)])
def test_a_client_does_not_accept_another_binding(one, other):
    with pytest.raises(Refused) as caught:
        hear(client(binding=other), server(binding=one).challenge())
    assert caught.value.code is RefusalCode.BINDING


@pytest.mark.parametrize(("one", "other"), [(UNBOUND, BOUND_TO), (BOUND_TO, UNBOUND)])
def test_a_server_does_not_accept_another_binding(one, other):
    """The challenge was changed to please the client."""
    end = server(binding=one)
    end.challenge()
    fooled = client(binding=other)
    assert isinstance(hear(fooled, server(binding=other).challenge()), ChallengeReceived)
    with pytest.raises(Refused) as caught:
        hear(end, fooled.authenticate())
    assert caught.value.code is RefusalCode.BINDING


@pytest.mark.parametrize(("one", "other"), [(UNBOUND, BOUND_TO), (BOUND_TO, UNBOUND)])
def test_a_binding_that_was_changed_on_both_ways_does_not_fit(one, other):
    """Were the names of the bindings changed in both frames, the proofs still cover B."""

    def lie(name, wire):
        if name == "1":
            return frame(opened(wire) | {"bindings": [other.kind]})
        return frame(opened(wire) | {"binding": one.kind}) if name == "2a" else wire

    with pytest.raises(Refused) as caught:
        meet(server(binding=one), client(binding=other), lie)
    assert caught.value.code is RefusalCode.AUTHENTICATION


@pytest.mark.parametrize(
    ("kind", "leaf_hash"),
    [
        ("certificate", b""),
        ("certificate", LEAF[:31]),
        ("certificate", LEAF + b"\0"),
        ("none", LEAF),
        ("Certificate", LEAF),
        ("", b""),
    ],
)
def test_a_binding_that_would_bind_less_than_it_says(kind, leaf_hash):
    with pytest.raises(ValueError, match="binding"):
        Binding(kind, leaf_hash)


# --- Keys -----------------------------------------------------------------------------------------


def refusal(end, other):
    """How this server refuses this client: the error, and the bytes that go out."""
    hear(other, end.challenge())
    with pytest.raises(Refused) as caught:
        hear(end, other.authenticate())
    error = caught.value
    return error, end.refuse(error.code, error.text, error.retry_after)


def test_an_unknown_key_and_a_wrong_one_look_the_same():
    unknown, unknown_bytes = refusal(server(), client(keys=OTHER_KEYS))
    wrong_keys = attrs.evolve(
        OTHER_KEYS,
        verifier=attrs.evolve(OTHER_KEYS.verifier, key_id=KEYS.verifier.key_id),
    )
    wrong, wrong_bytes = refusal(server(), client(keys=wrong_keys))
    assert unknown.code is wrong.code is RefusalCode.AUTHENTICATION
    assert unknown_bytes == wrong_bytes


def test_an_unknown_key_and_a_wrong_one_cost_the_same(monkeypatch):
    """The same steps in the same order: a MAC, a hash, a comparison."""
    steps = []

    class Watched:
        def __init__(self, name, function):
            self.name, self.function = name, function

        def __call__(self, *arguments):
            steps.append((self.name, [len(argument) for argument in arguments]))
            return self.function(*arguments)

    monkeypatch.setattr(proofs, "mac", Watched("mac", proofs.mac))
    compare = Watched("compare", handshake.hmac.compare_digest)
    monkeypatch.setattr(handshake.hmac, "compare_digest", compare)
    taken = []
    for key_id in (KEYS.verifier.key_id, OTHER_KEYS.verifier.key_id):
        keys = attrs.evolve(OTHER_KEYS, verifier=attrs.evolve(OTHER_KEYS.verifier, key_id=key_id))
        end, other = server(), client(keys=keys)
        hear(other, end.challenge())
        hello = other.authenticate()
        steps.clear()
        with pytest.raises(Refused):
            hear(end, hello)
        taken.append(list(steps))
    assert taken[0] == taken[1]
    assert [name for name, _sizes in taken[0]] == ["mac", "compare"]


def test_whoever_knows_the_dummy_is_not_let_in():
    """Even a proof that fits the dummy is refused: no key has that id."""
    error, _wire = refusal(server(dummy=OTHER_KEYS.verifier), client(keys=OTHER_KEYS))
    assert error.code is RefusalCode.AUTHENTICATION


def test_what_a_server_stores_does_not_make_a_client():
    stolen = attrs.evolve(KEYS, client_key=KEYS.verifier.stored_key)
    error, _wire = refusal(server(), client(keys=stolen))
    assert error.code is RefusalCode.AUTHENTICATION


def test_a_server_needs_no_more_than_its_half():
    one, _other, heard = meet(server(lookup=lambda _key_id: KEYS.verifier))
    assert isinstance(heard["2b"], ClientProved)
    assert isinstance(heard["3b"], ServerProved)
    assert heard["2b"].key_id == KEYS.verifier.key_id
    assert heard["2b"].attempt == 1
    assert heard["2b"].client_id == CLIENT_ID
    assert heard["2b"].instance_id == INSTANCE_ID
    assert heard["2b"].capabilities == Capabilities(max_frame=65_536)
    assert one.trailing_data == b""


def test_each_of_several_keys_is_known_by_its_id():
    verifiers = {keys.verifier.key_id: keys.verifier for keys in (KEYS, OTHER_KEYS)}
    for keys in (KEYS, OTHER_KEYS):
        _one, _other, heard = meet(server(lookup=verifiers.get), client(keys=keys))
        assert heard["2b"].key_id == keys.verifier.key_id


# --- Replays --------------------------------------------------------------------------------------


def test_a_client_that_is_replayed_is_refused():
    recorded = {}
    meet(change=lambda name, wire: recorded.setdefault(name, wire))
    end = server(nonce=b"\x52" * 32)
    end.challenge()
    with pytest.raises(Refused) as caught:
        hear(end, recorded["2a"] + recorded["2b"])
    assert caught.value.code is RefusalCode.AUTHENTICATION


def test_a_server_that_is_replayed_is_not_believed():
    recorded = {}
    meet(change=lambda name, wire: recorded.setdefault(name, wire))
    fresh = client(nonce=b"\xc2" * 32)
    hear(fresh, recorded["1"])
    fresh.authenticate()
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        hear(fresh, recorded["3a"] + recorded["3b"])


def test_a_proof_of_another_attempt_does_not_fit():
    recorded = {}
    meet(change=lambda name, wire: recorded.setdefault(name, wire))
    with pytest.raises(Refused) as caught:
        meet(other=client(attempt=2), change=changing("2b", lambda _wire: recorded["2b"]))
    assert caught.value.code is RefusalCode.AUTHENTICATION


def test_a_client_sends_nothing_that_counts_before_the_server_has_proved_itself():
    """What is to be published is told to a server that knows the key, to nobody else."""
    other = client_in("AWAIT_SERVER_PROOF")
    with pytest.raises(RemoteProtocolError, match="could not prove"):
        hear(other, frame({"type": "proof", "mac": "00" * 32}))
    with pytest.raises(LocalProtocolError, match="has failed"):
        other.configure(PROXIES)
