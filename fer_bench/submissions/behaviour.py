"""How a model must behave: checked on faces by running it in its sandbox. The rules and their bounds stand here.

The faces' labels serve to refuse only; nothing is ranked or selected by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from fer_bench.cards import Augmentation, InputSpec
from fer_bench.datasets import FaceSet
from fer_bench.emotions import shared
from fer_bench.metrics import NOT_LOGITS, are_probabilities
from fer_bench.submissions.problems import Problem

FACES = 140
"""Rendered faces that a check looks at, twenty per emotion."""
ENOUGH = 70
"""Faces below which accuracies are too uncertain for the rules about them."""
SAME_ANSWER = 1e-3
"""Greatest difference of a probability between two answers to one face. Other batches move those of our own models by
1e-6 at most. Never a difference of logits: a constant added to all of them, which no score sees, would widen it."""
TURNED = 0.01
"""Greatest fraction of faces that may get another emotion the second time, by two that came to nearly the same: where
all logits are tiny, no probability moves by much."""
MANY = 300
NOISE_DROP, NOISE_DROP_OF_MANY = 0.10, 0.05
"""Greatest loss of accuracy, over fewer than MANY faces and over more, when every pixel changes by at most one grey
level of 256. Five rows trained here lose .013 at most over 300 pictures of FER2013."""
SHIFT_DROP = 0.25
"""Greatest loss of accuracy when the picture moves by one pixel."""
REDRAWN_DROP, REDRAWN_PART, DEVIATIONS = 0.3, 0.5, 3
"""Greatest loss of accuracy when the pictures are `redrawn`, in all and as a part of what a model is right above
chance; it is given as many standard errors of the loss beyond the lesser of the two. The nearest of 140 rendered, 400
or 3,589 stored pictures of FER2013 falls from 1.00 to .21, .29 and .24. Rows trained here lose .07 at most, a plain
network trained on rendered faces without any augmentation .29."""
REDRAWN = Augmentation(flip=False, rotate=10, scale=0.05)
"""What `redrawn` draws anew for each picture, beside what is the same for all."""
ORDER_GAIN = 0.15
"""Gain of accuracy by the best renaming of the outputs from which the declared order counts as wrong. The fifteen rows
trained here gain .05 at most on rendered faces that they were not trained on."""
ORDER_GOOD, ORDER_ABOVE = 0.5, 0.25
"""Accuracy that the best renaming must reach to be believed, in all and above what it would have if answers and faces
had nothing to do with each other: among all renamings one fits random answers well by chance. Over 70 to 140 faces of
two to eight emotions, random answers gain ORDER_GAIN in 4 to 48 % of 20,000 trials, and pass these bounds too in 3 at
most."""
NO_DIFFERENCE = 1e-6
"""A difference of probabilities that counts as none."""

NOT_FINITE = Problem("not_finite", "the model answers with NaN or infinity; every logit must be a finite number.")

Ask = Callable[[np.ndarray], np.ndarray]
"""uint8 pictures (N, H, W) or (N, H, W, 3) -> float32 logits (N, K)."""


@cache
def rendered_faces() -> FaceSet:
    """The rendered test faces that every check looks at, drawn once per process (some seconds)."""
    from fer_bench.datasets.rendered import draw_split

    return draw_split("test", FACES)


def asker(model: Callable[[np.ndarray], np.ndarray], spec: InputSpec, batch: int = 35) -> Ask:
    """Pictures -> logits through the same preprocessing as everywhere."""
    import torch

    from fer_bench.transforms import to_input

    def ask(pictures: np.ndarray) -> np.ndarray:
        starts = range(0, len(pictures), batch)
        parts = [model(to_input(torch.from_numpy(pictures[s : s + batch]), spec).numpy()) for s in starts]
        return np.concatenate(parts)

    return ask


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of logits (N, K), in float64: what is scored, whatever was added to a row or to one column."""
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def changed_answers(logits: np.ndarray, again: np.ndarray) -> int:
    """Of how many faces two answers, logits (N, K), differ; 0 where it is no more than rounding. NaN always differs."""
    moved = ~(np.abs(probabilities(logits) - probabilities(again)).max(axis=1) <= SAME_ANSWER)
    turned = logits.argmax(axis=1) != again.argmax(axis=1)
    return int((moved | turned).sum()) if moved.any() or turned.mean() > TURNED else 0


