"""Replays orders through the exchange and writes what it did. The config says from where: configs/replay.py."""

import contextlib
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax.analysis import market_summary
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, setup
from marsjax.experiments.replay_writer import ReplayWriter
from marsjax.experiments.run_folder import output_folder, write_json
from marsjax.sim import replay
from marsjax.studies import starts


def main(config: ConfigDict) -> int:
    """Runs a replay; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    spec = setup.market_spec(config, config.accounts)
    with output_folder(config.output, config.overwrite) as folder:
        feeds = _open(config, spec)
        writers = [ReplayWriter(folder / feed.name, feed.name, config.write_orders, config.write_snapshots,
                                feed.publishes_fills) for feed in feeds]
        closing = _run(config, spec, feeds, writers)
        markets = {writer.name: writer.finish(jax.tree.map(lambda x, m=m: x[m], closing.markets), config.picture)
                   for m, writer in enumerate(writers)}
        total = _total(markets, closing) | {"seconds": round(time.perf_counter() - began, 3)}
        write_json(folder / "summary.json", {"total": total, "markets": markets, "config": config})
    for name, market in markets.items():
        print(_line(name, market))
    print(f"{total['orders_per_s']} orders/s ({total['replay_s']} s, compiled in {total['compile_s']} s, "
          f"{total['seconds']} s in all) on {total['device']}; results in {Path(config.output)}")
    return launcher.finish([f"{name}: {problem}" for name, market in markets.items() for problem in _problems(market)])


def _open(config: ConfigDict, spec: MarketSpec) -> list[DayFeed]:
    if config.source != "noise":
        return setup.open_feeds(config)
    noise = setup.noise_market(config, "minutes", "seed")
    return starts.noise_feeds(spec, noise, setup.at_least(config, "markets", 1))


def _run(config: ConfigDict, spec: MarketSpec, feeds: list[DayFeed], writers: list[ReplayWriter]) -> replay.Closing:
    with contextlib.ExitStack() as files, tqdm(unit=" orders", unit_scale=True, desc="replay", disable=None) as bar:
        for writer in writers:
            files.callback(writer.close)
        for event in replay.replay(spec, [feed.read() for feed in feeds], chunk_orders=config.chunk_orders):
            match event:
                case replay.Stretch():
                    writers[event.market].stretch(event)
                    bar.update(len(event.orders.kind))
                case replay.Published():
                    writers[event.market].published(event)
                case replay.CallAuction():
                    writers[event.market].auction(event)
                case replay.Closing():
                    return event
    raise ValueError("replay: ended before its close")


def _total(markets: dict[str, Any], closing: replay.Closing) -> dict[str, Any]:
    sums = {key: sum(market[key] for market in markets.values())
            for key in ("orders", "accepted", "rejected", "trades", "volume", "value")}
    device = jax.devices()[0]
    return sums | {
        "conserved": all(market["conserved"] for market in markets.values()), "compile_s": round(closing.compile_s, 3),
        "replay_s": round(closing.run_s, 3), "orders_per_s": round(sums["orders"] / max(closing.run_s, 1e-9)),
        "device": f"{device.device_kind} ({device.platform})", "jax": jax.__version__}


def _problems(market: dict[str, Any]) -> list[str]:
    """Why the result is not all that was asked for."""
    found = market_summary.problems(market)
    if market["cut_transaction_lists"]:
        found.append(f"{market['cut_transaction_lists']} lists of transactions were cut: raise config.trade_width")
    fills = market.get("published_fills")
    if fills and not fills["equal"]:
        found.append(f"differs from the published trades: {fills['first_difference']}")
    return found


def _line(name: str, market: dict[str, Any]) -> str:
    fills = market.get("published_fills")
    return (f"{name}: {market['orders']} orders, {market['trades']} trades, {market['volume']} shares, "
            f"rejected {market['rejected']} {market['rejected_by_status'] or ''}, most resting "
            f"{market['most_resting_bids']} bids / {market['most_resting_asks']} asks of {market['capacity']}"
            + (f", {fills['compared']} fills and {fills['auctions_compared']} auctions "
               f"{'equal' if fills['equal'] else 'NOT equal'} to those published" if fills else ""))


if __name__ == "__main__":
    launcher.run("replay", main)
