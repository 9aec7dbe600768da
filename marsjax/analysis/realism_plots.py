"""The table of similarities -> a figure: each quantity between its floor and its ceiling."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marsjax.analysis.realism_table import ALL_MINUTES, MEAN, MINUTE, ORDER


def figure(table: pd.DataFrame, title: str) -> Figure:
    """Similarities of minutes and of single orders, and of single orders by the minute after the start.

    Args:
      table: of `realism_table.table`.
      title: heading.
    """
    means = table[table["market"] == MEAN]
    drawn = Figure(figsize=(13, 5), layout="constrained")
    drawn.suptitle(title)
    minutes, orders, horizons = drawn.subplots(1, 3, width_ratios=(1.2, 1, 1.2))
    for axes, of, name in ((minutes, MINUTE, "minutes"), (orders, ORDER, "single orders")):
        _bars(axes, means[(means["of"] == of) & (means["minute"] == ALL_MINUTES)])
        axes.set_title(name, fontsize="medium")
    minutes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2)
    _lines(horizons, means[(means["of"] == ORDER) & (means["minute"] != ALL_MINUTES)])
    return drawn


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    place = np.arange(len(rows))[::-1]
    low, high = (np.abs(rows[f"similarity_{end}"] - rows["similarity"]) for end in ("low", "high"))
    axes.hlines(place, rows["floor"], rows["ceiling"], color="lightgray", linewidth=6, label="floor to ceiling")
    axes.errorbar(rows["similarity"], place, xerr=[low, high], fmt="o", markersize=4, color="tab:red",
                  label="order model")
    axes.plot(rows["earlier"], place, "b|", markersize=9, label="earlier history")
    if rows["paper_similarity"].notna().any():
        axes.plot(rows["paper_similarity"], place, "k|", markersize=9, label="paper")
    axes.set_yticks(place, rows["quantity"], fontsize="small")
    axes.set_xlim(0, 1)
    axes.set_xlabel("similarity to history")
    axes.grid(alpha=0.3)


def _lines(axes: Axes, rows: pd.DataFrame) -> None:
    for name, some in rows.groupby("quantity", sort=False):
        axes.plot(some["minute"], some["similarity"] - some["ceiling"], marker="o", markersize=3, label=str(name))
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_title("single orders, by minute after the start", fontsize="medium")
    axes.set_xlabel("minute")
    axes.set_xticks(sorted(set(rows["minute"])))
    axes.set_ylabel("similarity less its ceiling")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
    axes.grid(alpha=0.3)
