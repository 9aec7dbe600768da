"""What controlled futures came from, and what they came to."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from marsjax.observers.features import Features
from marsjax.observers.trace import Log
from marsjax.sim import outcomes
from marsjax.sim.control.leading import Led
from marsjax.sim.result import Rollout, Trace
from marsjax.sim.state import LOST


@dataclasses.dataclass(frozen=True, eq=False)
class ControlledRollout:
    """Futures under control; I intervals of B trajectories in islands.

    All trajectories of the result have the same weight. What is said of a trajectory, its bars, accounts and orders
    among it, is of its whole past, whatever places that was at.
    """

    rollout: Rollout
    features: Features
    """NumPy float32 [I, B], of the trajectories that are left; nothing happens in intervals after the end of one."""
    ancestors: np.ndarray
    """int32 [I, B], the place among the B that what goes on at a place after an interval was at before."""
    ess: np.ndarray
    """float32 [I, islands], effective sample size over the trajectories of an island, before it was resampled; NaN of
    intervals that begin at the end of its time or later, which are not looked at. 1 where none is resampled."""
    distinct: np.ndarray
    """int32 [I, islands], trajectories of the start that still have descendants."""
    resampled: np.ndarray
    """bool [I, islands]."""
    log_evidence: np.ndarray
    """float32 [islands], the log of the mean weight of futures that are left alone, as the island estimates it: how
    much of what the model writes by itself fits the guide. 0: all of it. Of futures that are led and resampled (`both`)
    it is of the law as it is changed, which is not the model's; NaN of those that are led alone, which no weights are
    given to."""
    every_s: int
    """Seconds of an interval."""
    decisions: int
    """That were simulated, those of trajectories that were written over among them."""
    full_books: int
    """Places at which a trajectory was in whose book a side had been full, one that was written over or not."""
    led: Led | None = None
    """NumPy arrays [I, B, ...], what the trajectories that are left were told of each interval, beside `features`, what
    they then did; None where nothing was told. NaN, and codes without meaning, in intervals after the end of one, and
    where the guide wanted nothing of one."""

    @property
    def kept_features(self) -> Features:
        """The features of those that are not lost (`sim.state.LOST`), float32 [I, kept]: what futures usually do."""
        kept = ~np.isin(np.asarray(self.rollout.state.end), LOST)
        found: Features = jax.tree.map(lambda x: x[:, kept], self.features)
        return found

    @classmethod
    def of(cls, rollout: Rollout, looks: Any, ancestors: np.ndarray, counts: tuple[int, int, int], led: Any
           ) -> "ControlledRollout":
        """From a rollout, and the looks at it and what was told (or None), with an axis of I intervals in front.

        `counts` are `every_s`, `decisions` and `full_books`.
        """
        islands = looks.ess.shape[1]
        at = places(ancestors)
        features, led = jax.tree.map(lambda x: x[np.arange(len(at))[:, None], at], (looks.seen, led))
        return cls(rollout, features, ancestors, looks.ess, distinct(ancestors, islands), looks.resampled,
                   looks.log_mean_weight.sum(axis=0), *counts, led)


def of_islands(source: np.ndarray, islands: int) -> np.ndarray:
    """Places among all, int32 [I, B], of those within islands."""
    batch = source.shape[1]
    first = np.arange(batch) // (batch // islands) * (batch // islands)
    return np.asarray(source + first, np.int32)


def together(looks: Any, island: int) -> Any:
    """Looks [I, B] at trajectories that are islands of their own, as none is resampled, by islands of `island`.

    All are one where it is 0, or they make no whole islands.
    """
    intervals, batch = looks.ess.shape
    size = island if island and batch % island == 0 else batch
    ess, resampled, mean = (x.reshape(intervals, batch // size, size) for x in (
        looks.ess, looks.resampled, looks.log_mean_weight))
    return looks._replace(ess=np.fmax.reduce(ess, axis=-1), resampled=resampled.any(axis=-1),
                          log_mean_weight=mean.max(axis=-1))


def places(ancestors: np.ndarray) -> np.ndarray:
    """int [I, B], the place at which each of the trajectories that are left was in each interval.

    Examples:
      >>> places(np.array([[0, 0, 2], [0, 1, 1]])).tolist()
      [[0, 0, 0], [0, 1, 1]]
    """
    found = np.empty(ancestors.shape, np.int64)
    at = np.arange(ancestors.shape[1])
    for interval in range(len(ancestors) - 1, -1, -1):
        at = ancestors[interval][at]
        found[interval] = at
    return found


def distinct(ancestors: np.ndarray, islands: int) -> np.ndarray:
    """int32 [I, islands], how many of the first places the trajectories at the end of each interval come from.

    Examples:
      >>> distinct(np.array([[0, 0, 2, 3], [1, 1, 2, 3]]), islands=2).tolist()
      [[1, 2], [1, 2]]
    """
    first, counts = np.arange(ancestors.shape[1]), []
    for of_interval in ancestors:
        first = first[of_interval]
        counts.append([len(np.unique(part)) for part in np.split(first, islands)])
    return np.array(counts, np.int32)


def of_chunks(chunks: Iterable[tuple[np.ndarray, Log]], at: np.ndarray) -> Iterator[tuple[np.ndarray, Log]]:
    """Chunks of events by place as those of the trajectories that are left, which were at places `at` [chunks, B]."""
    for (who, log), rows in zip(chunks, at, strict=True):
        yield np.arange(len(who)), jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], log)


def of_trace(trace: Trace, at: np.ndarray) -> Trace:
    """`of_chunks` of a whole trace, which lacks what the trajectories that are left lack."""
    if not trace.chunks:
        return trace
    missing = outcomes.without_room(dropped(trace.chunks, at))
    return dataclasses.replace(trace, chunks=tuple(of_chunks(trace.chunks, at)), missing=missing)


def dropped(chunks: Sequence[tuple[np.ndarray, Log]], at: np.ndarray) -> np.ndarray:
    """Events of the trajectories that are left that found no room in chunks by place, int32 [B]; `at` [chunks, B]."""
    found = np.zeros(at.shape[1], np.int32)
    for (_, log), rows in zip(chunks, at, strict=bool(chunks)):
        found += np.asarray(log.dropped)[rows]
    return found
