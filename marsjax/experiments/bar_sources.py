"""A config of stylized facts -> minute bars: from files, from replayed days, or from rollouts of an order model."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
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
    """Stretches of real days, one after the other from the beginning of each period of continuous trading.

    With `config.trajectories`, futures of an order model from the beginnings of these stretches as well.
    """
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
    about = {"days": [source.name for source in opened]}
    if not config.trajectories:
        return Gathered(bars.join(parts), about, [])
    simulated, told, complaints = _futures_of_days(config, begins)
    return Gathered(bars.join([*parts, *simulated]), about | told, complaints)


def _futures_of_days(config: ConfigDict, begins: list[int]) -> tuple[list[MinuteBars], dict[str, Any], list[str]]:
    """Of every stretch but those that begin with the day, when there is no order to go on from."""
    spec, simulator = markets.market_spec(config), markets.load_simulator(config)
    times = [begin for begin in begins if begin > begins[0]]
    if not times:
        raise ValueError(f"config.minutes: expected stretches that begin after the first, got one of {config.minutes}")
    table = jax.tree.map(np.asarray, simulator.table)
    starts: list[start.Start] = []
    names: list[tuple[str, str]] = []
    for opened in markets.open_feeds(config, spec):
        starts += [one for one, _ in start.from_feed_at(spec, table, opened.feed, times,
                                                        simulator.model.spec.max_orders)]
        symbol, date = opened.name.split("_")
        names += [(symbol, date)] * len(times)
    runs = futures.simulate(simulator, spec, _of_horizon(config), starts)
    parts = [_bars_of(run, one, symbol, np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}", "s"),
                      config.trajectories * number)
             for number, (run, one, (symbol, date)) in enumerate(zip(runs, starts, names, strict=True))]
    told = futures.tally(runs, starts)
    return parts, {"rollouts": told, "model": markets.describe_model(simulator, config)}, futures.complaints(told)


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
    parts = [_bars_of(run, one, f"noise_{market}", _NO_DATE)
             for market, (run, one) in enumerate(zip(runs, starts, strict=True))]
    told = futures.tally(runs, starts)
    model = markets.describe_model(simulator, config)
    return Gathered(bars.join(parts), {"rollouts": told, "model": model}, futures.complaints(told))


def _of_horizon(config: ConfigDict) -> ConfigDict:
    shorter = config.copy_and_resolve_references()
    with shorter.unlocked():
        shorter.minutes, shorter.nearest_minutes = config.minutes - 1, True
    return shorter


def _bars_of(run: Rollout, begun: start.Start, symbol: str, day: np.datetime64, first: int = 0) -> MinuteBars:
    dense = run.bars
    orders = np.asarray(dense.orders)
    mid = np.divide(clock.wide_to_numpy(dense.mid_twice_sum), 2 * orders, where=orders > 0, out=np.zeros(orders.shape))
    date = day + np.timedelta64(int(bars.nearest_minute(clock.time_to_ns(begun.time))), "m")
    # A lost trajectory has no bars, so that it counts as one that is left out for good reason.
    whole = np.where(futures.is_lost(run)[:, None], 0, orders)
    priced = np.asarray(dense.priced)
    price = np.divide(clock.wide_to_numpy(dense.price_sum), priced, where=priced > 0, out=np.full(mid.shape, np.nan))
    return bars.of_rollouts(symbol, bars.SIMULATED, date, dense.price_last, price, mid,
                            np.asarray(dense.mid_twice_last) / 2, clock.wide_to_numpy(dense.volume), whole, first)


def save(bars_of: MinuteBars, folder: Path) -> None:
    """Writes bars that were made here, for `bars,file=` of a later run."""
    bars.write(folder / "bars.csv.gz", bars_of)
