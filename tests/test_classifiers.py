"""Image classifiers of transformers, as others publish them, become models that everything here can judge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fer_bench
from fer_bench import classifiers, submissions
from fer_bench.classifiers import from_transformers, last_maps, named
from fer_bench.errors import UserError
from fer_bench.evaluate import main
from fer_bench.explain import CAMS, explain
from fer_bench.results import read_result
from fer_bench.submissions.exporting import TOLERANCE, difference
from fer_bench.torchvision_repair import torchvision
from tests.helpers import write_folder
from tests.hub_server import Repo, connected

assert torchvision  # mended before transformers imports it
transformers = pytest.importorskip("transformers")
LABELS = ("Angry", "disgust", "fear", "Happy", "neutral", "sad", "surprise")  # in an order of their own
SIDE = 32


def of_patches(kind: str, **more: object) -> nn.Module:
    """A tiny transformer over 4 x 4 patches. kind: "ViT" or "DeiT"."""
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE,
        patch_size=8, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)}, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    for parameter in model.parameters():  # far from what it starts with, so that its answers differ
        nn.init.normal_(parameter, std=0.3)
    return model


def of_convolutions() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(LABELS))
    )
    torch.manual_seed(0)
    return transformers.ResNetForImageClassification(config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders that `save_pretrained` wrote, by name."""
    root = tmp_path_factory.mktemp("published")
    whole, square = {"height": SIDE, "width": SIDE}, {"shortest_edge": SIDE}
    grey = transformers.ViTImageProcessor(size=whole, image_mean=[0.5], image_std=[0.2])
    for name, model, processor in (
        ("My ViT", of_patches("ViT"), transformers.ViTImageProcessor(size=whole)),
        ("vit-grey", of_patches("ViT", num_channels=1), grey),
        (
            "deit",
            of_patches("DeiT"),
            transformers.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=whole, resample=2),
        ),
        ("resnet18", of_convolutions(), transformers.ConvNextImageProcessor(size=square, crop_pct=0.8, resample=2)),
        ("small", of_patches("ViT"), transformers.ViTImageProcessor(size={"height": 48, "width": 48})),
        ("odd", of_patches("ViT"), transformers.ViTImageProcessor(size=whole, rescale_factor=1 / 127.5)),
    ):
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root.joinpath


