"""Loading and predicting."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fer_bench
from fer_bench import infer
from fer_bench.cards import InputSpec, Recipe, Track
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.faces import UnreadablePictureError
from fer_bench.infer import Model, full_precision, load, logits, usual_recipe
from fer_bench.judged import recipes_here
from fer_bench.methods import METHODS, build
from fer_bench.protocols import track_named
from fer_bench.registry import UnknownNameError
from fer_bench.train import Options, Run
from fer_bench.transforms import to_input
from fer_bench.weights import (
    WeightsError,
    add,
    index_key,
    pack,
    read_index,
    read_tensors,
    record_of,
    weights_folder,
    write_index,
    write_tensors,
)
from tests.helpers import picture, write_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(training output folder, track) of deep_emotion trained for one epoch."""
    base = tmp_path_factory.mktemp("trained")
    name = f"folder:{write_folder(base / 'data', per_class=2)}"
    recipe = Recipe(name="common-v1", epochs=1, batch_size=8)
    Run(METHODS["deep_emotion"], Track(name, name, name, (), name), recipe, Options(device="cpu"), base / "runs").fit()
    return base / "runs", name


@pytest.fixture
def model(trained: tuple[Path, str]) -> Model:
    return load("deep_emotion", trained[1], runs=trained[0])


def test_predict_gives_probabilities_per_emotion_for_every_kind_of_picture(model: Model, tmp_path: Path) -> None:
    """The same face as array, PIL image, path and bytes gets the same answer, which sums to 1 over the emotions."""
    pixels = picture(3, 0)
    path = tmp_path / "face.png"
    Image.fromarray(pixels).save(path)
    kinds = [pixels, Image.fromarray(pixels), path, str(path), path.read_bytes(), pixels.astype(np.float64) / 255]
    answers = model.predict(kinds)
    assert len(answers) == len(kinds)
    for answer in answers:
        assert tuple(answer) == model.emotions
        assert sum(answer.values()) == pytest.approx(1, abs=1e-6)
        assert answer == pytest.approx(answers[0], abs=1e-6)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 6)), r"torch.Size\(\[1, 6\]\)"),
        (nn.Conv2d(1, 7, 48), r"torch.Size\(\[1, 7, 1, 1\]\)"),
        (nn.LSTM(48, 7, batch_first=True), "tuple"),
    ],
)
def test_a_network_that_gives_no_logit_per_emotion_is_refused(network: nn.Module, found: str) -> None:
    """With what it gave and what it must give, whoever asks it."""

    class Of(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> object:
            return self.inner(x[:, 0] if isinstance(self.inner, nn.LSTM) else x)

    mine = Model("mine", Of(), InputSpec(48, 1, (0.5,), (0.25,)), SEVEN)
    told = rf"mine must answer 1 picture\(s\) with a tensor \(1, 7\), a logit for each of anger, .*, not with {found}"
    with pytest.raises(UserError, match=told):
        mine.predict(picture(1, 1))


def test_predict_takes_a_single_picture(model: Model) -> None:
    """One picture that is not in a list gives a list of one."""
    assert model.predict(picture(1, 1)) == model.predict([picture(1, 1)])


def test_predict_takes_arrays_of_many_pictures_and_whatever_yields_pictures(model: Model) -> None:
    """(N, H, W), (N, H, W, 1), (N, H, W, 3), a generator and a tuple of faces get the answers of a list of them."""
    faces = np.stack([picture(label, label) for label in range(7)])
    wanted = model.predict(list(faces))
    coloured = np.repeat(faces[..., None], 3, axis=3)
    for given in (faces, faces[..., None], coloured, (face for face in faces), tuple(faces), iter(faces)):
        assert [answer["anger"] for answer in model.predict(given, batch_size=3)] == pytest.approx(
            [answer["anger"] for answer in wanted], abs=1e-5
        )
    assert model.predict(coloured[0]) == model.predict([coloured[0]])
    assert model.predict(faces[:0]) == model.predict([]) == []


def test_predict_refuses_what_it_would_misread(model: Model, tmp_path: Path) -> None:
    """An open file is one picture; two channels are no picture and no batch; a batch holds at least one picture."""
    path = tmp_path / "face.png"
    Image.fromarray(picture(2, 2)).save(path)
    named = np.array([str(path), path], dtype=object)
    with path.open("rb") as file:
        for given in (file, BytesIO(path.read_bytes()), bytearray(path.read_bytes()), named[:1]):
            assert model.predict(given) == model.predict(path)
    assert len(model.predict(named)) == 2
    with pytest.raises(UnreadablePictureError, match="the array"):
        model.predict(np.zeros((48, 48, 2), np.uint8))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {size}"):
            model.predict(path, batch_size=size)


def test_a_network_without_weights_of_torchs_answers(tmp_path: Path) -> None:
    """One that computes elsewhere, as another runtime's does, is on the CPU."""

    class Brightness(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))[:, None] * torch.arange(7)

    model = Model("own", Brightness(), InputSpec(8, 1, (0.0,), (1.0,)), SEVEN)
    assert model.device == torch.device("cpu")
    (answer,) = model.predict(np.full((1, 8, 8), 255, np.uint8))
    assert max(answer, key=answer.get) == SEVEN[-1]
    assert infer.macs(model.network, model.input_spec) == 0


