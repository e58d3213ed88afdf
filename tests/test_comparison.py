"""Two models over the same pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fer_bench import comparison as c
from fer_bench import results as r
from fer_bench.errors import UserError
from fer_bench.statistics import Interval, mcnemar, paired_difference, sign_flip
from tests.test_leaderboard import made

TARGETS = np.array([0, 0, 1, 1, 0, 1])
FIRST = np.array([0, 0, 1, 0, 1, 0])
SECOND = np.array([0, 1, 0, 0, 1, 1])


def logits_of(answers: np.ndarray, classes: int = 2) -> np.ndarray:
    """float32 (N, K) whose largest column is the answer."""
    return np.eye(classes, dtype=np.float32)[answers] - 1


def of(method: str, answers: np.ndarray) -> r.Result:
    """A record of these answers to the six pictures."""
    measured = r.measure(TARGETS, logits_of(answers), ("anger", "happiness"), samples=20)
    return made(method, data=r.Data(hash="d" * 64, counts={"test": 6}, test_pictures=6), **measured)


def saved(ids, targets, answers) -> r.Logits:
    """Logits as they are read from a file."""
    return r.Logits(np.array(ids), np.array(targets), logits_of(np.array(answers)))


def test_six_pictures_worked_by_hand():
    """Counts, agreement matrix, difference and disagreeing pictures of a case small enough to count."""
    found = c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("anger", "happiness"))
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (1, 2, 1, 2)
    assert found.agreement.tolist() == [[2, 2], [1, 1]]
    assert found.difference.value == pytest.approx(1 / 6)
    assert found.disagree.tolist() == [1, 2, 5]
    assert found.pictures == 6
    assert found.ids == ("0", "1", "2", "3", "4", "5")


def test_the_figures_are_those_of_the_statistics():
    """The interval and the p-value are exactly the paired bootstrap's and McNemar's."""
    rng = np.random.default_rng(0)
    targets, first, second = rng.integers(0, 3, 200), rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    found = c.compare(targets, first, second, ("anger", "happiness", "neutral"))
    assert found.difference == paired_difference(targets, first, second)
    assert found.p_value == mcnemar(targets, first, second)


def test_people_are_compared_as_wholes():
    """Where subjects are known, interval and p-value are those over people, the counts stay, and all words say so."""
    rng = np.random.default_rng(0)
    targets, subjects = np.zeros(240, int), np.repeat(["S1", "S2", "S3", "S4", "S5", "S6"], 40)
    first, second = logits_of(rng.integers(0, 2, 240)), logits_of(np.repeat([0, 1], [40, 200]))
    plain = c.compare(targets, first, second, ("anger", "happiness"))
    found = c.compare(targets, first, second, ("anger", "happiness"), subjects=subjects)
    assert found.difference == paired_difference(targets, first, second, subjects=subjects)
    assert found.p_value == sign_flip(targets, first, second, subjects)
    assert (found.only_first, found.subjects, plain.subjects) == (plain.only_first, 6, None)
    assert plain.sentence("a", "b").startswith("They differ by ")
    text = found.sentence("a", "b")
    assert text.startswith("a and b cannot be told apart on these 240 pictures of 6 people: ")
    assert f"; sign flips by person p = {found.p_value:.3f})" in text
    cautious = replace(found, difference=Interval(0.1, 0.05, 0.2)).sentence("a", "b")
    assert "leaves out 0, while the test by sign flips of whole people finds none" in cautious
    assert "McNemar" not in text + cautious


def test_either_file_tells_whom_the_pictures_show():
    """A file from before people were known is compared by the other's subjects, matched by the pictures' names."""
    ids, subjects = np.array([f"p{i}" for i in range(6)]), np.array(list("aabbbc"))
    order = np.array([3, 0, 5, 1, 4, 2])
    knows = saved(ids, TARGETS, FIRST)._replace(subjects=subjects)
    other = saved(ids[order], TARGETS[order], SECOND[order])
    expected = c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("anger", "happiness"), subjects=subjects)
    found = c.compare_logits(knows, other, ("anger", "happiness"))
    turned = c.compare_logits(other, knows, ("anger", "happiness"))
    assert found.subjects == turned.subjects == 3
    assert found.difference == expected.difference
    assert found.p_value == turned.p_value == expected.p_value
    assert turned.difference == paired_difference(TARGETS, logits_of(SECOND), logits_of(FIRST), subjects=subjects)


def test_the_table_names_the_test(tmp_path):
    """The heading says what p is of, and a column says it for each pair where they differ."""
    rows = {name: of(name, a) for name, a in (("old", FIRST), ("older", SECOND), ("new", TARGETS))}
    for (name, result), answers in zip(rows.items(), (FIRST, SECOND, TARGETS), strict=True):
        subjects = np.array(list("aabbbc")) if name == "new" else None
        r.write_logits(result, tmp_path, [f"p{i}" for i in range(6)], TARGETS, logits_of(answers), subjects)
    pairs = [("old", "new"), ("old", "older")]
    frame, _, skipped = c.compare_pairs(tmp_path, rows, pairs)
    assert (frame["test"].tolist(), skipped) == (["sign flips by person", "McNemar"], [])
    heads = [c.pairs_table(c.compare_pairs(tmp_path, rows, some)[0]).splitlines()[0] for some in (pairs, pairs[:1])]
    assert "| p | Test | p, Holm |" in heads[0]
    assert "| sign flips by person p | p, Holm |" in heads[1]


def test_pictures_are_matched_by_their_names():
    """A second file in another order gives the same comparison as one in the first's order."""
    ids = np.array([f"p{i}" for i in range(6)])
    order = np.array([3, 0, 5, 1, 4, 2])
    plain = c.compare_logits(saved(ids, TARGETS, FIRST), saved(ids, TARGETS, SECOND), ("anger", "happiness"))
    mixed = c.compare_logits(
        saved(ids, TARGETS, FIRST), saved(ids[order], TARGETS[order], SECOND[order]), ("anger", "happiness")
    )
    assert mixed.second.tolist() == plain.second.tolist() == SECOND.tolist()
    assert mixed.ids == plain.ids == tuple(ids)
    assert mixed.difference == plain.difference


