"""A bar of progress for rollouts."""

from types import TracebackType

from tqdm import tqdm

from marsjax.sim.rollout import RolloutProgress


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
        self._bar.update(self._before - self._bar.n)

    def __call__(self, progress: RolloutProgress) -> None:
        """After a chunk."""
        self._bar.set_postfix_str(f"{progress.orders / max(progress.seconds, 1e-9):.0f} orders/s, "
                                  f"{progress.ended} ended")
        passed_s = int(progress.passed * self._seconds * self._count)
        self._bar.update(max(self._before + passed_s - self._bar.n, 0))
