"""Controlled futures: those that follow a scenario, words, a curve or what really came, while orders still react.

    python -m marsjax.experiments.control --config=configs/control.py
    python -m marsjax.experiments.control --config=configs/control.py:scenario=reversal,strength=20
    python -m marsjax.experiments.control --config=control "--config.text=drop 0.2% in 3 minutes, then recover half"
    python -m marsjax.experiments.control --config=control:quiet,curve=curve.csv,trajectories=256
    python -m marsjax.experiments.control --config=control:sse,folder=data/sse,symbol=600761,time=14:10:00,replay
    python -m marsjax.experiments.control --config=control:execute=twap --config.ratio=0.2

Many futures of one state are run side by side. Every `every_s` seconds those that fit the target are copied and the
others dropped, so that what is left has gone where it should, order by order, by the model's own law. Beside them stand
as many futures without control, of the same random numbers.

One of four things says where to: `scenario` (drop, rise, reversal, calm, burst, illiquid) with `strength` in basis
points; `text`, a sentence (one with a comma as --config.text alone); `curve`, a CSV of minutes and returns; or
`replay`, the mid of the real day after the start. None: a drop.

Writes control.png, results.json, intervals.csv (the fit, by interval), minutes.csv.gz (every minute of every future),
realism.csv (what control cost) and, with more than one of `strengths` or `counts`, sweep.csv. With `execute` an
execution trades in the controlled futures, too: a third kind, of the same target.

Argument: the source first (default, quiet, busy, noise or a kind of feed), then `scenario`, `strength`, `text`,
`curve`, `replay`, `execute`, `folder`, `file`, `symbol`, `date`, `time`, `model`, `trajectories`, `minutes`, `seed`,
`output`. Exit code 3: written, but trajectories or orders were lost, or no future of an island had any weight.
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
    add_noise,
    add_order_model,
    add_rollouts,
    add_strategy,
    add_tables,
)

MODE = "source"
IGNORED = FEED_IGNORED | dict.fromkeys(made_days.NAMES, (*FEED_ARGUMENTS, "time", "replay")) | {
    "noise": (*FEED_ARGUMENTS, "time", "replay")}
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of controlled futures; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (*made_days.NAMES, "noise", *sources.names()), IGNORED, **FEED_ARGUMENTS, time="",
                       scenario="", strength=0.0, text="", curve="", replay=False, execute="", model="default",
                       trajectories=128, minutes=5, seed=0, output="")
    is_noise = chosen.mode == "noise"
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.time = chosen.time or "10:30:00"  # of the start in a real day
    config.scenario = chosen.scenario  # drop, rise, reversal, calm, burst or illiquid; empty: drop, if nothing else is
    # Of the scenario: basis points of drop, rise and reversal, 30 unless given; of the others a multiple of what is
    # usual: calm 0.5, burst 1.2, illiquid 0.9.
    config.strength = chosen.strength
    config.text = chosen.text  # a scenario in words, as: drop 0.2% in 3 minutes, then recover half
    config.curve = chosen.curve  # a CSV with the columns minute and return_bp, or minute and price
    config.replay = chosen.replay  # whether the target is the mid of the real day after the start
    config.trajectories = chosen.trajectories  # futures of each kind
    config.minutes = chosen.minutes  # length of a future; of a text at least what it describes
    config.seed = chosen.seed  # of the futures
    config.output = chosen.output  # a new folder; empty: runs/control_SOURCE, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.picture = True  # control.png
    config.realism = True  # whether orders are kept, for realism.csv; without them it is of intervals alone

    config.every_s = 60  # seconds between two times of control
    config.scale_bp = 2.5  # of targets of prices: a future so far off has .6 of the weight of one on the target
    config.island = 0  # resample and both: futures among which copies are made, islands apart from one another; 0: all
    config.resample_below = 0.5  # resample and both: effective share of the weights below which copies are made
    # resample: futures that fit are copied; batch: each future is led by the order-batch model and the ensemble of the
    # checkpoint; both.
    config.way = "resample"
    config.candidates = 8  # batch and both: batches of orders that are proposed for a minute, the nearest is told
    # batch and both: how loudly the ensemble tells it, 1 as it was trained, 0 not at all; above 1 the trained change
    # stays as at 1, and (told - 1) times a second, smoother map is added.
    config.told = 1.0
    config.most_decisions = 10_000  # batch and both: of a future in a minute, beyond which the run is given up
    # Of the control: 0 none, 1 as the scale says; the first is shown, more make a sweep. One with way=batch, where all
    # are alike.
    config.strengths = (1.0,)
    config.counts = (0,)  # numbers of futures of further runs of the sweep; 0: none

    config.execute = chosen.execute  # twap, vwap, participation or immediate, beside; empty: no execution
    config.side = "buy"  # of the execution: buy or sell
    config.ratio = 0.1  # its shares over the mean volume without control
    add_strategy(config)

    add_order_model(config, chosen.model)
    add_adaptation(config)
    add_rollouts(config)
    add_market(config, is_noise, trade_width=32)
    add_tables(config)
    add_noise(config)
    return config
