"""What the seed of a training does: the board's block, and methods compared with all of their seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fer_bench import leaderboard as lb
from fer_bench.comparison import main
from fer_bench.records import Earlier
from fer_bench.registry import UnknownNameError
from fer_bench.seeds import SeedComparison, compare_seeds, methods_of, pairs_of_methods
from fer_bench.statistics import Interval, difference_over_seeds
from fer_bench.ui.board_rows import notes
from tests.test_comparison_command import answers, enter
from tests.test_leaderboard import made


def test_several_seeds_of_a_method_are_told_together():
    """Mean, standard deviation and range over the seeds, best mean first; of one seed there is nothing to tell."""
    rows = [made("a", hits=hits, seed=seed) for seed, hits in enumerate((50, 54, 58))]
    rows += [made("b", hits=hits, seed=seed) for seed, hits in enumerate((60, 61))] + [made("c", hits=90)]
    (found,) = [part for part in lb.markdown(rows).split("\n\n") if part.startswith("| Method | Seeds |")]
    first, second = found.splitlines()[2:]
    assert first.startswith("| `b` (common-v1) | 2 | 60.5 ± 0.7 | 60.0 to 61.0 |")
    assert second.startswith("| `a` (common-v1) | 3 | 54.0 ± 4.0 | 50.0 to 58.0 |")
    assert "Over seeds" not in lb.markdown([rows[0], rows[3], rows[5]])
    told = (
        "- Accuracy over seeds, mean and standard deviation: `b` (common-v1) 60.5 ± 0.7 %, 2 seeds; `a` (common-v1) 54"
    )
    assert told in "\n".join(notes(lb.table(rows, {}, "fer2013"), rows, []))
    assert "over seeds" not in "\n".join(notes(lb.table(rows[5:], {}, "fer2013"), rows[5:], []))
    views = [made("a", hits=50, tta="flip"), made("a", hits=54, seed=1)]  # of other views, not to be taken together
    assert "Over seeds" not in lb.markdown(views)


def test_rows_of_other_budgets_are_not_taken_together() -> None:
    """The most that were trained for as long count; how far they are apart would tell of the time, not of the seed."""
    whole = [made("a", hits=hits, seed=seed) for seed, hits in enumerate((50, 54))]
    short = replace(made("a", hits=90, seed=2), trained=replace(whole[0].trained, complete=False, pictures_seen=500))
    more = Earlier(weights=["a/fer2013/common-v1-s0 (0123456789ab)"], track="fer2013", epochs=9, pictures_seen=900)
    longer = replace(made("a", hits=80, seed=3), trained=replace(whole[0].trained, earlier=more))
    text = lb.markdown([*whole, short, longer])
    assert "| `a` (common-v1) | 2 | 52.0 ± 2.8 | 50.0 to 54.0 |" in text
    assert [row.seed for row in methods_of([longer, short, *whole])["a"]] == [0, 1]
    assert methods_of([short, longer]) == {}
    also = replace(short, seed=4)
    assert [row.seed for row in methods_of([longer, short, also])["a"]] == [2, 4]


def test_a_difference_over_seeds_worked_by_hand() -> None:
    """Two seeds against two over four pictures: the three variances and their degrees of freedom, one by one."""
    first = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)  # 3/4 and 4/4
    second = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)  # 1/4 and 2/4
    found, p = difference_over_seeds(first, second)
    # Per picture 0, 0.5, 1 and 0.5 apart: 0.5 on average, with a variance of (0.25 + 0.25) / 3.
    pictures, seeds = 0.5 / 3 / 4, 0.125**2 * 2 / 2  # each method's seeds are 0.125 from their mean
    variance = pictures + 2 * seeds
    freedom = variance**2 / (pictures**2 / 3 + 2 * seeds**2 / 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert p == pytest.approx(2 * stats.t.sf(0.5 / np.sqrt(variance), freedom))


def test_one_set_of_weights_has_no_seed_to_vary() -> None:
    """With one network of each it is the paired t-test over pictures; networks that answer alike do not differ."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 1, 60)) < [[[0.8]], [[0.6]]]
    found, p = difference_over_seeds(first, second)
    expected = stats.ttest_rel(first[0].astype(float), second[0].astype(float))
    assert p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert difference_over_seeds(first, first) == (Interval(0, 0, 0), 1.0)
    with pytest.raises(ValueError, match="1 picture"):
        difference_over_seeds(first[:, :1], second[:, :1])


