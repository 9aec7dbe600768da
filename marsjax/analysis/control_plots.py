"""Controlled futures -> figures: beside uncontrolled ones of the same start, with the target in both."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from marsjax.analysis.figure_style import BEFORE, CAME, INNER, MIDDLE, OUTER, PATH, name_ends, plain
from marsjax.core.errors import InputError

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PATHS = 20
"""Single futures that are drawn, at most."""
_LEAST_BP = 20.0
"""Of the price's axis: less would make much of nothing."""
_CLIPPED = (0.01, 0.99)
"""Quantiles of the futures that the price's axis holds, beside the targets."""


class Fan(NamedTuple):
    """Futures of one kind."""

    name: str
    """What they are, over their panel."""
    return_bp: np.ndarray
    """float64 [B, M + 1], the mid at minutes 0 to M against the mid at the start, basis points; NaN where there is
    none."""


class Quantity(NamedTuple):
    """Something else that was asked for, by interval."""

    name: str
    """Of the quantity, with its unit."""
    fans: tuple[np.ndarray, ...]
    """float64 [I, B] of each fan."""
    target: np.ndarray
    """float64 [I], NaN where nothing is asked for."""


class Control(NamedTuple):
    """What a picture of controlled futures shows."""

    past_minutes: np.ndarray
    """float64 [N], minutes after the start, none above 0."""
    past_bp: np.ndarray
    """float64 [N], the mid then against the mid at the start, basis points; NaN where there is none."""
    fans: tuple[Fan, ...]
    """Uncontrolled ones first."""
    interval_minutes: np.ndarray
    """float64 [I], when the intervals of the control end."""
    target_bp: np.ndarray
    """float64 [I], where the mid is to be then; NaN: anywhere."""
    ess: np.ndarray
    """float64 [I], effective share of the weights at the end of each interval, 0 to 1; mean over islands."""
    distinct: np.ndarray
    """float64 [I], share of the trajectories that have descendants after it, 0 to 1."""
    others: tuple[Quantity, ...] = ()


def fans(shown: Control, title: str) -> Figure:
    """Uncontrolled and controlled futures side by side, with the target, and how many are left of them.

    A row more where other quantities have targets: each with the bands of all kinds of futures.
    """
    if not shown.fans:
        raise InputError("fans: expected futures of one kind at least, got none")
    figure = Figure(figsize=(3.6 * len(shown.fans) + 4.0, 7.6 if shown.others else 4.8), layout="constrained")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    parts: Sequence[Figure | SubFigure] = [figure]
    if shown.others:
        parts = np.asarray(figure.subfigures(2, 1, height_ratios=(3, 2))).tolist()
    panels = parts[0].subplots(1, len(shown.fans) + 1, width_ratios=(*[2.2] * len(shown.fans), 1.3))
    limits = _limits(shown)
    for number, (axes, fan) in enumerate(zip(panels, shown.fans, strict=False)):
        _fan(axes, shown, fan, limits)
        if number:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("mid against the start, basis points")
    _left(panels[-1], shown)
    if shown.others:
        _others(parts[1], shown)
    figure.draw_without_rendering()  # the room of the axes must be known
    for axes, fan in zip(panels, shown.fans, strict=False):
        name_ends(axes, axes.get_xlim()[1], _ends(shown, fan))
    return figure


def _known(fan: Fan) -> np.ndarray:
    return fan.return_bp[np.isfinite(fan.return_bp).all(axis=1)]


def _limits(shown: Control) -> tuple[float, float]:
    """Of the price's axis, shared by all panels."""
    parts = [shown.past_bp, shown.target_bp]
    parts += [np.quantile(known, _CLIPPED, axis=0).ravel() for fan in shown.fans if len(known := _known(fan))]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    room = max(0.06 * (high - low), (_LEAST_BP - (high - low)) / 2)
    return float(low - room), float(high + room)


def _fan(axes: Axes, shown: Control, fan: Fan, limits: tuple[float, float]) -> None:
    known, minute = _known(fan), np.arange(fan.return_bp.shape[1])
    axes.plot(shown.past_minutes, shown.past_bp, color=BEFORE, linewidth=1.1)
    if len(known):
        bands = np.quantile(known, _QUANTILES, axis=0)
        for (low, high), color in zip(((0, 4), (1, 3)), (OUTER, INNER), strict=True):
            axes.fill_between(minute, bands[low], bands[high], color=color, linewidth=0)
        axes.plot(minute, known.T[:, :_PATHS], color=PATH, alpha=0.35, linewidth=0.5)
        axes.plot(minute, bands[2], color=MIDDLE, linewidth=2.0)
    target = np.isfinite(shown.target_bp)
    if target.any():
        axes.plot(np.concatenate([[0], shown.interval_minutes[target]]),
                  np.concatenate([[0], shown.target_bp[target]]), color=CAME, linewidth=2.0, marker="o", markersize=3,
                  linestyle="--")
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="minutes after the start", ylim=limits)
    axes.set_xlim(right=minute[-1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    axes.set_title(f"{fan.name}\n{len(known)} futures: bands of 50% and 90%", fontsize="small", loc="left", color="0.3")


def _ends(shown: Control, fan: Fan) -> list[tuple[float, str, str]]:
    """Names at the right edge of a fan: of its median, and of the target where there is one at the end."""
    known = _known(fan)
    found = [(float(np.median(known[:, -1])), "median", MIDDLE)] if len(known) else []
    if len(shown.target_bp) and np.isfinite(shown.target_bp[-1]):
        found.append((float(shown.target_bp[-1]), "target", CAME))
    return found


def _left(axes: Axes, shown: Control) -> None:
    """How many different futures are left, and how even the weights were, by interval."""
    minute = np.concatenate([[0], shown.interval_minutes])
    for values, color, name in ((shown.distinct, MIDDLE, "futures with\ndescendants"),
                                (shown.ess, INNER, "effective\nsample size")):
        axes.plot(minute, np.concatenate([[100], 100 * values]), color=color, marker="o", markersize=3, label=name)
    axes.set(xlabel="minutes after the start", ylim=(0, 104))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    axes.set_title("what control leaves\n% of the futures", fontsize="small", loc="left", color="0.3")
    axes.legend(fontsize="x-small", frameon=False)


def _others(figure: Figure | SubFigure, shown: Control) -> None:
    panels = figure.subplots(1, len(shown.others), squeeze=False)[0]
    for axes, quantity in zip(panels, shown.others, strict=True):
        for number, (values, color) in enumerate(zip(quantity.fans, _colors(len(quantity.fans)), strict=True)):
            low, middle, high = np.nanquantile(values, (0.05, 0.5, 0.95), axis=1)
            axes.fill_between(shown.interval_minutes, low, high, color=color, alpha=0.25, linewidth=0)
            axes.plot(shown.interval_minutes, middle, color=color, linewidth=2.0, marker="o", markersize=3,
                      label=shown.fans[number].name)
        axes.plot(shown.interval_minutes, quantity.target, color=CAME, linewidth=2.0, linestyle="--", marker="o",
                  markersize=3, label="target")
        axes.set(xlabel="minutes after the start")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
        axes.set_title(f"{quantity.name}\nmedian and 90%, of each interval", fontsize="small", loc="left", color="0.3")
    panels[0].legend(fontsize="x-small", frameon=False)


def _colors(count: int) -> Sequence[str]:
    """Of kinds of futures, uncontrolled first."""
    return (PATH, MIDDLE, "#1b7837")[:count]