def test_pictures_may_be_views_in_another_order(model: Model) -> None:
    """OpenCV's BGR turned to RGB by slicing has negative strides, which torch does not take."""
    colours = np.stack([picture(1, seed) for seed in range(3)])[..., None].repeat(3, 3)
    colours[..., 0] //= 2
    expected = logits(model, np.ascontiguousarray(colours[..., ::-1]))
    assert np.array_equal(logits(model, colours[..., ::-1]), expected)


def test_inference_keeps_full_precision_and_gives_the_setting_back(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 is off for convolutions while a GPU computes logits and, after them or after an error, as it was before."""
    asked, convolutions = [], torch.backends.cudnn.conv
    with monkeypatch.context() as patch:
        patch.setattr(infer, "full_precision", lambda device: asked.append(device) or nullcontext())
        logits(model, picture(1, 1)[None])
    assert asked == [model.device]
    with full_precision(torch.device("cpu")):
        assert convolutions.fp32_precision == "tf32"
    with full_precision(torch.device("cuda")):
        assert convolutions.fp32_precision == "ieee"
    first, second = full_precision(torch.device("cuda")), full_precision(torch.device("cuda"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as another thread's that is done first
    assert convolutions.fp32_precision == "ieee"
    second.__exit__(None, None, None)
    assert convolutions.fp32_precision == "tf32"
    with pytest.raises(RuntimeError, match="broken"), full_precision(torch.device("cuda")):
        raise RuntimeError("broken")
    assert convolutions.fp32_precision == "tf32"


def test_a_text_file_named_jpg_is_named(model: Model, tmp_path: Path) -> None:
    """What is no picture raises one clear sentence with its path."""
    path = tmp_path / "note.jpg"
    path.write_text("hello")
    with pytest.raises(UnreadablePictureError, match="note.jpg"):
        model.predict(path)


def test_one_bad_picture_need_not_cost_the_others(model: Model, tmp_path: Path) -> None:
    """With unreadable="skip" its place holds None and the others their answers; another word is refused."""
    path = tmp_path / "note.jpg"
    path.write_text("hello")
    faces = [picture(label, label) for label in range(4)]
    given = [path, *faces[:2], tmp_path / "none.png", *faces[2:]]
    answers = model.predict(given, batch_size=2, unreadable="skip")
    assert [answer is None for answer in answers] == [True, False, False, True, False, False]
    assert [one for one in answers if one] == [pytest.approx(one, abs=1e-6) for one in model.predict(faces)]
    assert model.predict([path], unreadable="skip") == [None]
    with pytest.raises(ValueError, match="unreadable must be 'raise' or 'skip', not 'ignore'"):
        model.predict(faces, unreadable="ignore")


def test_three_grey_pictures_are_not_one_in_colour(model: Model) -> None:
    """Channels come last: an array (3, H, W) is a batch like one of two or four, as documented."""
    faces = np.stack([picture(label, label) for label in range(3)])
    assert model.predict(faces) == model.predict(list(faces))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_is_waited_for_before_the_clock_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NVIDIA's and Apple's a call returns before the answer is there."""
    clock = iter(range(100))
    said: list[str] = []
    monkeypatch.setattr(infer.time, "perf_counter", lambda: said.append("clock") or next(clock))
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda: said.append("waited"))
    face = SimpleNamespace(device=torch.device(kind))
    assert infer._seconds(lambda _: said.append("called"), face) == 1
    assert said == ["clock", "called", "waited", "clock"]


