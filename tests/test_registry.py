"""The registry."""

from __future__ import annotations

import pytest

from fer_bench.registry import Registry, UnknownNameError


@pytest.fixture
def animals() -> Registry[int]:
    """Three entries."""
    registry: Registry[int] = Registry("animal")
    for name, legs in (("horse", 4), ("spider", 8), ("snake", 0)):
        registry.add(name, legs)
    return registry


def test_entries_are_found_in_the_order_they_were_added(animals: Registry[int]) -> None:
    """A registry reads like a dictionary: by name, by membership, by length and in the order of adding."""
    assert animals["spider"] == 8
    assert "snake" in animals
    assert "cat" not in animals
    assert list(animals) == ["horse", "spider", "snake"]
    assert len(animals) == 3


def test_a_duplicate_name_is_refused(animals: Registry[int]) -> None:
    """A name that is taken is refused by name, and the first entry stays."""
    with pytest.raises(ValueError, match="the animal 'horse' is registered twice"):
        animals.add("horse", 3)
    assert animals["horse"] == 4


def test_an_unknown_name_gives_the_nearest_and_all(animals: Registry[int]) -> None:
    """A misspelt name is answered with the nearest match and every valid name, as a KeyError."""
    with pytest.raises(KeyError) as caught:
        animals["hrose"]
    text = "there is no animal 'hrose'. Did you mean 'horse'? The names are: horse, spider, snake."
    assert str(caught.value) == text


def test_a_name_near_nothing_gets_no_guess(animals: Registry[int]) -> None:
    """Where nothing is near, only the valid names are given."""
    with pytest.raises(UnknownNameError) as caught:
        animals["xyz"]
    assert str(caught.value) == "there is no animal 'xyz'. The names are: horse, spider, snake."
