"""A config of stylized facts -> minute bars: from files, from replayed days, or from rollouts of an order model."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from marsjax import clock, replay, start
from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import bars, rollout_info
from marsjax.analysis.bars import MINUTE_NS, MinuteBars, Trace
from marsjax.experiments import futures, markets, sources
from marsjax.outcome import Rollout
from marsjax.specs import SECOND_NS, Phase

_NO_DATE = np.datetime64("1970-01-01", "s")
"""Of the noise agent, which lives on no day."""


class Gathered(NamedTuple):
    """Bars, and how they came about."""

    bars: MinuteBars
    about: dict[str, Any]
    """For verdicts.json."""
    complaints: list[str]
    """Why they are not the whole of what was asked for."""


def gather(config: ConfigDict) -> Gathered:
    """The bars that a config names; ValueError or OSError where there are none."""
    readers = {"bars": _files, "rollout_info": _archive, "sse": replayed_bars, "noise": simulated_bars}
    if config.source not in readers:
        raise ValueError(f"config.source: expected {', '.join(readers)}, got {config.source!r}")
    return readers[config.source](config)


def _paths(config: ConfigDict) -> list[str]:
    if not config.file:
        raise ValueError(f"config.file: expected a path, or several joined by + ({config.source},file=PATH), got ''")
    return config.file.split("+")


def _files(config: ConfigDict) -> Gathered:
    parts = {path: bars.read(path) for path in _paths(config)}
    return Gathered(bars.join(list(parts.values())), {"rows": {path: len(part) for path, part in parts.items()}}, [])


def _archive(config: ConfigDict) -> Gathered:
    parts, empty = [], 0
    for path in _paths(config):
        found, without = rollout_info.read(path, config.pickle_module)
        parts.append(found)
        empty += without
    complaints = [f"{empty} entries of the archive are empty, not part of any number"] if empty else []
    return Gathered(bars.join(parts), {"empty_entries": empty}, complaints)


def replayed_bars(config: ConfigDict) -> Gathered:
    """Stretches of real days, one after the other from the beginning of each period of continuous trading."""
    spec = sources.market_spec(config)
    opened = sources.open_sources(config, spec)
    length_ns = (config.minutes - 1) * MINUTE_NS
    traces: list[list[Trace]] = [[] for _ in opened]
    for event in replay.replay(spec, [source.feed for source in opened], chunk_orders=config.chunk_orders):
        if isinstance(event, replay.Stretch) and event.views is not None:
            traces[event.market].append(bars.trace(event.orders, event.reports, event.views))
    begins = [begin for period in spec.session.periods if period.phase == Phase.CONTINUOUS
              for begin in range(period.start_ns, period.end_ns + 1 - length_ns, length_ns)]
    parts = []
    for source, trace in zip(opened, traces, strict=True):
        symbol, date = source.name.split("_")
        parts += [bars.of_traces(trace, date, symbol, rollout=number, from_ns=begin, until_ns=begin + length_ns)
                  for number, begin in enumerate(begins)] if trace else []
    return Gathered(bars.join(parts), {"days": [source.name for source in opened]}, [])


def simulated_bars(config: ConfigDict) -> Gathered:
    """Rollouts of an order model from noise markets, each market a symbol of its own."""
    spec, simulator = markets.market_spec(config), markets.load_simulator(config)
    agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
    warmup = markets.warmup(config)
    _, sent = start.noise(spec, agent, warmup, config.noise_seed, markets.whole(config, "markets", 1))
    starts = [start.from_feed(spec, simulator.table, iter([sources.as_chunk(orders)]),
                              warmup.start_ns + warmup.duration_ns, simulator.model.spec.max_orders) for orders in sent]
    # Times are rounded to minutes, the first of which is half as long: one minute less to simulate than bars.
    runs = futures.simulate(simulator, spec, _of_horizon(config), starts)
    parts = [_bars_of(run, one, f"noise_{market}") for market, (run, one) in enumerate(zip(runs, starts, strict=True))]
    told = futures.tally(runs, starts)
    model = markets.describe_model(simulator, config)
    return Gathered(bars.join(parts), {"rollouts": told, "model": model}, futures.complaints(told))


def _of_horizon(config: ConfigDict) -> ConfigDict:
    shorter = config.copy_and_resolve_references()
    with shorter.unlocked():
        shorter.minutes, shorter.nearest_minutes = config.minutes - 1, True
    return shorter


def _bars_of(run: Rollout, begun: start.Start, symbol: str) -> MinuteBars:
    dense = run.bars
    orders = np.asarray(dense.orders)
    mid = np.divide(clock.wide_to_numpy(dense.mid_twice_sum), 2 * orders, where=orders > 0, out=np.zeros(orders.shape))
    date = _NO_DATE + np.timedelta64(int(bars.nearest_minute(clock.time_to_ns(begun.time))), "m")
    # A lost trajectory has no bars, so that it counts as one that is left out for good reason.
    whole = np.where(futures.is_lost(run)[:, None], 0, orders)
    priced = np.asarray(dense.priced)
    price = np.divide(clock.wide_to_numpy(dense.price_sum), priced, where=priced > 0, out=np.full(mid.shape, np.nan))
    return bars.of_rollouts(symbol, bars.SIMULATED, date, dense.price_last, price, mid,
                            np.asarray(dense.mid_twice_last) / 2, clock.wide_to_numpy(dense.volume), whole)


def save(bars_of: MinuteBars, folder: Path) -> None:
    """Writes bars that were made here, for `bars,file=` of a later run."""
    bars.write(folder / "bars.csv.gz", bars_of)
