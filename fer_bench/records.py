"""The parts of a result record: frozen dataclasses of numbers and names, read and written by `results`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fer_bench.errors import UserError
from fer_bench.statistics import Interval


class ResultError(UserError, ValueError):
    """A record that contradicts itself or its path. The text names the file or field and what to mend."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The runs before a run that started from this project's own weights (`train --start-from`)."""

    weights: list[str]
    """Whose weights, newest first: "<method>/<track>/<recipe>-s<seed> (<first 12 digits of their sha256>)"."""
    track: str
    """What the newest of them were trained on."""
    epochs: int
    """Of all these runs together, as of `pictures_seen`."""
    pictures_seen: int

    @property
    def tracks(self) -> list[str]:
        """What they were trained on, each once, newest first."""
        return list(dict.fromkeys([self.track, *(row.split("/")[1] for row in self.weights if "/" in row)]))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How the weights came about. None stands for what is not known, as with a submitted or a user's own model."""

    track: str
    """The track whose training split they come from."""
    epochs: int | None = None
    """Epochs run, not counting those of `earlier`, as of `pictures_seen`."""
    budget_epochs: int | None = None
    """The recipe's epochs."""
    pictures_seen: int | None = None
    train_pictures: int | None = None
    """Size of the training split."""
    best_epoch: int | None = None
    selection: str = "validation accuracy"
    selected_value: float | None = None
    device: str | None = None
    wall_seconds: float | None = None
    complete: bool
    """Whether the recipe's full budget was run (early stopping by the recipe counts as full)."""
    pretrained: str | None = None
    """Where weights from outside this project that training started from came from; None where there were none."""
    earlier: Earlier | None = None
    stages: dict[str, int] | None = None
    """Full epochs of each stage that the weights went through, in the runs of `earlier` too; None where not known.

    awei's guide is as ImageNet's VGG16 came where no stage "guide" is among them, else it was fine-tuned.
    """
    teachers: list[str] | None = None
    """Whose answers were part of the target (knowledge distillation), as in `Earlier.weights`; None for nobody's."""
    ended: str | None = None
    """"complete": after as many epochs as were asked, for which the rate's schedule was laid out, the recipe's or
    fewer; "patience"; "max-minutes": cut off, with the rate still on its way. None where it is not known."""
    commit: str | None = None
    """The checkout's commit that trained, as `files.commit` has it; None in weights of before December 2026."""
    torch: str | None = None
    """Its version in that run."""


def budget_share(trained: Trained, split: float | None) -> float | None:
    """Pictures seen, in the runs of `earlier` too, as a share of those of the recipe's whole budget: above 1 where
    several runs came to more. None where it is not known.

    split: pictures in the training split, of which a run may have had a part; 0, None or NaN where it is not known.
    """
    epochs, pictures = trained.epochs, trained.train_pictures
    if epochs is None or not trained.budget_epochs:
        return None
    whole = split if split and split == split else pictures
    if trained.earlier and whole:
        seen = trained.pictures_seen if trained.pictures_seen is not None else epochs * (pictures or whole)
        return (seen + trained.earlier.pictures_seen) / (trained.budget_epochs * whole)
    part = min(pictures / whole, 1) if pictures and whole else 1
    return part * full_epochs(epochs, trained.pictures_seen, pictures) / trained.budget_epochs


