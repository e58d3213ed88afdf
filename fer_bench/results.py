"""The result record: one JSON file per method x track x recipe x seed, with the per-picture logits beside it.

Everything in a record is a number or a name, never a formatted string. Unknown keys are refused, and a file's path
must agree with its content, so that no result can be misplaced or half read.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
import zipfile
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_bench import metrics as m
from fer_bench.emotions import EMOTIONS
from fer_bench.errors import UserError
from fer_bench.files import atomic_write, track_folder
from fer_bench.records import (
    Calibration,
    Cost,
    Data,
    Faithfulness,
    ResultError,
    Robustness,
    Trained,
    Versions,
    Weights,
)
from fer_bench.statistics import Interval, bootstrap_interval, bootstrap_metrics, bootstrap_recalls, several
from fer_bench.zips import check_sizes

SCHEMA = 1
MOST = 2**63
"""No whole number in a record is as large; JSON's may be of any length, and its 1e999 is read as infinite."""
MOST_UNPACKED = 64_000_000
"""Bytes of an array beside a record: the ids of 160,000 pictures at 100 characters. More is no test split."""
REQUIRED_METRICS = tuple(m.METRICS)
OPTIONAL_METRICS = ("accuracy_without_duplicates",)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the leaderboard. Raises ResultError where its fields contradict each other."""

    schema: int = SCHEMA
    method: str
    track: str
    recipe: str
    seed: int
    emotions: tuple[str, ...]
    """Those scored, in the canonical order."""
    trained: Trained
    weights: Weights
    data: Data
    protocol: str
    """`cards.Track.hash()`."""
    metrics: dict[str, Interval]
    per_class_recall: dict[str, Interval]
    """Emotions without test pictures are left out."""
    confusion_matrix: list[list[int]]
    """Rows are true emotions, columns predictions."""
    calibration: Calibration
    robustness: Robustness | None = None
    """None where it was not measured, as of `explanation`: both cost many passes."""
    explanation: Faithfulness | None = None
    cost: Cost
    shared_emotions_only: bool = False
    """True where the model tells other emotions too and its logits were renormalised over those shared."""
    tta: str = "none"
    """Test-time augmentation: "none" or its name, a separate figure."""
    subjects: int | None = None
    """People over whom the intervals of `metrics` and `per_class_recall` are; None where they are over pictures."""
    verified: bool = False
    """Measured by the project itself."""
    external: bool = False
    """Submitted from outside."""
    commit: str
    """That of the code, as `files.commit` gives it: with "-dirty" behind it where the code was not what it holds."""
    versions: Versions
    date: str
    """ISO 8601, UTC."""

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict:
        """Plain JSON values. Raises ResultError for a number that is not finite."""
        try:
            return json.loads(json.dumps(asdict(self), allow_nan=False, default=_plain))
        except (TypeError, ValueError) as error:
            raise ResultError(f"the result of {self.method} on {self.track} cannot be written: {error}") from None

    @classmethod
    def from_dict(cls, values: dict) -> Result:
        """The reverse of `to_dict`; raises ResultError, naming the field, for unknown, missing or mistyped ones."""
        return decode(cls, values, "the record")


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")


@lru_cache
def _shape(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """A dataclass's types by field, and the fields that have no default."""
    needed = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return typing.get_type_hints(kind), frozenset(needed)


