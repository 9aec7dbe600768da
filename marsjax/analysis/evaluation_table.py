"""The table of an evaluation of forecasts, a row a start, and the scores of its methods."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis import forecast_scores
from marsjax.analysis.forecast import Move
from marsjax.analysis.forecast_scores import ScoreMean
from marsjax.core.errors import InputError

MODEL = "order model"
CLASSES = tuple(move.name.lower() for move in Move)


def scores(table: pd.DataFrame, quantiles: Sequence[float], edges: Sequence[float], overlap: int) -> dict[str, Any]:
    """Every method's scores, and the order model's less theirs, over the starts that have both labels.

    Args:
      table: a row a start: class (empty without a label), realized, with_label, quantile_<level>, and of each method
        its probabilities `<name>: down`, flat and up, and its `<name>: label`.
      quantiles: levels of the columns quantile_<level>.
      edges: bins of P(up).
      overlap: starts whose horizons reach into that of one start, on one side.

    Markets of which all realized labels are equal say nothing and are `left_out`, each with its reason. Where nothing
    can be scored by what is left, `note` says why, and there are no methods. InputError for a table without a start
    that has both labels.
    """
    kept = table[(table["class"] != "") & (table["with_label"] > 0)]
    if kept.empty:
        raise InputError("evaluation: no start has both a realized label and one of the trajectories")
    left_out = {str(name): f"constant: all of its {len(some)} realized labels are {some['realized'].iloc[0]:g}"
                for name, some in kept.groupby("market") if len(some) > 1 and some["realized"].nunique() == 1}
    kept = kept[~kept["market"].isin(list(left_out))]
    counts = {"starts": len(kept), "without_realized_label": int((table["class"] == "").sum()),
              "without_forecast": int((table["with_label"] == 0).sum()), "overlap": overlap,
              "classes": {name: int((kept["class"] == name).sum()) for name in CLASSES}, "left_out": left_out}
    note = "" if len(kept) > 1 else f"too few: {len(kept)} starts to score, expected 2 at least"
    if note:
        return counts | {"note": note, "methods": {}, "order_model_less": {}, "reliability_of_up": [], "coverage": []}
    return counts | {"note": ""} | _scores(kept, quantiles, edges, overlap)


def _scores(kept: pd.DataFrame, quantiles: Sequence[float], edges: Sequence[float], overlap: int) -> dict[str, Any]:
    realized = kept["realized"].to_numpy()
    came = np.array([CLASSES.index(name) for name in kept["class"]])
    names = [column.removesuffix(": label") for column in map(str, kept) if column.endswith(": label")]
    each: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        p = kept[[f"{name}: {move}" for move in CLASSES]].to_numpy()
        each[name] = {"accuracy": forecast_scores.hits(p, came), "log_score": forecast_scores.log_scores(p, came),
                      "squared_error": (kept[f"{name}: label"].to_numpy() - realized) ** 2}

    def summed(kind: dict[str, np.ndarray]) -> dict[str, ScoreMean]:
        return {key: forecast_scores.mean(values, overlap) for key, values in kind.items()}

    methods = {name: summed(kind) | {"rmse": forecast_scores.root(summed(kind)["squared_error"])}
               for name, kind in each.items()}
    better = {name: summed({key: each[MODEL][key] - kind[key] for key in kind})
              for name, kind in each.items() if name != MODEL}
    p_up = kept[f"{MODEL}: up"].to_numpy()
    at = kept[[f"quantile_{level:g}" for level in quantiles]].to_numpy()
    return {
        "methods": {name: {key: value._asdict() for key, value in row.items()} for name, row in methods.items()},
        "order_model_less": {name: {key: value._asdict() for key, value in row.items()}
                             for name, row in better.items()},
        "reliability_of_up": [dataclasses.asdict(row)
                              for row in forecast_scores.reliability(p_up, came == Move.UP, edges)],
        "coverage": [{"level": level, **covered._asdict()}
                     for level, covered in zip(quantiles, forecast_scores.coverage(at, realized, overlap),
                                               strict=True)]}


def lines(report: dict[str, Any]) -> list[str]:
    """`scores` as text, one line a method."""
    def number(row: dict[str, float], scale: float = 1.0, sign: str = "") -> str:
        return f"{row['value'] * scale:{sign}.3f} ± {row['standard_error'] * scale:.3f}"

    found = [f"{report['starts']} starts ({', '.join(f'{n} {name}' for name, n in report['classes'].items())}), "
             f"{report['without_realized_label']} without a realized label, {report['without_forecast']} without a "
             "forecast; ± one standard error",
             *(f"{name} is in no score: {why}" for name, why in report["left_out"].items())]
    if report["note"]:
        return [*found, f"no scores: {report['note']}"]
    found += [f"{'':<20} {'accuracy':>17} {'log score, nats':>17} {'RMSE, bp':>17}   order model less it (paired): "
             "accuracy, log score"]
    for name, row in report["methods"].items():
        less = report["order_model_less"].get(name)
        paired = f"{number(less['accuracy'], sign='+')}, {number(less['log_score'], sign='+')}" if less else ""
        found.append(f"{name:<20} {number(row['accuracy']):>17} {number(row['log_score']):>17} "
                     f"{number(row['rmse'], 1e4):>17}   {paired}".rstrip())
    found += [f"P(up) {row['low']:g} to {row['high']:g}: {row['count']} starts, forecast {row['forecast']:.3f}, came "
              f"{row['frequency']:.3f} ± {row['standard_error']:.3f}"
              for row in report["reliability_of_up"] if row["count"]]
    found += [f"label at most the forecast's {row['level']:.0%} quantile: {number(row)}" for row in report["coverage"]]
    return found
