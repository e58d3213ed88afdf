"""The app's charts: what they show, and that it can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fer_bench import charts
from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.records import Earlier
from fer_bench.statistics import Interval
from tests.test_leaderboard import made


def frame_of(*results):
    """The table of some results with the names that the charts show."""
    frame = lb.table(results, None, "fer2013")
    return frame.assign(name=frame["method"])


def sized(method, hits, parameters, complete=True, **changes):
    """A result of so many parameters, in per cent right."""
    trained = replace(made("a").trained, complete=complete, epochs=60 if complete else 12)
    cost = r.Cost(parameters=parameters, macs=parameters * 10)
    return made(method, hits, cost=cost, trained=trained, **changes)


def traces(figure):
    """The figure's traces by name, as plain values."""
    return {trace.get("name"): trace for trace in json.loads(figure.to_json())["data"]}


def drawn():
    """One figure of each kind."""
    result = made("a")
    return {
        "cost": charts.accuracy_against_cost(frame_of(sized("a", 60, 10), sized("b", 70, 1000))),
        "recall": charts.per_class_recall({"a": result, "b": made("b", 60)}),
        "reliability": charts.reliability_diagram(result),
        "confusion": charts.confusion_matrix(result),
        "agreement": charts.agreement_matrix(np.array([[3, 1], [0, 2]]), ("anger", "happiness"), "a", "b"),
    }


def test_the_frontier_holds_what_no_other_point_beats():
    """Cheaper or better points stay; beaten, equal and unmeasured ones go."""
    cost = [1, 2, 2, 3, 4, np.nan, 4]
    accuracy = [0.5, 0.6, 0.7, 0.65, 0.9, 0.99, 0.9]
    assert charts.pareto(cost, accuracy) == [0, 2, 4]
    assert charts.pareto([], []) == []


def test_accuracy_against_cost_shows_intervals_frontier_and_budget():
    """Points stand at (cost, per cent) with their intervals; short runs are hollow, the frontier skips beaten rows."""
    figure = charts.accuracy_against_cost(
        frame_of(sized("small", 60, 10), sized("beaten", 50, 100), sized("large", 70, 1000, complete=False))
    )
    found = traces(figure)
    assert found["Pareto frontier"]["x"] == [10, 1000]
    assert found["full budget"]["x"] == [10, 100]
    assert found["full budget"]["y"] == pytest.approx([60, 50])
    assert found["full budget"]["error_y"]["array"] == pytest.approx([2, 2])
    assert found["full budget"]["marker"]["symbol"] == "circle"
    short = found["short of its budget"]
    assert short["marker"]["symbol"] == "circle-open"
    assert short["hovertext"] == [
        "<b>large</b><br>70.0 ± 2.0 % accuracy<br>Parameters: 1,000<br>trained 12 of 60 epochs"
    ]
    again = sized("large", 70, 1000, complete=False)
    earlier = Earlier(weights=["b"], track="fer2013", epochs=20, pictures_seen=280_000)
    again = replace(again, trained=replace(again.trained, earlier=earlier))
    found = traces(charts.accuracy_against_cost(frame_of(again)))
    assert found["short of its budget"]["hovertext"][0].endswith("<br>trained 12 of 60 epochs after 20 before")


def test_the_hover_text_says_how_many_pictures_a_short_run_saw():
    """Epochs of a part of the split are not told as a fraction of the budget; a small ratio keeps two digits."""
    few, whole = (replace(made("a").trained, epochs=2, complete=False, train_pictures=n) for n in (7_000, 28_678))
    cost = r.Cost(parameters=10, latency_ratio=0.0043)
    frame = frame_of(made("few", trained=few, cost=cost), made("whole", 60, trained=whole))
    texts = traces(charts.accuracy_against_cost(frame, "latency_ratio"))["short of its budget"]["hovertext"]
    assert texts[0].endswith("Latency, × resnet18: 0.0043<br>trained 2 epochs of 7,000 pictures, not 60 of 28,678")
    assert texts[1].endswith("trained 2 of 60 epochs")


def test_rows_trained_elsewhere_claim_no_budget():
    """What a package's own or a submitted model was trained for is not known: it has a mark of its own."""
    found = traces(charts.accuracy_against_cost(frame_of(sized("ours", 60, 10), sized("fer", 66, 20, external=True))))
    assert found["full budget"]["x"] == [10]
    assert (found["trained elsewhere"]["x"], found["trained elsewhere"]["marker"]["symbol"]) == ([20], "diamond")


