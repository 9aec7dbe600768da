"""Forecasts from many times of real days against what came, beside forecasts that need no model."""

import dataclasses
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import forecast, forecast_baselines, forecast_plots, forecast_scores
from marsjax.analysis.forecast import MINUTE_NS, Distribution, History, Move
from marsjax.analysis.forecast_scores import Mean
from marsjax.experiments import futures, markets
from marsjax.experiments.output import output_folder, write_json
from marsjax.specs import SECOND_NS, MarketSpec, Phase, Session
from marsjax.start import Start, from_feed_at

MODEL = "order model"
_CLASSES = [move.name.lower() for move in Move]


class Method(NamedTuple):
    """Forecasts of K starts."""

    probabilities: np.ndarray
    """float64 [K, 3]."""
    label: np.ndarray
    """float64 [K]."""


class Day(NamedTuple):
    """The starts of one day, and what came."""

    name: str
    starts: list[Start]
    times_ns: np.ndarray
    """int64 [K]."""
    seen: History
    realized: np.ndarray
    """float64 [K]."""
    threshold: float
    fit_ns: np.ndarray
    """int64 [N], times whose labels end before the first start."""


def main(config: ConfigDict) -> int:
    """Evaluates; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    market = markets.market_spec(config)
    _check(config)
    fit, judged = split(start_times(config, market.session), config.fit_fraction)
    with output_folder(config.output, config.overwrite) as folder:
        simulator = markets.load_simulator(config)
        print(markets.headline(simulator, config), flush=True)
        tables: list[pd.DataFrame] = []
        told: dict[str, dict[str, Any]] = {}
        found: list[str] = []
        for opened in markets.open_feeds(config, market):
            day = _read(config, market, simulator, opened, fit, judged)
            print(f"{day.name}: {len(judged)} starts from {markets.spell(judged[0])} on, threshold "
                  f"{day.threshold * 1e4:.3f} bp by {len(day.fit_ns)} labels before it", flush=True)
            runs = futures.simulate(simulator, market, config, day.starts, first=len(told) * len(judged))
            told[day.name] = futures.tally(runs, day.starts)
            found += [f"{day.name}: {complaint}" for complaint in futures.complaints(told[day.name])]
            forecasts = [forecast.distribution(futures.labels(run), day.threshold, config.quantiles) for run in runs]
            tables.append(_table(config, day, forecasts))
        table = pd.concat(tables, ignore_index=True)
        report = scores(table, config.quantiles, config.probability_edges, overlap(config))
        table.to_csv(folder / "evaluation.csv", index=False)
        if config.picture:
            _picture(table, report, config).savefig(folder / "evaluation.png", dpi=110)
        write_json(folder / "metrics.json", {
            "scores": report, "rollouts": told, "seconds": round(time.perf_counter() - began, 3),
            "model": markets.describe_model(simulator, config), **markets.environment(), "config": config})
    print(_spell(report))
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return futures.NOT_WHOLE if found else 0


def _check(config: ConfigDict) -> None:
    if config.source == "noise":
        raise ValueError("config.evaluate: expected real days (forecast.py:sse,evaluate), got config.source='noise'")
    markets.check_rollouts(config)
    for key in ("fit_every_s", "every_minutes", "first_minute"):
        markets.whole(config, key, 1)
    if not 0 < config.fit_fraction < 1:
        raise ValueError(f"config.fit_fraction: expected a fraction between 0 and 1, got {config.fit_fraction}")
    forecast.distribution(np.zeros(1), max(config.threshold, 0.0), config.quantiles)
    forecast_scores.reliability(np.zeros(0), np.zeros(0), config.probability_edges)


def start_times(config: ConfigDict, session: Session) -> list[int]:
    """Times every `config.every_minutes` whose horizon ends in their own period of continuous trading."""
    found: list[int] = []
    wait = config.first_minute
    for period in (period for period in session.periods if period.phase == Phase.CONTINUOUS):
        found += range(period.start_ns + wait * MINUTE_NS, period.end_ns - config.minutes * MINUTE_NS + 1,
                       config.every_minutes * MINUTE_NS)
        wait = config.every_minutes
    if len(found) < 2:
        raise ValueError(f"config.first_minute, every_minutes, minutes: expected at least 2 starts in the session, "
                         f"got {len(found)}")
    return found


def split(times_ns: list[int], fraction: float) -> tuple[list[int], list[int]]:
    """The first part of the starts, for fitting, and the rest; at least one each."""
    count = min(max(round(len(times_ns) * fraction), 1), len(times_ns) - 1)
    return times_ns[:count], times_ns[count:]


def overlap(config: ConfigDict) -> int:
    """Starts whose horizons reach into that of one start, on one side."""
    return -(-config.minutes // config.every_minutes) - 1


def past_times(session: Session, first_ns: int, end_ns: int, step_s: int, minutes: int) -> np.ndarray:
    """Times from `first_ns` on whose horizon of `minutes` is over at `end_ns`, and lies in one period, int64 [N]."""
    horizon_ns = minutes * MINUTE_NS
    found = [np.arange(max(period.start_ns, first_ns), min(period.end_ns, end_ns) - horizon_ns + 1,
                       step_s * SECOND_NS, dtype=np.int64)
             for period in session.periods if period.phase == Phase.CONTINUOUS]
    return np.concatenate(found)


def threshold(config: ConfigDict, session: Session, seen: History, first_ns: int, end_ns: int) -> float:
    """`config.threshold`, or if that is below 0 the one that calls a third of the labels before `end_ns` flat."""
    if config.threshold >= 0:
        return float(config.threshold)
    at = past_times(session, first_ns, end_ns, config.fit_every_s, config.minutes)
    try:
        return forecast.balanced_threshold(forecast.labels_of_history(seen, at, config.minutes * MINUTE_NS))
    except ValueError as error:
        raise ValueError(f"config.threshold: {error}") from error


def _read(config: ConfigDict, market: MarketSpec, simulator: markets.Simulator, opened: markets.Opened,
          fit: list[int], judged: list[int]) -> Day:
    """One pass over a day."""
    last_ns = judged[-1] + config.minutes * MINUTE_NS
    found = list(from_feed_at(market, simulator.table, opened.feed, [*judged, last_ns],
                              simulator.model.spec.max_orders))
    seen = forecast.history([passed for _, passed in found])
    at = np.array(judged, np.int64)
    return Day(opened.name, [one for one, _ in found[:-1]], at, seen,
               forecast.labels_of_history(seen, at, config.minutes * MINUTE_NS),
               threshold(config, market.session, seen, fit[0], judged[0]),
               past_times(market.session, fit[0], judged[0], config.fit_every_s, config.minutes))


def _table(config: ConfigDict, day: Day, forecasts: list[Distribution]) -> pd.DataFrame:
    """A row a start: what came, and every method's forecast."""
    has_label = ~np.isnan(day.realized)
    came = np.full(len(day.realized), -1)
    came[has_label] = forecast.classes(day.realized[has_label], day.threshold)
    table = pd.DataFrame({
        "market": day.name, "time": [markets.spell(int(ns)) for ns in day.times_ns], "threshold": day.threshold,
        "realized": day.realized, "class": ["" if move < 0 else _CLASSES[move] for move in came],
        "with_label": [each.count for each in forecasts], "without_label": [each.without for each in forecasts]})
    for level in config.quantiles:
        table[f"quantile_{level:g}"] = [each.quantiles[level] for each in forecasts]
    for name, method in _methods(config, day, forecasts).items():
        for move in Move:
            table[f"{name}: {_CLASSES[move]}"] = method.probabilities[:, move]
        table[f"{name}: label"] = method.label
    return table


