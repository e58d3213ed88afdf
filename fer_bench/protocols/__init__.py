"""The tracks (what is trained on, selected on, tested on) and the recipes (how), as data."""

from fer_bench.protocols.recipes import RECIPES, recipe_for
from fer_bench.protocols.tracks import TRACKS, place, seen_test, track_named, track_title

__all__ = ["RECIPES", "TRACKS", "place", "recipe_for", "seen_test", "track_named", "track_title"]