def test_a_crowd_of_points_has_no_interval_bars():
    """Above 100 rows the bars would hide each other: points are smaller and the hover text alone states intervals."""
    rows = [sized(f"m{i}", 40 + i % 50, 10 + i) for i in range(charts.CROWD + 1)]
    few, many = (traces(charts.accuracy_against_cost(frame_of(*part))) for part in (rows[:-1], rows))
    assert len(few["full budget"]["error_y"]["array"]) == charts.CROWD
    assert "array" not in many["full budget"].get("error_y", {})
    assert "± 2.0 % accuracy" in many["full budget"]["hovertext"][0]
    assert many["full budget"]["marker"]["size"] < few["full budget"]["marker"]["size"]


def test_rows_without_the_cost_are_left_out():
    """A row whose latency was not measured has no place on that axis; an unknown cost is a mistake."""
    frame = frame_of(made("a"), made("b", 60, cost=r.Cost(parameters=5)))
    assert traces(charts.accuracy_against_cost(frame, "latency_ratio"))["full budget"]["x"] == [0.4]
    none = charts.accuracy_against_cost(frame_of(made("b", cost=r.Cost(parameters=5))), "macs")
    assert "full budget" not in traces(none)
    with pytest.raises(KeyError):
        charts.accuracy_against_cost(frame, "price")


@pytest.mark.parametrize(
    ("hits", "start", "title"), [(30, 0, "Accuracy, %"), (70, 60, "Accuracy, %; axis starts at 60")]
)
def test_an_axis_that_does_not_start_at_zero_says_so(hits, start, title):
    """The accuracy axis starts at 0 where figures are low; where it starts higher, its title says where."""
    figure = charts.accuracy_against_cost(frame_of(sized("a", hits, 10), sized("b", hits + 5, 20)))
    assert figure.layout.yaxis.range[0] == start
    assert figure.layout.yaxis.title.text == title


def test_names_on_the_frontier_do_not_meet():
    """Of frontier rows close together the best is named above and the last below; the one between keeps its hover."""
    near = frame_of(sized("one", 70, 1000), sized("two", 69, 990), sized("three", 68, 980), sized("far", 20, 1))
    labels = {a.text: a.y for a in charts.accuracy_against_cost(near).layout.annotations}
    assert set(labels) == {"one", "three", "far"}
    assert labels["one"] == pytest.approx(72)
    assert labels["three"] == pytest.approx(66)


@pytest.mark.parametrize("others", [[(55, 1400), (61, 1400)], [(54 + i % 9, 1000 + i) for i in range(30)]])
def test_a_name_that_would_cover_a_point_is_left_out(others):
    """A frontier row is named where it stands alone; with others above and below, which its name would cover, not."""
    alone = [sized("low", 58, 999), sized("far", 70, 10**6)]
    beside = [sized(f"m{i}", *other) for i, other in enumerate(others)]
    names = [{a.text for a in charts.accuracy_against_cost(frame_of(*rows)).layout.annotations}
             for rows in (alone, [*alone, *beside])]  # fmt: skip
    assert names[0] == {"low", "far"}
    assert "low" not in names[1]
    assert "far" in names[1]


def test_recalls_are_percentages_with_their_intervals():
    """Marks stand at per cent with the distances to both bounds; an emotion without pictures is left out."""
    first = made("a")
    second = made("b", 50, confusion_matrix=[[50, 50], [0, 0]], per_class_recall={"anger": Interval(0.5, 0.25, 0.625)})
    found = traces(charts.per_class_recall({"first": first, "second": second}))
    assert found["first"]["x"] == pytest.approx([70, 70])
    assert found["second"]["x"] == [50]
    assert found["second"]["error_x"]["array"] == [12.5]
    assert found["second"]["error_x"]["arrayminus"] == [25]
    assert found["first"]["marker"]["symbol"] != found["second"]["marker"]["symbol"]


def test_more_recalls_than_can_be_told_apart_are_refused():
    """Seven results have no seven colours; nothing has none."""
    with pytest.raises(ValueError, match="not 7"):
        charts.per_class_recall({str(i): made("a") for i in range(7)})
    with pytest.raises(ValueError, match="not 0"):
        charts.per_class_recall({})


