"""Starting from weights: which file is meant, what is taken over, what the record says, what is refused."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fer_bench import train, weights
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import load_dataset
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.evaluate import benchmark
from fer_bench.files import track_folder
from fer_bench.infer import load
from fer_bench.methods import METHODS
from fer_bench.options import Options
from fer_bench.protocols import TRACKS
from fer_bench.start import per_class, start_file, start_from
from fer_bench.train import Run, main
from fer_bench.weights import read_tensors, sha256, unpack, write_tensors
from tests.helpers import write_folder
from tests.test_train import tiny

METHOD = METHODS["deep_emotion"]
STILL = Recipe(name="still", epochs=2, batch_size=8, lr=1e-12)
"""Trains nothing, so that what comes out is what went in."""
FOUR = ("anger", "happiness", "sadness", "neutral")


def track_of(folder: Path) -> Track:
    name = f"folder:{folder}"
    return Track(name, name, name, (), trained_on=name)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A finished run on seven emotions."""
    return fit(track_of(write_folder(tmp_path / "seven")), tmp_path / "first")


def fit(track: Track, out: Path, method: str = "deep_emotion", **options: object) -> Path:
    return Run(METHODS[method], track, STILL, Options(device="cpu", **options), out).fit()


def test_training_goes_on_from_the_weights_and_says_so(first: Path, tmp_path: Path) -> None:
    """At a rate of nearly 0 the second run ends where the first did, not where its own seed begins."""
    track = track_of(tmp_path / "seven")
    second = fit(track, tmp_path / "second", start_from=str(first), seed=1)
    fresh = fit(track, tmp_path / "fresh", seed=1)
    found, record = read_tensors(second)
    expected, other = read_tensors(first)[0], read_tensors(fresh)[0]
    learned = [name for name in expected if name.endswith("weight")]
    assert all(torch.allclose(found[name].float(), expected[name].float(), atol=1e-3) for name in learned)
    assert not all(torch.allclose(found[name].float(), other[name].float(), atol=1e-3) for name in learned)
    name = track_folder(track.name)  # not the path of one's own pictures
    row = f"deep_emotion/{name}/still-s0"
    assert record["trained"]["earlier"] == {
        "weights": [f"{row} ({sha256(first)[:12]})"], "track": name, "epochs": 2, "pictures_seen": 56
    }  # fmt: skip
    assert read_tensors(fresh)[1]["trained"]["earlier"] is None


def test_where_the_first_weights_came_from_is_not_forgotten(first: Path, tmp_path: Path) -> None:
    """A third run names the second, then the first, and counts both; weights from outside that came first stay named.

    The result of an evaluation says the same.
    """
    track = track_of(tmp_path / "seven")
    tensors, record = read_tensors(first)
    record["trained"]["pretrained"] = "a guide"
    write_tensors(first, tensors, record)
    second = fit(track, tmp_path / "second", start_from=str(first))
    third = fit(track, tmp_path / "third", start_from=str(second))
    trained = read_tensors(third)[1]["trained"]
    earlier = trained["earlier"]
    assert [row.split(" (")[1] for row in earlier["weights"]] == [f"{sha256(f)[:12]})" for f in (second, first)]
    assert (earlier["epochs"], earlier["pictures_seen"], trained["pictures_seen"]) == (4, 112, 56)
    assert trained["pretrained"] == "a guide"
    model = load("deep_emotion", track.name, "still", runs=tmp_path / "third")
    found = benchmark(model, load_dataset(track.dataset, track.test)).trained
    assert (found.pretrained, asdict(found.earlier)) == ("a guide", earlier)


def test_rows_of_the_last_layer_go_by_the_emotions_name(first: Path, tmp_path: Path) -> None:
    """Four of seven emotions keep their rows, in whatever order; the row of an emotion that is new stays fresh."""
    emotions = (*FOUR, "contempt")
    torch.manual_seed(3)
    network = METHOD.build(5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start_from(first, METHOD, network, emotions, track_of(tmp_path))
    after, source = network.state_dict(), unpack(*_packed(first))
    names, others = per_class(METHOD, 7)
    assert (len(names), others) == (2, set())
    for name in after:
        if name not in names:
            assert torch.allclose(after[name].float(), source[name].float()), name
            continue
        for row, emotion in enumerate(emotions):
            expected = before[name][row] if emotion == "contempt" else source[name][SEVEN.index(emotion)]
            assert torch.allclose(after[name][row], expected), (name, emotion)


def _packed(path: Path) -> tuple[dict, dict]:
    tensors, record = read_tensors(path)
    return tensors, record["packing"]


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith(("vgg", "alexnet", "awei"))])
def test_every_method_tells_its_last_layer(name: str) -> None:
    """What grows with the classes has them first and nowhere else; otherwise rows could not be moved."""
    seven, five = METHODS[name].build(7).state_dict(), METHODS[name].build(5).state_dict()
    names, others = per_class(METHODS[name], 7)
    assert names
    assert not others
    for tensor in names:
        assert (seven[tensor].shape[0], five[tensor].shape[0]) == (7, 5)
        assert seven[tensor].shape[1:] == five[tensor].shape[1:]


