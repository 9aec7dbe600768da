"""The labels of a forecast -> a figure of their distribution, with the probabilities of its classes."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from marsjax.analysis.figure_style import ASK, BID, CAME, PATH, plain
from marsjax.analysis.forecast import Move, classes

_COLORS = {Move.DOWN: ASK, Move.FLAT: PATH, Move.UP: BID}
_MOST_BINS, _LEAST_BINS = 40, 5
_INSIDE, _MANY = (0.01, 0.99), 100
"""Quantiles that the labels are drawn between where there are many: far ones would leave no room for the others."""


def distribution(labels: np.ndarray, threshold: float, came: float = float("nan")) -> Figure:
    """How many futures come to which label, in basis points, coloured by class, with the share of each class.

    Args:
      labels: float64 [B], relative change of the mean mid; NaN where there is none.
      threshold: labels beyond +-threshold are up and down.
      came: of what really came, NaN if that is not known.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    known = labels[np.isfinite(labels)]
    axes.set(xlabel="change of the mean mid, basis points", ylabel="futures")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    edge = threshold * 1e4
    if len(known):
        low, high = np.quantile(known, _INSIDE) if len(known) >= _MANY else (known.min(), known.max())
        shown = known[(known >= low) & (known <= high)]
        parts = [shown[classes(shown, threshold) == move] * 1e4 for move in Move]
        bins = np.histogram_bin_edges(shown * 1e4, max(min(int(np.sqrt(len(known)) * 1.5), _MOST_BINS), _LEAST_BINS))
        axes.hist(parts, bins=list(bins), stacked=True, color=[_COLORS[move] for move in Move], alpha=0.75)
    reach = max(abs(x) for x in (*axes.get_xlim(), edge * 1.6))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.22)
    for limit in (-edge, edge):
        axes.axvline(limit, color="0.35", linewidth=0.9, linestyle=":")
    across = blended_transform_factory(axes.transAxes, axes.transAxes)
    for move, x, align in ((Move.DOWN, 0.02, "left"), (Move.FLAT, 0.5, "center"), (Move.UP, 0.98, "right")):
        share = f"{(classes(known, threshold) == move).mean():.0%}" if len(known) else "-"
        axes.text(x, 0.97, f"{move.name.lower()} {share}", transform=across, ha=align, va="top", color=_COLORS[move],
                  fontsize="large", fontweight="bold")
    if np.isfinite(came):
        axes.axvline(came * 1e4, color=CAME, linewidth=2.0)
        axes.text(came * 1e4, 0.86, " what came", transform=axes.get_xaxis_transform(), color=CAME, fontsize="small")
    axes.set_title(f"{len(known)} labels; flat within {edge:.2f} basis points (dotted)", fontsize="small", loc="left",
                   color="0.3")
    return figure
