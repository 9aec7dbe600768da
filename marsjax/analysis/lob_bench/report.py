"""The table of LOB-Bench as text, for the screen, and as records for a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis.lob_bench.table import (
    ALL_MINUTES,
    AUC,
    CONDITIONAL,
    DEVIATION,
    DISCRIMINATOR,
    L1,
    MEAN,
    OTHERS,
    RESPONSE,
    SUMMARY,
    UNCONDITIONAL,
    WASSERSTEIN,
)

_SIDE = ("ceiling", *OTHERS)
_TITLES = {L1: "L1", WASSERSTEIN: "W1", DEVIATION: "mean absolute difference, spreads", AUC: "area under ROC"}


def record(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The means over the markets as plain records."""
    means = table[table["market"] == MEAN].drop(columns="market")
    return [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]


def lines(table: pd.DataFrame) -> list[str]:
    """The means over the markets, a line a statistic, and those of the minutes after the start."""
    means = table[(table["market"] == MEAN) & (table["minute"] == ALL_MINUTES)]
    found = [f"LOB-Bench, means over {table['market'].nunique() - 1} markets, 95% intervals; low is good. ceiling: "
             "history against itself, earlier: against history before the first start, other_day: against another day "
             "of the symbol, floor: against the noise agent"]
    for measures, sections in (((L1, WASSERSTEIN), (SUMMARY, UNCONDITIONAL, CONDITIONAL)), ((DEVIATION,), (RESPONSE,)),
                               ((AUC,), (DISCRIMINATOR,))):
        some = means[means["section"].isin(sections)]
        if some.empty:
            continue
        found.append(f"{'':<26}" + "".join(f" {_TITLES[measure]:>22}" + "".join(f" {name:>9}" for name in _SIDE)
                                           for measure in measures))
        for _, group in some.groupby(["section", "statistic"], sort=False):
            found += _line(group, measures)
    return found + _horizons(table[(table["market"] == MEAN) & (table["minute"] != ALL_MINUTES)])


def _line(group: pd.DataFrame, measures: tuple[str, ...]) -> list[str]:
    rows = {row["measure"]: row for row in group.to_dict("records")}
    name, notes = f"{group.iloc[0]['statistic']:<26}", [note for note in dict.fromkeys(group["note"]) if note]
    if group["value"].isna().all():
        return [f"{name} {notes[0]}"]
    cells = ""
    for measure in measures:
        cells += f" {_spelled(rows[measure]):>22}" + "".join(f" {_number(rows[measure][side]):>9}" for side in _SIDE)
    return [name + cells, *(f"{'':<26}   {note}" for note in notes)]


def _horizons(rows: pd.DataFrame) -> list[str]:
    """A line a statistic, a column a minute after the start; a minute without a figure is empty."""
    if rows.empty:
        return []
    minutes = sorted(set(rows["minute"]))
    found = [f"{'L1 (ceiling) in minute':<26}" + "".join(f"  {minute:<15}" for minute in minutes)]
    for name, some in rows.groupby("statistic", sort=False):
        cells = [f"  {_number(row['value'])} ({_number(row['ceiling'])})".ljust(17) for _, row in some.iterrows()]
        found.append(f"{name:<26}{''.join(cells)}".rstrip())
    return found


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _spelled(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["value"]):
        return "-"
    return f"{row['value']:.3f} [{_number(row['low'])}, {_number(row['high'])}]"