def decode(kind: Any, value: Any, where: str) -> Any:
    """Read a JSON value as `kind`: a dataclass, dict, list, tuple, X | None or a plain type. Strict about types."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else decode(args[0], value, where)
    expected = {tuple: list}.get(origin, origin) or (dict if is_dataclass(kind) else kind)
    if (type(value) is int and abs(value) >= MOST) or (type(value) is float and not math.isfinite(value)):
        raise ResultError(f"{where} is no number that a result may hold: {str(value)[:30]}.")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not expected:
        raise ResultError(f"{where} must be of type {expected.__name__}, not {value!r:.80}.")
    if is_dataclass(kind):
        hints, needed = _shape(kind)
        for problem, names in (("unknown", value.keys() - hints), ("missing", needed - value.keys())):
            if names:
                raise ResultError(f"{where} has {problem} key(s): {', '.join(sorted(names))}.")
        prefix = "" if kind is Result else f"{where}."
        return kind(**{name: decode(hints[name], item, prefix + name) for name, item in value.items()})
    if origin is dict:
        return {name: decode(args[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin in (list, tuple):
        return origin(decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    return value


def _check(result: Result) -> None:
    """Refuse a record whose fields contradict each other."""

    def need(condition: bool, sentence: str) -> None:
        if not condition:
            raise ResultError(sentence)

    need(result.schema == SCHEMA, f"schema is {result.schema}, but this version reads {SCHEMA}; evaluate again.")
    for name, pattern in (("method", r"[a-z0-9_]+"), ("recipe", r"[a-z0-9][a-z0-9._-]*"), ("tta", r"[a-z0-9]+")):
        text = getattr(result, name)
        need(bool(re.fullmatch(pattern, text)), f"{name} {text!r} must match {pattern}.")
    try:
        track_folder(result.track)
        track_folder(result.trained.track)  # it stands in the commands of the row's card
    except UserError as error:
        raise ResultError(str(error)) from None
    need(result.seed >= 0 < result.cost.parameters, "seed must not be negative and cost.parameters must be positive.")
    for name, text, digits in (("protocol", result.protocol, 12), ("weights.sha256", result.weights.sha256, 64)):
        need(bool(re.fullmatch(rf"[0-9a-f]{{{digits}}}", text)), f"{name} must be {digits} hex digits, not {text!r}.")
    try:
        utc = datetime.fromisoformat(result.date).utcoffset() == timedelta(0)
    except ValueError:
        utc = False
    need(utc, f"date {result.date!r} must be ISO 8601 in UTC, such as 2025-01-31T12:00:00+00:00.")

    size = len(result.emotions)
    canonical = tuple(emotion for emotion in EMOTIONS if emotion in result.emotions)
    need(size > 1 and tuple(result.emotions) == canonical, f"emotions must be in the order {', '.join(EMOTIONS)}.")
    missing = set(REQUIRED_METRICS) - set(result.metrics)
    need(not missing, f"metrics lacks {', '.join(sorted(missing))}.")
    unknown = set(result.metrics) - {*REQUIRED_METRICS, *OPTIONAL_METRICS}
    need(not unknown, f"metrics has unknown names: {', '.join(sorted(unknown))}.")
    for name, interval in (*result.metrics.items(), *result.per_class_recall.items()):
        top = np.inf if name == "nll" else 1
        ordered = 0 <= interval.low <= interval.high <= top and 0 <= interval.value <= top
        need(ordered, f"{name} must be a fraction (nll: not negative) with low <= high, not {interval}.")

    matrix = np.array(result.confusion_matrix) if len({len(row) for row in result.confusion_matrix}) == 1 else None
    need(matrix is not None and matrix.shape == (size, size), f"confusion_matrix must be {size} x {size}.")
    need(matrix.min() >= 0, "confusion_matrix must not be negative.")
    scored = result.data.test_pictures
    need(matrix.sum() == scored > 0, f"confusion_matrix holds {matrix.sum()} pictures, data.test_pictures {scored}.")
    for name, right in m.from_confusion(matrix).items():
        stated = result.metrics[name].value
        need(abs(right - stated) < 1e-6, f"{name} {stated} is not the confusion matrix's {right}.")
    for name in ("accuracy", "accuracy_without_duplicates"):  # that of ece, moved by its bias, may leave its figure out
        of = result.metrics.get(name)
        need(of is None or of.low <= of.value <= of.high, f"{name} must lie within its own interval, not {of}.")
    hits, totals = np.diagonal(matrix), matrix.sum(axis=1)
    present = {e: h / t for e, h, t in zip(result.emotions, hits, totals, strict=True) if t}
    recalls = {emotion: interval.value for emotion, interval in result.per_class_recall.items()}
    agrees = recalls.keys() == present.keys() and all(abs(recalls[e] - present[e]) < 1e-6 for e in present)
    need(agrees, "per_class_recall is not that of the confusion matrix (are its emotions in the same order?).")
    people = result.subjects
    need(people is None or 0 < people <= scored, f"subjects must be null or from 1 to {scored}, not {people}.")
    bins = result.calibration
    for name, block in (("robustness", result.robustness), ("explanation", result.explanation)):
        need(block is None or block.pictures <= scored, f"{name}.pictures is more than data.test_pictures, {scored}.")
    agrees = len(bins.edges) - 1 == len(bins.count) == len(bins.confidence) == len(bins.accuracy)
    need(agrees and sum(bins.count) == scored, "calibration's bins do not agree in number or do not hold all pictures.")


def measure(
    targets: np.ndarray,
    logits: np.ndarray,
    emotions: Sequence[str],
    duplicates: np.ndarray | None = None,
    samples: int = 1000,
    seed: int = 0,
    subjects: np.ndarray | None = None,
) -> dict[str, Any]:
    """The fields of a Result that follow from targets (int (N,)) and logits (float (N, K)) alone.

    Gives `metrics`, `per_class_recall`, `confusion_matrix`, `calibration` and `subjects`, to be passed to
    `Result(**...)`.
    duplicates: bool (N,), the pictures that also stand in train; with it, accuracy without them is measured too.
    subjects: (N,), whom each picture shows; with it, intervals are over people, not over pictures, where there are two.
    """
    people = several(subjects)
    found = bootstrap_metrics(targets, logits, samples=samples, seed=seed, subjects=people)
    if duplicates is not None and not np.all(duplicates):
        kept = ~np.asarray(duplicates, dtype=bool)
        rest = bootstrap_interval(
            np.asarray(targets)[kept], np.asarray(logits)[kept], "accuracy", samples, seed,
            subjects=None if people is None else several(people[kept]),
        )  # fmt: skip
        found["accuracy_without_duplicates"] = rest
    recalls = zip(emotions, bootstrap_recalls(targets, logits, samples, seed, subjects=people), strict=True)
    bins = m.calibration_bins(targets, logits)._asdict()
    return {
        "metrics": found,
        "per_class_recall": {emotion: recall for emotion, recall in recalls if np.isfinite(recall.value)},
        "confusion_matrix": m.confusion_matrix(targets, logits).tolist(),
        "calibration": Calibration(
            **{k: [None if v != v else v for v in a.tolist()] for k, a in bins.items()},
            expected=m.ece_by_chance(logits),
        ),
        "subjects": None if people is None else len(np.unique(people)),
    }


def result_path(root: Path | str, track: str, method: str, recipe: str, seed: int, tta: str = "none") -> Path:
    """`<root>/results/<track>/<method>/<recipe>-s<seed>.json`; with test-time augmentation, `-<tta>` before the dot."""
    ending = "" if tta == "none" else f"-{tta}"
    return Path(root) / "results" / track_folder(track) / method / f"{recipe}-s{seed}{ending}.json"


def _path_of(result: Result, root: Path | str) -> Path:
    return result_path(root, result.track, result.method, result.recipe, result.seed, result.tta)


def headline(result: Result) -> str:
    """One line for a log: track, method, accuracy and its interval, as fractions."""
    figure = result.metrics["accuracy"]
    row = f"{result.track:12} {result.method:24}"
    return f"{row} accuracy {figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def write_result(result: Result, root: Path | str) -> Path:
    """Validate a result and write it to its own path under `root` (the leaderboard's folder); returns that path."""
    values = result.to_dict()
    Result.from_dict(values)  # what is written can be read back
    return atomic_write(_path_of(result, root), (json.dumps(values, indent=1) + "\n").encode())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that a result may hold")


def read_result(path: Path | str) -> Result:
    """Read and validate one record. Raises ResultError, naming the file and what to mend."""
    path = Path(path)
    try:
        result = Result.from_dict(json.loads(path.read_bytes(), parse_constant=_refuse_constant))
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read as a result: {error}.") from None
    parts = path.absolute().parts
    right = _path_of(result, Path(*parts[:-4]))
    if right.parts[-4:] != parts[-4:]:
        raise ResultError(f"{path} does not stand where its content says; move it to {'/'.join(right.parts[-4:])}.")
    return result


def read_results(root: Path | str) -> list[Result]:
    """Every result under `<root>/results`, in the order of their paths. Raises ResultError for the first broken one."""
    return [read_result(path) for path in sorted((Path(root) / "results").glob("*/*/*.json"))]


def read_readable(root: Path | str) -> tuple[list[Result], list[str]]:
    """Every result under `root` that can be read, and a sentence for each file that cannot.

    A file that has not changed since is not read again, so that a board of 1,000 rows opens at once.
    """
    results, problems = [], []
    for path in sorted((Path(root) / "results").glob("*/*/*.json")):
        try:
            stat = path.stat()
            found = _read_cached(path.absolute(), stat.st_mtime_ns, stat.st_size)
        except OSError as error:  # gone since it was listed
            found = f"{path} cannot be read as a result: {error}."
        (problems if isinstance(found, str) else results).append(found)
    return results, problems


@lru_cache(maxsize=20_000)
def _read_cached(path: Path, changed: int, size: int) -> Result | str:
    """The result, or what is wrong with the file. changed, size: the file's own, so that a rewritten one is read."""
    try:
        return read_result(path)
    except ResultError as error:
        return str(error)


class Logits(NamedTuple):
    """What a model answered, picture by picture."""

    ids: np.ndarray
    """unicode (N,)."""
    targets: np.ndarray
    """int64 (N,), indices into the record's emotions."""
    logits: np.ndarray
    """float32 (N, K), shifted so that each row's largest is 0."""
    subjects: np.ndarray | None = None
    """unicode or int (N,), whom each picture shows; None where the data set does not tell."""


def as_saved(logits: np.ndarray) -> np.ndarray:
    """Logits (float (N, K)) as a record keeps them: rounded to float16, given as float32, each row's largest 0.

    No softmax changes by that shift, and float16 is finest near 0. Figures are measured on these, so that whoever has
    the saved answers gets the record's figures to the last digit. Raises ValueError where logits are not finite.
    """
    _, logits = m.checked(np.zeros(len(logits), dtype=np.int64), logits)
    shifted = np.maximum(logits - logits.max(axis=1, keepdims=True), np.finfo(np.float16).min)
    return shifted.astype(np.float16).astype(np.float32)


def write_logits(
    result: Result,
    root: Path | str,
    ids: Sequence[str],
    targets: np.ndarray,
    logits: np.ndarray,
    subjects: np.ndarray | None = None,
) -> Path:
    """Save a result's logits (float (N, K)) beside it, `as_saved`, and whom each picture shows; returns the path.

    Raises ValueError where lengths disagree or logits are not finite.
    """
    targets, logits = m.checked(targets, as_saved(logits))
    if len(ids) != len(targets) or len(set(ids)) != len(targets):
        raise ValueError(f"{len(targets)} pictures need as many distinct ids, not {len(set(ids))}")
    if logits.shape[1] != len(result.emotions):
        raise ValueError(f"{logits.shape[1]} columns of logits do not match {len(result.emotions)} emotions")
    names = np.asarray(ids, dtype=np.str_)
    arrays = {"ids": names, "targets": targets.astype(np.int8), "logits": logits.astype(np.float16)}
    if subjects is not None:
        if len(subjects) != len(targets):
            raise ValueError(f"{len(targets)} pictures need as many subjects, not {len(subjects)}")
        arrays["subjects"] = np.asarray(subjects)
    return atomic_write(_path_of(result, root).with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))


def read_logits(path: Path | str) -> Logits:
    """Read the logits beside a record; `path` is that of the .npz or of the .json. Never unpickles anything.

    Raises ResultError where the file is missing or broken, lacks an array or has one of more than MOST_UNPACKED bytes.
    """
    path = Path(path).with_suffix(".npz")
    try:
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive.infolist(), MOST_UNPACKED)  # a few KB from others may unfold to gigabytes
        with np.load(path, allow_pickle=False) as file:
            subjects = file.get("subjects")
            found = Logits(file["ids"], file["targets"].astype(np.int64), file["logits"].astype(np.float32), subjects)
        m.checked(found.targets, found.logits)
        if subjects is not None and subjects.shape != found.targets.shape:
            raise ValueError(f"{len(found.targets)} pictures need as many subjects, not {subjects.shape}")
    except Exception as error:  # a foreign zip file can fail in many ways
        raise ResultError(f"{path} cannot be read as logits: {error}; evaluate the method again.") from None
    return found
