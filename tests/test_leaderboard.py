"""Results -> table, LEADERBOARD.md, figures and README."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from fer_bench import figures
from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.card_files import read_cards, write_cards
from fer_bench.cards import InputSpec, MethodCard, Reported
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.metrics import from_confusion
from fer_bench.records import Centre, Earlier, Regions
from fer_bench.statistics import Interval


def counted(matrix: list[list[int]]) -> dict[str, Interval]:
    """The metrics that a confusion matrix gives, each known to ± 0.05."""
    found = from_confusion(np.array(matrix)).items()
    return {name: Interval(value, max(value - 0.05, 0), min(value + 0.05, 1)) for name, value in found}


def made(method: str, hits: int = 70, half: float = 0.02, track: str = "fer2013", **changes) -> r.Result:
    """A result over two emotions and 100 pictures, `hits` of them right, its accuracy known to ± `half`."""
    first, second = (hits + 1) // 2, hits // 2
    accuracy = Interval(hits / 100, max(hits / 100 - half, 0), min(hits / 100 + half, 1))
    matrix = [[first, 50 - first], [50 - second, second]]
    figures = dict.fromkeys(r.REQUIRED_METRICS, Interval(0.25, 0.2, 0.3)) | counted(matrix)
    result = r.Result(
        method=method, track=track, recipe="common-v1", seed=0, emotions=("anger", "happiness"),
        trained=r.Trained(track=track, epochs=60, budget_epochs=60, pictures_seen=1_722_540, complete=True),
        weights=r.Weights(sha256="0" * 64, bytes=10, storage="float32"),
        data=r.Data(hash="d" * 64, counts={"test": 100}, test_pictures=100),
        protocol="0" * 12,
        metrics={**figures, "accuracy": accuracy},
        per_class_recall={"anger": Interval(first / 50, 0, 1), "happiness": Interval(second / 50, 0, 1)},
        confusion_matrix=matrix,
        calibration=r.Calibration(edges=[0, 1], count=[100], confidence=[0.9], accuracy=[hits / 100], expected=0.05),
        cost=r.Cost(parameters=3_849_319, macs=90_000_000, latency_ratio=0.4),
        commit="unknown", versions=r.Versions(python="3", torch="2", numpy="2", fer_bench="0"),
        date="2025-01-31T12:00:00+00:00",
    )  # fmt: skip
    if "confusion_matrix" in changes:
        changes = {"metrics": result.metrics | counted(changes["confusion_matrix"])} | changes
    return replace(result, **changes)


def robust(clean: float = 0.8, corrupted: float = 0.6, suite: str = "faces-1") -> r.Robustness:
    """Robustness of two corruptions: blur one tenth above the mean, noise as far below."""
    low, high = (Interval(corrupted + change, 0, 1) for change in (-0.1, 0.1))
    drop = 1 - corrupted / clean
    return r.Robustness(
        suite=suite, pictures=100, seed=0, clean=Interval(clean, 0.7, 0.9), corrupted=Interval(corrupted, 0.5, 0.7),
        relative_drop=Interval(drop, drop - 0.04, drop + 0.04),
        corruptions={"shot_noise": {"1": low, "5": low}, "blur": {"1": high, "5": high}},
    )  # fmt: skip


def faithful(gain: float = 0.1, regions: bool = False, centre: bool = False) -> r.Faithfulness:
    """Grad-CAM's figures on 70 pictures; `gain` is that of insertion. centre: with those of the blob in the middle."""
    known = Regions(
        pictures=60, energy=Interval(0.4, 0.35, 0.45), area=0.2, pointing_game=Interval(0.5, 0.4, 0.6), empty_maps=0.1
    )
    over = Centre(
        deletion=0.25, deletion_gain=Interval(0.05, 0.03, 0.07), insertion=0.45 + gain,
        insertion_gain=Interval(0.05, 0.02, 0.08), energy=0.35, pointing_game=0.45,
    )  # fmt: skip
    return r.Faithfulness(
        cam="gradcam", pictures=70, seed=0, empty_maps=0.0, deletion=0.2, deletion_random=0.3,
        deletion_gain=Interval(0.1, 0.05, 0.15), insertion=0.5 + gain, insertion_random=0.5,
        insertion_gain=Interval(gain, gain - 0.02, gain + 0.02), regions=known if regions else None,
        centre=over if centre else None,
    )  # fmt: skip


def card(name: str, **changes) -> MethodCard:
    """A method's card that reports 69.32 % on fer2013."""
    fields = {
        "name": name, "title": name.title(), "paper": "A paper, 2021", "summary": "", "url": "https://example.org/p",
        "input": InputSpec(48, 1, (0.5,), (0.25,)), "cam_layer": "x", "reported": (Reported("fer2013", 0.6932, "T"),),
        "parameters": ((7, 3_849_319),),
    }  # fmt: skip
    return MethodCard(**{**fields, **changes})


