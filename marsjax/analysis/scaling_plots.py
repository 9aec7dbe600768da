"""Losses by size and by amount of orders beside the law that was fitted, a figure."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from marsjax.analysis.figure_style import CAME, PATH, plain
from marsjax.analysis.scaling_law import FittedLaw, Losses

_POINTS = 60
"""Of a curve."""
_COLORS = "viridis"


def curves(losses: Losses, fitted: FittedLaw, floor: float | None = None) -> Figure:
    """Losses by the size of the model and by the orders, axes logarithmic; the law as curves with its intervals.

    Args:
      losses: the points.
      fitted: the law.
      floor: nats that no model can go below in the mean, if they are known: a line of its own.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, losses, fitted, by_size=True)
    _panel(right, losses, fitted, by_size=False)
    left.set(xlabel="numbers that the model learns", ylabel="nats an order, held out")
    right.set(xlabel="orders to train on")
    low, high = fitted.intervals["E"][1:]
    for axes in (left, right):
        axes.axhline(fitted.law.E, color=PATH, linewidth=1, linestyle="--", label=f"E of the law, {fitted.law.E:.3g}")
        axes.axhspan(low, high, color=PATH, alpha=0.12, linewidth=0)
        if floor is not None:
            axes.axhline(floor, color=CAME, linewidth=1, label=f"loss of the writer, {floor:.3g}")
        # Above the axes: inside them there is no corner without points.
        axes.legend(fontsize="x-small", frameon=False, title_fontsize="x-small", ncol=3, alignment="left",
                    loc="lower left", bbox_to_anchor=(0, 1), title="orders" if axes is left else "numbers")
    _nats_axis(left, losses, fitted.law.E, floor)
    return figure


def _panel(axes: Axes, losses: Losses, fitted: FittedLaw, by_size: bool) -> None:
    """Points along one axis, a colour for each value of the other."""
    along, other = (losses.numbers, losses.orders) if by_size else (losses.orders, losses.numbers)
    values = np.unique(other)
    x = np.geomspace(along.min(), along.max(), _POINTS)
    for value, color in zip(values, colormaps[_COLORS](np.linspace(0.05, 0.9, len(values))), strict=True):
        at = (x, value) if by_size else (value, x)
        here = other == value
        axes.plot(along[here], losses.nats[here], "o", color=color, markersize=4.5, label=_short(value))
        axes.plot(x, fitted.law(*at), color=color, linewidth=1.2)
        axes.fill_between(x, *fitted.band(*at), color=color, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain(axes)


def _nats_axis(axes: Axes, losses: Losses, fitted: float, floor: float | None) -> None:
    """A logarithmic axis with plain numbers; E is in view where it is not far below the points."""
    axes.set_yscale("log")
    low, high = float(losses.nats.min()), float(losses.nats.max())
    least = fitted if low - fitted < high - low else low
    low = min(least, low if floor is None else floor)
    room = 0.05 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Two digits, and a letter for thousands or millions."""
    for scale, letter in ((1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{float(f'{value / scale:.2g}'):g}{letter}"
    return f"{value:g}"
