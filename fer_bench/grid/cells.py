"""The cells of a grid: what each one trains, where it lies, and what became of it."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout

from fer_bench.cards import Augmentation, Recipe, Track
from fer_bench.checkpoints import VALIDATED
from fer_bench.datasets import load_dataset
from fer_bench.datasets.stream import to_stream
from fer_bench.errors import DataError, UserError
from fer_bench.files import OutputError, atomic_write, make_folder, track_folder
from fer_bench.grid.axes import Axes, combinations, read_axes
from fer_bench.methods import METHODS, Method
from fer_bench.methods.options import RECIPE_FIELDS, RUN_FIELDS, builder, own_options
from fer_bench.protocols import RECIPES, recipe_for
from fer_bench.weights import run_folder

T = TypeVar("T")
Fit = Callable[[Method, Recipe, Any, Mapping[str, Any]], Path]
"""(method, recipe, train.Options, settings) -> model.safetensors. Given by fer_bench.train, which stands above."""

OFF = Augmentation(flip=False)
TRACK = "fer2013"
"""The track of a call that names none."""
NOT_FINISHED = "not finished"
FAILED = "failed: "


@dataclass(frozen=True)
class Cell:
    """One run of the grid. settings: axis -> value, what the file says of it.   options: `train.Options`."""

    settings: Mapping[str, Any]
    method: Method
    recipe: Recipe
    options: Any
    folder: Path

    def told(self) -> str:
        """The settings in words."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())

    def row(self) -> dict[str, Any]:
        """What became of it, from its folder: columns of the table, of which `ended` is always there.

        `ended` is "complete" or "patience", "max-minutes" (more minutes would do it good), "not finished", "failed: "
        and why (it will be tried again) or another reason for which it ended for good.
        """
        failed = _read(self.folder / "failed.json", lambda said: (str(said["reason"]), said.get("final", True)))
        if failed is not None and failed[1]:  # it may have run out of time before, with a record
            return {"ended": failed[0], "folder": str(self.folder)}
        row = self._recorded() or {"ended": NOT_FINISHED}
        return row if failed is None else row | {"ended": FAILED + failed[0]}

    def _recorded(self) -> dict[str, Any] | None:
        return _read(self.folder / "record.json", lambda record: _row(record, self.folder))

    def recognised(self) -> np.ndarray | None:
        """Which validation pictures its weights recognise, bool (N,), as the run wrote it; None where it did not."""
        if "validation_accuracy" not in self.row():
            return None
        try:
            return np.load(self.folder / VALIDATED, allow_pickle=False)
        except (OSError, ValueError):  # of a run before there was such a file, or a broken one
            return None

    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return is_finished(self.row())

    def fail(self, reason: str, final: bool = False) -> None:
        """Write down that it failed. final: it would fail so again, and is not tried again."""
        content = json.dumps({"reason": reason, "final": final}) + "\n"
        atomic_write(self.folder / "failed.json", content.encode())

    @contextlib.contextmanager
    def held(self, wait: bool = True) -> Iterator[bool]:
        """Whether this process alone trains it while this is open; every worker of a sweep and every --grid asks.

        wait: until no other does, so that the answer is yes. Raises OutputError where its folder cannot be written to.
        """
        lock = FileLock(make_folder(self.folder) / "lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written to ({error.strerror or error}).") from None
        try:
            yield True
        finally:
            lock.release()

    def train(self, fit: Fit, failure: type[Exception]) -> None:
        """Train it to its end. `failure` is what `fit` raises where a loss is not finite; so the cell ends for good.

        Other wrong use and a lack of memory are its failure, which another call tries again; DataError and OutputError,
        which concern the other cells too, are raised.
        """
        (self.folder / "failed.json").unlink(missing_ok=True)
        if self._recorded() is None:  # a broken one tells nothing, and no run is trained in its place
            (self.folder / "record.json").unlink(missing_ok=True)
        try:
            fit(self.method, self.recipe, self.options, self.settings)
        except failure as error:
            print(error, file=sys.stderr)
            self.fail("the loss was not finite", final=True)
        except (UserError, torch.OutOfMemoryError) as error:  # the other cells may well have what this one lacks
            if isinstance(error, (DataError, OutputError)):
                raise
            print(error, file=sys.stderr)
            self.fail(" ".join(str(error).split())[:300])


def is_finished(row: Mapping[str, Any]) -> bool:
    """Whether a row of `Cell.row` is a cell's last."""
    return row["ended"] not in ("max-minutes", NOT_FINISHED) and not row["ended"].startswith(FAILED)


@dataclass(frozen=True)
class Plan:
    """A grid that was read and checked: plain data that describes every cell, to this process or to another."""

    file: Path
    settings: tuple[dict[str, Any], ...]
    """Of each cell, what the file says of it."""
    track: Track
    recipe: str | None
    """Where the file names none; None is the one on each method's card."""
    options: Any
    """`train.Options`: what the file leaves open."""
    out: Path
    data: tuple[str, str]
    """Content hashes of the training and the validation split: over other pictures, a cell is another."""
    pictures: int
    """How many validation pictures there are."""
    name: str
    """Of its table, without .csv: the file's, then what the command line changes, so that a try-out has another."""

    def cell(self, number: int) -> Cell:
        """Cell `number`, from 0. Raises UserError where the recipe or the network refuses a value."""
        return cell_of(
            self.file, self.settings[number], self.track, self.recipe, self.options, self.out, list(self.data)
        )

    def cells(self) -> list[Cell]:
        """All of them, in order."""
        return [self.cell(number) for number in range(len(self.settings))]


