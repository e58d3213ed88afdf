"""Our own methods as submissions: the ONNX file answers as torch does and passes our own checks."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from safetensors.torch import save, save_file
from torch import nn

from fer_bench.cards import InputSpec
from fer_bench.errors import UserError
from fer_bench.infer import Model, load
from fer_bench.methods import METHODS, build, list_methods
from fer_bench.submissions import check, exporting, inspection, main, read_manifest
from fer_bench.submissions.exporting import TOLERANCE, Averages, difference, export_model, write_onnx
from fer_bench.submissions.problems import SIZES
from fer_bench.submissions.weights_file import WeightsRefusedError, read_state
from fer_bench.weights import pack
from tests.submissions.models import FILLED, faces

SLOW = {"awei", "awei_plain", "awei_residual", "vgg13", "vgg16", "alexnet", "senet50"}
"""Over 25M parameters, or ten seconds to trace."""
ASKED = [name for name in list_methods() if name != "vgg13"]
"""vgg13 is vgg16 with three layers fewer of the same kind, and as large."""
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in ASKED]


def fresh(name: str) -> Model:
    """A method with seeded fresh weights, its batch-norm statistics away from 0 and 1."""
    torch.manual_seed(0)
    network, card = build(name), METHODS[name].card
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    emotions = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    return Model(name, network.eval(), card.input, emotions, {"trained": {"track": "fer2013"}})


def test_a_manifest_names_no_folder_of_ones_own() -> None:
    """It is made to be handed on."""
    model = fresh("deep_emotion_sequential")
    own = replace(model, record=model.record | {"trained": {"track": "folder:/home/ada/patients"}})
    text = exporting.manifest_text(own)
    assert "pictures of one's own" in yaml.safe_load(text)["training_data"]
    assert "ada" not in text


@pytest.mark.parametrize("name", NAMES)
def test_the_onnx_file_answers_as_torch_does(name: str, tmp_path: Path) -> None:
    """Logits agree within 1e-4 for batches of one and three, and nothing in the file breaks a rule or a bound."""
    model = fresh(name)
    spec = model.input_spec
    path = write_onnx(model.network, spec.channels, spec.size, tmp_path / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]  # no weights beside it
    assert difference(model, path) <= TOLERANCE
    assert path.stat().st_size <= SIZES["model.onnx"]
    exported, found = inspection.parse(path.read_bytes())
    assert found == []
    assert inspection.inspect(exported, (spec.channels, spec.size, 7)) == []


@pytest.mark.parametrize(("size", "out"), [((2, 2), (7, 7)), ((2, 2), (6, 6)), ((7, 5), (3, 4)), ((9, 8), (1, 3))])
def test_adaptive_pooling_as_matrices_is_adaptive_pooling(size: tuple[int, int], out: tuple[int, int]) -> None:
    """The matrices that stand for it in an export average what torch's own layer averages."""
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Averages(size, out)(maps), torch.nn.functional.adaptive_avg_pool2d(maps, out))


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """A pooling that is exchanged for the export is back afterwards, and the network still trains if it did."""
    pool = torch.nn.AdaptiveAvgPool2d(5)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), pool, torch.nn.Flatten(), torch.nn.Linear(50, 7)).train()
    path = write_onnx(network, 1, 16, tmp_path / "model.onnx")
    assert network[1] is pool
    assert network.training
    spec = InputSpec(16, 1, (0.5,), (0.25,))
    assert difference(Model("x", network, spec, (), {}), path) <= TOLERANCE


def test_an_export_that_answers_nan_differs_from_its_network(tmp_path: Path) -> None:
    """NaN is less and greater than nothing, so it must not pass for a small difference, on whichever side it stands."""
    spec = InputSpec(8, 1, (0.5,), (0.25,))
    whole = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    broken = copy.deepcopy(whole)
    torch.nn.init.constant_(broken[1].bias, float("nan"))
    for exported, ours in ((whole, broken), (broken, whole)):
        path = write_onnx(exported, 1, 8, tmp_path / "model.onnx")
        assert not difference(Model("x", ours, spec, (), {}), path) <= TOLERANCE


def test_an_exported_folder_passes_the_check(tmp_path: Path) -> None:
    """What `export` writes is a whole submission whose manifest carries the model's own input and emotions."""
    model = load("deep_emotion_sequential")
    folder = export_model(model, tmp_path / "out")
    manifest, problems = read_manifest((folder / "submission.yaml").read_bytes())
    assert problems == []
    assert (manifest.name, manifest.emotions) == ("deep_emotion_sequential_copy", model.emotions)
    assert manifest.input == model.input_spec
    assert manifest.licence == "MIT (this implementation); weights: terms of FER2013"
    assert check(folder, run=False) == []


