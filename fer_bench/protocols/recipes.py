"""The recipes. `common-v1` is the same for every method; a paper's own stands on the method's card."""

from __future__ import annotations

from fer_bench.cards import Augmentation, MethodCard, Recipe
from fer_bench.errors import UserError
from fer_bench.registry import Registry

RECIPES: Registry[Recipe] = Registry("recipe")

COMMON_V1 = Recipe(
    name="common-v1",
    epochs=60,
    batch_size=128,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.02,
    schedule="cosine",
    warmup=0.1,
    label_smoothing=0.1,
    clip=1.0,
    augmentation=Augmentation(flip=True, rotate=10, shift=0.1, scale=0.1, brightness=0.1, contrast=0.2, erase=0.1),
)
RECIPES.add("common-v1", COMMON_V1)


def recipe_for(name: str, card: MethodCard) -> Recipe:
    """The recipe `name` for a method; "paper" stands for the one on its card.

    Raises UnknownNameError for an unknown recipe, UserError where the method's paper gives none.
    """
    if name == "paper":
        if card.paper_recipe is None:
            raise UserError(f"{card.name} has no recipe of its own in its paper; use --recipe common-v1.")
        return card.paper_recipe
    return RECIPES[name]
