"""Places in the queue: how many one visitor has, who is taken for one visitor, and whose turn it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
import pytest
from starlette.requests import Request

from fer_bench.ui import turns
from tests.ui.conftest import free_port

ONE, OTHER = "93.184.216.34", "8.8.4.4"


def question(peer: str, *forwarded: str) -> Request:
    """A request from that address, with these X-Forwarded-For headers."""
    headers = [(b"x-forwarded-for", text.encode()) for text in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 1)})


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ([ONE], ONE),
        ([f"{OTHER}, 1.1.1.1, {ONE}"], ONE),  # the visitor wrote all but the last
        ([OTHER, ONE], ONE),
        ([f"{OTHER}, {ONE}, 10.16.3.80"], ONE),  # a second proxy inside
        ([f"{OTHER}, nonsense, 10.16.3.80"], None),
        (["10.0.0.1"], None),
        ([""], None),
        ([], None),
        ([f"::ffff:{ONE}"], ONE),
        (["2606:4700:1:2:3:4:5:6"], "2606:4700:1:2::/64"),
    ],
)
def test_on_a_space_the_last_address_counts(
    monkeypatch: pytest.MonkeyPatch, forwarded: list[str], found: str | None
) -> None:
    """Behind a Space's proxy a visitor is whom the proxy names, at the end of the header, whatever stands before."""
    monkeypatch.setenv("SPACE_ID", "someone/fer_bench")
    assert turns.address(question("10.16.3.80", *forwarded)) == found


def test_elsewhere_the_header_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Space's proxy an address is that of the connection, where it is one of the internet."""
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert turns.address(question(ONE, OTHER)) == ONE
    assert turns.address(question("192.168.1.7", OTHER)) is None
    assert turns.address(question("testclient", OTHER)) is None
    assert turns.address(Request({"type": "http", "headers": [], "client": None})) is None


def test_without_an_address_a_page_is_a_visitor() -> None:
    """Where the address says nothing, pages are told apart by their session, and are not where it does."""
    assert turns.visitor(question("127.0.0.1"), "page") == "page"
    assert turns.visitor(question(ONE), "page") == turns.visitor(question(ONE), "another") == ONE


class Server:
    """A launched app with one slow event, which is bound as the whole app's are, and questions to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Semaphore(0)
        with gr.Blocks(analytics_enabled=False) as self.demo:
            given, taken = gr.Textbox(), gr.Textbox()
            given.submit(
                self.work, given, taken, concurrency_limit=1,
                validator=lambda text: gr.validate(True, ""),  # so that questions wait on their way into the queue
            )  # fmt: skip
        self.demo.queue(max_size=turns.MOST_WAITING, api_open=False)
        turns.bound(self.demo)
        self.demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, _frontend=False)

    def work(self, text: str) -> str:
        self.go.acquire(timeout=60)
        self.done.append(text)
        return text

    def ask(self, text: str, session: str, address: str | None = None) -> httpx.Response:
        """Ask as a page of that session would; uvicorn believes a proxy on this machine."""
        asked = {"fn_index": 0, "data": [text], "session_hash": session}
        headers = {"X-Forwarded-For": address} if address else {}
        return httpx.post(f"{self.demo.local_url}gradio_api/queue/join", json=asked, headers=headers, timeout=240)

    def finish(self, number: int) -> list[str]:
        """Let so many be answered; which were so far, in order."""
        self.go.release(number)
        deadline, wanted = time.monotonic() + 60, len(self.done) + number
        while len(self.done) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.done

    def at_work(self) -> None:
        """Wait until nothing waits that could be at work."""
        queue = self.demo._queue
        deadline = time.monotonic() + 60
        while len(queue) and not any(queue.active_jobs) and time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(turns, "MOST_ASKED", 4)
    found = Server()
    yield found
    found.go.release(99)
    found.demo.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "asker", [lambda n: ("page", None), lambda n: (f"page {n}", ONE), lambda n: (f"page {n}", f"9.9.9.{n}, {ONE}")]
)
def test_one_visitor_cannot_fill_the_queue(server: Server, asker: Any) -> None:
    """A page, an address with ever new sessions, and one with a forged header are refused after the bound.

    In one sentence, while others are taken; when one of the questions is answered the next one is taken.
    """
    answers = [server.ask(f"{n}", *asker(n)) for n in range(9)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 5
    assert answers[-1].json() == {"detail": turns.TOO_MANY}
    assert server.ask("other", "other page", OTHER).status_code == 200
    server.finish(1)
    deadline = time.monotonic() + 60
    while (again := server.ask("again", *asker(0))).status_code == 429 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert again.status_code == 200
    assert sorted(server.finish(5)) == ["0", "1", "2", "3", "again", "other"]


@pytest.mark.slow
def test_questions_that_come_together_are_counted(server: Server) -> None:
    """However many a program sends at the same moment, the bound holds."""
    found, start = [], threading.Barrier(12)

    def ask(number: int) -> None:
        start.wait(60)
        found.append(server.ask("x", f"page {number}", ONE).status_code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sorted(found) == [200] * 4 + [429] * 8


@pytest.mark.slow
def test_visitors_take_turns(server: Server) -> None:
    """Who comes after someone who asked much waits for one question of his, and everyone's own stay in order."""
    for text in ("a1", "a2", "a3", "a4"):
        server.ask(text, "page of a", ONE)
        server.at_work()
    for text in ("b1", "b2"):
        server.ask(text, "page of b", OTHER)
    server.ask("c1", "page of c")
    assert server.finish(7) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


@pytest.mark.slow
def test_what_is_given_up_frees_its_places(server: Server) -> None:
    """The questions of a page that goes away leave the queue and the count."""
    for number in range(4):
        assert server.ask(f"{number}", "page", None).status_code == 200
    server.at_work()
    with httpx.stream("GET", f"{server.demo.local_url}gradio_api/queue/data?session_hash=page", timeout=60) as page:
        next(page.iter_bytes())
    deadline = time.monotonic() + 60
    while len(server.demo._queue) and time.monotonic() < deadline:
        time.sleep(0.05)
    answers = [server.ask("again", "page", None).status_code for _ in range(4)]
    assert answers == [200] * 3 + [429]  # the one at work goes on


@pytest.mark.slow
def test_cancelled_work_holds_its_place(server: Server) -> None:
    """Who cancels what is at work has no other question at work before it ends, and is no less bound."""
    for number in range(4):
        server.ask(f"{number}", "page")
    server.at_work()
    queue = server.demo._queue
    ((event,),) = filter(None, queue.active_jobs)
    cancel = {"session_hash": "page", "fn_index": 0, "event_id": event._id}
    assert httpx.post(f"{server.demo.local_url}gradio_api/cancel", json=cancel, timeout=60).status_code == 200
    time.sleep(0.5)  # in which another one could begin
    assert list(filter(None, queue.active_jobs)) == [[event]]
    assert server.ask("more", "page").status_code == 429
    assert server.finish(4) == ["0", "1", "2", "3"]
