"""Which methods can answer, which of their models are kept, and what a method whose weights are broken costs."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fer_bench
from fer_bench.cards import InputSpec
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.results import read_result, write_result
from fer_bench.ui import engine, pictures, shelf
from fer_bench.weights import cached, index_key, read_index, weights_folder, write_index
from tests.test_leaderboard import made
from tests.ui.test_engine import ROOT, drawn


def stand_in(kilobytes: int) -> SimpleNamespace:
    """Something with a network of that size, which is all that a shelf looks at."""
    return SimpleNamespace(network=nn.ParameterList([nn.Parameter(np_zeros(kilobytes * 256))]))


def np_zeros(count: int) -> object:
    return torch.zeros(count)


def test_choices_are_the_methods_with_weights_best_first() -> None:
    """The picker's order is that of the measured accuracy, and every shipped method is in it."""
    found = shelf.choices(ROOT)
    accuracies = [choice.accuracy for choice in found if choice.accuracy is not None]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {c.name for c in found} == {e["method"] for e in read_index().values() if e["track"] == "fer2013"}
    assert shelf.best(found) == [choice.name for choice in found[:5]]


def test_a_choices_figure_is_that_of_the_weights_that_answer(tmp_path: Path) -> None:
    """Better rows of another recipe, another seed or other weights are not what the picker shows."""
    ours = read_result(ROOT / "results" / "fer2013" / "small_cnn" / "common-v1-s0.json")
    for result in (
        ours,
        made("small_cnn", 99, recipe="paper"),
        made("small_cnn", 98, seed=1),
        made("deep_emotion", 97),
    ):
        write_result(result, tmp_path)
    shown = {choice.name: choice.accuracy for choice in shelf.choices(tmp_path)}
    assert shown["small_cnn"] == ours.metrics["accuracy"].value
    assert ours.weights.sha256 == fer_bench.load("small_cnn").record["sha256"]
    assert shown["deep_emotion"] is None


def test_weights_that_the_app_would_not_load_are_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that has weights of another recipe, seed or track alone cannot be chosen."""
    entry = {"file": "x", "bytes": 1, "sha256": "0" * 64, "hub": None, "revision": None, "method": "small_cnn"}
    rows = [("fer2013", "paper", 0), ("fer2013", "common-v1", 1), ("ferplus", "common-v1", 0)]
    index = {
        index_key("small_cnn", *row): {**entry, **dict(zip(("track", "recipe", "seed"), row, strict=True))}
        for row in rows
    }
    write_index(index, tmp_path)
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    assert shelf.choices(ROOT) == []


def test_choices_without_results(tmp_path: Path) -> None:
    """With no result on the board every method with weights can still be chosen, and the label says why no figure."""
    found = shelf.choices(tmp_path)
    assert found
    assert all(choice.label.endswith("(no result yet)") for choice in found)


def test_a_broken_board_does_not_stop_the_app(tmp_path: Path) -> None:
    """With a broken card file and a broken result, the methods can still be chosen."""
    (tmp_path / "methods.json").write_text("{")
    broken = tmp_path / "results" / "fer2013" / "small_cnn"
    broken.mkdir(parents=True)
    (broken / "common-v1-s0.json").write_text("{}")
    assert "small_cnn" in {choice.name for choice in shelf.choices(tmp_path)}


def test_shelf_keeps_within_its_bound() -> None:
    """The least recently used model leaves when the bound is passed; the one just asked for always stays."""
    kept = shelf.Shelf(lambda name: stand_in(int(name)), bound=100 * 1024)
    kept["40"], kept["50"]
    kept["40"]
    kept["30"]
    assert kept.names() == ["40", "30"]
    kept["500"]
    assert kept.names() == ["500"]


def test_shelf_loads_once_for_visitors_at_once() -> None:
    """Ten visitors who ask for one method together wait for one load."""
    loads = []

    def load(name: str) -> SimpleNamespace:
        loads.append(name)
        time.sleep(0.05)
        return stand_in(1)

    kept = shelf.Shelf(load, bound=2**20)
    got: list = []
    threads = [threading.Thread(target=lambda: got.append(kept["one"])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["one"]
    assert len({id(model) for model in got}) == 1


def test_a_load_that_fails_can_be_tried_again() -> None:
    """A missing weight file raises for its visitor and leaves nothing half-loaded behind."""
    tries = []

    def load(name: str) -> SimpleNamespace:
        tries.append(name)
        if len(tries) == 1:
            raise UserError("no weights")
        return stand_in(1)

    kept = shelf.Shelf(load, bound=2**20)
    with pytest.raises(UserError):
        kept["one"]
    assert kept["one"] is kept["one"]
    assert len(tries) == 2


def test_methods_whose_weights_are_not_here_are_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of the index alone is none: its file has to be here, in the cache, or pinned on the Hub."""
    names = ("small_cnn", "deep_emotion", "patch_cam", "sep_cnn")
    entries = {index_key(name, "fer2013", "common-v1", 0): entry_of(name) for name in names}
    pin = {"hub": "some/where", "revision": "0" * 40}
    entries[index_key("patch_cam", "fer2013", "common-v1", 0)] |= pin
    write_index(entries, tmp_path)
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small_cnn").write_bytes(b"x")
    fetched = cached(entry_of("deep_emotion"))
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"x")
    assert {choice.name for choice in shelf.choices(ROOT)} == {"small_cnn", "deep_emotion", "patch_cam"}
    (tmp_path / "small_cnn").unlink()
    assert {choice.name for choice in shelf.choices(ROOT)} == {"deep_emotion", "patch_cam"}


