"""Grid search over recipes, methods and their options: `python -m fer_bench.train --grid grid.yaml --track fer2013`.

The file is a mapping of axes to values (or a list of such mappings, one grid after the other, for methods with
different options); every combination is one cell, an ordinary training run in a folder of its own under --out. This is
P2's Table 2 (its one dropout rate, .5, is what its networks have):

    method: sep_cnn
    optimizer: sgd
    lr: [0.1, 0.01, 0.001, 0.0001]
    batch_size: [8, 16, 32, 64]
    epochs: [10, 20, 30, 40]
    patience: [0, 5]               # early stopping off and on
    augmentation: [true, false]    # the recipe's own, and none

The axes are `method`, `recipe` (what the other axes change: common-v1 or paper), `seed`, `limit`, `limit_validation`,
every field of `cards.Recipe`, `augmentation.FIELD` of `cards.Augmentation`, and what a method's network takes
(`layers` and `kernel` of small_cnn, say). What the file leaves open comes from the command line, then from the recipe.

Calling it again goes on: finished cells are kept, a killed one resumes at its last full epoch, and one that ran out of
--max-minutes (which each cell has to itself) gets as many again. The table, sorted by validation accuracy, is printed
as Markdown and written as CSV to --out, under the file's name, after every cell. The test split is out of reach.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import functools
import hashlib
import inspect
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from fer_bench.cards import Augmentation, Recipe, Track
from fer_bench.datasets import forbid_split, load_dataset
from fer_bench.errors import UserError
from fer_bench.files import atomic_write
from fer_bench.methods import METHODS, Method
from fer_bench.protocols import RECIPES, recipe_for
from fer_bench.weights import run_folder

Axes = dict[str, list[Any]]
Fit = Callable[[Method, Recipe, Any, Mapping[str, Any]], Path]
"""(method, recipe, train.Options, settings) -> model.safetensors. Given by fer_bench.train, which stands above."""

OFF = Augmentation(flip=False)
RECIPE_FIELDS = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in ("name", "augmentation")}
AUGMENTATION_FIELDS = {f"augmentation.{name}": kind for name, kind in get_type_hints(Augmentation).items()}
RUN_FIELDS = {"seed": int, "limit": int, "limit_validation": int}
FIELDS = {"method": str, "recipe": str, **RUN_FIELDS, **RECIPE_FIELDS, "augmentation": bool, **AUGMENTATION_FIELDS}
RESULTS = ("validation_accuracy", "best_epoch", "epochs_run", "ended", "minutes", "folder")


@dataclass(frozen=True)
class Cell:
    """One run of the grid. settings: axis -> value, what the file says of it.   options: `train.Options`."""

    settings: Mapping[str, Any]
    method: Method
    recipe: Recipe
    options: Any
    folder: Path

    def finished(self) -> dict[str, Any] | None:
        """The results of a cell that need not run again, else None: the columns of RESULTS."""
        failed = _json(self.folder / "failed.json")  # it may have run out of time before, with a record
        if failed is not None:
            return {"ended": failed["reason"], "folder": str(self.folder)}
        record = _json(self.folder / "record.json")
        row = None if record is None else _row(record, self.folder)
        return None if row is None or row["ended"] == "max-minutes" else row


def search(
    file: Path,
    methods: Sequence[Method],
    track: Track,
    recipe: str,
    options: Any,
    out: Path,
    fit: Fit,
    failure: type[Exception],
) -> int:
    """Train every cell that is not finished yet, write and print the table. Returns the exit code.

    methods, recipe and options are what the file leaves open. failure: what `fit` raises where a loss is not finite;
    such a cell ends so for good, and the others go on. 0: every cell was run and one has weights; 1: none has, or it
    was stopped by hand. Raises UserError and DataError before anything is trained, for every fault of the file.
    """
    with forbid_split(track.test):
        grids = read_axes(file)
        combined = combinations(file, grids, [method.card.name for method in methods])
        # A cell is its settings and its data: over other pictures, the same settings are another cell.
        train = load_dataset(track.dataset, track.train).restrict(track.emotions)
        validation = load_dataset(track.dataset, track.validation).restrict(train.emotions)
        data, whole = [train.content_hash(), validation.content_hash()], len(validation)
        del train, validation  # each cell reads its own
        cells = [cell_of(file, settings, track, recipe, options, out, data) for settings in combined]
        table = out / f"{file.stem}.csv"
        rows = [cell.finished() for cell in cells]
        done = sum(row is not None for row in rows)
        print(f"{file}: {len(cells)} cells, {done} of them finished before", file=sys.stderr)
        try:
            for number, cell in enumerate(cells):
                write_table(table, cells, rows)
                if rows[number] is not None:
                    continue
                told = ", ".join(f"{name} {value}" for name, value in cell.settings.items())
                print(f"cell {number + 1} of {len(cells)}: {told}", file=sys.stderr)
                try:
                    model = fit(cell.method, cell.recipe, cell.options, cell.settings)
                    rows[number] = _row(_json(model.parent / "record.json") or {}, cell.folder)
                except failure as error:
                    print(error, file=sys.stderr)
                    atomic_write(cell.folder / "failed.json", b'{"reason": "the loss was not finite"}\n')
                    rows[number] = cell.finished()
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            return 1
        finally:
            write_table(table, cells, rows)
        print(markdown(cells, rows))
        pictures = [min(whole, cell.options.limit_validation or whole) for cell in cells]
        told = verdict(rows, pictures)
        print(f"{table}: {len(cells)} cells, chosen between on {track.validation} alone{told}", file=sys.stderr)
        return 0 if any(row and _has(row) for row in rows) else 1


def read_axes(file: Path) -> list[Axes]:
    """The mappings of the file, every value a list. Raises UserError, naming file and mend."""
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
    axes = [{str(k): v if isinstance(v, list) else [v] for k, v in grid.items()} for grid in grids]
    for grid in axes:
        for name, values in grid.items():
            if not values:
                raise UserError(f"{file}: {name} has no values; list at least one, or leave it out.")
    return axes


def combinations(file: Path, grids: list[Axes], methods: list[str]) -> list[dict[str, Any]]:
    """The settings of every cell, each once, in the order of scikit-learn's ParameterGrid.

    methods: taken where a grid names none. Raises UserError for an unknown field, with the nearest match, for a value
    of the wrong kind and for a grid without a method; UnknownNameError for an unknown method or recipe.
    """
    from sklearn.model_selection import ParameterGrid

    settings: list[dict[str, Any]] = []
    for grid in grids:
        names = grid.get("method", methods)
        if not names:
            raise UserError(f"{file}: no method; add `method: small_cnn` or give --method.")
        chosen = [METHODS[str(name)] for name in names]
        kinds = dict(FIELDS)
        if not grid.keys() <= FIELDS.keys():
            own = [method_options(method)[1] for method in chosen]
            kinds |= {name: type(default) for name, default in _shared(own).items()}
        for name in grid:
            if name not in kinds:
                near = difflib.get_close_matches(name, kinds, n=1)
                hint = f"; did you mean {near[0]}?" if near else "."
                of = ", ".join(map(str, names))
                raise UserError(f"{file}: {name} is no field of a recipe and no option of {of}{hint}")
        checked = {name: [_value(file, name, value, kinds[name]) for value in grid[name]] for name in grid}
        for cell in ParameterGrid({"method": list(names), **checked}):
            # In the file's order, with the method first; ParameterGrid sorts by name.
            ordered = {name: cell[name] for name in dict.fromkeys(["method", *grid])}
            if ordered not in settings:
                settings.append(ordered)
    return settings


def cell_of(
    file: Path, settings: Mapping[str, Any], track: Track, recipe: str, options: Any, out: Path, data: list[str]
) -> Cell:
    """The run that settings describe. Raises UserError where the recipe or the network refuses a value."""
    method = METHODS[settings["method"]]
    base = recipe_for(settings.get("recipe", recipe), method.card)
    try:
        given = {name: getattr(options, name) for name in ("epochs", "patience") if getattr(options, name) is not None}
        changed = replace(base, **given | {name: settings[name] for name in RECIPE_FIELDS if name in settings})
        augmentation = _augmentation(settings, base.augmentation)
        own = {name: value for name, value in settings.items() if name not in FIELDS}
        build = method.build
        if own:
            build = functools.partial(method_options(method)[0], **own)
            build(2)  # refuse a value that the network does not take before anything is trained
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}.") from None
    run = {name: settings[name] for name in RUN_FIELDS if name in settings}
    options = replace(options, epochs=None, patience=None, resume=True, **run)
    # What the run depends on, and nothing that it does not (device, minutes): its name and so its folder.
    content = {
        "method": method.card.name, "options": own, "base": base.name, "track": track.hash(), "data": data,
        "recipe": asdict(replace(changed, name="grid", augmentation=augmentation)), "limit": options.limit,
        "limit_validation": options.limit_validation,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    changed = replace(changed, name=f"grid-{digest}", augmentation=augmentation)
    # Stages may belong to recipes by name; a cell has those of the recipe that it changes.
    stages = tuple(replace(s, recipes=()) for s in method.stages if not s.recipes or base.name in s.recipes)
    folder = run_folder(out, method.card.name, track.name, changed.name, options.seed)
    return Cell(settings, replace(method, build=build, stages=stages), changed, options, folder)


@functools.cache
def method_options(method: Method) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What builds a method's network, and what that takes beside the number of classes: name -> default.

    The registered builder where it has keywords of its own; else the network's class, where that class called with the
    number of classes alone gives the very same network; else the builder with nothing to vary.
    """
    own = _keywords(method.build)
    if own:
        return method.build, own
    network = method.build(2)
    try:
        same = repr(type(network)(2)) == repr(network)
    except Exception:  # a class of torchvision's, say, that needs more than the number of classes
        same = False
    return (type(network), _keywords(type(network))) if same else (method.build, {})


