"""A plugin of pytest's: run some of the tests, drawn at random. `-p tests.accept.drawn`

DRAW is how many, and a seed: "5:123". The same seed draws the same tests again.
"""

from __future__ import annotations

import os
import random

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop those that are not drawn."""
    count, _, seed = os.environ["DRAW"].partition(":")
    ordered = sorted(items, key=lambda item: item.nodeid)
    kept = set(random.Random(int(seed)).sample(ordered, min(int(count), len(ordered))))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
