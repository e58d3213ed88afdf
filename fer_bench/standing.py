"""Rows that stand: the record that a new one replaces; figures computed anew from saved answers (`--figures`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.infer import Model
from fer_bench.judged import failure
from fer_bench.results import (
    Logits,
    Result,
    ResultError,
    headline,
    measure,
    read_logits,
    read_result,
    result_path,
    track_folder,
    write_result,
)
from fer_bench.weights import OWN, same_track

KEPT = "accuracy_without_duplicates"
"""The one figure that saved answers do not give: they do not tell which pictures also stand in train."""
ROUNDING, NAMED = 1e-6, 3
"""How far a figure may be from the same sum on another machine; how many that changed are told of a row."""


def standing(result: Result, out: Path) -> Result | None:
    """The record that this result will replace, or None where there is none of the same weights, data and emotions."""
    try:
        before = read_result(result_path(out, result.track, result.method, result.recipe, result.seed, result.tta))
    except ResultError:  # there is none, or one of another version
        return None
    measured, replaced = ((r.weights.sha256, r.data.hash, r.emotions) for r in (result, before))
    return before if measured == replaced else None


def guard(model: Model, track: Track, out: Path, tta: str, trying: bool, foreign: bool = False) -> None:
    """Refuse, where a user is `trying` weights of their own runs, to put their row into the place of a verified one,
    to put that of a `foreign` model, whose name anyone may have given it, into the place of another model's, and to put
    that of weights of one track into the place of another's, as where one's own pictures are judged with both.

    Raises UserError where `out` holds a row of the same track, method, recipe and seed, of other weights: it would be
    gone, with its robustness and explanation, and could not be compared with the new one.
    """
    path = result_path(out, track.name, model.name, model.record["recipe"], model.record["seed"], tta)
    own = track.name.partition(":")[0] in OWN
    if not (trying or foreign or own) or not path.is_file():
        return
    before = read_result(path)
    if own and not foreign and not same_track(before.trained.track, model.record["trained"]["track"]):
        told = f"{before.trained.track}, and these are of {model.record['trained']['track']}"
        raise UserError(f"{path} is a row of weights of {told}; give another folder to --out, so that both stay.")
    if foreign and before.weights.sha256 != model.record["sha256"]:
        raise UserError(
            f"{path} is a row of another model; name this one, NAME=MODEL, or give another folder to --out."
        )
    if before.verified and before.weights.sha256 != model.record["sha256"]:
        raise UserError(f"{path} is a verified row of other weights; give another folder to --out for yours.")


def recomputed(result: Result, answers: Logits) -> Result:
    """The result with all that `results.measure` gives for its saved answers; `KEPT` stays as it was measured.

    Raises ResultError where the answers are not those of this record: another number of pictures or of emotions, or
    other hits than its confusion matrix has (but for ties, which are broken by the order of the emotions).
    """
    if answers.logits.shape != (result.data.test_pictures, len(result.emotions)):
        shape = " x ".join(f"{size:,}" for size in answers.logits.shape)
        stated = f"{result.data.test_pictures:,} pictures and {len(result.emotions)} emotions"
        raise ResultError(f"the saved answers are {shape}, but the record is of {stated}")
    fields = measure(answers.targets, answers.logits, result.emotions, subjects=answers.subjects)
    if fields["confusion_matrix"] != [list(row) for row in result.confusion_matrix]:
        raise ResultError("the saved answers give another confusion matrix than the record has")
    kept = {name: figure for name, figure in result.metrics.items() if name == KEPT}
    return replace(result, **fields | {"metrics": fields["metrics"] | kept})


def differences(before: Result, after: Result) -> list[str]:
    """The figures that two results do not share, each with both values; what is `ROUNDING` apart is the same."""
    old, new = (_figures(asdict(result)) for result in (before, after))
    return [
        f"{name} {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in {**old, **new}
        if not _same(old.get(name), new.get(name))
    ]


def _figures(value: object, name: str = "") -> dict[str, object]:
    """Dotted name -> what stands there, of everything inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = {key: part for name_, inside in inner for key, part in _figures(inside, f"{name}.{name_}").items()}
    return found or {name.removeprefix("."): value}


def _same(one: object, other: object) -> bool:
    both = isinstance(one, float) and isinstance(other, float)
    return one == other or (both and (abs(one - other) <= ROUNDING or (one != one and other != other)))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def recompute(
    methods: Collection[str] | None,
    tracks: Collection[str],
    out: Path,
    recipe: str | None = None,
    seed: int | None = None,
) -> tuple[int, list[str]]:
    """Compute the figures of the records in `out` anew; a record that they agree with is not written again.

    What is written again is named with what differs.

    For records from before a statistic was mended. All else in them stays, the commit and the date too: they are those
    of the answers. methods: None is every one in `out`, peers as well. recipe, seed: None is any. Returns as
    `evaluate` does, every record that was looked at counted, and a `Failure` for each whose answers are missing or not
    its own.
    """
    looked, skipped = 0, []
    folders = {track_folder(name) for name in tracks}
    for path in sorted((out / "results").glob(f"*/*/{recipe or '*'}-s{'' if seed is None else seed}*.json")):
        if path.parts[-3] not in folders or (methods is not None and path.parts[-2] not in methods):
            continue
        try:
            before = read_result(path)
            if seed not in (None, before.seed):
                continue
            answers = read_logits(path)
            try:
                after = recomputed(before, answers)
            except ResultError as error:
                raise ResultError(f"{path}: {error}") from None
            if changed := differences(before, after):
                write_result(after, out)
                more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
                tqdm.write(f"{headline(after)} computed anew ({', '.join(changed[:NAMED])}{more})")
            looked += 1
        except Exception as error:  # costs this row alone
            skipped.append(failure(" ".join(path.parts[-3:-1]), error))
    if not looked and not skipped:
        skipped.append(f"{out} holds no record of that.")
    return looked, skipped
