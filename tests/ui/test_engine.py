"""What the tabs run, without a browser."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

import fer_bench
from fer_bench.datasets.rendered import render
from fer_bench.errors import UserError
from fer_bench.infer import logits
from fer_bench.methods import METHODS
from fer_bench.metrics import softmax
from fer_bench.registry import UnknownNameError
from fer_bench.results import read_result, write_result
from fer_bench.ui import about, app, engine
from fer_bench.weights import index_key, run_folder, write_index
from tests.test_leaderboard import made

ROOT = app.board_folder()


def stand_in(kilobytes: int) -> SimpleNamespace:
    """Something with a network of that size, which is all that a shelf looks at."""
    return SimpleNamespace(network=nn.ParameterList([nn.Parameter(np_zeros(kilobytes * 256))]))


def np_zeros(count: int) -> object:
    import torch

    return torch.zeros(count)


def drawn(emotion: str = "happiness", seed: int = 32) -> Image.Image:
    return Image.fromarray(render(emotion, 1.0, seed, 128)[0])


def test_starting_the_app_loads_no_weights() -> None:
    """A Space that wakes up pays for weights only when a visitor asks: building and warming up reads no weight file.

    `python app.py` imports neither torch nor gradio before it has understood its command line.
    """
    code = (
        "import sys\n"
        "sys.path.insert(0, '.')\n"
        "import app as entry\n"
        "from fer_bench.ui import app\n"
        "assert 'torch' not in sys.modules and 'gradio' not in sys.modules\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, given: event == 'open' and opened.append(str(given[0])))\n"
        "app.build()\n"
        "from fer_bench.ui import engine\n"
        "engine.warm()\n"
        "assert engine.SHELF.names() == []\n"
        "assert not [path for path in opened if path.endswith('.safetensors')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr


def test_choices_are_the_methods_with_weights_best_first() -> None:
    """The picker's order is that of the measured accuracy, and every shipped method is in it."""
    found = engine.choices(ROOT)
    accuracies = [choice.accuracy for choice in found if choice.accuracy is not None]
    assert accuracies == sorted(accuracies, reverse=True)
    from fer_bench.weights import read_index

    assert {c.name for c in found} == {e["method"] for e in read_index().values() if e["track"] == "fer2013"}
    assert engine.best(found) == [choice.name for choice in found[:5]]


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
    shown = {choice.name: choice.accuracy for choice in engine.choices(tmp_path)}
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
    assert engine.choices(ROOT) == []


def test_without_weights_the_app_opens_and_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tab is there, the page says what to do, and a question gets a sentence instead of an error."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    blocks = app.build(ROOT).blocks.values()
    assert [block.value for block in blocks if type(block).__name__ == "Markdown"].count(engine.NO_WEIGHTS) == 1
    run = run_folder(Path("runs"), "small_cnn", engine.TRACK, METHODS["small_cnn"].card.recipe, 0)
    assert f"`python -m fer_bench.weights add {run}`" in engine.NO_WEIGHTS
    pickers = [block for block in blocks if getattr(block, "label", None) in ("Method", "Methods")]
    assert len(pickers) == 3
    assert not any(picker.value for picker in pickers)
    for nothing in ([], [None]):
        with pytest.raises(UserError, match="at least one method"):
            engine.ask(print, nothing)


def test_what_the_about_tab_names_gives_the_apps_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python that the tab says gives the same figures does, on a photograph that is more than a face."""
    from skimage.data import astronaut

    Image.fromarray(astronaut()).save(tmp_path / "face.png")
    (tmp_path / "face.png").rename(tmp_path / "face.jpg")  # the name that the text has, without JPEG's loss
    monkeypatch.chdir(tmp_path)
    (named,) = re.findall(r"`(fer_bench\.load\(.*?face\.jpg\"\))`", about.TEXT)
    answers = eval(named, {"fer_bench": fer_bench})
    rows = engine.score([("face.jpg", Image.fromarray(astronaut()))], ["small_cnn"])
    assert len(answers) == len(rows) == 1
    for (face, scores), row in zip(answers, rows, strict=True):
        assert tuple(face.box) == tuple(row[edge] for edge in ("left", "top", "right", "bottom"))
        assert scores == pytest.approx({emotion: row[emotion] for emotion in scores}, abs=1e-4)


def test_choices_without_results(tmp_path: Path) -> None:
    """With no result on the board every method with weights can still be chosen, and the label says why no figure."""
    found = engine.choices(tmp_path)
    assert found
    assert all(choice.label.endswith("(no result yet)") for choice in found)


def test_a_broken_board_does_not_stop_the_app(tmp_path: Path) -> None:
    """With a broken card file and a broken result, the methods can still be chosen."""
    (tmp_path / "methods.json").write_text("{")
    broken = tmp_path / "results" / "fer2013" / "small_cnn"
    broken.mkdir(parents=True)
    (broken / "common-v1-s0.json").write_text("{}")
    assert "small_cnn" in {choice.name for choice in engine.choices(tmp_path)}


def test_shelf_keeps_within_its_bound() -> None:
    """The least recently used model leaves when the bound is passed; the one just asked for always stays."""
    shelf = engine.Shelf(lambda name: stand_in(int(name)), bound=100 * 1024)
    shelf["40"], shelf["50"]
    shelf["40"]
    shelf["30"]
    assert shelf.names() == ["40", "30"]
    shelf["500"]
    assert shelf.names() == ["500"]


def test_shelf_loads_once_for_visitors_at_once() -> None:
    """Ten visitors who ask for one method together wait for one load."""
    loads = []

    def load(name: str) -> SimpleNamespace:
        loads.append(name)
        time.sleep(0.05)
        return stand_in(1)

    shelf = engine.Shelf(load, bound=2**20)
    got: list = []
    threads = [threading.Thread(target=lambda: got.append(shelf["one"])) for _ in range(10)]
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

    shelf = engine.Shelf(load, bound=2**20)
    with pytest.raises(UserError):
        shelf["one"]
    assert shelf["one"] is shelf["one"]
    assert len(tries) == 2


def test_answers_are_those_of_the_shared_inference() -> None:
    """The app's probabilities are the softmax of `infer.logits` on the same crop, and come in the order asked for."""
    from fer_bench.faces import crop, stack

    picture, box = drawn(), (16, 16, 112, 112)
    answers = engine.answer(picture, box, ["deep_emotion", "small_cnn"])
    assert [a.method for a in answers] == ["deep_emotion", "small_cnn"]
    for answer in answers:
        model = fer_bench.load(answer.method)
        face = crop(picture, box, model.input_spec.margin)
        expected = softmax(logits(model, stack([face], model.input_spec.size)))[0]
        np.testing.assert_allclose([answer.scores[e] for e in model.emotions], expected, atol=1e-5)
        assert answer.explained == answer.emotion
        assert answer.overlay.size == (engine.SIDE, engine.SIDE)
        assert answer.milliseconds > 0