def plan(file: Path, methods: Sequence[Method], track: Track, recipe: str | None, options: Any, out: Path) -> Plan:
    """Read and check the file. methods, recipe and options: what it leaves open; a line says where that is nothing.

    Raises UserError and DataError, before anything is trained, for every fault of the file that shows without its
    networks (`Plan.cells` finds the others), and UserError where its table would replace another file's.
    """
    grids, names = read_axes(file), [method.card.name for method in methods]
    combined = combinations(file, grids, names)
    listed = to_stream(track.dataset, track.train, options.stream)
    train = (load_dataset(track.dataset, track.train) if listed is None else listed).restrict(track.emotions)
    validation = load_dataset(track.dataset, track.validation).restrict(train.emotions, lacking=True)
    data = (train.content_hash(), validation.content_hash())
    name = _table_name(file, grids, {"method": "+".join(names) or None, "recipe": recipe}, track, options)
    _refuse_anothers(out / f"{name}.csv", file)
    return Plan(file, tuple(combined), track, recipe, options, out, data, len(validation), name)


def _table_name(file: Path, grids: list[Axes], given: dict[str, str | None], track: Track, options: Any) -> str:
    """The file's name, its track (but TRACK) and all that the command line gives and the file leaves open.

    What every grid of the file names itself changes nothing, which is said on standard error.
    """
    taken = ("epochs", "patience", "limit", "limit_validation")
    asked = given | {name: getattr(options, name) for name in taken} | {"seed": options.seed or None}
    parts = [] if track.name == TRACK else [track_folder(track.name)]
    for name, value in asked.items():
        if value is not None and all(name in grid for grid in grids):
            option = name.replace("_", "-")
            print(f"{file} names {name} itself, so that --{option} {value} changes nothing", file=sys.stderr)
        elif value is not None:
            parts += [name, str(value)]
    told = "-".join(parts)
    short = told if len(told) <= 120 else hashlib.sha256(told.encode()).hexdigest()[:10]
    return f"{file.stem}-{short}" if parts else file.stem


def _refuse_anothers(table: Path, file: Path) -> None:
    """Raise UserError where the table that is there was written for another file of the same name."""
    with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error), table.open(newline="") as rows:
        owner = next(csv.DictReader(rows), {}).get("file")
        if owner and owner != str(file.resolve()):
            raise UserError(
                f"{table}: this is the table of {owner}, which that of {file} would replace; give another --out or "
                "rename the file, or delete the table where the file was moved."
            )


def cell_of(
    file: Path, settings: Mapping[str, Any], track: Track, recipe: str | None, options: Any, out: Path, data: list[str]
) -> Cell:
    """The run that settings describe. Raises UserError where the recipe or the network refuses a value."""
    method = METHODS[settings["method"]]
    base = recipe_for(settings.get("recipe", recipe), method.card)
    own = own_options(settings)
    try:
        given = {name: getattr(options, name) for name in ("epochs", "patience") if getattr(options, name) is not None}
        changed = replace(base, **given | {name: settings[name] for name in RECIPE_FIELDS if name in settings})
        augmentation = _augmentation(settings, base.augmentation)
        build = builder(method, own)
        if own:
            # Refuse a value that the network does not take before anything is trained: its shapes are enough for that.
            with contextlib.suppress(RuntimeError), torch.device("meta"):
                build(2)
    except (ValueError, TypeError, AssertionError) as error:
        refused = f"{method.card.name} refuses {', '.join(f'{key} {value}' for key, value in own.items())}"
        raise UserError(f"{file}: {str(error) or refused}.") from None
    run = {name: settings[name] for name in RUN_FIELDS if name in settings}
    options = replace(options, epochs=None, patience=None, resume=True, **run)
    # What the run depends on, and nothing that it does not (device, minutes): its name and so its folder.
    content = {
        "method": method.card.name, "options": own, "base": base.name, "track": track.hash(), "data": data,
        "recipe": replace(changed, name="grid", augmentation=augmentation).hash(), "limit": options.limit,
        "limit_validation": options.limit_validation,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    changed = replace(changed, name=f"grid-{digest}", augmentation=augmentation)
    # Stages may belong to recipes by name; a cell has those of the recipe that it changes.
    stages = tuple(replace(s, recipes=()) for s in method.stages if not s.recipes or base.name in s.recipes)
    folder = run_folder(out, method.card.name, track.name, changed.name, options.seed)
    return Cell(settings, replace(method, build=build, stages=stages), changed, options, folder)


def _augmentation(settings: Mapping[str, Any], own: Augmentation) -> Augmentation:
    """The recipe's own; `augmentation: true` where it has none is common-v1's, and single fields change it further."""
    chosen = own
    if "augmentation" in settings:
        chosen = OFF if not settings["augmentation"] else RECIPES["common-v1"].augmentation if own == OFF else own
    single = {field.name: settings.get(f"augmentation.{field.name}") for field in fields(Augmentation)}
    return replace(chosen, **{name: value for name, value in single.items() if value is not None})


def _read(path: Path, what: Callable[[Any], T]) -> T | None:
    """What is made of a JSON file. None where it is not there or broken, as after a power cut: one cell's broken file
    costs that cell its end, not the other cells theirs.
    """
    try:
        return what(json.loads(path.read_text())) if path.is_file() else None
    except (ValueError, KeyError, TypeError, AttributeError):
        _tell_broken(path)
        return None


@functools.cache
def _tell_broken(path: Path) -> None:
    """Name it once, though it is read for every table."""
    print(f"{path} is broken and passed over: its cell counts as not finished", file=sys.stderr)


def _row(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    trained = record["trained"]
    return {
        "validation_accuracy": round(trained["selected_value"], 4), "best_epoch": trained["best_epoch"],
        "epochs_run": trained["epochs"], "ended": trained["ended"], "minutes": round(trained["wall_seconds"] / 60, 1),
        "folder": str(folder),
    }  # fmt: skip
