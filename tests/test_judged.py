"""What can be judged: one's own network, weights that are pinned on the Hub, and over which emotions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fer_bench
from fer_bench import costs, judged, leaderboard, robustness
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import duplicated_in
from fer_bench.datasets.rendered import draw_split
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.errors import UserError
from fer_bench.evaluate import judge, main
from fer_bench.explain import explain
from fer_bench.infer import load
from fer_bench.judged import duplicates_in_train, recorded, widened
from fer_bench.methods import METHODS
from fer_bench.protocols import track_named
from fer_bench.results import read_result, read_results, write_result
from fer_bench.runtime import OnnxModel
from fer_bench.train import Options, Run
from tests.helpers import write_folder

SPEC = fer_bench.InputSpec(48, 1, (0.5,), (0.25,))


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures are drawn, nothing is timed: both take longer than what is tested."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (7 emotions, none of disgust in test) and `runs` (deep_emotion trained on it)."""
    base = tmp_path_factory.mktemp("judged")
    name = f"folder:{write_folder(base / 'data')}"
    shutil.rmtree(base / "data" / "test" / "disgust")
    recipe = Recipe(name="common-v1", epochs=1, batch_size=8)
    Run(METHODS["deep_emotion"], track_named(name), recipe, Options(device="cpu"), base / "runs").fit()
    return base