def behaves(ask: Ask, emotions: Sequence[str], faces: FaceSet) -> list[Problem]:
    """What is wrong with a model's answers. emotions: the declared order of its outputs."""
    problems: list[Problem] = []
    pictures = faces.images
    extremes = np.stack([np.zeros_like(pictures[0]), np.full_like(pictures[0], 255)])
    places = np.linspace(0, len(pictures) - 1, min(8, len(pictures))).round().astype(int)
    some = pictures[places]
    logits, odd = ask(pictures), ask(extremes)
    if not (np.isfinite(logits).all() and np.isfinite(odd).all()):
        return [NOT_FINITE]
    common = shared(emotions, faces.emotions)
    # An emotion that is not scored could take all of the probability and hide what the others do.
    columns = [place for place, emotion in enumerate(emotions) if emotion in common or len(common) < 2]
    scored, together, again = logits[:, columns], ask(some)[:, columns], ask(some)[:, columns]
    alone = np.concatenate([ask(some[i : i + 1]) for i in range(len(some))])[:, columns]
    if changed_answers(together, again):
        text = "the model answers the same faces differently the second time; it must be deterministic."
        problems.append(Problem("not_deterministic", text))
    if changed_answers(together, alone) or changed_answers(scored[places], alone):
        text = "the model answers a face differently when other faces are in the batch; each must be judged alone."
        problems.append(Problem("batch_dependent", text))
    same = np.ptp(scored.argmax(axis=1)) == 0 and np.ptp(probabilities(scored), axis=0).max() <= NO_DIFFERENCE
    if same and len(faces) > 1:
        text = "the model gives every face the same answer; export the trained weights."
        problems.append(Problem("constant", text))
    if not problems:
        problems += wrong_order(logits, emotions, faces) + from_memory(ask, logits, emotions, faces)
    return problems + not_logits(np.concatenate([logits, odd]))


def not_logits(answers: np.ndarray) -> list[Problem]:
    """Whether answers (N, K) are probabilities, as `metrics.are_probabilities` has it."""
    return [Problem("not_logits", f"the model {NOT_LOGITS}")] if are_probabilities(answers) else []


def _scored(logits: np.ndarray, emotions: Sequence[str], faces: FaceSet) -> tuple[tuple[str, ...], np.ndarray, ...]:
    """The shared emotions; over the faces that show one of them, targets and predictions as indices into them."""
    common = shared(emotions, faces.emotions)
    number = np.array([common.index(e) if e in common else -1 for e in faces.emotions])
    targets = number[faces.labels]
    kept = targets >= 0
    predictions = logits[:, [list(emotions).index(e) for e in common]].argmax(axis=1) if common else targets
    return common, targets[kept], predictions[kept]


def wrong_order(logits: np.ndarray, emotions: Sequence[str], faces: FaceSet) -> list[Problem]:
    """Whether another order of the outputs would be right far more often; it is named.

    Only where that order is itself good, ORDER_GOOD and ORDER_ABOVE: of a model that is hardly right in any order no
    order can be told, and random answers are told one in 0.02 % of trials at most.
    """
    from scipy.optimize import linear_sum_assignment

    common, targets, predictions = _scored(logits, emotions, faces)
    if len(common) < 2 or len(targets) < ENOUGH:
        return []
    counts = np.zeros((len(common), len(common)), dtype=int)
    np.add.at(counts, (predictions, targets), 1)
    outputs, truly = linear_sum_assignment(-counts)
    declared, best = counts.trace() / len(targets), counts[outputs, truly].sum() / len(targets)
    unrelated = np.sort(counts.sum(axis=0)) @ np.sort(counts.sum(axis=1)) / len(targets) ** 2
    if best - declared < ORDER_GAIN or best < max(ORDER_GOOD, unrelated + ORDER_ABOVE):
        return []
    renamed = {common[output]: common[true] for output, true in zip(outputs, truly, strict=True)}
    likely = ", ".join(renamed.get(emotion, emotion) for emotion in emotions)
    text = (
        f"the emotions seem to be in another order: as declared {declared:.0%} of {faces.name} faces are right, with "
        f"[{likely}] it would be {best:.0%}; mend emotions in submission.yaml."
    )
    return [Problem("wrong_order", text)]


