"""python -m fer_bench.train: train methods on a track under a recipe, resumable after a kill at any moment.

The split is read once into one uint8 tensor on the training device, or streamed from disk where it is too large; whole
batches are augmented on the device. Every epoch draws from its own seeded stream, so that a resumed run gives the
weights of an uninterrupted one (bit for bit on CPU). On several GPUs or machines:

    torchrun --nproc-per-node 2 -m fer_bench.train --method small_cnn    # or: accelerate launch -m fer_bench.train ...

trains as one process does (see `distributed`); all must see the same --out. Needs torch, torchvision and safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.cards import Recipe, Track
from fer_bench.checkpoints import VALIDATED, Keeper, held, read_checkpoint, restoring, stopped_as_by_hand, with_prefix
from fer_bench.datasets import forbid_split
from fer_bench.distributed import ALONE, LostProcessError, Processes, bfloat16_pays, joined, left, speaker
from fer_bench.errors import TrainingError, UserError
from fer_bench.files import OutputError, atomic_write, commit
from fer_bench.infer import Model, best_device, evaluating, logits
from fer_bench.methods import count_parameters
from fer_bench.methods.base import Method, Stage
from fer_bench.missing import methods_of
from fer_bench.networks import built, check_answers, first_answer, trained_by
from fer_bench.one_by_one import NO_MEMORY, check_all, train_each
from fer_bench.optimizers import optimizer_for, rate, restore_state
from fer_bench.options import Options, arguments_from, check_output
from fer_bench.progress import Progress
from fer_bench.protocols import TRACKS, recipe_for, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.side_by_side import train_side_by_side
from fer_bench.stages import RunningMean, StageLoss, augmented, batches_of, only_trainable, seeded, staged
from fer_bench.start import check_alike, check_standing, source_of, splits_of, standing, start_file, start_from
from fer_bench.teachers import teachers_of
from fer_bench.transforms import to_input
from fer_bench.weights import as_begun, pack, read_tensors, run_folder, sha256, unpack, write_tensors


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
        processes: Processes = ALONE,
    ) -> None:
        """Read the data and build the network. Raises DataError for missing data; the test split is out of reach.

        settings: what a grid says of this cell, for the record. processes: those that train this network together.
        """
        self.settings, self.processes, self.out, self.begun = settings, processes, out, time.monotonic()
        self.start = start_file(options.start_from, method, track, recipe.name)
        changes = {"epochs": options.epochs, "patience": options.patience}
        self.recipe = replace(recipe, **{key: value for key, value in changes.items() if value is not None})
        self.method, self.track, self.options, self.own = method, track, options, recipe
        self.spec, self.device = method.card.input, processes.device(best_device(options.device))
        processes.check_batch(self.recipe.batch_size)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_pays(self.device))
        self.folder = run_folder(out, method.card.name, track.name, recipe.name, options.seed)
        self.train_set, self.validation_set = splits_of(track, options.stream, options.limit, options.limit_validation)
        self.emotions = self.train_set.emotions
        self.source = source_of(self.train_set, self.device, processes.local_world)
        self.teachers = teachers_of(self.recipe, track, self.train_set, self.source, self.device, out)
        seeded(options.seed)
        network = built(method.card.name, method.build, len(self.emotions))
        network = processes.synchronised(network, self.device)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.parameters = count_parameters(network)  # now, since stages freeze some
        self.average: RunningMean | None = None
        self.stages, self.epochs = staged(method, self.recipe)
        self.state: dict = {
            "stage": 0, "stage_epoch": 0, "best": -1.0, "best_epoch": 0, "pictures": 0, "seconds": 0.0,
            "ended": "complete", "pretrained": None, "earlier": None, "stages": {}, "curve": [],
            "kept": "best.safetensors",
        }  # fmt: skip
        if self.start is not None:
            self.state |= start_from(self.start, method, self.network, self.emotions, track, settings)
        # A checkpoint may only be resumed by the very same run.
        self.identity = {
            "method": method.card.name, "track": track.name, "recipe": self.recipe.values(), "seed": options.seed,
            "data": self.train_set.content_hash(), "validation": self.validation_set.content_hash(),
            **({} if self.start is None else {"start": sha256(self.start)}),
            **({"teachers": self.teachers.rows} if self.recipe.teaching else {}),
        }  # fmt: skip

    def fit(self) -> Path:
        """Train to the end, from a checkpoint where asked; loading the test split raises. Returns the model's file.

        Raises UserError where another process trains in this run's folder, where what stands there must not be
        replaced, and where several processes do not have the same data. Stopped by KeyboardInterrupt or SystemExit, it
        writes the last full epoch before it ends.
        """
        settings = {"--resume": self.options.resume, "--max-minutes": self.options.max_minutes is None}
        sizes = len(self.train_set), len(self.validation_set)
        check_alike(self.identity, self.track, sizes, settings, self.processes)
        with (
            forbid_split(self.track.test),
            held(self.folder, self.processes),  # before an epoch has been spent
            Keeper(self.folder, self.processes.is_first) as keeper,
        ):
            return self.advance(keeper)

    def advance(self, keeper: Keeper) -> Path:
        """What `fit` does, and the caller keeps the test split out of reach and others out of the folder."""
        last = self.folder / "last.safetensors"
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # batches of one size: the fastest convolution is looked for once
        processes, state = self.processes, self.state
        saved: tuple[dict[str, Tensor], dict] | None = None
        if self.options.resume and processes.all_see(last):
            stands = standing(self.folder)
            tensors, record = read_checkpoint(last, self.identity)
            state |= {"stages": None} | record["state"]  # older checkpoints do not tell their stages
            with restoring(last):
                self.network.load_state_dict(with_prefix("net.", tensors))
            saved = tensors, record["optimizer"]
        else:
            asked = sum(self.epochs) * len(self.source)
            if self.options.max_minutes is not None:  # it may end sooner; --resume without `last`: after one at least
                asked = len(self.source) if self.options.resume else 0
            stands = check_standing(self.folder, self.start, asked, self.options.max_minutes is None)
            if self.start is None and self.method.pretrained is not None:
                with processes.first_alone():
                    state["pretrained"] = self.method.pretrained(self.network)
            processes.wait()  # until all have looked at what stands there
            if processes.is_first:
                last.unlink(missing_ok=True)  # another run's, which must not be resumed with this one's best weights
        with processes.first_alone():
            self.teachers.ask(self.source, self.track, self.identity["data"], self.out, self.autocast)
        minutes, before = self.options.max_minutes, len(state["curve"])
        deadline = math.inf if minutes is None else self.begun + minutes * 60
        name, stages = self.method.card.name, {} if state["stages"] is None else state["stages"]
        progress = Progress(f"{name} on {self.track.name}", sum(self.epochs))
        if sum(self.epochs) > self.recipe.epochs and processes.is_first:
            more = f"{sum(self.epochs)} epochs, not {self.recipe.epochs}"
            print(f"{name}: {more}: each of its {len(self.stages)} stages has one at least", file=sys.stderr)
        while state["stage"] < len(self.stages):
            stage, epochs = self.stages[state["stage"]], self.epochs[state["stage"]]
            stages.setdefault(stage.name, 0)
            if state["stage_epoch"] == 0:
                state |= {"best": -1.0, "best_epoch": 0}  # an earlier stage's network is not yet the method
                if stage.prepare is not None:
                    seeded(self.options.seed, state)
                    with evaluating(self.network), torch.no_grad():
                        stage.prepare(self.network, self.plain_batches)
                with first_answer(name, self.network, self.spec, 2):
                    self.right(self.network, slice(2))  # before an epoch is spent: what cannot be judged is refused
            parameters = trained_by(name, stage.name, stage.parameters(self.network))
            with only_trainable(self.network, parameters):
                optimizer = optimizer_for(self.recipe, self.network, parameters)
                loss_of = processes.wrapped(StageLoss(self.network, stage, name, len(self.emotions)))
                if self.recipe.ema:
                    self.average = RunningMean(self.network, self.recipe.ema)
                if saved is not None and state["stage_epoch"] > 0:
                    with restoring(last):
                        restore_state(optimizer, *saved)
                        if self.average is not None:
                            self.average.load_state_dict(with_prefix("ema.", saved[0]))
                saved = None
                for index in range(state["stage_epoch"], epochs):
                    begun = time.monotonic()
                    in_time, loss = self.epoch(stage, optimizer, loss_of, deadline, progress)
                    value = self.validate()
                    state["seconds"] += time.monotonic() - begun
                    number = len(state["curve"]) + 1
                    state["curve"].append([number, round(loss, 5), round(value, 5)])
                    if value > state["best"]:
                        kept = keeper.improve(self.judged, number)
                        state |= {"best": value, "best_epoch": number, "kept": kept}
                    left = (sum(self.epochs) - number) * state["seconds"] / number
                    if processes.is_first:
                        progress.epoch(number, stage.name, loss, value, state["best"], left)
                    if not in_time:  # what `last` holds is a full epoch, to resume from
                        state |= {"ended": "max-minutes", "kept": keeper.cut() or state["kept"]}
                        if number == before + 1 and processes.is_first:
                            again = "too few for a full epoch, so --resume begins this one again; give more."
                            print(f"{name}: {minutes:.2g} minutes were {again}", file=sys.stderr)
                        why = stands.stays(state["pictures"], state["best"], gained=number > before + 1)
                        if why and processes.is_first:
                            print(f"{name}: the weights in {self.folder} stay: {why}", file=sys.stderr)
                        return self.folder / "model.safetensors" if why else self.finish()
                    stale = bool(self.recipe.patience) and number - state["best_epoch"] >= self.recipe.patience
                    state["stage_epoch"] = index + 1
                    stages[stage.name] += 1
                    if stale:
                        state["ended"] = "patience"
                    if stale or index + 1 == epochs:
                        state |= {"stage": state["stage"] + 1, "stage_epoch": 0}
                    now = stale or index + 1 == epochs or keeper.due()
                    keeper.keep(self.identity, state, self.network, self.average, optimizer, now)
                    if stale:
                        break
        return self.finish()

    def epoch(
        self, stage: Stage, optimizer: torch.optim.Optimizer, loss_of: nn.Module, deadline: float, progress: Progress
    ) -> tuple[bool, float]:
        """The next epoch of the stage. Returns whether it was completed in time, and the mean loss."""
        recipe, processes, number = self.recipe, self.processes, len(self.state["curve"])
        index, epochs = self.state["stage_epoch"], self.epochs[self.state["stage"]]
        seed = seeded(self.options.seed, self.state, processes.rank)  # dropout and whatever else a network draws
        generator, draws = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        batches = batches_of(len(self.source), recipe.batch_size, processes, generator)
        cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        clipped = [p for group in optimizer.param_groups for p in group["params"]]
        total, begun = torch.zeros((), device=self.device), time.monotonic()
        late = deadline < math.inf and processes.decides(begun > deadline)  # then even an epoch of one step is cut
        self.network.train()
        for step, (images, labels) in enumerate(self.source.batches([batch.mine for batch in batches]), start=1):
            batch = batches[step - 1]
            inputs = augmented(images, batch.runs, batch.count, self.spec, recipe.augmentation, generator)
            part = float(draws.beta(recipe.mixup, recipe.mixup)) if recipe.mixup else None
            inputs = inputs if part is None else part * inputs + (1 - part) * inputs.flip(0)
            factor = rate(recipe, index * len(batches) + step - 1, epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * stage.rate * factor
            with self.autocast:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                criterion = self.teachers.criterion(cross_entropy, batch.mine, part)
                loss = batch.weight * loss_of(inputs, labels, criterion)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(clipped, recipe.clip)
            optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            total += loss.detach()
            self.state["pictures"] += batch.count
            if step % 20 == 0 or step == len(batches):  # asking for the loss waits for the device, so not every step
                mean = self.finite(total, number + 1) / step
                pace = (time.monotonic() - begun) / step
                left = pace * ((sum(self.epochs) - number) * len(batches) - step)
                if processes.is_first:
                    progress.step(number + 1, step / len(batches), mean, left)
            if deadline < math.inf and processes.decides(time.monotonic() > deadline):
                break
        return not late and step == len(batches), self.finite(total, number + 1) / step

    def finite(self, total: Tensor, epoch: int) -> float:
        """A sum of losses, over all processes. Raises TrainingError where it is NaN or infinite."""
        loss = self.processes.mean(total)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of {self.method.card.name} is not finite in epoch {epoch}; {self.folder} keeps the last "
                "good checkpoint, train with a lower learning rate or with gradient clipping."
            )
        return loss

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One unaugmented pass over the training split, for `Stage.prepare`."""
        for images, labels in self.source.batches(torch.arange(len(self.source)).split(self.recipe.batch_size)):
            yield to_input(images, self.spec), labels

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the running mean of the weights, where the recipe asks for one."""
        return self.network if self.average is None else self.average.module

    def right(self, network: nn.Module, part: slice = slice(None)) -> np.ndarray:
        """Which validation pictures (of a part of them) a network recognises, bool. Raises as `check_answers`."""
        images, labels = self.validation_set.images[part], self.validation_set.labels[part]
        name, fresh = self.method.card.name, self.start is None and not self.state["pictures"]
        answers = logits(Model(name, network, self.spec, self.emotions, {}), images)
        check_answers(name, answers, len(self.state["curve"]) + 1, str(self.folder), fresh)
        return answers.argmax(axis=1) == labels

    def validate(self) -> float:
        """Accuracy on the validation split in training's precision: the only figure that selects."""
        self.processes.share_buffers(self.judged)
        with self.autocast:
            right = self.right(self.judged, slice(self.processes.rank, None, self.processes.world))
        return self.processes.total(int(right.sum())) / len(self.validation_set)

    def finish(self) -> Path:
        """Process 0 writes the model, the others wait for it. Returns its file."""
        if self.processes.is_first:
            self.write()
        self.processes.wait()
        return self.folder / "model.safetensors"

    def write(self) -> None:
        """Write the best weights in the compact form that is shipped, with what the compact form costs."""
        tensors, _ = read_tensors(self.folder / self.state["kept"])
        self.network.load_state_dict(tensors)
        full = float(self.right(self.network).mean())
        packed, packing = pack(tensors, getattr(self.network, "seeded_tensors", {}))
        self.network.load_state_dict(unpack(packed, packing))
        right = self.right(self.network)
        compact = float(right.mean())
        card, state, recipe = self.method.card, self.state, self.recipe
        limited = self.options.limit is not None or self.options.limit_validation is not None
        hasty = state["ended"] == "patience" and not 0 < self.own.patience <= recipe.patience  # the user's, not its own
        whole = state["ended"] != "max-minutes" and recipe.epochs >= self.own.epochs and not limited and not hasty
        looked = f", {len(self.validation_set)} pictures" if self.options.limit_validation is not None else ""
        record = {
            "method": card.name, "track": self.track.name, "recipe": recipe.name, "seed": self.options.seed,
            "emotions": list(self.emotions), "input": card.input.to_dict(), "packing": packing,
            "parameters": self.parameters, "accuracy_loss": full - compact,
            "trained": {
                "track": self.track.name, "budget_epochs": self.own.epochs,
                "epochs": max(1, len(state["curve"]) - (state["ended"] == "max-minutes")),  # one cut short is none
                "pictures_seen": state["pictures"], "train_pictures": len(self.train_set),
                "best_epoch": state["best_epoch"], "selection": f"{self.track.validation} accuracy{looked}",
                "selected_value": compact, "device": self.processes.told(self.device), "ended": state["ended"],
                "wall_seconds": round(state["seconds"], 1), "complete": whole,
                "pretrained": state["pretrained"], "earlier": state["earlier"], "stages": state["stages"],
                "teachers": self.teachers.rows, "commit": commit(), "torch": str(torch.__version__),
            },
            "data": self.identity["data"], "protocol": self.track.hash(), "recipe_hash": recipe.hash(),
        }  # fmt: skip
        if self.settings is not None:
            record["settings"] = dict(self.settings)
            atomic_write(self.folder / VALIDATED, lambda file: np.save(file, right))
        path = self.folder / "model.safetensors"
        write_tensors(path, packed, record)
        told = json.dumps({**record, "curve": state["curve"]}, indent=1) + "\n"
        atomic_write(self.folder / "record.json", told.encode())
        print(
            f"{path}: validation accuracy {compact:.4f} ({full:.4f} before it was made compact), epoch "
            f"{state['best_epoch']} of {len(state['curve'])}, {path.stat().st_size / 1e6:.1f} MB",
            file=sys.stderr,
        )


