"""Soft targets: what other networks of the track answer to the training pictures, and how their raters voted.

A recipe names its teachers (Hinton et al., Distilling the Knowledge in a Neural Network, 2015; several, whose answers
are averaged, as there in section 5). They answer once, to each training picture as it is and to its mirror image, and
what they said is kept beside the runs, so that a resumed run, another method and every cell of a sweep do not ask them
again. Those of `distilled-v1` have learnt from the same training split and nothing else, and were chosen by the same
validation split; the test split is out of reach meanwhile, as in all of training.

Votes are the data set's own (Barsoum et al., Training Deep Networks for Facial Expression Recognition with
Crowd-Sourced Label Distribution, 2016): FER+ has ten raters' for each picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_bench.cards import Recipe, Track
from fer_bench.datasets import FaceSet
from fer_bench.datasets.stream import InMemory, Listed, Source
from fer_bench.errors import UserError
from fer_bench.files import track_folder
from fer_bench.infer import Model, load, logits, pinned, weights_for
from fer_bench.methods import METHODS
from fer_bench.methods.base import Criterion
from fer_bench.progress import clock
from fer_bench.protocols import seen_test
from fer_bench.stages import mixed
from fer_bench.weights import WeightsError, read_tensors, write_tensors

BATCH = 512
"""Pictures that a teacher is shown at once."""


class Teachers:
    """The networks and the raters that a run learns from beside the labels; nobody where its recipe names none."""

    def __init__(
        self, models: Sequence[Model] = (), share: float = 0.0, votes: Tensor | None = None, raters: float = 0.0
    ) -> None:
        """share: of the loss that is against what the networks answer, 0..1.

        votes: float32 (N, K), how the raters' votes on each training picture are spread. raters: the share of these.
        """
        self.models, self.taught, self.votes, self.raters = tuple(models), share, votes, raters
        self.share = share + raters
        """Of the loss that is against `answers`, 0..1."""
        self.answers: Tensor | None = None
        """float32 (N, K), once they were asked: for each training picture the mean of the networks' probabilities and
        the votes, in the proportion of their shares."""

    @property
    def rows(self) -> list[str] | None:
        """Whose they are, as `records.Earlier.weights` has it; None for nobody's."""
        told = "{method}/{at}/{recipe}-s{seed} ({digits})"
        records = [model.record for model in self.models]
        rows = [told.format(**r, at=track_folder(r["track"]), digits=r["sha256"][:12]) for r in records]
        return rows or None

    def ask(self, source: Source, track: Track, data: str, out: Path, half: torch.autocast) -> None:
        """Have them answer to every training picture, or read what they answered before.

        data: the split's hash. out: the training output folder, below which answers are kept. half: training's
        precision. Raises UserError as `logits`, OutputError where the answers cannot be written.
        """
        if self.votes is not None:
            self.answers = self.votes
        if not self.models:
            return
        whose = json.dumps([data, [model.record["sha256"] for model in self.models]])
        name = f"teachers-{hashlib.sha256(whose.encode()).hexdigest()[:16]}.safetensors"
        path, known = out / track_folder(track.name) / name, None
        with contextlib.suppress(WeightsError):  # absent, or broken: they are asked anew
            tensors, record = read_tensors(path)
            known = tensors.get("answers") if record.get("asked") == whose else None
        if known is None or known.shape != (len(source), len(self.models[0].emotions)):
            print(f"asking {len(self.models)} teachers about {len(source):,} training pictures", file=sys.stderr)
            parts, begun = [], time.monotonic()
            for images in _in_order(source):
                parts.append(self._asked(images, half))
                if len(parts) == 1 and len(source) > BATCH:  # minutes on a CPU, of which nothing else would be seen
                    left = (time.monotonic() - begun) * (len(source) / BATCH - 1)
                    print(f"about {clock(left)} until they have answered", file=sys.stderr)
            known = torch.cat(parts)
            write_tensors(path, {"answers": known}, {"asked": whose, "teachers": self.rows})
        known = known.to(self.models[0].device)
        part = self.taught / self.share
        self.answers = known if self.votes is None else part * known + (1 - part) * self.votes
        for model in self.models:
            model.to("cpu")

    def _asked(self, images: Tensor, half: torch.autocast) -> Tensor:
        """uint8 pictures -> float32 (N, K) on the CPU."""
        pictures = images.cpu().numpy()
        with half:
            each = [torch.from_numpy(logits(model, pictures, tta="flip")).softmax(1) for model in self.models]
        return torch.stack(each).mean(0)

    def criterion(self, on_labels: Criterion, rows: Tensor, part: float | None = None) -> Criterion:
        """The loss of a batch: `on_labels`, and `share` of it against what was answered.

        rows: int64, which training pictures the batch is of. part: where each is mixed with the one that mirrors its
        place, what is its own share of the mixture.
        """
        if self.answers is None:
            return on_labels if part is None else mixed(on_labels, part)
        answers = self.answers[rows.to(self.answers.device)]
        criterion = _taught(on_labels, answers, self.share)
        return criterion if part is None else mixed(criterion, part, _taught(on_labels, answers.flip(0), self.share))