def test_logits_do_not_depend_on_the_batch_size(model: Model) -> None:
    """Batches of 1, 3 and 64 give the same float32 logits, and the network is left in the mode it was in."""
    images = np.stack([picture(label, label) for label in range(7)])
    whole = logits(model, images, 64)
    assert whole.dtype == np.float32
    assert np.allclose(logits(model, images, 1), whole, atol=1e-5)
    assert np.allclose(logits(model, images, 3), whole, atol=1e-5)
    model.network.train()
    again = logits(model, images, 64)
    assert np.array_equal(again, whole)
    assert model.network.training


def test_logits_are_the_networks_own(model: Model) -> None:
    """The loop adds nothing: network(to_input(images)) is what it returns."""
    images = np.stack([picture(label, label) for label in range(3)])
    with torch.inference_mode():
        expected = model.network(to_input(torch.from_numpy(images), model.input_spec)).numpy()
    assert np.allclose(logits(model, images), expected, atol=1e-6)


def test_no_pictures_give_no_logits(model: Model) -> None:
    """An empty set is answered with an array of no rows and as many columns as emotions."""
    assert logits(model, np.zeros((0, 48, 48), np.uint8)).shape == (0, 7)


def test_missing_weights_name_the_command_that_makes_them() -> None:
    """A method without weights says how to train them."""
    with pytest.raises(WeightsError, match="python -m fer_bench.train --method vgg16 --track ferplus"):
        load("vgg16", "ferplus")


def test_runs_that_are_not_there_are_wrong_use(tmp_path: Path) -> None:
    """A misspelt folder of runs is said, not passed over in favour of the shipped weights."""
    with pytest.raises(WeightsError, match="typo: there is no such folder of training runs"):
        load("deep_emotion", runs=tmp_path / "typo")


def test_runs_without_the_weights_never_give_the_shipped_ones(trained: tuple[Path, str], tmp_path: Path) -> None:
    """What a given folder of runs lacks is said, with the options of what it holds; nothing else answers instead."""
    runs, track = trained
    with pytest.raises(WeightsError) as refused:
        load("deep_emotion", runs=runs)
    assert str(refused.value).startswith(f"{runs} holds no weights of deep_emotion for fer2013 (common-v1, seed 0), ")
    assert f"but deep_emotion --track {track} --recipe common-v1 --seed 0. Ask for these" in str(refused.value)
    with pytest.raises(
        WeightsError, match=r"small_cnn for folder:.* or fer2013 .*, nor any finished run; give another folder"
    ):
        load("small_cnn", track, runs=tmp_path)


def test_own_pictures_are_the_same_however_their_path_is_written(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on folder:PATH is found by any other way to write the path, and by no other folder's or kind's."""
    runs, track = trained
    base = runs.parent
    monkeypatch.chdir(base)
    (base / "link").symlink_to("data")
    for written in ("data", "./data", "data/", "../" + base.name + "/data", "link"):
        assert load("deep_emotion", f"folder:{written}", runs=runs).record["track"] == track
    for other in ("folder:data/train", "csv:data"):
        with pytest.raises(WeightsError, match="holds no weights of deep_emotion for"):
            load("deep_emotion", other, runs=runs)


def test_what_runs_hold_comes_before_what_is_shipped(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the runs are of the track that another is a transfer of, and weights of the other are shipped."""
    runs, track = trained
    tensors, record = read_tensors(load("deep_emotion", track, runs=runs).path)
    target = tmp_path / "runs" / "fer2013" / "deep_emotion" / "common-v1-s0" / "model.safetensors"
    write_tensors(target, tensors, record | {"track": "fer2013"})
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "weights"))
    write_tensors(tmp_path / "source.safetensors", tensors, record | {"track": "rendered"})
    add(tmp_path / "source.safetensors")
    assert load("deep_emotion", "rendered", runs=tmp_path / "runs").path == target
    assert load("deep_emotion", "rendered").record["track"] == "rendered"


