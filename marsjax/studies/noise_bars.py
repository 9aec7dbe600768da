"""Minute bars of noise markets, added up on the device while the agent trades."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from marsjax.analysis import bars
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.observers.bars import Bars, MinuteBarObserver
from marsjax.sim import initial
from marsjax.sim.initial import NoiseRun, WakeUp
from marsjax.studies.starts import NoiseMarket


@dataclasses.dataclass(frozen=True)
class NoiseBarObserver:
    """Adds the wake-ups of the noise agent to their minutes; hashable, since compiled calls are keyed by it."""

    market: MarketSpec
    noise: NoiseMarket

    @property
    def _observer(self) -> MinuteBarObserver:
        ends = bars.nearest_minute(np.array([self.noise.warmup.start_ns, self.noise.end_ns]))
        return MinuteBarObserver(int(ends[1] - ends[0]) + 1, nearest=True)

    def none(self) -> Bars:
        """No orders yet."""
        market = exchange.open_market(self.market)
        view = books.view(self.market, market.book)
        return self._observer.begin(market, view, times.of_ns(self.noise.warmup.start_ns))

    def __call__(self, kept: Bars, made: WakeUp) -> Bars:
        """Adds a wake-up."""
        before, after = (books.view(self.market, book) for book in (made.before, made.after))
        return self._observer.update(kept, dataclasses.replace(made.event, before=before, view=after))


def run(market: MarketSpec, noise: NoiseMarket, count: int, on_call: Callable[[int], None] | None = None
        ) -> NoiseRun[Bars]:
    """`count` noise markets and their bars [count, M]; `on_call` as in `initial.noise_observed`."""
    observer = NoiseBarObserver(market, noise)
    return initial.noise_observed(market, noise.agent, noise.warmup, noise.seed, count, observer, observer.none(),
                                  on_call)


def as_table(kept: Bars, noise: NoiseMarket, date: str, symbol: str, source: str) -> bars.MinuteBars:
    """Bars [B, M] as a table; `date` is like 2024-03-06, symbol and source are what the file calls them."""
    kept = jax.tree.map(np.asarray, kept)
    minute = int(bars.nearest_minute(np.array([noise.warmup.start_ns]))[0])
    begins = np.datetime64(date, "s") + np.timedelta64(minute, "m")
    return bars.of_dense(symbol, source, begins, kept)


def mids(kept: Bars) -> np.ndarray:
    """The mids [B, M] at the ends of minutes, 1e-4 of the currency; NaN in a minute without an order."""
    return np.where(np.asarray(kept.orders) > 0, np.asarray(kept.mid_twice_last) / 2, np.nan)
