"""Markets without an order model: thousands of books of noise agents at once. See configs/simulate.py."""

import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax import clock, exchange, start
from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import bars, forecast_plots
from marsjax.experiments import launcher, markets, noise_market, sources
from marsjax.experiments.futures import NOT_WHOLE
from marsjax.experiments.output import output_folder, write_json
from marsjax.specs import SECOND_NS, MarketSpec
from marsjax.types import Market, Side, Status

_ON_A_CPU, _ELSEWHERE = 64, 1000


def main(config: ConfigDict) -> int:
    """Runs noise markets; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    market = MarketSpec(tick=config.tick, capacity=config.capacity, trade_width=config.trade_width, owners=1,
                        session=sources.session(config))
    warmup = start.Warmup(start_ns=sources.time_ns(config, "start_time"),
                          duration_ns=markets.whole(config, "minutes", 1) * 60 * SECOND_NS,
                          steps_per_call=markets.whole(config, "chunk_steps", 1))
    agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
    books = markets.whole(config, "books", 0) or (_ON_A_CPU if jax.default_backend() == "cpu" else _ELSEWHERE)
    date, watch = _date(config), noise_market.Watch(market, warmup)
    with output_folder(config.output, config.overwrite) as folder:
        run = _run(market, agent, warmup, config.seed, books, watch)
        table = noise_market.as_bars(run.kept, warmup, date, config.symbol, config.source)
        bars.write(folder / "bars.csv.gz", table)
        told = summary(run.market) | {
            "bars": len(table), "capacity": market.capacity, "compile_s": round(run.compile_s, 3),
            "run_s": round(run.run_s, 3)}
        told["orders_per_s"] = round(told["orders"] / max(run.run_s, 1e-9))
        if config.picture:
            mids = np.where(run.kept.orders > 0, np.asarray(run.kept.mid_twice_last) / 2, np.nan)
            title = f"{config.pictured} of {books} noise markets"
            forecast_plots.paths(mids[: config.pictured], title).savefig(folder / "mids.png", dpi=110)
        told["seconds"] = round(time.perf_counter() - began, 3)
        write_json(folder / "summary.json", {"total": told, **markets.environment(), "config": config})
    print(f"{books} books: {told['orders']} orders, {told['trades']} trades, {told['shares']} shares, rejected "
          f"{told['rejected'] or 0}, most resting {told['most_resting_bids']} bids / {told['most_resting_asks']} asks "
          f"of {market.capacity}, {'nothing lost' if told['conserved'] else 'NOT conserved'}")
    print(f"{told['orders_per_s']} orders/s ({told['run_s']} s, compiled in {told['compile_s']} s, {told['seconds']} s "
          f"in all); results in {config.output}")
    found = _complaints(told)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return NOT_WHOLE if found else 0


def _run(market: MarketSpec, agent: NoiseSpec, warmup: start.Warmup, seed: int, books: int, watch: noise_market.Watch
         ) -> start.NoiseRun[noise_market.Minutes]:
    with tqdm(total=warmup.duration_ns // SECOND_NS, unit="s", desc="simulated", disable=None) as bar:
        def on_call(earliest_ns: int) -> None:
            bar.update((earliest_ns - warmup.start_ns) // SECOND_NS - bar.n)

        return start.noise_watched(market, agent, warmup, seed, books, watch, watch.none(), on_call)


def _date(config: ConfigDict) -> str:
    try:
        return str(np.datetime64(config.date, "D"))
    except ValueError as error:
        raise ValueError(f"config.date: expected a date like 2024-03-06, got {config.date!r}") from error


def summary(market: Market) -> dict[str, Any]:
    """What B markets did together, as plain numbers."""
    lost = jax.tree.leaves(jax.jit(jax.vmap(exchange.conservation))(market))
    counters = jax.tree.map(np.asarray, market.counters)
    status = {reason.name: int(counters.status[:, reason].sum()) for reason in Status if reason != Status.NO_ORDER}
    accepted = status.pop(Status.ACCEPTED.name)
    rejected = {name: count for name, count in status.items() if count}
    return {
        "books": len(counters.fills), "orders": accepted + sum(rejected.values()), "accepted": accepted,
        "rejected": rejected, "trades": int(counters.fills.astype(np.int64).sum()),
        "shares": int(clock.wide_to_numpy(counters.traded).sum()),
        "value": int(clock.wide_to_numpy(counters.value).sum()),
        "most_resting_asks": int(counters.most_resting[:, Side.ASK].max()),
        "most_resting_bids": int(counters.most_resting[:, Side.BID].max()),
        "cut_transaction_lists": int(counters.cut_lists.sum()), "conserved": not any(np.any(x) for x in lost)}


def _complaints(told: dict[str, Any]) -> list[str]:
    found = []
    full = told["rejected"].get(Status.SIDE_FULL.name, 0)
    if full:
        found.append(f"{full} orders refused, a side was full: set config.capacity above {told['capacity']}")
    if not told["conserved"]:
        found.append("shares or cash were not conserved")
    return found


if __name__ == "__main__":
    launcher.run("simulate", main)