def theirs(folder: Path, pictures: np.ndarray) -> np.ndarray:
    """Probabilities as transformers itself gives them, in the order of LABELS."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    channels = getattr(model.config, "num_channels", 3)
    shown = [picture if channels == 1 else Image.fromarray(picture).convert("RGB") for picture in pictures]
    with torch.no_grad():
        return model(**processor(images=shown, return_tensors="pt")).logits.softmax(1).numpy()


@pytest.mark.parametrize(
    ("name", "called", "side"),
    [("My ViT", "my_vit", SIDE), ("deit", "deit", 40), ("resnet18", "resnet18_published", 40)],
)
def test_its_answers_are_those_of_its_own_library(
    saved: Callable[[str], Path], name: str, called: str, side: int
) -> None:
    """Preprocessing and all, whether the processor takes the whole, a part of it, or a part by a share."""
    faces = fer_bench.load_dataset("rendered", "test").limit(7)
    model = from_transformers(saved(name))
    assert (model.name, model.input_spec.size, model.emotions[:2]) == (called, side, ("anger", "disgust"))
    found = [list(scores.values()) for scores in model.predict(faces.images)]
    expected = theirs(saved(name), faces.images)
    assert np.ptp(expected, axis=0).max() > 1e-3  # its answers differ from face to face
    np.testing.assert_allclose(found, expected, atol=2e-3)  # Pillow and torchvision round a resized pixel to 1 of 255


def test_a_grey_one_reads_grey(saved: Callable[[str], Path]) -> None:
    """Where its first layer and its processor know one channel."""
    model = from_transformers(saved("vit-grey"))
    assert model.input_spec == fer_bench.InputSpec(SIDE, 1, (0.5,), (0.2,))
    assert sum(model.predict(np.zeros((SIDE, SIDE), np.uint8))[0].values()) == pytest.approx(1)


def test_outputs_that_are_no_emotions_are_left_out(saved: Callable[[str], Path]) -> None:
    """emotions= says what each output means; what is left is renormalised, and a list of another length is refused."""
    faces = fer_bench.load_dataset("rendered", "test").limit(4)
    meanings = ("sad", None, None, "happiness", "neutral", None, None)
    model = from_transformers(saved("My ViT"), emotions=meanings, name="mine", margin=0.2)
    assert (model.name, model.emotions, model.input_spec.margin) == ("mine", ("sadness", "happiness", "neutral"), 0.2)
    three = theirs(saved("My ViT"), faces.images)[:, [0, 3, 4]]
    found = [list(scores.values()) for scores in model.predict(faces.images)]
    np.testing.assert_allclose(found, three / three.sum(1, keepdims=True), atol=2e-3)
    with pytest.raises(UserError, match="2 emotions were given for its 7 outputs"):
        from_transformers(saved("My ViT"), emotions=("sad", "happy"))
    with pytest.raises(UserError, match="its outputs mean sadness, sadness; there must be two at least, each of them"):
        from_transformers(saved("My ViT"), emotions=("sad", "sadness", *[None] * 5))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("My ViT", "model.vit.layers.1.layernorm_before"),
        ("deit", "model.deit.layers.1.layernorm_before"),
        ("resnet18", "model.resnet.encoder.stages.1"),
    ],
)
def test_a_cam_finds_its_layer(saved: Callable[[str], Path], name: str, layer: str) -> None:
    """The last one whose cells the answer depends on: patches of a transformer lose that in its last block."""
    faces = fer_bench.load_dataset("rendered", "test").limit(3)
    model = from_transformers(saved(name))
    assert model.record["cam_layer"] == layer
    for cam in CAMS:
        maps = explain(model, faces.images, cam).maps
        assert maps.shape == (3, model.input_spec.size, model.input_spec.size)
        assert maps.max() == 1
        if name != "My ViT":  # what it cuts off has no warmth
            edge = np.concatenate([maps[:, :4].ravel(), maps[:, :, -4:].ravel()])
            assert not edge.any()
            assert maps[:, 4:-4, 4:-4].max() == 1


def test_the_patch_that_decides_is_warm(saved: Callable[[str], Path]) -> None:
    """Tokens become the square of their patches row by row: of a bright patch alone the map is warm there."""

    class Looks(nn.Module):
        """Patches as tokens behind a class token, which says nothing; one patch is classified."""

        def __init__(self) -> None:
            super().__init__()
            self.cut, self.norm = nn.Conv2d(1, 2, 8, stride=8), nn.LayerNorm(2)
            nn.init.ones_(self.cut.weight[0])
            nn.init.zeros_(self.cut.weight[1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.cut(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], 1)
            return self.norm(tokens)[:, 1:].mul(tokens[:, 1:, :1]).sum(1)

    network, spec = Looks().eval(), fer_bench.InputSpec(32, 1, (0.0,), (1.0,))
    picture = np.zeros((1, 32, 32), dtype=np.uint8)
    picture[0, 8:16, 24:] = 255  # row 1, column 3
    model = fer_bench.Model("looks", network, spec, ("anger", "fear"))
    assert last_maps(network, spec) == "norm"
    (found,) = explain(model, picture, target="anger", cam_layer="norm").maps
    assert np.unravel_index(found.reshape(4, 8, 4, 8).mean((1, 3)).argmax(), (4, 4)) == (1, 3)


def test_a_network_without_maps_has_no_such_layer() -> None:
    """A CAM of it then asks for one."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    assert last_maps(network, fer_bench.InputSpec(8, 1, (0.0,), (1.0,))) is None


