"""That no visitor fills the queue or stands before all others in it, however many pages or programs he asks with.

Gradio bounds the queue as a whole (`max_size`) and answers it first come, first served, whoever comes; its `validator`
runs before an event is queued, but two that come together would both pass it. So this wraps the one method by which
every question enters the queue, those of pages, programs and MCP alike.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import fastapi
    import gradio as gr
    from gradio.data_classes import PredictBodyInternal
    from gradio.queueing import Event, Queue

MOST_WAITING = 64
"""Questions of all visitors that wait at once."""
MOST_ASKED = 12
"""Of them and of those at work, one visitor's: more than a page asks by itself, for a class may have one address."""
TOO_MANY = (
    f"{MOST_ASKED} questions from you, or from others at your internet address, are waiting or at work already; ask "
    "again when one of them is answered."
)


def address(request: fastapi.Request) -> str | None:
    """The internet address that a question came from, as far as it can be trusted; None where it is not known.

    On a Space the question comes from a proxy, which adds whom it serves at the end of X-Forwarded-For; what stands
    before that the visitor may have written himself. Elsewhere uvicorn has taken care of the proxies that
    $FORWARDED_ALLOW_IPS names, and a header is not believed. A private address may be that of a proxy before many
    visitors, and is passed over. Of IPv6 a visitor has a whole /64.
    """
    found = [request.client.host] if request.client else []
    if os.environ.get("SPACE_ID"):
        found = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    for text in reversed(found):
        try:
            one = ip_address(text.strip())
        except ValueError:  # nor is what stands before it to be trusted
            return None
        one = getattr(one, "ipv4_mapped", None) or one
        if one.is_global:
            return str(IPv6Network((one, 64), strict=False) if isinstance(one, IPv6Address) else one)
    return None


def visitor(request: fastapi.Request, session: str | None) -> str | None:
    """Who asks: an internet address, or else the page's session, which a program can choose anew each time."""
    return address(request) or session


def bound(demo: gr.Blocks) -> None:
    """Have MOST_ASKED kept and visitors take turns. Called when the app's queue is made, before it is launched.

    And have work hold its place until it ends: a visitor may cancel it, which gradio takes for its end, but the thread
    works on, so that by asking and cancelling he could have any number at work.
    """
    from fastapi import HTTPException

    queue: Queue = demo._queue
    push, entering = queue.push, []  # visitors of questions that are between the check and the queue

    async def one_of_many(body: PredictBodyInternal, request: fastapi.Request, username: str | None) -> Any:
        who = visitor(request, body.session_hash)
        if who and [*map(_asked_by, _asked(queue)), *entering].count(who) >= MOST_ASKED:
            raise HTTPException(429, TOO_MANY)
        entering.append(who)
        try:
            answer = await push(body, request, username)
        finally:
            entering.remove(who)
        take_turns(queue)
        return answer

    queue.push = one_of_many
    process, going = queue.process_events, set()

    async def to_the_end(events: list[Event], *given: Any) -> None:
        work = asyncio.ensure_future(process(events, *given))
        going.add(work)  # the loop alone would not keep it
        work.add_done_callback(going.discard)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            for event in events:
                event.alive = False  # nobody waits for the answer
            raise

    queue.process_events = to_the_end


def take_turns(queue: Queue) -> None:
    """Order what waits: every visitor's first question, then everyone's second, each as they came.

    So a visitor waits for one question of each other at most, and not for all that one of them asked before; what is at
    work counts as asked.
    """
    for name, line in queue.event_queue_per_concurrency_id.items():
        asked = Counter(_asked_by(event) for event in _at_work(queue) if event.concurrency_id == name)
        turns, before = {}, list(line.queue)
        for event in before:
            turns[event] = asked[_asked_by(event)]
            asked[_asked_by(event)] += 1
        line.queue.sort(key=turns.__getitem__)
        if line.queue != before:
            queue.broadcast_estimations(name)  # the page shows how many are before it


def _asked_by(event: Event) -> str | None:
    return visitor(event.request, event.session_hash)


def _at_work(queue: Queue) -> Iterator[Event]:
    for job in queue.active_jobs:
        yield from job or ()


def _asked(queue: Queue) -> Iterator[Event]:
    """What waits and what is at work. Not `event_ids_to_events`, in which events of broken questions stay."""
    yield from _at_work(queue)
    for line in queue.event_queue_per_concurrency_id.values():
        yield from line.queue
