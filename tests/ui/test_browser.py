"""The app in a real browser: what a visitor does, light and dark, on a desk and on a phone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.card_files import read_cards
from fer_bench.leaderboard import table
from fer_bench.results import read_results
from tests.ui.pages import choose, give, opened, says, tab, upload, work_of

pytestmark = pytest.mark.slow

BOARD = Path(__file__).resolve().parents[2] / "leaderboard"
FIRST = table(read_results(BOARD), read_cards(BOARD), "fer2013")["method"].iloc[0]
"""The board's best method, whose card is open where no link asks for another's."""
ALLOWED = {
    "label-content-name-mismatch": "gradio's upload buttons have a label apart from their text",
    "label-title-only": "the filter of gradio's table is named by its title alone",
}
"""axe-core rules whose violations are the framework's own, with the reason; any other is a failure."""


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real portrait (public domain, from scikit-image), the same twice in one picture, and a text file named .jpg."""
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("portraits")
    one = astronaut()
    Image.fromarray(one).save(folder / "one.jpg")
    Image.fromarray(np.concatenate([one, one[:, ::-1]], 1)).save(folder / "two.jpg")
    (folder / "notes.jpg").write_text("This is not a picture.")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def page(window, app_url):
    """The app on a desk."""
    yield from opened(window, app_url)


@pytest.fixture
def phone(window, app_url):
    """The app in a phone-sized window."""
    yield from opened(window, app_url, 390, 844)


def test_a_portrait_gets_five_answers_with_overlays(page, portraits) -> None:
    """A real portrait is found, and five methods answer, each with bars and a face under its heat map."""
    upload(page, portraits["one"])
    page.wait_for_selector(".fer-card")
    assert page.locator(".fer-card").count() == 5
    assert page.locator("#message").inner_text() == "One face was found."
    assert page.locator(".fer-verdict h2").inner_text().startswith(("All 5 methods say", "They disagree:"))
    for card in page.locator(".fer-card").all():
        assert card.locator(".fer-bar").count() == 4
        picture = card.locator("img")
        assert picture.evaluate("i => i.naturalWidth") == 320
        assert picture.bounding_box()["width"] >= 180
        assert "of FER2013's test pictures" in card.inner_text()


def test_the_second_answer_comes_within_two_seconds(page, running, portraits) -> None:
    """Once warm, five methods answer on one face within 2 s on 2 cores, upload included.

    Where other work shares the cores, the wall clock counts that work too. So the time is the lesser of the wall clock
    and of the processor time that server and page used, which take turns. Best of five.
    """
    upload(page, portraits["one"])
    page.wait_for_selector(".fer-card")
    used = work_of(page, running[1])
    times = []
    while min(times, default=60.0) >= 2 and len(times) < 5:
        page.locator("#picture button[aria-label='Remove Image']").click()
        page.wait_for_selector(".fer-empty")
        before, start = used(), time.monotonic()
        upload(page, portraits["one"])
        page.wait_for_selector(".fer-card img")
        times.append(min(used() - before, time.monotonic() - start))
    assert min(times) < 2, times


def test_a_text_file_named_jpg_gets_one_sentence(page, portraits) -> None:
    """What is no picture, here after a good one, is said by name, is taken away again, and the app goes on."""
    upload(page, portraits["one"])
    page.wait_for_selector(".fer-card")
    page.locator("#picture button[aria-label='Remove Image']").click()
    page.wait_for_selector(".fer-empty")
    upload(page, portraits["notes"])
    page.wait_for_selector(".fer-note.bad")
    text = page.locator(".fer-note.bad").inner_text()
    assert text.startswith("notes.jpg: this is not a readable picture")
    page.wait_for_function("!document.querySelector('#picture img')")
    assert page.locator(".fer-note.bad").inner_text() == text
    page.locator("#examples button").first.click()
    page.wait_for_selector(".fer-card")


def test_two_faces_can_each_be_chosen(page, portraits) -> None:
    """Both faces are found and marked; choosing the other one asks the methods again."""
    upload(page, portraits["two"])
    page.wait_for_selector(".fer-card")
    assert page.locator("#message").inner_text() == "2 faces were found; choose one below."
    radios = page.locator("#face input[type=radio]")
    assert radios.count() == 2
    before = page.locator(".fer-card img").first.get_attribute("src")
    chosen = [radio.is_checked() for radio in radios.all()]
    radios.nth(chosen.index(False)).check()
    page.wait_for_function("old => document.querySelector('.fer-card img').src !== old", arg=before)
    assert "2 face(s) marked" in page.locator("#marked img").get_attribute("alt")
    # By the arrow keys too: the buttons are one group.
    page.wait_for_function("() => [...document.querySelectorAll('#face input')].every((one) => one.name === 'face')")
    radios.nth(chosen.index(False)).focus()
    page.keyboard.press("ArrowRight")
    assert [radio.is_checked() for radio in radios.all()] == chosen
    page.wait_for_function("old => document.querySelector('.fer-card img').src === old", arg=before)


def test_an_example_and_another_map(page) -> None:
    """A drawn face answers with one click; another CAM and another target change the maps and captions.

    EigenCAM's is of no emotion, whichever is asked for.
    """
    page.locator("#examples button").nth(3).click()
    page.wait_for_selector(".fer-card")
    page.locator("#settings > button").click()
    choose(page, "#cam", "LayerCAM")
    says(page, ".fer-card", "Heat: LayerCAM for ")
    choose(page, "#target", "fear")
    says(page, ".fer-card", "Heat: LayerCAM for fear")
    choose(page, "#cam", "EigenCAM")
    says(page, ".fer-card", "Heat: EigenCAM\n")
    assert "for fear" not in page.locator(".fer-card").first.inner_text()


def test_a_phone_shows_the_answers_without_sideways_scrolling(phone, portraits) -> None:
    """On a 390-pixel window the answer comes into sight, the cards fit the width and pictures stay readable."""
    upload(phone, portraits["one"])
    phone.wait_for_selector(".fer-card")
    phone.wait_for_function("document.querySelector('.fer-verdict').getBoundingClientRect().bottom < innerHeight")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 391
    box = phone.locator(".fer-card").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert phone.locator(".fer-card img").first.bounding_box()["width"] >= 110
    for name in ("Leaderboard", "About"):
        tab(phone, name)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 391


def test_a_phone_shows_first_that_there_are_several_faces(phone, portraits) -> None:
    """On a 390-pixel window the choice of a face comes into sight, and not the answers below it."""
    upload(phone, portraits["two"])
    phone.wait_for_selector(".fer-card")
    phone.wait_for_function("Math.abs(document.querySelector('#message').getBoundingClientRect().top) < 20")
    assert phone.locator("#face").bounding_box()["y"] < 844


def test_on_a_phone_each_heading_of_the_board_stands_over_its_column(phone) -> None:
    """Rank, method and accuracy fit side by side; wherever the table is scrolled to, headings keep to their cells."""
    tab(phone, "Leaderboard")
    phone.wait_for_selector("#board-table >> text=small_cnn")
    places = """() => {
        const of = role => [...document.querySelectorAll(`#board-table [role=${role}]`)].slice(0, 6).map(e => {
            const box = e.getBoundingClientRect(); return [Math.round(box.left), Math.round(box.right)]})
        return [of('columnheader'), of('gridcell')]}"""
    headings, cells = phone.evaluate(places)
    assert headings == cells
    assert cells[2][0] + 80 < 390  # "67.2 ± 1.6" can be read
    phone.evaluate("document.querySelector('#board-table .virtual-table-viewport').scrollLeft = 260")
    phone.wait_for_function("document.querySelector('#board-table [role=gridcell]').getBoundingClientRect().right < 0")
    headings, cells = phone.evaluate(places)
    assert headings == cells
    assert cells[1][0] >= 0  # the method stays in sight


def test_a_phone_shows_what_a_mouse_would_find(phone) -> None:
    """The menus that the text tells of are seen without a mouse and cover no heading; pictures stand in two columns."""
    tab(phone, "Leaderboard")
    phone.wait_for_selector("#board-table >> text=small_cnn")
    heading = phone.locator("#board-table [role=columnheader][aria-colindex='2']").first
    menu = heading.locator(".cell-menu-button")
    assert menu.is_visible()
    words = heading.get_by_text("Method").bounding_box()
    assert words["x"] + words["width"] <= menu.bounding_box()["x"]
    columns = """() => {
        document.body.insertAdjacentHTML('beforeend', '<div class="fer-pairs"></div>')
        return getComputedStyle(document.querySelector('.fer-pairs')).gridTemplateColumns.split(' ').length}"""
    assert phone.evaluate(columns) == 2


def test_many_pictures_give_a_gallery_and_a_table(page, portraits) -> None:
    """Every face of every picture is in the gallery, the unreadable file is named, and the CSV has a row per face."""
    tab(page, "Many pictures")
    give(page, "#files", *(portraits[name] for name in ("one", "two", "notes")))
    page.click("#score")
    page.wait_for_selector("#gallery img")
    assert page.locator("#gallery .thumbnail-item").count() == 3
    assert "notes.jpg: this is not a readable picture" in page.locator("#files-message").inner_text()
    with page.expect_download() as download:
        page.locator("#csv a").first.click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("filepath,face,time,method,emotion,anger,")
    assert len(lines) == 1 + 3 * 5
    # A screen reader says each face's answers, and taking the pictures away takes the faces.
    page.wait_for_function(
        """() => [...document.querySelectorAll('#gallery .thumbnail-item')].every((one) =>
        one.ariaLabel === one.querySelector('.caption-label').innerText.trim())"""
    )
    page.locator("#files button[aria-label=Clear]").click()
    page.wait_for_selector("#gallery", state="hidden")
    assert "Choose some pictures." in page.locator("#files-message").inner_text()


def test_an_opened_face_is_in_sight_however_long_the_gallery(phone, tmp_path) -> None:
    """A face that is opened fills the window, wherever in a long gallery it stands, and its caption is not cut off."""
    from skimage.data import astronaut

    face = Image.fromarray(astronaut()[20:300, 100:400])
    for number in range(10):
        face.save(tmp_path / f"a long name, which takes more than a line of a phone {number}.jpg")
    tab(phone, "Many pictures")
    give(phone, "#files", *sorted(tmp_path.iterdir()))
    phone.click("#score")
    phone.locator("#gallery .thumbnail-item").nth(1).click()
    phone.wait_for_function("document.querySelector('#gallery .preview img')?.naturalWidth > 0")
    box = phone.locator("#gallery .preview .media-button img").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 844
    caption = phone.locator("#gallery .preview .caption")
    assert caption.evaluate("c => c.scrollWidth <= c.clientWidth")
    assert caption.bounding_box()["height"] > 30  # two lines
    phone.keyboard.press("Escape")
    phone.wait_for_selector("#gallery .preview", state="detached")


def test_a_clip_gives_a_plot_and_an_annotated_video(page, tmp_path) -> None:
    """A clip is read, its emotions are plotted over time and the annotated clip plays; all goes when it is removed."""
    from skimage.data import astronaut

    from fer_bench.video import write_clip

    face = astronaut()[20:300, 100:400]
    write_clip(tmp_path / "clip.mp4", (np.roll(face, step, 1) for step in range(30)), 15)
    tab(page, "Video and camera")
    page.set_input_files("#clip input[type=file]", str(tmp_path / "clip.mp4"))
    page.wait_for_selector("#clip video")
    page.click("#read-clip")
    page.wait_for_selector("#annotated video")
    page.wait_for_function("document.querySelector('#annotated video').readyState >= 2")
    assert page.locator("#annotated video").evaluate("v => v.duration") == pytest.approx(2, abs=0.3)
    title, video = (page.locator(f"#annotated {part}").first.bounding_box() for part in ("label", "video"))
    assert title["y"] + title["height"] <= video["y"]  # it covers no answer drawn in
    assert "8 frames over 1.8 s" in page.locator("#clip-message").inner_text()
    page.wait_for_selector("#clip-plot .legendtext")
    assert page.locator("#clip-plot .legendtext").count() == 7
    page.locator("#clip button[aria-label='Clear']").click()
    says(page, "#clip-message", "Upload a clip or record one.")
    page.wait_for_function("!document.querySelector('#annotated video, #clip-plot .legendtext, #clip-csv a')")


def test_the_live_camera_answers(page) -> None:
    """The camera's stream (here a test pattern) gets an answer and a plot that grows."""
    tab(page, "Video and camera")
    page.click("#live > button")
    page.get_by_text("Click to Access Webcam").first.click()
    page.locator("#camera button", has_text="Record").first.click()
    page.wait_for_selector("#live-line .fer-note")
    assert "no face found" in page.locator("#live-line .fer-note").inner_text()
    page.wait_for_selector("#live-plot .js-plotly-plot")


