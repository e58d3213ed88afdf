"""What a row's card says of how to make the row again, and of what its figure is of."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.card_files import read_cards, write_cards
from fer_bench.files import track_folder
from fer_bench.methods import METHODS
from fer_bench.options import arguments_from
from fer_bench.records import Earlier
from fer_bench.ui import board
from fer_bench.ui.board_rows import Board, notes
from fer_bench.ui.method_card import method_card, plain
from fer_bench.weights import run_folder
from tests.test_leaderboard import made

SHORT = replace(made("a").trained, epochs=8, complete=False, train_pictures=100)


def command(text: str, name: str) -> str:
    """The card's first command of that module."""
    return next(line for line in text.splitlines() if line.startswith(f"python -m fer_bench.{name} "))


def test_the_card_trains_the_row_it_is_of() -> None:
    """A row that started from weights, had fewer epochs or fewer pictures has these options in its command."""
    earlier = Earlier(
        weights=["a/fer2013/light-v1-s0 (0123)", "a/b/c (4)"], track="fer2013", epochs=51, pictures_seen=9
    )
    trained = replace(SHORT, earlier=earlier, track="ferplus", selection="validation accuracy, 30 pictures")
    text = method_card(made("a", track="ferplus", trained=trained), {"shipped": True}, split=100.0)
    start = run_folder(Path("runs"), "a", "fer2013", "light-v1", 0) / "model.safetensors"
    train = command(text, "train")
    assert train == (
        f"python -m fer_bench.train --method a --track ferplus --epochs 8 --limit-validation 30 --start-from {start}"
    )
    assert arguments_from(shlex.split(train)[3:]).start_from == str(start)
    assert "`--start-from` takes what the run before, which is named above, wrote" in text
    part = method_card(made("a", trained=SHORT), {"shipped": True}, split=5000.0)
    assert command(part, "train").endswith("--track fer2013 --epochs 8 --limit 100")


def test_a_run_that_was_cut_off_is_told_from_one_with_a_shorter_schedule() -> None:
    """They are trained by other commands: what is cut had the rate of a longer schedule, and reads lower."""
    whole = method_card(made("a", trained=replace(SHORT, ended="complete")), {"shipped": True})
    assert "less than its recipe asks, with a schedule of as many" in whole
    assert command(whole, "train").endswith(" --epochs 8")
    cut = method_card(made("a", trained=replace(SHORT, ended="max-minutes", wall_seconds=350.0)), {"shipped": True})
    assert "less than its recipe asks: cut off before its schedule had come to its end" in cut
    assert command(cut, "train").endswith(" --max-minutes 6")


def test_the_start_of_a_row_of_the_board_is_told_by_its_hash() -> None:
    """Its weights are in the repository's history, which `--start-from` looks in; a visitor has no such run."""
    earlier = Earlier(weights=["a/fer2013/common-v1-s0 (0123456789ab)"], track="fer2013", epochs=51, pictures_seen=9)
    text = method_card(made("a", trained=replace(SHORT, earlier=earlier)), {"shipped": True})
    assert command(text, "train").endswith(" --epochs 8 --start-from 0123456789ab --out tuned")
    assert "wrote, by its hash: the repository's history holds it." in text


def test_stages_and_full_epochs_are_told() -> None:
    """A method of several stages says how long each was; an epoch that was cut short is none, as on the board."""
    text = method_card(made("a", trained=replace(SHORT, pictures_seen=710, stages={"guide": 2, "main": 5})), {})
    assert "7 of 60 epochs (710 pictures seen), full ones of its stages: guide 2, main 5, less than its recipe" in text
    assert "stages" not in method_card(made("a", trained=replace(SHORT, stages={"main": 8})), {})


def test_a_start_from_ones_own_pictures_is_found_again() -> None:
    """The run that a start came from is named by its folder; one that cannot be told is a FILE to fill in."""
    for weights, start in (
        (
            "a/folder-My_Faces-0123abcd/light-v1-s0 (0123)",
            "runs/folder-My_Faces-0123abcd/a/light-v1-s0/model.safetensors",
        ),
        (
            "a/folder:/my/faces/light-v1-s0 (0123)",
            f"runs/{track_folder('folder:/my/faces')}/a/light-v1-s0/model.safetensors",
        ),
        ("weights of old", "FILE"),
    ):
        earlier = Earlier(weights=[weights], track="t", epochs=1, pictures_seen=9)
        text = method_card(made("a", trained=replace(SHORT, earlier=earlier)), {"shipped": True})
        assert command(text, "train").endswith(f" --start-from {start}")


