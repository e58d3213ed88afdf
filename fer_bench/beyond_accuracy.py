"""What the board shows of emotions, robustness and explanation: columns of a row, and tables of the rows with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from fer_bench.cells import markdown_table, percent, safe
from fer_bench.emotions import in_order
from fer_bench.records import Faithfulness, Robustness
from fer_bench.results import Result
from fer_bench.statistics import Interval

UNDER = "under_"
"""Columns `under_<corruption>`: the mean accuracy over the corruption's severities."""
RECALL, F1, OF = "recall_", "f1_", "pictures_of_"
"""Columns `recall_<emotion>`, `recall_<emotion>_low` and `recall_<emotion>_high`, `f1_<emotion>`, and how many pictures
are of it."""
TRAINED_WITH = (
    "Not all corruptions are new to all methods: common-v1, distilled-v1, light-v1, strong-v1 and votes-v1 turn "
    "training pictures mildly and change their light and contrast, and common-v1, distilled-v1, strong-v1 and votes-v1 "
    "lay grey boxes over some, as *occlusion* does; a paper's own recipe may do none of it."
)
"""What every table of robustness says of training."""


def emotion_columns(result: Result) -> dict[str, float | None]:
    """The columns of a row of the board: per emotion its recall, the interval of that, F1 and pictures.

    Recall and F1 are None where no test picture shows the emotion.
    """
    columns: dict[str, float | None] = {}
    counts = np.array(result.confusion_matrix)
    for index, emotion in enumerate(result.emotions):
        recall, shown = result.per_class_recall.get(emotion), int(counts[index].sum())
        f1 = 2 * counts[index, index] / (shown + counts[:, index].sum()) if shown else None
        columns[f"{RECALL}{emotion}"] = None if recall is None else recall.value
        columns[f"{RECALL}{emotion}_low"] = None if recall is None else recall.low
        columns[f"{RECALL}{emotion}_high"] = None if recall is None else recall.high
        columns[f"{F1}{emotion}"] = f1
        columns[f"{OF}{emotion}"] = shown
    return columns


def emotions_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """The emotions that rows of `leaderboard.table` have an F1 of, in the project's order."""
    return in_order(name.removeprefix(F1) for name in frame if name.startswith(F1) and frame[name].notna().any())


def emotion_text(row: NamedTuple, emotion: str, best: str = "") -> str:
    """ "47.2 (40.5 ± 4.1)": F1 and recall of an emotion; F1 is bold where it reads `best`.

    An interval that begins at none or ends at all of the pictures is told by its other bound: "0.0 (0.0, ≤ 7.1)", one
    so far from even that half of it on both sides would pass none or all by both: "3.6 (1.8, 0.3 to 9.6)".
    """
    f1, name = percent(getattr(row, F1 + emotion)), RECALL + emotion
    recall, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    half = (high - low) / 2
    told = f"{percent(recall)}, {percent(low)} to {percent(high)}"
    if recall in (0, 1):
        told = f"{percent(recall)}, " + (f"≥ {percent(low)}" if recall else f"≤ {percent(high)}")
    elif recall != recall:
        told = percent(recall)
    elif half <= recall <= 1 - half:
        told = f"{percent(recall)} ± {percent(half)}"
    return f"{f'**{f1}**' if f1 == best else f1} ({told})"


def emotion_tables(frame: pd.DataFrame) -> list[str]:
    """A sentence and a Markdown table of F1 and recall per emotion of one comparable group; none for a single row.

    The greatest F1 of each emotion is bold, with those that are as great to the digit that is shown; 0 never is.
    """
    emotions = emotions_of(frame)
    if len(frame) < 2 or not emotions:
        return []
    columns: dict[str, Callable[[NamedTuple], str]] = {"Method": _name}
    for emotion in emotions:
        title = f"{emotion.capitalize()} ({frame[OF + emotion].max():,.0f})"
        greatest = frame[F1 + emotion].max()
        columns[title] = partial(emotion_text, emotion=emotion, best=percent(greatest) if greatest > 0 else "")
    about = (
        "**Per emotion**: F1 and, in brackets, recall, %; behind each emotion how many test pictures show it. Recall "
        "is the share of these that is recognised; F1 counts the pictures as well that are wrongly taken for the "
        "emotion, so that answering it always does not help. The greatest F1 is bold. ± is half of a 95 % interval "
        "(Wilson's, but over people the bootstrap's), ≤ and ≥ are its other bound where none or all are recognised; of "
        "one that is far from even both bounds stand."
    )
    return [about, markdown_table(columns, frame, words=("Method",))]


