"""The live camera in a real browser, with a face before it, on a desk and on a dark phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from fer_bench.ui import clip, turns
from tests.ui.conftest import served
from tests.ui.pages import PATIENCE, choose, opened, says, tab

pytestmark = pytest.mark.slow

CAMERA = """async portrait => {
  const [canvas, picture] = [document.createElement('canvas'), new Image()];
  [canvas.width, canvas.height, picture.src] = [640, 480, portrait];
  await picture.decode();
  const brush = canvas.getContext('2d');
  let shift = 0;
  setInterval(() => {
    brush.fillStyle = '#5c6e75';
    brush.fillRect(0, 0, 640, 480);
    if (!window.nobody) brush.drawImage(picture, 100 + shift++ % 8, 20, 440, 440);
  }, 66);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async () => {
    const stream = canvas.captureStream(15);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}"""
"""Puts a portrait (a data URI) before the page's camera, until `nobody` is set; `tracks` are what it was given."""


def portrait() -> str:
    """A real face (public domain, from scikit-image) as a data URI."""
    from skimage.data import astronaut

    buffer = io.BytesIO()
    Image.fromarray(astronaut()[:300, 60:400]).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


APP = """
import sys
from fer_bench.ui import app, clip
clip.LIVE_SECONDS = 3
app.build().launch(server_port=int(sys.argv[1]), **app.launch_options())
"""
"""The app with a camera that stops soon."""


@pytest.fixture(scope="module")
def soon_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of that app."""
    with served(tmp_path_factory.mktemp("app"), "-c", APP) as (url, _):
        yield url


def start_camera(page) -> None:
    """Start the live camera; its tab is open."""
    page.get_by_text("Click to Access Webcam").first.click()
    page.locator("#camera button", has_text="Record").first.click()


def test_the_camera_stops_after_its_time(window, soon_over: str) -> None:
    """It is switched off and says so, asks for no other turn by itself, and can be started again."""
    pages = opened(window, soon_over)
    page, joined = next(pages), []
    page.route("**/queue/join*", lambda route: (joined.append(route.request.url), route.continue_()))
    page.evaluate(CAMERA, portrait())
    tab(page, "Video and camera")
    page.click("#live > button")
    for starts in (1, 2):
        with page.expect_response("**/queue/join*", timeout=PATIENCE):  # its answers may be gone before they are seen
            start_camera(page)
        page.get_by_text("Click to Access Webcam").first.wait_for()
        says(page, "#live-line", clip.LIVE_ENDED)
        assert page.evaluate("window.tracks.every(track => track.readyState === 'ended')")
        page.wait_for_timeout(3000)
        assert len(joined) == starts
    page.unroute("**/queue/join*")
    next(pages, None)


def test_a_camera_that_is_refused_asks_once(window, soon_over: str) -> None:
    """Where a visitor has too many questions waiting, the page says so in one sentence and the camera is off."""
    pages = opened(window, soon_over)
    page, joined = next(pages), []
    refusal = {"status": 429, "json": {"detail": turns.TOO_MANY}}
    page.route("**/queue/join*", lambda route: (joined.append(route.request.url), route.fulfill(**refusal)))
    page.evaluate(CAMERA, portrait())
    tab(page, "Video and camera")
    page.click("#live > button")
    start_camera(page)
    page.get_by_text(turns.TOO_MANY).first.wait_for()
    page.get_by_text("Click to Access Webcam").first.wait_for()
    page.wait_for_timeout(2000)
    assert len(joined) == 1
    page.unroute("**/queue/join*")
    next(pages, None)


@pytest.mark.parametrize(("width", "mode"), [(1280, "light"), (390, "dark")])
def test_a_map_is_drawn_over_the_face_before_the_camera(window, app_url, width: int, mode: str) -> None:
    """A map is shown once it is chosen, keeps its place while nobody is there, and goes where none is chosen."""
    pages = opened(window, app_url, width, 1000, f"?__theme={mode}")
    page = next(pages)
    page.evaluate(CAMERA, portrait())
    tab(page, "Video and camera")
    page.click("#live > button")
    start_camera(page)
    says(page, "#live-line", "%")
    assert not page.locator("#live-map").is_visible()
    choose(page, "#live-cam", "HiResCAM")
    page.wait_for_selector("#live-map img")
    shown = page.locator("#live-map img")
    alt = shown.get_attribute("alt")
    assert alt.startswith("Your camera's frame with HiResCAM of ")
    assert f"Heat: HiResCAM for {alt.split()[-1]}" == page.locator("#live-map figcaption").inner_text()
    assert shown.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [640, 480]
    place = shown.bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= width
    assert place["width"] / place["height"] == pytest.approx(4 / 3, abs=0.01)
    assert page.evaluate("document.documentElement.scrollWidth") <= width + 1
    page.evaluate("window.nobody = true")
    says(page, "#live-map", clip.NO_FACE)
    assert page.locator("#live-map img").count() == 0
    empty = page.locator("#live-map figure").bounding_box()
    assert (empty["width"], empty["height"]) == pytest.approx((place["width"], place["height"]), abs=40)
    says(page, "#live-line", "no face found")
    page.evaluate("window.nobody = false")
    page.wait_for_selector("#live-map img")
    choose(page, "#live-cam", "no map")
    page.wait_for_selector("#live-map", state="hidden")
    says(page, "#live-line", "%")
    next(pages, None)