def test_the_epochs_before_are_full_ones() -> None:
    """Of the runs before too an epoch that was cut short is none, and pictures fewer than one epoch are only counted.

    Where the size of their split is not known, their record's own number is told; the row's own split says nothing.
    """

    def told(seen: int, split: float) -> str:
        earlier = Earlier(weights=["a/fer2013/common-v1-s0 (0123)"], track="fer2013", epochs=51, pictures_seen=seen)
        text = method_card(made("a", trained=replace(SHORT, earlier=earlier, track="ferplus")), {}, 70.0, split)
        return re.search(" after (.*?) of a", text)[1]

    assert told(1_434_156, 28_678.0) == "50 epochs (1,434,156 pictures)"
    assert told(51 * 28_678, 28_678.0) == "51 epochs (1,462,578 pictures)"
    assert told(5_100, 28_678.0) == "5,100 pictures"
    for split in (0, float("nan")):
        assert told(1_434_156, split) == "51 epochs (1,434,156 pictures)"


def test_a_row_that_went_on_from_itself_writes_elsewhere() -> None:
    """Its training cannot write to the folder that it starts from; what is shipped is judged and loaded as before."""
    earlier = Earlier(weights=["a/fer2013/common-v1-s0 (0123)"], track="fer2013", epochs=1, pictures_seen=9)
    for shipped in (True, False):
        text = method_card(made("a", trained=replace(SHORT, earlier=earlier)), {"shipped": shipped})
        assert command(text, "train").endswith("runs/fer2013/a/common-v1-s0/model.safetensors --out tuned")
        assert command(text, "evaluate").endswith(" --runs tuned") is not shipped
        assert command(text, "predict").endswith(" --runs tuned") is not shipped
        assert ('runs="tuned")' in text) is not shipped


def test_a_full_run_needs_no_further_options() -> None:
    """A row with its recipe's full budget, by early stopping too, is trained by method and track alone."""
    for trained in (made("a").trained, replace(SHORT, complete=True)):
        text = method_card(made("a", trained=trained), {"shipped": True}, split=float("nan"))
        assert command(text, "train") == "python -m fer_bench.train --method a --track fer2013"


def test_the_row_that_is_meant_without_a_recipe_needs_none() -> None:
    """What reads best on validation is loaded without --recipe, though training has to name it; the card's is not."""
    card = {"shipped": True, "recipe": "common-v1", "weights": {"fer2013": ["distilled-v1"]}}
    text = method_card(made("a", recipe="distilled-v1"), card)
    assert "fer_bench.train --method a --track fer2013 --recipe distilled-v1\n" in text
    assert "fer_bench.evaluate --method a --track fer2013\n" in text
    assert 'fer_bench.load("a", track="fer2013")' in text
    other = method_card(made("a"), card)
    assert "fer_bench.train --method a --track fer2013\n" in other
    assert "fer_bench.evaluate --method a --track fer2013 --runs runs\n" in other
    assert 'fer_bench.load("a", track="fer2013", runs="runs")' in other


def test_a_row_whose_weights_are_shipped_beside_the_meant_ones_names_its_recipe() -> None:
    """They are here, so that nothing has to be trained; without the recipe's name others would answer."""
    card = {"shipped": True, "recipe": "common-v1", "weights": {"fer2013": ["distilled-v1", "common-v1"]}}
    text = method_card(made("reference_small"), card)
    assert "fer_bench.train --method reference_small --track fer2013\n" in text
    assert "fer_bench.evaluate --method reference_small --track fer2013 --recipe common-v1\n" in text
    assert 'fer_bench.load("reference_small", track="fer2013", recipe="common-v1")' in text
    other = method_card(made("reference_small", seed=2), card)  # is not said to be here
    assert "fer_bench.evaluate --method reference_small --track fer2013 --seed 2 --runs runs\n" in other


