"""Replays orders through the exchange and writes what it did. The config says from where: configs/replay.py."""

import contextlib
import time
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax.core import sessions, times
from marsjax.core.times import DAY_NS
from marsjax.experiments import launcher, markets, run_folder, setup, table_files
from marsjax.experiments.markets import MarketGroup
from marsjax.experiments.replay_writer import ReplayWriter, WriterOptions, WrittenMarket
from marsjax.experiments.run_folder import write_json
from marsjax.sim import replay
from marsjax.studies import starts


def main(config: ConfigDict) -> int:
    """Runs a replay; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    table_files.check_form(config.tables)
    opened, output = _open(config), run_folder.of_config(config, f"replay_{config.source}")
    with output as folder:
        done: dict[str, WrittenMarket] = {}
        seconds = {"compile_s": 0.0, "replay_s": 0.0}
        for group in opened:
            writers = [ReplayWriter(folder / feed.name, feed, group.market, _options(config)) for feed in group.feeds]
            closing = _run(config, group, writers)
            done |= {writer.name: writer.finish(jax.tree.map(lambda x, m=m: x[m], closing.markets))
                     for m, writer in enumerate(writers)}
            seconds["compile_s"] += closing.compile_s
            seconds["replay_s"] += closing.run_s
        summaries = {name: replayed.summary for name, replayed in done.items()}
        total = _total(summaries, seconds) | {"seconds": round(time.perf_counter() - began, 3)}
        write_json(folder / "summary.json", {"total": total, "markets": summaries, "config": config})
    for name, market in summaries.items():
        print(_line(name, market))
    told = run_folder.told(output, f"{next(iter(summaries), '')}/day.png", config.picture)
    print(f"{total['orders_per_s']} orders/s ({total['replay_s']} s, compiled in {total['compile_s']} s, "
          f"{total['seconds']} s in all) on {total['device']}; {told}")
    return launcher.finish([f"{name}: {problem}" for name, replayed in done.items() for problem in replayed.problems])


def _options(config: ConfigDict) -> WriterOptions:
    return WriterOptions(config.write_orders, config.write_snapshots, config.tables, config.prices,
                         config.write_lobster, config.picture)


def _open(config: ConfigDict) -> list[MarketGroup]:
    if config.source != markets.NOISE:
        return markets.groups(config, markets.open_feeds(config, or_else=(markets.NOISE,)))
    spec = markets.noise_spec(config)
    noise = setup.noise_market(config, "minutes", "seed")
    return [MarketGroup(spec, starts.noise_feeds(spec, noise, setup.at_least(config, "markets", 1)))]


def _run(config: ConfigDict, group: MarketGroup, writers: list[ReplayWriter]) -> replay.Closing:
    with contextlib.ExitStack() as files, _Bar(group) as bar:
        for writer in writers:
            files.callback(writer.close)
        for event in replay.replay(group.market, [feed.read() for feed in group.feeds],
                                   chunk_orders=config.chunk_orders):
            match event:
                case replay.Stretch():
                    writers[event.market].stretch(event)
                    bar.update(event)
                case replay.Published():
                    writers[event.market].published(event)
                case replay.CallAuction():
                    writers[event.market].auction(event)
                case replay.Closing():
                    return event
    raise ValueError("replay: ended before its close")


class _Bar:
    """A bar of the hours of trading of all markets that are behind, with the orders so far; a context manager."""

    def __init__(self, group: MarketGroup) -> None:
        self._session = group.market.session
        self._seconds, self._orders = [0] * len(group.feeds), 0
        self._bar = tqdm(total=len(group.feeds) * sessions.open_seconds(self._session, DAY_NS), unit="s of trading",
                         desc="replay", disable=None)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, done: replay.Stretch) -> None:
        """After some orders of a market."""
        if not len(done.orders.kind):
            return
        now = sessions.open_seconds(self._session, int(times.to_ns(done.orders.time)[-1]))
        self._orders += len(done.orders.kind)
        self._bar.set_postfix_str(f"{self._orders:,} orders", refresh=False)
        self._bar.update(max(now - self._seconds[done.market], 0))
        self._seconds[done.market] = max(now, self._seconds[done.market])


def _total(found: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    sums = {key: sum(market[key] for market in found.values())
            for key in ("orders", "accepted", "rejected", "trades", "volume", "value")}
    device = jax.devices()[0]
    return sums | {
        "conserved": all(market["conserved"] for market in found.values()),
        **{name: round(value, 3) for name, value in seconds.items()},
        "orders_per_s": round(sums["orders"] / max(seconds["replay_s"], 1e-9)),
        "device": f"{device.device_kind} ({device.platform})", "jax": jax.__version__}


def _line(name: str, market: dict[str, Any]) -> str:
    fills = market.get("published_fills")
    return (f"{name}: {market['orders']} orders, {market['trades']} trades, {market['volume']} shares, "
            f"rejected {market['rejected']} {market['rejected_by_status'] or ''}, "
            + "".join(f"{what} {market[key]}, " for what, key in (
                ("without an order", "ignored_messages"), ("adapted", "adapted_messages")) if market[key])
            + f"most resting "
            f"{market['most_resting_bids']} bids / {market['most_resting_asks']} asks of {market['capacity']}"
            + (f", {fills['compared']} fills and {fills['auctions_compared']} auctions "
               f"{'equal' if fills['equal'] else 'NOT equal'} to those published" if fills else ""))


if __name__ == "__main__":
    launcher.run("replay", main)
