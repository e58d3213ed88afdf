"""The result record: what it holds, what it refuses and where it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench import metrics as m
from fer_bench import results as r
from fer_bench import statistics as s
from fer_bench.emotions import FOUR
from fer_bench.errors import UserError
from fer_bench.records import Centre, Regions
from fer_bench.statistics import Interval

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 4, 120)
LOGITS = RNG.normal(size=(120, 4)) + 2 * np.eye(4)[TARGETS]


ROBUSTNESS = r.Robustness(
    suite="faces-1", pictures=70, seed=0, clean=Interval(0.8, 0.7, 0.9), corrupted=Interval(0.6, 0.5, 0.7),
    relative_drop=Interval(0.25, 0.2, 0.3),
    corruptions={"blur": {"1": Interval(0.7, 0.6, 0.8), "5": Interval(0.5, 0.4, 0.6)}},
)  # fmt: skip
FAITHFULNESS = r.Faithfulness(
    cam="gradcam", pictures=70, seed=0, empty_maps=0.0, deletion=0.2, deletion_random=0.3,
    deletion_gain=Interval(0.1, 0.05, 0.15), insertion=0.5, insertion_random=0.6,
    insertion_gain=Interval(-0.1, -0.2, 0.05),
    regions=Regions(pictures=60, energy=Interval(0.4, 0.3, 0.5), area=0.2, pointing_game=Interval(0.5, 0.4, 0.6)),
    centre=Centre(
        deletion=0.25, deletion_gain=Interval(0.05, 0.0, 0.1), insertion=0.55, insertion_gain=Interval(-0.05, -0.1, 0),
        energy=0.4, pointing_game=0.3,
    ),
)  # fmt: skip


def make_result(**changes) -> r.Result:
    """A valid result of `small_cnn` on fer2013-4 over 120 pictures."""
    fields = {
        "method": "small_cnn", "track": "fer2013-4", "recipe": "common-v1", "seed": 3, "emotions": FOUR,
        "trained": r.Trained(track="fer2013-4", epochs=12, budget_epochs=60, pictures_seen=240_000, complete=False),
        "weights": r.Weights(sha256="0f" * 32, bytes=7_700_000, storage="fp16+int8", accuracy_loss=0.001),
        "data": r.Data(hash="ab12", counts={"train": 20_000, "test": 120}, test_pictures=120, skipped=["7.png: cut"]),
        "protocol": "0123456789ab",
        "cost": r.Cost(parameters=3_849_319, macs=90_000_000, latency_ms=1.5, latency_ratio=0.4),
        "robustness": ROBUSTNESS,
        "explanation": FAITHFULNESS,
        "commit": "unknown",
        "versions": r.Versions(python="3.12", torch="2.13", numpy="2.4", fer_bench="0.1.0"),
        "date": "2025-01-31T12:00:00+00:00",
        **r.measure(TARGETS, LOGITS, FOUR, samples=50),
    }  # fmt: skip
    return r.Result(**{**fields, **changes})


RESULT = make_result()


def written(folder: Path, change=None) -> Path:
    """RESULT on disk, its JSON values changed in place by `change`."""
    path = r.write_result(RESULT, folder)
    values = json.loads(path.read_text())
    if change is not None:
        change(values)
    path.write_text(json.dumps(values))
    return path


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    """Writing and reading gives an equal record, at the path that its content names."""
    path = r.write_result(RESULT, tmp_path)
    assert path == tmp_path / "results/fer2013-4/small_cnn/common-v1-s3.json"
    assert r.read_result(path) == RESULT
    assert r.read_results(tmp_path) == [RESULT]


def test_a_record_holds_numbers(tmp_path):
    """Figures stand in the JSON as numbers under the names that scripts rely on."""
    values = json.loads(r.write_result(RESULT, tmp_path).read_text())
    assert values["metrics"]["accuracy"]["value"] == m.accuracy(TARGETS, LOGITS)
    assert values["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    assert values["cost"]["parameters"] == 3_849_319
    assert values["trained"]["pictures_seen"] == 240_000
    assert values["emotions"] == list(FOUR)


def test_a_record_from_before_people_were_known_is_whole(tmp_path):
    """A record without the key `subjects` has intervals over pictures."""
    assert r.read_result(written(tmp_path, lambda v: v.pop("subjects"))) == RESULT


def test_a_record_without_robustness_and_explanation_is_whole(tmp_path):
    """Both may be null or absent, as in records that were made without them; an untrained method has no drop."""
    path = written(tmp_path, lambda v: v.update(robustness=None, explanation=None))
    assert (r.read_result(path).robustness, r.read_result(path).explanation) == (None, None)
    path = written(tmp_path, lambda v: (v.pop("robustness"), v.pop("explanation")))
    assert (r.read_result(path).robustness, r.read_result(path).explanation) == (None, None)
    none = {"value": 0, "low": 0, "high": 0}
    corruptions = {"blur": {"3": none}}
    nothing = {"clean": none, "corrupted": none, "relative_drop": None, "corruptions": corruptions}
    path = written(tmp_path, lambda v: v["robustness"].update(nothing))
    assert r.read_result(path).robustness.relative_drop is None


def test_measure_reports_what_the_metrics_say():
    """The measured fields are those of the pure metric functions."""
    assert RESULT.confusion_matrix == m.confusion_matrix(TARGETS, LOGITS).tolist()
    recalls = [RESULT.per_class_recall[emotion].value for emotion in FOUR]
    assert recalls == m.per_class_recall(TARGETS, LOGITS).tolist()
    assert RESULT.metrics["ece"].value == m.ece(TARGETS, LOGITS)
    assert sum(RESULT.calibration.count) == 120


def test_measure_gives_accuracy_without_duplicates():
    """Pictures that also stand in train are left out of the second accuracy, and only of that."""
    duplicates = LOGITS.argmax(1) != TARGETS
    found = r.measure(TARGETS, LOGITS, FOUR, duplicates, samples=10)["metrics"]
    assert found["accuracy_without_duplicates"].value == 1
    assert found["accuracy"].value == m.accuracy(TARGETS, LOGITS)


def test_measure_draws_the_pictures_of_a_person_together():
    """With subjects the intervals are those over people, without duplicates too, and the record says how many."""
    subjects = np.array([f"S{place // 10:03}" for place in range(120)])
    duplicates = np.arange(120) >= 100
    found = r.measure(TARGETS, LOGITS, FOUR, duplicates, samples=50, subjects=subjects)
    assert found["metrics"]["macro_f1"] == s.bootstrap_interval(TARGETS, LOGITS, "macro_f1", 50, subjects=subjects)
    recalls = s.bootstrap_recalls(TARGETS, LOGITS, 50, subjects=subjects)
    assert list(found["per_class_recall"].values()) == recalls
    rest = s.bootstrap_interval(TARGETS[:100], LOGITS[:100], "accuracy", 50, subjects=subjects[:100])
    assert found["metrics"]["accuracy_without_duplicates"] == rest
    result = make_result(**found)
    assert result.subjects == 12
    assert r.Result.from_dict(result.to_dict()) == result
    assert RESULT.subjects is None


def test_a_perfect_score_is_a_valid_record():
    """Where all pictures are right, the record holds Wilson's intervals and can be read back."""
    result = make_result(**r.measure(TARGETS, np.eye(4)[TARGETS], FOUR, samples=10))
    assert 0.95 < result.metrics["accuracy"].low < result.metrics["accuracy"].high == 1
    assert r.Result.from_dict(result.to_dict()) == result


