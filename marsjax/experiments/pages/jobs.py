"""A run in a thread of its own: how far it is, what there is of it so far, a way to stop it, and how it ended."""

import enum
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Generic, TypeVar

from marsjax.core.errors import InputError
from marsjax.sim.result import SoFar
from marsjax.sim.rollout import RolloutProgress
from marsjax.studies.progress import StoppedError, Watching

T = TypeVar("T")
_LOOK_EVERY_S = 0.4
"""Between two looks at what there is so far, which take a little time of the run."""
STOPPED = "Stopped before anything was simulated."
_BUG = "Something went wrong inside marsjax, which is a bug: the terminal of the dashboard has the details."


class Stage(enum.Enum):
    """Where a run is."""

    WAITING = enum.auto()
    """Another run has the device."""
    RUNNING = enum.auto()
    OVER = enum.auto()


class Job(Generic[T]):
    """One run; its fields may be read from any thread while it goes on.

    `said` is what it does in words, `share` how much of it is done (0 to 1), `latest` what there is of it so far.
    """

    def __init__(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """`is_wanted` is asked between two chunks: whether there is still somebody to show the result to."""
        self.said, self.share = "", 0.0
        self.latest: Any = None
        self.is_stopping = False
        self._is_wanted, self._began = is_wanted, threading.Event()
        self._future: Future[T] | None = None

    def submit(self, executor: Executor, work: Callable[["Job[T]"], T]) -> "Job[T]":
        """Puts the run into a queue; returns itself."""
        def run() -> T:
            self._began.set()
            self.check()
            return work(self)

        self._future = executor.submit(run)
        return self

    @property
    def stage(self) -> Stage:
        """Where it is."""
        if self._future is None or not (self._began.is_set() or self._future.done()):
            return Stage.WAITING
        return Stage.OVER if self._future.done() else Stage.RUNNING

    def stop(self) -> None:
        """Asks it to end after the chunk that it is in; one that waits never begins."""
        self.is_stopping = True
        if self._future is not None:
            self._future.cancel()

    def say(self, what: str, share: float = 0.0) -> None:
        """What it does now; raises StoppedError as `check`."""
        self.check()
        self.said, self.share = what, share

    def check(self) -> None:
        """StoppedError if it was asked to stop, or nobody waits for it any more."""
        if self.is_stopping or not self._is_wanted():
            raise StoppedError

    def watch(self, total: int, show: Callable[[SoFar], Any] = lambda found: found,
              on_begin: Callable[[int, int], None] = lambda first, count: None, done: int = 0, name: str = ""
              ) -> Watching:
        """What tells this job of rollouts, stops them, and puts `show` of what there is into `latest`.

        Args:
          total: starts of all of them.
          show: of what there is.
          on_begin: who else is told that rollouts begin.
          done: starts that others were done of before.
          name: what is said first.
        """
        place, looked = [0, total], [0.0]

        def begins(first: int, count: int) -> None:
            if place[0] == done + first:  # once more, in larger books: what came of them is undone
                self.latest = None
            place[:] = done + first, count
            on_begin(first, count)
            self.say(f"{name}compiling, which the first run of such sizes waits for", (done + first) / total)

        def chunk(progress: RolloutProgress) -> None:
            first, count = place
            self.share = (first + count * progress.passed) / total
            self.said = name + spoken(progress)
            if self.is_stopping or time.monotonic() - looked[0] > _LOOK_EVERY_S or progress.passed >= 1:
                self.latest = show(progress.so_far())
                looked[0] = time.monotonic()
            self.check()

        return Watching(begins, chunk)

    def outcome(self) -> tuple[T | None, str]:
        """The result of a run that is over, or None and why in one line."""
        if self._future is None:
            raise ValueError("outcome: expected a job that was submitted")
        try:
            error = self._future.exception()
        except CancelledError:
            return None, STOPPED
        if error is None:
            return self._future.result(), ""
        if isinstance(error, StoppedError):
            return None, str(error) or STOPPED
        if isinstance(error, InputError | OSError | MemoryError):
            return None, " ".join(str(error).split()) or type(error).__name__
        logging.getLogger(__name__).error("a run of the dashboard failed", exc_info=error)
        return None, _BUG


def spoken(progress: RolloutProgress) -> str:
    """How far a rollout is, in words."""
    left_s = progress.seconds * (1 - progress.passed) / max(progress.passed, 1e-9)
    speed = f"{progress.orders:,} orders, {progress.orders / max(progress.seconds, 1e-9):,.0f} a second"
    ended = f"{progress.ended:,} futures have ended"
    if progress.passed >= 1 or progress.passed < 0.01:
        return f"{speed}; {ended}"
    return f"{speed}; {ended}; about {left_s:,.0f} s left"
