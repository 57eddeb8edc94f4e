"""The table of states, and the picture of it in the documentation."""

from pathlib import Path

import pytest

from tests.yamux.wire import client, hear, opened, update
from tunnel.errors import LocalProtocolError
from tunnel.yamux.states import TRANSITIONS, Input, State
from tunnel.yamux.stream import Stream

PAGE = Path(__file__).parents[2] / "docs/yamux.md"
LOCAL = {Input.SEND_DATA, Input.SEND_FIN, Input.SEND_RST}


def test_whatever_a_peer_sends_has_an_arrow():
    # A missing arrow is the caller's mistake, so there must be none for what only a peer can do.
    for state in State:
        if state is not State.RESET:
            assert {(state, what) for what in Input if what not in LOCAL} <= TRANSITIONS.keys()


def test_a_reset_stream_stays_reset():
    assert not [start for start, _ in TRANSITIONS if start is State.RESET]


def test_every_stream_can_be_reset_by_either_end():
    for state in set(State) - {State.RESET}:
        assert TRANSITIONS[state, Input.SEND_RST] is State.RESET
        assert TRANSITIONS[state, Input.RECEIVE_RST] is State.RESET


@pytest.mark.parametrize("state", [State.LOCAL_EOF, State.CLOSED, State.RESET])
@pytest.mark.parametrize("what", [Input.SEND_DATA, Input.SEND_FIN])
def test_nothing_can_be_sent_after_fin(state, what):
    stream = Stream(1, outbound=True)
    stream.state = state
    with pytest.raises(LocalProtocolError, match=f"cannot {what.value} on stream 1: it is"):
        stream.apply(what)
    assert stream.state is state
    assert not stream.state.can_send


def test_each_direction_ends_on_its_own():
    one, other = Stream(1, outbound=True), Stream(3, outbound=True)
    assert one.apply(Input.SEND_FIN) is State.LOCAL_EOF
    assert one.state.can_receive
    assert one.apply(Input.RECEIVE_FIN) is State.CLOSED
    assert other.apply(Input.RECEIVE_FIN) is State.REMOTE_EOF
    assert other.state.can_send
    assert other.apply(Input.SEND_FIN) is State.CLOSED
    assert not one.state.can_receive
    assert not other.state.can_receive


def test_misuse_changes_nothing():
    engine = client()
    (stream_id,) = opened(engine)
    engine.send_eof(stream_id)
    for misuse in (
        lambda: engine.send_data(stream_id, b"more"),
        lambda: engine.send_eof(stream_id),
        lambda: engine.send_data(99, b"nobody"),
        lambda: engine.send_eof(99),
        lambda: engine.consumed(stream_id, 1, 0.0),
        lambda: engine.consumed(stream_id, -1, 0.0),
    ):
        with pytest.raises(LocalProtocolError):
            misuse()
    assert engine.pending == 0
    assert hear(engine, update(stream_id, 1)) == []


def test_each_state_knows_what_the_table_says_of_it():
    for state in State:
        assert state.can_send == ((state, Input.SEND_DATA) in TRANSITIONS)
        # What comes where nothing may come any more resets the stream.
        assert state.can_receive == (TRANSITIONS.get((state, Input.RECEIVE_DATA)) is state)
        for what in (Input.SEND_DATA, Input.RECEIVE_DATA):
            assert TRANSITIONS.get((state, what), State.RESET) in (state, State.RESET)


def diagram() -> str:
    """The table as a Mermaid state diagram, arrows between the same states joined."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, what), following in TRANSITIONS.items():
        arrows.setdefault((state, following), []).append(what.value)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> OPEN"]
    for (state, following), inputs in arrows.items():
        lines.append(f"    {state.name} --> {following.name}: {', '.join(inputs)}")
    lines += ["    CLOSED --> [*]", "    RESET --> [*]", "```"]
    return "\n".join(lines)


def test_the_page_shows_the_table():
    page = PAGE.read_text()
    begin, end = "<!-- states: begin -->\n", "\n<!-- states: end -->"
    assert page[page.index(begin) + len(begin) : page.index(end)] == diagram(), diagram()
