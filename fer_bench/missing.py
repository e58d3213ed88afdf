"""Which methods still lack weights of their full budget: what `fer_bench.train --missing` trains."""

from __future__ import annotations

import argparse
import sys

from fer_bench.cards import Track
from fer_bench.infer import macs
from fer_bench.methods import METHODS
from fer_bench.weights import find, read_tensors


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
