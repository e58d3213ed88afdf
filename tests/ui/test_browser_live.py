"""The live camera in a real browser, with a face before it, on a desk and on a dark phone."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from fer_bench.ui import clip
from tests.ui.pages import choose, opened, says, tab

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
  navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(15);
}"""
"""Puts a portrait (a data URI) before the page's camera, until `nobody` is set."""


def portrait() -> str:
    """A real face (public domain, from scikit-image) as a data URI."""
    from skimage.data import astronaut

    buffer = io.BytesIO()
    Image.fromarray(astronaut()[:300, 60:400]).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("width", "mode"), [(1280, "light"), (390, "dark")])
def test_a_map_is_drawn_over_the_face_before_the_camera(window, app_url, width: int, mode: str) -> None:
    """A map is shown once it is chosen, keeps its place while nobody is there, and goes where none is chosen."""
    pages = opened(window, app_url, width, 1000, f"?__theme={mode}")
    page = next(pages)
    page.evaluate(CAMERA, portrait())
    tab(page, "Video and camera")
    page.click("#live > button")
    page.get_by_text("Click to Access Webcam").first.click()
    page.locator("#camera button", has_text="Record").first.click()
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
