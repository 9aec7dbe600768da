"""A study of market impact that still runs, cut to the minutes that its rollouts have simulated."""

import dataclasses

import numpy as np

from marsjax.analysis.impact import Runs


def first_minutes(runs: Runs, minutes: int) -> Runs:
    """Rollouts up to a minute."""
    return dataclasses.replace(runs, mids=runs.mids[:, : minutes + 1], volume=runs.volume[:, :minutes],
                               shares=runs.shares[:, :minutes], cash=runs.cash[:, :minutes])


def _reached(passed_minutes: np.ndarray) -> int:
    """The last whole minute that half of the rollouts have come to."""
    return int(np.median(passed_minutes))


def so_far(baselines: Runs, executed: Runs, passed_minutes: np.ndarray, end: int) -> tuple[Runs, Runs, int] | None:
    """Markets without and with an execution up to the minute that may be shown, and where the execution ends by then.

    Of sizes of which fewer than half of the rollouts have come a minute far there is nothing; of the others those that
    have come to the last minute that half of them have. None where no size is left.

    Args:
      baselines: [2 K], all of them whole.
      executed: [B].
      passed_minutes: float [B], of the executions.
      end: minute at which they end.
    """
    size = executed.sign * executed.ratio
    by_size = {each: _reached(passed_minutes[size == each]) for each in np.unique(size).tolist()}
    shown = {each: minute for each, minute in by_size.items() if minute}
    if not shown:
        return None
    minutes = min(shown.values())
    there = executed.where(np.isin(size, list(shown)) & (passed_minutes >= minutes))
    return first_minutes(baselines, minutes), first_minutes(there, minutes), min(end, minutes)
