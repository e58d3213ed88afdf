"""What is known about methods, data sets, tracks and recipes, apart from the networks: frozen dataclasses.

A card is refused when it is made if it contradicts itself (ValueError), so that nothing downstream has to check.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fer_bench.emotions import EMOTIONS


@dataclass(frozen=True)
class InputSpec:
    """How a face becomes a network's input. Travels with the weights; the app and evaluation read the same one."""

    size: int
    """Side of the square input, in pixels."""
    channels: int
    """1 (grey) or 3 (RGB; grey pictures are repeated)."""
    mean: tuple[float, ...]
    """Subtracted per channel after scaling the pixels to [0, 1]."""
    std: tuple[float, ...]
    """Divided by, per channel."""
    margin: float = 0.0
    """Fraction of the detected face's side that is added around it before cropping."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        if not isinstance(self.size, int) or self.size < 8:
            raise ValueError(f"size must be a whole number of pixels, at least 8, not {self.size!r}")
        for name in ("mean", "std"):  # a list, as JSON has it, or an array will do
            try:
                object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
            except TypeError:
                raise ValueError(f"{name} must be numbers, one per channel, not {getattr(self, name)!r}") from None
        if not all(map(math.isfinite, (*self.mean, *self.std, self.margin))) or self.margin < 0:
            raise ValueError("mean, std and margin must be finite, and margin not negative")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} value(s), one per channel")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")

    def to_dict(self) -> dict:
        """Plain JSON values; `InputSpec.from_dict` reads them back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> InputSpec:
        """The reverse of `to_dict`. Raises TypeError on unknown keys, ValueError on contradictions."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


RECIPE_HELP = "weights of this recipe; default: those shipped that read best on validation, in --runs the card's own"
"""What commands that take weights say of --recipe."""


@dataclass(frozen=True)
class Why:
    """Why ours differs from a reported figure by more than two points: what an experiment showed, no guess."""

    text: str
    """One sentence."""
    weights: str = ""
    """The first 12 hex digits of the SHA-256 of the weights that it is about; "" where it holds of all."""


@dataclass(frozen=True)
class Reported:
    """A figure from a paper, shown beside ours and never as ours."""

    track: str
    """The track of ours that is nearest to what the paper measured."""
    accuracy: float
    """Fraction, 0..1."""
    source: str
    """Where it stands (paper, table) and how it was measured where that differs from ours."""
    why: tuple[Why, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.accuracy < 1:
            raise ValueError(f"a reported accuracy is a fraction, not {self.accuracy}")
        if not all(isinstance(why, Why) for why in self.why):
            raise TypeError(f"why holds sentences as Why(text, weights), not {self.why!r}")


def reason(stated: Mapping, digest: str) -> str:
    """Why a row of the weights with this SHA-256 differs from a reported figure; "" where that is not known.

    stated: a `Reported` as a file of cards has it; an older one, whose sentence is about no weights in particular, has
    no reason.
    """
    known = (why for why in stated.get("why", ()) if isinstance(why, dict))
    return next((why["text"] for why in known if digest.startswith(why["weights"])), "")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training pictures, applied to whole batches on the training device. Zero switches one off."""

    flip: bool = True
    """Mirror half of the pictures."""
    rotate: float = 0.0
    """Greatest angle, degrees."""
    shift: float = 0.0
    """Greatest shift along each axis, as a fraction of the side."""
    scale: float = 0.0
    """Greatest relative zoom in or out."""
    perspective: float = 0.0
    """Greatest strength of the projective terms."""
    brightness: float = 0.0
    """Greatest additive change, as a fraction of full range."""
    contrast: float = 0.0
    """Greatest relative change about the picture's mean."""
    erase: float = 0.0
    """Probability that a random rectangle is replaced by one grey."""

    def __post_init__(self) -> None:
        for name in ("shift", "scale", "perspective", "brightness", "contrast", "erase"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if not 0 <= self.rotate < math.inf:
            raise ValueError(f"rotate must be a finite number of degrees, 0 or more, not {self.rotate}")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    name: str
    epochs: int
    batch_size: int = 128
    optimizer: str = "adamw"
    """"adamw", "adam", "sgd" (momentum .9) or "nesterov" (SGD with Nesterov's momentum of .9)."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    schedule: str = "cosine"
    """"cosine" (after a linear warm-up) or "constant"."""
    warmup: float = 0.0
    """Fraction of all steps over which the rate rises from 0."""
    label_smoothing: float = 0.0
    clip: float = 0.0
    """Greatest gradient norm; 0 switches clipping off."""
    patience: int = 0
    """Epochs without a better validation accuracy before stopping; 0 switches early stopping off."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution (Zhang et al., ICLR 2018), one draw per batch; 0 switches it off."""
    ema: float = 0.0
    """Decay per step of a running mean of the weights, which is then what is validated and kept; 0 switches it off."""
    teachers: tuple[str, ...] = ()
    """Methods whose networks, as trained on the same track, say what each training picture may show; see `teachers`."""
    teaching: float = 0.0
    """Share of the loss that is against the mean of their probabilities; 0 asks none of them."""
    votes: float = 0.0
    """Share of the loss that is against how the raters' votes on each picture are spread (`FaceSet.votes`; Barsoum et
    al. 2016, section 3). What this and `teaching` leave is against the label."""
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(flip=False))

    def __post_init__(self) -> None:
        object.__setattr__(self, "teachers", tuple(self.teachers))
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):  # it is part of a folder's and of a row's name
            told = "lower case letters, digits, dots, underscores and dashes, and begins with a letter or digit"
            raise ValueError(f"a recipe's name is {told}, not {self.name!r}")
        if self.optimizer not in ("adamw", "adam", "sgd", "nesterov"):
            raise ValueError(f"optimizer must be adamw, adam, sgd or nesterov, not {self.optimizer!r}")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be cosine or constant, not {self.schedule!r}")
        if self.epochs < 1 or self.patience < 0:
            raise ValueError("epochs must be at least 1, patience must not be negative")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, which batch norm needs, not {self.batch_size}")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.warmup < 1 or self.lr <= 0:
            raise ValueError("label_smoothing and warmup must lie in [0, 1), lr must be positive")
        for name in ("lr", "weight_decay", "clip", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and must not be negative, not {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), not {self.ema}")
        if not 0 <= self.teaching <= 1 or (self.teaching and not self.teachers):
            raise ValueError(f"teaching must lie in [0, 1], and above 0 needs teachers, not {self.teaching}")
        if not 0 <= self.votes <= 1 or self.teaching + self.votes > 1 + 1e-9:
            raise ValueError(f"votes must lie in [0, 1], and with teaching make 1 at most, not {self.votes}")

    def values(self) -> dict[str, Any]:
        """Everything above as JSON has it; teachers and votes only where they are asked, so that older runs go on."""
        values = asdict(self) | {"teachers": list(self.teachers)}
        unasked = {*(() if self.teaching else ("teachers", "teaching")), *(() if self.votes else ("votes",))}
        return {key: value for key, value in values.items() if key not in unasked}

    def hash(self) -> str:
        """12 hex digits over `values`; mixup and ema count only where they are on, being younger."""
        values = {key: value for key, value in self.values().items() if value or key not in ("mixup", "ema")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class MethodCard:
    """All that is known about a method outside its network."""

    name: str
    title: str
    paper: str
    """Authors, title where known, venue, year."""
    summary: str
    """One or two sentences for a visitor."""
    input: InputSpec
    cam_layer: str
    """Dotted name of the module whose output a CAM is drawn over."""
    url: str = ""
    paper_recipe: Recipe | None = None
    """The paper's own training recipe, used with `--recipe paper`; None where the paper gives none."""
    recipe: str = "common-v1"
    """The recipe that its weights come from unless another is asked for."""
    parameters: tuple[tuple[int, int], ...] = ()
    """(classes, trainable parameters) pairs that a test asserts."""
    reported: tuple[Reported, ...] = ()
    licence: str = "MIT (this implementation)"
    ours: str = ""
    """What the paper leaves open and we chose."""
    note: str = ""
    """What a reader of a table with its row must know beside that, in a sentence; "" for nothing."""
    shipped: bool = True
    """False where the weights are too large for the repository (a result still stands on the table)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]*[a-z0-9][a-z0-9_]*", self.name):
            raise ValueError(f"a method's name is lower case letters, digits and underscores, not {self.name!r}")
        if self.paper_recipe is not None and self.paper_recipe.name != "paper":
            raise ValueError(
                f"{self.name}: the paper's own recipe must be called 'paper', not {self.paper_recipe.name!r}: give it "
                "name='paper', so that its weights are never taken for another recipe's"
            )
        object.__setattr__(self, "parameters", tuple(map(tuple, self.parameters)))  # lists would leave it unhashable
        object.__setattr__(self, "reported", tuple(self.reported))


@dataclass(frozen=True)
class DatasetCard:
    """All that is known about a data set outside its files."""

    name: str
    title: str
    emotions: tuple[str, ...]
    counts: tuple[tuple[str, int], ...]
    """(split, pictures) pairs of the official set; empty for a user's own pictures."""
    licence: str
    source: str
    """Where to get it, in a sentence."""
    paper: str = ""

    def __post_init__(self) -> None:
        unknown = set(self.emotions) - set(EMOTIONS)
        if unknown:
            raise ValueError(f"{self.name}: unknown emotions {sorted(unknown)}")


@dataclass(frozen=True)
class Track:
    """What is trained on, selected on and tested on: the part of the protocol that concerns data."""

    name: str
    title: str
    dataset: str
    emotions: tuple[str, ...]
    """The classes that are scored, in the canonical order; pictures with other labels are left out. () is all."""
    trained_on: str
    """The track whose training split the evaluated weights come from (its own name, except for transfer tracks)."""
    train: str = "train"
    validation: str = "validation"
    test: str = "test"

    def hash(self) -> str:
        """12 hex digits over everything above, so that results of different protocols cannot be mixed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
