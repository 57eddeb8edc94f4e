"""The life of a stream, as a table.

Everything that decides what a stream may do next is in `TRANSITIONS`. It is a table and not a
method with branches so that it can be read, drawn (docs/yamux.md shows it) and tested whole: every
pair of a state and an input is either in it, or is a mistake of the side that caused the input.

A state tells what the caller and the peer have *said*. What still has to be *sent* (bytes that
wait, and the FIN behind them) is in `Stream` and in the outbox, so that a stream whose last bytes
wait for credit needs no state of its own.
"""

from __future__ import annotations

import enum
from typing import Final, Self


class State(enum.Enum):
    """Which directions of a stream are still open."""

    OPEN = "open", True, True
    LOCAL_EOF = "local EOF", False, True
    REMOTE_EOF = "remote EOF", True, False
    CLOSED = "closed", False, False
    RESET = "reset", False, False

    #: The caller has not said EOF, and the stream is not over. Both are asked with every frame:
    #: an attribute costs a tenth of a property.
    can_send: bool
    #: The peer has not said EOF, and the stream is not over.
    can_receive: bool

    def __new__(cls, text: str, can_send: bool, can_receive: bool) -> Self:
        """A state by the name that texts have for it."""
        state = object.__new__(cls)
        state._value_ = text
        state.can_send, state.can_receive = can_send, can_receive
        return state

    # The table is looked up for every frame, and `enum.Enum` hashes a member's name in Python.
    __hash__ = object.__hash__


class Input(enum.Enum):
    """What can happen to a stream."""

    SEND_DATA = "send data"
    SEND_FIN = "send FIN"
    SEND_RST = "send RST"
    RECEIVE_DATA = "receive data"
    RECEIVE_FIN = "receive FIN"
    RECEIVE_RST = "receive RST"

    __hash__ = object.__hash__


# For the code that runs for every frame: Python 3.11 takes a call to find a member in its class.
OPEN: Final = State.OPEN
CLOSED: Final = State.CLOSED
RESET: Final = State.RESET

#: Two inputs that the specification forbids are in it all the same, since real peers send them. A
#: second FIN changes nothing and is ignored. Data after a FIN resets the stream: it is not
#: delivered, and a stream that ended cleanly would look as if it had been.
TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (State.OPEN, Input.SEND_DATA): State.OPEN,
    (State.OPEN, Input.SEND_FIN): State.LOCAL_EOF,
    (State.OPEN, Input.SEND_RST): State.RESET,
    (State.OPEN, Input.RECEIVE_DATA): State.OPEN,
    (State.OPEN, Input.RECEIVE_FIN): State.REMOTE_EOF,
    (State.OPEN, Input.RECEIVE_RST): State.RESET,
    (State.LOCAL_EOF, Input.SEND_RST): State.RESET,
    (State.LOCAL_EOF, Input.RECEIVE_DATA): State.LOCAL_EOF,
    (State.LOCAL_EOF, Input.RECEIVE_FIN): State.CLOSED,
    (State.LOCAL_EOF, Input.RECEIVE_RST): State.RESET,
    (State.REMOTE_EOF, Input.SEND_DATA): State.REMOTE_EOF,
    (State.REMOTE_EOF, Input.SEND_FIN): State.CLOSED,
    (State.REMOTE_EOF, Input.SEND_RST): State.RESET,
    (State.REMOTE_EOF, Input.RECEIVE_DATA): State.RESET,
    (State.REMOTE_EOF, Input.RECEIVE_FIN): State.REMOTE_EOF,
    (State.REMOTE_EOF, Input.RECEIVE_RST): State.RESET,
    (State.CLOSED, Input.SEND_RST): State.RESET,
    (State.CLOSED, Input.RECEIVE_DATA): State.RESET,
    (State.CLOSED, Input.RECEIVE_FIN): State.CLOSED,
    (State.CLOSED, Input.RECEIVE_RST): State.RESET,
}
