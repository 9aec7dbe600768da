"""Tables -> figures."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis.figure_style import ASK, BID, INNER, MIDDLE, PATH, clock_ticks, mark_breaks, plain


def day(table: pd.DataFrame, title: str, unit: float = 1e-4) -> Figure:
    """The picture of a day: mid, spread, depth and volume by minute.

    Args:
      table: rows of `analysis.day.join`.
      title: heading.
      unit: currency that one unit of a price stands for.
    """
    figure = Figure(figsize=(10, 9), layout="constrained")
    mid, spread, depth, volume = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1.2, 1.5, 1.2))
    figure.suptitle(title)
    minute = clock_ticks(volume, table.index.to_numpy())
    for axes in (mid, spread, depth, volume):
        plain(axes)
        mark_breaks(axes, table.index.to_numpy(), "break" if axes is mid else "")
    _lines(mid, minute, table["mid"] * unit, color=MIDDLE)
    mid.set_ylabel("mid price")
    _lines(spread, minute, table["spread"] * unit, color=PATH)
    spread.set_ylabel("spread")
    _lines(depth, minute, table["bid_depth"], color=BID, label="bids")
    _lines(depth, minute, table["ask_depth"], color=ASK, label="asks")
    depth.set_ylabel("shares on the\nlevels shown")
    depth.legend(loc="upper right", fontsize="small", ncols=2)
    volume.bar(minute, table["volume"], width=1.0, color=INNER)
    volume.set_ylabel("shares traded\na minute")
    for axes in (mid, spread, depth, volume):
        axes.margins(x=0.01)
    volume.set_xlabel("time of day")
    return figure


def _lines(axes: object, minute: np.ndarray, values: pd.Series, **style: str) -> None:
    """A step for every minute: a value holds until the next."""
    axes.step(minute, values.to_numpy(), where="post", linewidth=1.1, **style)  # type: ignore[attr-defined]