def entry_of(name: str, digest: str = "0" * 64) -> dict:
    """Of the index, for a file of the method's name."""
    row = {"method": name, "track": "fer2013", "recipe": "common-v1", "seed": 0}
    return {**row, "file": name, "bytes": 1, "sha256": digest, "hub": None, "revision": None}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of deep_emotion, and a file that is none of patch_cam; the shelf is empty."""
    key, bad = (index_key(name, "fer2013", "common-v1", 0) for name in ("deep_emotion", "patch_cam"))
    entry = read_index()[key]
    (tmp_path / entry["file"]).write_bytes((weights_folder() / entry["file"]).read_bytes())
    (tmp_path / "patch_cam").write_bytes(b"not weights")
    write_index({key: entry, bad: entry_of("patch_cam")}, tmp_path)
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(shelf, "SHELF", shelf.Shelf(shelf.load_model, 2**30, shelf.weights_now))


def test_a_method_that_cannot_be_loaded_is_named_and_the_rest_answer(broken: None, tmp_path: Path) -> None:
    """A broken weight file costs its own method's answer alone; the sentence about it names no folder of the server."""
    answers, problems = engine.answer(drawn(), None, ["patch_cam", "deep_emotion"])
    assert [answer.method for answer in answers] == ["deep_emotion"]
    (problem,) = problems
    assert problem.startswith("patch_cam cannot answer: patch_cam: this is not a readable safetensors file")
    assert str(tmp_path) not in problem
    methods = ["patch_cam", "deep_emotion"]
    batch = [engine.prepare(drawn(), "face.png", engine.specs_of(methods))[0]]
    rows, problems = engine.score_prepared(batch, methods)
    assert problems == [problem]
    alone = engine.score([("face.png", drawn())], ["deep_emotion"])
    assert len(rows) == len(alone) >= 1
    for row, right in zip(rows, alone, strict=True):
        assert row["method"] == "deep_emotion"
        assert [row[e] for e in SEVEN] == pytest.approx([right[e] for e in SEVEN], abs=2e-6)
    with pytest.raises(UserError, match="patch_cam cannot answer"):  # a program asked for these very methods
        engine.score([("face.png", drawn())], methods)
    with pytest.raises(UserError, match="patch_cam cannot answer"):
        engine.answer(drawn(), None, ["patch_cam"])


def test_the_page_tells_of_a_method_that_cannot_be_loaded(broken: None, tmp_path: Path) -> None:
    """Many pictures get the rows of the others, and the sentence once."""
    drawn().save(tmp_path / "face.png")
    rows, _, problems = pictures.score_all([str(tmp_path / "face.png")] * 3, ["patch_cam", "deep_emotion"])
    assert {row["method"] for row in rows} == {"deep_emotion"}
    assert len(rows) == 3
    assert [problem[:24] for problem in problems] == ["patch_cam cannot answer:"]


def test_new_weights_are_loaded_and_their_figure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `weights add` the next question loads the new file, and the choices are those of the new index."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    key = index_key("small_cnn", "fer2013", "common-v1", 0)
    (tmp_path / "small_cnn").write_bytes(b"x")
    write_index({key: entry_of("small_cnn", "a" * 64)}, tmp_path)
    loads = []

    def load(name: str) -> SimpleNamespace:
        loads.append(name)
        return stand_in(1)

    held = shelf.Shelf(load, 2**20, shelf.weights_now)
    assert held["small_cnn"] is held["small_cnn"]
    row = made("small_cnn", 71)
    board = tmp_path / "board"
    write_result(replace(row, weights=replace(row.weights, sha256="b" * 64)), board)
    assert [choice.accuracy for choice in shelf.choices(board)] == [None]
    assert shelf.choices(board) is shelf.choices(board)
    write_index({key: entry_of("small_cnn", "b" * 64)}, tmp_path)
    assert held["small_cnn"] is held["small_cnn"]
    assert loads == ["small_cnn"] * 2
    assert held.names() == ["small_cnn"]
    assert [choice.accuracy for choice in shelf.choices(board)] == [0.71]


def test_cards_say_the_input_of_their_weights() -> None:
    """What pictures are cut out by is the card's input, for which no weights are loaded: the shipped ones' is the same.

    All models together stay within the shelf's bound, so that asking them all does not load each anew.
    """
    from safetensors import safe_open

    size = 0
    for entry in read_index().values():
        with safe_open(weights_folder() / entry["file"], framework="pt") as file:
            record = json.loads(file.metadata()["fer_bench"])
        assert InputSpec.from_dict(record["input"]) == METHODS[entry["method"]].card.input
    with torch.device("meta"):
        for choice in shelf.choices(ROOT):
            size += shelf.size_of(SimpleNamespace(network=METHODS[choice.name].build(7)))
    assert 600 * 2**20 < size < shelf.SHELF.bound


def test_asking_for_specs_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the methods want to see is known before any is loaded."""
    monkeypatch.setattr(shelf, "SHELF", {})
    assert [spec.size for spec in engine.specs_of(["small_cnn", "deep_emotion"])] == [48, 48]


def test_weights_of_another_input_than_the_cards_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights whose faces would be cut out wrongly are refused."""
    spec = replace(METHODS["small_cnn"].card.input, margin=0.9)
    monkeypatch.setattr("fer_bench.infer.load", lambda name, track: SimpleNamespace(input_spec=spec))
    with pytest.raises(UserError, match="another input"):
        shelf.load_model("small_cnn")
