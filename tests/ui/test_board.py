"""The leaderboard tab, without a browser."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench import charts
from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.card_files import write_cards
from fer_bench.comparison import compare
from fer_bench.records import Earlier
from fer_bench.results import Interval
from fer_bench.ui import board, board_rows
from fer_bench.ui.board_rows import Board, cells, chosen_pictures, disagreements, figures, notes
from fer_bench.ui.method_card import method_card, plain
from tests.helpers import write_folder
from tests.test_leaderboard import card, made
from tests.ui.test_method_card import SHORT

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = REPOSITORY / "leaderboard"
EVIL = "<img src=x onerror=alert(1)> [a](javascript:b) `|*"


def logits_of(answers):
    """float32 (N, 2) whose largest column is the answer."""
    return np.eye(2, dtype=np.float32)[np.asarray(answers)] - 1


@pytest.fixture
def root(tmp_path):
    """Three results on two tracks with the logits of the first two, and two cards."""
    targets = np.repeat([0, 1], 50)
    for method, wrong in (("awei", 10), ("small_cnn", 30)):
        result = made(method, 100 - wrong)
        r.write_result(result, tmp_path)
        answers = np.where(np.arange(100) % 50 < wrong / 2, 1 - targets, targets)
        r.write_logits(result, tmp_path, [f"p{i:03}" for i in range(100)], targets, logits_of(answers))
    r.write_result(made("awei", 40, track="rendered", recipe="paper"), tmp_path)
    write_cards(tmp_path, [card("awei", reported=()), card("small_cnn", ours="the optimiser", summary="Six layers.")])
    return tmp_path


def opened(root):
    """An app with this tab alone, not launched."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as app:
        board.build_board(root)
    return app


def test_a_thousand_results_render_within_a_second():
    """1,000 results become the ranked table, its notes and the answer to the page in less than a second."""
    import gradio as gr

    one = r.read_result(COMMITTED / "results/fer2013/small_cnn/common-v1-s0.json")
    results = tuple(replace(one, method=f"method_{index}") for index in range(1000))
    times = []
    while min(times, default=9.0) >= 1 and len(times) < 5:  # where others share its cores a process counts more time
        start = time.process_time()
        seen = Board(COMMITTED, results, {}, ())
        found = seen.cells("fer2013")
        "\n".join(notes(seen.rows("fer2013")[0], results, []))
        text = json.dumps(gr.Dataframe(board.payload(found), **board._columns(found)).value)
        times.append(time.process_time() - start)
    assert min(times) < 1, times
    assert len(found.values) == len(found.shown) == 1000
    assert "method_999" in text


