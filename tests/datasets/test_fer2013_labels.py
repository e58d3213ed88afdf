"""The order of FER2013's labels is known by how many pictures each has; no copy of it is needed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fer_bench.datasets import fer2013
from fer_bench.datasets.fer2013_copies import Raw
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError


def raw(split: str, order: list[int], lacking: int = 0) -> Raw:
    """A whole copy without its pictures, its labels renumbered and every so many of them missing."""
    labels = np.repeat(order, fer2013.CLASS_COUNTS[split])
    labels = np.delete(labels, np.linspace(0, len(labels) - 1, lacking).astype(int))
    return Raw(np.zeros((len(labels), 1, 1), np.uint8), labels, tuple(map(str, range(len(labels)))), None, ())


@pytest.mark.parametrize("split", fer2013.COUNTS)
def test_official_labels_are_taken(split: str) -> None:
    """Whole, or with one picture in a hundred missing, or with a few labels that another copy has otherwise."""
    assert fer2013._check_count(raw(split, list(range(7))), split, None) == ()
    assert len(fer2013._check_count(raw(split, list(range(7)), fer2013.COUNTS[split] // 101), split, None)) == 1
    other = raw(split, list(range(7)))
    other.labels[0] = 4
    assert fer2013._check_count(other, split, None) == ()
    other.labels[-5:] = 1  # disgust, of which there are so few that 1 % is less than a picture
    assert fer2013._check_count(other, split, None) == ()
    other.labels[-60:] = 1
    with pytest.raises(DataError, match="labelled disgust"):
        fer2013._check_count(other, split, None)


@pytest.mark.parametrize("split", fer2013.COUNTS)
def test_any_two_classes_that_changed_places_are_refused(split: str) -> None:
    """So is the alphabet's order; the sentence names an emotion and its two counts."""
    orders = [[{one: two, two: one}.get(i, i) for i in range(7)] for one, two in combinations(range(7), 2)]
    orders.append([sorted(SEVEN).index(emotion) for emotion in SEVEN])
    for order in orders:
        with pytest.raises(DataError, match=f"of its {split} pictures are labelled [a-z]+ where FER2013 has [0-9,]+; "):
            fer2013._check_count(raw(split, order), split, None)


def test_the_counts_are_the_official_ones() -> None:
    """28,709 / 3,589 / 3,589 pictures, as FER2013's own paper and Kaggle's page have them."""
    assert fer2013.COUNTS == {"train": 28_709, "validation": 3_589, "test": 3_589}