@pytest.fixture
def root(tmp_path):
    """A leaderboard's folder with three results on two tracks and the cards of four methods."""
    for result in (made("awei", 72), made("small_cnn", 70), made("small_cnn", 40, track="rendered")):
        r.write_result(result, tmp_path)
    write_cards(tmp_path, [card("awei", reported=()), card("small_cnn"), card("minaee"), card("big", shipped=False)])
    return tmp_path


def test_importing_the_leaderboard_does_not_import_torch(root):
    """A table is made without torch, and matplotlib is loaded only to draw."""
    code = (
        "import sys; from fer_bench import leaderboard as lb; from fer_bench.results import read_results;"
        f"print(len(lb.table(read_results({str(root)!r}), lb.read_cards({str(root)!r}), 'fer2013')));"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_a_thousand_results_make_a_table_within_a_second():
    """1,000 results become a ranked table in less than a second of the processor."""
    results = [made(f"method_{i}", 40 + i % 50) for i in range(1000)]
    start = time.process_time()
    frame = lb.table(results, None, "fer2013")
    assert time.process_time() - start < 1
    assert len(frame) == 1000


def test_rows_are_ranked_by_tie_groups():
    """Overlapping intervals share rank 1; the row below both is third; rows stand best first."""
    results = [made("low", 60), made("second", 70), made("best", 72)]
    frame = lb.table(results, None, "fer2013")
    assert frame[["method", "rank"]].values.tolist() == [["best", 1], ["second", 1], ["low", 3]]


def test_the_table_is_numeric():
    """Every figure is a number, what is not known is NaN, and nothing is a formatted string."""
    unknown = r.Trained(track="fer2013", complete=False)
    frame = lb.table([made("a"), made("b", trained=unknown, cost=r.Cost(parameters=5))], None, "fer2013")
    row = frame[frame["method"] == "b"].iloc[0]
    assert row[["epochs", "budget_fraction", "reported", "difference", "macs", "latency_ratio"]].isna().all()
    numeric = ["accuracy", "low", "high", "nll", "ece", "reported", "difference", "epochs", "pictures_seen", "macs"]
    assert all(frame[name].dtype == np.float64 for name in numeric)
    assert frame["parameters"].tolist() == [3_849_319, 5]


def test_reported_figures_stand_beside_ours(root):
    """The paper's figure comes from methods.json, and the difference is ours minus it; a transfer track has none."""
    results, cards = r.read_results(root), read_cards(root)
    row = lb.table(results, cards, "fer2013").set_index("method").loc["small_cnn"]
    assert row["reported"] == 0.6932
    assert row["difference"] == pytest.approx(0.70 - 0.6932)
    assert bool(row["shipped"])
    assert lb.table(results, cards, "rendered")["reported"].isna().all()


def test_seeds_and_recipes_are_rows_of_their_own():
    """Two seeds and two recipes of a method are four rows, and a recipe may be chosen."""
    results = [made("a", recipe=recipe, seed=seed) for recipe in ("common-v1", "paper") for seed in (0, 1)]
    assert len(lb.table(results, None, "fer2013")) == 4
    assert lb.table(results, None, "fer2013", recipe="paper")["seed"].tolist() == [0, 1]


def test_budget_fraction_is_epochs_over_budget():
    """12 of 60 epochs are a fifth of the budget."""
    short = replace(made("a").trained, epochs=12, complete=False)
    assert lb.table([made("a", trained=short)], None, "fer2013")["budget_fraction"].tolist() == [0.2]


def test_a_part_of_the_split_is_a_part_of_the_budget():
    """12 of 60 epochs of a quarter of the pictures are a twentieth; the whole split is what most of a track's rows saw,
    whichever track they are judged on, and what an external row claims does not count."""
    quarter, whole = (
        replace(made("a").trained, epochs=12, complete=False, train_pictures=pictures) for pictures in (1_000, 4_000)
    )
    claimed = made("outside", external=True, trained=replace(whole, train_pictures=80_000))
    results = [made("a", trained=quarter), made("b", track="rendered", trained=whole), claimed]
    for row in (results[0], replace(results[0], track="rendered")):
        frame = lb.table([row, *results[1:]], None, row.track).set_index("method")
        assert frame.loc["a", "budget_fraction"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"tta": "flip"},
        {"protocol": "1" * 12},
        {"data": r.Data(hash="e" * 64, counts={}, test_pictures=100)},
        {"emotions": ("anger", "neutral"), "per_class_recall": dict.fromkeys(("anger", "neutral"), Interval(1, 1, 1))},
    ],
)
def test_only_like_is_ranked_against_like(change):
    """Rows of another protocol, data, label set or test-time augmentation are ranked apart, in a table of their own."""
    results = [made("a", 70), made("b", 60), made("c", 100, **change)]
    frame = lb.table(results, None, "fer2013")
    assert frame[["method", "group", "rank"]].values.tolist() == [["a", 0, 1], ["b", 0, 2], ["c", 1, 1]]
    assert "ranks start anew" in lb.markdown(results)


