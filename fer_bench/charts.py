"""The app's charts, as Plotly figures that read on light and dark pages and on a phone.

Nothing is drawn behind them, text and grid are a grey that shows on both, and the colours are Okabe & Ito's, which the
usual colour blindnesses tell apart. Plotly is imported when a chart is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fer_bench.cells import epochs_text, ratio_text
from fer_bench.emotions import EMOTIONS
from fer_bench.results import Result

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
INK = "#808890"
HEIGHT = 470
"""Pixels; a chart with more rows than fit is taller."""
CROWD = 100
"""Above so many rows points are small and their intervals stand in the hover text alone: bars would hide each other."""
GRID = "rgba(128, 136, 144, 0.28)"
COSTS = {
    "parameters": "Parameters",
    "macs": "Multiply-accumulates per face",
    "latency_ratio": "Latency, × resnet18",
}
"""What accuracy can be drawn against: column of `leaderboard.table` -> what it is called."""


def _figure(height: int, **layout: object) -> Figure:
    """An empty figure in the common look. height: pixels."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID, "linecolor": INK, "tickcolor": INK, "zeroline": False, "automargin": True,
        "fixedrange": True, "title": {"standoff": 10}, "tickfont": {"size": 12},
    }  # fmt: skip
    look = {  # given at once: each update of a figure costs Plotly as long as making it
        "template": "none", "height": height, "autosize": True, "dragmode": False, "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "ui-sans-serif, system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 54, "r": 14, "t": 46, "b": 48},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top", "font": {"size": 12}},
        "hoverlabel": {"bgcolor": "#1f2933", "bordercolor": "#1f2933", "font": {"color": "white", "size": 13}},
        "xaxis": axis, "yaxis": axis,
    }  # fmt: skip
    return go.Figure(layout={**look, **layout})