def test_the_leaderboard_filters_opens_cards_and_compares(page) -> None:
    """The filter leaves the matching rows, a clicked row opens its card, and two rows are compared with an interval."""
    tab(page, "Leaderboard")
    page.wait_for_selector("#board-table >> text=small_cnn")
    assert page.locator("#board-table [role=gridcell]", has_text="patch_cam").count() > 0
    page.locator("#board-table .search-input").fill("deep_emotion")
    page.wait_for_function("!document.querySelector('#board-table').innerText.includes('patch_cam')")
    assert page.locator("#board-table [role=gridcell]", has_text="deep_emotion").count() >= 3
    tab(page, "Compare two methods")
    page.wait_for_function("/differ by|cannot be told apart/.test(document.querySelector('#board-verdict').innerText)")
    assert "senet50" not in page.locator("#board-verdict").inner_text()
    choose(page, "#board-second", "senet50")
    says(page, "#board-verdict", "senet50")
    assert "95 % interval" in page.locator("#board-verdict").inner_text()
    page.locator("#board-table .search-input").fill("")
    page.locator("#board-table [role=gridcell]", has_text="patch_cam").first.click()
    says(page, "#board-card", "patch_cam")
    page.wait_for_function("document.querySelector('#board-card').getBoundingClientRect().top < innerHeight / 2")
    assert "python -m fer_bench.train --method patch_cam" in page.locator("#board-card").inner_text()


