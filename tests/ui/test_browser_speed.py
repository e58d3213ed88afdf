"""How fast the leaderboard of many results is in a real browser."""

from __future__ import annotations

import pytest

from fer_bench.results import write_result
from tests.test_leaderboard import made
from tests.ui.conftest import served
from tests.ui.pages import opened, says, tab, work_of

pytestmark = pytest.mark.slow

MANY = """
import sys
from pathlib import Path
from fer_bench.ui import app
demo = app.build(Path(sys.argv[1]))
demo.launch(server_port=int(sys.argv[2]), **app.launch_options())
"""
"""`app.py`, but for the folder of the leaderboard."""
WATCH = """name => {
  const seen = () => [...document.querySelectorAll('#board-table [role=gridcell]')]
    .some(cell => cell.textContent.trim().startsWith(name));
  addEventListener('click', () => {
    const start = performance.now();
    window.rowsAfter = null;
    const watcher = new MutationObserver(() => {
      if (!seen()) return;
      watcher.disconnect();
      requestAnimationFrame(() => { window.rowsAfter = performance.now() - start; });
    });
    watcher.observe(document.body, {childList: true, subtree: true, characterData: true});
  }, {capture: true, once: true});
}"""
"""Sets `rowsAfter` to the milliseconds from the next click to the frame that shows a row of that name."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory):
    """An app whose leaderboard holds 1,000 results on one track and 20 on another: its address and process id."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(1000):
        write_result(made(f"method_{index:04}", 40 + index % 50), folder / "board")
    for index in range(20):
        write_result(made(f"few_{index:02}", 40 + index, track="rendered"), folder / "board")
    with served(folder, "-c", MANY, str(folder / "board")) as found:
        yield found


def test_a_thousand_results_are_shown_within_a_second(window, many) -> None:
    """From the choice of a track to the frame that shows its 1,000 results a second passes at most; all can be found.

    Where other work shares the machine's cores, the wall clock counts that work too, and frames that are drawn while
    waiting add up. So the time is the lesser of the wall clock and of the processor time between click and rows: all
    that the server used, and what the page's script, styles and layout did. The two take turns, so their sum is what
    an idle machine needs at least. Best of twelve: the first time also compiles scripts and imports what draws charts.
    """
    url, server = many
    pages = opened(window, url)
    page = next(pages)
    used = work_of(page, server)

    def pick(track: str, name: str) -> float:
        page.get_by_label("Track: what was").click()
        option = page.locator("ul[role=listbox] li", has_text=track).first
        option.wait_for()
        page.evaluate(WATCH, name)
        before = used()
        option.click()
        page.wait_for_function("window.rowsAfter", polling=20)
        return min(used() - before, page.evaluate("window.rowsAfter") / 1000)

    tab(page, "Leaderboard")
    page.wait_for_selector("#board-card h2")
    times = []
    while min(times, default=60.0) >= 1 and len(times) < 12:
        pick("endered", "few_")
        says(page, "#board-card", "few_")
        times.append(pick("FER2013", "method_"))
        says(page, "#board-card", "method_")
    assert min(times) < 1, times
    page.locator("#board-table .search-input").fill("method_0001")
    page.wait_for_function(
        "document.querySelector('#board-table').innerText.includes('method_0001') && "
        "!document.querySelector('#board-table').innerText.includes('method_0002')"
    )
    next(pages, None)