def _keywords(build: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(build).parameters.values())[1:]
    plain = (bool, int, float, str)
    return {p.name: p.default for p in parameters if p.name not in FIELDS and isinstance(p.default, plain)}


def _shared(own: list[dict[str, Any]]) -> dict[str, Any]:
    """The options that all the methods take."""
    return {name: default for name, default in own[0].items() if all(name in other for other in own)}


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


def _augmentation(settings: Mapping[str, Any], own: Augmentation) -> Augmentation:
    """The recipe's own; `augmentation: true` where it has none is common-v1's, and single fields change it further."""
    chosen = own
    if "augmentation" in settings:
        chosen = OFF if not settings["augmentation"] else RECIPES["common-v1"].augmentation if own == OFF else own
    single = {field.name: settings.get(f"augmentation.{field.name}") for field in fields(Augmentation)}
    return replace(chosen, **{name: value for name, value in single.items() if value is not None})


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _row(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    trained = record["trained"]
    return {
        "validation_accuracy": round(trained["selected_value"], 4), "best_epoch": trained["best_epoch"],
        "epochs_run": trained["epochs"], "ended": trained["ended"], "minutes": round(trained["wall_seconds"] / 60, 1),
        "folder": str(folder),
    }  # fmt: skip


def _sorted(cells: list[Cell], rows: list[dict[str, Any] | None]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the axes, then RESULTS; the best validation accuracy first, cells without one last."""
    axes = list(dict.fromkeys(name for cell in cells for name in cell.settings))
    pairs = [(cell, row or {"ended": "not finished"}) for cell, row in zip(cells, rows, strict=True)]
    pairs.sort(key=lambda pair: -pair[1].get("validation_accuracy", -1.0))
    lines = [[cell.settings.get(n, "") for n in axes] + [row.get(n, "") for n in RESULTS] for cell, row in pairs]
    return [*axes, *RESULTS], [[str(value) for value in line] for line in lines]


def wilson(accuracy: float, pictures: int) -> tuple[float, float]:
    """The 95 % interval of a fraction that was measured on so many pictures (Wilson, JASA 1927)."""
    z = 1.96
    scale = 1 + z * z / pictures
    middle = (accuracy + z * z / (2 * pictures)) / scale
    half = z / scale * math.sqrt(accuracy * (1 - accuracy) / pictures + z * z / (4 * pictures * pictures))
    return middle - half, middle + half


def verdict(rows: Sequence[dict[str, Any] | None], pictures: Sequence[int]) -> str:
    """How far the best cell can be told from the others; "" where none has an accuracy.

    pictures: how many each cell was validated on.
    """
    known = [(row["validation_accuracy"], n) for row, n in zip(rows, pictures, strict=True) if row and _has(row)]
    if not known:
        return ""
    best, n = max(known)
    low, high = wilson(best, n)
    near = sum(value >= low for value, _ in known) - 1
    return f"; the best has {best:.4f} ({low:.4f} to {high:.4f} on {n:,} pictures); {near} other cell(s) lie in that"


def _has(row: Mapping[str, Any]) -> bool:
    return "validation_accuracy" in row


def write_table(path: Path, cells: list[Cell], rows: list[dict[str, Any] | None]) -> None:
    """The table as CSV, whole or not at all."""
    header, lines = _sorted(cells, rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    atomic_write(path, text.getvalue().encode())


def markdown(cells: list[Cell], rows: list[dict[str, Any] | None]) -> str:
    """The table as Markdown, without the folders."""
    header, lines = _sorted(cells, rows)
    every = [header[:-1], ["---"] * (len(header) - 1), *(line[:-1] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)