@pytest.mark.parametrize("track", ["fer2013", "fer2013-4", "ferplus", "rendered"])
def test_standing_accuracies_keep_their_intervals(track):
    """The committed records' intervals are what their logits give today: no draw of independent pictures has moved."""
    root = Path(__file__).parent.parent / "leaderboard"
    results = [result for result in r.read_results(root) if result.track == track and not result.external][:3]
    assert results
    for result in results:
        row = (result.track, result.method, result.recipe, result.seed, result.tta)
        stored = r.read_logits(r.result_path(root, *row))
        assert s.bootstrap_interval(stored.targets, stored.logits) == result.metrics["accuracy"], row


def test_an_emotion_without_pictures_has_no_recall():
    """A class that the test pictures lack is left out of the recalls, not written as NaN, and the record is valid."""
    kept = TARGETS != 2
    result = make_result(
        data=r.Data(hash="ab", counts={}, test_pictures=int(kept.sum())),
        **r.measure(TARGETS[kept], LOGITS[kept], FOUR, samples=10),
    )
    assert list(result.per_class_recall) == ["anger", "happiness", "neutral"]
    assert r.Result.from_dict(result.to_dict()) == result


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.update(colour=1), "unknown key(s): colour"),
        (lambda v: v.update(subjects=0), "subjects must be null or from 1 to 120, not 0"),
        (lambda v: v.update(subjects=121), "subjects must be null or from 1 to 120, not 121"),
        (lambda v: v["trained"].update(lr=1), "trained has unknown key(s): lr"),
        (lambda v: v.pop("commit"), "missing key(s): commit"),
        (lambda v: v["cost"].pop("parameters"), "cost has missing key(s): parameters"),
        (lambda v: v["metrics"]["accuracy"].update(value="0.7"), "metrics.accuracy.value must be of type float"),
        (lambda v: v["trained"].update(complete=1), "trained.complete must be of type bool"),
        (lambda v: v.update(seed=True), "seed must be of type int"),
        (lambda v: v["metrics"].pop("ece"), "metrics lacks ece"),
        (lambda v: v["metrics"].update(auc=v["metrics"]["ece"]), "metrics has unknown names: auc"),
        (lambda v: v["metrics"]["ece"].update(value=1.2), "ece must be a fraction"),
        (lambda v: v["metrics"]["ece"].update(low=0.9, high=0.8), "ece must be a fraction"),
        (lambda v: v["metrics"]["accuracy"].update(low=0.99, high=1.0), "accuracy must lie within its own interval"),
        (lambda v: v["metrics"]["accuracy"].update(value=0.99), "accuracy 0.99 is not the confusion matrix's"),
        (lambda v: v["metrics"]["balanced_accuracy"].update(value=0.99), "balanced_accuracy 0.99 is not the confusion"),
        (lambda v: v["metrics"]["macro_f1"].update(value=0.99), "macro_f1 0.99 is not the confusion matrix's"),
        (lambda v: v["per_class_recall"]["anger"].update(value=0.123), "per_class_recall is not that"),
        (lambda v: v["confusion_matrix"].pop(), "confusion_matrix must be 4 x 4"),
        (lambda v: v["confusion_matrix"].clear(), "confusion_matrix must be 4 x 4"),
        (lambda v: v["data"].update(test_pictures=121), "confusion_matrix holds 120 pictures"),
        (lambda v: v["calibration"]["count"].append(0), "calibration's bins"),
        (lambda v: v["emotions"].reverse(), "emotions must be in the order anger"),
        (lambda v: v["weights"].update(sha256="abc"), "weights.sha256 must be 64 hex digits"),
        (lambda v: v.update(protocol="zzz"), "protocol must be 12 hex digits"),
        (lambda v: v.update(date="2025-01-31T12:00:00+02:00"), "must be ISO 8601 in UTC"),
        (lambda v: v.update(date="yesterday"), "must be ISO 8601 in UTC"),
        (lambda v: v.update(method="../x"), "method '../x' must match"),
        (lambda v: v.update(track="../x"), "track '../x' must be a track's name"),
        (lambda v: v.update(schema=2), "schema is 2"),
        (lambda v: v["cost"].update(parameters=0), "cost.parameters must be positive"),
        (lambda v: v["cost"].update(latency_ms=float("nan")), "NaN is no number"),
        (lambda v: v["robustness"].update(colour=1), "robustness has unknown key(s): colour"),
        (lambda v: v["robustness"].pop("clean"), "robustness has missing key(s): clean"),
        (lambda v: v["robustness"]["corruptions"]["blur"].update({"6": v["robustness"]["clean"]}), "not 1 to 5"),
        (lambda v: v["robustness"]["corruptions"].clear(), "robustness.corruptions must not be empty"),
        (lambda v: v["robustness"]["corruptions"]["blur"]["5"].update(value=1.5), "robustness must hold fractions"),
        (lambda v: v["robustness"]["corruptions"]["blur"].pop("5"), "robustness.corrupted is not the mean"),
        (lambda v: v["robustness"]["relative_drop"].update(value=0.5), "robustness.relative_drop is 0.5"),
        (lambda v: v["robustness"].update(relative_drop=None), "robustness.relative_drop is None"),
        (lambda v: v["robustness"].update(pictures=121), "robustness.pictures is more than data.test_pictures"),
        (lambda v: v["explanation"].update(deletion="0.2"), "explanation.deletion must be of type float"),
        (lambda v: v["explanation"].update(deletion=0.25), "explanation.deletion_gain is 0.1"),
        (lambda v: v["explanation"].update(empty_maps=2), "explanation's areas and shares must lie in 0..1"),
        (lambda v: v["explanation"]["regions"].update(area=7), "explanation.regions needs pictures and an area"),
        (
            lambda v: v["explanation"]["regions"].update(empty_maps=-1),
            "explanation.regions.empty_maps must lie in",
        ),
        (lambda v: v["explanation"]["centre"].update(energy=1.2), "explanation.centre's areas and shares must lie"),
        (lambda v: v["explanation"]["centre"].update(deletion=0.2), "explanation.centre.deletion_gain is 0.05"),
        (lambda v: v["explanation"]["centre"]["insertion_gain"].update(low=1), "must have low <= high"),
        (lambda v: v["explanation"]["regions"].update(mask=1), "explanation.regions has unknown key(s): mask"),
        (lambda v: v["cost"].update(parameters=10**400), "cost.parameters is no number that a result may hold: 1000"),
        (lambda v: v["cost"].update(latency_ms=10**400), "cost.latency_ms is no number that a result may hold"),
        (lambda v: v["cost"].update(macs=-1), "cost.macs must be positive, not -1"),
        (lambda v: v["cost"].update(latency_ratio=0), "cost.latency_ratio must be positive"),
    ],
)
def test_a_broken_record_is_refused(tmp_path, change, sentence):
    """Unknown, missing, mistyped and contradictory fields are refused with the file and the field named."""
    path = written(tmp_path, change)
    with pytest.raises(r.ResultError) as caught:
        r.read_result(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


def test_a_number_that_json_writes_and_no_float_holds_is_refused(tmp_path):
    """1e999 is a number of JSON's, and infinite once read: it would stop the table, not only its own row."""
    path = written(tmp_path)
    text = path.read_text()
    assert '"latency_ratio": ' in text
    path.write_text(re.sub('"latency_ratio": [^,]*', '"latency_ratio": 1e999', text))
    with pytest.raises(r.ResultError, match=r"cost\.latency_ratio is no number that a result may hold: inf"):
        r.read_result(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    """Whatever is not a JSON object is refused with the file named, never with a bare decoding error."""
    path = written(tmp_path)
    path.write_bytes(content)
    with pytest.raises(r.ResultError, match=r"common-v1-s3\.json"):
        r.read_result(path)


def test_result_errors_are_user_and_value_errors():
    """A broken record is the user's to mend and also a ValueError."""
    assert issubclass(r.ResultError, UserError)
    assert issubclass(r.ResultError, ValueError)


@pytest.mark.parametrize(
    "place",
    ["fer2013-4/small_cnn/common-v1-s4", "fer2013/small_cnn/common-v1-s3", "fer2013-4/awei/common-v1-s3"],
)
def test_a_misplaced_record_is_refused(tmp_path, place):
    """A record under another track, method or seed is refused, and the error says where it belongs."""
    path = tmp_path / "results" / f"{place}.json"
    path.parent.mkdir(parents=True)
    written(tmp_path).rename(path)
    with pytest.raises(r.ResultError, match=r"move it to results/fer2013-4/small_cnn/common-v1-s3\.json"):
        r.read_results(tmp_path)


def test_numpy_numbers_are_written_as_plain_ones(tmp_path):
    """Numbers from numpy may stand in a record; on disk they are plain."""
    cost = replace(RESULT.cost, parameters=np.int64(5), latency_ms=np.float32(0.5))
    path = r.write_result(replace(RESULT, cost=cost, seed=np.int64(3)), tmp_path)
    assert json.loads(path.read_text())["cost"]["parameters"] == 5
    assert r.read_result(path).cost.latency_ms == 0.5


def test_a_record_with_a_number_that_is_not_finite_is_not_written(tmp_path):
    """NaN in any field is refused when writing, and nothing appears on disk."""
    with pytest.raises(r.ResultError, match="cannot be written"):
        r.write_result(replace(RESULT, cost=replace(RESULT.cost, latency_ms=float("nan"))), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_own_pictures_get_a_safe_folder_and_keep_their_name(tmp_path):
    """A folder: track is stored under a name without separators, distinct for distinct paths, and read back in full."""
    result = replace(RESULT, track="folder:/some/my faces|x")
    path = r.write_result(result, tmp_path)
    assert path.parts[-3].startswith("folder-my_faces_x-")
    assert r.read_result(path).track == "folder:/some/my faces|x"
    assert r.track_folder("folder:/a/faces") != r.track_folder("folder:/b/faces")
    assert r.track_folder("csv:/a/..").startswith("csv-pictures-")


def test_test_time_augmentation_is_another_file(tmp_path):
    """A figure with test-time augmentation never overwrites the plain one."""
    r.write_result(RESULT, tmp_path)
    path = r.write_result(replace(RESULT, tta="flip"), tmp_path)
    assert path.name == "common-v1-s3-flip.json"
    assert [result.tta for result in r.read_results(tmp_path)] == ["flip", "none"]


def test_an_interrupted_write_leaves_the_old_record(tmp_path, monkeypatch):
    """Where writing fails half way, the old file stays whole and no temporary file is left."""
    path = r.write_result(RESULT, tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        r.write_result(replace(RESULT, commit="other"), tmp_path)
    assert r.read_result(path).commit == "unknown"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_logits_reproduce_the_figures(tmp_path):
    """Metrics of the stored float16 logits are those of the record, even for large logits that lie close together."""
    logits = LOGITS * 0.01 + 90_000
    path = r.write_logits(RESULT, tmp_path, [f"img/{i}.png" for i in range(120)], TARGETS, logits)
    assert path == tmp_path / "results/fer2013-4/small_cnn/common-v1-s3.npz"
    stored = r.read_logits(path.with_suffix(".json"))
    np.testing.assert_array_equal(stored.targets, TARGETS)
    np.testing.assert_array_equal(stored.logits.argmax(1), logits.argmax(1))
    assert m.nll(stored.targets, stored.logits) == pytest.approx(m.nll(TARGETS, logits), abs=1e-4)
    assert stored.ids[7] == "img/7.png"
    with np.load(path) as file:
        assert [file[name].dtype.str for name in ("logits", "targets")] == ["<f2", "|i1"]


def test_logits_keep_whom_each_picture_shows(tmp_path):
    """Subjects are read back as they were written; without them the file holds what it always held."""
    ids, subjects = list(map(str, range(120))), np.array([f"S{place // 10:03}" for place in range(120)])
    path = r.write_logits(RESULT, tmp_path, ids, TARGETS, LOGITS, subjects)
    assert r.read_logits(path).subjects.tolist() == subjects.tolist()
    with pytest.raises(ValueError, match="120 pictures need as many subjects, not 3"):
        r.write_logits(RESULT, tmp_path, ids, TARGETS, LOGITS, subjects[:3])
    with np.load(path) as file:
        arrays = {**file, "subjects": subjects[:3]}
    np.savez(path, **arrays)
    with pytest.raises(r.ResultError, match="cannot be read as logits: 120 pictures need as many subjects"):
        r.read_logits(path)
    r.write_logits(RESULT, tmp_path, ids, TARGETS, LOGITS)
    with np.load(path) as file:
        assert sorted(file) == ["ids", "logits", "targets"]
    assert r.read_logits(path).subjects is None


def test_logits_far_below_the_largest_stay_finite(tmp_path):
    """A logit that float16 cannot hold is stored as its lowest finite number."""
    logits = np.where(np.eye(4)[TARGETS] > 0, 1e6, -1e6)
    stored = r.read_logits(r.write_logits(RESULT, tmp_path, list(map(str, range(120))), TARGETS, logits))
    assert stored.logits.min() == -65504


def test_logits_need_distinct_ids_and_matching_columns(tmp_path):
    """Repeated ids and columns that are not the record's emotions are refused."""
    with pytest.raises(ValueError, match="distinct ids"):
        r.write_logits(RESULT, tmp_path, ["same"] * 120, TARGETS, LOGITS)
    with pytest.raises(ValueError, match="do not match 4 emotions"):
        r.write_logits(RESULT, tmp_path, list(map(str, range(120))), TARGETS, np.zeros((120, 7)))


def test_logits_are_never_unpickled(tmp_path):
    """An .npz that holds Python objects is refused, not run."""
    path = tmp_path / "x.npz"
    np.savez(path, ids=np.array([{"a": 1}], dtype=object), targets=np.zeros(1, np.int8), logits=np.zeros((1, 2)))
    with pytest.raises(r.ResultError, match="cannot be read as logits"):
        r.read_logits(path)
    with pytest.raises(r.ResultError, match=r"missing\.npz"):
        r.read_logits(tmp_path / "missing.npz")


def test_results_do_not_import_torch():
    """Records are read without torch."""
    code = "import sys, fer_bench.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
