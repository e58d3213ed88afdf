"""The leaderboard tab: the table, a chosen row's card and charts, and the comparison of two methods.

Everything shown comes from the committed results; no model is loaded and torch is not imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components.plot import PlotData
from gradio.context import Context

from fer_bench import charts
from fer_bench.cells import percent, ratio_text, short
from fer_bench.comparison import Comparison, compare_results
from fer_bench.errors import UserError
from fer_bench.how_to_read import HOW_TO_READ
from fer_bench.ui import address, keyboard, tables
from fer_bench.ui.board_rows import ALL, EMPTY, KINDS, Board, Cells, cells, disagreements, figures, notes, within
from fer_bench.ui.method_card import method_card, plain

if TYPE_CHECKING:
    from gradio.events import Dependency
    from plotly.graph_objects import Figure

CSS = """
.fer-chart .xtick text, .fer-chart .ytick text, .fer-chart .y2tick text, .fer-chart .xtitle, .fer-chart .ytitle,
.fer-chart .y2title, .fer-chart .gtitle, .fer-chart .legendtext, .fer-chart .annotation-text
  {fill: var(--body-text-color) !important}
.fer-chart .js-plotly-plot {width: 100%}
.fer-board-md {overflow-x: auto}
.fer-board-md td, .fer-board-md th {word-break: normal; overflow-wrap: normal}
.fer-board-md pre, .fer-board-md pre code {font-size: .85rem; white-space: pre-wrap !important; overflow-wrap: anywhere}
.fer-board-md pre .token {color: inherit !important; background: none !important}
#board-table [aria-colindex="2"] {position: sticky; left: 0; z-index: 2; background: inherit;
  border-right: 1px solid var(--border-color-primary)}
#board-table [role=columnheader][aria-colindex="2"] {z-index: 3; background: var(--table-even-background-fill)}
#board-table [aria-colindex] * {font-family: var(--font); font-variant-numeric: tabular-nums}
#board-table [role=columnheader] .cell-menu-button {display: flex; width: 12px; min-width: 12px; right: 0; margin: 0;
  border: 0; background: none}
@media (max-width: 640px) {
  #board-table [aria-colindex] * {font-size: 13px}
  #board-table table.header-table {table-layout: fixed !important; width: 0 !important}
  #board-table [aria-colindex="1"] {--narrow: 54px}
  #board-table [aria-colindex="2"] {--narrow: 184px}
  #board-table :is([aria-colindex="1"], [aria-colindex="2"]) {width: var(--narrow) !important;
    min-width: var(--narrow) !important; max-width: var(--narrow) !important; flex-basis: var(--narrow) !important}
}
#board-table .body-cell[aria-colindex="2"] .text {white-space: normal; overflow-wrap: anywhere; line-height: 1.2}
.fer-pairs {display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr))}
@media (max-width: 640px) {.fer-pairs {grid-template-columns: 1fr 1fr}}
.fer-pairs figure {margin: 0; border: 1px solid var(--border-color-primary); border-radius: 10px; overflow: hidden;
  background: var(--block-background-fill); color: var(--body-text-color)}
