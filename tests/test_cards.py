"""Cards are refused where they contradict themselves."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from fer_bench.cards import Augmentation, DatasetCard, InputSpec, MethodCard, Recipe, Reported, Track

GREY = InputSpec(48, 1, (0.5,), (0.25,))
METHOD = MethodCard("a_net", "A net", "Someone, 2020", "It looks.", GREY, "features.3")
RECIPE = Recipe("mine", epochs=3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"size": 7}, "size must be a whole number of pixels, at least 8, not 7"),
        ({"size": 48.0}, "size must be a whole number of pixels, at least 8, not 48.0"),
        ({"size": (48, 48)}, "size must be a whole number of pixels"),
        ({"mean": 0.5}, "mean must be numbers, one per channel, not 0.5"),
        ({"std": (math.nan,)}, "must be finite"),
        ({"margin": -1}, "margin not negative"),
        ({"channels": 3}, "mean and std need 3 value"),
        ({"mean": (0.5, 0.5)}, "mean and std need 1 value"),
        ({"std": ()}, "mean and std need 1 value"),
        ({"std": (0.0,)}, "std must be positive"),
        ({"std": (-1.0,)}, "std must be positive"),
    ],
)
def test_an_input_that_contradicts_itself(change: dict, reason: str) -> None:
    """An input spec with impossible channels, size, mean or std is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        replace(GREY, **change)


def test_an_input_spec_survives_json() -> None:
    """An input spec written to JSON and read back is equal, and an unknown key is refused."""
    spec = InputSpec(224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), margin=0.1)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(TypeError, match="colour"):
        InputSpec.from_dict({**spec.to_dict(), "colour": True})


def test_an_input_spec_takes_lists_and_arrays() -> None:
    """As JSON and NumPy have them; it can be compared and hashed as any."""
    assert {InputSpec(48, 1, [0.5], np.array([0.25]))} == {GREY}


def test_reading_an_input_spec_checks_it() -> None:
    """A stored spec that contradicts itself is refused as one that is made."""
    with pytest.raises(ValueError, match="std must be positive"):
        InputSpec.from_dict({**GREY.to_dict(), "std": [0.0]})


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 69.32, -0.1])
def test_a_reported_percentage_is_refused(accuracy: float) -> None:
    """A reported accuracy that is no fraction strictly between 0 and 1 is refused, and quoted."""
    with pytest.raises(ValueError, match=f"a reported accuracy is a fraction, not {accuracy}"):
        Reported("fer2013", accuracy, "Table 1")


def test_a_reason_says_whose_it_is() -> None:
    """A bare sentence, as an older card has it, would be about no weights in particular."""
    with pytest.raises(TypeError, match=r"as Why\(text, weights\), not 'its rate'"):
        Reported("fer2013", 0.5, "Table 1", "its rate")


@pytest.mark.parametrize("name", ["shift", "scale", "perspective", "brightness", "contrast", "erase"])
@pytest.mark.parametrize("value", [-0.01, 1.0])
def test_an_impossible_augmentation(name: str, value: float) -> None:
    """A strength outside [0, 1) is refused by its name."""
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\), not {value}"):
        Augmentation(**{name: value})


@pytest.mark.parametrize("angle", [-5.0, math.nan, math.inf])
def test_an_impossible_rotation(angle: float) -> None:
    """A greatest angle that is negative or no finite number is refused, and quoted."""
    with pytest.raises(ValueError, match=f"rotate must be a finite number of degrees, 0 or more, not {angle}"):
        Augmentation(rotate=angle)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "clip", "mixup"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_number_of_a_recipe_that_no_training_could_use(name: str, value: float) -> None:
    """A rate, decay, gradient norm or mixup that is negative or not finite is refused by its name."""
    with pytest.raises(ValueError, match=rf"\b{name} must be"):
        replace(RECIPE, **{name: value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": "lion"}, "optimizer must be adamw, adam, sgd or nesterov, not 'lion'"),
        ({"schedule": "step"}, "schedule must be cosine or constant, not 'step'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"patience": -1}, "patience must not be negative"),
        ({"batch_size": 1}, "batch_size must be at least 2, which batch norm needs, not 1"),
        ({"label_smoothing": 1.0}, "label_smoothing and warmup"),
        ({"warmup": 1.0}, "label_smoothing and warmup"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\), not 1.0"),
    ],
)
def test_an_impossible_recipe(change: dict, reason: str) -> None:
    """A recipe with an unknown optimiser or schedule, or an impossible number, is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        replace(RECIPE, **change)


@pytest.mark.parametrize("change", [{"epochs": 4}, {"name": "yours"}, {"augmentation": Augmentation(flip=True)}])
def test_a_recipes_hash_covers_all_of_it(change: dict) -> None:
    """Equal recipes have equal hashes; a change anywhere, augmentation included, changes the hash."""
    assert replace(RECIPE).hash() == RECIPE.hash()
    assert replace(RECIPE, **change).hash() != RECIPE.hash()


@pytest.mark.parametrize("name", ["ANet", "a-net", "a net", "", "_", "naïve_net"])
def test_a_method_name_that_cannot_be_a_file(name: str) -> None:
    """A method's name with capitals, hyphens, blanks or nothing in it is refused, and quoted."""
    with pytest.raises(ValueError, match="lower case letters, digits and underscores") as caught:
        replace(METHOD, name=name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["MyRecipe", "own/v1", "", ".v1", "a recipe", "naïve"])
def test_a_recipe_name_that_no_row_could_have(name: str) -> None:
    """Refused before anything is trained under it, which no record could name."""
    with pytest.raises(ValueError, match="a recipe's name is lower case letters, digits, dots") as caught:
        replace(RECIPE, name=name)
    assert repr(name) in str(caught.value)


def test_a_papers_own_recipe_is_called_so() -> None:
    """One that was made of another by `replace`, and kept its name, would take the place of that one's weights."""
    with pytest.raises(ValueError, match="must be called 'paper', not 'common-v1': give it name='paper'"):
        replace(METHOD, paper_recipe=replace(RECIPE, name="common-v1"))
    assert replace(METHOD, paper_recipe=replace(RECIPE, name="paper")).paper_recipe.name == "paper"


def test_a_card_of_lists_is_as_one_of_tuples() -> None:
    """So that it can be looked up by, as a grid does."""
    card = replace(METHOD, parameters=[[7, 1]], reported=[])
    assert hash(card) == hash(replace(METHOD, parameters=((7, 1),), reported=()))


def test_a_data_set_with_unknown_emotions() -> None:
    """A data set's card that names no emotion of ours is refused, with its name and the strange ones."""
    with pytest.raises(ValueError, match=r"faces: unknown emotions \['boredom', 'happy'\]"):
        DatasetCard("faces", "Faces", ("anger", "happy", "boredom"), (), "free", "nowhere")


def test_cards_cannot_be_changed() -> None:
    """A card is frozen: what was checked when it was made stays true."""
    with pytest.raises(FrozenInstanceError):
        GREY.size = 3  # type: ignore[misc]


def test_a_tracks_hash_covers_all_of_it() -> None:
    """Equal tracks have equal hashes; another test split or label set changes the hash."""
    track = Track("t", "T", "fer2013", ("anger", "fear"), trained_on="t")
    assert replace(track).hash() == track.hash()
    hashes = {track.hash(), replace(track, test="validation").hash(), replace(track, emotions=("anger",)).hash()}
    assert len(hashes) == 3
