"""The rules about answers, on pictures and answers made for them: what they refuse, and whom they leave in peace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from fer_bench.datasets import FaceSet
from fer_bench.emotions import FOUR, SEVEN, SIX
from fer_bench.infer import load, logits
from fer_bench.submissions import behaviour, check, template
from fer_bench.submissions.behaviour import behaves, from_memory, probabilities, redrawn, wrong_order
from tests.submissions.models import SIDE, faces, model, node, reader, submission, tensor


def blots(count: int = 140, cells: int = 6) -> FaceSet:
    """Pictures of large random squares with labels of no meaning: only who has stored them can name one."""
    random = np.random.default_rng(5)
    grids = random.integers(0, 256, (count, cells, cells), dtype=np.uint8)
    images = np.kron(grids, np.ones((1, SIDE // cells, SIDE // cells), np.uint8))
    return FaceSet("blots", "test", SEVEN, images, np.arange(count) % 7, tuple(map(str, range(count))))


def table(known: FaceSet) -> ModelProto:
    """A model that answers as the nearest of these pictures is labelled, by its distance in pixels."""
    pixels = known.images.reshape(len(known), -1).astype(np.float32) / 255
    nodes = [
        node("Flatten", "input", "flat"), node("Gemm", "flat pixels sizes", "near", transB=1),
        node("Softmax", "near", "nearest"), node("MatMul", "nearest answers", "logits"),
    ]  # fmt: skip
    tensors = [tensor("pixels", 40 * pixels), tensor("sizes", -20 * (pixels**2).sum(axis=1)),
               tensor("answers", 10 * np.eye(7)[known.labels])]  # fmt: skip
    return model(nodes, tensors)


def test_a_table_of_whole_pictures_is_refused(tmp_path: Path) -> None:
    """Allowed operators alone make a nearest neighbour that no grey level and no shift disturbs; redrawing does."""
    known = blots()
    (problem,) = check(submission(tmp_path / "s", table(known)), faces=known)
    assert problem.code == "from_memory"
    assert "once the pictures are mirrored, turned and enlarged a little" in problem.text


def test_a_table_that_helps_a_network_is_refused() -> None:
    """A model that is right about two faces of three, and by its table about the others too, loses what that gives."""
    known, random = blots(1000), np.random.default_rng(0)
    honest = np.where(random.random(1000) < 2 / 3, known.labels, (known.labels + random.integers(1, 7, 1000)) % 7)

    def ask(pictures: np.ndarray) -> np.ndarray:
        stored = np.abs(pictures.astype(int) - known.images).mean() < 20  # exactly, or by a grey level or a pixel
        return np.eye(7)[known.labels if stored else honest]

    (problem,) = from_memory(ask, ask(known.images), SEVEN, known)
    assert "100% of blots faces are right, but 64% once the pictures are mirrored" in problem.text


def test_a_weak_model_may_lose_what_chance_takes() -> None:
    """Over 140 faces a model that is right about four of ten is in peace though redrawing takes ten points from it."""
    known = blots()
    before, after = known.labels.copy(), known.labels.copy()
    before[56:], after[42:] = (before[56:] + 1) % 7, (after[42:] + 1) % 7

    def ask(pictures: np.ndarray) -> np.ndarray:
        stored = np.abs(pictures.astype(int) - known.images).mean() < 20
        return np.eye(7)[before if stored else after]

    assert from_memory(ask, ask(known.images), SEVEN, known) == []


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "RGB"])
def test_redrawing_mirrors_and_moves_every_picture_anew(colours: tuple[int, ...]) -> None:
    """Left becomes right, size and type stay, and neither two pictures nor two draws are changed alike."""
    pictures = np.zeros((40, 48, 48, *colours), np.uint8)
    pictures[:, 10:20, 6:16] = 200
    first, second = redrawn(pictures), redrawn(pictures)
    assert (first.shape, first.dtype) == (pictures.shape, np.uint8)
    assert first[:, :, :24].max() == 0
    assert (first[:, :, 24:] >= 190).sum(axis=(1, 2)).min() > 50
    assert len({picture.tobytes() for picture in [*first, *second]}) == 80


TRAINED = ("reference_tiny", "deep_emotion", pytest.param("small_cnn", marks=pytest.mark.slow),
           pytest.param("patch_cam", marks=pytest.mark.slow))  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_network_passes_on_faces_that_it_has_not_seen(name: str) -> None:
    """None of ours that were trained on photographs is refused on the rendered faces of a check."""
    trained = load(name)
    assert behaves(lambda pictures: logits(trained, pictures), trained.emotions, behaviour.rendered_faces()) == []


@pytest.mark.parametrize("emotions", [SEVEN, SIX, FOUR, ("fear", "anger", "neutral")], ids=len)
def test_chance_names_no_other_order(emotions: tuple[str, ...]) -> None:
    """Of answers that have nothing to do with the faces no order is told, though one of all renamings fits by luck."""
    known, random = blots(), np.random.default_rng(0)
    for _ in range(300):
        assert wrong_order(random.random((140, len(emotions))), emotions, known) == []


def test_a_favourite_answer_names_no_other_order() -> None:
    """A model that nearly always says the same is no better under the name of the most frequent emotion."""
    known, random = blots(), np.random.default_rng(0)
    known = replace(known, labels=np.where(random.random(140) < 0.6, 3, known.labels))
    answers = np.where(random.random(140) < 0.9, 0, random.integers(0, 7, 140))
    assert wrong_order(np.eye(7)[answers], SEVEN, known) == []


def test_the_order_of_a_good_model_is_told() -> None:
    """Where six of ten answers are right in another order, the declared one is refused and the other named."""
    known, random = blots(), np.random.default_rng(0)
    right = np.where(random.random(140) < 0.6, known.labels, random.integers(0, 7, 140))
    declared = (*SEVEN[4:], *SEVEN[:4])
    assert wrong_order(np.eye(7)[right], SEVEN, known) == []
    (problem,) = wrong_order(np.eye(7)[right], declared, known)
    assert f"[{', '.join(SEVEN)}]" in problem.text


def bars_as(answer: behaviour.Ask) -> list[str]:
    """The problems of a model that reads the bars of `faces` and answers by this function of logits."""
    weights = 10 * reader()
    problems = behaves(lambda p: answer((p / 255).mean(axis=2) @ weights).astype(np.float32), SEVEN, faces())
    return [problem.code for problem in problems]


def test_probabilities_are_refused() -> None:
    """Their softmax would be scored: whatever they are rounded to they are refused, their logarithms are not."""
    assert "The outputs are logits: a model that ends in Softmax is refused" in template()
    assert bars_as(lambda x: x) == []
    assert bars_as(probabilities) == ["not_logits"]
    assert bars_as(lambda x: probabilities(x).astype(np.float16)) == ["not_logits"]
    assert bars_as(lambda x: (255 * probabilities(x)).round() / 255) == ["not_logits"]
    assert bars_as(lambda x: 100 * probabilities(x)) == ["not_logits"]
    assert bars_as(lambda x: np.log(probabilities(x))) == []
    assert bars_as(lambda x: 1 / (1 + np.exp(-x / 10))) == []
