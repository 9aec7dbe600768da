"""Forecasts the mean mid price of the next minutes: many futures of one market, written by an order model.

    python -m marsjax.experiments.forecast --config=configs/forecast.py
    python -m marsjax.experiments.forecast --config=configs/forecast.py:quiet,trajectories=512
    python -m marsjax.experiments.forecast --config=configs/forecast.py:sse,folder=data/sse,symbol=600761,time=10:30:00
    python -m marsjax.experiments.forecast --config=configs/forecast.py:sse,folder=data/sse,symbol=600761,evaluate

Starts from a day that an order model has written and that comes with it (default, quiet, busy), from half an hour
of the noise agent, or from a real day of any feed at a time of it. Writes labels.csv (the label of every trajectory),
minutes.csv.gz (its minutes), fan.png, and metrics.json with the distribution, what really came, and all that a
repetition needs.

With `evaluate` it forecasts from many times of every day that is named, and writes evaluation.csv, evaluation.png and
metrics.json: how far the forecasts agree with what came, beside forecasts that need no model. That is a rollout for
every start, half a day of them: on a CPU set fewer trajectories and starts (--config.every_minutes=30).

Argument: the source first (a day's name, noise or a kind of feed), then `folder`, `file`, `symbol`, `date`, `time`,
`evaluate`, `model`, `trajectories`, `minutes`, `seed`, `output`. Exit code 3: written, but trajectories or orders were
lost.
"""

from ml_collections import ConfigDict

from marsjax.data import made_days, sources
from marsjax.experiments.config import UsageError, parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    FEED_IGNORED,
    add_adaptation,
    add_feed,
    add_market,
    add_noise,
    add_order_model,
    add_rollouts,
    add_tables,
)

MODE = "source"
IGNORED = FEED_IGNORED | dict.fromkeys(made_days.NAMES, (*FEED_ARGUMENTS, "time", "evaluate")) | {
    "noise": (*FEED_ARGUMENTS, "time")}
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a forecast; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (*made_days.NAMES, "noise", *sources.names()), IGNORED, **FEED_ARGUMENTS, time="",
                       evaluate=False, model="default", trajectories=128, minutes=5, seed=0, output="")
    if chosen.evaluate and chosen.time:
        raise UsageError(f"config argument 'time={chosen.time}' has no effect with evaluate; leave one of them out")
    is_noise = chosen.mode == "noise"
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.time = chosen.time or "10:30:00"  # of the start in a real day
    config.evaluate = chosen.evaluate  # many starts of real days, against what came
    config.trajectories = chosen.trajectories  # futures of each start; 0 or auto, but with evaluate: what fits
    config.minutes = chosen.minutes  # length of a future
    config.seed = chosen.seed  # of the futures
    config.output = chosen.output  # a new folder; empty: runs/forecast_SOURCE, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.picture = True  # fan.png, or evaluation.png

    config.threshold = -1.0  # labels beyond +-threshold are up and down; below 0: a third of past labels is flat
    config.quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the labels

    add_order_model(config, chosen.model)
    add_adaptation(config)
    add_rollouts(config, most_at_once=1024)
    config.trace = False  # every order and trade of every trajectory: tables trace_orders, trace_trades
    config.save_folder = ""  # where the state is kept, so that a run that was killed goes on; empty: nowhere
    config.save_every_s = 60.0  # seconds between two saves

    add_market(config, is_noise, trade_width=32)
    add_tables(config)
    add_noise(config)

    config.every_minutes = 5  # evaluate: between two starts
    config.first_minute = 5  # evaluate: minutes from the first trading to the first start
    config.fit_fraction = 0.5  # evaluate: first part of the starts, used to fit the threshold and the baselines only
    config.fit_every_s = 10  # seconds between two past labels that are fitted on
    config.probability_edges = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # evaluate: bins of P(up) in the reliability table
    return config