def test_the_address_names_the_tab(window, app_url) -> None:
    """A link opens its tab, filled; another tab that is opened stands in the address, which opens it again.

    What else is in the address stays. One that names no tab, or none that there is, opens the first and is left alone.
    """
    chosen = "button[role=tab][aria-selected=true]"
    for page in opened(window, app_url, query="/?tab=leaderboard&from=paper", shows="#board-table"):
        says(page, "#board-card", FIRST)
        page.wait_for_selector("#board-table >> text=small_cnn")
        tab(page, "Submit")
        page.wait_for_url("**/?tab=submit&from=paper")
        page.reload()
        page.wait_for_selector(f"{chosen} >> text=Submit")
    for query in ("", "?tab=nonsense"):
        for page in opened(window, app_url, query=f"/{query}"):
            page.wait_for_function("window.openTab")
            page.wait_for_selector(f"{chosen} >> text=Try it")
            page.wait_for_timeout(1000)
            assert page.url == f"{app_url}/{query}"
            tab(page, "About")
            page.wait_for_url("**/?tab=about")
            tab(page, "Try it")
            page.wait_for_url("**/?tab=try")


def test_a_link_is_not_rewritten_while_its_tab_opens(window, app_url) -> None:
    """Gradio tells that its first tab is open, often after a link's tab was asked for: the address never says so.

    What a visitor opens after that does stand in it, the first tab too.
    """
    link = f"{app_url}/?tab=leaderboard&track=ferplus&row=small_cnn&from=paper"
    page = window.context.new_page()
    page.add_init_script("""
        window.written = [];
        const replace = history.replaceState.bind(history);
        history.replaceState = (state, title, to) => {
            window.written.push(String(to));
            return replace(state, title, to);
        };
    """)
    for _ in range(4):
        page.goto(link)
        page.wait_for_selector("#board-table")
        says(page, "#board-card", "small_cnn")
        page.wait_for_timeout(500)
        assert page.evaluate("window.written") == []
        assert page.url == link
        tab(page, "Try it")
        page.wait_for_url("**/?tab=try&track=ferplus&row=small_cnn&from=paper")
    page.close()