def test_the_command_writes_a_row(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside all others, marked external, with its explanation; a test picture that stands in train is told of."""
    data = write_folder(tmp_path / "data")
    shutil.copy(data / "train/fear/0.png", data / "test/fear/0.png")
    given = ["--transformers", str(saved("My ViT")), "--track", f"folder:{data}", "--out", str(tmp_path / "out")]
    assert main([*given, "--explanation"]) == 0
    (path,) = (tmp_path / "out/results").glob("*/my_vit/as-published-s0.json")
    row = read_result(path)
    assert (row.external, row.verified, row.trained.pretrained) == (True, False, "weights of My ViT (transformers)")
    assert row.data.duplicates_in_train == 1
    assert row.explanation is not None
    assert row.cost.parameters == sum(p.numel() for p in of_patches("ViT").parameters())
    page = (tmp_path / "out/LEADERBOARD.md").read_text()
    assert "`my_vit` (as-published; external: its authors' weights, not verified)" in page
    assert "my_vit" in capsys.readouterr().out


def test_the_command_is_told_what_outputs_mean(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that does not name them; for one model only, since another's outputs have another order."""
    folder, out = tmp_path / "nameless", tmp_path / "out"
    shutil.copytree(saved("My ViT"), folder)
    broken(folder, "labels")
    given = ["--transformers", str(folder), "--track", "rendered", "--out", str(out)]
    assert main([*given, "--emotions", "anger, -, fear, happiness,,sadness,surprise"]) == 0
    row = read_result(out / "results/rendered/nameless/as-published-s0.json")
    assert row.emotions == ("anger", "fear", "happiness", "sadness", "surprise")
    capsys.readouterr()
    for wrong in (["--method", "deep_emotion"], ["--transformers", "a", "b"]):
        assert main([*wrong, "--emotions", "anger,fear"]) == 2
        assert capsys.readouterr().err == (
            "--emotions says what the outputs of one model mean; give it with one --transformers.\n"
        )


def test_rows_of_two_models_do_not_take_each_others_place(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints are often called alike: in one command and in two they are told apart by names of their own."""
    first, second, out = tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "out"
    shutil.copytree(saved("My ViT"), first)
    shutil.copytree(saved("deit"), second)
    given = ["--track", "rendered", "--out", str(out), "--transformers"]
    assert main([*given, str(first), str(second)]) == 2
    assert f"{second}: another of the models is called model too; name it: NAME=MODEL" in capsys.readouterr().err
    assert main([*given, str(first)]) == 0
    kept = (out / "results/rendered/model/as-published-s0.json").read_bytes()
    assert main([*given, str(second), f"other={second}"]) == 1
    assert "is a row of another model; name this one, NAME=MODEL" in capsys.readouterr().err
    assert (out / "results/rendered/model/as-published-s0.json").read_bytes() == kept
    assert read_result(out / "results/rendered/other/as-published-s0.json").method == "other"
    for wrong in ("small_cnn", "Mine"):
        assert main([*given, f"{wrong}={second}"]) == 2
        assert f"{wrong}: a row's name is of small letters" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--runs", "runs"], ["--recipe", "paper"], ["--costs"], ["--figures"]])
def test_options_of_our_own_weights_are_refused(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """A model of others has no runs or recipes here."""
    out = tmp_path / "out"
    assert main(["--transformers", str(saved("My ViT")), "--track", "rendered", "--out", str(out), *more]) == 2
    assert capsys.readouterr().err == (f"--transformers judges a model as it was published; leave out {more[0]}.\n")
    assert not out.exists()


def broken(folder: Path, what: str) -> None:
    """Spoil a copy of a saved model."""
    config = json.loads((folder / "config.json").read_text())
    if what == "labels":
        config["id2label"]["0"] = "LABEL_0"
    elif what == "head":
        config["id2label"].pop("6")
        config["label2id"].pop("surprise")
    elif what == "weights":
        (folder / "model.safetensors").unlink()
        torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    elif what == "part":
        from safetensors.torch import load_file, save_file

        held = load_file(folder / "model.safetensors")
        save_file({name: t for name, t in held.items() if "classifier" not in name}, folder / "model.safetensors")
    elif what == "processor":
        (folder / "preprocessor_config.json").unlink()
    elif what == "config":
        (folder / "config.json").unlink()
        return
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (
            "labels",
            r"its outputs are LABEL_0, disgust, .*: unknown emotion 'LABEL_0'.*with --emotions, in Python with",
        ),
        ("head", r"with weights in safetensors \(its weights are not those of its config.json\)"),
        ("weights", r"with weights in safetensors \(.*model.safetensors"),  # a pickle is not even opened
        ("part", r"its file has no weights for classifier.bias, classifier.weight, which would be random"),
        ("processor", r"it has no image processor that can be loaded"),
        ("config", r"there is no config.json here"),
    ],
)
def test_what_cannot_be_judged_is_said(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, says: str
) -> None:
    """One sentence that names the model, and exit code 2."""
    folder = tmp_path / "model"
    shutil.copytree(saved("My ViT"), folder)
    broken(folder, what)
    with pytest.raises(UserError, match=says) as caught:
        from_transformers(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert main(["--transformers", str(folder), "--track", "rendered", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_processor_that_does_more_is_refused(saved: Callable[[str], Path]) -> None:
    """Its pictures would be others than those that the model is shown here."""
    with pytest.raises(UserError, match="ViTImageProcessor does more to a picture than to resize it.*wrap the network"):
        from_transformers(saved("odd"))


def test_a_processor_for_another_size_is_refused(saved: Callable[[str], Path]) -> None:
    """The model does not take what it makes."""
    with pytest.raises(UserError, match=r"it does not take the pictures that its own image processor makes \(.*48"):
        from_transformers(saved("small"))


@pytest.mark.parametrize("source", ["nonsense", "a/b/c", "https://example.org/a/b"])
def test_a_name_that_is_none_is_not_asked_for(source: str) -> None:
    """Said at once, without asking the Hub."""
    with pytest.raises(UserError, match="this is no folder, and no model of the Hub; give NAMESPACE/NAME"):
        from_transformers(source)


def test_a_folder_has_no_revision(saved: Callable[[str], Path]) -> None:
    """Rather than being left out of the record without a word."""
    with pytest.raises(UserError, match="a folder has no revisions"):
        from_transformers(saved("My ViT"), revision="main")


def test_without_transformers_the_extra_is_named(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, since all else does without."""
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'fer_bench\[transformers\]'"):
        from_transformers(saved("My ViT"))


def test_from_the_hub_by_its_commit(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revision that is given is fetched, not the newest one, and without one the record names the newest's."""
    files = {path.name: (path.read_bytes(), False) for path in saved("My ViT").iterdir()}
    with connected(tmp_path, monkeypatch) as hub:
        repo = hub.repos["models", "ada/faces"] = Repo()
        first = repo.commit(files)
        second = repo.commit({**files, "README.md": (b"later", False)})
        for text, commit in ((f"ada/faces@{first}", first), ("ada/faces", second)):
            model = from_transformers(*named(text))
            assert model.name == "faces"
            assert model.record["trained"]["pretrained"] == f"weights of ada/faces@{commit} (transformers)"
        fetched = hub.asked("GET", "resolve") + hub.asked("HEAD", "resolve")
        assert any(f"/resolve/{first}/model.safetensors" in path for path in fetched)
        assert not any(path.endswith((".bin", ".py")) for path in hub.asked("GET", "resolve"))
    assert model.record["recipe"] == classifiers.RECIPE


def test_it_becomes_a_submission(
    saved: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one command, preprocessing and all; its authors, licence and training data are to be filled in."""
    out = tmp_path / "out"
    assert submissions.main(["export", "--transformers", str(saved("deit")), "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert (printed.out, "fill in authors, licence, training_data;" in printed.err) == (f"{out}\n", True)
    path = out / "submission.yaml"
    text = path.read_text().replace("authors: []", "authors: [Ada]").replace("licence: ''", "licence: MIT")
    path.write_text(text.replace("training_data: []", "training_data: [FER2013]"))
    assert submissions.check(out, run=False) == []
    model = from_transformers(saved("deit"))
    manifest, _ = submissions.read_manifest(path.read_bytes())
    assert (manifest.name, manifest.emotions, manifest.input) == ("deit", model.emotions, model.input_spec)
    assert difference(model, out / "model.onnx") <= TOLERANCE


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["small_cnn", "--transformers", "a/b"], "not allowed with argument"),
        ([], "one of the arguments METHOD --transformers is required"),
        (["--transformers", "a/b", "--track", "fer2013", "--runs", "r"], "leave out --track and --runs."),
        (["small_cnn", "--emotions", "happy, sad"], "--emotions says what the outputs of a --transformers model mean"),
        (["--transformers", "nowhere"], "nowhere: this is no folder, and no model of the Hub"),
    ],
)
def test_wrong_use_of_the_export_is_said(
    command: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence, with exit code 2 and nothing written."""
    try:
        code = submissions.main(["export", *command, "-o", str(tmp_path / "out")])
    except SystemExit as ended:  # argparse's way
        code = ended.code
    assert (code, text in capsys.readouterr().err) == (2, True)
    assert not (tmp_path / "out").exists()
