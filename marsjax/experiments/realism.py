"""Realism of an order model by numbers: rollouts against the real minutes that they begin with. configs/realism.py."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import realism_plots, realism_table
from marsjax.analysis.realism_table import MEAN, MINUTE, ORDER, WHOLE
from marsjax.experiments import futures, launcher, markets, realism_sources
from marsjax.experiments.output import output_folder, write_json

_CARD_SECTION = "## Realism"
"""Heading of what this writes into a card."""


def main(config: ConfigDict) -> int:
    """Compares; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    market = markets.market_spec(config)
    _check(config)
    times = realism_sources.start_times(config, market)
    noise_times = realism_sources.noise_times(config, market, len(times))
    with output_folder(config.output, config.overwrite) as folder:
        simulator = markets.load_simulator(config)
        print(markets.headline(simulator, config), flush=True)
        days = [realism_sources.read(config, market, simulator, opened, times)
                for opened in realism_sources.open_days(config, market, dict(simulator.model.about))]
        print(f"{', '.join(day.name for day in days)}: {len(times)} starts each, {markets.spell(times[0])} to "
              f"{markets.spell(times[-1])}; bins by the orders before {markets.spell(times[0])}", flush=True)
        floor = realism_sources.noise(config, market, simulator, noise_times)
        starts, sent = [one for day in days for one in day.starts], realism_sources.Sent()
        seconds = {"prepared": time.perf_counter() - began}
        runs = futures.simulate(simulator, market, config, starts, on_trace=sent)
        seconds["simulated"] = time.perf_counter() - began
        told = futures.tally(runs, starts) | {"cancels_not_listed": sent.unlisted}
        rows, count = sent.by_trajectory(len(starts) * config.trajectories), len(times)
        compared = [realism_sources.compared(
            config, day, times, rows[i * count * config.trajectories :][: count * config.trajectories],
            runs[i * count :][:count], floor) for i, day in enumerate(days)]
        table = realism_table.table(compared, config.minutes, config.seed, config.resamples)
        table.to_csv(folder / "realism.csv", index=False)
        if config.picture:
            title = f"{config.model} against history, mean over {len(days)} markets"
            realism_plots.figure(table, title).savefig(folder / "realism.png", dpi=110)
        if config.card:
            card = Path(config.card)
            card.write_text(_with_section(card.read_text(encoding="utf-8"), table), encoding="utf-8")
        seconds["total"] = time.perf_counter() - began
        write_json(folder / "metrics.json", {
            "realism": _record(table[table["market"] == MEAN]), "markets": [day.name for day in days],
            "starts": len(times), "rollouts": told, "seconds": seconds,
            "bins": {day.name: {"_".join(key): len(edges) + 1 for key, edges in day.fixed.bins.items()}
                     for day in days},
            "model": markets.describe_model(simulator, config), **markets.environment(), "config": config})
    print("\n".join(_lines(table, config, told, seconds)))
    found = futures.complaints(told)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return futures.NOT_WHOLE if found else 0


def _check(config: ConfigDict) -> None:
    markets.check_rollouts(config)
    if config.card and not Path(config.card).is_file():
        raise FileNotFoundError(f"config.card: no file {config.card}")
    for key, least in (("every_minutes", 1), ("resamples", 2), ("noise_minutes", 1)):
        markets.whole(config, key, least)


def _with_section(card: str, table: pd.DataFrame) -> str:
    """A checkpoint's card with the means of a table as its last section, in the place of an older one."""
    means = table[(table["market"] == MEAN) & (table["minute"] == WHOLE)]
    lines = [_CARD_SECTION, "", f"Similarity (1 - total variation) of rollouts and what really followed, means over "
             f"{table['market'].nunique() - 1} markets with 95% intervals, by `marsjax.experiments.realism`. Ceiling: "
             "history against itself; earlier: against the same days before the first start; floor: against the noise "
             "agent; paper: Table 7, other days and markets.", "",
             "| of | quantity | similarity | ceiling | earlier | floor | paper |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['of']}s | {row['quantity']} | {_interval(row, 'similarity')} | " + " | ".join(
        _number(row[name]) for name in ("ceiling", "earlier", "floor", "paper_similarity")) + " |"
        for _, row in means.iterrows()]
    return card.split(f"\n{_CARD_SECTION}\n")[0].rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def _record(means: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items() if name != "market"} for row in means.to_dict("records")]


