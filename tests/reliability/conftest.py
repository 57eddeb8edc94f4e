import os
import random

import pytest


@pytest.fixture
def times():
    """How often: `times(200, 20)` is 200 in the full profile and 20 in the short one."""
    full = os.environ.get("RELIABILITY", "short") == "full"
    return lambda in_full, in_short: in_full if full else in_short


@pytest.fixture
def chance(request):
    """Random choices from a seed that is printed, and that RELIABILITY_SEED repeats."""
    seed = os.environ.get("RELIABILITY_SEED") or f"{random.SystemRandom().getrandbits(32):08x}"
    print(f"RELIABILITY_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")
