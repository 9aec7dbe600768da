"""Replays orders through the exchange and writes what it did. The config says from where: configs/replay.py."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax import replay
from marsjax.experiments import launcher, sources
from marsjax.experiments.output import output_folder, write_json
from marsjax.experiments.recorder import Recorder
from marsjax.specs import MarketSpec
from marsjax.types import Status

NOT_WHOLE = 3
"""Exit code of a replay that was written but lost orders or does not equal what the exchange published."""


def main(config: ConfigDict) -> int:
    """Runs a replay; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    spec = sources.market_spec(config)
    with output_folder(config.output, config.overwrite) as folder:
        opened = sources.open_sources(config, spec)
        recorders = [Recorder(folder / source.name, source.name, config.write_orders, config.write_snapshots,
                              source.publishes_fills) for source in opened]
        closing = _run(config, spec, opened, recorders)
        markets = {recorder.name: recorder.finish(spec, jax.tree.map(lambda x, m=m: x[m], closing.markets),
                                                  config.picture) for m, recorder in enumerate(recorders)}
        total = _total(markets, closing) | {"seconds": round(time.perf_counter() - began, 3)}
        write_json(folder / "summary.json", {"total": total, "markets": markets, "config": config})
    _print(total, markets, Path(config.output))
    complaints = [complaint for name, market in markets.items() for complaint in _complaints(name, market)]
    print("\n".join(complaints), file=sys.stderr, end="\n" if complaints else "")
    return NOT_WHOLE if complaints else 0


def _run(config: ConfigDict, spec: MarketSpec, opened: list[sources.Source], recorders: list[Recorder]
         ) -> replay.Closing:
    with contextlib.ExitStack() as files, tqdm(unit=" orders", unit_scale=True, desc="replay", disable=None) as bar:
        for recorder in recorders:
            files.callback(recorder.close)
        for event in replay.replay(spec, [source.feed for source in opened], chunk_orders=config.chunk_orders):
            match event:
                case replay.Stretch():
                    recorders[event.market].stretch(event)
                    bar.update(len(event.orders.kind))
                case replay.Published():
                    recorders[event.market].published(event)
                case replay.CallAuction():
                    recorders[event.market].auction(event)
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


def _complaints(name: str, market: dict[str, Any]) -> list[str]:
    """Why the result is not to be taken for the whole of what was asked for."""
    found = []
    full = market["rejected_by_status"].get(Status.SIDE_FULL.name, 0)
    if full:
        found.append(f"{name}: {full} orders refused, a side was full: set config.capacity above {market['capacity']}")
    strangers = market["rejected_by_status"].get(Status.BAD_OWNER.name, 0)
    if strangers:
        found.append(f"{name}: {strangers} orders refused, their agent has no account: raise config.owners")
    if market["cut_transaction_lists"]:
        found.append(f"{name}: {market['cut_transaction_lists']} lists of transactions were cut: raise "
                     "config.trade_width")
    if not market["conserved"]:
        found.append(f"{name}: shares or cash were not conserved")
    fills = market.get("published_fills")
    if fills and not fills["equal"]:
        found.append(f"{name}: differs from the published trades: {fills['first_difference']}")
    return found


def _print(total: dict[str, Any], markets: dict[str, Any], folder: Path) -> None:
    for name, market in markets.items():
        fills = market.get("published_fills")
        print(f"{name}: {market['orders']} orders, {market['trades']} trades, {market['volume']} shares, "
              f"rejected {market['rejected']} {market['rejected_by_status'] or ''}, most resting "
              f"{market['most_resting_bids']} bids / {market['most_resting_asks']} asks of {market['capacity']}"
              + (f", {fills['compared']} fills and {fills['auctions_compared']} auctions "
                 f"{'equal' if fills['equal'] else 'NOT equal'} to those published" if fills else ""))
    print(f"{total['orders_per_s']} orders/s ({total['replay_s']} s, compiled in {total['compile_s']} s, "
          f"{total['seconds']} s in all) on {total['device']}; results in {folder}")


if __name__ == "__main__":
    launcher.run("replay", main)