def train(given: argparse.Namespace, processes: Processes) -> int:
    """What the command line says, in this process. Returns the exit code."""
    options = Options(**{name: getattr(given, name) for name in Options.__dataclass_fields__})
    track = track_named(as_begun(given.out, given.track))
    if track.name in TRACKS and track.trained_on != track.name:
        raise UserError(f"{track.name} is a track to test on only; train on {track.trained_on}.")
    check_output(given.out)
    methods = methods_of(given, track)
    if given.grid is not None:
        if processes.world > 1:
            raise UserError(
                "the cells of --grid are trained by one process each; leave out the launcher, or share the cells "
                "between workers with python -m fer_bench.sweep."
            )
        check_all((), options, track)
        from fer_bench.grid import search  # needs scikit-learn and yaml, which plain training does not

        def fit(method: Method, recipe: Recipe, options: Options, settings: Mapping[str, Any]) -> Path:
            return Run(method, track, recipe, options, given.out, settings).fit()

        return search(given.grid, methods, track, given.recipe, options, given.out, fit, TrainingError)
    recipes = [recipe_for(given.recipe, method.card) for method in methods]  # refused now, not after hours of training
    pairs = list(zip(methods, recipes, strict=True))
    if len(pairs) > 1:
        check_all(pairs, options, track)

    def fit_one(method: Method, recipe: Recipe, options: Options) -> Path:
        return Run(method, track, recipe, options, given.out, processes=processes).fit()

    if given.at_once > 1:
        return train_side_by_side([method.card.name for method in methods], given, track, options, processes)
    with forbid_split(track.test):  # from what builds a network, too
        return train_each(pairs, options, given.total_minutes, fit_one, TrainingError, processes)


def main(argv: list[str] | None = None) -> int:
    """Train methods on a track. Exit codes: 0 done, 1 failed or interrupted (resumable), 2 wrong use."""
    given = arguments_from(argv)
    try:
        with stopped_as_by_hand(), joined() as processes:
            code = train(given, processes)
        return left(code)
    except (UserError, UnknownNameError, TrainingError, LostProcessError) as error:
        print(f"{speaker()}{error}", file=sys.stderr)
        return left(1 if isinstance(error, (OutputError, TrainingError, LostProcessError)) else 2)
    except torch.OutOfMemoryError as error:
        print(f"{speaker()}{error}\n{NO_MEMORY}", file=sys.stderr)
        return left(1)
    except KeyboardInterrupt:
        if Progress.alone:  # else the process that started this one says so
            print(f"\n{speaker()}stopped; {given.out} holds the last checkpoint, go on with --resume", file=sys.stderr)
        return left(1)


if __name__ == "__main__":
    sys.exit(main())
