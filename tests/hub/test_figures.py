"""The figures on the Hub: on what they were measured, what their intervals are over, how far a training went."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fer_bench.datasets.fer2013_copies import HUB_REPO, HUB_SPLITS
from fer_bench.hub import contents, main, readmes
from fer_bench.leaderboard import HOW_TO_READ
from fer_bench.methods import METHODS
from fer_bench.results import Result, read_result, write_result
from fer_bench.weights import read_index, record_of, write_index
from tests.hub.conftest import CHECKOUT
from tests.hub.row import PUSH, REPO
from tests.hub_server import Hub

FOUR = "deep_emotion/fer2013-4/common-v1-s0"


@pytest.fixture
def four(checkout: Path) -> Path:
    """The checkout, with the four-emotion weights and their result as well."""
    entry = read_index(CHECKOUT / "weights")[FOUR] | {"hub": None, "revision": None}
    write_index(read_index() | {FOUR: entry})
    shutil.copyfile(CHECKOUT / "weights" / entry["file"], checkout / "weights" / entry["file"])
    source = "leaderboard/results/fer2013-4/deep_emotion"
    shutil.copytree(CHECKOUT / source, checkout / source)
    return checkout


def result_of(checkout: Path, track: str = "rendered") -> Result:
    return read_result(checkout / f"leaderboard/results/{track}/deep_emotion/common-v1-s0.json")


def test_four_of_seven_emotions_are_not_the_hub_s_data_set(four: Path, hub: Hub) -> None:
    """Such a figure would pass for one of all seven: it is one of the track, which has no entry of the Hub's."""
    assert main([*PUSH, "--track", "fer2013-4"]) == 0
    files = hub.files(REPO)
    assert "results/fer2013-4/deep_emotion/common-v1-s0.json" in files
    assert not [path for path in files if path.startswith(".eval_results/")]
    evaluations = ModelCard(files["README.md"].decode()).data.eval_results
    assert {e.dataset_type for e in evaluations} == {"fer2013-4"}
    assert {e.dataset_name for e in evaluations} == {"FER2013, anger, happiness, sadness, neutral (P3)"}


def test_seven_emotions_name_the_hub_s_data_set_and_its_split(checkout: Path, hub: Hub) -> None:
    """The test split is PrivateTest, which the Hub's copy calls privateTest; the drawn faces are a data set of ours."""
    assert main(PUSH) == 0
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    measured = {(e.dataset_type, e.dataset_config, e.dataset_split) for e in card.data.eval_results}
    assert measured == {(HUB_REPO, None, HUB_SPLITS["test"]), ("rendered", None, "test")}
    (found,) = parse_eval_result_entries(yaml.safe_load(hub.files(REPO)[".eval_results/fer2013.yaml"]))
    assert found.notes.startswith(
        "accuracy on 3589 test pictures (privateTest) of anger, disgust, fear, happiness, sadness, surprise, neutral, "
    )


def test_the_card_says_what_an_interval_is_over_and_which_emotions_count(checkout: Path) -> None:
    """Over people where there are such, else over pictures; a row over the shared emotions alone says so."""
    result = result_of(checkout)
    plain = readmes._figures([result])
    assert "people" not in plain
    assert "emotions that it shares" not in plain
    told = readmes._figures([replace(result, subjects=12, shared_emotions_only=True)])
    high = 100 * result.metrics["accuracy"].high
    assert f"to {high:.1f} (over 12 people) |" in told
    assert "(350), over the emotions that it shares |" in told


@pytest.mark.parametrize(("method", "own"), [("small_cnn", True), ("resnet18", False)])
def test_only_an_own_implementation_is_called_one(method: str, own: bool) -> None:
    """torchvision's networks are not this project's, though it trained them."""
    entry = read_index(CHECKOUT / "weights")[f"{method}/fer2013/common-v1-s0"]
    card = readmes.model_card(METHODS[method].card, entry, record_of(CHECKOUT / "weights" / entry["file"]), [], "a/b")
    assert ("fer_bench's own implementation" in card) is own


def test_the_results_card_reads_as_the_board_does() -> None:
    """What the board says of intervals and ranks, then what the file's columns are called."""
    text = " ".join(readmes.results_card(3, ["fer2013", "ckplus"], "ada/r").split())
    assert " ".join(HOW_TO_READ.split()) in text
    assert "over the test pictures;" not in text
    assert "3 rows on fer2013, ckplus" in text
    for column in ("subjects", "complete", "budget_fraction", "external", "accuracy_low"):
        assert f"`{column}`" in text
    assert "below 1 also where the recipe itself stopped early" in text


def test_the_file_says_over_how_many_people(checkout: Path) -> None:
    """`subjects` is a whole number, or nothing where an interval is over pictures; its type is the same without any."""
    write_result(replace(result_of(checkout), subjects=12), checkout / "leaderboard")
    rows = pd.read_parquet(io.BytesIO(contents.results_tree("ada/r", checkout)["results.parquet"]))
    of = rows.set_index("track")["subjects"]
    assert of["rendered"] == 12
    assert pd.isna(of["fer2013"])
    write_result(replace(result_of(checkout), subjects=None), checkout / "leaderboard")
    without = pd.read_parquet(io.BytesIO(contents.results_tree("ada/r", checkout)["results.parquet"]))
    assert without["subjects"].dtype == rows["subjects"].dtype
    assert without["subjects"].isna().all()
