"""What the tabs run, without a browser."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import fer_bench
from fer_bench.datasets.rendered import render
from fer_bench.errors import UserError
from fer_bench.infer import logits
from fer_bench.methods import METHODS
from fer_bench.metrics import softmax
from fer_bench.registry import UnknownNameError
from fer_bench.ui import about, app, engine, shelf
from fer_bench.weights import run_folder

ROOT = app.board_folder()


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
        "from fer_bench.ui import engine, shelf\n"
        "engine.warm()\n"
        "assert shelf.SHELF.names() == []\n"
        "assert not [path for path in opened if path.endswith('.safetensors')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr


def test_without_weights_the_app_opens_and_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tab is there, the page says what to do, and a question gets a sentence instead of an error."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))
    blocks = app.build(ROOT).blocks.values()
    assert [block.value for block in blocks if type(block).__name__ == "Markdown"].count(shelf.NO_WEIGHTS) == 1
    run = run_folder(Path("runs"), "small_cnn", shelf.TRACK, METHODS["small_cnn"].card.recipe, 0)
    assert f"`python -m fer_bench.weights add {run}`" in shelf.NO_WEIGHTS
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


def test_answers_are_those_of_the_shared_inference() -> None:
    """The app's probabilities are the softmax of `infer.logits` on the same crop, and come in the order asked for."""
    from fer_bench.faces import crop, stack

    picture, box = drawn(), (16, 16, 112, 112)
    answers, problems = engine.answer(picture, box, ["deep_emotion", "small_cnn"])
    assert problems == []
    assert [a.method for a in answers] == ["deep_emotion", "small_cnn"]
    for answer in answers:
        model = fer_bench.load(answer.method)
        face = crop(picture, box, model.input_spec.margin)
        expected = softmax(logits(model, stack([face], model.input_spec.size)))[0]
        np.testing.assert_allclose([answer.scores[e] for e in model.emotions], expected, atol=1e-5)
        assert answer.explained == answer.emotion
        assert answer.overlay.size == (engine.SIDE, engine.SIDE)
        assert not answer.empty


def test_the_target_changes_the_overlay_not_the_answer() -> None:
    """A chosen target emotion is what the heat is about; the probabilities stay as they were."""
    ((first,), _) = engine.answer(drawn(), None, ["small_cnn"])
    ((second,), _) = engine.answer(drawn(), None, ["small_cnn"], target="fear")
    assert second.explained == "fear" != first.explained
    assert first.scores == pytest.approx(second.scores, abs=1e-6)
    assert np.abs(np.asarray(first.overlay, int) - np.asarray(second.overlay, int)).max() > 20


def test_opacity_zero_is_the_bare_face() -> None:
    """Without overlay the picture shown is the face itself."""
    picture = drawn()
    ((answer,), _) = engine.answer(picture, None, ["small_cnn"], opacity=0.0)
    shown = answer.overlay
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

    Whatever a tab asks goes through that function, so that forward, backward and CAM are in one call. The decorator is
    told how long a GPU is wanted, which covers a clip's bound there. A question without a known method lends none; what
    a job says is wrong comes back, though `spaces` itself gives nothing of an exception but its class.
    """
    spaces = ModuleType("spaces")
    spaces.__spec__ = ModuleSpec("spaces", None)
    marked, calls = [], []

    def lent(task: Callable | None = None, *, duration: int | None = None) -> Callable:
        def mark(function: Callable) -> Callable:
            marked.append((function.__name__, duration))

            def counted(*arguments: object) -> object:
                calls.append(arguments[1])
                try:
                    return function(*arguments)
                except Exception as error:
                    raise RuntimeError(f"ZeroGPU worker error: {type(error).__name__}") from None

            return counted

        return mark(task) if task else mark

    spaces.GPU = lent
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    spec = spec_from_file_location("engine_on_a_space", engine.__file__)
    there = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, there)
    spec.loader.exec_module(there)
    assert marked == [("_answered", there.LENT_SECONDS)]
    ((answer,), _) = there.answer(drawn(), None, ["deep_emotion"], "hirescam")
    assert answer.overlay.size == (engine.SIDE, engine.SIDE)
    assert len(there.score([("face.png", drawn())], ["deep_emotion", "small_cnn"])) == 2
    assert calls == [["deep_emotion"], ["deep_emotion", "small_cnn"]]
    for methods, sentence in (([], "at least one method"), (["smal_cnn"], "Did you mean 'small_cnn'")):
        with pytest.raises((UserError, KeyError), match=sentence):
            there.answer(drawn(), None, methods)
    assert len(calls) == 2
    with pytest.raises(UserError, match=r"clip\.mp4.*there is no such file"):
        there.read_clip(Path("clip.mp4"), Path("out.mp4"), "small_cnn", 4, 9, None)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert there.clip_seconds() == there.CLIP_SECONDS < there.LENT_SECONDS
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert there.clip_seconds() == there.MOST_SECONDS
    monkeypatch.delitem(sys.modules, "spaces")
    if importlib.util.find_spec("spaces") is None:
        assert engine.on_gpu(np.mean) is np.mean


def test_one_name_alone_is_one_method() -> None:
    """Whoever gives a program's question a name instead of a list of names gets that method's answer."""
    assert engine.chosen("small_cnn") == ["small_cnn"]
    assert {row["method"] for row in engine.score([("face.png", drawn())], "small_cnn")} == {"small_cnn"}
    with pytest.raises(UnknownNameError, match="no method 's'"):
        engine.chosen("s")