def test_unknown_names_are_explained() -> None:
    """A misspelt method or track gives the nearest name."""
    with pytest.raises(KeyError, match="Did you mean 'small_cnn'"):
        load("small-cnn")
    with pytest.raises(KeyError, match="Did you mean 'fer2013'"):
        load("small_cnn", "fer-2013")


def test_a_recipe_that_does_not_exist_is_not_to_be_trained() -> None:
    """A misspelt one gives the nearest name, one that the method's paper lacks is said, and no command is named."""
    with pytest.raises(KeyError, match="there is no recipe 'comon'. Did you mean 'common-v1'") as refused:
        load("small_cnn", recipe="comon")
    assert "fer_bench.train" not in str(refused.value)
    with pytest.raises(UserError, match="resnet18 has no recipe of its own in its paper"):
        load("resnet18", recipe="paper")
    with pytest.raises(WeightsError, match="python -m fer_bench.train --method small_cnn --track fer2013 --recipe str"):
        load("small_cnn", recipe="strong-v1", seed=7)


def test_without_a_recipe_the_weights_are_those_that_read_best_on_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the track's own rows; the card's where none is better, where there are none, and in --runs."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path))

    def enter(track: str, seed: int, **read: float | None) -> None:
        for recipe, value in read.items():
            row = {"method": "reference_tiny", "track": track, "recipe": recipe.replace("_", "-"), "seed": seed}
            name = "-".join(map(str, row.values()))
            (tmp_path / name).write_bytes(b"x")
            entry = {**row, "file": name, "bytes": 1, "sha256": "0" * 64, "hub": None, "revision": None}
            index[index_key(**row)] = entry if value is None else entry | {"validation": value}
        write_index(index, tmp_path)

    def usual(track: str, seed: int = 0) -> str:
        return usual_recipe("reference_tiny", track_named(track), seed)

    index: dict[str, dict] = {}
    assert usual("fer2013") == "light-v1"  # none is shipped
    enter("fer2013", 0, common_v1=0.5, light_v1=0.6, strong_v1=0.7)
    enter("fer2013", 1, common_v1=0.9)
    enter("ferplus", 0, common_v1=0.6, light_v1=0.6)
    enter("rafdb", 0, common_v1=None, light_v1=None)  # from before it was kept
    told = {"fer2013": "strong-v1", "rendered": "strong-v1", "ferplus": "light-v1", "rafdb": "light-v1"}
    assert {track: usual(track) for track in told} == told
    assert usual("fer2013", 1) == "common-v1"
    assert infer.weights_for("reference_tiny", track_named("fer2013")).name == "reference_tiny-fer2013-strong-v1-0"
    own = infer.weights_for("reference_tiny", track_named("fer2013"), "light-v1")
    assert own.name == "reference_tiny-fer2013-light-v1-0"
    with pytest.raises(WeightsError, match="strong-v1-0: this is not a readable safetensors file"):
        load("reference_tiny")
    (tmp_path / "runs").mkdir()
    with pytest.raises(WeightsError, match=r"holds no weights of reference_tiny for fer2013 \(light-v1, seed 0\)"):
        load("reference_tiny", runs=tmp_path / "runs")


def test_what_is_added_says_how_it_read_on_validation(trained: tuple[Path, str], tmp_path: Path) -> None:
    """The index has the figure by which `usual_recipe` chooses."""
    runs, track = trained
    source = load("deep_emotion", track, runs=runs)
    add(source.path, tmp_path)
    (entry,) = read_index(tmp_path).values()
    assert entry["validation"] == source.record["trained"]["selected_value"]


def test_every_shipped_row_says_how_it_read_on_validation() -> None:
    """What its weight file says."""
    for entry in read_index().values():
        record = record_of(weights_folder() / entry["file"])
        assert entry["validation"] == record["trained"]["selected_value"], entry["file"]


def test_the_recipes_whose_weights_are_here() -> None:
    """By track, first the one that is meant where none is named; a method without weights has none."""
    found = recipes_here("reference_small")
    assert found == {"fer2013": ["distilled-v1", "common-v1"], "ferplus": ["strong-v1", "common-v1"]}
    assert recipes_here("deep_emotion")["fer2013-4"] == ["common-v1", "paper"]
    assert recipes_here("vgg16") == {}


