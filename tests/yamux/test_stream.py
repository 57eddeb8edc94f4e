import pytest

from tunnel.yamux.stream import Stream


def test_take_cuts_and_joins_pieces_without_copying():
    stream = Stream(1, outbound=True)
    first, second = b"abcdef", bytearray(b"ghi")
    stream.put(first)
    stream.put(second)
    parts = []
    stream.take(4, parts)
    stream.take(5, parts)
    assert b"".join(parts) == b"abcdefghi"
    assert parts[0].obj is first
    assert parts[-1] is second
    assert stream.pending_size == 0
    assert not stream.pending


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [3, 6], [8, 1]])
def test_take_keeps_the_order(sizes):
    stream = Stream(1, outbound=True)
    for piece in (b"ab", b"cde", b"f", b"ghi"):
        stream.put(piece)
    parts = []
    for size in sizes:
        stream.take(size, parts)
    assert b"".join(parts) == b"abcdefghi"
    assert stream.send_window == 256 * 1024 - 9