def test_the_reliability_diagram_shows_bins_gaps_and_the_ece():
    """Filled bins show their accuracy, the gap to their confidence and their pictures; the legend states the ECE."""
    bins = r.Calibration(
        edges=[0, 0.5, 0.75, 1], count=[0, 40, 60], confidence=[None, 0.6, 0.9], accuracy=[None, 0.7, 0.7]
    )
    found = traces(charts.reliability_diagram(replace(made("a"), calibration=bins)))
    assert found["right"]["x"] == [62.5, 87.5]
    assert found["right"]["y"] == pytest.approx([70, 70])
    gap = found["gap; ECE 25.0 % (20.0 to 30.0)"]
    assert gap["y"] == pytest.approx([10, 20])
    assert gap["base"] == pytest.approx([60, 70])
    assert found["pictures"]["y"] == [40, 60]
    assert "40 pictures" in found["right"]["hovertext"][0]
    assert "gap -10.0 points" in found["right"]["hovertext"][0]


def test_the_confusion_matrix_is_in_shares_or_in_pictures():
    """A row sums to 100 % of its true emotion, or, not normalised, to its pictures; the numbers stand in the cells."""
    result = made("a", confusion_matrix=[[30, 10], [20, 40]], per_class_recall={
        "anger": Interval(0.75, 0, 1), "happiness": Interval(2 / 3, 0, 1)})  # fmt: skip
    shares, counts = (charts.confusion_matrix(result, normalise=n) for n in (True, False))
    heat, numbers = json.loads(shares.to_json())["data"]
    assert np.allclose(heat["z"], [[75, 25], [100 / 3, 200 / 3]])
    assert numbers["text"] == ["75", "25", "33", "67"]
    assert (heat["zmin"], heat["zmax"]) == (0, 100)
    assert heat["hovertext"][1][0] == "true happiness, answered anger<br>20 pictures, 33.3 % of happiness"
    assert json.loads(counts.to_json())["data"][0]["z"] == [[30, 10], [20, 40]]
    assert shares.layout.yaxis.autorange == "reversed"


def test_the_numbers_in_the_cells_stand_out():
    """Every number has a contrast of at least 4.5 to its cell, on dark, middle and bright cells alike."""
    from plotly.colors import sample_colorscale

    for step in np.linspace(0, 1, 41):
        colour = sample_colorscale("Cividis", [step], colortype="tuple")[0]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        ink = {"#000000": 0.0, "#ffffff": 1.0}[charts._readable(colour)]
        low, high = sorted((luminance, ink))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_agreement_matrix_names_both_models():
    """Rows are the first model's answers and columns the second's, as counts."""
    figure = charts.agreement_matrix(np.array([[3, 1], [0, 2]]), ("anger", "happiness"), "one", "other")
    heat = json.loads(figure.to_json())["data"][0]
    assert heat["z"] == [[3, 1], [0, 2]]
    assert heat["hovertext"][0][1] == "one: anger<br>other: happiness<br>1 pictures, 16.7 %"
    assert figure.layout.yaxis.title.text == "First answers"  # a long name would be cut off
    assert figure.layout.xaxis.title.text == "Second answers (pictures)"


@pytest.mark.parametrize("kind", ["cost", "recall", "reliability", "confusion", "agreement"])
def test_charts_read_on_any_page(kind):
    """Nothing is drawn behind a chart, text has at least 12 pixels, the width is the page's, and touch scrolls."""
    layout = json.loads(drawn()[kind].to_json())["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert "width" not in layout
    assert layout["autosize"] is True
    assert layout["dragmode"] is False
    assert layout["legend"]["orientation"] == "h"
    assert layout["legend"]["y"] < 0

    def sizes(value):
        if isinstance(value, dict):
            own = [value["size"]] if {"size", "color"} <= value.keys() or set(value) == {"size"} else []
            return own + [size for item in value.values() for size in sizes(item)]
        return [size for item in value for size in sizes(item)] if isinstance(value, list) else []

    found = sizes(layout)
    assert found
    assert min(found) >= 12
    assert layout["xaxis"]["gridcolor"] == charts.GRID or layout["xaxis"]["showgrid"] is False


def test_importing_the_charts_imports_neither_plotly_nor_torch():
    """Plotly is imported to draw and torch never."""
    code = "import sys, fer_bench.charts; sys.exit(any(name in sys.modules for name in ('plotly', 'torch', 'gradio')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