def _taught(criterion: Criterion, answers: Tensor, share: float) -> Criterion:
    """`share` of the cross-entropy against probabilities (N, K) and the rest of `criterion` against labels."""

    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        if scores.shape != answers.shape:
            told = f"scores {tuple(scores.shape)} where its target is {tuple(answers.shape)}"
            raise UserError(f"a stage of this method {told}; give it a recipe without teachers and votes.")
        return (1 - share) * criterion(scores, targets) + share * nn.functional.cross_entropy(scores, answers)

    return loss


def _in_order(source: Source) -> Iterator[Tensor]:
    for images, _labels in source.batches(torch.arange(len(source)).split(BATCH)):
        yield images


def teachers_of(
    recipe: Recipe,
    track: Track,
    train: FaceSet | Listed,
    source: Source,
    device: torch.device,
    runs: Path,
) -> Teachers:
    """The teachers that a recipe names, with their weights for the track: from `runs` where they are there, or shipped.

    Each has the recipe of its own card, seed 0; for pictures of one's own that it has not learnt, fer2013's weights.
    train: the training split, with its raters' votes; source: its batches. Raises UserError where a teacher has no
    weights for this track or has seen what it tests on, where it knows other emotions, where votes are wanted and the
    split has none, and where training is streamed from disk.
    """
    if not recipe.teaching and not recipe.votes:
        return Teachers()
    if not isinstance(source, InMemory):
        raise UserError(
            f"{recipe.name} learns from other networks' answers or raters' votes, which are kept for pictures in "
            "memory only; give --no-stream, or a recipe without them."
        )
    votes = getattr(train, "votes", None) if recipe.votes else None
    if recipe.votes and votes is None:
        raise UserError(
            f"{recipe.name} learns from how raters voted on each picture, which {track.name} does not say; train it "
            "on --track ferplus, or give another recipe."
        )
    votes = None if votes is None else torch.from_numpy(votes).to(device)
    models = []
    for name in recipe.teachers if recipe.teaching else ():
        how = METHODS[name].card.recipe
        own = weights_for(name, track, how, runs=runs if runs.is_dir() else None)
        if own is None and pinned(name, track, how) is None:
            how_to = f"--method {name} --track {shlex.quote(track.name)} --out {shlex.quote(str(runs))}"
            raise WeightsError(
                f"{recipe.name} learns from {name}, which has no weights for {track.name}; train them first: "
                f"python -m fer_bench.train {how_to}"
            )
        model = load(name, track.name, how, device=str(device), runs=runs if own and runs in own.parents else None)
        if seen := seen_test(model.record, track):
            raise UserError(f"{recipe.name} learns from {name}: its {seen}; give a recipe without it.")
        if model.emotions != train.emotions:
            raise UserError(
                f"{recipe.name} learns from {name}, whose weights tell {', '.join(model.emotions)} apart, not "
                f"{', '.join(train.emotions)}; train {name} on {track.name} first, or give a recipe without teachers."
            )
        models.append(model)
    return Teachers(models, recipe.teaching, votes, recipe.votes)
