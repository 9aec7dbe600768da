"""Prepares days of real orders for training: replay, bins, tokens, once, as a folder that `train` streams.

    python -m marsjax.experiments.prepare --config=configs/prepare.py:default,folder=data/sse,output=runs/shards
    python -m marsjax.experiments.train --config=configs/train.py:default,shards=runs/shards

For more days than are to be replayed before each training, or than fit in memory. Days are prepared by processes side
by side. A preparation that was ended goes on when the same command is given again. What the two commands have in common
(bins, signals, hours, symbols held out, mirror images) must be the same; `default` and `joint` are those of `train`.

Argument: `default` or `joint`, then `source` (sse unless given, or another kind of feed), `folder` of the data, `file`,
`symbol` (several: 600536+600761; all unless given), `date`, `output`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import UsageError, parse_arg
from marsjax.experiments.config_parts import FEED_ARGUMENTS, FEED_IGNORED, add_feed, add_market, add_tokens

MODE = "source"
IGNORED = FEED_IGNORED
"""Keys by the source with which they have no effect."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a preparation; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("default", "joint"), source="sse", **FEED_ARGUMENTS | {"symbol": ""}, output="runs/shards")
    given = [key for key in IGNORED.get(chosen.source, ()) if chosen[key]]
    if given:
        raise UsageError(f"config argument {given[0]}={chosen[given[0]]!r} has no effect with source={chosen.source}")
    config = ConfigDict()
    add_feed(config, chosen, chosen.source)
    config.symbol = chosen.symbol or "all"  # one symbol, several joined by +, or all
    config.output = chosen.output  # a new folder, or one of this preparation, which then goes on
    config.bins_days = 100  # most days that bins are fitted on, spread evenly over all; 0: all. They are replayed twice
    config.workers = 0  # processes, each with a day at a time on one core; 0: as many as there are cores
    add_market(config, is_noise=False, trade_width=1)  # of the lists of transactions tokens need no more
    add_tokens(config, small=chosen.mode == "default")
    config.context_length = 1024  # of the model to be trained: each day that is trained on must have more orders
    return config
