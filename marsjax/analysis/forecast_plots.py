"""Forecasts -> figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis.evaluation_table import MODEL
from marsjax.analysis.forecast_scores import Bin, ScoreMean

_UNIT = 10_000
_BANDS = ((0.05, 0.95), (0.25, 0.75))


def fan(past_minutes: np.ndarray, past_mids: np.ndarray, mids: np.ndarray, realized: np.ndarray | None, title: str,
        unit: float = 1e-4) -> Figure:
    """Fan chart: the mid before the start, what the trajectories do after it, and what came.

    Args:
      past_minutes: float64 [N], minutes after the start, none above 0.
      past_mids: float64 [N], in units of the price, as are those below; NaN where there is none.
      mids: float64 [B, M + 1], of the trajectories at minutes 0 to M.
      realized: float64 [M + 1], or None.
      title: heading.
      unit: currency that one unit of a price stands for.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    minute = np.arange(mids.shape[1])
    axes.plot(past_minutes, past_mids * unit, color="black", linewidth=1.0, label="before")
    known = mids[~np.isnan(mids).any(axis=1)] * unit
    if len(known):
        for low, high in _BANDS:
            axes.fill_between(minute, *np.quantile(known, (low, high), axis=0), color="tab:blue", alpha=0.25,
                              linewidth=0, label=f"{high - low:.0%} of {len(known)} trajectories")
        axes.plot(minute, known.T[:, :20], color="tab:blue", alpha=0.25, linewidth=0.6)
        axes.plot(minute, np.median(known, axis=0), color="tab:blue", linewidth=1.8, label="median")
    if realized is not None:
        axes.plot(minute, realized * unit, color="tab:red", linewidth=1.8, marker=".", label="what came")
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set(xlabel="minutes after the start", ylabel="mid price", title=title)
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
    axes.legend(loc="upper left", fontsize="small")
    return figure


def evaluation(table: pd.DataFrame, report: Mapping[str, Any], minutes: int) -> Figure:
    """Forecasts against what came: labels, calibration of P(up), and log scores by method.

    Args:
      table: a row a start (`evaluation_table`).
      report: its `evaluation_table.scores`.
      minutes: horizon of the forecasts.
    """
    kept = table[(table["class"] != "") & (table["with_label"] > 0)]
    bins = [Bin(**row) for row in report["reliability_of_up"]]
    scores = {name: ScoreMean(**row["log_score"]) for name, row in report["methods"].items()}
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    figure.suptitle(f"{', '.join(table['market'].unique())}: {report['starts']} starts, {minutes} minutes ahead")
    labels, calibration, bars = figure.subplots(1, 3)
    labels.scatter(kept[f"{MODEL}: label"] * 1e4, kept["realized"] * 1e4, s=14, color="tab:blue")
    threshold = np.median(kept["threshold"])
    for edge in (-threshold, threshold):
        labels.axhline(edge * 1e4, color="gray", linewidth=0.8, linestyle=":")
    labels.axline((0, 0), slope=1, color="gray", linewidth=0.8)
    labels.set(xlabel="forecast label, basis points", ylabel="realized label, basis points")
    filled = [each for each in bins if each.count]
    calibration.errorbar([each.forecast for each in filled], [each.frequency for each in filled],
                         [each.standard_error for each in filled], fmt="o", color="tab:blue", capsize=3)
    for each in filled:
        calibration.annotate(str(each.count), (each.forecast, each.frequency), textcoords="offset points",
                             xytext=(6, 4), fontsize="small")
    calibration.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    calibration.set(xlabel="forecast P(up), starts beside the points", ylabel="share that went up", xlim=(0, 1),
                    ylim=(-0.05, 1.05))
    bars.barh(list(scores), [score.value for score in scores.values()],
              xerr=[score.standard_error for score in scores.values()], color="tab:blue", alpha=0.6, capsize=3)
    bars.invert_yaxis()
    bars.set(xlabel="log score, nats (higher is better)")
    for axes in (labels, calibration, bars):
        axes.grid(alpha=0.3)
    return figure


def paths(mids: np.ndarray, title: str) -> Figure:
    """Mid prices of B markets by minute, float64 [B, M] in 1e-4 of the currency; NaN where nothing happened."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in mids:
        known = ~np.isnan(row)
        axes.plot(np.flatnonzero(known), row[known] / _UNIT, linewidth=0.9)
    axes.set(xlabel="minutes", ylabel="mid price", title=title)
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
    return figure