def test_people_are_drawn_as_wholes() -> None:
    """A person's pictures, answered alike, count as one: written down four times, they make nothing surer."""
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 3, 20)) < 0.7
    once = difference_over_seeds(first, second)
    people = np.repeat(np.arange(20), 4)
    again = difference_over_seeds(np.repeat(first, 4, axis=1), np.repeat(second, 4, axis=1), people)
    assert (again[0].low, again[0].high, again[1]) == pytest.approx((once[0].low, once[0].high, once[1]))
    apart = difference_over_seeds(np.repeat(first, 4, axis=1), np.repeat(second, 4, axis=1))
    assert apart[0].high - apart[0].low < once[0].high - once[0].low


def test_methods_that_differ_by_their_seeds_alone_are_rarely_told_apart() -> None:
    """Where nothing but seeds and pictures differs, 5 % of comparisons may say otherwise; of one seed far more do."""
    generator = np.random.default_rng(0)
    over, of_one = 0, 0
    for _ in range(300):
        pictures = generator.normal(0.4, 1, 400)
        methods = pictures + generator.normal(0, 0.3, (2, 1, 400))  # each knows other pictures
        networks = methods + generator.normal(0, 0.2, (2, 3, 1)) + generator.normal(0, 0.4, (2, 3, 400))
        first, second = networks > 0
        over += difference_over_seeds(first, second)[1] < 0.05
        of_one += difference_over_seeds(first[:1], second[:1])[1] < 0.05
    assert over <= 0.08 * 300
    assert of_one >= 0.4 * 300


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """alpha with three seeds, beta with two, gamma with one, and a package's weights, all on the same pictures."""
    for seed, hits in enumerate((90, 92, 91)):
        enter(tmp_path, made("alpha", hits, seed=seed), answers(hits, 7 * seed))
    for seed, hits in enumerate((60, 62)):
        enter(tmp_path, made("beta", hits, seed=seed), answers(hits, 5 * seed))
    enter(tmp_path, made("gamma", 88), answers(88))
    enter(tmp_path, replace(made("peer", 75), external=True, recipe="as-published"), answers(75))
    return tmp_path