class OddHead(nn.Module):
    """Three centres for each class, in one layer, and a matrix with the classes last."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.centres = tiny(4), nn.Linear(4, 3 * classes)
        self.matrix = nn.Parameter(torch.randn(4, classes))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.centres(features).unflatten(1, (-1, 3)).amax(2) + features @ self.matrix


def test_a_head_without_a_row_for_each_class_starts_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For other emotions nothing of it is taken over by a place that means another one, and it is said; else all is."""
    method = replace(METHOD, build=OddHead)
    track = track_of(write_folder(tmp_path / "seven"))
    path = Run(method, track, STILL, Options(device="cpu"), tmp_path / "first").fit()
    source = unpack(*_packed(path))
    torch.manual_seed(5)
    network = OddHead(4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    capsys.readouterr()
    start_from(path, method, network, FOUR, track)
    heads = {"centres.weight", "centres.bias", "matrix"}
    told = "centres.bias, centres.weight, matrix does not hold one row for each emotion"
    assert f"deep_emotion: {told}, so it starts fresh" in capsys.readouterr().err
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor.float(), (before if name in heads else source)[name].float(), atol=1e-6), name
    network = OddHead(7)
    start_from(path, method, network, SEVEN, track)
    assert torch.allclose(network.matrix, source["matrix"])
    assert capsys.readouterr().err == ""


def test_weights_of_another_option_are_no_start(first: Path, tmp_path: Path) -> None:
    """A grid's cell may have built a network of the same shapes that computes something else."""
    tensors, record = read_tensors(first)
    write_tensors(first, tensors, record | {"settings": {"method": "deep_emotion", "lr": 0.1, "tokens": False}})
    given = (METHOD, METHOD.build(7), SEVEN, track_of(tmp_path))
    with pytest.raises(UserError, match="of a network with tokens False, and this one has no options"):
        start_from(first, *given)
    assert start_from(first, *given, settings={"tokens": False, "lr": 1.0})["earlier"]


