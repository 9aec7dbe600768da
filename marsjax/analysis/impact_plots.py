"""Tables of market impact -> figures."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from marsjax.analysis.figure_style import BID, CAME, INNER, MIDDLE, OUTER, PATH, name_ends, plain
from marsjax.analysis.impact import PowerLaw
from marsjax.analysis.intervals import Interval

_UNIT = 10_000
_LINES = (INNER, MIDDLE, CAME, BID, PATH)
"""Colours of groups, one after the other."""


def volumes(tables: Mapping[str, pd.DataFrame], minutes: int = 0) -> Figure:
    """Volume fulfilled against target by minute, a panel for each group; rows of `impact.minute_table`.

    `minutes` is the length of the axis; 0: as long as it takes.
    """
    figure, panels = _panels(len(tables), "shares")
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        minute = table["minute"]
        axes.plot(minute, table["target"], color="black", linestyle=":", label="target")
        if table["planned"].notna().all():
            axes.plot(minute, table["planned"], color="tab:gray", label="even schedule")
        axes.fill_between(minute, table["completed_low"], table["completed_high"], color=OUTER, linewidth=0,
                          label="half of the rollouts")
        axes.plot(minute, table["completed"], color=MIDDLE, marker=".", label="traded, mean")
        axes.set_title(name, fontsize="medium", loc="left")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if minutes:
            axes.set_xlim(-0.05 * minutes, 1.05 * minutes)
    panels[0].legend(fontsize="small")
    most = max(float(table[["target", "completed_high"]].max().max()) for table in tables.values())
    panels[0].set_ylim(0, 1.05 * most)  # of all panels, which share it
    return figure


def prices(tables: Mapping[str, pd.DataFrame], end: int) -> Figure:
    """Median mid with and without the execution, with the bands of half the rollouts; the execution ends at `end`."""
    figure, panels = _panels(len(tables), "mid price")
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        for column, color, label in (("baseline_mid", PATH, "without"), ("mid", CAME, "with")):
            low, high = (table[f"{column}_{part}"] / _UNIT for part in ("low", "high"))
            axes.fill_between(table["minute"], low, high, color=color, alpha=0.25, linewidth=0)
            axes.plot(table["minute"], table[column] / _UNIT, color=color, marker=".", label=label)
        axes.axvline(end, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize="medium", loc="left")
    panels[0].legend(fontsize="small")
    return figure


def impacts(groups: Mapping[str, Sequence[tuple[float, Interval]]], laws: Mapping[str, PowerLaw],
            tables: Mapping[str, pd.DataFrame], end: int) -> Figure:
    """Impact at the end against size, with the fitted laws, and impact by minute.

    Args:
      groups: by side, (size, impact in basis points) of each group of rollouts.
      laws: by side.
      tables: rows of `impact.minute_table` by group.
      end: minute at which the execution ends.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    size, time = figure.subplots(1, 2)
    ends: list[tuple[float, str, str]] = []
    for color, (side, points) in zip((CAME, MIDDLE), groups.items(), strict=False):
        _against_size(size, color, side, points, laws[side])
    roots = [line for line in size.lines if line.get_linestyle() == ":"]
    if roots:
        roots[0].set_label("square root of the size")
    size.set(xlabel="shares traded over the mean volume without it", ylabel="impact at the end, basis points")
    for name, table, color in zip(tables, tables.values(), np.resize(_LINES, len(tables)).tolist(), strict=True):
        time.plot(table["minute"], table["impact_bp"], marker=".", color=color)
        time.fill_between(table["minute"], table["impact_low"], table["impact_high"], color=color, alpha=0.12,
                          linewidth=0)
        if np.isfinite(table["impact_bp"].iloc[-1]):
            ends.append((float(table["impact_bp"].iloc[-1]), name, color))
    time.axvline(end, color="black", linewidth=0.8, linestyle=":")
    time.set(xlabel="minutes after the start", ylabel="impact, basis points")
    time.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (size, time):
        plain(axes)
        axes.axhline(0, color="gray", linewidth=0.8)
    size.legend(fontsize="small")
    figure.draw_without_rendering()  # the room of the axes must be known
    name_ends(time, max((float(table["minute"].iloc[-1]) for table in tables.values()), default=0.0), ends)
    return figure


def _against_size(axes: Axes, color: str, side: str, points: Sequence[tuple[float, Interval]], law: PowerLaw) -> None:
    """Impacts of one side with their intervals, and the laws that could be fitted."""
    known = [(size, each) for size, each in points if np.isfinite(size) and np.isfinite(each.value)]
    x, y = np.array([size for size, _ in known]), np.array([each.value for _, each in known])
    ends = [[np.nan_to_num(each.value - each.low) for _, each in known],
            [np.nan_to_num(each.high - each.value) for _, each in known]]
    fitted = f", size^{law.exponent:.2f}" if np.isfinite(law.exponent) else ", no law fitted"
    axes.errorbar(x, y, yerr=np.maximum(ends, 0), fmt="o", color=color, capsize=3, label=f"{side}{fitted}")
    at = np.linspace(0, x.max() * 1.1, 100) if len(x) else np.zeros(0)
    if np.isfinite(law.exponent):
        drawn = at if law.exponent >= 0 else at[at >= x.min() / 2]  # a falling law has no value at a size of 0
        axes.plot(drawn, law.factor * drawn**law.exponent, color=color)
    if np.isfinite(law.root_factor):
        axes.plot(at, law.root_factor * np.sqrt(at), color=color, linestyle=":")


def _panels(count: int, label: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.5 + 3.6 * count, 4), layout="constrained")
    panels = list(np.ravel(figure.subplots(1, count, sharey=True)))
    for axes in panels:
        axes.set_xlabel("minutes after the start")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    panels[0].set_ylabel(label)
    return figure, panels
