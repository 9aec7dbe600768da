"""Books over time -> a heat map of the shares that stand at each price."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from marsjax.analysis.figure_style import round_times
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS

_COLUMNS, _ROWS = 600, 240
"""Most cells of the map, of time and of price."""
_SHOWN = 0.98
"""Share of the levels whose prices are in the map: a few far ones would leave no room for the others."""


def heat_map(depth: pd.DataFrame, title: str, trades: pd.DataFrame | None = None) -> Figure:
    """A map of volume by price and time, with the best prices, and dots for trades.

    Args:
      depth: rows of single levels, `Rollout.depth` of one trajectory or `Replayed.depth`.
      title: heading.
      trades: of the same market, if they are to be shown.

    Each cell holds what stood at its price after the last order of its time. InputError where there is nothing to
    show, or more than one trajectory.
    """
    if not len(depth):
        raise InputError("depth: expected levels to show, got none")
    if "trajectory" in depth and depth["trajectory"].nunique() > 1:
        raise InputError(f"depth: expected one trajectory, got {depth['trajectory'].nunique()}: choose one of them, "
                         "depth[depth['trajectory'] == 0]")
    at, of_bin = _last_of_each_bin(depth)
    price, volume, side = (at[name].to_numpy() for name in ("price", "volume", "side"))
    low, high = np.quantile(price, ((1 - _SHOWN) / 2, (1 + _SHOWN) / 2))
    step = _step(price)
    edges = np.linspace(low - step / 2, high + step / 2, min(round((high - low) / step) + 1, _ROWS) + 1)
    shares = _grid(of_bin, price, volume, edges)
    begin_ns, end_ns = int(depth["time_ns"].iloc[0]), int(depth["time_ns"].iloc[-1])
    seconds = np.linspace(0, max((end_ns - begin_ns) / 1e9, 1e-9), _COLUMNS + 1)
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    shown = np.ma.masked_less_equal(shares, 0)
    image = axes.pcolormesh(seconds, edges, shown, cmap="viridis", shading="flat",
                            norm=LogNorm(*np.quantile(shown.compressed(), (0.02, 1.0))))
    for name, color in (("bid", "deepskyblue"), ("ask", "orange")):
        best = at[side == name].groupby(of_bin[side == name])["price"].agg("max" if name == "bid" else "min")
        axes.step(seconds[best.index], best, where="post", color=color, linewidth=1.0, label=f"best {name}")
    if trades is not None and len(trades):
        axes.scatter((trades["time_ns"] - begin_ns) / 1e9, trades["price"], s=6, color="red", label="trades", zorder=3)
    unit = str(depth["price_unit"].iloc[0]).removeprefix("1").strip()
    axes.set(title=title, ylabel=f"price ({unit})" if unit else "price", ylim=(edges[0], edges[-1]))
    _clock_axis(axes, begin_ns, end_ns)
    axes.legend(loc="upper left", fontsize="small", ncols=3)
    figure.colorbar(image, label="shares at the price", pad=0.01)
    return figure


def _last_of_each_bin(depth: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The levels of the last order in each bin of time (of the bin before where none comes), and their bins."""
    number, time_ns = depth["i"].to_numpy(), depth["time_ns"].to_numpy()
    first = np.flatnonzero(np.diff(number, prepend=number[0] - 1))  # of the rows of each order
    ends = np.append(first, len(number))[1:]
    edges = np.linspace(time_ns[0], time_ns[-1], _COLUMNS + 1)[1:]
    last = np.maximum(np.searchsorted(time_ns[first], edges, side="right") - 1, 0)
    counts = ends[last] - first[last]
    of_bin = np.repeat(np.arange(_COLUMNS), counts)
    rows = np.repeat(first[last], counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return depth.iloc[rows], of_bin


def _step(price: np.ndarray) -> float:
    """The smallest difference between two prices."""
    steps = np.diff(np.unique(price))
    return float(steps[steps > 1e-9].min()) if (steps > 1e-9).any() else max(abs(float(price[0])) * 1e-4, 1e-9)


def _grid(of_bin: np.ndarray, price: np.ndarray, volume: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Shares [prices, times]."""
    row = np.searchsorted(edges, price, side="right") - 1
    inside = (row >= 0) & (row < len(edges) - 1)
    cell = row[inside] * _COLUMNS + of_bin[inside]
    total = np.bincount(cell, volume[inside].astype(np.float64), minlength=(len(edges) - 1) * _COLUMNS)
    return total.reshape(len(edges) - 1, _COLUMNS)


def _clock_axis(axes: Axes, begin_ns: int, end_ns: int) -> None:
    at_ns = round_times(begin_ns, end_ns)
    digits = 0 if not (at_ns % SECOND_NS).any() else 3
    axes.set_xticks((at_ns - begin_ns) / SECOND_NS, times.clock(at_ns, digits).tolist())
    axes.set_xlabel("time of day")
