"""What agents learnt, and how they compare with executions by rule, as figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marsjax.analysis.figure_style import CAME, MIDDLE, PATH, plain

_CURVES = (("reward", "reward of an episode"), ("entropy", "entropy, nats"), ("explained", "explained variance"))
_MEASURES = (("arrival_bp", "against the price at the start, bp"), ("vwap_bp", "against others' VWAP, bp"))
MAKER_MEASURES = (("reward", "reward of an episode"), ("profit", "profit less fees, ticks x shares"),
                  ("held", "held, shares"))
"""Of market makers."""


def curves(found: dict[str, np.ndarray], steps_of_update: int, title: str) -> Figure:
    """How training went: each seed thin, their mean thick.

    Args:
      found: float [S, U] each, of the names of `rl.ppo.learn`.
      steps_of_update: of the environment.
      title: of the figure.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    for axes, (name, label) in zip(figure.subplots(1, len(_CURVES)), _CURVES, strict=True):
        values = found[name]
        steps = (np.arange(values.shape[1]) + 1) * steps_of_update
        for seed in values:
            axes.plot(steps, seed, color=PATH, alpha=0.4, linewidth=0.7)
        there = ~np.isnan(values)
        count = there.sum(0)
        mean = np.divide(np.where(there, values, 0.0).sum(0), count, out=np.full(len(count), np.nan), where=count > 0)
        axes.plot(steps, mean, color=MIDDLE, linewidth=1.6)
        axes.set_xlabel("steps")
        axes.set_ylabel(label)
        plain(axes)
    return figure


def comparison(rows: Sequence[dict[str, Any]], title: str, measures: Sequence[tuple[str, str]] = _MEASURES) -> Figure:
    """The scores of all contenders with their intervals, a panel of each measure, markets one below the other.

    Args:
      rows: of `agent_scores.rows` or `maker_comparison.rows`, of one market or several.
      title: of the figure.
      measures: names of columns, and what to write below them.
    """
    shown = [row for row in rows if row.get("regime", "all") == "all" and not row["against"]]
    markets = list(dict.fromkeys(row["market"] for row in shown))
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(shown) + 0.5 * len(markets)), layout="constrained")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    panels = figure.subplots(len(markets), len(measures), squeeze=False, sharex="col")
    for number, market in enumerate(markets):
        for axes, (name, label) in zip(panels[number], measures, strict=True):
            _bars(axes, [row for row in shown if row["market"] == market], name)
            axes.set_title(market, fontsize="small", loc="left")
            if number == len(markets) - 1:
                axes.set_xlabel(label)
    return figure


def _bars(axes: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    places = np.arange(len(rows))[::-1]
    value, low, high = (np.array([row[f"{name}{end}"] for row in rows], float) for end in ("", "_low", "_high"))
    colors = [CAME if place == len(rows) - 1 else MIDDLE for place in places]
    axes.hlines(places, low, high, colors=colors, linewidth=2)
    axes.scatter(value, places, color=colors, zorder=3, s=22)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(places, [row["contender"] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    plain(axes)