def test_the_address_names_what_is_looked_at_on_the_board(window, app_url) -> None:
    """A link opens its track, row and comparison, and what a visitor chooses there is what the address says then."""
    link = "/?tab=leaderboard&track=ferplus&row=small_cnn&from=paper"
    for page in opened(window, app_url, query=link, shows="#board-table"):
        says(page, "#board-card", "small_cnn")
        assert 'track="ferplus"' in page.locator("#board-card").inner_text()
        assert page.url == app_url + link
        page.locator("#board-table [role=gridcell]", has_text="reference_small").first.click()
        page.wait_for_url("**/?tab=leaderboard&track=ferplus&row=reference_small*&from=paper")
        tab(page, "Compare two methods")
        choose(page, "#board-second", "small_cnn")
        page.wait_for_url("**&first=reference_small*&second=small_cnn*")
        assert "row=" not in page.url
        page.reload()
        says(page, "#board-verdict", "small_cnn")
        tab(page, "Accuracy against cost")
        page.wait_for_url("**&track=ferplus&from=paper&cost=parameters")
        page.reload()
        page.wait_for_selector("[role=tab][aria-selected=true] >> text=Accuracy against cost")
        tab(page, "One method")
        page.wait_for_url("**&track=ferplus&from=paper&row=reference_small*")
    for page in opened(window, app_url, query="/?tab=leaderboard&row=nobody", shows="#board-table"):
        page.get_by_text("The address asks for the row “nobody”, which this board does not have.").first.wait_for()
        says(page, "#board-card", FIRST)


