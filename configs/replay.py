"""Replays orders through the exchange: of the noise agent, of real days, or of a CSV file.

    python -m marsjax.experiments.replay --config=configs/replay.py:noise
    python -m marsjax.experiments.replay --config=configs/replay.py:sse,folder=data/sse,symbol=600519
    python -m marsjax.experiments.replay --config=configs/replay.py:lobster,folder=data/lobster
    python -m marsjax.experiments.replay --config=configs/replay.py:csv,file=orders.csv.gz

Argument: the source first (noise or a kind of feed), then key=value pairs: `folder` of the data, `symbol` and `date`
(several symbols: 600519+600536; all that the folder holds: all), `file` for csv, `output`. Session, tick, auction rule
and units are those of the feed unless they are set; days of several markets are replayed each in its own. Exit code 3:
written, but orders were refused that a right reading would not have refused; the message says which key to set.
"""

from ml_collections import ConfigDict

from marsjax.data import sources
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import FEED_ARGUMENTS, FEED_IGNORED, add_feed, add_market, add_tables

MODE = "source"
IGNORED = FEED_IGNORED
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a replay; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("noise", *sources.names()), IGNORED, **FEED_ARGUMENTS, output="")
    source, is_noise = chosen.mode, chosen.mode == "noise"
    config = ConfigDict()
    add_feed(config, chosen, source)
    config.output = chosen.output  # a new folder; empty: runs/replay_SOURCE, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced

    add_market(config, is_noise, trade_width=32 if is_noise else 0)
    config.accounts = 1 if is_noise else 0  # accounts; agent ids are 0 to accounts - 1; 0: as many as the feed says

    config.seed = 0  # of the noise agent
    config.markets = 1  # noise markets to make
    config.minutes = 30  # of noise
    config.interval_s = 1.0  # mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # around which the noise agent starts, 1e-4 of the currency

    config.chunk_orders = 8192  # orders of each market in one compiled call
    add_tables(config)
    config.write_orders = True  # the table of orders
    config.write_snapshots = True  # that of snapshots, ten levels after every order
    config.write_lobster = False  # messages and order books in LOBSTER's format, too
    config.picture = True  # day.png
    return config