def from_memory(ask: Ask, logits: np.ndarray, emotions: Sequence[str], faces: FaceSet) -> list[Problem]:
    """Whether answers collapse under changes that no face loses its emotion by: then they belong to stored pixels.

    Tables of hashes lose theirs by a grey level or a shift, those of whole pictures (nearest neighbours) when the
    pictures are redrawn. A table over what a trained network makes of pictures survives all that, and is not caught.
    """
    common, targets, predictions = _scored(logits, emotions, faces)
    if len(common) < 2 or len(targets) < ENOUGH:
        return []
    before = predictions == targets
    plain, chance = before.mean(), np.bincount(targets).max() / len(targets)
    noise_drop = NOISE_DROP if len(targets) < MANY else NOISE_DROP_OF_MANY
    redrawn_drop = min(REDRAWN_DROP, REDRAWN_PART * max(0.0, plain - chance))
    changes = (
        ("change by one grey level", by_a_grey_level, noise_drop, 0),
        ("change by one pixel", by_a_pixel, SHIFT_DROP, 0),
        ("are mirrored, turned and enlarged a little", redrawn, redrawn_drop, DEVIATIONS),
    )
    for how, change, bound, deviations in changes:
        _, _, changed = _scored(ask(change(faces.images)), emotions, faces)
        lost = before.astype(int) - (changed == targets)
        if lost.mean() > bound + deviations * lost.std() / len(lost) ** 0.5:
            right = f"{plain:.0%} of {faces.name} faces are right, but {plain - lost.mean():.0%}"
            text = f"the model answers from memory: {right} once the pictures {how}; train it on other pictures."
            return [Problem("from_memory", text)]
    return []


def by_a_grey_level(pictures: np.ndarray) -> np.ndarray:
    """The pictures (uint8) with -1, 0 or 1 added to every value at random.

    Never the same twice: of changes that are known beforehand a model could store the answers too.
    """
    noise = np.random.default_rng().integers(-1, 2, pictures.shape, dtype=np.int16)
    return (pictures + noise).clip(0, 255).astype(np.uint8)


def by_a_pixel(pictures: np.ndarray) -> np.ndarray:
    """The pictures (N, H, W, ...) moved right by one pixel, the first column doubled."""
    return np.concatenate([pictures[:, :, :1], pictures[:, :, :-1]], axis=2)


def redrawn(pictures: np.ndarray, batch: int = 35) -> np.ndarray:
    """The pictures (uint8 (N, H, W) or (N, H, W, 3)) mirrored, turned by up to 10 degrees and enlarged by 9 to 20 %.

    Each by its own angle and size, never the same twice. Sides of different lengths become the longer, as of an input.
    """
    import torch

    from fer_bench.transforms import augment

    height, width = pictures.shape[1:3]
    top, left = height // 16, width // 16
    inner = np.ascontiguousarray(pictures[:, top : height - top, left : width - left][:, :, ::-1])
    channels = 3 if pictures.ndim == 4 else 1
    spec = InputSpec(max(height, width, 8), channels, (0.0,) * channels, (1.0,) * channels)
    generator = torch.Generator()
    generator.seed()
    parts = [
        augment(torch.from_numpy(inner[start : start + batch]), spec, REDRAWN, generator)
        for start in range(0, len(inner), batch)
    ]
    drawn = (torch.cat(parts) * 255).round().to(torch.uint8).numpy()
    return drawn.transpose(0, 2, 3, 1) if pictures.ndim == 4 else drawn[:, 0]
