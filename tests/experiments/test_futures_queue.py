"""Requests for futures in their queue: who leaves takes his request with him, and nothing is kept of it."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the service needs prometheus_client: pip install 'marsjax[serve]'")

from marsjax.experiments.service.batches import FullError
from marsjax.experiments.service.futures_queue import FuturesQueue
from marsjax.studies.service.whole_futures import Tell, Told


class Asked:
    """In the place of a request; may be followed by a weak reference."""


def test_of_many_who_leave_while_one_runs_nothing_is_kept() -> None:
    go, ran = threading.Event(), []

    def run(wanted: Any, tell: Tell) -> None:
        ran.append(wanted)
        go.wait(20)
        tell(Told("result", {}))

    async def leave(queue: FuturesQueue) -> "weakref.ref[Asked]":
        asked: Any = Asked()
        stream = queue.stream(asked)
        first = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert queue.waiting == 2
        first.cancel()
        await asyncio.wait([first])
        return weakref.ref(asked)

    async def all_of_it() -> None:
        queue = FuturesQueue(run, 2, 60.0)
        asked: list[Any] = [Asked(), Asked()]
        first = asyncio.ensure_future(anext(queue.stream(asked[0])))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        left = [await leave(queue) for _ in range(200)]
        gc.collect()
        assert queue.waiting == 1 and [one() for one in left] == [None] * 200
        second = asyncio.ensure_future(anext(queue.stream(asked[1])))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        with pytest.raises(FullError):
            await anext(queue.stream(asked[1]))
        go.set()
        assert (await first).kind == (await second).kind == "result" and ran == asked

    asyncio.run(all_of_it())


def test_one_that_runs_counts_until_its_thread_has_ended() -> None:
    go = threading.Event()

    async def all_of_it() -> None:
        queue = FuturesQueue(lambda wanted, tell: go.wait(20) and None, 1, 60.0)
        asked: Any = Asked()
        first = asyncio.ensure_future(anext(queue.stream(asked)))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        assert queue.waiting == 1
        with pytest.raises(FullError):
            await anext(queue.stream(asked))
        go.set()
        while queue.waiting:
            await asyncio.sleep(0.001)

    asyncio.run(all_of_it())
