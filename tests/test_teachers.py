"""Knowledge distillation: what teachers answer, what becomes of it in the loss, what is told of it and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from fer_bench import teachers
from fer_bench.cards import Recipe
from fer_bench.datasets import load_dataset
from fer_bench.errors import UserError
from fer_bench.infer import load, logits
from fer_bench.methods import METHODS
from fer_bench.options import Options
from fer_bench.protocols import RECIPES, track_named
from fer_bench.teachers import Teachers, teachers_of
from fer_bench.train import Run
from fer_bench.weights import read_tensors, sha256
from tests.helpers import write_folder
from tests.test_start import FOUR, track_of

TAUGHT = Recipe(name="taught", epochs=2, batch_size=8, lr=1e-3, teachers=("deep_emotion",), teaching=1.0)


def teach(data: Path, out: Path, epochs: int = 2) -> Path:
    options = Options(device="cpu", epochs=epochs)
    return Run(METHODS["deep_emotion"], track_of(data), RECIPES["common-v1"], options, out).fit()


@pytest.fixture
def schooled(tmp_path: Path) -> Path:
    """A training output folder with a teacher for the pictures of `tmp_path`/seven."""
    teach(write_folder(tmp_path / "seven"), tmp_path / "runs")
    return tmp_path / "runs"


def learn(data: Path, out: Path, recipe: Recipe = TAUGHT, **options: object) -> Path:
    return Run(METHODS["reference_tiny"], track_of(data), recipe, Options(device="cpu", **options), out).fit()


def test_the_loss_is_shared_between_labels_and_teachers() -> None:
    """Of mixed pictures both count in their parts, the teachers' answers to the mirrored places with them."""
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(4, 3, generator=generator), torch.tensor([0, 2, 1, 1])
    known = torch.rand(9, 3, generator=generator).softmax(1)
    rows = torch.tensor([7, 0, 3, 3])
    taught, untaught = Teachers(share=0.75), Teachers()
    taught.answers = known

    def loss(labels: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return 0.25 * cross_entropy(scores, labels) + 0.75 * -(answers * scores.log_softmax(1)).sum(1).mean()

    whole = loss(targets, known[rows])
    assert torch.isclose(taught.criterion(cross_entropy, rows)(scores, targets), whole)
    mixed = 0.6 * whole + 0.4 * loss(targets.flip(0), known[rows].flip(0))
    assert torch.isclose(taught.criterion(cross_entropy, rows, 0.6)(scores, targets), mixed)
    assert not torch.isclose(mixed, whole)
    assert untaught.criterion(cross_entropy, rows) is cross_entropy
    plain = 0.6 * cross_entropy(scores, targets) + 0.4 * cross_entropy(scores, targets.flip(0))
    assert torch.isclose(untaught.criterion(cross_entropy, rows, 0.6)(scores, targets), plain)
    with pytest.raises(UserError, match=r"scores \(2, 3\) where its target is \(4, 3\)"):
        taught.criterion(cross_entropy, rows)(scores[:2], targets[:2])


def test_what_teachers_answer_is_their_mean_over_picture_and_mirror_image(schooled: Path, tmp_path: Path) -> None:
    """In the order of the split, and the weights tell whose answers these were."""
    path = learn(tmp_path / "seven", schooled)
    model = load("deep_emotion", f"folder:{tmp_path / 'seven'}", runs=schooled)
    train = load_dataset(f"folder:{tmp_path / 'seven'}", "train")
    each = [torch.from_numpy(logits(model, images)).softmax(1) for images in (train.images, train.images[:, :, ::-1])]
    (file,) = schooled.glob("*/teachers-*.safetensors")
    tensors, record = read_tensors(file)
    assert torch.allclose(tensors["answers"], sum(each) / 2, atol=0.02)  # training may compute in bfloat16
    assert tensors["answers"].std(0).min() > 1e-5  # no two pictures alike, so that their order is seen
    digits = sha256(next(schooled.glob("*/deep_emotion/*/model.safetensors")))[:12]
    row = f"deep_emotion/{file.parent.name}/common-v1-s0 ({digits})"
    assert record["teachers"] == read_tensors(path)[1]["trained"]["teachers"] == [row]


def test_taught_alone_no_label_is_looked_at(schooled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the whole loss against teachers wrong labels change no weight; with a part of it they do."""
    right = {share: learn(tmp_path / "seven", schooled, replace(TAUGHT, name=f"s{share}", teaching=share))
             for share in (1.0, 0.5)}  # fmt: skip
    taken = train_labels_turned(monkeypatch)
    for share, path in right.items():
        other = learn(tmp_path / "seven", schooled, replace(TAUGHT, name=f"t{share}", teaching=share))
        one, two = (read_tensors(p)[0] for p in (path, other))
        assert all(torch.equal(one[name], two[name]) for name in one) is (share == 1.0)
    assert taken


def train_labels_turned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every run from now on gets its training labels turned by one. Returns a list that grows with each."""
    original, taken = teachers.teachers_of, []

    def turned(recipe, track, train, source, device, runs):
        taken.append(len(source))
        source.labels.add_(1).remainder_(len(train.emotions))
        return original(recipe, track, train, source, device, runs)

    monkeypatch.setattr("fer_bench.train.teachers_of", turned)
    return taken


def test_teachers_are_asked_once(
    schooled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run reads what they answered; a broken file is written anew, and other teachers are asked."""
    learn(tmp_path / "seven", schooled)
    learn(tmp_path / "seven", schooled, seed=1)
    assert capsys.readouterr().err.count("asking 1 teachers about 28 training pictures") == 1
    (file,) = schooled.glob("*/teachers-*.safetensors")
    before = read_tensors(file)[0]["answers"].clone()  # it is in the file, which is broken now
    file.write_bytes(file.read_bytes()[:50])
    monkeypatch.setattr(teachers, "BATCH", 14)
    learn(tmp_path / "seven", schooled, seed=2)
    assert torch.equal(read_tensors(file)[0]["answers"], before)
    told = capsys.readouterr().err
    assert told.count("asking 1 teachers") == told.count("about 00:00 until they have answered\n") == 1
    teach(tmp_path / "seven", schooled, epochs=3)  # it is another teacher now
    with pytest.raises(UserError, match="this checkpoint is of another run"):
        learn(tmp_path / "seven", schooled, resume=True)
    learn(tmp_path / "seven", schooled, seed=3)
    assert len([*schooled.glob("*/teachers-*.safetensors")]) == 2


def test_a_cut_taught_run_goes_on_as_if_it_had_not_been(schooled: Path, tmp_path: Path) -> None:
    """Bit for bit on a CPU."""
    whole = learn(tmp_path / "seven", schooled, replace(TAUGHT, name="whole", mixup=0.2))
    cut = replace(TAUGHT, name="cut", mixup=0.2)

    run = Run(METHODS["reference_tiny"], track_of(tmp_path / "seven"), cut, Options(device="cpu"), schooled)
    validate, seen = run.validate, []

    def stop() -> float:
        seen.append(1)
        if len(seen) == 2:
            raise InterruptedError
        return validate()

    run.validate = stop
    with pytest.raises(InterruptedError):
        run.fit()
    resumed = learn(tmp_path / "seven", schooled, cut, resume=True)
    one, two = (read_tensors(path)[0] for path in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_who_cannot_teach_is_one_sentence(schooled: Path, tmp_path: Path) -> None:
    """No weights, weights of other emotions, and pictures that are streamed: what to do is said, nothing is left."""
    four = write_folder(tmp_path / "four", emotions=FOUR)
    with pytest.raises(UserError, match=r"taught learns from deep_emotion, .* not anger, happiness, sadness"):
        Run(METHODS["reference_tiny"], track_named(f"folder:{four}"), TAUGHT, Options(device="cpu"), schooled)
    with pytest.raises(UserError, match="taught learns from other networks. answers.*give --no-stream"):
        learn(tmp_path / "seven", schooled, stream=True)
    with pytest.raises(UserError, match=r"from vgg13, which has no weights for folder:.* --method vgg13 --track"):
        learn(tmp_path / "seven", schooled, replace(TAUGHT, teachers=("vgg13",)))
    assert not [*schooled.glob("*/reference_tiny")]


def test_teachers_that_have_seen_the_test_split_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As weights to start from are."""
    monkeypatch.setattr(teachers, "seen_test", lambda record, track: "weights of a saw what it tests on")
    source = teachers.InMemory(torch.zeros(4, 48, 48, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    recipe = replace(TAUGHT, teachers=("reference_tiny",))
    with pytest.raises(UserError, match="learns from reference_tiny: its weights of a saw"):
        teachers_of(recipe, track_named("fer2013"), None, source, torch.device("cpu"), tmp_path)


def test_a_recipe_without_a_share_has_no_teachers(tmp_path: Path) -> None:
    """It asks nobody, is hashed as it was before there were teachers, and its checkpoints go on."""
    nobody = replace(TAUGHT, teaching=0.0)
    assert nobody.hash() == replace(TAUGHT, teachers=(), teaching=0.0).hash() != TAUGHT.hash()
    assert not {"teachers", "teaching"} & nobody.values().keys()
    assert RECIPES["common-v1"].hash() == "fab6bccefa1b"
    assert TAUGHT.hash() != replace(TAUGHT, teachers=("small_cnn",)).hash()
    found = teachers_of(nobody, track_named("fer2013"), None, object(), torch.device("cpu"), tmp_path)
    assert found.models == ()
    assert found.rows is None
    for wrong in ({"teaching": 1.1}, {"teaching": -0.1}, {"teachers": ()}):
        with pytest.raises(ValueError, match="teaching must lie in"):
            replace(TAUGHT, **wrong)


def test_every_named_teacher_has_weights_for_fer2013() -> None:
    """distilled-v1 can be used as it is cloned."""
    recipe = RECIPES["distilled-v1"]
    found = [teachers.weights_for(name, track_named("fer2013")) for name in recipe.teachers]
    assert len(found) == 6
    assert None not in found
