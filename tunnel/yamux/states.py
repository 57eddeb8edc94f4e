"""The life of a stream, as a table.

Rule 1: everything that decides what a stream may do next is in `TRANSITIONS`; an input that is
missing there is a mistake of whoever caused it. Rule 2: a state says what has been *said*; what
still has to be *sent* (pending data, a FIN behind it) is the scheduler's business.
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

    # `enum.Enum` hashes names, in Python.
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

#: A second FIN and data after a FIN are what real peers send by mistake: the first is ignored (it
#: changes nothing), the second resets the stream (it is never delivered, so it must not look so).
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