def _methods(config: ConfigDict, day: Day, forecasts: list[Distribution]) -> dict[str, Method]:
    """The order model's forecasts and the baselines', which are fitted on labels that end before the first start."""
    past = forecast.labels_of_history(day.seen, day.fit_ns, config.minutes * MINUTE_NS)
    at, past = day.fit_ns[~np.isnan(past)], past[~np.isnan(past)]
    if not len(past):
        raise ValueError(f"{day.name}: expected labels before the first start to fit on, got none: raise "
                         "config.fit_fraction")
    was = forecast.classes(past, day.threshold)
    counts = np.bincount(was, minlength=len(Move))
    mean_of = np.bincount(was, past, minlength=len(Move)) / np.maximum(counts, 1)
    logistic = forecast_baselines.fit(forecast_baselines.features(day.seen, at), was)
    by_book = logistic.probabilities(forecast_baselines.features(day.seen, day.times_ns))
    starts = len(forecasts)
    flat = forecast_baselines.no_change(starts, config.trajectories)
    return {
        MODEL: Method(forecast_scores.smoothed(np.array([each.counts for each in forecasts])),
                      np.array([each.mean for each in forecasts])),
        "no change": Method(forecast_scores.smoothed(flat), np.zeros(starts)),
        "class frequencies": Method(np.tile(forecast_scores.smoothed(counts), (starts, 1)),
                                    np.full(starts, past.mean())),
        "logistic regression": Method(by_book, by_book @ mean_of)}


