"""The leaderboard's figure, drawn without pyplot (no global state, no display)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, REST, INK, FAINT = "#c2410c", "#33658a", "#1f2933", "#9aa5b1"
_DISTANCES = (9, 16, 24, 34, 46, 60, 76, 94, 114)
"""Of a label from its point, in typographic points."""
_ANGLES = (0, 180, 30, 150, -30, 210, 60, 120, -60, 240, 90, 270)


def accuracy_against_parameters(frame: pd.DataFrame, title: str) -> bytes:
    """A PNG of accuracy (%, with interval bars) against parameters (log scale), every row labelled.

    frame: rows of `leaderboard.table` that may be compared with each other; at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, since it takes half a second to import
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    frame = frame.sort_values("accuracy", ascending=False)
    drawing = Figure(figsize=(10, 6.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(drawing)
    drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
    axes = drawing.add_subplot()
    for row in frame.itertuples():
        colour = BEST if row.rank == 1 else REST
        height, error = 100 * row.accuracy, [[100 * (row.accuracy - row.low)], [100 * (row.high - row.accuracy)]]
        axes.errorbar(row.parameters, height, error, ecolor=colour, elinewidth=1.1, capsize=2.5, alpha=0.45, zorder=2)
        fill = "white" if row.short else colour
        axes.plot(row.parameters, height, "D" if row.external else "o", ms=7, mfc=fill, mec=colour, mew=1.6, zorder=3)

    least, most = frame["parameters"].min(), frame["parameters"].max()
    bottom, top = 100 * frame["low"].min(), 100 * frame["high"].max()
    space = 0.08 * max(top - bottom, 1)
    axes.set(xscale="log", xlim=(least / 1.8, most * 2.2), ylim=(bottom - space, top + space))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 100 * least else (1,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Parameters (log scale)", color=INK)
    axes.set_ylabel("Accuracy, % (bars: 95 % interval)", color=INK)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=12)
    axes.grid(True, which="major", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors="#52606d", which="both")

    looks = (
        ("o", BEST, BEST, "rank 1", (frame["rank"] == 1).any()),
        ("o", REST, REST, "ranked lower", (frame["rank"] > 1).any()),
        ("o", "white", "#52606d", "trained for less than its full budget", frame["short"].any()),
        ("D", "#52606d", "#52606d", "trained elsewhere", frame["external"].any()),
    )
    handles = [
        Line2D([], [], ls="", marker=marker, ms=7, mfc=fill, mec=edge, mew=1.6, label=label)
        for marker, fill, edge, label, wanted in looks
        if wanted
    ]
    drawing.legend(handles=handles, loc="outside lower right", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    _label(axes, frame)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _names(frame: pd.DataFrame) -> list[str]:
    """Each row's method, with recipe and seed where the method has several of them."""
    kinds = frame.groupby("method")[["recipe", "seed"]].transform("nunique") > 1
    recipes = (" · " + frame["recipe"]).where(kinds["recipe"], "")
    seeds = (" · s" + frame["seed"].astype(str)).where(kinds["seed"], "")
    return (frame["method"] + recipes + seeds).tolist()


def _label(axes: Axes, frame: pd.DataFrame) -> None:
    """Write each row's name near its point, where it covers neither a label, a point nor a bar.

    A name far from its point, or nearer to another's, gets a leader line, which strikes through no other label or
    point. Greedy, best rows first: the nearest free place is taken, or the least covered where none is free.
    """
    from matplotlib.patheffects import withStroke

    canvas = axes.figure.canvas
    canvas.draw()  # fixes the layout, so that pixels are final
    bounds, pixel = axes.get_window_extent(), axes.figure.dpi / 72
    points, lows, highs = (
        axes.transData.transform(np.column_stack([frame["parameters"], 100 * frame[height]]))
        for height in ("accuracy", "low", "high")
    )
    solid = [(x - 6 * pixel, y - 6 * pixel, x + 6 * pixel, y + 6 * pixel) for x, y in points]
    bars = [(x - pixel, low, x + pixel, high) for (x, low), (_, high) in zip(lows, highs, strict=True)]
    halo = [withStroke(linewidth=2, foreground="white")]  # so that a grid line does not strike a name through
    for name, (x, y) in zip(_names(frame), points, strict=True):
        text = axes.text(0, 0, name, fontsize=8.5, color=INK, transform=None, va="bottom", zorder=4, path_effects=halo)
        size = text.get_window_extent(canvas.get_renderer())
        # What a leader may not strike through; it has to leave points that lie under its own.
        others = [box for box in solid if not (box[0] <= x <= box[2] and box[1] <= y <= box[3])]
        others = np.array(others).reshape(-1, 4)
        places = []
        for distance in _DISTANCES:
            for angle in np.radians(_ANGLES):
                left = x + distance * pixel * np.cos(angle) - size.width * (1 - np.cos(angle)) / 2
                low = y + distance * pixel * np.sin(angle) - size.height / 2
                box = np.array([left, low, left + size.width, low + size.height])
                outside = box[0] < bounds.x0 or box[1] < bounds.y0 or box[2] > bounds.x1 or box[3] > bounds.y1
                leader = np.linspace((x, y), np.clip((x, y), box[:2], box[2:]), 12)[:, None]
                struck = ((leader >= others[:, :2]) & (leader <= others[:, 2:])).all(axis=2).sum()
                doubtful = _gaps(box, points).min() < _gaps(box, np.array([(x, y)]))[0]
                cost = _covered(box, np.array([*solid, *bars])) + 500 * struck + 400 * doubtful + 1e9 * outside
                places.append((cost, len(places), box))
            if min(places)[0] == 0:  # the nearest free place; the farther ones need not be looked at
                break
        box = min(places)[2]
        text.set_position(box[:2])
        solid.append(tuple(box + np.array([-2, -1, 2, 1]) * pixel))
        end = np.clip((x, y), box[:2], box[2:])
        gap = _gaps(box, np.array([(x, y)]))[0]
        if gap > 14 * pixel or _gaps(box, points).min() < gap:
            axes.plot(*np.array([(x, y), end]).T, transform=None, color=FAINT, linewidth=0.7, zorder=1.5)


def _gaps(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,): the distance of each point (N, 2) from a box, in pixels; 0 inside."""
    return np.hypot(*(np.clip(points, box[:2], box[2:]) - points).T)


def _covered(box: np.ndarray, taken: np.ndarray) -> float:
    """The area of a box (left, low, right, high) that the boxes `taken` (M, 4) cover, in square pixels."""
    wide = np.minimum(box[2], taken[:, 2]) - np.maximum(box[0], taken[:, 0])
    tall = np.minimum(box[3], taken[:, 3]) - np.maximum(box[1], taken[:, 1])
    return float((wide.clip(0) * tall.clip(0)).sum())