def test_a_track_without_results_is_an_empty_table():
    """Asking for a track that nothing was measured on gives no rows and no error."""
    assert lb.table([made("a")], None, "ferplus").empty


def test_the_markdown_row_reads_as_meant(root):
    """A row states rank, method, accuracy ± half its interval, reported figure, difference, training and cost."""
    text = lb.markdown(r.read_results(root), read_cards(root))
    row = (
        "| 1 | `small_cnn` [Small_Cnn](https://example.org/p) (common-v1) | **70.0** ± 2.0 | 70.0 | 70.0 "
        "| 25.0 (5.0) | 0.25 | 69.3 | +0.7 | 60 epochs, 1.72M pictures | 3.85M | 90M | 0.40 |"
    )
    assert row in text.splitlines()


def test_robustness_stands_in_rows_and_in_a_table_of_its_own():
    """Measured rows have numbers, others NaN; the second table holds the measured ones, least relative drop first."""
    results = [made("a", robustness=robust(0.8, 0.4)), made("b", 60, robustness=robust(0.5, 0.4)), made("c", 50)]
    rows = lb.table(results, None, "fer2013").set_index("method")
    assert rows.loc["a", ["robustness_clean", "robustness_corrupted", "robustness_relative_drop"]].tolist() == [
        0.8, 0.4, 0.5,
    ]  # fmt: skip
    assert rows.loc["a", ["under_shot_noise", "under_blur"]].tolist() == pytest.approx([0.3, 0.5])
    numeric = [name for name in rows if name.startswith(("robustness_", "under_")) and name != "robustness_suite"]
    assert rows.loc["c", numeric].isna().all()
    assert all(rows[name].dtype == np.float64 for name in numeric)
    text = lb.markdown(results)
    assert "**Robustness** (corruptions `faces-1`): accuracy on 100 of the test pictures" in text
    lines = text.splitlines()
    start = lines.index("| Method | Clean, % | Corrupted, % | Relative drop, % | Shot noise, % | Blur, % |")
    assert lines[start + 2 : start + 5] == [
        "| `b` (common-v1) | 50.0 | 40.0 ± 10.0 | 20.0 ± 4.0 | 30.0 | 50.0 |",
        "| `a` (common-v1) | 80.0 | 40.0 ± 10.0 | 50.0 ± 4.0 | 30.0 | 50.0 |",
        "",
    ]
    assert "**Robustness**" not in lb.markdown([made("c")])


def test_suites_of_corruptions_are_not_mixed():
    """Rows measured with two suites stand in two tables; a method without any clean hit has no drop and stands last."""
    nothing = Interval(0, 0, 0)
    never = replace(
        robust(), clean=nothing, corrupted=nothing, relative_drop=None, corruptions={"blur": {"1": nothing}}
    )
    results = [
        made("a", robustness=robust()),
        made("b", robustness=robust(suite="faces-2")),
        made("c", robustness=never),
    ]
    one, two = lb.markdown(results).split("**Robustness**")[1:]
    assert [line.split("`")[1] for line in one.splitlines() if line.startswith("| `")] == ["a", "c"]
    assert "| `c` (common-v1) | 0.0 | 0.0 ± 0.0 | – |" in one
    assert "faces-2" in two


def test_explanations_stand_in_a_table_of_their_own():
    """Gains stand beside the areas that they come from, the greatest first; regions only where they are known."""
    results = [made("a", explanation=faithful(0.1, centre=True)), made("b", 60, explanation=faithful(0.2)), made("d")]
    results.append(made("c", 50, explanation=faithful(0.1)))
    text = lb.markdown(results)
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Method | Deletion"))
    assert lines[start + 2 : start + 5] == [
        "| `a` (common-v1) | 20.0 (30.0, 25.0) | 10.0 ± 5.0 | 5.0 ± 2.0 | 60.0 (50.0, 55.0) | 10.0 ± 2.0 | 5.0 ± 3.0 "
        "| 0.0 |",
        "| `b` (common-v1) | 20.0 (30.0, –) | 10.0 ± 5.0 | – | 70.0 (50.0, –) | 20.0 ± 2.0 | – | 0.0 |",
        "| `c` (common-v1) | 20.0 (30.0, –) | 10.0 ± 5.0 | – | 60.0 (50.0, –) | 10.0 ± 2.0 | – | 0.0 |",
    ]
    assert "**Explanation** (`gradcam`): what its maps say of 70 of the test pictures" in text
    assert "Energy" not in text
    known = lb.markdown([made("a", track="rendered", explanation=faithful(regions=True, centre=True))])
    assert "| Energy in the regions (area, centre), % | Pointing game (centre), % | Empty of these, % |" in known
    assert "| 0.0 | 40.0 ± 5.0 (20.0, 35.0) | 50.0 (45.0) | 10.0 |" in known
    assert "The last three columns are over the 60 of these pictures whose emotion has regions that carry it" in known
    assert "The last three columns" not in text
    row = lb.table(results, None, "fer2013").set_index("method")
    assert row.loc["a", "explanation_insertion_gain"] == 0.1
    assert np.isnan(row.loc["d", "explanation_insertion_gain"])
    assert np.isnan(row.loc["a", "region_energy"])


