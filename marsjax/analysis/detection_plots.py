"""A day as a surveillance sees it: the mid, the alarms, and which features raised them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marsjax.analysis import figure_style
from marsjax.analysis.figure_style import BEFORE, CAME, MIDDLE
from marsjax.analysis.interval_features import FEATURES
from marsjax.analysis.quantities import OrderEvents
from marsjax.core import times
from marsjax.core.times import SECOND_NS

_HOUR_NS = 3600 * SECOND_NS
_LEAST_P = 1e-3


def figure(rows: pd.DataFrame, events: OrderEvents, minutes: int, rate: float, title: str,
           truth_ns: tuple[int, int] | None = None) -> Figure:
    """Three panels over the time of day.

    Args:
      rows: of `studies.detection.table`.
      events: of the day.
      minutes: of an interval.
      rate: of false alarms an interval.
      title: heading.
      truth_ns: from when until when the day was manipulated, if that is known.
    """
    drawn = Figure(figsize=(11, 9), layout="constrained")
    drawn.suptitle(title)
    mid, ranks, features = drawn.subplots(3, 1, sharex=True, height_ratios=(1.2, 1, 1.8))
    width = minutes * 60 * SECOND_NS / _HOUR_NS
    begins = rows["time_ns"].to_numpy() / _HOUR_NS
    alarm = rows["alarm"].to_numpy()
    _mid(mid, events, rows)
    for axes in (mid, ranks):
        for begin, is_clean in zip(begins[alarm], rows["is_clean"].to_numpy()[alarm], strict=True):
            axes.axvspan(begin, begin + width, color="gray" if is_clean else CAME, alpha=0.15, linewidth=0)
        if truth_ns is not None:
            axes.axvspan(*(each / _HOUR_NS for each in truth_ns), ymax=0.04, color="black", linewidth=0)
        figure_style.plain(axes)
    _ranks(ranks, rows, begins + width / 2, rate)
    _features(features, rows, begins, width)
    ticks = figure_style.round_times(int(begins[0] * _HOUR_NS), int((begins[-1] + width) * _HOUR_NS))
    length = 5 if not (ticks % (60 * SECOND_NS)).any() else 8  # HH:MM, or with seconds where they say something
    features.set_xticks(ticks / _HOUR_NS, [str(each)[:length] for each in times.clock(ticks, 0)])
    grey = "; grey: clean ones at the rate, no alarms" if rows["is_clean"].any() else ""
    features.set_xlabel(f"time of day; red: alarms{grey}" + ("; black: when it was manipulated" if truth_ns else ""))
    return drawn


def _mid(axes: Axes, events: OrderEvents, rows: pd.DataFrame) -> None:
    first, last = rows["time_ns"].iloc[[0, -1]]
    length = int(rows["time_ns"].diff().min())
    inside = events.between(int(first), int(last) + length)
    axes.step(inside.time_ns / _HOUR_NS, inside.mid_after, where="post", color=BEFORE, linewidth=0.8)
    axes.set_ylabel("mid, in price units")


def _ranks(axes: Axes, rows: pd.DataFrame, at: np.ndarray, rate: float) -> None:
    for name, color, label in (("p_futures", MIDDLE, "among its futures"), ("p_clean", CAME, "among clean intervals")):
        if rows[name].notna().any():
            axes.plot(at, rows[name], "o", markersize=4, color=color, label=label)
    clean = rows["is_clean"].to_numpy()
    if clean.any():
        axes.plot(at[clean], np.full(clean.sum(), 1.3), "|", color="gray", label="taken to be clean")
    axes.axhline(rate, color="gray", linewidth=0.8, label=f"rate {rate:g}")
    axes.set_yscale("log")
    axes.set_ylabel("p-value")
    axes.legend(fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, frameon=False)


def _features(axes: Axes, rows: pd.DataFrame, begins: np.ndarray, width: float) -> None:
    names: Sequence[str] = FEATURES
    values = np.log10(np.clip(rows[[f"{name}_p" for name in names]].to_numpy(), _LEAST_P, 1)).T
    for begin, column in zip(begins, values.T, strict=True):
        image = axes.pcolormesh([begin, begin + width], np.arange(len(names) + 1) - 0.5, column[:, None],
                                cmap="Blues_r", vmin=np.log10(_LEAST_P), vmax=0)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.figure.colorbar(image, ax=axes, label="log10 of a feature's p-value among the futures", shrink=0.8)
