"""How figures are written in Markdown tables: per cent, counts, and text that cannot break a cell. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd

from fer_bench.files import track_folder
from fer_bench.records import full_epochs


def percent(value: float, sign: str = "") -> str:
    """0.6932 -> "69.3"; a dash for NaN. sign: "+" writes it for positive values too."""
    return "–" if value != value else f"{round(100 * value, 1) + 0.0:{sign}.1f}"  # + 0.0: no "-0.0"


def p_text(p: float) -> str:
    """0.0123 -> "0.012"; less than a thousandth is said as such."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float) -> str:
    """0.0123 -> "p = 0.012", 0.0001 -> "p < 0.001"."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def short(value: float) -> str:
    """3849319 -> "3.85M"."""
    if value != value:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def ratio_text(value: float) -> str:
    """A positive ratio with two significant digits and no exponent: 0.0509 -> "0.051", 12.61 -> "13"; NaN a dash."""
    if value != value:
        return "–"
    rounded = float(f"{value:.1e}")  # 0.997 is 1.0, with a digit less than 0.99
    digits = 1 - math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{value:.{max(digits, 0)}f}"


def ece_text(row: NamedTuple) -> str:
    """ "2.7 (1.8)": a row's ECE in per cent, and what chance alone gives, where the record says it."""
    chance = row.ece_by_chance
    return percent(row.ece) + (f" ({percent(chance)})" if chance == chance else "")


DECLARED = "declared: "
"""What a submission's text on its training begins with; all that follows is a stranger's."""
LONGEST = 120
"""Characters of a cell's text on what training started from."""


IN_A_LINK = "%/:?=&#+@,;~!*'$"
"""Beside letters, digits, "_", "." and "-", what may stand in a Markdown link's address in a table as it is."""


def titled(card: Mapping) -> str:
    """A card's title, linked to where its `url` says; "" for none."""
    told = strange if card.get("authors") else safe  # a submission's is not ours
    title, url = told(card.get("title", "")), card.get("url")
    return f"[{title}]({quote(url, safe=IN_A_LINK)})" if title and url else title


def by(card: Mapping) -> str:
    """ " by A, B" of a submission's authors; of more than three the first stands for all. "" for none."""
    names = card.get("authors", [])
    told = ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"
    return f" by {strange(told)}" if told else ""


def safe(text: str) -> str:
    """Text from a record or a path as one line that cannot break out of a table cell or carry links or HTML.

    Our own notes may hold code spans; behind DECLARED nothing is marked up, and addresses and names link to nowhere.
    """
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("[", "&#91;")
    ours, mark, theirs = text.partition(DECLARED)
    theirs = re.sub(r"[*_~`\\]", lambda found: f"&#{ord(found[0])};", theirs)
    return ours + mark + re.sub(r"@|:(?=//)|www(?=\.)", r"\g<0>&#8288;", theirs, flags=re.IGNORECASE)  # a word joiner


def strange(text: str) -> str:
    """`safe`, of text that is a stranger's from its first letter on."""
    return safe(DECLARED + str(text)).removeprefix(DECLARED)


def epochs_text(row: NamedTuple) -> str:
    """ "12 of 60 epochs", and after earlier runs " after 20 on ferplus and fer2013". The row must have epochs.

    Epochs of a part of the training split are no fraction of the recipe's: "4 epochs of 1,000 pictures, not 60 of
    28,678". "(cut off)" is said of a run whose rate was still on its way; others came to their schedule's end.
    """
    part = row.train_pictures < row.split_pictures
    epochs = full_epochs(row.epochs, row.pictures_seen, row.train_pictures)
    fewer = epochs < row.budget_epochs
    told = f"{epochs:.0f} of {row.budget_epochs:.0f} epochs"
    if part or not fewer or not (row.short or row.complete):  # the runs before make up for what this one lacks
        told = f"{epochs:.0f} epoch" + ("" if epochs == 1 else "s")
    told += f" of {row.train_pictures:,.0f} pictures" if part else ""
    told += " (stopped early)" if fewer and row.complete else " (cut off)" if row.ended == "max-minutes" else ""
    if row.earlier_epochs == row.earlier_epochs:
        own = track_folder(row.trained_on) if ":" in row.trained_on else row.trained_on  # as `start.start_from` has it
        where = "before" if row.earlier_tracks in (own, row.trained_on) else f"on {row.earlier_tracks}"
        # Less than their number of epochs were over a part of the split, or were cut short: they are no epochs.
        few = row.earlier_pictures < 0.9 * row.earlier_epochs * row.earlier_split
        told += f" after {f'{row.earlier_pictures:,.0f} pictures' if few else f'{row.earlier_epochs:.0f}'} {where}"
    asked = f"{row.budget_epochs:.0f} of" if row.budget_epochs == row.budget_epochs else "of"
    return told + (f", not {asked} {row.split_pictures:,.0f}" if part else "")


def trained_text(row: NamedTuple) -> str:
    """ "12 of 60 epochs, 344k pictures" and what else tells this training from another; not escaped.

    After an earlier run: "12 of 60 epochs after 20 on ferplus, 918k pictures in all", those of both together, and
    where that is more than the recipe asks ", 1.5 × its recipe's".
    """
    if row.epochs != row.epochs:
        told = "not stated"
    else:
        told, again = epochs_text(row), row.earlier_epochs == row.earlier_epochs
        # A table of one's own pictures has rows that were trained on them and rows that were not.
        told += f" on {row.trained_on}" if ":" in row.track and ":" not in row.trained_on else ""
        pictures = row.pictures_seen + (row.earlier_pictures if again else 0)
        if pictures == pictures and (again or not row.train_pictures < row.split_pictures):
            told += f", {short(pictures)} pictures{' in all' if again else ''}"
            told += f", {row.budget_fraction:.1f} × its recipe's" if again and row.budget_fraction >= 1.05 else ""
    start = row.pretrained if len(row.pretrained) <= LONGEST else row.pretrained[: LONGEST - 1].rstrip() + "…"
    taught = f"; taught by {row.teachers:.0f} network{'' if row.teachers == 1 else 's'}" if row.teachers else ""
    return ("◔ " if row.short else "") + told + taught + (f"; {start}" if start else "")


def markdown_table(
    columns: Mapping[str, Callable[[NamedTuple], str]], frame: pd.DataFrame, words: Collection[str]
) -> str:
    """A table of a frame's rows: header -> how a row's cell is written. Columns of `words` stand left, others right."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" if c in words else "--:" for c in columns) + "|"]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)