@pytest.mark.parametrize(
    ("change", "cell"),
    [
        ({"epochs": 12, "complete": False, "pictures_seen": 344_508}, "| ◔ 12 of 60 epochs, 345k pictures |"),
        (
            {"epochs": 12, "complete": False, "pictures_seen": 344_508, "ended": "max-minutes"},
            "| ◔ 12 of 60 epochs (cut off), 345k pictures |",
        ),
        ({"epochs": 34}, "| 34 of 60 epochs (stopped early), 1.72M pictures |"),
        ({"pretrained": "VGG16 | ImageNet"}, "| 60 epochs, 1.72M pictures; VGG16 &#124; ImageNet |"),
        ({"teachers": ["a/fer2013/r-s0 (1)"]}, "| 60 epochs, 1.72M pictures; taught by 1 network |"),
        (
            {"teachers": ["a/fer2013/r-s0 (1)", "b/fer2013/r-s0 (2)"], "pretrained": "VGG16"},
            "| 60 epochs, 1.72M pictures; taught by 2 networks; VGG16 |",
        ),
        ({"epochs": None, "complete": False}, "| ◔ not stated |"),
        (
            {"epochs": 2, "train_pictures": 7_000, "complete": False, "pictures_seen": 14_000},
            "| ◔ 2 epochs of 7,000 pictures, not 60 of 28,678 |",
        ),
        (
            {
                "epochs": 1,
                "train_pictures": 6_000,
                "complete": False,
                "pictures_seen": 6_000,
                "earlier": Earlier(weights=["b"], track="fer2013", epochs=20, pictures_seen=573_560),
            },
            "| ◔ 1 epoch of 6,000 pictures after 20 before, not 60 of 28,678, 580k pictures in all |",
        ),
        (
            {"epochs": 12, "earlier": Earlier(weights=["b"], track="fer2013", epochs=20, pictures_seen=573_560)},
            "| 12 of 60 epochs (stopped early) after 20 before, 2.3M pictures in all, 1.3 × its recipe's |",
        ),
        (
            {"earlier": Earlier(weights=["b"], track="ferplus", epochs=91, pictures_seen=280_000)},
            "| 60 epochs after 91 on ferplus, 2M pictures in all, 1.2 × its recipe's |",
        ),
        (  # a 51st epoch of two batches
            {"epochs": 40, "earlier": Earlier(weights=["b"], track="fer2013", epochs=51, pictures_seen=1_434_156)},
            "| 40 of 60 epochs (stopped early) after 50 before, 3.16M pictures in all, 1.8 × its recipe's |",
        ),
        (  # two epochs of a part
            {"epochs": 1, "earlier": Earlier(weights=["b"], track="fer2013", epochs=2, pictures_seen=16_000)},
            "| 1 of 60 epochs (stopped early) after 16,000 pictures before, 1.74M pictures in all |",
        ),
        (  # more than the recipe's, though not in its one schedule
            {
                "epochs": 40,
                "complete": False,
                "pictures_seen": 1_147_120,
                "earlier": Earlier(weights=["b"], track="fer2013", epochs=51, pictures_seen=1_434_156),
            },
            "| 40 epochs after 50 before, 2.58M pictures in all, 1.5 × its recipe's |",
        ),
        (  # less than the recipe's, and most of it on other labels
            {
                "epochs": 8,
                "complete": False,
                "pictures_seen": 229_424,
                "earlier": Earlier(
                    weights=["a/fer2013/common-v1-s0 (12)", "a/ferplus/common-v1-s0 (34)"],
                    track="fer2013",
                    epochs=39,
                    pictures_seen=1_096_862,
                ),
            },
            "| ◔ 8 of 60 epochs after 38 on fer2013 and ferplus, 1.33M pictures in all |",
        ),
        ({"train_pictures": 28_400}, "| 60 epochs, 1.72M pictures |"),
        ({"train_pictures": 28_300}, "| 60 epochs of 28,300 pictures, not 60 of 28,678 |"),
    ],
)
def test_the_markdown_says_how_long_was_trained(change, cell):
    """A short budget, early stopping and weights from outside show in the row."""
    other = made("whole", trained=replace(made("a").trained, train_pictures=28_678))
    assert cell in lb.markdown([made("a", trained=replace(made("a").trained, **change)), other])


