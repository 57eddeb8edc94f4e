from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.matrix.cover import all_combinations, draw_cover, pairs
from tests.matrix.dimensions import DIMENSIONS

#: Tables of one to five dimensions with one to four values each.
TABLES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(
    lambda sizes: {
        f"dimension{number}": [f"value{value}" for value in range(size)]
        for number, size in enumerate(sizes)
    }
)


def all_pairs(dimensions):
    return set().union(*map(pairs, all_combinations(dimensions)))


@given(TABLES, st.integers(0, 1 << 32))
def test_every_pair_of_values_is_drawn(dimensions, seed):
    drawn = draw_cover(dimensions, seed)
    assert all(combination.keys() == dimensions.keys() for combination in drawn)
    assert set().union(*map(pairs, drawn)) == all_pairs(dimensions)
    # No combination is there for nothing.
    assert len({tuple(combination.items()) for combination in drawn}) == len(drawn)
    assert len(drawn) <= len(all_pairs(dimensions))


@given(TABLES, st.integers(0, 1 << 32))
def test_a_seed_draws_the_same_again(dimensions, seed):
    assert draw_cover(dimensions, seed) == draw_cover(dimensions, seed)


def test_seeds_draw_differently():
    assert len({repr(draw_cover(DIMENSIONS, seed)) for seed in range(20)}) > 1


def test_a_cover_is_smaller_than_all():
    table = {str(number): ("a", "b", "c") for number in range(4)}
    assert len(draw_cover(table, 1)) <= 15 < len(all_combinations(table)) == 81


def test_all_combinations():
    assert all_combinations({"a": "12", "b": "34"}) == [
        {"a": "1", "b": "3"},
        {"a": "1", "b": "4"},
        {"a": "2", "b": "3"},
        {"a": "2", "b": "4"},
    ]