def test_the_hubs_page_around_a_space_is_told_the_address(window, app_url) -> None:
    """In the frame of a Space what a visitor opens goes to the page around it, without the frame's own parameters."""
    frame = f'<iframe src="{app_url}/?tab=submit&__theme=dark" style="width: 100%; height: 900px"></iframe>'
    told = "<script>onmessage = event => { if (event.data.queryString) window.told = event.data.queryString }</script>"
    page = "https://huggingface.co/spaces/name/fer_bench"
    window.route(page, lambda route: route.fulfill(body=told + frame, content_type="text/html"))
    window.goto(page)
    inside = window.frame_locator("iframe")
    inside.locator("[role=tab][aria-selected=true] >> text=Submit").wait_for()
    inside.get_by_role("tab", name="About", exact=True).click()
    window.wait_for_function("window.told === 'tab=about'")
    window.unroute(page)
    window.goto("about:blank")


def test_a_bad_submission_is_told_what_is_wrong(page, tmp_path) -> None:
    """The Submit tab shows the validation's sentences: of a .zip without a submission.yaml, and of a filled-in form."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("model.onnx", b"no model")
    tab(page, "Submit")
    give(page, "#submission", tmp_path / "mine.zip")
    page.click("#check")
    page.wait_for_selector("#report .fer-note.bad")
    assert "submission.yaml" in page.locator("#report").inner_text()
    page.locator("#submission button[aria-label='Clear']").or_(
        page.locator("#submission button[title='Clear']")
    ).click()
    (tmp_path / "mine.onnx").write_bytes(b"no model")
    give(page, "#model", tmp_path / "mine.onnx")
    page.locator("#manifest textarea").fill("name: ../../x")
    page.click("#check")
    says(page, "#report", "lower case letters")
    assert "licence is missing" in page.locator("#report").inner_text()


CHARTED = ("Leaderboard", "Compare two methods", "Accuracy against cost")
"""The leaderboard's tab and the parts inside it: each draws a chart when it is opened."""
QUIET = """() => new Promise(resolve => {
  let timer = setTimeout(done, 400);
  const watcher = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, 400); });
  const latest = setTimeout(done, 5000);
  function done() { watcher.disconnect(); clearTimeout(timer); clearTimeout(latest); resolve(); }
  watcher.observe(document.body, {childList: true, subtree: true, attributes: true});
})"""
"""Waits until nothing on the page has changed for 0.4 s (at most 5 s)."""


RULES = {"light": {}, "dark": {"runOnly": ["color-contrast", "link-in-text-block"]}}
"""What axe-core looks for in each mode: dark is the same page in other colours."""


@pytest.mark.parametrize("mode", RULES)
def test_axe_finds_nothing_of_ours(window, app_url, axe_source, mode) -> None:
    """axe-core finds no violation on any tab, in either mode, but the framework's own in the allow-list."""
    pages = opened(window, app_url, query=f"?__theme={mode}")
    page = next(pages)
    assert page.evaluate("document.body.classList.contains('dark')") == (mode == "dark")
    page.locator("#examples button").nth(3).click()
    page.wait_for_selector(".fer-card")
    page.evaluate(axe_source)
    found = []
    for name in ("Try it", "Many pictures", "Video and camera", *CHARTED, "Submit", "About"):
        tab(page, name)
        if name in CHARTED:
            page.locator(".js-plotly-plot .main-svg").locator("visible=true").first.wait_for()
        page.evaluate(QUIET)
        options = {"resultTypes": ["violations"], **RULES[mode]}
        for violation in page.evaluate("options => axe.run(options).then(r => r.violations)", options):
            if violation["id"] not in ALLOWED:
                found.append((name, violation["id"], [node["html"][:160] for node in violation["nodes"][:3]]))
    next(pages, None)
    assert found == []
