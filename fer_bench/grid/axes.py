"""A grid's file: its axes, checked, and the settings of every cell, enumerated or drawn at random."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.methods.options import FIELDS, method_options

Axes = dict[str, Any]
"""Axis -> list of values or {kind of range: [low, high]}; and `random` -> {"samples": N, "seed": S}."""

ELSEWHERE = {"early_stopping": "patience, 0 for none", "learning_rate": "lr"}
"""What other programs call a field -> ours."""
GIVEN = ("track", "device", "out", "engine")
"""What a file of grids does not say: it is given on the command line."""
RANGES = {"uniform": float, "loguniform": float, "integers": int}
DIGITS = 4
"""Significant digits that a drawn number keeps, so that a table can be read."""


def read_axes(file: Path) -> list[Axes]:
    """The mappings of the file, every value a list or a range. Raises UserError, naming file and mend."""
    try:
        return yaml_axes(file, file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: this grid cannot be read ({reason}); give a YAML file.") from None


def yaml_axes(file: Path, text: str) -> list[Axes]:
    """The same of a text; `file` is what errors name."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{file}{where}: this is not valid YAML ({getattr(error, 'problem', error)}).") from None
    grids = content if isinstance(content, list) else [content]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise UserError(f"{file}: a grid is a mapping of fields to values, such as `lr: [0.01, 0.001]`.")
    axes = [{str(k): v if isinstance(v, list | dict) or k == "random" else [v] for k, v in g.items()} for g in grids]
    for grid in axes:
        for name, values in grid.items():
            if not values:
                raise UserError(f"{file}: {name} has no values; list at least one, or leave it out.")
    return axes


def combinations(file: Path, grids: list[Axes], methods: list[str]) -> list[dict[str, Any]]:
    """The settings of every cell, each once, in the order of scikit-learn's ParameterGrid or ParameterSampler.

    methods: taken where a grid names none. Raises UserError for an unknown field, with the nearest match, for a value
    of the wrong kind and for a grid without a method; UnknownNameError for an unknown method or recipe.
    """
    from sklearn.model_selection import ParameterGrid

    settings: list[dict[str, Any]] = []
    for given in grids:
        grid = {name: values for name, values in given.items() if name != "random"}
        names = grid.get("method", methods)
        if not names:
            raise UserError(f"{file}: no method; add `method: small_cnn` or give --method.")
        if not isinstance(names, list):
            raise UserError(f"{file}: method must be a name or a list of names.")
        chosen = [METHODS[str(name)] for name in names]
        kinds = dict(FIELDS)
        if not grid.keys() <= FIELDS.keys():
            own = [method_options(method)[1] for method in chosen]
            kinds |= {name: type(default) for name, default in _shared(own).items()}
            if unknown := [name for name in grid if name not in kinds]:
                raise UserError(f"{file}: {_unknown(unknown[0], kinds, dict(zip(map(str, names), own, strict=True)))}")
        checked = {name: _values(file, name, grid[name], kinds[name]) for name in grid}
        space = {"method": list(names), **checked}
        if "random" in given:
            cells = _drawn(file, space, given["random"])
        else:
            for name, values in checked.items():
                if isinstance(values, dict):
                    raise UserError(f"{file}: {name} is a range; add `random: {{samples: 20}}` to draw from it.")
            cells = iter(ParameterGrid(space))
        for cell in cells:
            # In the file's order, with the method first; ParameterGrid sorts by name.
            ordered = {name: cell[name] for name in dict.fromkeys(["method", *grid])}
            if ordered not in settings:
                settings.append(ordered)
    return settings


def _unknown(name: str, kinds: Mapping[str, type], own: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with a field that no recipe and not every method has, and the mend. own: the methods' options."""
    lacking = [method for method, options in own.items() if name not in options]
    text = f"{name} is no field of a recipe and no option of {', '.join(lacking)}"
    if len(lacking) < len(own):
        return f"{text}; write a list of grids, and give it in that of the other methods alone."
    if name in GIVEN:
        return f"{text}; give --{name}."
    near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, kinds, n=1)
    return text + (f"; did you mean {near[0]}?" if near else ".")