def full_epochs(epochs: int, pictures_seen: int | None, train_pictures: int | None) -> int:
    """How many epochs were run in full, at least 1: older records count one that was cut short as well."""
    if not train_pictures or pictures_seen is None:
        return epochs
    cut = pictures_seen < (epochs - 0.5) * train_pictures  # nothing is less than a NaN
    return max(1, int(pictures_seen // train_pictures)) if cut else epochs


def epochs_before(epochs: int, pictures_seen: int, train_pictures: float | None) -> str:
    """ "50 epochs (1,434,156 pictures)" of the runs before, or their pictures alone where these are no full epochs.

    train_pictures: of the split that they were trained on; 0, None or NaN where it is not known.
    """
    size = train_pictures if train_pictures and train_pictures == train_pictures else 0
    full = full_epochs(epochs, pictures_seen, size)
    pictures = f"{pictures_seen:,} pictures"
    return pictures if pictures_seen < 0.9 * full * size else f"{full} epochs ({pictures})"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The checkpoint the figures belong to."""

    sha256: str
    bytes: int
    storage: str
    """"fp16+int8" or "float32"."""
    accuracy_loss: float | None = None
    """Validation accuracy in full precision minus that of the stored weights."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was measured on."""

    hash: str
    counts: dict[str, int]
    """Pictures per split, those that could not be read too, whatever emotion they show."""
    test_pictures: int
    """Pictures scored."""
    skipped: list[str] = field(default_factory=list)
    """A line on each picture of the split that could not be read; some may show emotions that are not scored."""
    notes: list[str] = field(default_factory=list)
    duplicates_in_train: int | None = None
    """Scored pictures that also stand, pixel for pixel, in the training split."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A reliability diagram; an empty bin has None for confidence and accuracy."""

    edges: list[float]
    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]
    expected: float | None = None
    """The mean ECE of a perfectly calibrated model with these confidences on as many pictures: what chance alone gives.
    None in records from before it was kept."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a prediction costs; None where it was not measured."""

    parameters: int
    macs: int | None = None
    """Multiply-accumulates for one picture."""
    latency_ms: float | None = None
    """The quickest answer to one face, with one thread of a CPU; in records of before December 2026 the median one."""
    latency_ratio: float | None = None
    """Latency divided by that of resnet18, timed in the same run."""
    checkpoint_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            # A NaN is not 0 or less either: that none is written is for `Result.to_dict` to say.
            _need(value is None or not value <= 0, f"cost.{name} must be positive, not {value}.")


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Of the software that measured."""

    python: str
    torch: str
    numpy: str
    fer_bench: str


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy on corrupted copies of a sample of the test split; `robustness.measure_robustness` says how.

    Read it beside `clean`: a method that answers the same whatever it sees loses nothing.
    """

    suite: str
    """Names the corruptions and their levels; figures of two suites are not comparable."""
    pictures: int
    """Size of the sample, which is stratified by emotion."""
    seed: int
    """Of the sample and of what is random in the corruptions."""
    clean: Interval
    """Accuracy on the sample as it is."""
    corrupted: Interval
    """Mean of the accuracies of `corruptions`."""
    relative_drop: Interval | None
    """1 - corrupted / clean; None where no clean picture is recognised."""
    corruptions: dict[str, dict[str, Interval]]
    """Corruption -> severity ("1" to "5") -> accuracy."""

    def __post_init__(self) -> None:
        cells = [cell for cells in self.corruptions.values() for cell in cells.values()]
        severities = {severity for cells in self.corruptions.values() for severity in cells}
        _need(self.pictures > 0 <= self.seed, "robustness.pictures must be positive and its seed not negative.")
        _need(bool(cells) and all(self.corruptions.values()), "robustness.corruptions must not be empty.")
        _need(severities <= set("12345"), f"robustness.corruptions has severities {sorted(severities)}, not 1 to 5.")
        _fractions("robustness", self.clean, self.corrupted, *cells)
        mean = sum(cell.value for cell in cells) / len(cells)
        _need(abs(mean - self.corrupted.value) < 1e-6, f"robustness.corrupted is not the mean of its cells, {mean}.")
        drop = None if self.clean.value == 0 else 1 - self.corrupted.value / self.clean.value
        stated = None if self.relative_drop is None else self.relative_drop.value
        agrees = drop is stated if None in (drop, stated) else abs(drop - stated) < 1e-6
        _need(agrees, f"robustness.relative_drop is {stated}, but its accuracies give {drop}.")


@dataclass(frozen=True, kw_only=True)
class Regions:
    """How a CAM agrees with the regions that carry the emotion, where these are known; maps of the true emotion."""

    pictures: int
    energy: Interval
    """Share of a map's sum inside the regions."""
    area: float
    """Share of the picture that the regions cover: what an even map's energy would be."""
    pointing_game: Interval
    """Share of the maps whose maximum lies inside."""
    empty_maps: float | None = None
    """Share of these maps that are all 0, which count as outside; None in records from before it was kept."""

    def __post_init__(self) -> None:
        _need(self.pictures > 0 and 0 <= self.area <= 1, "explanation.regions needs pictures and an area in 0..1.")
        _fractions("explanation.regions", self.energy, self.pointing_game)
        _need(self.empty_maps is None or 0 <= self.empty_maps <= 1, "explanation.regions.empty_maps must lie in 0..1.")


@dataclass(frozen=True, kw_only=True)
class Centre:
    """What one map that knows neither network nor picture reaches: a blob in the middle, where faces are."""

    deletion: float
    deletion_gain: Interval
    """This deletion minus the CAM's: above 0 where the CAM tells more than where a face is."""
    insertion: float
    insertion_gain: Interval
    """The CAM's insertion minus this."""
    energy: float | None = None
    """Its share inside the regions, as `Regions.energy`; None where these are not known."""
    pointing_game: float | None = None

    def __post_init__(self) -> None:
        shares = (self.deletion, self.insertion, self.energy, self.pointing_game)
        _need(
            all(share is None or 0 <= share <= 1 for share in shares),
            "explanation.centre's areas and shares must lie in 0..1.",
        )


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """How well a CAM points at what the network uses; `faithfulness.measure_faithfulness` says how.

    Deletion and insertion are areas under the predicted emotion's probability, beside those of a random order of the
    same pictures; a gain above 0 means that the map tells more than chance does.
    """

    cam: str
    """A key of `cams.CAMS`."""
    pictures: int
    """Size of the sample, which is stratified by emotion."""
    seed: int
    """Of the sample and of the random orders."""
    empty_maps: float
    """Share of the maps that are all 0."""
    deletion: float
    deletion_random: float
    deletion_gain: Interval
    """deletion_random - deletion."""
    insertion: float
    insertion_random: float
    insertion_gain: Interval
    """insertion - insertion_random."""
    regions: Regions | None = None
    """None where the right regions are not known (everywhere but on `rendered`)."""
    centre: Centre | None = None
    """None in records from before it was measured."""

    def __post_init__(self) -> None:
        _need(self.pictures > 0 <= self.seed, "explanation.pictures must be positive and its seed not negative.")
        shares = (self.empty_maps, self.deletion, self.deletion_random, self.insertion, self.insertion_random)
        _need(all(0 <= share <= 1 for share in shares), "explanation's areas and shares must lie in 0..1.")
        stated = {
            "deletion": (self.deletion_random - self.deletion, self.deletion_gain),
            "insertion": (self.insertion - self.insertion_random, self.insertion_gain),
        }
        for name, (gain, said) in stated.items():
            _need(abs(gain - said.value) < 1e-6, f"explanation.{name}_gain is {said.value}; its areas give {gain}.")
            _need(said.low <= said.high, f"explanation.{name}_gain must have low <= high, not {said}.")
        of = self.centre
        for name, gain, said in (
            ()
            if of is None
            else (
                ("deletion", of.deletion - self.deletion, of.deletion_gain),
                ("insertion", self.insertion - of.insertion, of.insertion_gain),
            )
        ):
            told = f"explanation.centre.{name}_gain"
            _need(abs(gain - said.value) < 1e-6, f"{told} is {said.value}; its areas give {gain}.")
            _need(said.low <= said.high, f"{told} must have low <= high, not {said}.")


def _need(condition: bool, sentence: str) -> None:
    if not condition:
        raise ResultError(sentence)


def _fractions(where: str, *intervals: Interval) -> None:
    for interval in intervals:
        ordered = 0 <= interval.low <= interval.high <= 1 and 0 <= interval.value <= 1
        _need(ordered, f"{where} must hold fractions with low <= high, not {interval}.")