def scores(table: pd.DataFrame, quantiles: tuple[float, ...], edges: tuple[float, ...], overlap: int
           ) -> dict[str, Any]:
    """Every method's scores, and the order model's less theirs, over the starts that have both labels."""
    kept = table[(table["class"] != "") & (table["with_label"] > 0)]
    if kept.empty:
        raise ValueError("evaluation: no start has both a realized label and one of the trajectories")
    realized = kept["realized"].to_numpy()
    came = np.array([_CLASSES.index(name) for name in kept["class"]])
    names = [column.removesuffix(": label") for column in map(str, kept) if column.endswith(": label")]
    each: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        p = kept[[f"{name}: {move}" for move in _CLASSES]].to_numpy()
        each[name] = {"accuracy": forecast_scores.hits(p, came), "log_score": forecast_scores.log_scores(p, came),
                      "squared_error": (kept[f"{name}: label"].to_numpy() - realized) ** 2}

    def summed(kind: dict[str, np.ndarray]) -> dict[str, Mean]:
        return {key: forecast_scores.mean(values, overlap) for key, values in kind.items()}

    methods = {name: summed(kind) | {"rmse": forecast_scores.root(summed(kind)["squared_error"])}
               for name, kind in each.items()}
    better = {name: summed({key: each[MODEL][key] - kind[key] for key in kind})
              for name, kind in each.items() if name != MODEL}
    p_up = kept[f"{MODEL}: up"].to_numpy()
    at = kept[[f"quantile_{level:g}" for level in quantiles]].to_numpy()
    return {
        "starts": len(kept), "without_realized_label": int((table["class"] == "").sum()),
        "without_forecast": int((table["with_label"] == 0).sum()), "overlap": overlap,
        "classes": {move: int((came == i).sum()) for i, move in enumerate(_CLASSES)},
        "methods": {name: {key: value._asdict() for key, value in row.items()} for name, row in methods.items()},
        "order_model_less": {name: {key: value._asdict() for key, value in row.items()}
                             for name, row in better.items()},
        "reliability_of_up": [dataclasses.asdict(row)
                              for row in forecast_scores.reliability(p_up, came == Move.UP, edges)],
        "coverage": [{"level": level, **covered._asdict()}
                     for level, covered in zip(quantiles, forecast_scores.coverage(at, realized, overlap),
                                               strict=True)]}


def _picture(table: pd.DataFrame, report: dict[str, Any], config: ConfigDict) -> Any:
    kept = table[(table["class"] != "") & (table["with_label"] > 0)]
    bins = [forecast_scores.Bin(**row) for row in report["reliability_of_up"]]
    log_scores = {name: Mean(**row["log_score"]) for name, row in report["methods"].items()}
    title = f"{', '.join(table['market'].unique())}: {report['starts']} starts, {config.minutes} minutes ahead"
    return forecast_plots.evaluation(kept[f"{MODEL}: label"].to_numpy(), kept["realized"].to_numpy(),
                                     kept["threshold"].to_numpy(), bins, log_scores, title)


def _spell(report: dict[str, Any]) -> str:
    def number(row: dict[str, float], scale: float = 1.0, sign: str = "") -> str:
        return f"{row['value'] * scale:{sign}.3f} ± {row['standard_error'] * scale:.3f}"

    lines = [f"{report['starts']} starts ({', '.join(f'{n} {name}' for name, n in report['classes'].items())}), "
             f"{report['without_realized_label']} without a realized label, {report['without_forecast']} without a "
             "forecast; ± one standard error",
             f"{'':<20} {'accuracy':>17} {'log score, nats':>17} {'RMSE, bp':>17}   order model less it (paired): "
             "accuracy, log score"]
    for name, row in report["methods"].items():
        less = report["order_model_less"].get(name)
        paired = f"{number(less['accuracy'], sign='+')}, {number(less['log_score'], sign='+')}" if less else ""
        lines.append(f"{name:<20} {number(row['accuracy']):>17} {number(row['log_score']):>17} "
                     f"{number(row['rmse'], 1e4):>17}   {paired}".rstrip())
    lines += [f"P(up) {row['low']:g} to {row['high']:g}: {row['count']} starts, forecast {row['forecast']:.3f}, came "
              f"{row['frequency']:.3f} ± {row['standard_error']:.3f}"
              for row in report["reliability_of_up"] if row["count"]]
    lines += [f"label at most the forecast's {row['level']:.0%} quantile: {number(row)}" for row in report["coverage"]]
    return "\n".join(lines)
