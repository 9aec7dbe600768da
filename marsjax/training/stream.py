"""Windows of a training's steps, read from files by threads while the device works on those before them.

Which windows a step has is known from its number alone (`loop.drawn`). So a stream has no state to keep: it begins at
any step, and each host reads the rows of its own devices and no others.
"""

import concurrent.futures
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from marsjax.training.stored import StreamedDays


class WindowStream:
    """Calls of windows, one after the other, each on the device before it is asked for if reading keeps up."""

    def __init__(self, days: StreamedDays, length: int, numbers: Iterable[np.ndarray], sharding: Sharding | None
                 ) -> None:
        """Starts to read.

        Args:
          days: files, longer than a window; their `waited_s` grows.
          length: tokens of a window less one.
          numbers: of each call the windows that it takes, int32 [...], counted through all days.
          sharding: of its array int32 [..., length + 1, C] over devices; None: JAX's default device.
        """
        self._days, self._length, self._sharding = days, length, sharding
        self._ends = np.cumsum([len(day) - length for day in days])
        self._columns = days[0].columns
        self._threads = concurrent.futures.ThreadPoolExecutor(days.ahead, "windows")
        self._calls: Iterator[np.ndarray] = iter(numbers)
        self._ahead: deque[concurrent.futures.Future[jax.Array]] = deque()
        for _ in range(days.ahead):
            self._submit()

    def next(self, busy: Any) -> jax.Array:
        """The windows of the next call.

        `busy` are arrays that the device still computes: the wait for windows counts from when they are there.
        """
        future = self._ahead.popleft()
        if not future.done():
            jax.block_until_ready(busy)
            began = time.perf_counter()
            concurrent.futures.wait([future])
            self._days.waited_s += time.perf_counter() - began
        self._submit()
        return future.result()

    def close(self) -> None:
        """Reads no further."""
        self._threads.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        numbers = next(self._calls, None)
        if numbers is not None:
            self._ahead.append(self._threads.submit(self._placed, numbers))

    def _placed(self, numbers: np.ndarray) -> jax.Array:
        """The windows of these numbers, on the devices."""
        if self._sharding is None:
            return jax.block_until_ready(jax.device_put(self._read(numbers)))
        shape = (*numbers.shape, self._length + 1, self._columns)
        return jax.block_until_ready(jax.make_array_from_callback(
            shape, self._sharding, lambda part: self._read(numbers[(part or ())[:-2]])))

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """int32 [..., length + 1, C]."""
        found = np.empty((numbers.size, self._length + 1, self._columns), np.int32)
        for window, number in zip(found, numbers.reshape(-1), strict=True):
            day = int(np.searchsorted(self._ends, number, side="right"))
            first = int(number) - (int(self._ends[day - 1]) if day else 0)
            window[:] = self._days[day][first : first + self._length + 1]
        return found.reshape(*numbers.shape, *found.shape[1:])
