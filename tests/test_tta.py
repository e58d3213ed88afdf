"""Test-time augmentation: a figure of its own, beside the plain one and never ranked with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench import costs, evaluate, leaderboard
from fer_bench.cards import InputSpec, Recipe, Track
from fer_bench.costs import cost, for_passes
from fer_bench.emotions import SEVEN
from fer_bench.evaluate import main
from fer_bench.infer import Model, logits
from fer_bench.methods import METHODS, build
from fer_bench.metrics import softmax
from fer_bench.results import read_result
from fer_bench.torchvision_repair import torchvision
from fer_bench.train import Options, Run
from fer_bench.transforms import PASSES, to_input, views
from tests.helpers import write_folder
from tests.test_leaderboard import made


class LeftHalf(nn.Module):
    """Logits that are the first seven pixels of the top row, so that a mirrored picture is answered otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x[:, 0, 0, :7]


def test_flip_averages_the_probabilities_of_a_face_and_its_mirror_image() -> None:
    """The logits of "flip" are the logarithm of the mean of both answers, worked out here from the pixels."""
    spec = InputSpec(size=48, channels=1, mean=(0.5,), std=(0.1,))
    model = Model("left_half", LeftHalf(), spec, SEVEN, {})
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    pixels = (images[:, 0].astype(np.float64) / 255 - 0.5) / 0.1
    plain, mirrored = softmax(pixels[:, :7]), softmax(pixels[:, ::-1][:, :7])
    found = logits(model, images, batch_size=2, tta="flip")
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), (plain + mirrored) / 2, atol=1e-6)
    np.testing.assert_allclose(softmax(logits(model, images)), plain, atol=1e-6)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    np.testing.assert_allclose(logits(model, turned, tta="flip"), found, atol=1e-5)


def test_ten_crops_are_the_corners_the_middle_and_their_mirror_images() -> None:
    """Each is 44 of 48 pixels, enlarged to 48: torchvision's own crops and enlargement give the same, in any order."""
    functional = torchvision.transforms.functional
    x = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    found = list(views(x, "tencrop"))
    assert len(found) == PASSES["tencrop"] == 10
    wanted = [functional.resize(crop, [48, 48], antialias=False) for crop in functional.ten_crop(x, [44, 44])]
    for view in found:
        assert sum(torch.allclose(view, other, atol=1e-5) for other in wanted) == 1
    for other in wanted:
        assert sum(torch.allclose(view, other, atol=1e-5) for view in found) == 1


def test_ten_crops_answer_with_the_mean_of_their_probabilities() -> None:
    """The logits of "tencrop" are the logarithm of the mean probability over the ten views, whatever the batch."""
    spec = InputSpec(size=48, channels=1, mean=(0.5,), std=(0.1,))
    model = Model("left_half", LeftHalf(), spec, SEVEN, {})
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    with torch.no_grad():
        each = [model.network(view).softmax(1) for view in views(to_input(torch.from_numpy(images), spec), "tencrop")]
    found = logits(model, images, batch_size=2, tta="tencrop")
    np.testing.assert_allclose(np.exp(found), torch.stack(each).mean(0).numpy(), atol=1e-6)
    assert [len(list(views(torch.zeros(1, 1, 8, 8), tta))) for tta in PASSES] == list(PASSES.values())


def test_two_passes_cost_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply-accumulates and latency of a face are those of both passes; the parameters are the same."""
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.002, 0.5))
    model = Model("deep_emotion", build("deep_emotion", 7), METHODS["deep_emotion"].card.input, SEVEN, {"bytes": 1})
    once = cost(model)
    twice = for_passes(once, 2)
    assert twice.parameters == once.parameters
    assert twice.macs == 2 * once.macs
    assert (twice.latency_ms, twice.latency_ratio) == (4.0, 1.0)


def test_the_command_writes_a_row_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """`--tta flip` leaves the plain record as it is, and the table ranks the two apart."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))
    name = f"folder:{write_folder(tmp_path / 'data')}"
    track, recipe = Track(name, name, name, (), name), Recipe(name="common-v1", epochs=1, batch_size=8)
    Run(METHODS["deep_emotion"], track, recipe, Options(device="cpu"), tmp_path / "runs").fit()
    out = tmp_path / "out"
    command = ["--method", "deep_emotion", "--track", name, "--runs", str(tmp_path / "runs"), "--out", str(out)]
    asked: list[str] = []
    monkeypatch.setattr(evaluate, "logits", lambda *given: (asked.append(given[-1]), logits(*given))[1])
    assert main(command) == 0
    (plain,) = (out / "results").glob("*/deep_emotion/*.json")
    before = plain.read_bytes()
    assert main([*command, "--tta", "flip"]) == 0
    assert plain.read_bytes() == before
    flipped = plain.with_name("common-v1-s0-flip.json")
    assert read_result(flipped).tta == "flip"
    assert asked == ["none", "flip"]
    text = (out / "LEADERBOARD.md").read_text()
    assert "ranks start anew" in text
    assert "(common-v1; tta flip)" in text
    assert main([*command, "--tta", "flip", "--robustness"]) == 2
    assert "measured without --tta" in capsys.readouterr().err


def test_plain_rows_come_first_and_only_they_stand_beside_the_papers() -> None:
    """However many rows are augmented, the others are the first group; a paper's figure is not compared with both."""
    cards = {"a": {"reported": [{"track": "fer2013", "accuracy": 0.9}]}}
    rows = [made("a", tta="flip"), made("b", tta="flip"), made("a")]
    text = leaderboard.markdown([rows[0]], {"a": {"shipped": True, "weights": ["fer2013"]}})
    assert "python -m fer_bench.evaluate --method a --track fer2013" in text  # the protocol's own figure is not there
    assert "Rows marked tta answer for several views of each picture; ranks start anew." in leaderboard.markdown(rows)
    frame = leaderboard.table(rows, cards, "fer2013")
    assert frame[["method", "tta", "group"]].values.tolist() == [["a", "none", 0], ["a", "flip", 1], ["b", "flip", 1]]
    assert frame["reported"].tolist()[0] == 0.9
    assert frame["reported"].isna().tolist() == [False, True, True]
