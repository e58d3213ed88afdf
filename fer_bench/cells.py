"""How figures are written in Markdown tables: per cent, counts, and text that cannot break a cell. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import pandas as pd


def percent(value: float, sign: str = "") -> str:
    """0.6932 -> "69.3"; a dash for NaN. sign: "+" writes it for positive values too."""
    return "–" if value != value else f"{100 * value:{sign}.1f}"


def short(value: float) -> str:
    """3849319 -> "3.85M"."""
    if value != value:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def safe(text: str) -> str:
    """Text from a record or a path as one line that cannot break out of a table cell or carry markup."""
    text = " ".join(str(text).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("[", "&#91;")


def trained_text(row: NamedTuple) -> str:
    """ "12 of 60 epochs, 344k pictures" and what else tells this training from another; not escaped.

    After an earlier run: "12 of 60 epochs after 20 on ferplus, 918k pictures", the pictures of both together.
    """
    if row.epochs != row.epochs:
        told = "not stated"
    else:
        fewer = row.epochs < row.budget_epochs
        told = f"{row.epochs:.0f} of {row.budget_epochs:.0f} epochs" if fewer else f"{row.epochs:.0f} epochs"
        told += " (stopped early)" if fewer and row.complete else ""
        pictures, again = row.pictures_seen, row.earlier_epochs == row.earlier_epochs
        if again:
            where = "before" if row.earlier_track == row.trained_on else f"on {row.earlier_track}"
            told += f" after {row.earlier_epochs:.0f} {where}"
            pictures += row.earlier_pictures
        told += f", {short(pictures)} pictures{' in all' if again else ''}" if pictures == pictures else ""
    return ("" if row.complete else "◔ ") + told + (f"; {row.pretrained}" if row.pretrained else "")


def markdown_table(
    columns: Mapping[str, Callable[[NamedTuple], str]], frame: pd.DataFrame, words: Collection[str]
) -> str:
    """A table of a frame's rows: header -> how a row's cell is written. Columns of `words` stand left, others right."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" if c in words else "--:" for c in columns) + "|"]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)