@pytest.mark.parametrize(
    ("ids", "targets", "words"),
    [
        (["p0", "p1", "p9"], [0, 1, 0], "different pictures (3 and 3, of which 2 are the same)"),
        (["p0", "p1"], [0, 1], "different pictures (3 and 2, of which 2 are the same)"),
        (["p0", "p1", "p2"], [0, 1, 1], "different labels"),
    ],
)
def test_other_pictures_or_labels_are_refused(ids, targets, words):
    """Answers to other pictures, or to the same pictures labelled otherwise, are refused in one sentence."""
    with pytest.raises(UserError) as caught:
        c.compare_logits(saved(["p0", "p1", "p2"], [0, 1, 0], [0, 0, 0]), saved(ids, targets, targets), ("a", "b"))
    assert words in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_shapes_that_contradict_each_other_are_refused():
    """Logits of another width than the emotions, or ids of another number than the pictures, are a mistake."""
    with pytest.raises(ValueError, match="do not match 3 emotions"):
        c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("a", "b", "c"))
    with pytest.raises(ValueError, match="2 ids do not match 6 pictures"):
        c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("a", "b"), ids=["x", "y"])


def test_results_are_compared_by_the_files_beside_them(tmp_path):
    """Two results on disk are compared through their logits; one without logits is named."""
    first, second = of("a", FIRST), of("b", SECOND)
    for result, answers in ((first, FIRST), (second, SECOND)):
        r.write_logits(result, tmp_path, [f"p{i}" for i in range(6)], TARGETS, logits_of(answers))
    found = c.compare_results(tmp_path, first, second)
    assert found.agreement.tolist() == [[2, 2], [1, 1]]
    with pytest.raises(UserError, match="logits of b are not those that its record was measured on; evaluate it again"):
        c.compare_results(tmp_path, first, of("b", FIRST))
    with pytest.raises(UserError, match=r"none.common-v1-s0\.npz cannot be read"):
        c.compare_results(tmp_path, first, of("none", FIRST))


def test_results_of_other_data_or_emotions_are_refused(tmp_path):
    """Rows that may not be ranked against each other may not be compared either."""
    first = made("a")
    with pytest.raises(UserError, match="different pictures"):
        c.compare_results(tmp_path, first, made("b", track="rendered"))
    with pytest.raises(UserError, match="different pictures"):
        c.compare_results(tmp_path, first, made("b", data=replace(first.data, hash="e" * 64)))
    recall = dict.fromkeys(("anger", "neutral"), Interval(0.7, 0, 1))
    with pytest.raises(UserError, match="different emotions"):
        c.compare_results(tmp_path, first, made("b", emotions=("anger", "neutral"), per_class_recall=recall))


def test_the_sentence_says_who_is_better_and_how_sure_that_is():
    """A clear difference names the better model with a positive interval, whichever stands first."""
    targets = np.zeros(100, dtype=int)
    good, bad = logits_of(np.repeat([0, 1], [90, 10])), logits_of(np.repeat([0, 1], [60, 40]))
    plain = c.compare(targets, good, bad, ("anger", "happiness")).sentence("good", "bad")
    turned = c.compare(targets, bad, good, ("anger", "happiness")).sentence("bad", "good")
    for text in (plain, turned):
        assert text.startswith("They differ by 30.0 points (95 % interval ")
        assert ": good recognises more of these 100 pictures than bad" in text
        assert "McNemar p < 0.001" in text
        assert "-" not in text.split("interval")[1].split(")")[0]


def test_the_sentence_says_when_two_cannot_be_told_apart():
    """Two models with as many exclusive hits each cannot be told apart, p = 1."""
    text = c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("anger", "happiness")).sentence("a", "b")
    assert text.startswith("a and b cannot be told apart on these 6 pictures: their accuracies differ by +16.7 points")
    assert "McNemar p = 1.000" in text


@pytest.mark.parametrize(
    ("p", "interval", "says"),
    [
        (0.03, (0.014, -0.0002, 0.028), "and the 95 % interval, +0.0 to +2.8, touches 0, while McNemar's test finds a"),
        (0.03, (0.014, -0.002, 0.028), "and the 95 % interval, -0.2 to +2.8, holds 0, while McNemar's test finds a"),
        (0.06, (-0.014, -0.028, -0.002), "interval, -2.8 to -0.2, leaves out 0, while McNemar's test finds none (p = "),
    ],
)
def test_the_sentence_is_cautious_where_test_and_interval_disagree(p, interval, says):
    """Neither "chance alone does not explain it" nor "cannot be told apart" where only one of the two says so."""
    found = c.compare(TARGETS, logits_of(FIRST), logits_of(SECOND), ("anger", "happiness"))
    text = replace(found, p_value=p, difference=Interval(*interval)).sentence("a", "b")
    assert text.startswith("a and b are hard to tell apart on these 6 pictures: their accuracies differ by ")
    assert says in text
    assert "-0.0" not in text