def own(**changes: object) -> fer_bench.Model:
    """A network of nobody's, under emotions in an order and a spelling of its own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7))
    emotions = ("happy", "angry", "disgust", "fear", "sad", "surprise", "neutral")
    return replace(fer_bench.Model("mine", network, SPEC, emotions), **changes)


def test_ones_own_network_is_judged(tmp_path: Path) -> None:
    """Wrapped with its input and emotions alone, it gets a whole result that says how little is known, and is kept."""
    faces, model = draw_split("test", 35), own()
    result = fer_bench.benchmark(model, faces)
    assert (result.method, result.recipe, result.trained.track) == ("mine", "own", "own")
    assert not result.trained.complete
    assert (result.emotions, result.shared_emotions_only) == (SEVEN, False)
    assert result.weights.storage == "float32"
    assert result.weights.bytes == result.cost.checkpoint_bytes == 4 * (48 * 48 * 7 + 7)
    answers = model.predict(list(faces.images))
    names = dict(zip(model.emotions, ("happiness", "anger", *SEVEN[1:3], "sadness", *SEVEN[5:]), strict=True))
    right = [names[max(one, key=one.get)] == SEVEN[label] for one, label in zip(answers, faces.labels, strict=True)]
    assert result.metrics["accuracy"].value == pytest.approx(np.mean(right))
    assert read_result(write_result(result, tmp_path)) == result
    assert (fer_bench.benchmark(model, "rendered").track, model.record) == ("rendered", {})


def test_networks_are_told_apart_by_their_weights() -> None:
    """The hash that stands for the file is the same for the same weights, of any type, and for no others."""
    first, second = (recorded(own()).record["sha256"] for _ in range(2))
    assert first == second
    other = own()
    with torch.no_grad():
        other.network[1].bias[0] += 1
    assert recorded(other).record["sha256"] != first
    other.network.to(torch.bfloat16)
    assert recorded(other).record["bytes"] == 2 * (48 * 48 * 7 + 7)


def test_what_cannot_be_judged_says_how_to_wrap_it() -> None:
    """A bare network, and emotions that are none, are one sentence each."""
    faces = draw_split("test", 14)
    with pytest.raises(UserError, match=r"a Sequential does not say .* wrap it: fer_bench\.Model\('my_netw"):
        fer_bench.benchmark(own().network, faces)
    with pytest.raises(UserError, match="mine: unknown emotion 'bored'"):
        fer_bench.benchmark(own(emotions=("happy", "bored")), faces)
    with pytest.raises(UserError, match="mine: several of its outputs are happiness"):
        fer_bench.benchmark(own(emotions=("happy", "joy", "disgust", "fear", "sad", "surprise", "neutral")), faces)
    with pytest.raises(UserError, match="the name 'MyNet-v2' may hold small letters"):
        fer_bench.benchmark(own(name="MyNet-v2"), faces)
    with pytest.raises(UserError, match="mine has no parameters in torch"):
        fer_bench.benchmark(own(network=nn.Flatten()), faces)


@pytest.mark.parametrize("faces", [draw_split("test", 14), draw_split("test", 14).restrict(FOUR)])
def test_probabilities_are_refused_as_in_submissions(faces: fer_bench.FaceSet) -> None:
    """Their softmax would give a false NLL and ECE; also over fewer emotions. Their logarithms are logits as any."""
    network = own().network
    plain = fer_bench.benchmark(own(), faces)
    told = "^mine answers with probabilities, not logits; remove its last Softmax or make it LogSoftmax.$"
    with pytest.raises(UserError, match=told):
        fer_bench.benchmark(own(network=nn.Sequential(network, nn.Softmax(1))), faces)
    with pytest.raises(UserError, match=told):  # here it would make all of them much alike
        own(network=nn.Sequential(network, nn.Softmax(1))).predict(faces.images)
    result = fer_bench.benchmark(own(network=nn.Sequential(network, nn.LogSoftmax(1))), faces)
    assert result.metrics["nll"].value == pytest.approx(plain.metrics["nll"].value)


def test_judging_leaves_the_network_as_it_was() -> None:
    """Still in training mode, so that it can be trained on; one whose weights are all held fixed has a size as well."""
    model, faces = own(), draw_split("test", 14)
    model.network.train().requires_grad_(False)
    result = fer_bench.benchmark(model, faces)
    assert all(module.training for module in model.network.modules())
    assert result.cost.parameters == 48 * 48 * 7 + 7


def test_an_emotion_that_the_test_lacks_stays_among_the_answers(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights trained on these very pictures are scored over all that they tell, by the command and by name alike."""
    track = f"folder:{base / 'data'}"
    model, faces = load("deep_emotion", track, runs=base / "runs"), fer_bench.load_dataset(track)
    assert faces.emotions == tuple(emotion for emotion in SEVEN if emotion != "disgust")
    last = next(layer for layer in reversed(list(model.network.modules())) if isinstance(layer, nn.Linear))
    with torch.no_grad():
        last.bias[SEVEN.index("disgust")] += 100  # it says disgust of every face
    result = fer_bench.benchmark(model, track)
    assert (result.emotions, result.shared_emotions_only) == (SEVEN, False)
    assert result.metrics["accuracy"].value == 0
    assert result.data.notes == ["the test split has no pictures labelled disgust"]
    assert set(result.per_class_recall) == set(faces.emotions)
    assert judge(model, faces, Track(track, track, track, (), "fer2013")).result.emotions == faces.emotions

    command = ["--method", "deep_emotion", "--track", track, "--runs", str(base / "runs"), "--out", str(tmp_path)]
    assert main([*command, "--robustness"]) == 0
    (found,) = read_results(tmp_path)
    assert (found.emotions, found.data.test_pictures, found.robustness.pictures) == (SEVEN, 24, 24)
    assert found.data.hash == result.data.hash