def test_an_option_at_its_usual_value_is_no_other_network(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that names what the method is built with anyway may start from its shipped weights, and no other cell."""

    def build(classes: int, tokens: bool = True) -> nn.Module:
        return METHOD.build(classes)

    method = replace(METHOD, build=build)
    monkeypatch.setitem(METHODS._entries, "deep_emotion", method)
    given = (first, method, build(7), SEVEN, track_of(tmp_path))
    assert start_from(*given, settings={"tokens": True})["earlier"]
    with pytest.raises(UserError, match="with no options, and this one has tokens False"):
        start_from(*given, settings={"tokens": False})


def test_shipped_is_the_track_s_own_file_or_else_fer2013_s(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`shipped` finds the track's weights; of a track without any it finds fer2013's; without those it says so."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(folder))
    track = track_of(tmp_path / "seven")
    with pytest.raises(UserError, match="deep_emotion has no shipped weights.*leave out --start-from"):
        start_file("shipped", METHOD, track, "common-v1")
    own = weights.add(first, folder)
    assert start_file("shipped", METHOD, track, "still") == own
    index = weights.read_index(folder)
    entry = index[next(iter(index))]
    general = folder / "general.safetensors"
    os.link(own, general)
    key = weights.index_key("deep_emotion", "fer2013", "common-v1", 0)
    weights.write_index({**index, key: {**entry, "file": general.name}}, folder)
    assert start_file("shipped", METHOD, track, "still") == own
    assert start_file("shipped", METHOD, track_of(tmp_path / "other"), "still") == general


def test_a_hash_is_a_start_too(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first digits of a shipped file's hash name it; other digits are no file and no weights of the method."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    own, track = weights.add(first, tmp_path / "weights"), track_of(tmp_path / "seven")
    assert start_file(weights.sha256(own)[:12], METHOD, track, "still") == own
    with pytest.raises(weights.WeightsError, match="no weights of deep_emotion with the hash 0123456789ab"):
        start_file("0123456789ab", METHOD, track, "still")
    with pytest.raises(weights.WeightsError, match="0123: there is no such weight file"):
        start_file("0123", METHOD, track, "still")


def test_a_killed_run_resumes_with_its_start_and_not_with_another(first: Path, tmp_path: Path) -> None:
    """--resume goes on with the same --start-from; with none, the checkpoint is another run's."""
    track = track_of(tmp_path / "seven")
    whole = read_tensors(fit(track, tmp_path / "second", start_from=str(first)))
    again = read_tensors(fit(track, tmp_path / "second", start_from=str(first), resume=True))
    assert again[1]["trained"] == whole[1]["trained"]
    with pytest.raises(UserError, match="another run"):
        fit(track, tmp_path / "second", resume=True)


def test_what_goes_on_from_weights_sees_pictures_in_an_order_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No epoch draws what one before it drew, of the same run or of one that its weights went through, not even a part
    of one that was cut; and resumed, it draws what it would have drawn."""
    track, draws = track_of(write_folder(tmp_path / "seven", per_class=2)), []
    original = train.augmented

    def watched(images: torch.Tensor, *given: object) -> torch.Tensor:
        if not draws or draws[-1] != given[-1].initial_seed():
            draws.append(given[-1].initial_seed())
        return original(images, *given)

    monkeypatch.setattr(train, "augmented", watched)
    first = fit(track, tmp_path / "first", seed=3)
    second = fit(track, tmp_path / "second", seed=3, start_from=str(first))
    assert draws == [300_009 + number for number in (0, 1, 3, 4)]
    draws.clear()
    cut = Run(
        METHOD, track, STILL, Options(device="cpu", seed=3, start_from=str(second), max_minutes=9), tmp_path / "3"
    )
    validate, clock = cut.validate, [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cut, "validate", lambda: (clock.append(clock.pop() + 1e9), validate())[1])
    third = cut.fit()
    clock[:] = [0.0]
    fit(track, tmp_path / "fourth", seed=3, start_from=str(third))
    assert draws == [300_009 + number for number in (6, 7, 8, 9)]
    draws.clear()
    monkeypatch.undo()
    monkeypatch.setattr(train, "augmented", watched)
    fit(track, tmp_path / "3", seed=3, start_from=str(second), resume=True)
    assert draws == [300_009 + 7]


def test_what_cannot_be_started_from_is_one_sentence(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, a checkpoint, another method's weights: exit code 2, the file's name, nothing written."""
    text = tmp_path / "notes.safetensors"
    text.write_text("no weights")
    cases = (
        ("deep_emotion", text, "notes.safetensors"),
        ("deep_emotion", tmp_path, "there is no such weight file"),
        ("deep_emotion", tmp_path / "nowhere.safetensors", "there is no such weight file"),
        ("deep_emotion", first.parent / "last.safetensors", "a checkpoint to resume from"),
        ("small_cnn", first, "these weights are deep_emotion's; small_cnn cannot start from them"),
    )
    data = f"folder:{tmp_path / 'seven'}"
    for method, path, says in cases:
        arguments = ["--method", method, "--track", data, "--start-from", str(path), "--out", str(tmp_path / "runs")]
        assert main([*arguments, "--device", "cpu"]) == 2
        error = capsys.readouterr().err.strip()
        assert says in error
        assert str(path) in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit) as caught:
        main(["--grid", "grid.yaml", "--start-from", "shipped"])
    assert caught.value.code == 2


@pytest.mark.parametrize(("of", "earlier"), [("fer2013-6", ()), ("rafdb", ("deep_emotion/ferplus/common-v1-s0 (0)",))])
def test_weights_that_were_selected_on_the_test_are_refused(first: Path, of: str, earlier: tuple[str, ...]) -> None:
    """PublicTest selects on FER2013's tracks and is tested on where both tests are one: no start leads from there to
    here, not by way of another track either; to FER2013 itself it does."""
    tensors, record = read_tensors(first)
    trained = record["trained"] | {"earlier": {"weights": list(earlier), "epochs": 1, "pictures_seen": 1}}
    write_tensors(first, tensors, record | {"track": of, "trained": trained})
    network = METHOD.build(7)
    with pytest.raises(UserError, match="were selected on PublicTest, which fer2013-6-merged tests on"):
        start_from(first, METHOD, network, SEVEN, TRACKS["fer2013-6-merged"])
    assert start_from(first, METHOD, network, SEVEN, TRACKS["fer2013"])["earlier"]["track"] == of