def test_a_row_of_several_views_says_so() -> None:
    """A row with test-time augmentation is told as one and evaluated as one; the others say nothing of it."""
    text = method_card(made("a", tta="flip"), {"shipped": True})
    assert "seed 0, each picture answered for in several views (tta flip); trained on" in text
    assert command(text, "evaluate") == "python -m fer_bench.evaluate --method a --track fer2013 --tta flip"
    assert "Only `evaluate` takes several views" in text
    assert not re.search("views|tta", method_card(made("a"), {"shipped": True}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board: a row of a whole split on fer2013, and on the transfer track one that was trained on a part of it."""
    r.write_result(made("b", trained=replace(made("b").trained, train_pictures=5000)), tmp_path)
    r.write_result(made("a", track="rendered", trained=replace(SHORT, track="fer2013")), tmp_path)
    write_cards(tmp_path, [replace(METHODS["awei"].card, name=name) for name in "ab"])
    return tmp_path


def test_the_page_gives_the_card_the_size_of_the_split(root: Path) -> None:
    """That a row was trained on a part of a split is seen by another track's rows, and stands in its command."""
    assert "--epochs 8 --limit 100\n" in board.view_row(Board.read(root), "rendered", "all", "a")[0]


def test_the_apps_table_is_the_leaderboards(root: Path) -> None:
    """On every track the tab's rows, the training's share among them, say the very same as those of LEADERBOARD.md."""
    seen, results, cards = Board.read(root), r.read_results(root), read_cards(root)
    assert seen.cells("rendered").shown[0][9] == "◔ 8 epochs of 100 pictures, not 60 of 5,000"
    for track in ("fer2013", "rendered"):
        for recipe in ("all", "common-v1"):
            assert seen.rows(track, recipe)[0].drop(columns="name").equals(lb.table(results, cards, track))
    assert seen.rows("rendered", "paper")[0].empty


def test_a_cards_note_is_told_with_its_row(tmp_path: Path) -> None:
    """That sep_se_aug is sep_se but for one recipe stands below each table with its row, once, and on its card."""
    name = "sep_se_aug"
    write_cards(tmp_path, [METHODS[name].card, METHODS["sep_se"].card])
    cards, results = read_cards(tmp_path), [made(name), made(name, seed=1), made("sep_se")]
    note = "whose sums have no fixed order, by luck."
    assert METHODS[name].card.note.endswith(note)
    assert lb.markdown(results, cards).count(note) == 1
    frame = lb.table(results, cards, "fer2013").assign(name="a")
    assert "\n".join(notes(frame, results, [])).count(note) == 1
    assert plain(note) in method_card(results[0], cards[name])
    assert note not in lb.markdown(results[2:], cards)
    assert "**Note:**" not in method_card(results[2], cards["sep_se"])


def test_parameters_are_said_to_be_the_trainable_ones() -> None:
    """awei's column does not count its frozen guide; how to read the table says so, in the app as in LEADERBOARD.md."""
    assert "*Parameters* are the trainable ones, without those that are held fixed." in lb.HOW_TO_READ


def test_the_card_says_what_holds_for_the_weights() -> None:
    """The code is MIT, and the pictures are not; of others' packages nothing is claimed."""
    card = {"licence": "MIT (this implementation)"}
    told = unescape(method_card(made("a"), card))
    assert "MIT (this implementation); its weights are bound by the terms of the pictures they were trained on" in told
    assert "its weights" not in method_card(replace(made("a"), external=True), card)


def test_the_card_tells_the_milliseconds_of_a_face() -> None:
    """The row's own time and the reference's in the same run, so that a ratio can be turned into milliseconds."""
    measured = r.Cost(parameters=3_500_000, macs=287_000_000, latency_ms=12.4, latency_ratio=0.31)
    told = (
        "**Cost:** 3.5M parameters, 287M multiply-accumulates a face; a face took 12 ms with one thread of a CPU, "
        "0.31 × what it took resnet18 in the same run, 40 ms (which CPU, and how busy it was, is not recorded)."
    )
    assert told in method_card(made("a", cost=measured), {}).splitlines()
    text = method_card(made("a", cost=r.Cost(parameters=58_000)), {})
    assert "**Cost:** 58k parameters; its milliseconds are not recorded." in text.splitlines()
