"""Prepares days of real orders for training, as a folder of token shards. The config: configs/prepare.py."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import marsjax
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.specs import TokenSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, markets, setup
from marsjax.studies import token_shards, worker_processes
from marsjax.training.day_shard import ShardSpec


def main(config: ConfigDict) -> int:
    """Prepares what is missing; returns 0, or INCOMPLETE where orders were refused that a right reading lets in."""
    began = time.perf_counter()
    limits.check_whole("config.workers", config.workers, 0, 1024)
    feeds = markets.open_feeds(config)
    made = token_shards.prepare(Path(config.output), shard_spec(config, feeds), feeds, held_out(config, feeds),
                                config.workers or worker_processes.cores(), markets.KEYS, marsjax.__version__)
    for day in made.days:
        if day["told"]:
            print(f"{day['name']}: {day['told']}")
    tokens = sum(part["rows"] for day in made.days for part in (day["tokens"], day["image"]) if part)
    print(f"{len(made.days)} days, {tokens:,} tokens, mirror images included; {time.perf_counter() - began:.0f} s; "
          f"train with shards={config.output}")
    return launcher.finish(problems(made.days))


def shard_spec(config: ConfigDict, feeds: Sequence[DayFeed]) -> ShardSpec:
    """How the days are made into tokens; InputError names a key with a wrong value."""
    bins = TokenSpec(config.price_bins, config.volume_bins, config.interval_bins, config.signals)
    hours = {f"{key}_ns": setup.time_ns(config, key) for key in ("validation_from", "held_from")}
    if not hours["validation_from_ns"] < hours["held_from_ns"]:
        raise InputError(f"config.validation_from: expected a time before config.held_from={config.held_from}, got "
                         f"{config.validation_from}")
    try:
        return setup.spec_of(ShardSpec, config, market=markets.one_market(config, feeds), tokens=bins,
                             length=config.context_length, **hours)
    except InputError as error:
        raise InputError(str(error).replace("config.length", "config.context_length")) from error


def held_out(config: ConfigDict, feeds: Sequence[DayFeed]) -> list[str]:
    """The symbols whose days are held out whole; InputError where one has no day."""
    held = [symbol for symbol in config.held_out_symbols.split("+") if symbol]
    unknown = set(held) - {feed.symbol for feed in feeds}
    if unknown:
        raise InputError(f"config.held_out_symbols: no day of {', '.join(sorted(unknown))} among "
                         f"{', '.join(feed.name for feed in feeds[:20])}{', ...' * (len(feeds) > 20)}")
    return held


def problems(days: Sequence[dict[str, Any]]) -> list[str]:
    """Why the tokens of days are not those of their whole feeds, one line each."""
    return [f"{day['name']}: {problem}" for day in days for problem in day["problems"]]


if __name__ == "__main__":
    launcher.run("prepare", main)
