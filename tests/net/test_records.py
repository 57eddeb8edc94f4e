"""Cutting for TLS: nothing is lost, records are filled, and only whole ones are asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import limits
from tunnel.net.records import RecordEnds, pieces

RECORD = 16_384
SIZES = st.lists(
    st.one_of(st.integers(0, 20), st.integers(4000, 4200), st.integers(0, 100_000)), max_size=12
)


def record(length: int) -> bytes:
    return b"\x17\x03\x03" + length.to_bytes(2, "big") + random.Random(length).randbytes(length)


# --- To be encrypted ----------------------------------------------------------------------------


@given(SIZES)
def test_pieces_are_the_same_bytes(sizes):
    parts = [random.Random(size).randbytes(size) for size in sizes]
    found = pieces(parts)
    assert b"".join(found) == b"".join(parts)
    assert all(len(piece) <= limits.TLS_SLICE for piece in found)


def test_a_small_batch_is_one_piece():
    assert pieces([b"a" * 12, b"b" * 100, b"c" * 12]) == [b"a" * 12 + b"b" * 100 + b"c" * 12]


def test_a_header_fills_a_record_with_what_follows():
    body = memoryview(bytes(range(256)) * 1024)
    found = pieces([b"h" * 12, body])
    assert [len(piece) for piece in found] == [RECORD, *7 * [limits.TLS_SLICE], RECORD + 12]
    assert found[0][:12] == b"h" * 12
    # The rest is the caller's own memory.
    assert all(piece.obj is body.obj for piece in found[1:])


def test_a_long_part_that_fits_behind_a_header_is_joined():
    assert [len(piece) for piece in pieces([b"h" * 12, bytes(5000)])] == [5012]


# --- To be decrypted ----------------------------------------------------------------------------


def whole(data: bytes, cuts: list[int]) -> list[bytes]:
    """What was cut off, piece by piece."""
    return [data[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


def test_pieces_end_with_a_record():
    records = [record(16_401)] * 5
    assert RecordEnds().find(memoryview(b"".join(records))) == [2 * 16_406, 4 * 16_406, 5 * 16_406]


def test_what_is_not_complete_is_not_asked_for():
    ends = RecordEnds()
    data = record(1000)
    assert ends.find(memoryview(data[:3])) == []
    assert ends.find(memoryview(data[3:4])) == []
    assert ends.find(memoryview(data[4:900])) == []
    assert ends.find(memoryview(data[900:] + data[:600])) == [105]
    assert ends.find(memoryview(data[600:] + data + data[:5])) == [405 + 1005]
    assert ends.find(memoryview(data[5:])) == [1000]


@given(
    st.lists(st.one_of(st.integers(0, 30), st.integers(0, 16_640)), max_size=12),
    st.lists(st.one_of(st.integers(1, 8), st.integers(1, 60_000)), max_size=40),
)
def test_any_way_the_bytes_come(lengths, sizes):
    wire = b"".join(map(record, lengths))
    boundaries = {0}
    for length in lengths:
        boundaries.add(max(boundaries) + 5 + length)
    ends, start, asked = RecordEnds(), 0, 0
    for size in [*sizes, len(wire)]:
        data = wire[start : start + size]
        cuts = ends.find(memoryview(data))
        assert cuts == sorted(set(cuts))
        assert {start + cut for cut in cuts} <= boundaries
        # Whatever is complete by now was asked for, and nothing was kept from OpenSSL for long.
        complete = max(end for end in boundaries if end <= start + len(data))
        asked = max([asked, *(start + cut for cut in cuts)])
        assert asked == complete
        for piece in whole(data, cuts):
            assert len(piece) < limits.TLS_SLICE + 5 + 16_640
        start += len(data)


@pytest.mark.parametrize("length", [16_641, 65_535])
def test_a_record_that_is_too_long_is_asked_for_at_once(length):
    head = b"\x17\x03\x03" + length.to_bytes(2, "big")
    assert RecordEnds().find(memoryview(head)) == [5]
    split = RecordEnds()
    assert split.find(memoryview(head[:2])) == []
    assert split.find(memoryview(head[2:] + bytes(1))) == [3]
