"""Answers as HTML, and the small functions of the first tab."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from fer_bench.cams import WHAT_A_CAM_SHOWS
from fer_bench.emotions import EMOTIONS, SEVEN
from fer_bench.errors import UserError
from fer_bench.faces import Face
from fer_bench.ui import look, try_it
from fer_bench.ui.clip import emotions_over_time
from fer_bench.ui.engine import Answer
from fer_bench.ui.shelf import Choice

GREY = Image.new("RGB", (8, 8), (90, 90, 90))


def answer(method: str, emotion: str, score: float = 0.7) -> Answer:
    rest = (1 - score) / 6
    return Answer(method, {e: score if e == emotion else rest for e in SEVEN}, emotion, GREY)


class Tags(HTMLParser):
    """Whether every tag that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def told(html: str) -> str:
    parsed = Tags(html)
    assert parsed.open == []
    return parsed.text


def test_a_map_of_an_emotion_outside_the_bars_has_its_bar_too() -> None:
    """A vivid map for an emotion that the method holds for unlikely stands beside how unlikely."""
    one = answer("a", "fear", 0.94)
    cards = told(look.cards([replace(one, explained="neutral")], {}, "gradcam"))
    assert cards.count("%") == 5
    assert "neutral1 %" in cards
    assert "Heat: Grad-CAM for neutral" in cards
    assert told(look.cards([one], {}, "gradcam")).count("%") == 4


def test_an_empty_map_is_said_to_be_empty() -> None:
    """On the card and to those who cannot see it."""
    one = replace(answer("a", "fear"), explained="disgust", empty=True)
    html = look.cards([one], {}, "gradcam")
    assert "No heat: nothing in this face raised disgust (Grad-CAM)" in told(html)
    assert 'alt="The face; nothing in this face raised disgust (Grad-CAM of a)"' in html
    assert "No heat: nothing stands out (EigenCAM)" in told(look.cards([one], {}, "eigencam"))


def test_without_a_face_the_verdict_begins_with_that() -> None:
    """The heading alone, on a screenshot, does not make a wall an angry one."""
    start = "No face was found. Of the picture's middle square, "
    both = [answer("a", "fear", 0.6), answer("b", "fear", 0.8)]
    assert told(look.verdict(both, faceless=True)) == f"{start}all 2 methods say fear, 70 % sure on average."
    assert told(look.verdict(both[:1], faceless=True)) == f"{start}a says fear, 60 % sure."
    split = told(look.verdict([both[0], answer("b", "anger")], faceless=True))
    assert split.startswith(f"{start}they disagree: 1 says anger, 1 says fear.")


def test_agreement_is_one_sentence() -> None:
    """Where all methods agree the verdict says so, with their mean probability."""
    text = told(look.verdict([answer("a", "fear", 0.6), answer("b", "fear", 0.8)]))
    assert text == "All 2 methods say fear, 70 % sure on average."
    assert told(look.verdict([answer("a", "fear", 0.6)])) == "a says fear, 60 % sure."


def test_disagreement_names_the_camps_largest_first() -> None:
    """Where methods disagree the verdict counts the camps and names who is in each."""
    html = look.verdict([answer("a", "fear"), answer("b", "anger"), answer("c", "anger")])
    text = told(html)
    assert text.startswith("They disagree: 2 say anger, 1 says fear.")
    assert "b 70\xa0%, c 70\xa0%" in text  # a figure and its sign stay on one line
    assert 'class="fer-verdict split"' in html


def test_only_the_smaller_camp_is_marked() -> None:
    """The card of a method outside the largest camp is marked; with no largest camp nobody is."""
    two_to_one = look.cards([answer("a", "fear"), answer("b", "anger"), answer("c", "anger")], {}, "gradcam")
    assert two_to_one.count("disagrees</span>") == 1
    assert two_to_one.index("disagrees") < two_to_one.index(">a</h3>") < two_to_one.index(">b</h3>")
    assert look.cards([answer("a", "fear"), answer("b", "anger")], {}, "gradcam").count("disagrees</span>") == 0


