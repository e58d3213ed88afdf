"""What a method's builder takes beside the number of classes, and which of a grid cell's settings are such options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from torch import nn

from fer_bench.cards import Augmentation, Recipe
from fer_bench.methods.base import Method
from fer_bench.networks import built

LISTED = ("name", "augmentation", "teachers")
"""Fields of a recipe that are no single value."""
RECIPE_FIELDS = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in LISTED}
AUGMENTATION_FIELDS = {f"augmentation.{name}": kind for name, kind in get_type_hints(Augmentation).items()}
RUN_FIELDS = {"seed": int, "limit": int, "limit_validation": int}
FIELDS = {"method": str, "recipe": str, **RUN_FIELDS, **RECIPE_FIELDS, "augmentation": bool, **AUGMENTATION_FIELDS}
"""What a grid may set of any method; all else that it sets are options of the method's builder."""
SETTLED = ("size",)
"""What a network may take and its card settles: pictures have the card's side, and no other network could take them."""


@functools.cache
def method_options(method: Method) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What builds a method's network, and what that takes beside the number of classes: name -> default.

    The registered builder where it has keywords of its own; else the network's class, where that class called with the
    number of classes alone gives the very same network; else the builder with nothing to vary. SETTLED is left out.
    """
    own = _keywords(method.build)
    if own:
        return method.build, own
    network = built(method.card.name, method.build, 2)
    try:
        same = repr(type(network)(2)) == repr(network)
    except Exception:  # a class of torchvision's, say, that needs more than the number of classes
        same = False
    return (type(network), _keywords(type(network))) if same else (method.build, {})


def _keywords(build: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(build).parameters.values())[1:]
    plain = (bool, int, float, str)
    own = [p for p in parameters if p.name not in FIELDS and p.name not in SETTLED]
    return {p.name: p.default for p in own if isinstance(p.default, plain)}


def own_options(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of a grid cell's settings, what its network was built with; {} for None, which is no cell's."""
    return {name: value for name, value in (settings or {}).items() if name not in FIELDS}


def builder(method: Method, options: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """num_classes -> the method's network with these options; the registered builder itself where there are none."""
    return functools.partial(method_options(method)[0], **options) if options else method.build
