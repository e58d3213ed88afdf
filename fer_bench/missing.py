"""Which methods the command line of `fer_bench.train` asks for, with --missing those that lack a full budget."""

from __future__ import annotations

import argparse
import sys

from fer_bench.cards import Track
from fer_bench.infer import macs
from fer_bench.methods import METHODS, list_methods
from fer_bench.methods.base import Method
from fer_bench.weights import find, read_tensors


def methods_of(given: argparse.Namespace, track: Track) -> list[Method]:
    """The methods to train, each once. Raises UnknownNameError for a name that no method has."""
    names = missing(track, given) if given.missing else list_methods() if given.all else given.method or []
    methods = [METHODS[name] for name in dict.fromkeys(names)]
    if given.all and given.recipe == "paper" and given.grid is None:
        methods = [method for method in methods if method.card.paper_recipe is not None]
    return methods


def missing(track: Track, given: argparse.Namespace) -> list[str]:
    """The methods of which neither --out nor weights/ holds weights of the recipe's full budget, cheapest first.

    The cost is that of one training picture: multiply-accumulates of its forward pass, a frozen guide's included.
    """
    costs: dict[str, int] = {}
    for name in METHODS:
        method = METHODS[name]
        recipe = given.recipe or method.card.recipe
        if recipe == "paper" and method.card.paper_recipe is None:
            continue
        places = (find(name, track.name, recipe, given.seed, where) for where in (given.out, None))
        if not any(path is not None and read_tensors(path)[1]["trained"]["complete"] for path in places):
            costs[name] = macs(method.build(7), method.card.input)
    print(f"to train, cheapest first: {', '.join(sorted(costs, key=costs.__getitem__)) or 'nothing'}", file=sys.stderr)
    return sorted(costs, key=costs.__getitem__)
