"""The fuzzers of `fuzz/fuzz_protocol.py` for a moment, with the same cases each time."""

import pytest
from hypothesis import settings

from fuzz.fuzz_protocol import FUZZERS, QUICK


@pytest.mark.parametrize("fuzz", FUZZERS)
def test_for_a_moment(fuzz):
    fuzz(settings(QUICK, max_examples=150))