def test_the_table_is_built_without_torch(root):
    """Importing the tab with gradio, building it and its table, and comparing two rows imports no torch."""
    code = (
        "import sys; from pathlib import Path; import gradio as gr; from fer_bench.ui import board\n"
        f"root = Path({str(root)!r})\n"
        "with gr.Blocks(analytics_enabled=False): board.build_board(root)\n"
        "seen = board.Board.read(root)\n"
        "assert len(board.cells(seen.rows('fer2013')[0]).values) == 2\n"
        "assert board.view_row(seen, 'fer2013', 'all', 'awei')[1] is not None\n"
        "assert board.view_comparison(seen, 'fer2013', 'all', 'awei', 'small_cnn')[1] is not None\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_has_not_changed_is_not_made_into_a_table_again(root):
    """Two looks at the same files give the same board and cells; a rewritten file and a new card give new ones."""
    seen = Board.read(root)
    assert Board.read(root) is seen
    assert Board.read(root).cells("fer2013") is seen.cells("fer2013")
    r.write_result(made("small_cnn", 71, date="2025-02-01T12:00:00+00:00", commit="another one"), root)
    later = Board.read(root)
    assert later is not seen
    assert later.cells("fer2013").values[1][2] == 71.0
    write_cards(root, [card("awei")])
    assert set(Board.read(root).cards) == {"awei"} != set(later.cards)


def test_the_table_waits_for_no_chart(root):
    """What runs when the page loads or a track is chosen fills the pickers, the table and its notes, and no chart."""
    app = opened(root)
    kinds = {
        target[1]: {type(part).__name__ for part in fn.outputs}
        for fn in app.fns.values()
        for target in fn.targets
        if any(type(part).__name__ == "Dataframe" for part in fn.outputs)
    }
    assert set(kinds) == {"then", "input"}  # the address comes first
    assert all(outputs == {"Dropdown", "Dataframe", "Markdown"} for outputs in kinds.values())
    assert all(part.visible is False for part in app.blocks.values() if type(part).__name__ == "Plot")


def test_only_the_part_that_is_looked_at_is_filled(root):
    """Choosing a part of the page fills that part and leaves the others as they are."""
    app = opened(root)
    selects = [fn for fn in app.fns.values() if [t[1] for t in fn.targets] == ["select"] and len(fn.outputs) > 9]
    assert len(selects) == 3
    for fn, key, fields, plots in zip(selects, ("method", "pair", "cost"), (6, 8, 2), (3, 2, 1), strict=True):
        told, *parts = fn.fn("fer2013", "all", None, None, None, "parameters")
        assert told == key
        filled = [part for part in parts if not (isinstance(part, dict) and set(part) == {"__type__"})]
        assert len(filled) == fields
        assert sum(type(part).__name__ == "Plot" for part in filled) == plots
    assert filled[1].startswith("**The frontier, cheapest first** (parameters, accuracy): ")


def test_what_a_visitor_must_know_stands_in_the_columns_that_are_seen_first():
    """A short training is marked beside the name, and the accuracy without duplicates is beside the accuracy."""
    rows = [made("a", trained=SHORT), made("b")]
    rows[1] = replace(rows[1], metrics={**rows[1].metrics, "accuracy_without_duplicates": Interval(0.61, 0.6, 0.7)})
    found = cells(lb.table(rows, None, "fer2013").assign(name=["a", "b"]))
    assert found.headers[:4] == ["Rank", "Method", "Accuracy, %", "Without duplicates, %"]
    shown = {row[1]: row[3] for row in found.shown}
    assert shown == {"a ◔": "–", "b": "61.0"}
    assert {row[1] for row in found.values} == {"a", "b"}


def test_the_frontier_is_told_in_words(root):
    """Who cannot see the chart reads what it is about: the rows that no other beats, cheapest first."""
    seen = Board.read(root)
    frame = seen.rows("fer2013")[0]
    _, text = board.view_cost(seen, "fer2013", "all", "parameters")
    first = frame[frame["group"] == 0].reset_index(drop=True)
    names = list(first.iloc[charts.pareto(first["parameters"], first["accuracy"])]["name"])
    told = text.partition(": ")[2].removesuffix(".").split("; ")
    assert [one.partition(": ")[0] for one in told] == [name.replace("_", "&#95;") for name in names]
    assert all(one.endswith(" %") for one in told)


def test_cells_sort_by_numbers_and_show_intervals(root):
    """A row holds numbers to sort by (percentages) and text to show; what is not known is None and a dash."""
    found = cells(Board.read(root).rows("fer2013")[0])
    values = dict(zip(found.headers, found.values[1], strict=True))
    shown = dict(zip(found.headers, found.shown[1], strict=True))
    assert (values["Rank"], values["Method"], values["Accuracy, %"]) == (2, "small_cnn", 70.0)
    assert [shown[h] for h in ("Balanced, %", "Macro F1, %")] == ["70.0 ± 5.0"] * 2
    assert (shown["ECE, %"], values["ECE, %"], shown["NLL"], values["NLL"]) == ("25.0 (5.0)", 25.0, "0.25", 0.25)
    assert (shown["Accuracy, %"], shown["Reported, %"], shown["Difference"]) == ("70.0 ± 2.0", "69.3", "+0.7")
    assert (values["Difference"], values["Parameters"], shown["Parameters"]) == (0.68, 3_849_319, "3.85M")
    assert (values["Trained, share of budget"], shown["Trained, share of budget"]) == (
        100.0, "60 epochs, 1.72M pictures",
    )  # fmt: skip
    assert (found.values[0][7], found.shown[0][7]) == (None, "–")
    assert len(found.headers) == len(found.kinds) == len(found.widths)
    assert all(
        kind == ("str" if header == "Method" else "number")
        for header, kind in zip(found.headers, found.kinds, strict=True)
    )


def test_groups_get_a_column_only_where_there_are_several():
    """Rows that may not be ranked against each other are told apart beside the accuracy, and the notes say so."""
    one = board_rows.cells(lb.table([made("a")], None, "fer2013").assign(name="a"))
    assert "Group" not in one.headers
    results = [made("a"), made("b"), made("c", tta="flip")]
    frame = lb.table(results, None, "fer2013").assign(name=["a", "b", "c"])
    assert [row[3] for row in cells(frame).values] == [1, 1, 2]
    assert cells(frame).headers[3] == "Group"
    assert "Rows marked tta answer for several views of each picture: ranks start anew" in "\n".join(
        notes(frame, results, [])
    )
    other = [*results, made("d", protocol="1" * 12)]
    frame = lb.table(other, None, "fer2013").assign(name=list("abcd"))
    assert "Not all rows were measured on the same pictures in the same way: ranks" in "\n".join(
        notes(frame, other, [])
    )
    assert "anew" not in "\n".join(notes(frame[:2], results[:2], []))


def test_names_are_distinct_and_as_short_as_they_can_be():
    """Recipe, seed and test-time augmentation stand in a name only where rows differ; a peer's is no recipe of ours."""
    results = [made("a"), made("a", seed=1), made("a", tta="flip")]
    assert board_rows.row_names(lb.table([made("a"), made("b")], None, "fer2013")) == ["a", "b"]
    assert sorted(board_rows.row_names(lb.table(results, None, "fer2013"))) == [
        "a · seed 0", "a · seed 0 · tta flip", "a · seed 1",
    ]  # fmt: skip
    mixed = lb.table([made("a"), made("a", 60, seed=1), made("b", 50)], None, "fer2013")
    assert board_rows.row_names(mixed) == ["a · seed 0", "a · seed 1", "b"]
    both = lb.table([made("a"), made("a", recipe="paper")], None, "fer2013")
    assert board_rows.row_names(both) == ["a · common-v1", "a · paper"]
    peers = [made("peer", 60, recipe=board_rows.PUBLISHED, external=True), made("a"), made("b", 50)]
    assert board_rows.row_names(lb.table(peers, None, "fer2013")) == ["a", "peer", "b"]
    strangers = [made("s", 60, recipe="submitted", external=True), made("a"), made("b", 50)]
    assert board_rows.row_names(lb.table(strangers, None, "fer2013")) == ["a", "s", "b"]
    beside = [*peers, made("peer", 40), made("b", 30, recipe="paper")]
    assert board_rows.row_names(lb.table(beside, None, "fer2013")) == [
        "a · common-v1", "peer · as-published", "b · common-v1", "peer · common-v1", "b · paper",
    ]  # fmt: skip


def test_a_row_is_found_by_a_name_of_other_days(root):
    """A link's name may say more or less of recipe and seed than the table does now; no other row answers for it."""
    results = (
        made("a", 60),
        made("a", 65, seed=1),
        made("a", 70, tta="flip"),
        made("b", 50),
        made("b", 40, recipe="paper"),
    )
    seen = Board(root, results, {}, ())
    named = lambda asked, recipe="all": seen.named("fer2013", recipe, asked)  # noqa: E731
    assert "b · paper" in seen.rows("fer2013")[1]
    assert named("b · paper") == "b · paper"
    assert named("b") == "b · common-v1"
    assert named("b", "paper") == "b"
    assert named("b · common-v1 · seed 0") == "b · common-v1"
    assert named("b · common-v1", "paper") is None
    assert named("b · seed 1") is None
    assert named("a") == "a · common-v1 · seed 0"
    assert named("a · seed 1") == "a · common-v1 · seed 1"
    assert named("a · tta flip") == "a · common-v1 · seed 0 · tta flip"
    assert [named(asked) for asked in ("c", "", None, " · ")] == [None] * 4
    assert seen.named("no such track", "all", "a") is None


def test_a_page_is_told_what_its_address_asks_for_in_vain(root):
    """A track, a recipe or rows that are not here are named above the table, as plain text, and the first is shown."""
    app = opened(root)
    (number,) = (n for n, fn in app.fns.items() if getattr(fn.fn, "__name__", "") == "arrive")

    def told(*asked):
        track, recipe, _, about, _ = app.fns[number].fn(*asked)
        return track.value, recipe.value, about.partition("\n")[0]

    start = ("fer2013", "all")
    assert told(*start, None, None, None)[2].startswith("100 test pictures")
    assert told(*start, "small_cnn", "awei", None)[2].startswith("100 test pictures")
    assert told("rendered", "paper", "awei", None, None)[:2] == ("rendered", "paper")
    asks, none = "**The address asks for the ", ", which this board does not have.**"
    assert told("nowhere", "all", "awei", None, None) == (*start, f"{asks}track “nowhere”{none}")
    assert told("fer2013", "mine", None, None, None) == (*start, f"{asks}recipe “mine”{none}")
    assert told(*start, None, "vgg", "awei") == (*start, f"{asks}row “vgg”{none}")
    assert "<" not in told(*start, EVIL, None, None)[2]
    assert told(*start, "vgg", None, "b")[2] == f"{asks}row “vgg” and the row “b”{none}"


def test_the_pickers_offer_what_was_measured(root):
    """Tracks come in the table's order with their titles, recipes are those of the track, and rows follow both."""
    seen = Board.read(root)
    assert [track for _, track in seen.tracks()] == ["fer2013", "rendered"]
    assert [recipe for _, recipe in seen.recipes("rendered")] == ["all", "paper"]
    assert list(seen.rows("rendered", "paper")[1]) == ["awei"]
    assert seen.rows("rendered", "common-v1")[0].empty
    assert seen.rows("no such track", "all")[1] == {}


def test_an_empty_folder_says_what_to_do(tmp_path):
    """Without results the tab opens, its table has headings only, and one line names the command that fills it."""
    seen = Board.read(tmp_path)
    frame, results = seen.rows(None)
    assert "python -m fer_bench.evaluate --all" in "\n".join(notes(frame, list(results.values()), seen.problems))
    assert cells(frame).values == []
    assert board.view_cost(seen, None, "all", "parameters") == (None, "")
    assert board.view_row(seen, None, "all", None) == ("", None, None, None, "")
    assert opened(tmp_path).fns


def test_a_broken_file_is_named_and_the_rest_shown(root):
    """One unreadable result and unreadable cards cost neither the tab nor the other rows."""
    r.result_path(root, "fer2013", "awei", "common-v1", 0).write_text("{<b>")
    (root / "methods.json").write_text("{")
    seen = Board.read(root)
    frame, results = seen.rows("fer2013")
    assert list(results) == ["small_cnn"]
    assert len(seen.problems) == 2
    text = "\n".join(notes(frame, list(results.values()), seen.problems))
    assert plain("awei/common-v1-s0.json") in text
    assert not any(str(root.parent) in problem for problem in seen.problems)
    assert plain("methods.json is broken") in text
    assert opened(root).fns


def test_the_card_states_paper_figures_ours_and_commands(root):
    """A row's card holds the paper, what it states with its source, what is ours, the licence and how to run it."""
    seen = Board.read(root)
    text = board.view_row(seen, "fer2013", "all", "small_cnn")[0]
    for part in (
        "## `small_cnn`: Small&#95;Cnn", "Six layers&#46;", "A paper, 2021", '<a href="https://example.org/p"',
        "70.0 ± 2.0 % on fer2013", "| fer2013 | 69.3 | T |", "the optimiser", "48 × 48 pixels, grey",
        "**Licence:** MIT", "python -m fer_bench.train --method small_cnn --track fer2013\n",
        "python -m fer_bench.evaluate --method small_cnn --track fer2013\n",
        "python -m fer_bench.predict face.jpg -o scores.csv --method small_cnn\n",
        'fer_bench.load("small_cnn", track="fer2013")',
    ):  # fmt: skip
        assert part in text
    assert "no figure for a track" in board.view_row(seen, "fer2013", "all", "awei")[0]


def test_the_commands_fit_the_row():
    """Another recipe or seed, another track and weights too large to ship change the commands."""
    plainly = {"title": "T", "shipped": True, "paper_recipe": {"epochs": 500, "optimizer": "sgd"}}
    home = method_card(made("a"), plainly)
    assert "--track fer2013 --recipe paper\n" in home
    assert "500 epochs of sgd" in home
    other = method_card(
        made("a", track="rendered", recipe="paper", seed=3, trained=replace(made("a").trained, track="fer2013")),
        plainly,
    )
    assert "fer_bench.train --method a --track fer2013 --recipe paper --seed 3\n" in other
    assert "fer_bench.evaluate --method a --track rendered --recipe paper --seed 3 --runs runs\n" in other
    assert 'fer_bench.load("a", track="fer2013", recipe="paper", seed=3, runs="runs")' in other
    assert "-o scores.csv --method a --recipe paper --seed 3 --runs runs\n" in other
    six = method_card(made("a", track="fer2013-6", trained=replace(made("a").trained, track="fer2013-6")), plainly)
    assert "-o scores.csv --method a --track fer2013-6\n" in six
    light = method_card(made("a", recipe="light-v1"), {**plainly, "recipe": "light-v1"})
    assert "fer_bench.evaluate --method a --track fer2013\n" in light
    assert 'fer_bench.load("a", track="fer2013")' in light
    assert "paper states" not in light
    large = method_card(made("a"), {**plainly, "shipped": False})
    assert "fer_bench.evaluate --method a --track fer2013 --runs runs\n" in large
    assert "it was submitted" in method_card(made("a", external=True), {})


def test_the_card_says_why_ours_differs():
    """What an experiment showed of a difference stands beside the figure."""
    stated = {"track": "fer2013", "accuracy": 0.5, "source": "Table 1"}
    (row, card) = (made("a"), {"reported": [stated | {"why": [{"text": "its rate", "weights": "a" * 12}]}]})
    shipped = replace(row, weights=replace(row.weights, sha256="a" * 64))
    assert "| 50.0 | Table 1<br>**Why ours differs:** its rate |" in method_card(shipped, card)
    other = replace(row, weights=replace(row.weights, sha256="b" * 64))
    assert "Why ours differs" not in method_card(other, card), "that was found of other weights"


def test_the_card_tells_the_runs_before():
    """A row that went on from its own weights says how long those were trained, oldest first."""
    weights = ["a/ferplus/x-s0 (2)", "a/fer2013/x-s0 (1)"]
    earlier = Earlier(weights=weights, track="ferplus", epochs=91, pictures_seen=9999)
    text = method_card(made("a", trained=replace(made("a").trained, earlier=earlier)), {})
    assert f"after 91 epochs (9,999 pictures) of {plain('a/fer2013/x-s0 (1), then a/ferplus/x-s0 (2)')};" in text


def test_a_peers_card_says_what_it_claims_and_how_to_run_it():
    """A package from outside shows its authors' figure, its note and the script that makes its row."""
    card = {
        "title": "Peer", "package": "peer==1.0", "ours": "resized", "input": {"size": 64, "channels": 1},
        "cam_layer": None, "reported": [{"track": "fer2013", "accuracy": 0.66, "source": "its README"}],
        "notes": {"fer2013": ["chose its epoch there"], "rendered": ["other"]},
    }  # fmt: skip
    trained = replace(made("peer").trained, track="unknown", epochs=None, pretrained="weights of peer 1.0")
    text = method_card(made("peer", external=True, recipe="as-published", trained=trained, verified=True), card)
    assert f"seed 0; with the {plain('weights of peer 1.0')}; external, measured by the project." in text
    assert "**What its authors state**" in text
    assert f"| {plain('fer2013')} | 66.0 | {plain('its README')} |" in text
    assert f"**How it was asked:** {plain('resized')}." in text
    assert f"**Note:** {plain('chose its epoch there')}" in text
    assert "```bash\npython leaderboard/peers/run.py peer --track fer2013\n```" in text
    assert plain("other") not in text
    assert not any(word in text for word in ("heat maps", "fer_bench.train", "the paper", "submitted", "unknown"))
    assert "**What its authors state:** no figure" in method_card(made("peer", external=True), {**card, "reported": []})


def test_the_commands_on_the_cards_exist(capsys):
    """Every option that a card's commands use is one that the command's own help names."""
    text = method_card(made("a", recipe="paper", seed=3), {"shipped": False})
    for name in ("train", "evaluate", "predict"):
        line = next(line for line in text.splitlines() if line.startswith(f"python -m fer_bench.{name}"))
        with pytest.raises(SystemExit):
            importlib.import_module(f"fer_bench.{name}").main(["--help"])
        known = set(re.findall(r"(?<![\w-])--?[a-z-]+", capsys.readouterr().out))
        assert {word for word in line.split()[3:] if word.startswith("-")} <= known, line


def test_a_taught_row_says_by_whom():
    """By which networks, in the order of the recipe; a row that nobody taught says nothing of it."""
    teachers = ["a/fer2013/common-v1-s0 (0123456789ab)", "b/fer2013/common-v1-s0 (ba9876543210)"]
    trained = replace(made("a").trained, teachers=teachers)
    assert f", taught by {plain(', '.join(teachers))};" in method_card(made("a", trained=trained), {})
    assert "taught by" not in method_card(made("a"), {})


def test_text_of_others_cannot_carry_markup():
    """Markup in a submitted record or a foreign card shows as it is written; only https links are links."""
    trained = replace(made("a").trained, pretrained=EVIL, teachers=[EVIL])
    foreign = {
        "title": EVIL, "summary": EVIL, "paper": EVIL, "url": "javascript:alert(1)", "ours": EVIL, "licence": EVIL,
        "cam_layer": EVIL, "input": {"size": 48, "channels": 1}, "shipped": True, "paper_recipe": None,
        "reported": [{"track": EVIL, "accuracy": 0.5, "source": EVIL}],
    }  # fmt: skip
    text = method_card(made("a", trained=trained), foreign)
    assert "<img" not in text
    assert "javascript:" not in text
    assert "<a" not in text
    assert "[a](" not in text
    assert "<a" not in method_card(made("a"), {**foreign, "url": 'https://x"onclick="y'})
    data = replace(made("a").data, notes=[EVIL])
    result = made("a", data=data)
    frame = lb.table([result], None, "fer2013").assign(name="a")
    assert "<img" not in "\n".join(notes(frame, [result], [EVIL]))


def test_a_row_shows_its_charts_beside_the_best(root):
    """The confusion matrix and the reliability diagram are the row's; its recalls stand beside the best row's."""
    seen = Board.read(root)
    _, confusion, recall, reliability, text = board.view_row(seen, "fer2013", "all", "small_cnn")
    assert [trace["name"] for trace in json.loads(recall.plot)["data"]] == ["small_cnn", "awei (best)"]
    assert json.loads(confusion.plot)["data"][0]["z"] == [[70, 30], [30, 70]]
    assert any("ECE 25.0 %" in trace["name"] for trace in json.loads(reliability.plot)["data"])
    assert json.loads(confusion.plot)["config"] == {"displayModeBar": False}
    # The same as tables.
    assert "| true, answered → | anger | happiness |" in text
    matrix = seen.rows("fer2013")[1]["small_cnn"].confusion_matrix
    assert f"| anger | {matrix[0][0]} | {matrix[0][1]} |" in text
    assert f"| emotion | {plain('small_cnn')} | {plain('awei (best)')} |" in text
    assert "| confidence, % | pictures | mean confidence, % | right, % |" in text
    alone = board.view_row(seen, "fer2013", "all", "awei")[2]
    assert [trace["name"] for trace in json.loads(alone.plot)["data"]] == ["awei"]


def test_two_rows_are_compared_in_a_sentence(root):
    """The verdict says by how much two rows differ and how many pictures only one knows, with both charts."""
    seen = Board.read(root)
    text, agreement, both, told = board.view_comparison(seen, "fer2013", "all", "awei", "small_cnn")
    assert text.startswith("They differ by 20.0 points (95 % interval")
    assert f"only awei on 20, only {plain('small_cnn')} on 0, neither on 10." in text
    assert json.loads(agreement.plot)["data"][0]["z"] == [[40, 10], [10, 40]]
    assert len(json.loads(both.plot)["data"]) == 2
    assert (
        "| first, second → | anger | happiness |\n|---|--:|--:|\n| anger | 40 | 10 |\n| happiness | 10 | 40 |" in told
    )
    assert f"| emotion | awei | {plain('small_cnn')} |" in told
    same = board.view_comparison(seen, "fer2013", "all", "awei", "awei")
    assert same == (board.SAME, None, None, "")


def test_a_comparison_that_cannot_be_made_is_one_sentence(root):
    """Missing logits give a sentence instead of charts, and no picture."""
    r.result_path(root, "fer2013", "awei", "common-v1", 0).with_suffix(".npz").unlink()
    seen = Board.read(root)
    text, agreement, both, told = board.view_comparison(seen, "fer2013", "all", "awei", "small_cnn")
    assert plain("cannot be read as logits") in text
    assert plain(str(root.parent)) not in text
    assert [part.visible for part in board.shown(agreement, both)] == [False, False]
    assert agreement is both is None
    assert told == ""
    assert board.view_pictures(seen, "fer2013", "all", "awei", "small_cnn", "all") == ([], text)


def test_the_pictures_of_a_kind_are_spread_over_all_of_them():
    """At most 24 of the disagreements are chosen, evenly and always the same; a kind takes only its own."""
    targets = np.zeros(100, dtype=int)
    first, second = np.repeat([0, 1], 50), np.repeat([1, 0], 50)
    found = compare(targets, logits_of(first), logits_of(second), ("anger", "happiness"))
    every = chosen_pictures(found)
    assert len(every) == 24
    assert (every[0], every[-1]) == (0, 99)
    assert chosen_pictures(found, "first").max() == 49
    assert chosen_pictures(found, "second").min() == 50
    assert len(chosen_pictures(found, "neither")) == 0


def test_disagreeing_pictures_show_the_truth_and_both_answers(tmp_path):
    """Pictures of a folder are shown with their label and what each row says; a kind without pictures says so."""
    folder = write_folder(tmp_path / "own", per_class=2, emotions=("anger", "happiness"), splits=False)
    from fer_bench.datasets import load_dataset

    faces = load_dataset(f"folder:{folder}", "test")
    right, wrong = logits_of(faces.labels), logits_of(1 - faces.labels)
    found = compare(faces.labels, right, wrong, faces.emotions, faces.ids)
    result = made("a", track=f"folder:{folder}")
    items, line = disagreements(found, ("a", result), ("b <b>", result))
    assert [item.sample for item in items] == list(faces.ids)
    assert np.array_equal(items[0].pixels, faces.images[0])
    assert items[0].answers == (("a", items[0].true, True), ("b <b>", "happiness", False))
    assert line == "They answer 4 of 4 pictures differently; 4 are shown here (every disagreement)."
    html = figures(items)
    assert html.count("<figure>") == 4
    assert "✓ a: anger" in html
    assert "✗ b &lt;b&gt;: happiness" in html
    assert figures([]) == ""
    assert disagreements(found, ("a", result), ("b", result), "second") == (
        [], "There is no such picture among the 4: only the second is right.",
    )  # fmt: skip


def test_pictures_are_not_shown_where_they_cannot_or_must_not_be(tmp_path):
    """Data that is not here, another copy of it, and the folder of a submitted row give a line that says why."""
    found = compare(np.array([0, 1]), logits_of([0, 1]), logits_of([1, 0]), ("anger", "happiness"), ["x", "y"])
    line = disagreements(found, ("a", made("a")), ("b", made("b")))[1]
    assert line.startswith("The pictures cannot be shown, for their data is not here.")
    assert plain("FER_BENCH_DATA") in line
    folder = write_folder(tmp_path / "own", per_class=2, emotions=("anger", "happiness"), splits=False)
    own = made("a", track=f"folder:{folder}")
    assert "is not the one that was measured" in disagreements(found, ("a", own), ("b", own))[1]
    foreign = replace(own, external=True)
    assert disagreements(found, ("a", own), ("b", foreign)) == (
        [], "The pictures of a submitted row's own folder are not shown.",
    )  # fmt: skip


def test_only_the_table_is_a_public_endpoint(root):
    """The tab adds one named endpoint, which returns the chosen rows as numbers; the rest serve the page."""
    app = opened(root)
    public = {fn.api_name: fn for fn in app.fns.values() if fn.api_visibility == "public"}
    assert set(public) == {"leaderboard"}
    answer = public["leaderboard"].fn("rendered", "paper")
    assert answer["headers"][:3] == ["Rank", "Method", "Accuracy, %"]
    assert answer["data"][0][:3] == [1, "awei", 40.0]
    assert public["leaderboard"].fn("no such track", "all")["data"] == []


def test_every_field_has_a_label(root):
    """No field of the tab is without a name for those who cannot see it."""
    fields = [c for c in opened(root).blocks.values() if type(c).__name__ in ("Dropdown", "Radio", "Dataframe", "Plot")]
    assert len(fields) >= 12
    assert all(field.label for field in fields)


def test_the_committed_board_opens():
    """Every committed row has a card with its commands, and the best two of each track have charts and a verdict."""
    seen = Board.read(COMMITTED)
    assert seen.problems == ()
    for _, track in seen.tracks():
        _, results = seen.rows(track)
        for result in results.values():
            text = method_card(result, seen.cards[result.method])
            assert (f"run.py {result.method} " if result.external else f"--method {result.method} ") in text
            assert plain(seen.cards[result.method]["paper"]) in text
        best = list(results)[:2]
        assert None not in board.view_row(seen, track, "all", best[-1])
        if len(best) == 2:
            assert None not in board.view_comparison(seen, track, "all", *best)
