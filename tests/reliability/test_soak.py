"""The soak itself, for a moment: its traffic and its faults work, and what it measures is there."""

from __future__ import annotations

import pytest

from tests.reliability.soak import WHAT, Soak, soak

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


async def test_soak(tmp_path, chance, times):
    running: Soak = await soak(times(300, 10), tmp_path, chance, print)
    assert running.count["transfers"]
    assert running.count["faults"] >= 2
    for what in WHAT:
        for series in running.series(what):
            assert len(series.samples) == running.count["faults"] + 1
    # Every round ends with the tasks and descriptors that the first one began with.
    for what in ("descriptors", "tasks"):
        for series in running.series(what):
            [_, *values] = [value for _, value in series.samples]
            assert max(values) - min(values) <= 1, (what, series.name, values)
