"""Coverage-guided fuzzing of everything that reads bytes of a stranger.

    python -m fuzz.guided engine|framing|preamble|server|client [SECONDS]

Needs `atheris` (`pip install --group fuzz`). What it finds worth keeping is kept in
fuzz/corpus/TARGET, so that the next run goes on where this one ended. A crash leaves its input in a
file and its name in the output; run the same command with that file's name in place of SECONDS to
see it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tunnel"]):
    from tunnel.errors import Refused, RemoteProtocolError
    from tunnel.protocol.framing import FrameDecoder
    from tunnel.protocol.handshake import (
        NEED_DATA,
        Binding,
        ChallengeReceived,
        ClientHandshake,
        ServerHandshake,
    )
    from tunnel.protocol.keys import derive, generate_key
    from tunnel.protocol.messages import Capabilities, decode
    from tunnel.protocol.preamble import PreambleDecoder
    from tunnel.yamux import CLOSED, Connection, DataReceived, Role, Settings, StreamOpened
    from tunnel.yamux import NEED_DATA as ENGINE_NEEDS_DATA

CORPUS = Path(__file__).parent / "corpus"
KEYS = derive(generate_key(bytes(32)))
BINDING = Binding("certificate", bytes(32))
SMALL = Settings(max_inbound_streams=8, window_pool=1 << 20)


def pieces(data: bytes) -> list[bytes]:
    """The input cut up as its first byte says."""
    size = data[0] % 32 + 1
    return [data[i : i + size] for i in range(1, len(data), size)]


def engine(data: bytes) -> None:
    """Bytes to an engine of either role, which accepts, reads, and answers; time passes."""
    connection = Connection(Role.SERVER if data[0] & 1 else Role.CLIENT, SMALL, now=0.0)
    stream_id = connection.open_stream()
    connection.send_data(stream_id, b"x" * 1000)
    try:
        for number, piece in enumerate(pieces(data)):
            now = number / 10
            connection.receive_data(piece, now)
            drain(connection, now)
            connection.on_timer(now)
            sent = sum(map(len, connection.data_to_send(now, 100 + data[0])))
            assert sent < 100_000
    except RemoteProtocolError:
        assert connection.next_event() is CLOSED
        assert len(connection.data_to_send(1e9)) <= 1
        assert connection.next_event() is CLOSED


def drain(connection: Connection, now: float) -> None:
    while (event := connection.next_event()) is not ENGINE_NEEDS_DATA and event is not CLOSED:
        if isinstance(event, StreamOpened):
            connection.accept_stream(event.stream_id)
            if event.stream_id % 3 == 0:
                connection.reset_stream(event.stream_id, 7)
        elif isinstance(event, DataReceived):
            connection.consumed(event.stream_id, len(event.data), now)


def framing(data: bytes) -> None:
    """Bytes to the reader of frames and messages."""
    decoder = FrameDecoder(4096)
    for piece in pieces(data):
        decoder.feed(piece)
        try:
            while (frame := decoder.next_frame()) is not None:
                decode(frame)
        except RemoteProtocolError:
            return


def preamble(data: bytes) -> None:
    """Bytes to the reader of visitors' preambles."""
    decoder = PreambleDecoder()
    for piece in pieces(data):
        try:
            _, found = decoder.feed(piece)
        except RemoteProtocolError:
            return
        if found is not None:
            return


def server(data: bytes) -> None:
    """Bytes to the server's side of the handshake."""
    handshake = ServerHandshake(
        lookup={KEYS.verifier.key_id: KEYS.verifier}.get,
        dummy=KEYS.verifier,
        binding=BINDING,
        nonce=bytes(32),
        session_id="0" * 32,
        capabilities=Capabilities(),
        server_version="fuzz",
    )
    handshake.challenge()
    converse(handshake, data, lambda _: None)


def client(data: bytes) -> None:
    """Bytes to the client's side of the handshake."""
    handshake = ClientHandshake(
        keys=KEYS,
        binding=BINDING,
        nonce=bytes(32),
        name="fuzz",
        client_id="0" * 32,
        instance_id="0" * 32,
        attempt=1,
        capabilities=Capabilities(),
    )

    def answer(event: object) -> None:
        if isinstance(event, ChallengeReceived):
            handshake.authenticate()

    converse(handshake, data, answer)


def converse(
    handshake: ServerHandshake | ClientHandshake, data: bytes, answer: Callable[[object], None]
) -> None:
    try:
        for piece in [*pieces(data), b""]:
            handshake.receive_data(piece)
            while (event := handshake.next_event()) is not NEED_DATA:
                answer(event)
    except (RemoteProtocolError, Refused):
        pass


TARGETS = {target.__name__: target for target in (engine, framing, preamble, server, client)}


def main(name: str, how_long: str = "60") -> None:
    """Fuzz one target for so many seconds, or run it once with the input in a file."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    arguments = [how_long] if Path(how_long).exists() else [str(corpus)]
    if arguments == [str(corpus)]:
        arguments += [f"-max_total_time={how_long}", "-max_len=4096", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *arguments], lambda data: target(bytes(data)) if data else None)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