def own_network(name: str = "mine", side: int = 16) -> Model:
    """A network of one's own, of which nothing is known but what it reads and means."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, 3))
    return Model(name, network, InputSpec(side, 1, (0.5,), (0.25,)), ("Happy", "sadness", "contempt"))


def test_a_network_of_one_s_own_leaves_open_what_only_its_authors_know(tmp_path: Path) -> None:
    """Authors, licence and training data are for them to fill in: the check names these three, and then no more."""
    folder = export_model(own_network(), tmp_path / "out")
    path = folder / "submission.yaml"
    assert exporting.left_open(folder) == list(exporting.LEFT_OPEN)
    assert [problem.code for problem in check(folder)] == [f"manifest_{name}" for name in exporting.LEFT_OPEN]
    text = path.read_text().replace("authors: []", "authors: [Ada]").replace("licence: ''", "licence: MIT")
    path.write_text(text.replace("training_data: []", "training_data: [FER2013]"))
    manifest, _ = read_manifest(path.read_bytes())
    assert (manifest.name, manifest.emotions) == ("mine", ("happiness", "sadness", "contempt"))
    assert (manifest.input, manifest.tracks) == (own_network().input_spec, ("ferplus", "rendered"))
    assert check(folder, run=False) == []


def test_who_trained_a_method_elsewhere_is_for_them_to_say(tmp_path: Path) -> None:
    """Only weights that are shipped here are ours; of others nobody is named as the author."""
    folder = export_model(fresh("deep_emotion_sequential"), tmp_path / "out")
    assert exporting.left_open(folder) == ["authors"]


class Fixed(torch.nn.Linear):
    """Answers for two pictures, however many it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)[:2].reshape(2, -1))


