"""The table of realism as text: for the screen, for a checkpoint's card, and as records for a file."""

from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis.realism_table import ALL_MINUTES, MEAN, MINUTE, ORDER

_CARD_SECTION = "## Realism"
"""Heading of what is written into a card."""
_NOTE = ("95% intervals; ceiling: history against itself, earlier: against history before the first start, floor: "
         "against the noise agent, or the usual class; W1 in historical interquartile ranges")


def with_section(card: str, table: pd.DataFrame) -> str:
    """A checkpoint's card with the means of a table as its last section, in the place of an older one."""
    means = table[(table["market"] == MEAN) & (table["minute"] == ALL_MINUTES)]
    lines = [_CARD_SECTION, "", f"Similarity (1 - total variation) of rollouts and what really followed, means over "
             f"{table['market'].nunique() - 1} markets with 95% intervals, by `marsjax.experiments.realism`. Ceiling: "
             "history against itself; earlier: against the same days before the first start; floor: against the noise "
             "agent; paper: Table 7, other days and markets.", "",
             "| of | quantity | similarity | ceiling | earlier | floor | paper |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['of']}s | {row['quantity']} | {_spelled(row, 'similarity')} | " + " | ".join(
        _number(row[name]) for name in ("ceiling", "earlier", "floor", "paper_similarity")) + " |"
        for _, row in means.iterrows()]
    return card.split(f"\n{_CARD_SECTION}\n")[0].rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def record(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The means over the markets as plain records."""
    means = table[table["market"] == MEAN].drop(columns="market")
    return [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]


def lines(table: pd.DataFrame) -> list[str]:
    """The means over the markets, those of all minutes and those of each minute after the start."""
    means = table[table["market"] == MEAN]
    found = [f"means over {table['market'].nunique() - 1} markets, {_NOTE}",
             f"{'':<26} {'similarity':>21} {'ceiling':>8} {'earlier':>8} {'floor':>6} {'paper':>6}   {'W1':>6} "
             f"{'ceiling':>8} {'earlier':>8} {'floor':>7}   {'accuracy':>20} {'floor':>6} {'paper':>6}"]
    for of, name in ((MINUTE, "minutes"), (ORDER, "orders")):
        rows = means[(means["of"] == of) & (means["minute"] == ALL_MINUTES)]
        found += [_line(name, row) for _, row in rows.iterrows()]
        found += [f"{name}: {row['quantity']}: {row['note']}" for _, row in rows.iterrows() if row["note"]]
    return [*found, *_horizons(means, MINUTE, "minutes", "wasserstein", "W1"),
            *_horizons(means, ORDER, "orders", "", "similarity")]


def _line(name: str, row: "pd.Series[Any]") -> str:
    cells = [f"{name + ': ' + row['quantity']:<26}", f"{_spelled(row, 'similarity'):>21}"]
    cells += [f"{_number(row[column]):>{width}}" for column, width in (
        ("ceiling", 8), ("earlier", 8), ("floor", 6), ("paper_similarity", 6), ("wasserstein", 8),
        ("wasserstein_ceiling", 8), ("wasserstein_earlier", 8), ("wasserstein_floor", 7))]
    cells += [f"{_spelled(row, 'accuracy'):>22}", f"{_number(row['accuracy_floor']):>6}",
              f"{_number(row['paper_accuracy']):>6}"]
    return " ".join(cells).rstrip()


def _horizons(means: pd.DataFrame, of: str, name: str, measure: str, title: str) -> list[str]:
    """A line a quantity, a column a minute after the start."""
    columns = (measure or "similarity", f"{measure}_ceiling".lstrip("_"), f"{measure}_floor".lstrip("_"))
    rows = means[(means["of"] == of) & (means["minute"] != ALL_MINUTES)]
    lines = [f"{title + ' (ceiling, floor) in minute':<36}" + "".join(f"{m:<21}" for m in sorted(set(rows["minute"])))]
    for quantity, some in rows.groupby("quantity", sort=False):
        cells = [[_number(row[column]) for column in columns] for _, row in some.iterrows()]
        lines.append((f"{name + ': ' + str(quantity):<36}"
                      + "".join(f"{a} ({b}, {c})".ljust(21) for a, b, c in cells)).rstrip())
    return lines


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _spelled(row: "pd.Series[Any]", name: str) -> str:
    if np.isnan(row[name]):
        return "-"
    return f"{row[name]:.3f} [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"
