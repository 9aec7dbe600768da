"""Forecasts -> figures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marsjax.analysis.evaluation_table import MODEL
from marsjax.analysis.figure_style import BEFORE, CAME, INNER, MIDDLE, OUTER, PATH, name_ends, plain
from marsjax.analysis.forecast_scores import Bin, ScoreMean

_UNIT = 10_000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_RANGE = 2e-3
"""Of the mid price's axis, a share of the price: less would make much of nothing."""
_PATHS = 20
"""Single futures that are drawn, at most."""
_MANY = 100
"""Labels of which the farthest hundredths are left out of their picture: they would leave no room for the others."""


class Futures(NamedTuple):
    """What a fan chart shows; prices in any unit."""

    past_minutes: np.ndarray
    """float64 [N], minutes after the start, none above 0."""
    past_mids: np.ndarray
    """float64 [N]; NaN where there is none."""
    mids: np.ndarray
    """float64 [B, M + 1], of the trajectories at minutes 0 to M."""
    realized: np.ndarray | None
    """float64 [M + 1], what really came."""
    labels: np.ndarray
    """float64 [B], relative change of the mean mid; NaN where there is none."""
    label: float
    """Of what really came, NaN if nothing did."""
    threshold: float
    """Labels beyond +-threshold are up and down."""


class Reached(NamedTuple):
    """How far trajectories have come that still run; `Futures.mids` are NaN at the minutes after it."""

    minutes: np.ndarray
    """float64 [B], simulated minutes."""
    mids: np.ndarray
    """float64 [B], the mids then."""


