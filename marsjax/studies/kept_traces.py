"""The orders, trades and books of some futures, kept while these are made."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import pandas as pd

from marsjax.core.specs import MarketSpec
from marsjax.observers import trace_tables
from marsjax.observers.market_tables import CURRENCY, Table
from marsjax.observers.trace import Log
from marsjax.sim import frames
from marsjax.sim.result import BACKGROUND, Trace


class KeptTraces:
    """Keeps the events of chosen trajectories: give its `begin` and itself to `futures.simulate`.

    Its tables need events: look at `trajectories` first.
    """

    def __init__(self, market: MarketSpec, trajectories: Sequence[int], agents: Sequence[str] = ()) -> None:
        """Of a market in which agents of these names trade beside the order model."""
        self._market, self._wanted, self._names = market, np.array(sorted(trajectories), int), (BACKGROUND, *agents)
        self._chunks: list[tuple[np.ndarray, Log]] = []
        self.dropped = 0
        """Events that found no room in the trace."""

    def begin(self, first: int, count: int) -> None:
        """Futures of one start begin (`progress.Watching.on_begin`): what was kept in books too small is gone."""
        del count
        if first == 0:
            self._chunks, self.dropped = [], 0

    def __call__(self, who: np.ndarray, log: Log) -> None:
        """The events of a chunk (`futures.OnTrace`)."""
        rows = np.flatnonzero(np.isin(who, self._wanted))
        if len(rows):
            self._chunks.append((who[rows], jax.tree.map(lambda x: np.asarray(x)[rows], log)))
            self.dropped += int(np.sum(np.asarray(log.dropped)[rows]))

    def trajectories(self) -> list[int]:
        """Those of which there are events."""
        found = [who[np.asarray(log.count) > 0] for who, log in self._chunks]
        return sorted({int(each) for part in found for each in part})

    def orders(self, prices: str = CURRENCY) -> pd.DataFrame:
        """As `Rollout.orders`."""
        return frames.orders(self._market, self._names, trace_tables.shown(self._table(trace_tables.orders)), prices)

    def trades(self, prices: str = CURRENCY) -> pd.DataFrame:
        """As `Rollout.trades`."""
        return frames.trades(self._market, self._table(trace_tables.trades), prices)

    def depth(self, trajectory: int, prices: str = CURRENCY) -> pd.DataFrame:
        """As `Rollout.depth`, of one of the trajectories."""
        chunks = [(who, log) for who, log in self._chunks if trajectory in who]
        of, views = Trace(tuple(chunks), missing="").views()
        rows = np.flatnonzero(of["trajectory"] == trajectory)
        of, views = jax.tree.map(lambda x: x[rows], (of, views))
        return frames.depth(self._market, of, views, prices)

    def _table(self, make: Callable[[Log, np.ndarray], Table]) -> Table:
        return frames.together([make(log, who) for who, log in self._chunks], "trajectory", "i")
