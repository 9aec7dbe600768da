"""Tables -> figures."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def day(table: pd.DataFrame, title: str, unit: float = 1e-4) -> Figure:
    """The picture of a day: mid, spread, depth and volume by minute.

    Args:
      table: rows of `analysis.day.join`.
      title: heading.
      unit: currency that one unit of a price stands for.
    """
    minute = _without_gaps(table.index.to_numpy())
    figure = Figure(figsize=(10, 9), layout="constrained")
    mid, spread, depth, volume = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1.2, 1.5, 1.2))
    figure.suptitle(title)
    _lines(mid, minute, table["mid"] * unit, color="tab:blue")
    mid.set_ylabel("mid price")
    _lines(spread, minute, table["spread"] * unit, color="tab:gray")
    spread.set_ylabel("spread")
    _lines(depth, minute, table["bid_depth"], color="tab:green", label="bids")
    _lines(depth, minute, table["ask_depth"], color="tab:red", label="asks")
    depth.set_ylabel("shares on the\nlevels shown")
    depth.legend(loc="upper right", fontsize="small", ncols=2)
    volume.bar(minute, table["volume"], width=1.0, color="tab:purple")
    volume.set_ylabel("shares traded\na minute")
    for axes in (mid, spread, depth, volume):
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    places = np.linspace(0, len(minute) - 1, min(len(minute), 10)).round().astype(int)
    volume.set_xticks(minute[places], [f"{m // 60:02d}:{m % 60:02d}" for m in table.index.to_numpy()[places]])
    volume.set_xlabel("time of day")
    return figure


def _without_gaps(minute: np.ndarray) -> np.ndarray:
    """Positions on an axis that closes breaks of the session (over 10 minutes) to 2 minutes."""
    step = np.diff(minute, prepend=minute[:1])
    return np.cumsum(np.where(step > 10, 2, step))


def _lines(axes: object, minute: np.ndarray, values: pd.Series, **style: str) -> None:
    """A step for every minute: a value holds until the next."""
    axes.step(minute, values.to_numpy(), where="post", linewidth=1.1, **style)  # type: ignore[attr-defined]
