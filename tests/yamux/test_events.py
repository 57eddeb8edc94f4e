"""Events are values; and whether the engine is compiled is what its files say."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunnel.yamux
from tunnel.yamux import COMPILED, DataReceived


def test_received_data_is_a_value():
    one = DataReceived(1, memoryview(b"hello"))
    assert one == DataReceived(1, memoryview(b"hello"))
    assert one != DataReceived(1, memoryview(b"other"))
    assert one != DataReceived(3, memoryview(b"hello"))
    assert one != (1, b"hello")
    assert repr(one).startswith("DataReceived(stream_id=1, data=<memory at ")
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    match one:
        case DataReceived(stream_id, data):
            assert (stream_id, bytes(data)) == (1, b"hello")


def test_compiled_is_what_lies_there():
    directory = Path(tunnel.yamux.__path__[0])
    assert any(directory.glob("connection.*.so")) is COMPILED