@pytest.mark.parametrize(
    ("hits", "complete", "why", "sentence"),
    [
        (70, True, "", None),
        (60, True, "", "-9.3 points from its paper: trained for its full budget; why is not known."),
        (60, False, "", "-9.3 points from its paper: trained for less than its budget; what else it comes from is not"),
        (80, True, "Its rate <b>is\nlow.", "+10.7 points from its paper: trained for its full budget; Its rate &lt;b>"),
    ],
)
def test_a_large_difference_has_a_sentence(hits, complete, why, sentence):
    """Two points from the paper's figure or more: what the card knows of it, and whether the budget was short."""
    cards = {
        "a": {
            "reported": [{"track": "fer2013", "accuracy": 0.6932, "source": "T", "why": [{"text": why, "weights": ""}]}]
        }
    }
    row = made("a", hits, trained=replace(made("a").trained, complete=complete))
    text = lb.markdown([row], cards)
    assert ("points from its paper" in text) is (sentence is not None)
    assert sentence is None or f"- `a` (common-v1) is {sentence}" in text
    assert "from its paper" not in lb.markdown([replace(row, external=True)], cards)


def test_a_reason_is_that_of_its_weights() -> None:
    """Weights of one's own, of another seed or of another recipe are not told what was found of others."""
    row, digest = made("a", 60), "ab" * 32
    shipped = replace(row, weights=replace(row.weights, sha256=digest))
    stated = {"track": "fer2013", "accuracy": 0.6932, "source": "T"}
    cards = {"a": {"reported": [stated | {"why": [{"text": "Its rate is low.", "weights": digest[:12]}]}]}}
    assert "for its full budget; Its rate is low." in lb.markdown([shipped], cards)
    assert "for its full budget; why is not known." in lb.markdown([row], cards)
    cards = {"a": {"reported": [stated | {"why": "as a file of an older version has it"}]}}
    assert "for its full budget; why is not known." in lb.markdown([shipped], cards)


def test_the_markdown_marks_what_a_reader_must_know():
    """Submitted, augmented and partly shared rows are marked; duplicates, skipped pictures and notes stand below."""
    data = r.Data(
        hash="d" * 64, counts={}, test_pictures=100, duplicates_in_train=7, skipped=["x"], notes=["<b>part\n|"]
    )
    row = made("a", 70, data=data, external=True, shared_emotions_only=True, seed=2)
    row = replace(row, metrics={**row.metrics, "accuracy_without_duplicates": Interval(0.69, 0.6, 0.7)})
    text = lb.markdown([row])
    assert "`a` † (common-v1, seed 2; external: its authors' weights, not verified)" in text
    assert "`a` † (submitted, not verified)" in lb.markdown([replace(row, recipe="submitted", seed=0)])
    assert "- † knows other emotions too" in text
    assert "- External and submitted rows were trained elsewhere" in text
    assert "trained elsewhere" not in lb.markdown([made("a")])
    assert "- 7 test pictures also stand, pixel for pixel, in the training split; without them" in text
    assert "accuracies here move by up to 1.0 points." in text
    assert "| Accuracy, % | Without duplicates, % |" in text
    assert "- 1 picture(s) of the split could not be read" in text
    assert "- &lt;b>part &#124;" in text
    assert "(common-v1; tta flip)" in lb.markdown([made("a", tta="flip")])


def test_methods_without_a_result_are_listed_with_the_command(root):
    """A method that was not run shows the commands that run it; shipped weights of the home track need no training."""
    r.write_result(made("big", 75), root)
    text = lb.markdown(r.read_results(root), read_cards(root))
    own, transfer = text.split("## Rendered")
    evaluate = "python -m fer_bench.evaluate --method {} --track {}"
    train = "python -m fer_bench.train --method {} --track fer2013 && "
    unshipped = " --runs runs  # its weights are too large to ship"
    assert (train + evaluate).format("minaee", "minaee", "fer2013") + " --runs runs" in own.splitlines()
    assert "Not run: 1 method(s)" in own
    assert evaluate.format("awei", "rendered") in transfer.splitlines()
    assert (train + evaluate).format("big", "big", "rendered") + unshipped in transfer.splitlines()


def test_the_commands_for_methods_without_a_result_write_to_this_board(tmp_path):
    """A board in another folder than evaluate's own names it, quoted for a shell."""
    write_cards(tmp_path / "my board", [card("minaee")], {"minaee": {}})
    r.write_result(made("a"), tmp_path / "my board")
    text = lb.write_leaderboard(tmp_path / "my board")[0].read_text()
    assert f"evaluate --method minaee --track fer2013 --out '{tmp_path / 'my board'}' --runs runs" in text


