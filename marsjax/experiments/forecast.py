"""Forecasts by rollouts of an order model; the config says from where: configs/forecast.py."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from marsjax import book as books
from marsjax.analysis import forecast, forecast_plots
from marsjax.analysis.forecast import MINUTE_NS, Distribution, History, Move
from marsjax.experiments import forecast_evaluation, futures, launcher, markets, sources
from marsjax.experiments.output import output_folder, write_json
from marsjax.experiments.trace_files import TraceFiles
from marsjax.outcome import Rollout
from marsjax.rollout import Saving
from marsjax.simulate import End
from marsjax.specs import MarketSpec
from marsjax.start import Start, from_feed_at

_UNIT = 10_000


class Begun(NamedTuple):
    """Where the trajectories start."""

    name: str
    start: Start
    time_ns: int
    past: History
    seen: History | None
    """The past and what really came; None where nothing did."""


def main(config: ConfigDict) -> int:
    """Runs a forecast, or an evaluation of many; returns 0, or NOT_WHOLE with the reasons on stderr."""
    if config.evaluate:
        return forecast_evaluation.main(config)
    began = time.perf_counter()
    market = markets.market_spec(config)
    start_ns = _check(config, market)
    with output_folder(config.output, config.overwrite) as folder:
        simulator = markets.load_simulator(config)
        print(markets.headline(simulator, config), flush=True)
        begun = _begin(config, market, simulator, start_ns)
        facts = _describe(market, begun)
        print(f"{begun.name} at {facts['time']}: mid {facts['mid'] / _UNIT:g}, {facts['bids']} bids and "
              f"{facts['asks']} asks rest, the model sees {facts['orders_seen']} orders", flush=True)
        threshold = forecast_evaluation.threshold(config, market.session, begun.past, 0, start_ns)
        prepared_s = time.perf_counter() - began
        trace = TraceFiles(folder) if config.trace else None
        saving = Saving(config.save_folder, config.save_every_s) if config.save_folder else None
        (run,) = futures.simulate(simulator, market, config, [begun.start], on_trace=trace, saving=saving)
        labels = futures.labels(run)
        result = forecast.distribution(labels, threshold, config.quantiles)
        told = futures.tally([run], [begun.start])
        _labels(run, labels).to_csv(folder / "labels.csv", index=False)
        forecast.minute_table(run.bars).to_csv(folder / "minutes.csv.gz", index=False)
        if config.picture:
            _fan(config, begun, run, folder / "fan.png")
        report = {"forecast": _spell(result), "threshold": threshold, "realized": _realized(config, begun, threshold),
                  "start": facts, "rollouts": told,
                  "seconds": {"prepared": prepared_s, "total": time.perf_counter() - began}}
        write_json(folder / "metrics.json", {**report, "model": markets.describe_model(simulator, config),
                                             **markets.environment(), "config": config})
    _print(config, result, report)
    found = futures.complaints(told)
    cut = told["exceeded"]["cut_lists"]
    if config.trace and cut:
        found.append(f"the trades of {cut} orders are cut in the trace: raise config.trade_width")
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return futures.NOT_WHOLE if found else 0


def _check(config: ConfigDict, market: MarketSpec) -> int:
    """The time of the start, nanoseconds since midnight; ValueError for a key out of range, before a file is read."""
    markets.check_rollouts(config)
    markets.whole(config, "fit_every_s", 1)
    forecast.distribution(np.zeros(1), max(config.threshold, 0.0), config.quantiles)
    if config.source == "noise":
        warmup = markets.warmup(config)
        start_ns = warmup.start_ns + warmup.duration_ns
    else:
        start_ns = sources.time_ns(config, "time")
    markets.check_time(market, start_ns, config.minutes)
    return start_ns


def _begin(config: ConfigDict, market: MarketSpec, simulator: markets.Simulator, start_ns: int) -> Begun:
    opened = markets.open_feeds(config, market)
    if len(opened) > 1:
        raise ValueError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in opened)}")
    times = [start_ns, start_ns + config.minutes * MINUTE_NS][: 1 + opened[0].is_real]
    found = list(from_feed_at(market, simulator.table, opened[0].feed, times, simulator.model.spec.max_orders))
    passed = [part for _, part in found]
    return Begun(opened[0].name, found[0][0], start_ns, forecast.history(passed[:1]),
                 forecast.history(passed) if opened[0].is_real else None)


def _describe(market: MarketSpec, begun: Begun) -> dict[str, Any]:
    view = jax.jit(books.view, static_argnums=0)(market, begun.start.market.book)
    asks, bids = (np.asarray(begun.start.market.book.volume) > 0).sum(axis=1)
    return {"market": begun.name, "time": markets.spell(begun.time_ns), "mid": int(view.mid_price_twice) / 2,
            "spread": int(view.spread), "bids": int(bids), "asks": int(asks), "orders_seen": int(begun.start.count),
            "orders_before": len(begun.past.time_ns)}


def _realized(config: ConfigDict, begun: Begun, threshold: float) -> dict[str, Any] | None:
    """What really came, or None."""
    if begun.seen is None:
        return None
    label = float(forecast.labels_of_history(begun.seen, np.array([begun.time_ns]), config.minutes * MINUTE_NS)[0])
    move = None if np.isnan(label) else Move(int(forecast.classes(np.array(label), threshold))).name
    return {"label": label, "class": move, "mids": forecast.minute_mids(begun.seen, begun.time_ns, config.minutes)}


def _labels(run: Rollout, labels: np.ndarray) -> pd.DataFrame:
    ends = np.asarray(run.simulation.end)
    return pd.DataFrame({"trajectory": np.arange(len(labels)), "label": labels,
                         "orders": np.asarray(run.bars.orders).sum(axis=1), "end": [End(end).name for end in ends]})


def _fan(config: ConfigDict, begun: Begun, run: Rollout, path: Path) -> None:
    is_shown = begun.past.time_ns > begun.time_ns - 3 * config.minutes * MINUTE_NS
    since = (begun.past.time_ns[is_shown] - begun.time_ns) / MINUTE_NS
    before = np.where(begun.past.mid_twice[is_shown] > 0, begun.past.mid_twice[is_shown] / 2, np.nan)
    ahead = forecast.mids_of_bars(run.bars, run.mid_twice_start)[~futures.is_lost(run)]
    came = None if begun.seen is None else forecast.minute_mids(begun.seen, begun.time_ns, config.minutes)
    title = f"{begun.name} from {markets.spell(begun.time_ns)}, order model {Path(config.model).name}"
    forecast_plots.fan(since, before, ahead, came, title).savefig(path, dpi=110)


def _spell(result: Distribution) -> dict[str, Any]:
    names = [move.name.lower() for move in Move]
    return dataclasses.asdict(result) | {"counts": dict(zip(names, result.counts, strict=True)),
                                         "probabilities": dict(zip(names, result.probabilities, strict=True))}


def _print(config: ConfigDict, result: Distribution, report: dict[str, Any]) -> None:
    told, seconds, realized = report["rollouts"], report["seconds"], report["realized"]
    print(f"{result.count} labels ({result.without} trajectories without one): mean {result.mean * 1e4:+.3f} bp, "
          f"standard deviation {result.standard_deviation * 1e4:.3f} bp; quantiles in bp: "
          + ", ".join(f"{level:.0%} {value * 1e4:+.3f}" for level, value in result.quantiles.items()))
    print(", ".join(f"P({move.name.lower()}) {p:.3f}" for move, p in zip(Move, result.probabilities, strict=True))
          + f" by a threshold of {report['threshold'] * 1e4:.3f} bp")
    if realized:
        label = "none, no order came" if realized["class"] is None else (f"{realized['label'] * 1e4:+.3f} bp, "
                                                                          f"{realized['class'].lower()}")
        print(f"what came: {label}")
    print(f"{told['trajectories']} trajectories: {told['orders']} orders, rejected {told['rejected'] or 0}, ended "
          f"{told['ended']}, lost {told['lost']}; {told['orders_per_s']} orders/s ({told['run_s']} s, compiled in "
          f"{told['compile_s']} s, {seconds['total']:.1f} s in all); results in {config.output}")


if __name__ == "__main__":
    launcher.run("forecast", main)
