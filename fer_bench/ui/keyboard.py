"""The leaderboard's table without a mouse, which gradio 6.31 leaves halfway. All of it is JavaScript."""

from __future__ import annotations

HEADINGS = """() => {
  const buttons = "#board-table [role=columnheader] .cell-menu-button", menus = ".cell-menu, .filter-menu";
  let from = null;  // the button whose menu was opened by a key
  const name = () => document.querySelectorAll(buttons).forEach((button) => {
    const label = "Sort or filter: " + button.closest("[role=columnheader]").title;
    if (button.ariaLabel !== label) Object.assign(button, {ariaLabel: label, tabIndex: 0});
  });
  const settle = () => requestAnimationFrame(() => {
    const menu = [...document.querySelectorAll(menus)].pop(), label = from.ariaLabel;
    if (menu?.contains(document.activeElement)) return;
    if (menu) return menu.querySelector("button").focus();
    [...document.querySelectorAll(buttons)].find((button) => button.ariaLabel === label)?.focus();
    from = null;
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(buttons);
    if (event.detail) from = null;  // a mouse
    else if (button) from = button;
    if (from && (button || event.target.closest?.(menus))) settle();
  }, true);
  document.addEventListener("keydown", (event) => {
    const menu = from && event.target.closest?.(menus), step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!menu) return;
    const parts = [...menu.querySelectorAll("button, input")], at = parts.indexOf(event.target);
    if (event.key === "Escape") from.click();
    else if (step) parts[(at + step + parts.length) % parts.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
}"""
"""Tab reaches the menu of each heading, which says what it is of; opened by a key, the menu can be used by keys.

Arrows go through its items, Escape closes it, and in the end the heading has the focus again.
"""

SHOW_CARD = """() => {
  document.querySelector("#board-views").scrollIntoView({behavior: "smooth", block: "start"});
  const card = document.querySelector("#board-card");
  card.tabIndex = -1;
  card.focus({preventScroll: true});
}"""
"""A clicked row's card stands below the table, often out of sight: this brings it to the eye, and the focus to it."""