def fan(futures: Futures, title: str, unit: float = 1e-4, reached: Reached | None = None) -> Figure:
    """Fan chart: the mid before the start, what the trajectories do after it, what came; beside it their labels.

    The axes hold the past, what came and the band of 90% of the trajectories; a note counts those that leave them.

    Args:
      futures: what is shown.
      title: heading.
      unit: currency that one unit of a price stands for.
      reached: of trajectories that still run; bands then end where fewer than half of them have come.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    axes, side = figure.subplots(1, 2, width_ratios=(3, 1))
    known = futures.mids if reached else futures.mids[~np.isnan(futures.mids).any(axis=1)]
    minute, known = np.arange(futures.mids.shape[1]), known * unit
    past, realized = futures.past_mids * unit, None if futures.realized is None else futures.realized * unit
    ends: list[tuple[float, str, str]] = []
    axes.plot(futures.past_minutes, past, color=BEFORE, linewidth=1.1)
    bands = _bands(known)
    if len(known):
        for (low, high), color in zip(((0, 4), (1, 3)), (OUTER, INNER), strict=True):
            axes.fill_between(minute, bands[low], bands[high], color=color, linewidth=0)
        _paths(axes, known, unit, reached)
        axes.plot(minute, bands[2], color=MIDDLE, linewidth=2.0)
        ends += _quantile_names(bands[:, -1]) if np.isfinite(bands[:, -1]).all() else []
    if realized is not None:
        axes.plot(minute, realized, color=CAME, linewidth=2.0, marker="o", markersize=3)
        if np.isfinite(realized[-1]):
            ends.append((float(realized[-1]), "what came", CAME))
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="minutes after the start", ylabel="mid price")
    axes.set_xlim(right=minute[-1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    shown = np.concatenate([past, bands.ravel(), *([] if realized is None else [realized])])
    note = _limits(axes, shown[np.isfinite(shown)], known)
    axes.set_title(f"{len(known)} futures{_so_far(reached)}: bands of 50% and 90%{note}", fontsize="small", loc="left",
                   color="0.3")
    _labels(side, futures, ", so far" if reached else "")
    figure.draw_without_rendering()  # the room of the axes must be known
    name_ends(axes, minute[-1], ends)
    return figure


def _bands(known: np.ndarray) -> np.ndarray:
    """Quantiles of trajectories [B, M + 1] at each minute; NaN where fewer than half of them have come."""
    found = np.full((len(_QUANTILES), known.shape[1]), np.nan)
    for minute, there in enumerate(np.isfinite(known).T):
        if there.any() and 2 * there.sum() >= len(known):
            found[:, minute] = np.quantile(known[there, minute], _QUANTILES)
    return found


def _paths(axes: Axes, known: np.ndarray, unit: float, reached: Reached | None) -> None:
    """Single trajectories: some whole ones, or all as far as they have come."""
    if reached is None:
        axes.plot(np.arange(known.shape[1]), known.T[:, :_PATHS], color=PATH, alpha=0.35, linewidth=0.5)
        return
    for row, at, mid in zip(known, reached.minutes, reached.mids * unit, strict=True):
        there = np.flatnonzero(np.isfinite(row))
        axes.plot([*there, at], [*row[there], mid], color=PATH, alpha=0.35, linewidth=0.5)
    axes.plot(reached.minutes, reached.mids * unit, "o", color=MIDDLE, markersize=2.5, alpha=0.7, linewidth=0)


def _so_far(reached: Reached | None) -> str:
    """How far all have come, in words."""
    if reached is None or not len(reached.minutes):
        return ""
    return f", {reached.minutes.min():.1f} to {reached.minutes.max():.1f} minutes so far"


def _quantile_names(heights: np.ndarray) -> list[tuple[float, str, str]]:
    """Heights, names and colours of the quantiles; those at one height share a name."""
    names = ["median" if each == 0.5 else f"{each:.0%}" for each in _QUANTILES]
    found = []
    for height in np.unique(heights):
        here = np.flatnonzero(heights == height)
        is_middle = len(_QUANTILES) // 2 in here
        text = names[here[0]] if len(here) == 1 else f"{names[here[0]]} to {names[here[-1]]}"
        found.append((float(height), text, MIDDLE if is_middle else INNER))
    return found


def _limits(axes: Axes, shown: np.ndarray, known: np.ndarray) -> str:
    """Clips the axes to what must be shown [N]; says how many of the trajectories [B, M + 1] leave them."""
    if not len(shown):
        return ""
    low, high = shown.min(), shown.max()
    room = max(0.08 * (high - low), (_LEAST_RANGE * abs(high) - (high - low)) / 2)
    axes.set_ylim(low - room, high + room)
    leaves = ((known < low - room) | (known > high + room)).any(axis=1)
    if not leaves.any():
        return ""
    far = (known[leaves] / known[leaves, :1] - 1) * 1e4
    return f"; {leaves.sum()} leave the picture, {np.nanmin(far):+.0f} to {np.nanmax(far):+.0f} bp"


def _labels(axes: Axes, futures: Futures, note: str = "") -> None:
    """The distribution of the labels in basis points, with the share of each class."""
    bp = futures.labels[np.isfinite(futures.labels)] * 1e4
    edge = futures.threshold * 1e4
    axes.set_title(f"change of the mean mid{note}", fontsize="small", loc="left", color="0.3")
    axes.set(xlabel="basis points", ylabel="futures")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    if len(bp):
        low, high = np.quantile(bp, (0.01, 0.99)) if len(bp) >= _MANY else (bp.min(), bp.max())
        inside = bp[(bp >= low) & (bp <= high)]
        axes.hist(inside, bins=max(min(int(np.sqrt(len(bp)) * 1.5), 40), 5), color=INNER)
        shares = ((bp < -edge).mean(), (np.abs(bp) <= edge).mean(), (bp > edge).mean())
        words = [f"{name} {share:.0%}" for name, share in zip(("down", "flat", "up"), shares, strict=True)]
        axes.set_title(axes.get_title(loc="left") + "\n" + ", ".join(words), fontsize="small", loc="left", color="0.3")
    for limit in (-edge, edge):
        axes.axvline(limit, color="0.4", linewidth=0.9, linestyle=":")
    if np.isfinite(futures.label):
        axes.axvline(futures.label * 1e4, color=CAME, linewidth=2.0)


def evaluation(table: pd.DataFrame, report: Mapping[str, Any], minutes: int) -> Figure:
    """Forecasts against what came: labels, calibration of P(up), and log scores by method.

    Args:
      table: a row a start (`evaluation_table`).
      report: its `evaluation_table.scores`.
      minutes: horizon of the forecasts.
    """
    kept = table[(table["class"] != "") & (table["with_label"] > 0) & ~table["market"].isin(list(report["left_out"]))]
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


def paths(mids: np.ndarray, title: str, minutes: int = 0) -> Figure:
    """Mid prices of B markets by minute, float64 [B, M] in 1e-4 of the currency; NaN where nothing happened.

    `minutes` is the length of the axis; 0: as long as it takes.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in mids:
        known = ~np.isnan(row)
        axes.plot(np.flatnonzero(known), row[known] / _UNIT, linewidth=0.9)
    axes.set(xlabel="minutes", ylabel="mid price", title=title)
    plain(axes)
    axes.margins(x=0.01)
    if minutes:
        axes.set_xlim(0, minutes)
    return figure
