"""Requests for futures, one after the other in a thread, and their rows as an asynchronous stream."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from marsjax.experiments.service.batches import FullError
from marsjax.studies.progress import StoppedError
from marsjax.studies.service.wanted import Wanted
from marsjax.studies.service.whole_futures import Tell, Told

_LOOK_EVERY_S = 0.2
_AHEAD = 8
"""Parts that wait for a client to read them."""
_PATIENCE_S = 30.0
"""For a client that reads nothing: then its futures end, as others wait."""


class FuturesQueue:
    """Runs requests in a thread; all its methods are called in one event loop."""

    def __init__(self, run: Callable[[Wanted, Tell], None], most_waiting: int, timeout_s: float) -> None:
        """`run` makes futures and tells of them (`WholeFutures.run`)."""
        self._run, self._most_waiting, self._timeout_s = run, most_waiting, timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="futures")
        self.waiting = 0
        """Requests that wait or run."""

    async def stream(self, wanted: Wanted) -> AsyncIterator[Told]:
        """What is told of the futures, as they are made; close it to end them.

        FullError where no more may wait; TimeoutError where they take too long; errors of `run` pass through.
        """
        if self.waiting >= self._most_waiting:
            raise FullError
        loop = asyncio.get_running_loop()
        job = _Job(loop, time.monotonic() + self._timeout_s)
        self.waiting += 1
        running = loop.run_in_executor(self._thread, self._run, wanted, job.tell)
        running.add_done_callback(self._over)
        try:
            while (one := await job.next_told(running)) is not None:
                yield one
        finally:
            job.stop()
            running.cancel()

    def _over(self, running: "asyncio.Future[None]") -> None:
        self.waiting -= 1
        if not running.cancelled():
            running.exception()  # looked at, so that nobody is told of an error that was answered already

    def close(self) -> None:
        """Ends the thread once it is done; what waits never begins."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Job:
    """One request: what its thread tells, until it is stopped or its time is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end_s: float) -> None:
        self._loop, self._end_s = loop, end_s
        self._told: asyncio.Queue[Told] = asyncio.Queue(_AHEAD)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Its futures end after their chunk."""
        self._stopped.set()

    def tell(self, one: Told) -> None:
        """In the thread; StoppedError where nobody listens any more."""
        if self._stopped.is_set() or time.monotonic() > self._end_s:
            raise StoppedError
        put: Future[None] = asyncio.run_coroutine_threadsafe(self._told.put(one), self._loop)
        until_s = min(self._end_s, time.monotonic() + _PATIENCE_S)
        while not put.done():
            if self._stopped.is_set() or time.monotonic() > until_s:
                put.cancel()
                raise StoppedError
            wait([put], _LOOK_EVERY_S)

    async def next_told(self, running: "asyncio.Future[None]") -> Told | None:
        """The next thing told, None after the last; errors as of `FuturesQueue.stream`."""
        told = asyncio.ensure_future(self._told.get())
        try:
            either: set[asyncio.Future[Any]] = {told, running}
            await asyncio.wait(either, timeout=max(self._end_s - time.monotonic(), 0),
                               return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
        finally:
            told.cancel()
        if not self._told.empty():
            return self._told.get_nowait()
        if running.done():
            error = running.exception()
            if isinstance(error, StoppedError):
                raise TimeoutError
            if error is not None:
                raise error
            return None
        raise TimeoutError
