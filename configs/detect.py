"""Watches a day of orders: which minutes an order model's futures of the same minutes do not account for.

    python -m marsjax.experiments.detect --config=configs/detect.py
    python -m marsjax.experiments.detect --config=configs/detect.py:quiet,inject=spoofing
    python -m marsjax.experiments.detect --config=configs/detect.py:sse,folder=data/sse,symbol=600761
    python -m marsjax.experiments.detect --config=configs/detect.py:sse,folder=data/sse,symbol=600761,inject=pump

A day that comes with the order model (default, quiet, busy), or a real day of any feed, is cut into intervals. Futures
start from the state before each, and what really came is ranked among them. Real markets are not the model's: intervals
up to `clean_until` are taken to be clean, and how far the others lie from their futures is ranked among these. Both are
p-values that keep their rate of false alarms, the first in the model's own markets, the second as long as intervals can
be exchanged for one another. An alarm is no proof of anything.

With `inject` a manipulator's orders are put into the day (spoofing, layering, pump, wash): a case whose truth is known.
Nobody in a recorded day reacts to them.

Writes intervals.csv (every interval with its p-values and features), results.json and detection.png. That is a rollout
for every interval: on a CPU set fewer trajectories or longer intervals. Argument: the source first, then `folder`,
`file`, `symbol`, `date`, `clean_until`, `inject`, `model`, `trajectories`, `minutes`, `seed`, `output`. Exit code 3:
written, but trajectories or orders were lost.
"""

from ml_collections import ConfigDict

from marsjax.data import made_days, sources
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    FEED_IGNORED,
    add_adaptation,
    add_feed,
    add_market,
    add_order_model,
    add_rollouts,
)

MODE = "source"
IGNORED = FEED_IGNORED | dict.fromkeys(made_days.NAMES, (*FEED_ARGUMENTS,))
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a watched day; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (*made_days.NAMES, *sources.names()), IGNORED, **FEED_ARGUMENTS, clean_until="", inject="",
                       model="default", trajectories=64, minutes=2, seed=0, output="")
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.first_time = ""  # of the first interval, HH:MM:SS; empty: as many minutes after the first trading as one has
    config.last_time = ""  # no interval ends after it; empty: the end of the day, or of a day of a model
    config.clean_until = chosen.clean_until  # intervals up to here are taken to be clean; empty: none are
    config.trajectories = chosen.trajectories  # futures of each interval
    config.minutes = chosen.minutes  # length of an interval
    config.seed = chosen.seed  # of the futures
    config.output = chosen.output  # a new folder; empty: runs/detect_SOURCE, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.picture = True  # detection.png

    config.rate = 0.05  # of false alarms, an interval
    config.combination = "ranks"  # of the features' distances: ranks, mean_square or largest
    config.usual_minutes = 30.0  # simple detectors: what is usual at a time is that of clean intervals about so near

    config.inject = chosen.inject  # spoofing, layering, pump or wash, put into the day; empty: nothing
    config.inject_time = ""  # of its first order, HH:MM:SS; empty: 1 s into the middle interval that is not clean
    config.inject_seconds = 60  # from its first order to its last, even
    config.inject_size = 10_000  # shares, above 0: of the false orders, of the pump, or traded with itself
    config.inject_direction = "buy"  # buy drives the price up, sell down

    add_order_model(config, chosen.model)
    add_adaptation(config)
    add_rollouts(config, most_at_once=1024)

    add_market(config, is_noise=False, trade_width=64)
    return config