def test_weights_of_another_start_are_refused(tmp_path: Path) -> None:
    """A tensor that is kept as its update from a seeded start fits no network that starts it elsewhere."""
    network = build("awei_plain").eval()
    packed, packing = pack(network.state_dict(), network.seeded_tensors)
    infer.set_weights(network, packed, {"packing": packing}, tmp_path / "a.safetensors")
    packing["streams"]["fc1.weight"]["bound"] /= 2
    with pytest.raises(WeightsError, match=r"a\.safetensors: these weights are of another version of the network"):
        infer.set_weights(network, packed, {"packing": packing}, tmp_path / "a.safetensors")


def test_weights_of_another_network_are_refused(trained: tuple[Path, str]) -> None:
    """A file whose tensors do not fit the network, or that belongs to another method, is named and refused."""
    runs, track = trained
    source = load("deep_emotion", track, runs=runs).path
    tensors, record = read_tensors(source)
    folder = source.parent.parent.parent
    for method, said in (("small_cnn", "small_cnn"), ("deep_emotion_parallel", "deep_emotion_parallel")):
        target = folder / method / source.parent.name / "model.safetensors"
        write_tensors(target, tensors, record | {"method": said})
        with pytest.raises(WeightsError, match="do not fit the network"):
            load(method, track, runs=runs)
        write_tensors(target, tensors, record)
        with pytest.raises(WeightsError, match="weights of deep_emotion, not of"):
            load(method, track, runs=runs)


def test_the_input_spec_travels_with_the_weights(trained: tuple[Path, str]) -> None:
    """What a loaded model normalises by is what its file says, whatever the card says today."""
    runs, track = trained
    source = load("deep_emotion", track, runs=runs).path
    tensors, record = read_tensors(source)
    spec = record["input"] | {"mean": [0.25]}
    target = source.parent.with_name("common-v1-s9") / "model.safetensors"
    write_tensors(target, tensors, record | {"input": spec, "seed": 9})
    loaded = load("deep_emotion", track, seed=9, runs=runs)
    assert loaded.input_spec == replace(METHODS["deep_emotion"].card.input, mean=(0.25,))


def test_the_public_api_has_the_promised_names() -> None:
    """list_methods, build, load, load_dataset and benchmark are what fer_bench itself offers."""
    assert "small_cnn" in fer_bench.list_methods()
    assert isinstance(fer_bench.build("small_cnn", num_classes=8), torch.nn.Module)
    assert all(callable(getattr(fer_bench, name)) for name in ("load", "load_dataset", "benchmark"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fer_bench.nothing
    with pytest.raises(ValueError, match="at least 2"):
        build("small_cnn", num_classes=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.zeros(48, 48), "not of type Tensor; give tensor.numpy(), its channels last)."),
        ([None], "it must be a path, PIL picture, bytes or array, not of type NoneType)."),
        ([[np.zeros((48, 48), np.uint8)]], "not of type list)."),
        ([np.zeros((3, 48, 48), np.uint8)], "not (3, 48, 48); channels come last: np.moveaxis(array, 0, -1))."),
        (np.zeros((2, 1, 48, 48), np.uint8), "not (1, 48, 48); channels come last: np.moveaxis(array, 0, -1))."),
        ("", "the picture: this is not a readable picture (its path is empty)."),
        ("https://example.org/a.jpg", "there is no such file; a URL is not fetched, so download it first."),
    ],
)
def test_what_is_no_picture_is_told_with_the_mend(model: Model, given: object, says: str) -> None:
    """A tensor, channels first, a list in a list, nothing, an address: the sentence says what to give."""
    with pytest.raises(UnreadablePictureError) as caught:
        model.predict([given] if isinstance(given, torch.Tensor) else given)
    assert str(caught.value).endswith(says)


def test_names_that_are_no_text_are_explained() -> None:
    """A Path or None for a method's name gets the names, as a misspelling does."""
    for given in (Path("small_cnn"), None):
        with pytest.raises(UnknownNameError, match="there is no method .* The names are: small_cnn"):
            load(given)
