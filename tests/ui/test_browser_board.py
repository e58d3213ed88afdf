"""The leaderboard in a real browser, without a mouse and without seeing its charts."""

from __future__ import annotations

import pytest

from tests.ui.pages import opened, says, tab

pytestmark = pytest.mark.slow

FOCUSED = "document.activeElement.ariaLabel || document.activeElement.innerText.trim()"
NAMES = "[...document.querySelectorAll('#board-table .body-cell[aria-colindex=\"2\"]')].map(e => e.innerText.trim())"


@pytest.fixture
def page(window, app_url):
    """The leaderboard on a desk."""
    for page in opened(window, app_url, query="/?tab=leaderboard", shows="#board-table"):
        page.wait_for_selector("#board-table >> text=small_cnn")
        page.wait_for_selector("#board-card h2")
        yield page


def press(page, *keys: str, then: str = "") -> None:
    """Press keys one after the other, and wait until what has the focus says that."""
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_function(f"text => ({FOCUSED}).includes(text)", arg=then)


def test_the_table_is_sorted_and_filtered_by_keys(page) -> None:
    """Tab goes from heading to heading; each one's menu says what it is of, and is opened, used and closed by keys."""
    page.wait_for_selector("[aria-label='Sort or filter: Rank'][tabindex='0']")
    page.get_by_role("button", name="Sort or filter: Rank").focus()
    press(page, "Tab", then="Sort or filter: Method")
    press(page, "Tab", then="Sort or filter: Accuracy, %")
    first = page.evaluate(NAMES)[0]
    press(page, "Enter", then="Sort ascending")
    press(page, "Escape", then="Sort or filter: Accuracy, %")
    assert page.locator(".cell-menu").count() == 0
    press(page, "Enter", then="Sort ascending")
    press(page, "Enter", then="Sort or filter: Accuracy, %")
    page.wait_for_function(f"first => {NAMES}[0] !== first", arg=first)
    press(page, "Shift+Tab", then="Sort or filter: Method")
    press(page, "Enter", then="Sort ascending")
    press(page, "ArrowUp", "ArrowUp", then="Filter")
    press(page, "Enter", then="Change filter type")
    press(page, "ArrowDown", "ArrowDown")
    page.keyboard.type("deep_emotion")
    press(page, "Tab", "Enter", then="Sort or filter: Method")
    page.wait_for_function(f"{NAMES}.length && {NAMES}.every(name => name.startsWith('deep_emotion'))")


def test_a_row_that_is_opened_by_a_key_gives_its_card_the_focus(page) -> None:
    """Arrows move in the table; Enter opens the card of the row, mark or not, and what is read next is the card."""
    marked = page.locator("#board-table .body-cell[aria-colindex='2']", has_text="◔").nth(1)
    name = marked.inner_text().partition(" ")[0]
    marked.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.activeElement.ariaColIndex === '1'")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'board-card'")
    says(page, "#board-card", name)
    assert "◔" not in page.url
    page.wait_for_function("document.querySelector('#board-card').getBoundingClientRect().top < innerHeight / 2")


def test_a_long_name_is_read_whole_and_leaves_room(page) -> None:
    """A name that is too long for 300 pixels takes a second line; its row is as much higher, and nothing is cut off."""
    page.locator("#board-table .search-input").fill("tencrop")
    page.wait_for_function(f"{NAMES}.length && {NAMES}.every(name => name.includes('tencrop'))")
    cell = page.locator("#board-table .body-cell[aria-colindex='2']", has_text="reference_small · distilled").first
    assert cell.bounding_box()["width"] <= 300
    text = cell.locator(".text").first
    assert text.evaluate("e => e.scrollWidth <= e.clientWidth + 1 && e.scrollHeight <= e.parentElement.offsetHeight")


def test_what_the_charts_show_can_be_read(page) -> None:
    """A row's charts and a comparison's stand as tables in what is closed first; the frontier stands in words."""
    page.locator("#board-row-figures > button").click()
    page.get_by_role("columnheader", name="mean confidence, %").wait_for()
    tab(page, "Compare two methods")
    says(page, "#board-verdict", "Both are right on ")
    page.locator("#board-pair-figures > button").click()
    page.locator("#board-pair-figures").get_by_role("columnheader", name="first, second →", exact=True).wait_for()
    tab(page, "Accuracy against cost")
    says(page, "#board-frontier", "The frontier, cheapest first")
    before = page.locator("#board-frontier").inner_text()
    page.get_by_role("radio", name="Latency").check()
    says(page, "#board-frontier", "latency, × resnet18")
    assert page.locator("#board-frontier").inner_text() != before