def test_cards_say_how_often_the_method_is_right() -> None:
    """A card carries the measured accuracy with its interval and says where training was short."""
    known = {"a": Choice("a", "A", 0.636, 0.016, True)}
    text = told(look.cards([answer("a", "fear")], known, "gradcam"))
    assert "Right on 63.6 ± 1.6 % of FER2013's test pictures, short training" in text
    assert "Heat: Grad-CAM for fear" in text
    assert " ms" not in text  # one timing on a shared machine says nothing of the method


def test_eigencam_is_of_no_emotion() -> None:
    """It is the same whatever the target, so that neither the caption nor the picture's text names one."""
    html = look.cards([answer("a", "fear")], {}, "eigencam")
    assert '<div class="fer-small">Heat: EigenCAM<br>' in html
    assert "for fear" not in html
    assert 'alt="The face with EigenCAM of a"' in html
    assert "the same for every emotion" in WHAT_A_CAM_SHOWS


def test_text_is_escaped() -> None:
    """A submitted name cannot carry markup into the page."""
    html = look.verdict([answer("<script>", "fear")]) + look.cards([answer("<script>", "fear")], {}, "gradcam")
    assert "<script>" not in html
    assert "<script>" not in look.note("<script>")


def test_every_emotion_has_its_own_colour() -> None:
    """No two emotions share a colour or, for those who see none, a sign; all are seen on both pages."""
    assert set(look.COLOURS) == set(EMOTIONS)
    assert len(set(look.COLOURS.values())) == len(EMOTIONS)
    assert set(look.SIGNS) == set(EMOTIONS)
    assert len({symbol for symbol, _ in look.SIGNS.values()}) == len(EMOTIONS)
    for colour in look.COLOURS.values():
        for page in ("#ffffff", "#1e293b"):  # what the plot and the bars lie on
            one, other = sorted((luminance(colour), luminance(page)))
            assert (other + 0.05) / (one + 0.05) >= 3  # WCAG 2.2, 1.4.11


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2), 0..1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_reading_names_the_file_but_not_the_server_folder(tmp_path: Path) -> None:
    """A text file named .jpg gets one sentence with its name, without where the server keeps it."""
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(UserError) as caught:
        try_it.read(str(path))
    assert str(caught.value).startswith("notes.jpg: this is not a readable picture")
    assert str(tmp_path) not in str(caught.value)


def test_the_largest_face_is_chosen_first() -> None:
    """Of several faces the one with the largest area is answered for until the visitor chooses another."""
    faces = [Face((0, 0, 10, 10), 0.9), Face((20, 0, 50, 40), 0.8), Face((60, 0, 80, 20), 0.99)]
    assert try_it.first_choice(faces) == 1
    assert try_it.found_in(faces) == "3 faces were found; choose one below."
    told = "No face was found, so the middle square is used. If it shows no face, the answers mean nothing."
    assert try_it.found_in([]) == told


def test_there_is_an_example_of_every_emotion() -> None:
    """The examples are readable pictures, one per emotion, named by it."""
    found = try_it.examples()
    assert [emotion for _, emotion in found] == list(SEVEN)
    for path, emotion in found:
        assert Path(path).stem == emotion
        assert try_it.read(path).size == (256, 256)


def test_the_plot_has_a_line_per_emotion_over_time() -> None:
    """Emotions over time: one line per emotion through every point, the y axis from 0 to 1."""
    scores = [{"anger": 0.25, "fear": 0.75}, {"anger": 0.5, "fear": 0.5}]
    figure = emotions_over_time([0.0, 0.5], scores, "a clip")
    assert {line.name: (list(line.x), list(line.y)) for line in figure.data} == {
        "anger": ([0.0, 0.5], [0.25, 0.5]), "fear": ([0.0, 0.5], [0.75, 0.5]),
    }  # fmt: skip
    assert tuple(figure.layout.yaxis.range) == (0, 1)
    assert len({line.marker.symbol for line in figure.data}) == 2
    assert figure.layout.legend.yref == "container"  # below the axis title, however many rows a phone makes of it