def test_a_table_of_own_pictures_says_what_was_trained_on():
    """Rows that were trained on the pictures themselves stand beside rows that were not."""
    mine = "folder:faces"
    text = lb.markdown([made("a", track=mine), made("b", track=mine, trained=made("b").trained)])
    assert "| 60 epochs, 1.72M pictures |" in text
    assert "| 60 epochs on fer2013, 1.72M pictures |" in text
    assert " on fer2013, 1.72M" not in lb.markdown([made("a")])


def test_shipped_weights_need_no_training(tmp_path):
    """Where methods.json names the tracks with weights, a method is judged at once there and on what transfers from it,
    whatever has been run; one without weights is trained first, though it is to be shipped."""
    how = {"fer2013": ["common-v1"], "ferplus": ["strong-v1", "common-v1"]}
    tracks = {"small_cnn": how, "minaee": {}, "awei": {"rendered": ["common-v1"]}}
    write_cards(tmp_path, [card(name) for name in tracks], tracks)
    cards = read_cards(tmp_path)
    for track, at_once in (("fer2013", {"small_cnn"}), ("rendered", {"small_cnn", "awei"}), ("fer2013-4", set())):
        lines = lb.markdown([made("other", track=track)], cards).splitlines()
        ready = {name for name in tracks if f"python -m fer_bench.evaluate --method {name} --track {track}" in lines}
        assert ready == at_once
        trained = {name for name in tracks if any(f"fer_bench.train --method {name} " in line for line in lines)}
        assert trained == set(tracks) - at_once


def test_tracks_stand_in_their_order():
    """The primary track comes first, unknown ones after the known, then rendered, then a user's own pictures."""
    tracks = ["csv:/x.csv", "rendered", "zoo", "fer2013-4", "ferplus", "fer2013-6", "fer2013"]
    text = lb.markdown([made("a", track=track) for track in tracks])
    figures_in_order = [line.split("figures/")[1] for line in text.splitlines() if "figures/" in line]
    names = ["fer2013", "ferplus", "fer2013-6", "fer2013-4", "zoo", "rendered", r.track_folder("csv:/x.csv")]
    assert figures_in_order == [f"{name}.png)" for name in names]


def test_a_board_without_results_says_what_to_do(tmp_path):
    """An empty folder gives a page that names the command which fills it, and no figure."""
    assert lb.write_leaderboard(tmp_path) == [tmp_path / "LEADERBOARD.md"]
    assert "python -m fer_bench.evaluate --all" in (tmp_path / "LEADERBOARD.md").read_text()


def test_the_board_is_written_with_its_figures(root):
    """LEADERBOARD.md and one light picture per track are written, and nothing else is left behind."""
    paths = lb.write_leaderboard(root)
    assert [path.relative_to(root).as_posix() for path in paths] == [
        "LEADERBOARD.md", "figures/fer2013.png", "figures/rendered.png",
    ]  # fmt: skip
    picture = imread(paths[1])
    assert picture.shape == (930, 1500, 4)
    assert picture[0, 0].tolist() == [1, 1, 1, 1]
    assert len(list((root / "figures").iterdir())) == 2


def test_figure_names_do_not_overlap(monkeypatch):
    """Thirty methods close together get labels that cover neither each other nor a point."""
    rng = np.random.default_rng(0)
    costs = [r.Cost(parameters=int(10 ** rng.uniform(4.8, 7.8))) for _ in range(30)]
    results = [made(f"method_{i:02}", int(rng.integers(55, 73)), cost=cost) for i, cost in enumerate(costs)]
    seen, label = [], figures._label
    monkeypatch.setattr(figures, "_label", lambda *given: (seen.extend(given), label(*given)))
    figures.accuracy_against_parameters(lb.table(results, None, "fer2013"), "A title")
    axes, frame = seen
    boxes = [text.get_window_extent() for text in axes.texts]
    points = axes.transData.transform(frame[["parameters", "accuracy"]].to_numpy() * [1, 100])
    assert len(boxes) == 30
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert all(axes.get_window_extent().contains(*corner) for box in boxes for corner in box.corners())


def test_a_figure_names_recipe_and_seed_only_where_a_method_has_several():
    """A method with one row is known by its name alone, others by what tells their rows apart."""
    rows = [("a", "common-v1", 0), ("b", "light-v1", 0), ("c", "common-v1", 0), ("c", "common-v1", 1), ("d", "x", 0)]
    results = [made(name, recipe=recipe, seed=seed) for name, recipe, seed in [*rows, ("d", "paper", 0)]]
    names = figures._names(lb.table(results, None, "fer2013"))
    assert sorted(names) == ["a", "b", "c · s0", "c · s1", "d · paper", "d · x"]


