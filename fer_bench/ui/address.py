"""What the page's address says: the open tab and, on the leaderboard, what is looked at there. All of it is JavaScript.

`?tab=leaderboard&track=ferplus&row=small_cnn` can be sent, cited and opened again. Only what a visitor opens or chooses
is written; what else stands in the address stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

_PUT = """
  const put = (given) => {
    const address = new URL(window.location), asked = address.searchParams;
    for (const [name, value] of Object.entries(given)) value ? asked.set(name, value) : asked.delete(name);
    window.history.replaceState(window.history.state, "", address);
    if (window.parent === window) return;
    for (const name of [...asked.keys()]) if (name.startsWith("__")) asked.delete(name);  // the frame's own
    window.parent.postMessage({queryString: asked.toString()}, "https://huggingface.co");  // no other page is told
  };"""
"""Writes into the address. A Space is a frame in a page of the Hub, which sets its own address when it is told to:
https://huggingface.co/docs/hub/spaces-handle-url-parameters
"""

TAB_FROM_ADDRESS = """() => {
  const tabs = %s, asked = new URLSearchParams(window.location.search).get("tab");
  window.openTab = tabs.includes(asked) ? asked : tabs[0];
  window.tabOnItsWay = window.openTab !== tabs[0];
  return {selected: window.openTab, __type__: "update"};
}"""

TAB_TO_ADDRESS = """() => {%(put)s
  // Nobody has opened it: gradio tells of its first tab, too, which may come after another was asked for.
  if (!window.openTab || window.tabOnItsWay && %(first)s) return;
  window.tabOnItsWay = false;
  if (window.openTab === "%(tab)s") return;
  window.openTab = "%(tab)s";
  put({tab: "%(tab)s"});
}"""

BOARD_FROM_ADDRESS = """() => {
  const asked = new URLSearchParams(window.location.search), same = {__type__: "update"};
  const value = (name) => asked.get(name) ? {value: asked.get(name), __type__: "update"} : same;
  const name = (name) => asked.get(name) ? {...value(name), choices: [[asked.get(name), asked.get(name)]]} : same;
  const view = asked.get("first") && asked.get("second") ? "pair" : %(costs)s.includes(asked.get("cost")) ? "cost"
    : "method";
  return [value("track"), value("recipe"), name("row"), name("first"), name("second"),
    view === "cost" ? value("cost") : same, view, {selected: view, __type__: "update"}];
}"""

BOARD_TO_ADDRESS = """(track, recipe, row, first, second, cost, view) => {%(put)s
  const asked = new URLSearchParams(window.location.search);
  if (%(opened)s && view === "method" && !asked.has("first") && !asked.has("cost")) return;  // nobody has opened it
  put({tab: "leaderboard", track, recipe: recipe === "%(all)s" ? "" : recipe, row: view === "method" ? row : "",
    first: view === "pair" ? first : "", second: view === "pair" ? second : "", cost: view === "cost" ? cost : ""});
}"""


def tab_from(tabs: Sequence[str]) -> str:
    """Opens the tab that the address asks for; the first one where it asks for none that is here. Output: the tabs."""
    return TAB_FROM_ADDRESS % json.dumps(list(tabs))


def tab_to(tab: str, first: bool) -> str:
    """Puts the tab that a visitor has opened into the address. first: gradio opens that one itself."""
    return TAB_TO_ADDRESS % {"put": _PUT, "tab": tab, "first": json.dumps(first)}


def board_from(costs: Sequence[str]) -> str:
    """Chooses what the address asks for. Outputs: track, recipe, row, first and second, cost, view and the view's tabs.

    Nothing is checked here but the cost: whether a track or a row is there, the server knows.
    """
    return BOARD_FROM_ADDRESS % {"costs": json.dumps(list(costs))}


def board_to(every_recipe: str, opened: bool = False) -> str:
    """Puts what a visitor looks at into the address. Inputs: track, recipe, row, first and second, cost, view.

    every_recipe: the recipe that goes without saying. opened: the view was opened, by a visitor or by gradio itself.
    """
    return BOARD_TO_ADDRESS % {"put": _PUT, "all": every_recipe, "opened": json.dumps(opened)}