def pareto(cost: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Positions of the points that no other point beats: none is as cheap and as accurate, and better in one.

    In order of rising cost; points with equal figures on both count once (the first). NaN is never on the frontier.
    """
    cost, accuracy = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(accuracy))
    kept, best = [], -np.inf
    for index in known[np.lexsort((-accuracy[known], cost[known]))]:
        if accuracy[index] > best:
            kept.append(int(index))
            best = accuracy[index]
    return kept


def accuracy_against_cost(frame: pd.DataFrame, cost: str = "parameters") -> Figure:
    """Accuracy (%, with 95 % intervals) against a cost (a key of COSTS, log scale), with the Pareto frontier.

    frame: rows of `leaderboard.table` that may be compared, with a column `name`. Rows whose training fell short of
    their budget are hollow, those trained elsewhere diamonds; rows without the cost are left out.
    Raises KeyError for another cost.
    """
    title = COSTS[cost]
    frame = frame[frame[cost] > 0].reset_index(drop=True)
    figure = _figure(HEIGHT)
    frontier = pareto(frame[cost], frame["accuracy"])
    line = frame.iloc[frontier]
    figure.add_scatter(
        x=line[cost].tolist(), y=(100 * line["accuracy"]).tolist(), mode="lines", name="Pareto frontier",
        line={"color": INK, "dash": "dot", "width": 1.5}, hoverinfo="skip",
    )  # fmt: skip
    crowd = len(frame) > CROWD
    size = {"size": 7, "line": {"width": 1.5}} if crowd else {"size": 11, "line": {"width": 2.5}}
    elsewhere, short = frame["external"].astype(bool), frame["short"].astype(bool)
    looks = (
        ("full budget", ~short & ~elsewhere, COLOURS[0], "circle"),
        ("short of its budget", short & ~elsewhere, COLOURS[1], "circle-open"),
        ("trained elsewhere", elsewhere, COLOURS[2], "diamond"),
    )
    for label, rows, colour, symbol in looks:
        part = frame[rows]
        if part.empty:
            continue
        figure.add_scatter(
            x=part[cost].tolist(), y=(100 * part["accuracy"]).tolist(), mode="markers", name=label,
            marker={"color": colour, "symbol": symbol, **size, "line": {**size["line"], "color": colour}},
            error_y=None if crowd else {
                "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3,
                "array": (100 * (part["high"] - part["accuracy"])).tolist(),
                "arrayminus": (100 * (part["accuracy"] - part["low"])).tolist(),
            },
            hovertext=[_hover(row, cost, title) for row in part.itertuples()], hoverinfo="text",
        )  # fmt: skip
    bottom = _bottom(100 * frame["low"].min()) if len(frame) else 0
    top = 100 * frame["high"].max() + 8 if len(frame) else 100
    middle = np.sqrt(frame[cost].min() * frame[cost].max())
    for index, above in _labels(frame, frontier, cost, bottom, top):
        row, left = frame.loc[index], frame.loc[index, cost] < middle
        figure.add_annotation(
            x=float(np.log10(row[cost])), y=100 * row["high" if above else "low"], text=row["name"], showarrow=False,
            yshift=10 if above else -10, font={"size": 12},
            xanchor="left" if left else "right", xshift=-8 if left else 8,
        )  # fmt: skip
    figure.update_xaxes(title_text=f"{title} (log scale)", type="log", dtick=1, exponentformat="SI", minexponent=2)
    from_where = f"; axis starts at {bottom}" if bottom else ""
    figure.update_yaxes(title_text=f"Accuracy, %{from_where}", range=[bottom, min(top, 104)])
    return figure


def _labels(frame: pd.DataFrame, frontier: list[int], cost: str, bottom: float, top: float) -> list[tuple[int, bool]]:
    """Which frontier points are named, and whether above: on a phone no name meets another one or covers a point.

    The best come first; a name without such room is left to the hover text. bottom, top: of the axis, %.
    """
    wide, high = 270, 290  # pixels of a phone's plot area
    logs = np.log10(frame[cost].to_numpy(dtype=np.float64))
    xs = wide * (logs - logs.min()) / max(float(np.ptp(logs)), 1e-9) if len(logs) else logs
    scale = high / (top - bottom)
    heights = {name: scale * (100 * frame[name].to_numpy() - bottom) for name in ("accuracy", "low", "high")}
    boxes: list[tuple[float, float, float, float]] = []
    kept: list[tuple[int, bool]] = []
    for index in reversed(frontier):
        length = 7 * len(frame.loc[index, "name"])
        left = xs[index] - 8 if xs[index] < wide / 2 else xs[index] + 8 - length
        for above in (True, False):
            middle = heights["high"][index] + 10 if above else heights["low"][index] - 10
            box = (left, middle - 8, left + length, middle + 8)
            covered = (xs > box[0] - 6) & (xs < box[2] + 6)
            covered &= (heights["accuracy"] > box[1] - 6) & (heights["accuracy"] < box[3] + 6)
            covered[index] = False  # its own point, where the interval is short
            meets = any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in boxes)
            if not covered.any() and not meets:
                boxes.append(box)
                kept.append((index, above))
                break
    return kept


def _bottom(lowest: float) -> int:
    """Where a percentage axis starts: 0, or the ten below the lowest figure where that is far above 0."""
    return 0 if lowest < 40 else int((lowest - 2) // 10 * 10)


def _hover(row: object, cost: str, title: str) -> str:
    half = 50 * (row.high - row.low)
    budget = "training not stated" if row.epochs != row.epochs else f"trained {epochs_text(row)}"
    value = ratio_text(getattr(row, cost)) if cost == "latency_ratio" else f"{getattr(row, cost):,.0f}"
    return f"<b>{row.name}</b><br>{100 * row.accuracy:.1f} ± {half:.1f} % accuracy<br>{title}: {value}<br>{budget}"


def per_class_recall(results: Mapping[str, Result]) -> Figure:
    """Each emotion's recall (%, with 95 % interval) of one to six results, keyed by the name to show.

    Raises ValueError for more (or none): their marks could no longer be told apart.
    """
    if not 0 < len(results) <= len(COLOURS):
        raise ValueError(f"one to {len(COLOURS)} results can be drawn, not {len(results)}")
    known = {emotion for result in results.values() for emotion in result.per_class_recall}
    emotions = [emotion for emotion in EMOTIONS if emotion in known]
    figure = _figure(max(HEIGHT, 120 + len(emotions) * (20 + 14 * len(results))))
    for index, (name, result) in enumerate(results.items()):
        shown = [e for e in emotions if e in result.per_class_recall]
        recalls = [result.per_class_recall[e] for e in shown]
        offset = (index - (len(results) - 1) / 2) * 0.7 / len(results)
        figure.add_scatter(
            x=[100 * r.value for r in recalls], y=[emotions.index(e) + offset for e in shown], name=name,
            mode="markers", marker={"color": COLOURS[index], "symbol": SYMBOLS[index], "size": 10},
            cliponaxis=False,
            error_x={
                "type": "data", "symmetric": False, "color": COLOURS[index], "thickness": 1.6, "width": 4,
                "array": [100 * (r.high - r.value) for r in recalls],
                "arrayminus": [100 * (r.value - r.low) for r in recalls],
            },
            hovertext=[
                f"<b>{name}</b><br>{e}: {100 * r.value:.1f} % ({100 * r.low:.1f} to {100 * r.high:.1f})"
                for e, r in zip(shown, recalls, strict=True)
            ],
            hoverinfo="text",
        )  # fmt: skip
    figure.update_xaxes(title_text="Recall, % (bars: 95 % interval)", range=[0, 100], dtick=20)
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(emotions))), ticktext=emotions, range=[len(emotions) - 0.5, -0.5]
    )
    figure.update_layout(showlegend=True, legend_y=-0.16)
    return figure


def reliability_diagram(result: Result) -> Figure:
    """How often the model is right where it is so and so sure, per confidence bin; below, how many pictures that is.

    The gap between confidence and accuracy is hatched; its mean over all pictures is the ECE, which the legend states.
    """
    bins, ece = result.calibration, result.metrics["ece"]
    edges = np.asarray(bins.edges)
    filled = [i for i, count in enumerate(bins.count) if count]
    middle = [50 * (edges[i] + edges[i + 1]) for i in filled]
    width = [92 * (edges[i + 1] - edges[i]) for i in filled]
    sure, right = ([100 * values[i] for i in filled] for values in (bins.confidence, bins.accuracy))
    count = [bins.count[i] for i in filled]
    hover = [
        f"{100 * edges[i]:.0f} to {100 * edges[i + 1]:.0f} % sure: {n:,} pictures<br>mean confidence {s:.1f} %<br>"
        f"right {r:.1f} %<br>gap {s - r:+.1f} points"
        for i, s, r, n in zip(filled, sure, right, count, strict=True)
    ]
    figure = _figure(HEIGHT, barmode="overlay", bargap=0)
    same = {"hovertext": hover, "hoverinfo": "text", "x": middle, "width": width}
    figure.add_bar(y=right, name="right", marker={"color": COLOURS[0]}, **same)
    figure.add_bar(
        y=[abs(s - r) for s, r in zip(sure, right, strict=True)],
        base=[min(s, r) for s, r in zip(sure, right, strict=True)],
        name=f"gap; ECE {100 * ece.value:.1f} % ({100 * ece.low:.1f} to {100 * ece.high:.1f})",
        marker={
            "color": "rgba(213, 94, 0, 0.25)", "line": {"color": COLOURS[1], "width": 1.2},
            "pattern": {"shape": "/", "fgcolor": COLOURS[1], "size": 7},
        },
        **same,
    )  # fmt: skip
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", name="as right as sure", hoverinfo="skip",
        line={"color": INK, "dash": "dot", "width": 2},
    )  # fmt: skip
    figure.add_bar(y=count, name="pictures", marker={"color": INK}, yaxis="y2", showlegend=False, **same)
    figure.update_layout(
        legend_y=-0.17,
        yaxis={"domain": [0.3, 1], "range": [0, 101], "dtick": 20, "title": {"text": "Right, %"}},
        yaxis2={
            "domain": [0, 0.22], "title": {"text": "Pictures"}, "rangemode": "tozero", "gridcolor": GRID, "nticks": 3,
            "zeroline": False, "automargin": True, "fixedrange": True, "tickfont": {"size": 12}, "tickformat": ",d",
        },
        xaxis={"range": [0, 100.5], "dtick": 20, "title": {"text": "Confidence, %"}, "anchor": "y2"},
    )  # fmt: skip
    return figure


def confusion_matrix(result: Result, normalise: bool = True) -> Figure:
    """The confusion matrix with its numbers: per cent of each row's true pictures, or (normalise=False) pictures."""
    counts = np.asarray(result.confusion_matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    hover = [
        [
            f"true {true}, answered {answer}<br>{counts[i, j]:,.0f} pictures, {shares[i, j]:.1f} % of {true}"
            for j, answer in enumerate(result.emotions)
        ]
        for i, true in enumerate(result.emotions)
    ]
    values, top = (shares, 100) if normalise else (counts, max(counts.max(), 1))
    what = "% of the row" if normalise else "pictures"
    return _matrix(values, result.emotions, hover, f"Answered ({what})", "True emotion", top)


def agreement_matrix(agreement: np.ndarray, emotions: Sequence[str], first: str, second: str) -> Figure:
    """Two models' answers to the same pictures. agreement: int (K, K), rows the first's, columns the second's."""
    counts = np.asarray(agreement)
    shares = 100 * counts / max(counts.sum(), 1)
    hover = [
        [
            f"{first}: {one}<br>{second}: {other}<br>{counts[i, j]:,} pictures, {shares[i, j]:.1f} %"
            for j, other in enumerate(emotions)
        ]
        for i, one in enumerate(emotions)
    ]
    return _matrix(counts, emotions, hover, "Second answers (pictures)", "First answers", max(counts.max(), 1))


def _readable(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever stands out more (WCAG 2.2) on a colour of red, green and blue in 0..1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _matrix(
    values: np.ndarray, emotions: Sequence[str], hover: list[list[str]], across: str, down: str, top: float
) -> Figure:
    """A square heat map with its numbers, the first row on top. values: (K, K), 0..top."""
    from plotly.colors import sample_colorscale

    names = list(emotions)
    figure = _figure(max(HEIGHT, 160 + 44 * len(names)))
    figure.add_heatmap(
        z=values.tolist(), x=names, y=names, zmin=0, zmax=float(top), colorscale="Cividis", showscale=False,
        xgap=2, ygap=2, hovertext=hover, hoverinfo="text",
    )  # fmt: skip
    colours = sample_colorscale("Cividis", (np.asarray(values) / top).clip(0, 1).ravel().tolist(), colortype="tuple")
    figure.add_scatter(
        x=names * len(names), y=[name for name in names for _ in names], mode="text", hoverinfo="skip",
        text=[f"{value:.0f}" for value in np.asarray(values).ravel()], showlegend=False,
        textfont={"size": 13, "color": [_readable(colour) for colour in colours]},
    )  # fmt: skip
    figure.update_xaxes(title_text=across, tickangle=-45, showgrid=False, ticks="", showline=False)
    figure.update_yaxes(title_text=down, autorange="reversed", showgrid=False, ticks="", showline=False)
    return figure