.fer-pairs img {width: 100%; aspect-ratio: 1; object-fit: contain; display: block; margin: 0}
.fer-pairs figcaption {padding: 8px 10px; font-size: .85rem; line-height: 1.45; overflow-wrap: anywhere}
.fer-pairs figcaption strong, .fer-pairs figcaption span {display: block}
.fer-pairs .right {color: #007a5a}
.dark .fer-pairs .right {color: #4fd1a5}
"""
"""For the app's style sheet: charts take the page's text colour, and so do commands, whose own colours are too faint.
The column of names stays when the table is scrolled sideways, which `pinned_columns` of gradio 6.31 does not do; on a
phone it leaves room for the accuracy beside it, and long names take two lines. A heading's menu is always to be seen,
since gradio shows it to a mouse above it only, and a phone has none.
"""

HIDDEN: dict[str, Any] = {"visible": False, "elem_classes": "fer-chart", "min_width": 330}
"""A chart before there is one: Plotly's 4.5 MB of script are fetched and run with the first that is shown."""
SAME = "Choose two different rows to compare."


def plot(figure: Figure) -> PlotData:
    """A Plotly figure for `gr.Plot`, without the tool bar, which covers a phone-sized chart."""
    value = json.loads(figure.to_json())
    return PlotData(type="plotly", plot=json.dumps({**value, "config": {"displayModeBar": False}}))


def payload(table: Cells) -> dict[str, Any]:
    """Cells as `gr.Dataframe` takes them: numbers to sort and filter by, text to show."""
    return {"headers": table.headers, "data": table.values, "metadata": {"display_value": table.shown}}


def view_row(board: Board, track: str | None, recipe: str | None, name: str | None) -> tuple:
    """A row's card (Markdown), its confusion matrix, recalls beside the best row's and reliability diagram, and these
    as tables (Markdown).
    """
    if name not in board.rows(track, recipe)[1]:  # what is not here is not kept: strangers may ask for anything
        return "", None, None, None, ""
    return _view_row(board, track, recipe, name)


@lru_cache(maxsize=256)
def _view_row(board: Board, track: str, recipe: str | None, name: str) -> tuple:
    frame, results = board.rows(track, recipe)
    result, best = results[name], frame.loc[0, "name"]
    splits = frame.loc[frame["name"] == name, ["split_pictures", "earlier_split"]].iloc[0]
    several = {name: result} if name == best else {name: result, f"{best} (best)": results[best]}
    same = {n: r for n, r in several.items() if r.emotions == result.emotions}
    return (
        method_card(result, board.cards.get(result.method, {}), *splits),
        plot(charts.confusion_matrix(result)),
        plot(charts.per_class_recall(same)),
        plot(charts.reliability_diagram(result)),
        tables.of_row(result, same),
    )


def view_comparison(
    board: Board, track: str | None, recipe: str | None, first: str | None, second: str | None
) -> tuple:
    """The verdict on two rows (Markdown), their agreement matrix, their recalls and both as tables; a sentence where
    there is none.
    """
    found = _compared(board, track, recipe, first, second)
    if isinstance(found, str):
        return found, None, None, ""
    results = board.rows(track, recipe)[1]
    told = found.sentence(f"**{plain(first)}**", f"**{plain(second)}**")
    counts = (
        f"Both are right on {found.both_right:,} pictures, only {plain(first)} on {found.only_first:,}, only "
        f"{plain(second)} on {found.only_second:,}, neither on {found.both_wrong:,}."
    )
    caveat = "It compares these two sets of weights; training again with another seed moves both."
    both = {first: results[first], second: results[second]}
    return (
        f"{told}\n\n{counts} {caveat}",
        plot(charts.agreement_matrix(found.agreement, found.emotions, first, second)),
        plot(charts.per_class_recall(both)),
        tables.of_pair(found, both),
    )


def view_pictures(
    board: Board, track: str | None, recipe: str | None, first: str | None, second: str | None, kind: str
) -> tuple:
    """The pictures that two rows answer differently, with captions, and a line about them."""
    found = _compared(board, track, recipe, first, second)
    if isinstance(found, str):
        return [], found
    results = board.rows(track, recipe)[1]
    return disagreements(found, (first, results[first]), (second, results[second]), kind)


def _compared(
    board: Board, track: str | None, recipe: str | None, first: str | None, second: str | None
) -> Comparison | str:
    """The comparison of two rows by their names, or a sentence that says why there is none."""
    _, results = board.rows(track, recipe)
    if first not in results or second not in results or first == second:
        return SAME
    try:
        return compare_results(board.root, results[first], results[second])
    except UserError as error:
        return plain(within(board.root, str(error)))


def view_cost(board: Board, track: str | None, recipe: str | None, cost: str) -> tuple[PlotData | None, str]:
    """Accuracy against a cost for the rows of the largest comparable group, and its frontier in words (Markdown)."""
    if board.rows(track, recipe)[0].empty or cost not in charts.COSTS:
        return None, ""
    return _view_cost(board, track, recipe, cost)


@lru_cache(maxsize=64)
def _view_cost(board: Board, track: str, recipe: str | None, cost: str) -> tuple[PlotData | None, str]:
    frame, _ = board.rows(track, recipe)
    first = frame[frame["group"] == 0].reset_index(drop=True)
    best = first.iloc[charts.pareto(first[cost], first["accuracy"])]
    number = ratio_text if cost == "latency_ratio" else short
    known = [(row.name, number(getattr(row, cost)), percent(row.accuracy)) for row in best.itertuples(index=False)]
    rows = [f"{plain(name)}: {value}, {accuracy} %" for name, value, accuracy in known]
    told = f"**The frontier, cheapest first** ({charts.COSTS[cost].lower()}, accuracy): {'; '.join(rows)}."
    return plot(charts.accuracy_against_cost(first, cost)), told if len(best) else ""


def chart(part: PlotData | None) -> gr.Plot:
    """A chart as an event handler returns it; hidden where there is nothing to draw."""
    return gr.Plot(part, visible=part is not None)


def shown(*parts: str | PlotData | None) -> list:
    """Text and charts as an event handler with several outputs returns them."""
    return [part if isinstance(part, str) else chart(part) for part in parts]


def _columns(table: Cells) -> dict[str, Any]:
    """How `gr.Dataframe` is to treat the columns of a table."""
    return {"datatype": table.kinds, "column_widths": [f"{width}px" for width in table.widths]}


def build_board(root: Path) -> Dependency:
    """Lay the tab out inside the open `gr.Blocks` or `gr.Tab` and wire it. root: the leaderboard's folder.

    Returns the event after which what the page's address asks for is chosen; the tab is not to be opened before it.

    The table is fetched as soon as the page is there; cards and charts follow once the tab is open, and only those of
    the part that is looked at, so that nothing stands between a visitor and 1,000 rows.
    Adds one public endpoint, `/leaderboard` (track, recipe) -> table; the rest serve the page alone.
    """
    root, around = Path(root), Context.block
    begun = Board.read(root)
    tracks = begun.tracks()
    start = tracks[0][1] if tracks else None

    with gr.Row():
        track = gr.Dropdown(
            tracks, value=start, label="Track: what was trained on and tested on", filterable=False, min_width=260
        )
        recipe = gr.Dropdown(
            begun.recipes(start), value=ALL, label="Recipe: how it was trained", filterable=False, min_width=260
        )
    empty = cells(begun.rows(None)[0])
    gr.Markdown(
        "Click a row to open its method card below the table, where two methods can also be compared and all be drawn "
        "against their cost; the page's address then names it, to be sent or cited. ◔ after a name: trained on fewer "
        "pictures than its recipe asks, so that it says what was reached, not what the method can. The ⋮ of a heading "
        "sorts and filters by it; training budget, cost and each emotion's F1 (with its recall) stand further to the "
        "right."
    )
    table = gr.Dataframe(
        payload(empty), headers=empty.headers, **_columns(empty), label="Leaderboard", show_label=False,
        interactive=False, show_search="filter", max_height=620, buttons=["fullscreen", "copy"],
        elem_id="board-table",
    )  # fmt: skip
    about = gr.Markdown("" if tracks else EMPTY, latex_delimiters=[], elem_classes="fer-board-md")
    with gr.Accordion("Notes on single rows", open=False, elem_id="board-notes"):
        noted = gr.Markdown(latex_delimiters=[], elem_classes="fer-board-md")
    with gr.Accordion("How to read this table", open=False):
        gr.Markdown(HOW_TO_READ)

    view = gr.Textbox("method", visible=False, label="View")  # the page sets it too, and cannot set a State
    with gr.Tabs(selected="method", elem_id="board-views", overflow_behavior="wrap") as views:
        with gr.Tab("One method", id="method") as method_tab:
            chosen = gr.Dropdown([], label="Row of the table", elem_id="board-row")
            card = gr.Markdown(latex_delimiters=[], elem_classes="fer-board-md", elem_id="board-card")
            with gr.Row():
                confusion = gr.Plot(label="Confusion matrix", **HIDDEN)
                recall = gr.Plot(label="Recall per emotion", **HIDDEN)
                reliability = gr.Plot(label="Reliability diagram", **HIDDEN)
            with gr.Accordion("The figures of these charts as tables", open=False, elem_id="board-row-figures"):
                row_tables = gr.Markdown(latex_delimiters=[], elem_classes="fer-board-md", elem_id="board-row-tables")
        with gr.Tab("Compare two methods", id="pair") as pair_tab:
            with gr.Row():
                first = gr.Dropdown([], label="First", min_width=260, elem_id="board-first")
                second = gr.Dropdown([], label="Second", min_width=260, elem_id="board-second")
            verdict = gr.Markdown(latex_delimiters=[], elem_classes="fer-board-md", elem_id="board-verdict")
            with gr.Row():
                agreement = gr.Plot(label="What each answers", **HIDDEN)
                both = gr.Plot(label="Recall per emotion of the two", **HIDDEN)
            with gr.Accordion("The figures of these charts as tables", open=False, elem_id="board-pair-figures"):
                pair_tables = gr.Markdown(latex_delimiters=[], elem_classes="fer-board-md", elem_id="board-pair-tables")
            with gr.Row():
                kinds = [(text, key) for key, text in KINDS.items()]
                kind = gr.Dropdown(kinds, value="all", label="Which pictures", filterable=False, min_width=260)
                show = gr.Button("Show test pictures they disagree on", min_width=260, elem_id="board-show")
            seen = gr.Markdown(latex_delimiters=[], elem_id="board-seen")
            gallery = gr.HTML(elem_id="board-pictures")
        with gr.Tab("Accuracy against cost", id="cost") as cost_tab:
            kinds_of_cost = [(title, key) for key, title in charts.COSTS.items()]
            told = "Point at a mark, or tap it, for its name and figures."
            cost = gr.Radio(kinds_of_cost, value="parameters", label="Cost", info=told)
            cost_plot = gr.Plot(label="Accuracy against cost", **HIDDEN)
            frontier = gr.Markdown(latex_delimiters=[], elem_id="board-frontier")

    where = [track, recipe]
    row_parts = [card, confusion, recall, reliability, row_tables]
    pair_parts = [verdict, agreement, both, pair_tables, gallery, seen]
    parts = {"method": [chosen, *row_parts], "pair": [first, second, *pair_parts], "cost": [cost_plot, frontier]}
    filled = [part for group in parts.values() for part in group]

    def refresh(track: str | None, recipe: str | None) -> list:
        board = Board.read(root)
        tracks = board.tracks()
        if track not in [key for _, key in tracks]:
            track = tracks[0][1] if tracks else None
        recipes = board.recipes(track)
        recipe = recipe if recipe in [key for _, key in recipes] else ALL
        frame, results = board.rows(track, recipe)
        found = board.cells(track, recipe)
        return [
            gr.Dropdown(tracks, value=track), gr.Dropdown(recipes, value=recipe),
            gr.Dataframe(payload(found), **_columns(found)), *notes(frame, list(results.values()), board.problems),
        ]  # fmt: skip

    def arrive(track: str | None, recipe: str | None, *asked: str | None) -> list:
        """`refresh` for a page that was opened, which also says what its address asks for and is not here."""
        board = Board.read(root)
        where = [("track", track, board.tracks()), ("recipe", recipe, board.recipes(track))]
        missing = [f"{what} “{plain(key)}”" for what, key, known in where if key and key not in [k for _, k in known]]
        unknown = [name for name in asked if name and not board.named(track, recipe, name)]
        missing += [] if missing else [f"row “{plain(name)}”" for name in unknown]
        *found, about, noted = refresh(track, recipe)
        told = f"**The address asks for the {' and the '.join(missing)}, which this board does not have.**\n\n"
        return [*found, (told if missing else "") + about, noted]

    def fill(view: str, track: str | None, recipe: str | None, *chosen: str | None) -> list:
        """What the part of the page that is looked at shows; the other parts are left as they are."""
        board = Board.read(root)
        *asked, cost = chosen
        names = list(board.rows(track, recipe)[1])
        name, first, second = (board.named(track, recipe, one) for one in asked)
        one = name or next(iter(names), None)
        if not first or not second:
            first, second = [*names, None, None][:2]
        now: dict[str, Callable[[], list]] = {
            "method": lambda: [gr.Dropdown(names, value=one), *shown(*view_row(board, track, recipe, one))],
            "pair": lambda: [
                gr.Dropdown(names, value=first), gr.Dropdown(names, value=second),
                *shown(*view_comparison(board, track, recipe, first, second)), "", "",
            ],
            "cost": lambda: shown(*view_cost(board, track, recipe, cost)),
        }  # fmt: skip
        return [
            part for key, group in parts.items() for part in (now[key]() if key == view else [gr.skip() for _ in group])
        ]

    def open_row(track: str | None, recipe: str | None, event: gr.SelectData) -> list:
        board = Board.read(root)
        name = next((cell for cell in event.row_value if isinstance(cell, str)), None)
        names = list(board.rows(track, recipe)[1])
        chosen = gr.Dropdown(names, value=name if name in names else None)
        return ["method", gr.Tabs(selected="method"), chosen, *shown(*view_row(board, track, recipe, name))]

    def compare(*given: str | None) -> list:
        return [*shown(*view_comparison(Board.read(root), *given)), "", ""]

    def show_pictures(*given: str | None) -> list:
        found, line = view_pictures(Board.read(root), *given)
        return [figures(found), line]

    def leaderboard(track: str = start or "", recipe: str = ALL) -> dict:
        """The leaderboard of one track as a table: headers and rows of numbers (percentages; null is not known).

        Args:
            track: a track's name, such as fer2013 or rendered.
            recipe: a training recipe, such as common-v1, or "all".
        """
        found = Board.read(root).cells(track, recipe)
        return {"headers": found.headers, "data": found.values}

    # Names go to the functions as the page sends them: gradio would refuse those it did not give this session itself,
    # which it forgets (`keeping.SESSIONS`) while the page is still open.
    private: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
    # A click while the last one is being answered is not lost: the page ends with what was chosen last.
    # Not queued, for it takes a fifth of a second at most: the board opens though the queue be full of pictures.
    hushed: dict[str, Any] = {**private, "show_progress": "hidden", "trigger_mode": "always_last", "queue": False}
    looked_at = [*where, chosen, first, second, cost]
    parts_of_address = [*looked_at, view]
    arrived = Context.root_block.load(None, None, [*parts_of_address, views], js=address.board_from(list(charts.COSTS)))
    Context.root_block.load(None, None, None, js=keyboard.HEADINGS)
    arrived.then(arrive, [*where, chosen, first, second], [*where, table, about, noted], **hushed)
    if isinstance(around, gr.Tab):
        around.select(fill, [view, *looked_at], filled, **hushed)
    to_address = {"inputs": parts_of_address, "outputs": None, "js": address.board_to(ALL)}
    picked = gr.on([track.input, recipe.input], refresh, where, [*where, table, about, noted], **hushed)
    picked.then(fill, [view, *looked_at], filled, **hushed).then(None, **to_address)
    for key, part in (("method", method_tab), ("pair", pair_tab), ("cost", cost_tab)):
        opened = part.select(lambda *given, key=key: [key, *fill(key, *given)], looked_at, [view, *filled], **hushed)
        opened.then(None, **{**to_address, "js": address.board_to(ALL, opened=True)})
    drawn = [cost_plot, frontier]
    changed = cost.input(lambda *given: shown(*view_cost(Board.read(root), *given)), [*where, cost], drawn, **hushed)
    changed.then(None, **to_address)
    clicked = table.select(open_row, where, [view, views, chosen, *row_parts], **hushed)
    clicked.then(None, None, None, js=keyboard.SHOW_CARD).then(None, **to_address)
    changed = chosen.input(
        lambda *given: shown(*view_row(Board.read(root), *given)), [*where, chosen], row_parts, **hushed
    )
    changed.then(None, **to_address)
    gr.on([first.input, second.input], compare, [*where, first, second], pair_parts, **hushed).then(None, **to_address)
    show.click(show_pictures, [*where, first, second, kind], [gallery, seen], **private)
    kind.input(lambda: ["", ""], None, [gallery, seen], **hushed)  # those shown are of another kind
    gr.api(leaderboard, api_name="leaderboard")
    return arrived