def test_points_in_one_place_are_named_beside_it(monkeypatch):
    """Two methods of the same size and accuracy are named to its left and right, without a leader."""
    results = [made(name, 60, cost=r.Cost(parameters=58_000)) for name in ("one", "two")]
    seen, label = [], figures._label
    monkeypatch.setattr(figures, "_label", lambda *given: (seen.extend(given), label(*given)))
    figures.accuracy_against_parameters(lb.table(results, None, "fer2013"), "A title")
    axes, frame = seen
    x = axes.transData.transform([[58_000, 100 * frame["accuracy"][0]]])[0, 0]
    left, right = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.x0)
    assert left.x1 < x < right.x0
    assert max(x - left.x1, right.x0 - x) < 12 * axes.figure.dpi / 72


def test_a_figure_of_nothing_is_refused(tmp_path):
    """There is nothing to draw for a track without results."""
    with pytest.raises(UserError, match="no result on ferplus"):
        lb.figure([made("a")], "ferplus", tmp_path / "x.png")


def test_cards_are_read_back(tmp_path):
    """What is written of the cards is plain data, and a missing file means that no card is known."""
    assert read_cards(tmp_path) == {}
    write_cards(tmp_path, [card("small_cnn")])
    assert read_cards(tmp_path)["small_cnn"] == {
        "title": "Small_Cnn", "paper": "A paper, 2021", "url": "https://example.org/p", "shipped": True,
        "summary": "", "ours": "", "licence": "MIT (this implementation)", "cam_layer": "x", "paper_recipe": None,
        "recipe": "common-v1", "input": {"size": 48, "channels": 1, "mean": [0.5], "std": [0.25], "margin": 0.0},
        "reported": [{"track": "fer2013", "accuracy": 0.6932, "source": "T", "why": []}],
        "parameters": {"7": 3_849_319},
    }  # fmt: skip
    (tmp_path / "methods.json").write_text("{")
    with pytest.raises(UserError, match=r"methods\.json is broken"):
        read_cards(tmp_path)


def test_peers_stand_on_the_board_and_are_never_trained(root):
    """A card of peers.json gives a row its claimed figure and its own mark, is never trained and hides no method."""
    peer = {"title": "Peer", "package": "peer==1", "reported": [{"track": "fer2013", "accuracy": 0.9, "source": "S"}]}
    (root / "peers.json").write_text(json.dumps({"peer": peer, "absent": peer, "awei": {**peer, "title": "Not Awei"}}))
    r.write_result(made("peer", 60, recipe="as-published", external=True, verified=True), root)
    cards = read_cards(root)
    assert list(cards) == ["awei", "small_cnn", "minaee", "big", "peer", "absent"]
    assert cards["awei"]["title"] == "Awei"
    row = lb.table(r.read_results(root), cards, "fer2013").set_index("method").loc["peer"]
    assert (row["reported"], row["difference"]) == (0.9, pytest.approx(-0.3))
    text = lb.markdown(r.read_results(root), cards)
    assert "`peer` Peer (as-published; external: a package's own weights)" in text
    assert "--method minaee" in text
    assert "--method peer" not in text
    assert "--method absent" not in text
    (root / "peers.json").write_text("[1]")
    with pytest.raises(UserError, match=r"peers\.json is broken"):
        read_cards(root)


