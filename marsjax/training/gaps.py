"""What futures of a model are compared with: real states, what came after them, and how far apart the two are."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.specs import TokenSpec
from marsjax.sim.initial import Start
from marsjax.tokens import encoding
from marsjax.training import statistics

_LEAST_SPREAD = 0.05
"""Of a statistic between starts, of its mean."""


class Beginning(NamedTuple):
    """A real state, and what came."""

    market: str
    """Which stock; a mirror image counts as the same."""
    start: Start
    after: np.ndarray
    """int32 [N, C], the tokens that came, up to the end of the period of trading or of what is known."""
    until_ns: int
    """When futures end: the end of that period, nanoseconds since midnight."""


class Targets(NamedTuple):
    """What futures are compared with; S starts, G markets, K statistics, J columns of `statistics.of_history`."""

    starts: Start
    """[S, ...], NumPy."""
    windows: np.ndarray
    """int32 [S, W, C], tokens before."""
    market: np.ndarray
    """int [S], below G."""
    came: np.ndarray
    """int [S], orders that came."""
    mean: np.ndarray
    """[S, K], of what came."""
    history: np.ndarray
    """[S, J], by market with mean 0 and standard deviation 1 but for the first, which is 1."""
    until_ns: np.ndarray
    """int64 [S], when futures end."""
    spread: np.ndarray
    """[G, K], standard deviation of `mean` between the starts of a market."""


def targets(spec: TokenSpec, orders: int, beginnings: Sequence[Beginning]) -> Targets:
    """What came after real states, `orders` at most each.

    InputError without tokens before or after a state, or where a market has fewer than two.
    """
    statistics.check(spec)
    names = sorted({one.market for one in beginnings})
    for name in names:
        if (found_of := sum(one.market == name for one in beginnings)) < 2:
            raise InputError(f"own futures: expected at least 2 starts of {name}, got {found_of}")
    width = beginnings[0].start.window.kind.shape[-1]
    for one in beginnings:
        if int(one.start.count) < width or not len(one.after):
            raise InputError(f"own futures: a start of {one.market} has {int(one.start.count)} orders before it and "
                             f"{len(one.after)} after: expected {width} and at least 1")
    market = np.array([names.index(one.market) for one in beginnings])
    count = np.array([min(len(one.after), orders) for one in beginnings])
    windows = np.stack([np.asarray(encoding.to_array(spec, one.start.window)) for one in beginnings])
    after = np.stack([np.pad(one.after[: orders], ((0, orders - n), (0, 0)))
                      for one, n in zip(beginnings, count, strict=True)])
    found = statistics.means(statistics.of_tokens(spec, np.concatenate([windows, after], axis=1), width), count)
    found[:, np.array(statistics.SIGNED)] = 0
    history, spread = statistics.of_history(spec, windows), np.zeros((len(names), found.shape[1]))
    for number in range(len(names)):
        here = market == number
        size = np.maximum(found[here].std(axis=0), _LEAST_SPREAD * np.abs(found[here]).mean(axis=0))
        # Of the direction the real mean is not known: its unit is that of the windows before.
        before = np.asarray(statistics.of_tokens(spec, windows[here], 0)).mean(axis=1).std(axis=0)
        spread[number] = np.where(statistics.SIGNED, before, size) + 1e-3
        history[here, 1:] = _standard(history[here, 1:])
    starts = jax.tree.map(lambda *x: np.stack([np.asarray(leaf) for leaf in x]), *(one.start for one in beginnings))
    until_ns = np.array([one.until_ns for one in beginnings], np.int64)
    return Targets(starts, windows.astype(np.int32), market, count, found, history, until_ns, spread)


def _standard(x: np.ndarray) -> np.ndarray:
    return np.asarray((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6))


def gaps(of: Targets, chosen: np.ndarray, means: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """How far futures are from what came, [G, J, K]: `gap` in `training.own_futures`.

    Args:
      of: what came.
      chosen: int [B], the starts of the futures.
      means: [B, K], of their statistics.
      orders: int [B], of which so many orders; they weigh the futures.

    0 where a history does not matter to a statistic (`statistics.matters`), and for markets without a future.
    """
    found = np.zeros((len(of.spread), of.history.shape[1], means.shape[1]))
    for number in np.unique(of.market[chosen]):
        here = of.market[chosen] == number
        apart = (means[here] - of.mean[chosen[here]]) / of.spread[number] * orders[here, None]
        found[number] = of.history[chosen[here]].T @ apart / max(orders[here].sum(), 1)
    return found * statistics.matters()
