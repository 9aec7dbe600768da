"""Markets without an order model: thousands of books of noise agents at once. See configs/simulate.py."""

import dataclasses
import time

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax.analysis import bars, forecast_plots, market_summary
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.observers.bars import Bars
from marsjax.sim.initial import NoiseRun
from marsjax.studies import noise_bars
from marsjax.studies.starts import NoiseMarket

_ON_A_CPU, _ELSEWHERE = 64, 1000


def main(config: ConfigDict) -> int:
    """Runs noise markets; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    market, noise = markets.noise_spec(config), setup.noise_market(config, "minutes", "seed")
    steps = setup.at_least(config, "chunk_steps", 1, limits.STEPS_OF_A_CALL)
    noise = dataclasses.replace(noise, warmup=dataclasses.replace(noise.warmup, steps_per_call=steps))
    books = setup.at_least(config, "books", 0) or (_ON_A_CPU if jax.default_backend() == "cpu" else _ELSEWHERE)
    date = _date(config)
    output = run_folder.of_config(config, "simulate")
    with output as folder:
        run = _run(market, noise, books)
        table = noise_bars.as_table(run.kept, noise, date, config.symbol, config.source)
        bars.write(folder / "bars.csv.gz", table)
        total = {"books": books, **market_summary.summarize(run.market), "bars": len(table),
                 "compile_s": round(run.compile_s, 3), "run_s": round(run.run_s, 3)}
        total["orders_per_s"] = round(total["orders"] / max(run.run_s, 1e-9))
        if config.picture:
            title = f"{config.pictured} of {books} noise markets"
            shown = noise_bars.mids(run.kept)[: config.pictured]
            forecast_plots.paths(shown, title).savefig(folder / "mids.png", dpi=110)
        total["seconds"] = round(time.perf_counter() - began, 3)
        write_json(folder / "summary.json", {"total": total, **setup.about(config)})
    print(f"{books} books: {total['orders']} orders, {total['trades']} trades, {total['volume']} shares, rejected "
          f"{total['rejected_by_status'] or 0}, most resting {total['most_resting_bids']} bids / "
          f"{total['most_resting_asks']} asks of {market.capacity}, "
          f"{'nothing lost' if total['conserved'] else 'NOT conserved'}")
    print(f"{total['orders_per_s']} orders/s ({total['run_s']} s, compiled in {total['compile_s']} s, "
          f"{total['seconds']} s in all); {run_folder.told(output, 'mids.png', config.picture)}")
    return launcher.finish(market_summary.problems(total))


def _run(market: MarketSpec, noise: NoiseMarket, books: int) -> NoiseRun[Bars]:
    with tqdm(total=noise.warmup.duration_ns // SECOND_NS, unit="s", desc="simulated", disable=None) as bar:
        def on_call(earliest_ns: int) -> None:
            bar.update((earliest_ns - noise.warmup.start_ns) // SECOND_NS - bar.n)

        return noise_bars.run(market, noise, books, on_call)


def _date(config: ConfigDict) -> str:
    try:
        return str(np.datetime64(config.date, "D"))
    except ValueError as error:
        raise InputError(f"config.date: expected a date like 2024-03-06, got {config.date!r}") from error


if __name__ == "__main__":
    launcher.run("simulate", main)