def _drawn(file: Path, space: Axes, random: Any) -> Iterator[dict[str, Any]]:
    """Cells drawn from the space, each under every seed that the space lists.

    Lists alone are drawn from without replacement, and give at most as many cells as they have combinations.
    """
    from scipy import stats
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    known = {"samples", "seed"}
    if not isinstance(random, dict) or "samples" not in random or not random.keys() <= known:
        raise UserError(f"{file}: random takes samples and seed, such as `random: {{samples: 20, seed: 0}}`.")
    samples, seed = (_value(file, f"random.{n}", random.get(n, 0), int) for n in ("samples", "seed"))
    if samples < 1:
        raise UserError(f"{file}: random.samples must be at least 1, not {samples}.")
    makers = {
        "uniform": lambda low, high: stats.uniform(low, high - low),
        "loguniform": stats.loguniform,
        "integers": lambda low, high: stats.randint(low, high + 1),
    }
    seeds = [{"seed": one} for one in space["seed"]] if "seed" in space else [{}]
    drawn_from = {name: values for name, values in space.items() if name != "seed"}
    for name, values in drawn_from.items():
        if isinstance(values, dict):
            ((kind, ends),) = values.items()
            drawn_from[name] = makers[kind](*ends)
    if all(isinstance(values, list) for values in drawn_from.values()):
        samples = min(samples, len(ParameterGrid(drawn_from)))
    for point in ParameterSampler(drawn_from, samples, random_state=seed):
        for name, value in point.items():
            if isinstance(space[name], dict):  # plain Python numbers, which JSON can hold
                point[name] = int(value) if "integers" in space[name] else float(f"{value:.{DIGITS}g}")
        for one in seeds:
            yield point | one


def _shared(own: list[dict[str, Any]]) -> dict[str, Any]:
    """The options that all the methods take."""
    return {name: default for name, default in own[0].items() if all(name in other for other in own)}


def _values(file: Path, name: str, values: Any, kind: type) -> list[Any] | dict[str, list[Any]]:
    """The values of an axis, or its range with ends of the axis's type. Raises UserError where they make no sense."""
    if not isinstance(values, dict):
        return [_value(file, name, value, kind) for value in values]
    fitting = [word for word, of in RANGES.items() if of is kind and name != "seed"]
    if not fitting:
        raise UserError(f"{file}: {name} cannot be drawn from a range; list its values.")
    word, ends = next(iter(values.items()))
    if len(values) > 1 or word not in fitting or not isinstance(ends, list) or len(ends) != 2:
        forms = " or ".join(f"{{{one}: [low, high]}}" for one in fitting)
        raise UserError(f"{file}: {name} is no range that it can be drawn from; write {forms}.")
    low, high = (_value(file, name, end, kind) for end in ends)
    if low >= high or (word == "loguniform" and low <= 0):
        above = ", and the low end above 0" if word == "loguniform" else ""
        raise UserError(f"{file}: the range of {name} must go from a low end to a higher one{above}.")
    return {word: [low, high]}


def _value(file: Path, name: str, value: Any, kind: type) -> Any:
    """The value as its field's type. Raises UserError where it is of another."""
    if kind is float and isinstance(value, str):  # YAML takes 1e-3, without a point, for text
        with contextlib.suppress(ValueError):
            value = float(value)
    number = kind in (int, float)
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[kind]
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (number and not (math.isfinite(value) and value >= 0)):
        least = ", 0 or more" if number else ""
        raise UserError(f"{file}: {name} must be {wanted}{least}, not {value!r}.")
    if name in ("limit", "limit_validation") and value < 1:
        raise UserError(f"{file}: {name} must be at least 1, not {value}.")
    return float(value) if kind is float else value