class Unwritable(torch.nn.Linear):
    """Of an operation that ONNX has not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.special.bessel_j0(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            own_network("2mine"),
            "2mine cannot be a submission: submission.yaml: name must be 2 to 40 lower case letters",
        ),
        (own_network(side=600), "mine cannot be a submission: submission.yaml: input.size must be"),
        (replace(own_network(), network=Fixed(256, 3)), "mine: it cannot be written as ONNX with a free number of"),
        (
            replace(own_network(), network=Unwritable(256, 3)),
            "mine: it cannot be written as ONNX with a free number of",
        ),
        (replace(own_network(), emotions=("happy", "sad", "bored")), "mine: unknown emotion 'bored'"),
    ],
    ids=["name", "size", "number of pictures", "operation", "emotions"],
)
def test_what_cannot_be_a_submission_is_said_in_a_sentence(model: Model, text: str, tmp_path: Path) -> None:
    """Whether no manifest can describe it or ONNX cannot hold it; no folder is left behind."""
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        export_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than the check takes are refused where they are made."""
    monkeypatch.setitem(exporting.SIZES, "model.onnx", 1000)
    with pytest.raises(UserError, match="mine: as ONNX it has [0-9,]+ bytes, and at most 1,000 are taken"):
        export_model(own_network(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_model_itself_is_left_as_it_is(tmp_path: Path) -> None:
    """Its layout, modules and modes: it may be answering a server's visitors while it is exported."""
    model = fresh("small_cnn")
    pooled = nn.Sequential(nn.Conv2d(1, 7, 3), nn.AdaptiveAvgPool2d(3), nn.AvgPool2d(3), nn.Flatten(), nn.Dropout(0.5))
    pooled.to(memory_format=torch.channels_last).train()
    own = Model("mine", pooled, model.input_spec, model.emotions)
    parts, layouts = list(pooled), [parameter.stride() for parameter in pooled.parameters()]
    export_model(own, tmp_path / "out")
    assert all(part is now for part, now in zip(parts, pooled, strict=True))
    assert [parameter.stride() for parameter in pooled.parameters()] == layouts
    assert all(module.training for module in pooled.modules())


def test_the_onnx_file_says_what_its_input_and_outputs_are(tmp_path: Path) -> None:
    """Whoever gets the file without the folder finds all that its InputSpec has, and whose weights it holds."""
    model = fresh("deep_emotion_sequential")
    model.record["sha256"] = "ab" * 32
    file = onnx.load(export_model(model, tmp_path / "out") / "model.onnx")
    told = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert told.pop("emotions") == list(model.emotions)
    assert told.pop("sha256") == "ab" * 32
    assert InputSpec.from_dict(told) == model.input_spec


def test_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, exit code 1, with nothing left behind."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "write_onnx", full)
    out = tmp_path / "out"
    assert main(["export", "deep_emotion_sequential", "-o", str(out)]) == 1
    assert (
        capsys.readouterr().err
        == f"error: {out}: this cannot be written (No space left on device); give a folder with room.\n"
    )
    assert not out.exists()


def test_an_interrupted_export_leaves_no_half_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends it, there is a whole folder or none."""

    def interrupted(_network: object, _channels: int, _size: int, path: Path) -> Path:
        path.write_bytes(b"half a model")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_onnx", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_model(fresh("deep_emotion_sequential"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(exporting, "difference", lambda *_: 1.0)
    with pytest.raises(UserError, match="differ from torch's"):
        export_model(fresh("deep_emotion_sequential"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_exported_over_other_files(tmp_path: Path) -> None:
    """A folder that holds something is left as it is."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export_model(fresh("deep_emotion_sequential"), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_weights_of_a_registered_architecture_pass(tmp_path: Path) -> None:
    """safetensors of the named method run in the sandbox and are accepted; another input than its own is refused."""
    text = FILLED + "\narchitecture: deep_emotion_sequential\n"
    (tmp_path / "submission.yaml").write_text(text)
    save_file(fresh("deep_emotion_sequential").network.state_dict(), tmp_path / "model.safetensors")
    assert check(tmp_path, faces=faces(1)) == []
    (tmp_path / "submission.yaml").write_text(text.replace("size: 48", "size: 64"))
    (problem,) = check(tmp_path)
    assert "deep_emotion_sequential reads 1 x 48 x 48" in problem.text


STATE = {"a.weight": torch.ones(3, 4), "a.count": torch.tensor(5), "b": torch.ones(2)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({k: v for k, v in STATE.items() if k != "b"}, "it lacks b"),
        ({**STATE, "c": torch.ones(1)}, "has c too much"),
        ({f"module.{k}": v for k, v in STATE.items()}, "names with 'module.' before them, as a wrapper saves"),
        ({**{f"a.b.{k}": v for k, v in STATE.items()}, "loss": torch.ones(1)}, "names with 'a.b.' before them"),
        ({**STATE, "module.a.count": torch.tensor(5)}, "has module.a.count too much"),
        ({**STATE, "b": torch.ones(3)}, "has 'b' of shape [3]"),
        ({**STATE, "b": torch.tensor([1, float("nan")])}, "NaN or infinity in 'b'"),
        ({**STATE, "b": torch.tensor([1, float("-inf")])}, "NaN or infinity in 'b'"),
        ({**STATE, "b": torch.ones(2, dtype=torch.complex64)}, "has the type"),
        ({**STATE, "b:left": torch.ones(1, 2)}, "makes no sense"),
        ({**STATE, "b:left": torch.ones(2), "b:right": torch.ones(1, 2)}, "makes no sense"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state: dict[str, torch.Tensor], reason: str) -> None:
    """Missing, foreign, misshapen, unusual and infinite tensors are named."""
    with pytest.raises(WeightsRefusedError, match=re.escape(reason)):
        read_state(save(state), SHAPES)


def test_a_side_of_infinity_is_refused() -> None:
    """A shape that JSON reads as infinite is a reason and not a crash."""
    header = b'{"b": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}'
    with pytest.raises(WeightsRefusedError, match="makes no sense"):
        read_state(struct.pack("<Q", len(header)) + header + bytes(8), {"b": (2,)})


def test_both_forms_of_weights_are_read() -> None:
    """A plain state_dict comes back as it was, the compact form of `fer_bench.train` within its rounding."""
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in read_state(save(STATE), SHAPES).items())
    large = {"w": torch.randn(300, 300, generator=torch.Generator().manual_seed(0))}
    packed, note = pack(large)
    found = read_state(save(packed, {"fer_bench": json.dumps({"packing": note})}), {"w": (300, 300)})
    torch.testing.assert_close(found["w"], large["w"], atol=0.02, rtol=0)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19280], ids=str)
def test_a_header_whose_length_begins_like_a_pickle_is_read(length: int) -> None:
    """These lengths' first bytes are those of a pickle or a zip; a file with such a header is what it says it is."""
    content = save(STATE, {"note": ""})
    content = save(STATE, {"note": "x" * (length - struct.unpack("<Q", content[:8])[0])})
    assert struct.unpack("<Q", content[:8])[0] == length
    assert read_state(content, SHAPES).keys() == STATE.keys()


def test_a_cut_off_file_is_refused() -> None:
    """A header that promises more than the file holds does not reach the network."""
    with pytest.raises(WeightsRefusedError, match="not a readable safetensors file"):
        read_state(save(STATE)[:-4], SHAPES)