def test_the_target_changes_the_overlay_not_the_answer() -> None:
    """A chosen target emotion is what the heat is about; the probabilities stay as they were."""
    first = engine.answer(drawn(), None, ["small_cnn"])[0]
    second = engine.answer(drawn(), None, ["small_cnn"], target="fear")[0]
    assert second.explained == "fear" != first.explained
    assert first.scores == pytest.approx(second.scores, abs=1e-6)
    assert np.abs(np.asarray(first.overlay, int) - np.asarray(second.overlay, int)).max() > 20


def test_opacity_zero_is_the_bare_face() -> None:
    """Without overlay the picture shown is the face itself."""
    picture = drawn()
    shown = engine.answer(picture, None, ["small_cnn"], opacity=0.0)[0].overlay
    plain = picture.convert("RGB").resize((engine.SIDE, engine.SIDE), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(shown, int) - np.asarray(plain, int)).mean() < 3


def test_no_method_and_an_unknown_one_are_said() -> None:
    """Choosing nothing gets a sentence, a name that does not exist gets the valid ones."""
    with pytest.raises(UserError, match="at least one method"):
        engine.answer(drawn(), None, [])
    with pytest.raises(UnknownNameError, match="Did you mean 'small_cnn'"):
        engine.answer(drawn(), None, ["smal_cnn"])


def test_scores_are_predicts_and_the_csv_too(tmp_path: Path) -> None:
    """The table to download is byte for byte what `python -m fer_bench.predict` writes for the same picture."""
    from fer_bench import predict

    path = tmp_path / "face.png"
    drawn().save(path)
    assert predict.main([str(path), "-o", str(tmp_path / "theirs.csv"), "--method", "small_cnn", "deep_emotion"]) == 0
    rows = engine.score([(str(path), Image.open(path))], ["small_cnn", "deep_emotion"])
    ours = engine.write_csv(rows, engine.emotions_in(rows), tmp_path / "ours.csv")
    assert ours.read_text() == (tmp_path / "theirs.csv").read_text()


def test_downloads_do_not_stay() -> None:
    """The folder of a visitor's download is gone after its time."""
    with engine.folder_for(0.2) as folder:
        (folder / "scores.csv").write_text("a face")
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_the_inference_is_marked_for_a_borrowed_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package `spaces` is installed its decorator is put on the one inference function, elsewhere nothing is.

    Whatever a tab asks goes through that function, so that forward, backward and CAM are in one call.
    """
    spaces = ModuleType("spaces")
    spaces.__spec__ = ModuleSpec("spaces", None)
    marked, calls = [], []

    def lent(function: Callable) -> Callable:
        marked.append(function.__name__)

        def counted(*arguments: object) -> object:
            calls.append(arguments[1])
            return function(*arguments)

        return counted

    spaces.GPU = lent
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    spec = spec_from_file_location("engine_on_a_space", engine.__file__)
    there = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, there)
    spec.loader.exec_module(there)
    assert marked == ["ask"]
    assert there.answer(drawn(), None, ["deep_emotion"], "hirescam")[0].overlay.size == (engine.SIDE, engine.SIDE)
    assert len(there.score([("face.png", drawn())], ["deep_emotion", "small_cnn"])) == 2
    assert calls == [["deep_emotion"], ["deep_emotion", "small_cnn"]]
    monkeypatch.delitem(sys.modules, "spaces")
    if importlib.util.find_spec("spaces") is None:
        assert engine.on_gpu(np.mean) is np.mean
