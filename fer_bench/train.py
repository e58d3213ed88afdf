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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_bench.cards import Recipe, Track
from fer_bench.datasets import forbid_split, load_dataset
from fer_bench.errors import UserError
from fer_bench.infer import Model, best_device, evaluating, logits
from fer_bench.methods import METHODS, list_methods
from fer_bench.methods.base import Method, Stage, count_parameters
from fer_bench.metrics import accuracy
from fer_bench.protocols import recipe_for, track_named
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
    """Fewer or more epochs than the recipe's; the schedule is fitted to them."""
    limit: int | None = None
    """At most so many training pictures."""
    patience: int | None = None
    max_minutes: float | None = None
    resume: bool = False
    quiet: bool = False


class Progress:
    """One line per run that is rewritten while an epoch runs, one line kept per epoch."""

    def __init__(self, label: str, epochs: int, quiet: bool) -> None:
        self.label, self.epochs, self.quiet = label, epochs, quiet
        self.start, self.shown, self.live = time.monotonic(), 0.0, sys.stderr.isatty()

    def step(self, epoch: int, done: float, loss: float, left: float) -> None:
        now = time.monotonic()
        if self.quiet or not self.live or now - self.shown < 0.5:
            return
        self.shown = now
        bar = ("#" * round(20 * done)).ljust(20, ".")
        print(f"\r{self.label} epoch {epoch}/{self.epochs} [{bar}] loss {loss:.3f}, {clock(left)} left ", end="", file=sys.stderr)

    def epoch(self, epoch: int, stage: str, loss: float, value: float, best: float, left: float) -> None:
        if not self.quiet:
            head = "\r\033[K" if self.live else ""
            print(
                f"{head}{self.label} epoch {epoch}/{self.epochs} ({stage}): loss {loss:.4f}, validation accuracy {value:.4f} "
                f"(best {best:.4f}), {clock(left)} left",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def clock(seconds: float) -> str:
    """ "1:02:03" or "02:03"."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return (f"{hours}:" if hours else "") + f"{rest // 60:02d}:{rest % 60:02d}"


def stage_epochs(stages: tuple[Stage, ...], epochs: int) -> list[int]:
    """How many epochs each stage gets: at least one, in proportion to its share, the last takes the remainder."""
    counts = [max(1, round(stage.share * epochs)) for stage in stages[:-1]]
    return [*counts, max(1, epochs - sum(counts))]


def optimizer_for(recipe: Recipe, network: nn.Module, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases, norms and tensors stored as an update of their start are not decayed."""
    kept = {id(p) for name, p in network.named_parameters() if p.ndim < 2 or name in getattr(network, "seeded_tensors", {})}
    groups = [
        {"params": [p for p in parameters if id(p) not in kept], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if id(p) in kept], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return (torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam)(groups, lr=recipe.lr)


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The factor on the peak learning rate before step `step` of `steps`."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def lean_precision(device: torch.device) -> bool:
    """Whether bfloat16 autocast pays on this device: modern CUDA, and CPUs with matrix units (AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


class Run:
    """The state of one training run: what `last.safetensors` holds, and the loop that advances it."""

    def __init__(self, method: Method, track: Track, recipe: Recipe, options: Options, out: Path) -> None:
        if options.epochs is not None or options.patience is not None:
            changed = {"epochs": options.epochs, "patience": options.patience}
            budget, recipe = recipe.epochs, replace(recipe, **{k: v for k, v in changed.items() if v is not None})
        else:
            budget = recipe.epochs
        self.method, self.track, self.recipe, self.options, self.budget = method, track, recipe, options, budget
        self.device = best_device(options.device)
        self.folder = run_folder(out, method.card.name, track.name, recipe.name, options.seed)
        with forbid_split(track.test):
            self.train_set = load_dataset(track.dataset, track.train).restrict(track.emotions).limit(options.limit)
            self.validation_set = load_dataset(track.dataset, track.validation).restrict(track.emotions)
        torch.manual_seed(options.seed)
        self.network = method.build(len(track.emotions))
        self.memory = torch.channels_last if method.card.input.size >= 16 else torch.contiguous_format
        self.stages = stage_epochs(method.stages, recipe.epochs)
        self.state: dict = {
            "epoch": 0, "best": -1.0, "best_epoch": 0, "pictures": 0, "seconds": 0.0, "pretrained": None, "curve": [],
        }  # fmt: skip

    # Identity: a checkpoint may only be resumed by the very same run.
    def identity(self) -> dict:
        return {
            "method": self.method.card.name, "track": self.track.name, "recipe": asdict(self.recipe),
            "seed": self.options.seed, "data": self.train_set.content_hash(), "pictures": len(self.train_set),
        }  # fmt: skip

    def fit(self) -> Path:
        """Train to the end, from where a checkpoint stands if asked to resume. Returns the finished model's path."""
        options, recipe = self.options, self.recipe
        self.network.to(self.device, memory_format=self.memory)
        self.images = torch.from_numpy(self.train_set.images).to(self.device)
        self.labels = torch.from_numpy(self.train_set.labels).to(self.device)
        identity = self.identity()
        last, best = self.folder / "last.safetensors", self.folder / "best.safetensors"
        optimizer_state = None
        if options.resume and last.is_file():
            tensors, record = read_tensors(last)
            if record["identity"] != identity:
                raise UserError(f"{last}: this checkpoint is of another run (recipe, data or seed differ); leave out --resume or use another --out.")
            self.state = record["state"]
            self.network.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")}, strict=True)
            optimizer_state = (tensors, record["optimizer"])
        elif self.method.pretrained is not None:
            self.state["pretrained"] = self.method.pretrained(self.network)
        deadline = time.monotonic() + options.max_minutes * 60 if options.max_minutes else math.inf
        label = f"{self.method.card.name} on {self.track.name}"
        progress = Progress(label, sum(self.stages), options.quiet)
        first = 0
        for stage, epochs in zip(self.method.stages, self.stages, strict=True):
            if self.state["epoch"] >= first + epochs:
                first += epochs
                continue
            parameters = list(stage.parameters(self.network))
            frozen = [p for p in self.network.parameters() if p.requires_grad and not any(p is q for q in parameters)]
            thawed = [p for p in parameters if not p.requires_grad]
            if self.state["epoch"] == first:
                self.state |= {"best": -1.0, "best_epoch": 0}  # an earlier stage's network is not yet the method
                if stage.prepare is not None:
                    with evaluating(self.network), torch.no_grad():
                        stage.prepare(self.network, self.plain_batches)
            with grad_flags(frozen, False), grad_flags(thawed, True):
                optimizer = optimizer_for(recipe, self.network, parameters)
                if optimizer_state is not None:
                    restore_optimizer(optimizer, *optimizer_state)
                    optimizer_state = None
                while self.state["epoch"] < first + epochs:
                    began = time.monotonic()
                    complete, loss = self.epoch(stage, optimizer, first, epochs, deadline, progress)
                    value = self.validate()
                    number = self.state["epoch"] + 1
                    self.state |= {"seconds": self.state["seconds"] + time.monotonic() - began}
                    self.state["curve"].append([number, round(loss, 5), round(value, 5)])
                    if value > self.state["best"]:
                        self.state |= {"best": value, "best_epoch": number}
                        write_tensors(best, self.network.state_dict(), {"state": self.state})
                    if complete:
                        self.state["epoch"] = number
                        tensors, layout = flatten_optimizer(optimizer)
                        tensors |= {f"net.{k}": v for k, v in self.network.state_dict().items()}
                        write_tensors(last, tensors, {"identity": identity, "state": self.state, "optimizer": layout})
                    left = (sum(self.stages) - number) * self.state["seconds"] / number
                    progress.epoch(number, stage.name, loss, value, self.state["best"], left)
                    stale = number - self.state["best_epoch"]
                    if not complete:
                        return self.finish(best, "max-minutes")
                    if recipe.patience and stale >= recipe.patience:
                        break
            first += epochs
        return self.finish(best, "patience" if self.state["epoch"] < sum(self.stages) else "complete")

    def epoch(
        self, stage: Stage, optimizer: torch.optim.Optimizer, first: int, epochs: int, deadline: float, progress: Progress
    ) -> tuple[bool, float]:
        """One pass over the training split. Returns (whether it was completed in time, mean loss)."""
        recipe, spec, number = self.recipe, self.method.card.input, self.state["epoch"]
        torch.manual_seed(self.options.seed * 100_003 + number)  # dropout and whatever else a network draws
        generator = torch.Generator().manual_seed(self.options.seed * 100_003 + number)
        order = torch.randperm(len(self.images), generator=generator).to(self.device)
        batches = [batch for batch in order.split(recipe.batch_size) if len(batch) > 1]  # batch norm needs two
        if not batches:
            raise UserError(f"{len(self.images)} training picture(s) are too few; at least 2 are needed.")
        criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        total = torch.zeros((), device=self.device)
        begun, seen = time.monotonic(), 0
        self.network.train()
        for index, batch in enumerate(batches):
            inputs = augment(self.images[batch], spec, recipe.augmentation, generator)
            inputs = inputs.contiguous(memory_format=self.memory)
            factor = rate(recipe, (number - first) * len(batches) + index, epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * factor
            with torch.autocast(self.device.type, torch.bfloat16, enabled=lean_precision(self.device)):
                loss = stage.loss(self.network, inputs, self.labels[batch], criterion)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], recipe.clip)
            optimizer.step()
            total += loss.detach()
            seen += len(batch)
            self.state["pictures"] += len(batch)
            # Asking for the loss waits for the device, so it is not asked for at every step.
            if index % 20 == 19 or index + 1 == len(batches):
                mean = float(total) / (index + 1)
                if not math.isfinite(mean):
                    raise TrainingError(
                        f"the loss of {self.method.card.name} is not finite in epoch {number + 1}; the last good checkpoint is kept "
                        f"in {self.folder}, train with a lower learning rate or with gradient clipping."
                    )
                pace = (time.monotonic() - begun) / (index + 1)
                progress.step(number + 1, (index + 1) / len(batches), mean, pace * (sum(self.stages) * len(batches) - number * len(batches) - index - 1))
            if time.monotonic() > deadline:
                return False, float(total) / (index + 1)
        return True, float(total) / len(batches)

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One unaugmented pass over the training split, for `Stage.prepare`."""
        for start in range(0, len(self.images), self.recipe.batch_size):
            piece = slice(start, start + self.recipe.batch_size)
            yield to_input(self.images[piece], self.method.card.input), self.labels[piece]

    def model(self) -> Model:
        return Model(self.method.card.name, self.network, self.method.card.input, self.track.emotions, {})

    def validate(self) -> float:
        """Accuracy on the validation split; the only figure that selects."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lean_precision(self.device)):
            return accuracy(self.validation_set.labels, logits(self.model(), self.validation_set.images, 256))

    def finish(self, best: Path, ended: str) -> Path:
        """Write the best weights in the compact form that is shipped, with what the compact form costs."""
        tensors, _ = read_tensors(best)
        state = self.state
        targets, images = self.validation_set.labels, self.validation_set.images
        self.network.load_state_dict(tensors)
        full = accuracy(targets, logits(self.model(), images))
        packed, packing = pack(tensors, getattr(self.network, "seeded_tensors", {}))
        self.network.load_state_dict(unpack(packed, packing))
        compact = accuracy(targets, logits(self.model(), images))
        card = self.method.card
        record = {
            "method": card.name, "track": self.track.name, "recipe": self.recipe.name, "seed": self.options.seed,
            "emotions": list(self.track.emotions), "input": card.input.to_dict(), "packing": packing,
            "parameters": count_parameters(self.network), "accuracy_loss": full - compact,
            "trained": {
                "track": self.track.name, "epochs": len(state["curve"]), "pictures_seen": state["pictures"],
                "best_epoch": state["best_epoch"], "selection": f"{self.track.validation} accuracy",
                "selected_value": compact, "device": device_name(self.device), "wall_seconds": round(state["seconds"], 1),
                "complete": ended != "max-minutes" and self.recipe.epochs >= self.budget and self.options.limit is None,
                "budget_epochs": self.budget, "train_pictures": len(self.train_set), "ended": ended,
                "pretrained": state["pretrained"],
            },
            "data": self.train_set.content_hash(), "protocol": self.track.hash(), "recipe_hash": self.recipe.hash(),
        }  # fmt: skip
        path = self.folder / "model.safetensors"
        write_tensors(path, packed, record)
        (self.folder / "record.json").write_text(json.dumps({**record, "curve": state["curve"]}, indent=1) + "\n")
        print(
            f"{path}: validation accuracy {compact:.4f} ({full:.4f} in full precision), epoch {state['best_epoch']} of "
            f"{len(state['curve'])} run, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr,
        )  # fmt: skip
        return path


@contextlib.contextmanager
def grad_flags(parameters: list[nn.Parameter], value: bool) -> Iterator[None]:
    """requires_grad set to `value` while open, then back to what it was."""
    before = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(value)
    try:
        yield
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """An optimiser's state as named tensors plus JSON, so that no pickle is needed."""
    state = optimizer.state_dict()
    tensors = {
        f"opt.{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state["state"].items() for key, value in values.items() if value is not None
    }  # fmt: skip
    return tensors, {"param_groups": state["param_groups"]}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], layout: dict) -> None:
    """The reverse of `flatten_optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("opt."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": layout["param_groups"]})


def device_name(device: torch.device) -> str:
    """What a result says about the hardware: the accelerator's name, or "cpu, N threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def main(argv: list[str] | None = None) -> int:
    """Train methods on a track. Exit codes: 0 done, 1 failed or interrupted (resumable), 2 wrong use."""
    parser = argparse.ArgumentParser(prog="fer_bench.train", description=main.__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--method", nargs="+", metavar="NAME", help="methods to train, one after the other")
    chosen.add_argument("--all", action="store_true", help="every method")
    parser.add_argument("--track", default="fer2013", help="fer2013 (default), ferplus, fer2013-6, fer2013-4, folder:PATH, csv:PATH")
    parser.add_argument("--recipe", default="common-v1", help="common-v1 (default) or paper")
    parser.add_argument("--epochs", type=positive, help="other than the recipe's; the result says so")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N training pictures")
    parser.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without a better validation accuracy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, where there is one")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="end cleanly after M minutes with the best weights")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    arguments = parser.parse_args(argv)
    options = Options(
        arguments.seed, arguments.device, arguments.epochs, arguments.limit, arguments.patience, arguments.max_minutes, arguments.resume,
    )  # fmt: skip
    try:
        track = track_named(arguments.track)
        if track.trained_on != track.name:
            raise UserError(f"{track.name} is a track to test on only; train on {track.trained_on}.")
        methods = [METHODS[name] for name in (list_methods() if arguments.all else arguments.method)]
        for method in methods:
            Run(method, track, recipe_for(arguments.recipe, method.card), options, arguments.out).fit()
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; what was done up to the last full epoch is in {arguments.out}, go on with --resume", file=sys.stderr)
        return 1
    return 0


def positive(text: str) -> int:
    """An argparse type: an integer above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
