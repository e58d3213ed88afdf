"""python -m fer_bench.train: train methods on a track under a recipe, resumable after a kill at any moment.

The split is read once into one uint8 tensor on the training device; whole batches are augmented there. Every epoch
draws from its own seeded stream, so that a resumed run gives the weights of an uninterrupted one (bit for bit on CPU).
Needs torch, torchvision, numpy, PIL and safetensors only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench.cards import Recipe, Track
from fer_bench.datasets import forbid_split, load_dataset
from fer_bench.errors import UserError
from fer_bench.files import atomic_write
from fer_bench.infer import Model, best_device, evaluating, logits
from fer_bench.methods import METHODS, count_parameters, list_methods
from fer_bench.methods.base import Method, Stage
from fer_bench.metrics import accuracy
from fer_bench.optimizers import flatten_state, optimizer_for, rate, restore_state
from fer_bench.progress import Progress
from fer_bench.protocols import TRACKS, recipe_for, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.transforms import augment, to_input
from fer_bench.weights import pack, read_tensors, run_folder, unpack, write_tensors


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite); one sentence."""


@dataclass(frozen=True)
class Options:
    """What the command line may change about a run."""

    seed: int = 0
    device: str = "auto"
    epochs: int | None = None
    """Other than the recipe's; the schedule is fitted to them and the result says so."""
    limit: int | None = None
    """At most so many training pictures, spread evenly over the split."""
    limit_validation: int | None = None
    """Select on at most so many validation pictures, where even looking at them all is dear; the result says so."""
    patience: int | None = None
    """Other than the recipe's; 0 switches early stopping off."""
    max_minutes: float | None = None
    resume: bool = False


def stage_epochs(stages: tuple[Stage, ...], epochs: int) -> list[int]:
    """How many epochs each stage gets: at least one, in proportion to its share; the last takes the remainder."""
    counts = [max(1, round(stage.share * epochs)) for stage in stages[:-1]]
    return [*counts, max(1, epochs - sum(counts))]


def bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster on this device: modern CUDA, and CPUs with matrix units (AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_amx is not None and bool(has_amx())


class Run:
    """One training run. Its state is what `last.safetensors` holds; `fit` advances it to the end."""

    def __init__(
        self,
        method: Method,
        track: Track,
        recipe: Recipe,
        options: Options,
        out: Path,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the data and build the network. Raises DataError for missing data; the test split is out of reach.

        settings: what a grid says of this cell, for the record.
        """
        self.settings = settings
        self.budget = recipe.epochs
        changes = {"epochs": options.epochs, "patience": options.patience}
        self.recipe = replace(recipe, **{key: value for key, value in changes.items() if value is not None})
        self.method, self.track, self.options = method, track, options
        self.spec, self.device = method.card.input, best_device(options.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_pays(self.device))
        self.folder = run_folder(out, method.card.name, track.name, recipe.name, options.seed)
        with forbid_split(track.test):
            self.train_set = load_dataset(track.dataset, track.train).restrict(track.emotions).limit(options.limit)
            self.emotions = self.train_set.emotions
            whole = load_dataset(track.dataset, track.validation).restrict(self.emotions)
            self.validation_set = whole.limit(options.limit_validation)
        self.images = torch.from_numpy(self.train_set.images).to(self.device)
        self.labels = torch.from_numpy(self.train_set.labels).to(self.device)
        torch.manual_seed(options.seed)
        self.network = method.build(len(self.emotions)).to(self.device, memory_format=torch.channels_last)
        self.stages = tuple(stage for stage in method.stages if not stage.recipes or recipe.name in stage.recipes)
        self.epochs = stage_epochs(self.stages, self.recipe.epochs)
        self.state: dict = {
            "stage": 0, "stage_epoch": 0, "best": -1.0, "best_epoch": 0, "pictures": 0, "seconds": 0.0,
            "ended": "complete", "pretrained": None, "curve": [],
        }  # fmt: skip
        # A checkpoint may only be resumed by the very same run.
        self.identity = {
            "method": method.card.name, "track": track.name, "recipe": asdict(self.recipe), "seed": options.seed,
            "data": self.train_set.content_hash(),
        }  # fmt: skip

    def fit(self) -> Path:
        """Train to the end, from where a checkpoint stands if asked to resume. Returns the finished model's file."""
        last = self.folder / "last.safetensors"
        saved = self.resume(last) if self.options.resume and last.is_file() else None
        if saved is None and self.method.pretrained is not None:
            self.state["pretrained"] = self.method.pretrained(self.network)
        minutes = self.options.max_minutes
        deadline = math.inf if minutes is None else time.monotonic() + minutes * 60
        progress = Progress(f"{self.method.card.name} on {self.track.name}", sum(self.epochs))
        state = self.state
        while state["stage"] < len(self.stages):
            stage, epochs = self.stages[state["stage"]], self.epochs[state["stage"]]
            if state["stage_epoch"] == 0:
                state |= {"best": -1.0, "best_epoch": 0}  # an earlier stage's network is not yet the method
                if stage.prepare is not None:
                    with evaluating(self.network), torch.no_grad():
                        stage.prepare(self.network, self.plain_batches)
            parameters = list(stage.parameters(self.network))
            with only_trainable(self.network, parameters):
                optimizer = optimizer_for(self.recipe, self.network, parameters)
                if saved is not None and state["stage_epoch"] > 0:
                    restore_state(optimizer, *saved)
                saved = None
                for index in range(state["stage_epoch"], epochs):
                    begun = time.monotonic()
                    in_time, loss = self.epoch(stage, optimizer, index, epochs, deadline, progress)
                    value = self.validate()
                    state["seconds"] += time.monotonic() - begun
                    number = len(state["curve"]) + 1
                    state["curve"].append([number, round(loss, 5), round(value, 5)])
                    if value > state["best"]:
                        state |= {"best": value, "best_epoch": number}
                        write_tensors(self.folder / "best.safetensors", self.network.state_dict(), {})
                    left = (sum(self.epochs) - number) * state["seconds"] / number
                    progress.epoch(number, stage.name, loss, value, state["best"], left)
                    if not in_time:  # what `last` holds is the last full epoch, to resume from
                        state["ended"] = "max-minutes"
                        return self.finish()
                    stale = bool(self.recipe.patience) and number - state["best_epoch"] >= self.recipe.patience
                    state["stage_epoch"] = index + 1
                    if stale:
                        state["ended"] = "patience"
                    if stale or index + 1 == epochs:
                        state |= {"stage": state["stage"] + 1, "stage_epoch": 0}
                    tensors, layout = flatten_state(optimizer)
                    tensors |= {f"net.{name}": value for name, value in self.network.state_dict().items()}
                    record = {"identity": self.identity, "state": state, "optimizer": layout}
                    write_tensors(last, tensors, record)
                    if stale:
                        break
        return self.finish()

    def resume(self, last: Path) -> tuple[dict[str, Tensor], dict]:
        """Take up a checkpoint's network and state; returns its optimiser's. UserError where it is another run's."""
        tensors, record = read_tensors(last)
        if record["identity"] != self.identity:
            raise UserError(
                f"{last}: this checkpoint is of another run (recipe, epochs, data or seed differ); leave out --resume "
                "to start anew, or use another --out."
            )
        self.state |= record["state"]
        network = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        self.network.load_state_dict(network, strict=True)
        return tensors, record["optimizer"]

    def epoch(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        index: int,
        epochs: int,
        deadline: float,
        progress: Progress,
    ) -> tuple[bool, float]:
        """Epoch `index` of the stage's `epochs`. Returns whether it was completed in time, and the mean loss."""
        recipe, number = self.recipe, len(self.state["curve"])
        seed = self.options.seed * 100_003 + number
        torch.manual_seed(seed)  # dropout and whatever else a network draws
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.images), generator=generator).to(self.device)
        batches = [batch for batch in order.split(recipe.batch_size) if len(batch) > 1]  # batch norm needs two
        if not batches:
            raise UserError(f"{len(self.images)} training picture(s) are too few; at least 2 are needed.")
        criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        clipped = [p for group in optimizer.param_groups for p in group["params"]]
        total, begun = torch.zeros((), device=self.device), time.monotonic()
        self.network.train()
        for step, batch in enumerate(batches, start=1):
            inputs = augment(self.images[batch], self.spec, recipe.augmentation, generator)
            factor = rate(recipe, index * len(batches) + step - 1, epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * stage.rate * factor
            with self.autocast:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                loss = stage.loss(self.network, inputs, self.labels[batch], criterion)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(clipped, recipe.clip)
            optimizer.step()
            total += loss.detach()
            self.state["pictures"] += len(batch)
            if step % 20 == 0 or step == len(batches):  # asking for the loss waits for the device, so not every step
                self.check_finite(float(total), number + 1)
                pace = (time.monotonic() - begun) / step
                left = pace * ((sum(self.epochs) - number) * len(batches) - step)
                progress.step(number + 1, step / len(batches), float(total) / step, left)
            if time.monotonic() > deadline:
                break
        self.check_finite(float(total), number + 1)
        return step == len(batches), float(total) / step

    def check_finite(self, loss: float, epoch: int) -> None:
        """Raise TrainingError for a loss that is NaN or infinite."""
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of {self.method.card.name} is not finite in epoch {epoch}; {self.folder} keeps the last "
                "good checkpoint, train with a lower learning rate or with gradient clipping."
            )

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One unaugmented pass over the training split, for `Stage.prepare`."""
        size = self.recipe.batch_size
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_input(images, self.spec), labels

    def answers(self) -> float:
        """Accuracy on the validation split as the network stands, in full precision."""
        model = Model(self.method.card.name, self.network, self.spec, self.emotions, {})
        return accuracy(self.validation_set.labels, logits(model, self.validation_set.images, 256))

    def validate(self) -> float:
        """Accuracy on the validation split in training's precision: the only figure that selects."""
        with self.autocast:
            return self.answers()

    def finish(self) -> Path:
        """Write the best weights in the compact form that is shipped, with what the compact form costs."""
        tensors, _ = read_tensors(self.folder / "best.safetensors")
        self.network.load_state_dict(tensors)
        full = self.answers()
        packed, packing = pack(tensors, getattr(self.network, "seeded_tensors", {}))
        self.network.load_state_dict(unpack(packed, packing))
        compact = self.answers()
        card, state, recipe = self.method.card, self.state, self.recipe
        limited = self.options.limit is not None or self.options.limit_validation is not None
        whole = state["ended"] != "max-minutes" and recipe.epochs >= self.budget and not limited
        looked = f", {len(self.validation_set)} pictures" if self.options.limit_validation is not None else ""
        record = {
            "method": card.name, "track": self.track.name, "recipe": recipe.name, "seed": self.options.seed,
            "emotions": list(self.emotions), "input": card.input.to_dict(), "packing": packing,
            "parameters": count_parameters(self.network), "accuracy_loss": full - compact,
            "trained": {
                "track": self.track.name, "epochs": len(state["curve"]), "budget_epochs": self.budget,
                "pictures_seen": state["pictures"], "train_pictures": len(self.train_set),
                "best_epoch": state["best_epoch"], "selection": f"{self.track.validation} accuracy{looked}",
                "selected_value": compact, "device": device_name(self.device), "ended": state["ended"],
                "wall_seconds": round(state["seconds"], 1), "complete": whole,
                "pretrained": state["pretrained"],
            },
            "data": self.identity["data"], "protocol": self.track.hash(), "recipe_hash": recipe.hash(),
        }  # fmt: skip
        if self.settings is not None:
            record["settings"] = dict(self.settings)
        path = self.folder / "model.safetensors"
        write_tensors(path, packed, record)
        told = json.dumps({**record, "curve": state["curve"]}, indent=1) + "\n"
        atomic_write(self.folder / "record.json", told.encode())
        size = path.stat().st_size / 1e6
        print(
            f"{path}: validation accuracy {compact:.4f} ({full:.4f} before it was made compact), epoch "
            f"{state['best_epoch']} of {len(state['curve'])}, {size:.1f} MB",
            file=sys.stderr,
        )
        return path