def test_a_broken_file_costs_its_own_row_only(root):
    """The readable results are given with one sentence that names the broken file; mended, it is read again."""
    path = r.result_path(root, "fer2013", "awei", "common-v1", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    found, problems = lb.read_readable(root)
    assert [(result.track, result.method) for result in found] == [("fer2013", "small_cnn"), ("rendered", "small_cnn")]
    assert len(problems) == 1
    assert str(path) in problems[0]
    path.write_bytes(whole)
    assert lb.read_readable(root) == (r.read_results(root), [])
    path.unlink()
    assert len(lb.read_readable(root)[0]) == 2


@pytest.mark.parametrize("broken", ["results/fer2013/awei/common-v1-s0.json", "peers.json"])
def test_a_broken_file_does_not_stop_the_table(root, capsys, broken):
    """The rest of the table is written, the file is named, the README stays as it was and the exit code is 1."""
    (root / broken).write_text("{")
    (root / "README.md").write_text(lb.START + "old" + lb.END)
    assert lb.main(["--out", str(root), "--readme", str(root / "README.md")]) == 1
    said = capsys.readouterr().err
    assert str(root / broken) in said
    assert "LEADERBOARD.md was written without them." in said
    text = (root / "LEADERBOARD.md").read_text()
    assert "`small_cnn` [Small_Cnn]" in text
    assert ("`awei` [Awei]" in text) is (broken == "peers.json")
    assert (root / "README.md").read_text() == lb.START + "old" + lb.END


@pytest.mark.parametrize(("name", "says"), [("methods.json", "is no object"), ("peers.json", "Is a directory")])
def test_cards_that_are_none_are_named(root, name, says):
    """A card that is a string and a folder in the file's place: a sentence each, and the table is still written."""
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir() if says == "Is a directory" else (root / name).write_text('{"small_cnn": "a network"}')
    with pytest.raises(BrokenFilesError, match=says):
        lb.write_leaderboard(root)
    assert "`small_cnn`" in (root / "LEADERBOARD.md").read_text()


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_readme_that_cannot_be_read_is_one_sentence(root, tmp_path, capsys, content):
    """A folder, or bytes that are no UTF-8: exit code 2."""
    readme = tmp_path / "readme"
    readme.mkdir() if content is None else readme.write_bytes(content)
    assert lb.main(["--out", str(root), "--readme", str(readme)]) == 2
    assert f"{readme} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["typo", "file"])
def test_a_folder_without_results_does_not_empty_the_readme(tmp_path, capsys, name):
    """A misspelt --out, or one that is a file, is one sentence and exit code 2; nothing is written."""
    (tmp_path / "file").write_text("")
    readme = tmp_path / "README.md"
    readme.write_text(lb.START + "table" + lb.END)
    assert lb.main(["--out", str(tmp_path / name), "--readme", str(readme)]) == 2
    assert f"{tmp_path / name / 'results'}: there is no such folder" in capsys.readouterr().err
    assert readme.read_text() == lb.START + "table" + lb.END
    assert not (tmp_path / "typo").exists()


def test_ranks_are_not_said_to_be_a_comparison():
    """Rows may share a rank and yet be told apart picture by picture, and rows of two ranks may not."""
    assert "It is no test: rows of one rank can differ, and rows of two ranks need not" in lb.HOW_TO_READ
    assert "cannot be told apart" not in lb.HOW_TO_READ


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.0043, "0.0043"),
        (0.0509, "0.051"),
        (0.4, "0.40"),
        (0.997, "1.0"),
        (1.02, "1.0"),
        (9.96, "10"),
        (12.61, "13"),
        (123.4, "123"),
        (0, "0"),
    ],
)
def test_a_ratio_keeps_two_significant_digits(ratio, text):
    """The fastest networks are not all "0.00" of the reference, and a slow one has no exponent."""
    assert lb.ratio_text(ratio) == text
    assert lb.ratio_text(float("nan")) == "–"


def test_the_readmes_block_is_replaced_and_the_rest_kept(root):
    """Only what stands between the markers changes, and a second run changes nothing more."""
    readme = root / "README.md"
    readme.write_text(f"before\n{lb.START}\nstale row\n{lb.END}\nafter\n")
    text = lb.update_readme(readme, root).read_text()
    assert text.startswith(f"before\n{lb.START}\n\n### FER2013")
    assert text.endswith(f"{lb.END}\nafter\n")
    assert "stale row" not in text
    assert "`small_cnn`" in text
    assert "(./figures/fer2013.png)" in text
    assert lb.update_readme(readme, root).read_text() == text


def test_the_readmes_links_are_relative_to_it(tmp_path):
    """From a README above the folder, the figure and the full table are reached through the folder's name."""
    r.write_result(made("a"), tmp_path / "leaderboard")
    readme = tmp_path / "README.md"
    readme.write_text(lb.START + lb.END)
    text = lb.update_readme(readme, tmp_path / "leaderboard").read_text()
    assert "(leaderboard/figures/fer2013.png)" in text
    assert "(leaderboard/LEADERBOARD.md)" in text


def test_the_command_writes_the_board_and_reports_wrong_use(root, capsys):
    """The command prints what it wrote and exits 0; a README without markers is one sentence and exit code 2."""
    assert lb.main(["--out", str(root)]) == 0
    names = ("LEADERBOARD.md", "figures/fer2013.png", "figures/rendered.png")
    assert capsys.readouterr().out.split() == [str(root / name) for name in names]
    assert lb.main(["--out", str(root), "--readme", str(root / "none.md")]) == 2
    assert "must hold the lines" in capsys.readouterr().err


def test_what_submitters_say_of_themselves_is_text_in_the_table() -> None:
    """Title and authors are a stranger's: no markup, no second link, no way out of the cell; the address is a link."""
    row = replace(made("a", 60), recipe="submitted", external=True)
    card = {
        "title": "**Best** [x](https://evil.example) | y",
        "authors": ["A | B", "`C`", "https://evil.example", "D"],
        "url": "https://example.org/a(b)|c",
    }
    (line,) = (line for line in lb.markdown([row], {"a": card}).splitlines() if line.startswith("| 1 |"))
    cell = line.split(" | ")[1]
    assert cell.endswith("(submitted by A &#124; B and 3 others, not verified)")
    assert "](https://example.org/a%28b%29%7Cc)" in cell
    assert not re.search(r"\*\*Best|\[x\]|https://evil", cell)
    (bare,) = (line for line in lb.markdown([row]).splitlines() if line.startswith("| 1 |"))
    assert line.count("|") == bare.count("|")
