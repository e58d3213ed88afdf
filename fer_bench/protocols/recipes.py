"""The recipes. `common-v1` is the same for every method; a paper's own stands on the method's card.

`light-v1` and `strong-v1` are what two of the project's own reference networks are trained with; `distilled-v1` learns
from six networks at once, `votes-v1` from all raters of a picture. Any method may be trained with them.
"""

from __future__ import annotations

from dataclasses import replace

from fer_bench.cards import Augmentation, MethodCard, Recipe
from fer_bench.errors import UserError
from fer_bench.registry import Registry, UnknownNameError

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
LIGHT_V1 = Recipe(
    name="light-v1",
    epochs=60,
    batch_size=128,
    optimizer="adamw",
    lr=6e-3,
    weight_decay=0.02,
    schedule="cosine",
    warmup=0.1,
    label_smoothing=0.05,
    clip=1.0,
    ema=0.999,
    augmentation=Augmentation(flip=True, rotate=8, shift=0.08, scale=0.1, brightness=0.05, contrast=0.2),
)
"""For networks too small to learn the training split by heart: a higher rate, little augmentation."""

STRONG_V1 = Recipe(
    name="strong-v1",
    epochs=250,
    batch_size=128,
    optimizer="nesterov",
    lr=0.05,
    weight_decay=5e-4,
    schedule="cosine",
    warmup=0.02,
    label_smoothing=0.1,
    clip=5.0,
    mixup=0.2,
    ema=0.999,
    augmentation=Augmentation(
        flip=True, rotate=12, shift=0.15, scale=0.2, perspective=0.1, brightness=0.15, contrast=0.3, erase=0.25
    ),
)
"""For networks with millions of parameters and an accelerator: a long schedule, everything that fights over-fitting."""

DISTILLED_V1 = replace(
    COMMON_V1,
    name="distilled-v1",
    label_smoothing=0.0,
    ema=0.999,
    teachers=("resnet18", "sep_resnet18", "sep_se_residual", "reference_small", "small_cnn", "patch_cam"),
    teaching=0.8,
)
"""common-v1 with the answers of six other methods' networks as four fifths of the target, and a mean of the weights."""

VOTES_V1 = replace(COMMON_V1, name="votes-v1", label_smoothing=0.0, ema=0.999, votes=1.0)
"""common-v1 with how FER+'s ten raters are divided as the target, in place of what most of them say, and a mean of the
weights. (Barsoum et al. 2016, the cross-entropy loss of their section 3.)"""

for _recipe in (COMMON_V1, LIGHT_V1, STRONG_V1, DISTILLED_V1, VOTES_V1):
    RECIPES.add(_recipe.name, _recipe)


def recipe_for(name: str | None, card: MethodCard) -> Recipe:
    """The recipe `name` for a method; "paper" stands for its paper's own, None for what its card names.

    Raises UnknownNameError for an unknown recipe, UserError where the method's paper gives none.
    """
    name = name or card.recipe
    if name == "paper":
        if card.paper_recipe is None:
            raise UserError(f"{card.name} has no recipe of its own in its paper; use --recipe common-v1.")
        return card.paper_recipe
    try:
        return RECIPES[name]
    except UnknownNameError as error:
        raise UnknownNameError(f"{str(error).removesuffix('.')}, and of a method's own paper: paper.") from None