@contextlib.contextmanager
def only_trainable(network: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Let exactly these parameters be trained while open; afterwards every flag is what it was."""
    before = {p: p.requires_grad for p in network.parameters()}
    chosen = set(parameters)
    try:
        for p in before:
            p.requires_grad_(p in chosen)
        yield
    finally:
        for p, flag in before.items():
            p.requires_grad_(flag)


def device_name(device: torch.device) -> str:
    """What a result says of the hardware: the accelerator's name, or "cpu, N threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def positive(text: str) -> int:
    """An argparse type: an integer above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def arguments_from(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fer_bench.train", description=main.__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--method", nargs="+", metavar="NAME", help="methods to train, one after the other")
    chosen.add_argument("--all", action="store_true", help="every method")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="every cell of a grid (YAML; see fer_bench.grid)")
    parser.add_argument("--track", default="fer2013", help="a track (default fer2013), folder:PATH or csv:PATH")
    parser.add_argument("--recipe", default="common-v1", help="common-v1 (default) or paper")
    parser.add_argument("--epochs", type=positive, metavar="N", help="other than the recipe's; the result says so")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N training pictures")
    parser.add_argument("--limit-validation", type=positive, metavar="N", help="select on at most N pictures")
    parser.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without a better validation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, where there is one")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="end cleanly after M minutes, best weights kept")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    given = parser.parse_args(argv)
    if not (given.method or given.all or given.grid):
        parser.error("one of the arguments --method --all --grid is required")
    return given


def main(argv: list[str] | None = None) -> int:
    """Train methods on a track. Exit codes: 0 done, 1 failed or interrupted (resumable), 2 wrong use."""
    given = arguments_from(argv)
    options = Options(**{name: getattr(given, name) for name in Options.__dataclass_fields__})
    try:
        track = track_named(given.track)
        if track.name in TRACKS and track.trained_on != track.name:
            raise UserError(f"{track.name} is a track to test on only; train on {track.trained_on}.")
        methods = [METHODS[name] for name in (list_methods() if given.all else given.method or [])]
        if given.grid is not None:
            from fer_bench.grid import search  # needs scikit-learn and yaml, which plain training does not

            def fit(method: Method, recipe: Recipe, options: Options, settings: Mapping[str, Any]) -> Path:
                return Run(method, track, recipe, options, given.out, settings).fit()

            return search(given.grid, methods, track, given.recipe, options, given.out, fit, TrainingError)
        for method in methods:
            Run(method, track, recipe_for(given.recipe, method.card), options, given.out).fit()
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {given.out} holds the last full epoch, go on with --resume", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
