"""Combinations of dimensions: all of them, or a few in which every pair of values occurs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from typing import TypeAlias

#: A value for each dimension.
Combination: TypeAlias = dict[str, str]
#: Two dimensions with a value each.
Pair: TypeAlias = frozenset[tuple[str, str]]


def all_combinations(dimensions: Mapping[str, Iterable[str]]) -> list[Combination]:
    """Every combination of the values."""
    return [
        dict(zip(dimensions, values, strict=True))
        for values in itertools.product(*dimensions.values())
    ]


def pairs(combination: Combination) -> set[Pair]:
    """The pairs of values that occur in a combination; the value itself in one dimension alone."""
    width = min(2, len(combination))
    return {frozenset(pair) for pair in itertools.combinations(combination.items(), width)}


def draw_cover(dimensions: Mapping[str, Iterable[str]], seed: int) -> list[Combination]:
    """A few combinations that have every pair of values of two dimensions; the seed decides which.

    It takes, as often as that is needed, the one of all combinations that has the most pairs which
    are not there yet.
    """
    left = all_combinations(dimensions)
    random.Random(seed).shuffle(left)
    missing = set().union(*map(pairs, left))
    cover = []
    while missing:
        best = max(left, key=lambda combination: len(pairs(combination) & missing))
        cover.append(best)
        missing -= pairs(best)
    return cover