def robustness_columns(found: Robustness | None) -> dict[str, float | str | None]:
    """The columns of a row of the board; None where it was not measured, and no `under_<corruption>` there."""
    if found is None:
        names = ("pictures", "clean", "corrupted", "corrupted_half", "relative_drop", "relative_drop_half")
        return {"robustness_suite": "", **dict.fromkeys(f"robustness_{name}" for name in names)}
    drop = found.relative_drop
    return {
        "robustness_suite": found.suite,
        "robustness_pictures": found.pictures,
        "robustness_clean": found.clean.value,
        "robustness_corrupted": found.corrupted.value,
        "robustness_corrupted_half": _half(found.corrupted),
        "robustness_relative_drop": None if drop is None else drop.value,
        "robustness_relative_drop_half": None if drop is None else _half(drop),
        **{UNDER + name: sum(c.value for c in by.values()) / len(by) for name, by in found.corruptions.items()},
    }


def explanation_columns(found: Faithfulness | None) -> dict[str, float | str | None]:
    """The columns of a row of the board; None where it was not measured, those of the regions but on `rendered`."""
    regions = None if found is None else found.regions
    centre = None if found is None else found.centre
    plain = ("pictures", "empty_maps", "deletion", "deletion_random", "insertion", "insertion_random")
    gains = ("deletion_gain", "insertion_gain")
    return {
        "explanation_cam": "" if found is None else found.cam,
        **{f"explanation_{name}": None if found is None else getattr(found, name) for name in plain},
        **{f"explanation_{name}": None if found is None else getattr(found, name).value for name in gains},
        **{f"explanation_{name}_half": None if found is None else _half(getattr(found, name)) for name in gains},
        **{f"centre_{name}": getattr(centre, name, None) for name in ("deletion", "insertion", "energy")},
        "centre_pointing_game": getattr(centre, "pointing_game", None),
        **{f"centre_{name}": None if centre is None else getattr(centre, name).value for name in gains},
        **{f"centre_{name}_half": None if centre is None else _half(getattr(centre, name)) for name in gains},
        "region_pictures": None if regions is None else regions.pictures,
        "region_energy": None if regions is None else regions.energy.value,
        "region_energy_half": None if regions is None else _half(regions.energy),
        "region_area": None if regions is None else regions.area,
        "region_pointing_game": None if regions is None else regions.pointing_game.value,
        "region_empty_maps": None if regions is None else regions.empty_maps,
    }


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def robustness_tables(frame: pd.DataFrame) -> list[str]:
    """Markdown tables of the rows of `leaderboard.table` that were measured, least relative drop first.

    A sentence and a table for each suite of corruptions, since figures of two suites are not comparable.
    """
    shown = frame[frame["robustness_suite"] != ""].sort_values(["robustness_relative_drop", *_NAME])
    texts = []
    for suite, part in shown.groupby("robustness_suite"):
        columns: dict[str, Callable[[NamedTuple], str]] = {
            "Method": _name,
            "Clean, %": lambda r: percent(r.robustness_clean),
            "Corrupted, %": partial(_with_half, name="robustness_corrupted"),
            "Relative drop, %": partial(_with_half, name="robustness_relative_drop"),
        }
        for name in part.columns[part.columns.str.startswith(UNDER) & part.notna().any()]:
            title = name.removeprefix(UNDER).replace("_", " ").capitalize().replace("Jpeg", "JPEG")
            columns[f"{title}, %"] = lambda r, name=name: percent(getattr(r, name))
        counts = _pictures(part, "robustness_pictures")
        texts.append(
            f"**Robustness** (corruptions `{safe(suite)}`): accuracy on {counts} of the test pictures, stratified by "
            "emotion, as they are (clean) and corrupted. *Corrupted* is the mean over all corruptions and severities, "
            "*relative drop* the share of the clean accuracy that is lost; the rest is each corruption's mean over its "
            "severities. A method that answers the same whatever it sees loses nothing. The levels are set for faces "
            "of 48 pixels a side; larger pictures lose less by the same noise or JPEG quality, so that only figures of "
            f"one size compare. {TRAINED_WITH}"
        )
        texts.append(markdown_table(columns, part, words=("Method",)))
    return texts


