"""What the browser tests do on the app's page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE = 240_000
"""Milliseconds that a test waits for anything, unless how long it takes is what it is about: a machine may be busy."""


def opened(page, url: str, width: int = 1280, height: int = 1000, query: str = "", shows: str = "#picture") -> Iterator:
    """The app, loaded anew in a window of that size. shows: what is to be seen on it then.

    The test fails if the page asked any other machine for anything, or broke.
    """
    elsewhere, broken = [], []

    def request(asked) -> None:
        if not asked.url.startswith((url, "data:", "blob:")):
            elsewhere.append(asked.url)

    def error(raised) -> None:
        broken.append(str(raised))

    page.set_viewport_size({"width": width, "height": height})
    page.on("request", request)
    page.on("pageerror", error)
    page.goto(url + query)
    page.wait_for_selector(shows)
    yield page
    page.remove_listener("request", request)
    page.remove_listener("pageerror", error)
    page.goto("about:blank")  # so that what is still under way does not run into the next test
    assert elsewhere == []
    assert broken == []


def upload(page, path: Path) -> None:
    """Give the first tab a picture."""
    page.set_input_files("#picture input[type=file]", str(path))


def give(page, where: str, *paths: Path) -> None:
    """Choose files for a file component, and wait until it lists them all.

    While files are on their way gradio shows their names too, for as long as that takes: on a busy machine a test that
    waits for a name's text may never see it, for in the list that follows a name's stem and its ending stand apart.
    """
    page.set_input_files(f"{where} input[type=file]", [str(path) for path in paths])
    for path in paths:
        page.wait_for_selector(f"{where} .filename[aria-label='{path.name}']")


def tab(page, name: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=name, exact=True).first.click()


def choose(page, where: str, option: str) -> None:
    """Pick an option of a gradio dropdown."""
    page.locator(f"{where} input").click()
    page.locator("ul[role=listbox] li", has_text=option).first.click()


def says(page, where: str, text: str) -> None:
    """Wait until an element says that."""
    page.wait_for_function(
        "([where, text]) => document.querySelector(where)?.innerText.includes(text)", arg=[where, text]
    )


def work_of(page, process: int) -> Callable[[], float]:
    """A clock of the processor seconds used so far: all of a process's, and the page's script, styles and layout."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> float:
        figures = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        page_work = sum(figures[name] for name in ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration"))
        return page_work + _seconds_of(process)

    return used


def _seconds_of(process: int) -> float:
    """CPU seconds that a process has used so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