def _lines(table: pd.DataFrame, config: ConfigDict, told: dict[str, Any], seconds: dict[str, float]) -> list[str]:
    means = table[table["market"] == MEAN]
    lines = [f"means over {table['market'].nunique() - 1} markets, 95% intervals; ceiling: history against itself, "
             "earlier: against history before the first start, floor: against the noise agent, or the usual class; W1 "
             "in historical interquartile ranges",
             f"{'':<26} {'similarity':>21} {'ceiling':>8} {'earlier':>8} {'floor':>6} {'paper':>6}   {'W1':>6} "
             f"{'ceiling':>8} {'earlier':>8} "
             f"{'floor':>7}   {'accuracy':>20} {'floor':>6} {'paper':>6}"]
    for of, name in ((MINUTE, "minutes"), (ORDER, "orders")):
        for _, row in means[(means["of"] == of) & (means["minute"] == WHOLE)].iterrows():
            lines.append(f"{name + ': ' + row['quantity']:<26} {_interval(row, 'similarity'):>21} "
                         f"{_number(row['ceiling']):>8} {_number(row['earlier']):>8} {_number(row['floor']):>6} "
                         f"{_number(row['paper_similarity']):>6}   {_number(row['wasserstein']):>6} "
                         f"{_number(row['wasserstein_ceiling']):>8} {_number(row['wasserstein_earlier']):>8} "
                         f"{_number(row['wasserstein_floor']):>7}   "
                         f"{_interval(row, 'accuracy'):>20} {_number(row['accuracy_floor']):>6} "
                         f"{_number(row['paper_accuracy']):>6}".rstrip())
    lines += _horizons(means, MINUTE, "minutes", "wasserstein", "W1")
    lines += _horizons(means, ORDER, "orders", "", "similarity")
    if told["cancels_not_listed"]:
        lines.append(f"{told['cancels_not_listed']} cancels not listed, part of no number: a higher config.trade_width "
                     "lists them")
    return [*lines, f"{told['trajectories']} trajectories: {told['orders']} orders, rejected {told['rejected'] or 0}, "
            f"ended {told['ended']}, lost {told['lost']}; {told['orders_per_s']} orders/s ({told['run_s']} s, compiled "
            f"in {told['compile_s']} s, {seconds['total']:.1f} s in all); results in {config.output}"]


def _horizons(means: pd.DataFrame, of: str, name: str, measure: str, title: str) -> list[str]:
    """A line a quantity, a column a minute after the start."""
    columns = (measure or "similarity", f"{measure}_ceiling".lstrip("_"), f"{measure}_floor".lstrip("_"))
    rows = means[(means["of"] == of) & (means["minute"] != WHOLE)]
    lines = [f"{title + ' (ceiling, floor) in minute':<36}" + "".join(f"{m:<21}" for m in sorted(set(rows["minute"])))]
    for quantity, some in rows.groupby("quantity", sort=False):
        cells = [[_number(row[column]) for column in columns] for _, row in some.iterrows()]
        lines.append((f"{name + ': ' + str(quantity):<36}"
                      + "".join(f"{a} ({b}, {c})".ljust(21) for a, b, c in cells)).rstrip())
    return lines


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _interval(row: "pd.Series[Any]", name: str) -> str:
    if np.isnan(row[name]):
        return "-"
    return f"{row[name]:.3f} [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"


if __name__ == "__main__":
    launcher.run("realism", main)
