"""Requests for futures, one after the other, each in a thread, and their rows as an asynchronous stream."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
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
    """Runs requests, one after the other, each in a thread; all its methods are called in one event loop."""

    def __init__(self, run: Callable[[Wanted, Tell], None], most_waiting: int, timeout_s: float) -> None:
        """`run` makes futures and tells of them (`WholeFutures.run`)."""
        self._run, self._most_waiting, self._timeout_s = run, most_waiting, timeout_s
        self._queue: deque[_Job] = deque()
        self._running: _Job | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait or run; one whose client has gone runs until its thread has noticed."""
        return len(self._queue) + (self._running is not None)

    async def stream(self, wanted: Wanted) -> AsyncIterator[Told]:
        """What is told of the futures, as they are made; close it to end them.

        FullError where no more may wait; TimeoutError where they take too long; errors of `run` pass through.
        """
        if self.waiting >= self._most_waiting:
            raise FullError
        job = _Job(wanted, asyncio.get_running_loop(), time.monotonic() + self._timeout_s)
        self._queue.append(job)
        self._begin()
        try:
            while (one := await job.next_told()) is not None:
                yield one
        finally:
            job.stop()
            if job in self._queue:
                self._queue.remove(job)

    def _begin(self) -> None:
        """Runs the next that waits, if none runs."""
        if self._running is None and self._queue:
            self._running = self._queue.popleft()
            self._running.over.add_done_callback(self._ended)
            # A daemon: the end of the process does not wait for a compilation.
            threading.Thread(target=self._running.run, args=(self._run,), name="futures", daemon=True).start()

    def _ended(self, over: "asyncio.Future[None]") -> None:
        over.exception()  # looked at, so that nobody is told of an error that was answered already
        self._running = None
        self._begin()

    def close(self) -> None:
        """Ends what runs after its chunk; what waits never begins."""
        self._queue.clear()
        if self._running is not None:
            self._running.stop()


class _Job:
    """One request: what its thread tells, until it is stopped or its time is over."""

    def __init__(self, wanted: Wanted, loop: asyncio.AbstractEventLoop, end_s: float) -> None:
        self._wanted, self._loop, self._end_s = wanted, loop, end_s
        self._told: asyncio.Queue[Told] = asyncio.Queue(_AHEAD)
        self._stopped = threading.Event()
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when its thread is; with the error that ended it."""

    def run(self, run: Callable[[Wanted, Tell], None]) -> None:
        """In the thread."""
        with self:
            if not self._stopped.is_set():
                run(self._wanted, self.tell)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Hands over to the loop that the thread is done, and what ended it."""
        del kind, trace
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._finish, error)
        return True

    def _finish(self, error: BaseException | None) -> None:
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)

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

    async def next_told(self) -> Told | None:
        """The next thing told, None after the last; errors as of `FuturesQueue.stream`."""
        told = asyncio.ensure_future(self._told.get())
        try:
            either: set[asyncio.Future[Any]] = {told, self.over}
            await asyncio.wait(either, timeout=max(self._end_s - time.monotonic(), 0),
                               return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
        finally:
            told.cancel()
        if not self._told.empty():
            return self._told.get_nowait()
        if self.over.done():
            error = self.over.exception()
            if isinstance(error, StoppedError):
                raise TimeoutError
            if error is not None:
                raise error
            return None
        raise TimeoutError
