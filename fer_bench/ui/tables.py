"""The charts of the leaderboard tab as tables, for those who cannot see a chart or want its figures. Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fer_bench.cells import percent
from fer_bench.comparison import Comparison
from fer_bench.emotions import EMOTIONS
from fer_bench.results import Result
from fer_bench.ui.method_card import plain


def _table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, its first column on the left, under a line that says what it is."""
    lines = ["| " + " | ".join(headers) + " |", "|---|" + "--:|" * (len(headers) - 1)]
    return f"**{caption}**\n\n" + "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _matrix(caption: str, corner: str, emotions: Sequence[str], counts: Sequence[Sequence[int]] | np.ndarray) -> str:
    rows = [[emotion, *(f"{int(n):,}" for n in row)] for emotion, row in zip(emotions, counts, strict=True)]
    return _table(caption, [corner, *emotions], rows)


def recalls(results: Mapping[str, Result]) -> str:
    """Each emotion's recall of one to six results, keyed by the name to show."""
    known = {emotion for result in results.values() for emotion in result.per_class_recall}
    rows = []
    for emotion in (one for one in EMOTIONS if one in known):
        of = [result.per_class_recall.get(emotion) for result in results.values()]
        told = ["–" if r is None else f"{percent(r.value)} ({percent(r.low)} to {percent(r.high)})" for r in of]
        rows.append([emotion, *told])
    return _table("Recall per emotion, % (95 % interval)", ["emotion", *map(plain, results)], rows)


def of_row(result: Result, several: Mapping[str, Result]) -> str:
    """What the charts of one row draw: its confusion matrix, recalls (beside those of `several`) and reliability."""
    bins = result.calibration
    filled = [index for index, count in enumerate(bins.count) if count]
    reliability = [
        [
            f"{100 * bins.edges[i]:.0f} to {100 * bins.edges[i + 1]:.0f}", f"{bins.count[i]:,}",
            percent(bins.confidence[i]), percent(bins.accuracy[i]),
        ]
        for i in filled
    ]  # fmt: skip
    parts = [
        _matrix("Confusion matrix, pictures", "true, answered →", result.emotions, result.confusion_matrix),
        recalls(several),
        _table("Reliability", ["confidence, %", "pictures", "mean confidence, %", "right, %"], reliability),
    ]
    return "\n\n".join(parts)


def of_pair(found: Comparison, both: Mapping[str, Result]) -> str:
    """What the charts of a comparison draw: how often the first answered this and the second that, and the recalls."""
    counts = _matrix("Answers, pictures", "first, second →", found.emotions, found.agreement)
    return "\n\n".join([counts, recalls(both)])