def test_the_command_compares_over_seeds(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One method meets all others that have several, and weights that others gave away; two get a sentence, too."""
    assert main(["alpha", "--over-seeds", "--board", str(board)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:5] for line in lines[2:]] == [
        [" alpha ", " peer ", " 3, 1 ", " +16.0 "], [" alpha ", " beta ", " 3, 2 ", " +30.0 "],
    ]  # fmt: skip
    out = board / "pairs.csv"
    assert main(["beta", "alpha", "--over-seeds", "--board", str(board), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "alpha recognises more than beta (alpha from 3 seeds and beta from 2 seeds; 100 pictures): 30.0"
    )
    assert out.read_text().startswith(
        "first,second,seeds_first,seeds_second,difference,low,high,p,p_holm\nalpha,beta,3,2,"
    )


def test_wrong_use_over_seeds_is_said(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A method of one seed is none to compare, with the names that are; where there is none, how to make one."""
    assert main(["gamma", "--over-seeds", "--board", str(board)]) == 2
    assert "no method with several seeds 'gamma'. The names are: alpha, peer, beta." in capsys.readouterr().err
    other = tmp_path / "other"
    enter(other, made("gamma", 88), answers(88))
    assert main(["gamma", "--over-seeds", "--board", str(other)]) == 2
    assert "python -m fer_bench.train --method METHOD --track fer2013 --seed 1" in capsys.readouterr().err
    enter(other, made("gamma", 80, seed=1), answers(80))
    assert main(["gamma", "--over-seeds", "--board", str(other)]) == 2
    assert "gamma is the only method with several seeds of fer2013" in capsys.readouterr().err


def test_a_recipe_is_named_where_a_method_has_several() -> None:
    """Its name alone then stands for both."""
    rows = [
        made("a", hits, seed=seed, recipe=recipe)
        for recipe, hits in (("common-v1", 60), ("paper", 70))
        for seed in (0, 1)
    ]
    methods = methods_of(rows)
    assert list(methods) == ["a/paper", "a/common-v1"]
    assert pairs_of_methods(methods, ["a"], "fer2013") == [("a/paper", "a/common-v1")]
    with pytest.raises(UnknownNameError, match="Did you mean 'a/paper'"):
        pairs_of_methods(methods, ["a/papr"], "fer2013")


def test_answers_of_other_pictures_cost_the_pair_only(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows whose answers do not fit their record are named, with exit code 1; the other pairs are compared."""
    enter(board, made("beta", 62, seed=1), answers(62))
    path = next(board.glob("results/fer2013/peer/*.npz"))
    path.write_bytes(next(board.glob("results/fer2013/alpha/*.npz")).read_bytes())
    assert main(["alpha", "--over-seeds", "--board", str(board)]) == 1
    said = capsys.readouterr()
    assert "skipped alpha and peer: The saved logits of peer are not those that its record was measured on" in said.err
    assert "| alpha | beta | 3, 2 |" in said.out


def test_the_sentence_says_when_two_cannot_be_told_apart() -> None:
    """With the sign of the difference as it was asked, and what the interval is about."""
    found = SeedComparison(Interval(-0.004, -0.02, 0.012), 0.61, (3, 1), 3589, None)
    assert found.sentence("one", "other") == (
        "one and other cannot be told apart (one from 3 seeds and other from 1 set of weights; 3,589 pictures): their "
        "mean accuracies differ by -0.4 points (95 % interval -2.0 to +1.2, training again and other pictures "
        "included; p = 0.610)."
    )
    worse = SeedComparison(Interval(-0.04, -0.06, -0.02), 0.0004, (3, 3), 90, 12)
    assert worse.sentence("one", "other").startswith(
        "other recognises more than one (one from 3 seeds and other from 3 seeds; 90 pictures of 12 people): 4.0 "
        "points in mean accuracy (95 % interval +2.0 to +6.0, "
    )


def test_pictures_are_matched_by_their_names(board: Path) -> None:
    """Answers in another order are the same answers."""
    rows = methods_of(lb.read_results(board))
    before = compare_seeds(board, rows["alpha"], rows["beta"])
    path = next(board.glob("results/fer2013/beta/*s1.npz"))
    with np.load(path) as file:
        content = {name: value[::-1] if value.ndim and len(value) == 100 else value for name, value in file.items()}
    np.savez(path, **content)
    assert compare_seeds(board, rows["alpha"], rows["beta"]) == before


def test_why_a_method_is_far_from_its_paper_is_said_once() -> None:
    """Of its first seed: how far the others are from that is in the table over seeds."""
    reported = [
        {"track": "fer2013", "accuracy": 0.9, "source": "Table 1", "why": [{"text": "its rate.", "weights": ""}]}
    ]
    cards = {"a": {"title": "A", "reported": reported}}
    rows = [made("a", hits=hits, seed=seed) for seed, hits in enumerate((50, 54))]
    (line,) = [line for line in lb.markdown(rows, cards).splitlines() if "points from its paper" in line]
    assert line.startswith("- `a` (common-v1) is -40.0 points from its paper")