def test_robustness_alone_is_over_the_same_emotions(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of its own asks as much as `evaluate --robustness` does."""
    seen = []

    def noted(_model: fer_bench.Model, faces: fer_bench.FaceSet, *_: object, **__: object) -> None:
        seen.append(faces.emotions)
        raise UserError("enough")

    monkeypatch.setattr(robustness, "measure_robustness", noted)
    track = f"folder:{base / 'data'}"
    assert robustness.main(["--method", "deep_emotion", "--track", track, "--runs", str(base / "runs")]) == 2
    assert seen == [SEVEN]


def test_a_transfer_is_scored_over_what_is_shared(base: Path, tmp_path: Path) -> None:
    """Pictures that the weights were not trained on, and tracks with emotions of their own, stay as they are."""
    track = f"folder:{base / 'data'}"
    model = load("deep_emotion", track, runs=base / "runs")
    other = f"folder:{write_folder(tmp_path / 'other', emotions=FOUR, splits=False)}"
    assert fer_bench.benchmark(model, other).emotions == FOUR
    four = fer_bench.load_dataset(track).restrict(FOUR)
    assert widened(four, model, Track(track, track, track, FOUR, track)).emotions == FOUR
    assert widened(four, model, Track(track, track, track, (), track)).emotions == SEVEN


def test_a_folder_written_in_another_way_is_the_same_row(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged as ./data what was trained as /.../data: one record, of one's own weights."""
    monkeypatch.chdir(base)
    for written in ("./data", str(base / "data")):
        command = ["--method", "deep_emotion", "--track", f"folder:{written}", "--runs", "runs"]
        assert main([*command, "--out", str(tmp_path)]) == 0
    (result,) = read_results(tmp_path)
    assert result.track == result.trained.track == f"folder:{base / 'data'}"
    assert result.data.duplicates_in_train == 0
    command = ["--method", "deep_emotion", "deep_emotion_parallel", "--track", "folder:./data", "--runs", "runs"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    shipped, own_run = sorted(read_results(tmp_path), key=lambda result: result.trained.track)
    assert (shipped.method, shipped.trained.track) == ("deep_emotion_parallel", "fer2013")
    assert shipped.track == own_run.track == f"folder:{base / 'data'}"
    assert main([*command, "--out", str(tmp_path), "--costs"]) == 0


def test_by_name_duplicates_are_searched_for(tmp_path: Path) -> None:
    """As the command does: for weights of the very track, and for no others."""
    folder = write_folder(tmp_path / "data")
    (folder / "test" / "fear" / "0.png").write_bytes((folder / "train" / "fear" / "0.png").read_bytes())
    model = recorded(own())
    model.record["track"] = f"folder:{folder}"
    result = fer_bench.benchmark(model, f"folder:{folder}")
    assert result.data.duplicates_in_train == 1
    assert "accuracy_without_duplicates" in result.metrics
    model.record["track"] = "fer2013"
    assert fer_bench.benchmark(model, f"folder:{folder}").data.duplicates_in_train is None


def test_multiply_accumulates_that_cannot_be_counted_are_not_known() -> None:
    """Of what computes elsewhere, as a submission's process does: they are none in the record, and not 0."""

    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy()[:, 0, 0, :7])

    found = costs.cost(recorded(own(network=Elsewhere())))
    assert (found.macs, costs.for_passes(found, 2).macs) == (None, None)


def test_what_runs_in_onnx_runtime_is_judged_and_explained_as_what_it_was_made_from() -> None:
    """A model of `onnx_model`, with the torch model's record, is refused at once, and told the mend."""

    class Elsewhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it was asked before it was refused")

    whole = load("small_cnn")
    theirs = OnnxModel(whole.name, Elsewhere(), whole.input_spec, whole.emotions, whole.record, whole.path)
    faces = draw_split("test", 14)
    with pytest.raises(UserError, match="small_cnn has no parameters in torch; judge the torch model that it was made"):
        fer_bench.benchmark(theirs, faces)
    with pytest.raises(UserError, match="small_cnn has no parameters in torch.* explain the torch model"):
        explain(theirs, faces.images[:1])


def test_no_training_split_is_read_for_duplicates_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing rendered's 2,100 training faces takes longer than judging: its splits share no person."""
    faces, track = draw_split("test", 7), track_named("rendered")
    monkeypatch.setattr(judged, "load_dataset", lambda *_: pytest.fail("the training split was drawn"))
    assert not duplicates_in_train(faces, track, "rendered")[0].any()
    assert not duplicated_in(faces, draw_split("train", 7)).any()
