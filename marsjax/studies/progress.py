"""What is shown of rollouts while they run: a bar of progress, and whoever else watches them."""

import dataclasses
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

from marsjax.sim.checks import Memory
from marsjax.sim.rollout import RolloutProgress


class StoppedError(Exception):
    """Raised by who watches rollouts, to end them between two chunks."""


@dataclasses.dataclass(frozen=True)
class Watching:
    """Who is told of futures while they are made; what one of them raises ends these (`StoppedError`, say)."""

    on_begin: Callable[[int, int], None] | None = None
    """Called with (first, count): futures of so many starts, from a number on, begin; once more where a book of theirs
    was too small, which undoes what came of them."""
    on_chunk: Callable[[RolloutProgress], None] | None = None
    """After each chunk; its numbers are of the futures that have begun last."""
    on_memory: Callable[[Memory], None] | None = None
    """Once all is compiled, before anything runs."""

    def begin(self, first: int, count: int) -> None:
        """Calls `on_begin`, if it is there."""
        if self.on_begin:
            self.on_begin(first, count)

    def with_bar(self, bar: Callable[[RolloutProgress], None]) -> Callable[[RolloutProgress], None]:
        """What tells a bar, and then `on_chunk`."""
        on_chunk = self.on_chunk
        if on_chunk is None:
            return bar

        def both(progress: RolloutProgress) -> None:
            bar(progress)
            on_chunk(progress)

        return both


NOBODY_WATCHES = Watching()


class FuturesProgress:
    """A bar of simulated seconds a trajectory, with the speed and how many have ended; a context manager."""

    def __init__(self, starts: int, minutes: int) -> None:
        self._seconds, self._before, self._count = minutes * 60, 0, 0
        self._bar = tqdm(total=starts * minutes * 60, unit="s", desc="simulated", disable=None)

    def __enter__(self) -> "FuturesProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._bar.close()

    def begin(self, first: int, count: int) -> None:
        """`count` starts come now, from number `first` on; those before are done."""
        self._before, self._count = first * self._seconds, count
        self._bar.set_description("compiling, half a minute or so the first time")
        self._bar.update(self._before - self._bar.n)

    def __call__(self, progress: RolloutProgress) -> None:
        """After a chunk."""
        self._bar.set_description("simulated", refresh=False)
        self._bar.set_postfix_str(f"{progress.orders / max(progress.seconds, 1e-9):.0f} orders/s, "
                                  f"{progress.ended} ended")
        passed_s = int(progress.passed * self._seconds * self._count)
        self._bar.update(max(self._before + passed_s - self._bar.n, 0))
