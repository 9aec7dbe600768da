"""Windows of many requests gathered into batches, in a thread of their own.

Ray Serve has a decorator that gathers calls, but for its own replicas alone, and without a bound: here a full queue is
an answer, and what nobody waits for any more is not drawn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from marsjax.studies.service.next_orders import Draw


class FullError(Exception):
    """As many wait as may."""


class Batches:
    """A queue of draws; all its methods are called in one event loop."""

    def __init__(self, tokens: Callable[[Sequence[Draw]], np.ndarray], most: int, most_waiting: int, wait_s: float,
                 on_batch: Callable[[int], None] = lambda size: None) -> None:
        """`tokens` draws at most `most` at once, in a thread; `on_batch` is told the size of each batch."""
        self._tokens, self._most, self._most_waiting, self._wait_s = tokens, most, most_waiting, wait_s
        self._on_batch = on_batch
        self._queue: deque[tuple[Draw, asyncio.Future[int]]] = deque()
        self._drawn = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next orders")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Draws that wait, or are made."""
        return len(self._queue) + self._drawn

    async def draw(self, draws: Sequence[Draw]) -> np.ndarray:
        """Their tokens, int32 [n]; FullError where so many more may not wait. Errors of `tokens` pass through."""
        if self.waiting + len(draws) > self._most_waiting:
            raise FullError
        loop = asyncio.get_running_loop()
        mine = [(draw, loop.create_future()) for draw in draws]
        self._queue.extend(mine)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return np.array(await asyncio.gather(*(future for _, future in mine)), np.int32)

    async def _work(self) -> None:
        """Until nothing waits."""
        while self._queue:
            if len(self._queue) < self._most:
                await asyncio.sleep(self._wait_s)
            batch: list[tuple[Draw, asyncio.Future[int]]] = []
            while self._queue and len(batch) < self._most:
                draw, future = self._queue.popleft()
                if not future.done():  # whoever asked has not gone
                    batch.append((draw, future))
            if batch:
                await self._one(batch)

    async def _one(self, batch: list[tuple[Draw, "asyncio.Future[int]"]]) -> None:
        self._drawn = len(batch)
        self._on_batch(len(batch))
        made = asyncio.get_running_loop().run_in_executor(self._thread, self._tokens, [draw for draw, _ in batch])
        await asyncio.wait([made])
        self._drawn = 0
        error = made.exception()
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue
            if error is None:
                future.set_result(int(made.result()[place]))
            else:
                future.set_exception(error)

    def close(self) -> None:
        """Ends the thread once it is done with its batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)
