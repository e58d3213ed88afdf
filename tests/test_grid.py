"""Grid search: every cell once, resumable, chosen on validation, clear refusals."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fer_bench import grid
from fer_bench.cards import Augmentation
from fer_bench.checkpoints import VALIDATED
from fer_bench.datasets import DATASETS, load_dataset
from fer_bench.errors import UserError
from fer_bench.infer import load, logits
from fer_bench.methods import METHODS
from fer_bench.options import Options
from fer_bench.protocols import RECIPES
from fer_bench.train import Run, TrainingError, main
from fer_bench.weights import WeightsError, read_tensors
from tests.helpers import picture, write_folder
from tests.test_train import tiny

BASE = "method: deep_emotion\nepochs: 1\nbatch_size: 16\n"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A tiny folder of learnable pictures, as a track."""
    return f"folder:{write_folder(tmp_path / 'data')}"


def search(tmp_path: Path, data: str, text: str, *more: str) -> int:
    """Write the grid and train it from the command line."""
    (tmp_path / "grid.yaml").write_text(text)
    command = ["--grid", str(tmp_path / "grid.yaml"), "--track", data, "--device", "cpu"]
    return main([*command, "--out", str(tmp_path / "runs"), *more])


def table(tmp_path: Path) -> list[dict[str, str]]:
    """The rows of the CSV, of which there is one."""
    (path,) = (tmp_path / "runs").glob("grid-*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def settings(tmp_path: Path, text: str) -> list[dict]:
    """What a grid says of each of its cells."""
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    return grid.combinations(file, grid.read_axes(file), [])


def planned(tmp_path: Path, text: str, **options: object) -> list[grid.Cell]:
    """The cells of a grid, not trained."""
    combined, file = settings(tmp_path, text), tmp_path / "grid.yaml"
    track = grid.Track("t", "T", "fer2013", (), trained_on="t")
    return [grid.cell_of(file, one, track, "common-v1", Options(**options), tmp_path, ["hash"]) for one in combined]


def test_every_cell_is_a_run_of_its_own_and_the_table_is_sorted_by_validation(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rates by two stops give four records with their settings, and a table with the best validation on top."""
    assert search(tmp_path, data, BASE + "lr: [1e-3, 0.01]\npatience: [0, 1]\n") == 0
    rows = table(tmp_path)
    assert {(row["lr"], row["patience"]) for row in rows} == {
        ("0.001", "0"), ("0.001", "1"), ("0.01", "0"), ("0.01", "1"),
    }  # fmt: skip
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    for row in rows:
        record = read_tensors(Path(row["folder"]) / "model.safetensors")[1]
        assert record == {key: value for key, value in _told(row).items() if key != "curve"}
        assert (record["settings"]["lr"], record["settings"]["patience"]) == (float(row["lr"]), int(row["patience"]))
        assert record["trained"]["selected_value"] == pytest.approx(float(row["validation_accuracy"]), abs=5e-5)
        assert record["recipe"].startswith("grid-")
    assert len({row["folder"] for row in rows}) == 4
    printed = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[0].strip("| ") for line in printed] == ["method", "---", *["deep_emotion"] * 4]


def _told(row: dict[str, str]) -> dict:
    return json.loads((Path(row["folder"]) / "record.json").read_text())


def test_finished_cells_are_never_run_again(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called again with one more value, only the new cell is trained; the others' files are not touched."""
    assert search(tmp_path, data, BASE + "lr: [0.001]\n") == 0
    (old,) = table(tmp_path)
    before = (Path(old["folder"]) / "model.safetensors").stat().st_mtime_ns
    trained: list[float] = []
    fit = Run.fit
    monkeypatch.setattr(Run, "fit", lambda self: (trained.append(self.recipe.lr), fit(self))[1])
    assert search(tmp_path, data, BASE + "lr: [0.001, 0.002]\n") == 0
    assert trained == [0.002]
    assert old in table(tmp_path)
    assert (Path(old["folder"]) / "model.safetensors").stat().st_mtime_ns == before


def test_a_killed_grid_goes_on_within_the_cell(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the second epoch, the table says what is not finished, and the first epoch is not trained again."""
    text = BASE.replace("epochs: 1", "epochs: 3") + "lr: [0.001, 0.002]\n"
    epoch, epochs = Run.epoch, []

    def watched(self: Run, *args: object) -> tuple[bool, float]:
        epochs.append((self.recipe.lr, len(self.state["curve"])))
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return epoch(self, *args)

    monkeypatch.setattr(Run, "epoch", watched)
    assert search(tmp_path, data, text) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert [row["ended"] for row in table(tmp_path)] == ["not finished"] * 2
    assert search(tmp_path, data, text) == 0
    assert epochs == [(0.001, 0), (0.001, 1), (0.001, 1), (0.001, 2), (0.002, 0), (0.002, 1), (0.002, 2)]
    assert [row["ended"] for row in table(tmp_path)] == ["complete"] * 2


def test_a_cell_out_of_time_gets_more_of_it(tmp_path: Path, data: str) -> None:
    """--max-minutes ends a cell with weights and marks it; the next call runs it to the end."""
    assert search(tmp_path, data, BASE, "--max-minutes", "1e-9") == 0
    assert [row["ended"] for row in table(tmp_path)] == ["max-minutes"]
    assert search(tmp_path, data, BASE) == 0
    assert [row["ended"] for row in table(tmp_path)] == ["complete"]


def test_a_cell_that_diverges_does_not_end_the_grid(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite is a line at the end of the table, is not tried again, and the others go on."""
    fit, tried = Run.fit, []

    def diverging(self: Run) -> Path:
        tried.append(self.recipe.lr)
        if self.recipe.lr == 9:
            raise TrainingError("the loss is not finite")
        return fit(self)

    monkeypatch.setattr(Run, "fit", diverging)
    assert search(tmp_path, data, BASE + "lr: [9, 0.001]\n") == 0
    assert [(row["lr"], row["ended"]) for row in table(tmp_path)] == [
        ("0.001", "complete"), ("9.0", "the loss was not finite"),
    ]  # fmt: skip
    (diverged,) = (Path(row["folder"]) for row in table(tmp_path) if row["lr"] == "9.0")
    (done,) = (Path(row["folder"]) for row in table(tmp_path) if row["lr"] == "0.001")
    cut_off = json.loads((done / "record.json").read_text())
    cut_off["trained"]["ended"] = "max-minutes"  # as if it had run out of time before it diverged
    (diverged / "record.json").write_text(json.dumps(cut_off))
    assert search(tmp_path, data, BASE + "lr: [9, 0.001]\n") == 0
    assert tried == [9, 0.001]
    assert search(tmp_path, data, BASE + "lr: 9\n") == 1


def test_other_pictures_make_other_cells(tmp_path: Path, data: str) -> None:
    """A changed data set does not pass for the one that finished cells were trained on."""
    assert search(tmp_path, data, BASE) == 0
    (before,) = table(tmp_path)
    Image.fromarray(picture(3, 777)).save(tmp_path / "data" / "train" / "anger" / "0.png")
    assert search(tmp_path, data, BASE) == 0
    (after,) = table(tmp_path)
    assert before["folder"] != after["folder"]


def test_the_test_split_is_out_of_reach(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a grid is searched, loading the test split raises."""
    monkeypatch.setattr(Run, "fit", lambda self: DATASETS["rendered"].load(None, "test"))
    with pytest.raises(RuntimeError, match="training never sees it"):
        search(tmp_path, data, BASE)


def test_the_command_line_gives_what_the_file_leaves_open(tmp_path: Path, data: str) -> None:
    """--epochs, --limit and --method apply where the grid does not say otherwise."""
    text = "batch_size: 8\nlimit: [8, 16]\n"
    assert search(tmp_path, data, text, "--method", "deep_emotion", "--epochs", "1", "--limit", "20") == 0
    records = [_told(row) for row in table(tmp_path)]
    assert sorted(record["trained"]["train_pictures"] for record in records) == [8, 16]
    assert {record["trained"]["epochs"] for record in records} == {1}
    assert planned(tmp_path, BASE, epochs=7, patience=2)[0].recipe.epochs == 1
    assert planned(tmp_path, BASE, epochs=7, patience=2)[0].recipe.patience == 2


def test_the_papers_table_2() -> None:
    """The example of the module is P2's grid: 4 rates x 4 batch sizes x 4 lengths x early stopping x augmentation."""
    example = (grid.__doc__ or "").split("Table 2")[1].split(":\n\n", 1)[1].split("\n\n")[0]
    file = Path("grid.yaml")
    axes = grid.yaml_axes(file, example)
    settings = grid.combinations(file, axes, [])
    assert len(settings) == 4 * 4 * 4 * 2 * 2
    assert settings[0] == {
        "method": "sep_cnn", "optimizer": "sgd", "lr": 0.1, "batch_size": 8, "epochs": 10, "patience": 0,
        "augmentation": True,
    }  # fmt: skip


def test_augmentation_on_off_and_by_field(tmp_path: Path) -> None:
    """true is the recipe's own, or common-v1's where it has none; false is none; a field changes one strength."""
    common = RECIPES["common-v1"].augmentation
    on, off = planned(tmp_path, "method: small_cnn\naugmentation: [on, off]\n")
    assert (on.recipe.augmentation, off.recipe.augmentation) == (common, Augmentation(flip=False))
    bare = planned(tmp_path, "method: sep_cnn\nrecipe: paper\naugmentation: [true]\n")[0]
    assert METHODS["sep_cnn"].card.paper_recipe.augmentation == Augmentation(flip=False)
    assert bare.recipe.augmentation == common
    (single,) = planned(tmp_path, "method: small_cnn\naugmentation: false\naugmentation.rotate: 20\n")
    assert single.recipe.augmentation == Augmentation(flip=False, rotate=20)


def test_options_of_a_method(tmp_path: Path) -> None:
    """What a network takes is an axis (P4's Table 3), and two lists give methods their own."""
    cells = planned(
        tmp_path,
        "- {method: small_cnn, layers: [2, 6], kernel: [2]}\n- {method: patch_cam, tokens: [true, false]}\n",
    )
    with torch.device("meta"):
        built = [cell.method.build(7) for cell in cells]
    sizes = [sum(p.numel() for p in network.parameters()) for network in built[:2]]
    assert sizes[1] == 3_849_319
    assert sizes[0] != sizes[1]
    assert [network.use_tokens for network in built[2:]] == [True, False]
    assert len({cell.folder for cell in cells}) == 4


def test_only_options_that_are_the_methods_own(tmp_path: Path) -> None:
    """A class whose defaults are another method offers nothing: sep_se is not SepCNN() and resnet18 not ResNet().

    Nor is a size offered: pictures keep the card's, which no other network could take.
    """
    assert set(grid.method_options(METHODS["small_cnn"])[1]) == {"layers", "kernel"}
    assert grid.method_options(METHODS["sep_se"])[1] == {}
    assert grid.method_options(METHODS["resnet18"])[1] == {}


class Switched(nn.Module):
    """An option that changes what is computed, and no shape."""

    def __init__(self, classes: int, inverted: bool = False) -> None:
        super().__init__()
        self.inner, self.inverted = tiny(classes), inverted

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(-x if self.inverted else x)


def test_a_cells_weights_are_judged_in_its_own_network(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load` builds with the options that the cell was trained with: it answers as validation saw it answer."""
    monkeypatch.setitem(METHODS._entries, "deep_emotion", replace(METHODS["deep_emotion"], build=Switched))
    assert search(tmp_path, data, BASE.replace("epochs: 1", "epochs: 6") + "lr: 0.01\ninverted: [true, false]\n") == 0
    faces = load_dataset(data, "validation")
    for row in table(tmp_path):
        folder = Path(row["folder"])
        model = load("deep_emotion", data, folder.name.removesuffix("-s0"), runs=tmp_path / "runs")
        assert model.network.inverted == (row["inverted"] == "True")
        right = logits(model, faces.images).argmax(1) == faces.labels
        assert np.array_equal(right, np.load(folder / VALIDATED))
    monkeypatch.setitem(METHODS._entries, "deep_emotion", replace(METHODS["deep_emotion"], build=tiny))
    with pytest.raises(WeightsError, match=r"deep_emotion cannot be built with inverted (True|False) any more"):
        load("deep_emotion", data, folder.name.removesuffix("-s0"), runs=tmp_path / "runs")


def test_stages_are_those_of_the_recipe_that_is_changed(tmp_path: Path) -> None:
    """awei's guide stage belongs to common-v1 alone; a cell keeps it there and not under `paper`."""
    common, paper = planned(tmp_path, "method: awei\nrecipe: [common-v1, paper]\n")
    names = [[stage.name for stage in cell.method.stages] for cell in (common, paper)]
    expected = [
        [stage.name for stage in METHODS["awei"].stages if not stage.recipes or recipe in stage.recipes]
        for recipe in ("common-v1", "paper")
    ]
    assert names == expected
    assert names[0] != names[1]


def test_a_cell_given_twice_is_run_once(tmp_path: Path) -> None:
    """The same settings, in one list or in two, are one cell."""
    assert len(planned(tmp_path, "- {method: small_cnn, lr: [0.1, 0.1]}\n- {method: small_cnn, lr: 1e-1}\n")) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: small_cnn\nlearning_rate: 1\n", "learning_rate is no field of a recipe and no option of small_cnn"),
        ("method: small_cnn\nbatchsize: 8\n", "did you mean batch_size?"),
        ("method: small_cnn\nearly_stopping: [yes, no]\n", "did you mean patience, 0 for none?"),
        ("method: small_cnn\nkernels: 2\n", "did you mean kernel?"),
        ("method: small_cnn\nsize: [32, 48]\n", "size is no field of a recipe and no option of small_cnn."),
        ("method: [resnet18, sep_cnn]\nkernel: 2\n", "kernel is no field of a recipe and no option of resnet18, sep"),
        ("method: [sep_cnn, small_cnn]\nkernel: 2\n", "no option of sep_cnn; write a list of grids, and give it in th"),
        (
            "method: small_cnn\ntrack: fer2013-4\n",
            "track is no field of a recipe and no option of small_cnn; give --",
        ),
        ("method: smal_cnn\n", "Did you mean 'small_cnn'"),
        ("method: small_cnn\nrecipe: comon-v1\n", "Did you mean 'common-v1'"),
        ("method: small_cnn\noptimizer: sgdd\n", "optimizer must be adamw, adam, sgd or nesterov, not 'sgdd'"),
        ("method: small_cnn\nkernel: 9\n", "kernel 2..5, not 6 and 9"),
        ("method: small_cnn\nepochs: 2.5\n", "epochs must be a whole number, 0 or more, not 2.5"),
        ("method: small_cnn\nepochs: yes\n", "epochs must be a whole number, 0 or more, not True"),
        ("method: small_cnn\nepochs: 0\n", "epochs must be at least 1"),
        ("method: small_cnn\nlr: fast\n", "lr must be a number, 0 or more, not 'fast'"),
        ("method: small_cnn\nlr: .nan\n", "lr must be a number, 0 or more, not nan"),
        ("method: small_cnn\npatience: -1\n", "patience must be a whole number, 0 or more, not -1"),
        ("method: small_cnn\naugmentation: some\n", "augmentation must be true or false, not 'some'"),
        ("method: small_cnn\nlimit: 0\n", "limit must be at least 1, not 0"),
        ("method: small_cnn\nlr: []\n", "lr has no values"),
        ("lr: 1\n", "no method; add `method: small_cnn` or give --method"),
        ("- 1\n- 2\n", "a grid is a mapping of fields to values"),
        ("", "a grid is a mapping of fields to values"),
        ("method: [small_cnn\nlr: 1\n", "line 2: this is not valid YAML"),
    ],
)
def test_a_faulty_grid_is_refused_before_anything_is_trained(
    tmp_path: Path, data: str, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field, value or file that makes no sense is one sentence, exit code 2, and no run."""
    assert search(tmp_path, data, text) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_grid_names_the_file(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is not there is named."""
    assert main(["--grid", str(tmp_path / "no.yaml"), "--track", data]) == 2
    assert f"{tmp_path / 'no.yaml'}: this grid cannot be read" in capsys.readouterr().err


def test_windows_files_are_read(tmp_path: Path) -> None:
    """A byte-order mark and Windows line ends change nothing."""
    file = tmp_path / "grid.yaml"
    file.write_bytes(b"\xef\xbb\xbfmethod: small_cnn\r\nlr: [1e-3, 0.1]\r\n")
    assert grid.read_axes(file) == [{"method": ["small_cnn"], "lr": ["1e-3", 0.1]}]


def test_how_far_the_best_can_be_told_from_the_rest() -> None:
    """80 of 100 right is 0.711 to 0.867 by Wilson's interval (worked by hand): 0.75 lies in it, 0.7 does not."""
    assert grid.wilson(0.8, 100) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    rows = [{"validation_accuracy": value} for value in (0.7, 0.8, 0.75)] + [
        {"ended": e} for e in ("not finished", "failed: x")
    ]
    told = grid.verdict(rows, [100] * 5)
    assert told == "; the best has 0.8000 (0.7112 to 0.8666 on 100 pictures); 1 other cell(s) lie in that"
    assert grid.verdict([{"ended": "not finished"}], [100]) == ""


def test_without_a_method_or_a_grid_the_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One of --method, --all and --grid must be given."""
    with pytest.raises(SystemExit) as caught:
        main(["--track", "fer2013"])
    assert caught.value.code == 2
    assert "--method --all --missing --grid" in capsys.readouterr().err


RANDOM = "method: small_cnn\nlr: {loguniform: [1e-4, 1e-2]}\nlayers: {integers: [2, 5]}\nkernel: [2, 3]\n"


def test_cells_drawn_at_random(tmp_path: Path) -> None:
    """Numbers come from their ranges, ends of whole ones included; one seed draws the same cells, another others."""
    text = RANDOM + "random: {samples: 40, seed: 3}\n"
    drawn = settings(tmp_path, text)
    assert len(drawn) == 40
    assert all(1e-4 <= one["lr"] <= 1e-2 and type(one["lr"]) is float for one in drawn)
    assert 12 <= sum(one["lr"] < 1e-3 for one in drawn) <= 28, "half of a log-uniform draw lies in the lower decade"
    assert {one["layers"] for one in drawn} == {2, 3, 4, 5}
    assert {one["kernel"] for one in drawn} == {2, 3}
    assert all(float(f"{one['lr']:.4g}") == one["lr"] for one in drawn)
    assert settings(tmp_path, text) == drawn
    assert settings(tmp_path, text.replace("seed: 3", "seed: 4")) != drawn


def test_every_draw_is_trained_under_every_seed(tmp_path: Path) -> None:
    """Seeds are not drawn but crossed with the draws, and share a cell's name but for the seed."""
    cells = planned(tmp_path, RANDOM + "seed: [0, 1, 2]\nrandom: {samples: 2}\n")
    assert [cell.options.seed for cell in cells] == [0, 1, 2] * 2
    assert len({cell.folder.name[:-3] for cell in cells}) == 2
    assert len({cell.folder for cell in cells}) == 6


def test_lists_are_drawn_from_without_replacement(tmp_path: Path) -> None:
    """More samples than combinations give every combination once."""
    cells = planned(tmp_path, "method: small_cnn\nkernel: [2, 3]\nlr: [0.1, 0.2]\nrandom: {samples: 9}\n")
    assert len(cells) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr: {loguniform: [1e-4, 1e-2]}\n", "lr is a range; add `random: {samples: 20}`"),
        ("random: 5\n", "random takes samples and seed"),
        ("random: {seed: 5}\n", "random takes samples and seed"),
        ("random: {samples: 0}\n", "random.samples must be at least 1, not 0"),
        ("random: {samples: x}\n", "random.samples must be a whole number"),
        ("random: {samples: 1}\nlr: {normal: [0, 1]}\n", "write {uniform: [low, high]} or {loguniform: [low, high]}"),
        ("random: {samples: 1}\nkernel: {uniform: [2, 5]}\n", "write {integers: [low, high]}"),
        ("random: {samples: 1}\nlr: {uniform: [1]}\n", "lr is no range that it can be drawn from"),
        ("random: {samples: 1}\nlr: {uniform: [2, 1]}\n", "must go from a low end to a higher one."),
        ("random: {samples: 1}\nlr: {loguniform: [0, 1]}\n", "a higher one, and the low end above 0"),
        ("random: {samples: 1}\noptimizer: {uniform: [0, 1]}\n", "optimizer cannot be drawn from a range"),
        ("random: {samples: 1}\nseed: {integers: [0, 9]}\n", "seed cannot be drawn from a range; list its values"),
        ("random: {samples: 1}\nlr: {uniform: [0, a]}\n", "lr must be a number, 0 or more, not 'a'"),
    ],
)
def test_faulty_ranges_are_refused(tmp_path: Path, text: str, says: str) -> None:
    """A range that cannot be drawn from is one sentence that names the mend."""
    with pytest.raises(UserError, match=re.escape(says)):
        planned(tmp_path, "method: small_cnn\n" + text)


def test_seeds_are_summarised(tmp_path: Path) -> None:
    """0.5, 0.6 and 0.7 have mean 0.6 and standard deviation 0.1; a setting with one of two seeds has none."""
    text = "- {method: small_cnn, kernel: 2, seed: [0, 1, 2]}\n- {method: small_cnn, kernel: 3, seed: [0, 1]}\n"
    cells = planned(tmp_path, text)
    values = [0.5, 0.6, 0.7, 0.65, None]
    rows = [{"ended": "complete"} | ({} if v is None else {"validation_accuracy": v}) for v in values]
    first, second = grid.groups(cells, rows)
    assert (first.settings["kernel"], first.seeds, first.values, first.sd) == (3, 2, (0.65,), None)
    assert (second.mean, second.sd) == (pytest.approx(0.6), pytest.approx(0.1))
    assert grid.seeds_verdict([first, second]) == (
        "; the best has mean 0.6000 (sd 0.1000 over 3 seeds); 0 other setting(s) lie within two sd of it"
    )
    assert grid.groups(cells[:1], rows[:1]) == []