def explanation_tables(frame: pd.DataFrame) -> list[str]:
    """Markdown tables of the rows of `leaderboard.table` that were measured, greatest gain of insertion first: over the
    centre, and those without it by that over random.

    A sentence and a table for each kind of CAM.
    """
    order = ["centre_insertion_gain", "explanation_insertion_gain", *_NAME]
    shown = frame[frame["explanation_cam"] != ""].sort_values(order, ascending=[False, False, True, True, True])
    texts = []
    for cam, part in shown.groupby("explanation_cam"):
        columns: dict[str, Callable[[NamedTuple], str]] = {
            "Method": _name,
            "Deletion (random, centre), %": lambda r: _beside(
                r.explanation_deletion, r.explanation_deletion_random, r.centre_deletion
            ),
            "Deletion, gain over random": partial(_with_half, name="explanation_deletion_gain"),
            "Deletion, gain over centre": partial(_with_half, name="centre_deletion_gain"),
            "Insertion (random, centre), %": lambda r: _beside(
                r.explanation_insertion, r.explanation_insertion_random, r.centre_insertion
            ),
            "Insertion, gain over random": partial(_with_half, name="explanation_insertion_gain"),
            "Insertion, gain over centre": partial(_with_half, name="centre_insertion_gain"),
            "Empty maps, %": lambda r: percent(r.explanation_empty_maps),
        }
        counts = _pictures(part, "explanation_pictures")
        about = (
            f"**Explanation** (`{safe(cam)}`): what its maps say of {counts} of the test pictures, stratified by "
            "emotion. *Deletion* is the area under the predicted emotion's probability while the picture is "
            "greyed, warmest places first; *insertion* while a blurred one comes back so. In brackets the same with "
            "maps that know nothing of the network: *random* blobs, and one blob in the *centre* of every picture, "
            "where faces are. Gains, in points, are over these: one whose interval lies above 0 over random may only "
            "mean that the map finds the face, over the centre that it tells more than that."
        )
        if part["region_energy"].notna().any():
            columns["Energy in the regions (area, centre), %"] = lambda r: (
                f"{_with_half(r, 'region_energy')} ({percent(r.region_area)}, {percent(r.centre_energy)})"
            )
            columns["Pointing game (centre), %"] = lambda r: _beside(r.region_pointing_game, r.centre_pointing_game)
            columns["Empty of these, %"] = lambda r: percent(r.region_empty_maps)
            known = part[part["region_pictures"].notna()]
            about += (
                f" The last three columns are over the {_pictures(known, 'region_pictures')} of these pictures whose "
                "emotion has regions that carry it (a neutral face has none): *energy* is the share of the true "
                "emotion's map inside them, beside the share of the picture that they cover, which is what an even map "
                "would get, and the share of the blob in the centre; *pointing game* is the share of the maps whose "
                "maximum lies inside. An empty map counts as outside in both."
            )
        texts += [about, markdown_table(columns, part, words=("Method",))]
    return texts


_NAME = ["method", "recipe", "seed"]


def _pictures(frame: pd.DataFrame, name: str) -> str:
    return " or ".join(f"{count:,.0f}" for count in sorted(frame[name].unique()))


def _name(row: NamedTuple) -> str:
    return f"`{row.method}` ({row.recipe}" + (f", seed {row.seed})" if row.seed else ")")


def _with_half(row: NamedTuple, name: str) -> str:
    value, half = getattr(row, name), getattr(row, f"{name}_half")
    return percent(value) if half != half else f"{percent(value)} ± {percent(half)}"


def _beside(value: float, *others: float) -> str:
    return f"{percent(value)} ({', '.join(map(percent, others))})"
