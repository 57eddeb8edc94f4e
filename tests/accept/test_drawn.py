from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.accept.drawn import pytest_collection_modifyitems


class Config:
    """Remembers what was dropped."""

    def __init__(self):
        self.dropped = []
        self.hook = SimpleNamespace(pytest_deselected=lambda items: self.dropped.extend(items))


def draw(monkeypatch, wanted, *, backwards=False):
    """The names of the tests that are left of twenty, and of those that were dropped."""
    monkeypatch.setenv("DRAW", wanted)
    items = [SimpleItem(f"test_{number}") for number in range(20)]
    if backwards:
        items.reverse()
    config = Config()
    pytest_collection_modifyitems(config, items)
    assert {item.nodeid for item in items}.isdisjoint(item.nodeid for item in config.dropped)
    assert len(items) + len(config.dropped) == 20
    return {item.nodeid for item in items}


class SimpleItem:
    def __init__(self, nodeid):
        self.nodeid = nodeid


def test_so_many_are_drawn_with_a_seed(monkeypatch):
    first = draw(monkeypatch, "5:1")
    assert len(first) == 5
    assert draw(monkeypatch, "5:1") == first
    assert draw(monkeypatch, "5:2") != first


def test_in_another_order_the_same_are_drawn(monkeypatch):
    """So that all workers have the same, and shuffling changes nothing."""
    assert draw(monkeypatch, "5:1", backwards=True) == draw(monkeypatch, "5:1")


@pytest.mark.parametrize("wanted", ["20:1", "99:1"])
def test_more_than_there_are_is_all(monkeypatch, wanted):
    assert len(draw(monkeypatch, wanted)) == 20
