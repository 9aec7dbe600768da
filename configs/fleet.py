"""Forecasts, market impact or realism of many states: every so many minutes of all days of a feed, on many machines.

    python -m marsjax.experiments.fleet --config=configs/fleet.py:forecast,folder=data/sse
    python -m marsjax.experiments.fleet --config=configs/fleet.py:forecast,source=lobster,folder=data/lobster,every=30
    python -m marsjax.experiments.fleet --config=configs/fleet.py:market_impact,folder=data/sse --config.ratios=0.1,0.5
    python -m marsjax.experiments.fleet --config=configs/fleet.py:realism,folder=data/sse,symbol=600519+600761
    python -m marsjax.experiments.fleet --config=fleet:forecast,folder=data/sse --config.address=auto
    python -m marsjax.experiments.fleet --config=fleet:forecast,folder=data/sse --config.part=3/128

Workers of a Ray cluster make the states (pip install 'marsjax[ray]'): of this machine, or with `address` of a cluster.
With `part` there is no Ray: this process makes its part of them, as one of an array of SLURM does. The output holds one
Parquet file a state (docs/how_to/fleet.md); the same command goes on where it was, and when all states are done it
writes the summary. Argument: the study first (forecast, market_impact, realism), then `source`, `folder`, `file`,
`symbol`, `date`, `every`, `model`, `trajectories`, `minutes`, `seed`, `output`. Exit code 3: states failed, or lack
something.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    add_adaptation,
    add_feed,
    add_market,
    add_order_model,
    add_rollouts,
    add_strategy,
)


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a fleet; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("forecast", "market_impact", "realism"), source="sse", **FEED_ARGUMENTS, every=60,
                       model="default", trajectories=128, minutes=5, seed=0, output="")
    config = ConfigDict()
    config.study = chosen.mode  # forecast, market_impact or realism
    add_feed(config, chosen, chosen.source)
    config.every_minutes = chosen.every  # between two states of a day
    config.first_minute = 30  # minutes from the first trading of a day to its first state
    config.times = ()  # of the states of every day, HH:MM:SS, instead of the two before
    config.trajectories = chosen.trajectories  # futures of each state; market_impact: for each side and ratio
    config.minutes = chosen.minutes  # length of a future; market_impact: of the execution
    config.seed = chosen.seed  # of the futures and of bootstraps
    config.output = chosen.output  # a folder, new or of the same fleet, that all machines see; empty: runs/fleet_STUDY

    config.address = ""  # of a Ray cluster (auto, HOST:PORT); empty: one of this machine, for the time of the run
    config.workers = 0  # workers of Ray; 0: one for each GPU, or if there are none, for each processor core
    config.cores = 1  # processor cores of a worker, which are its threads on a CPU; must stay where a day teaches
    config.tries = 3  # workers that may die of a state before it counts as failed
    config.most_jobs = 256  # of a worker, before another takes its place: what it has compiled stays in its memory
    config.part = ""  # K/N, from 1/N to N/N: the K-th of N processes, without Ray; 1/1: all in this process
    config.batch = 64  # states of one day that a worker is given at a time: one pass over the day leads to all of them

    config.threshold = -1.0  # forecast: labels beyond it are up and down; below 0: a third of past labels is flat
    config.fit_every_s = 10  # forecast: seconds between two past labels that it is fitted on
    config.quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)  # forecast: of the labels
    config.probability_edges = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # forecast: bins of P(up) in the reliability table
    config.resamples = 200  # market_impact, realism: of the bootstrap

    config.strategy = "twap"  # market_impact: twap, vwap, participation or immediate
    config.sides = ("buy",)  # market_impact: buy, sell or both
    config.ratios = (0.1, 0.3, 0.5)  # market_impact: target over the mean volume without the execution
    config.after_minutes = 0  # market_impact: that the futures go on after the execution
    add_strategy(config)
    config.slots = 0  # market_impact: futures that run at a time; 0: 64 on a CPU, 2 x trajectories elsewhere

    add_order_model(config, chosen.model)
    add_adaptation(config)
    if chosen.mode == "market_impact":
        config.adapt_steps = 0  # as in the program of that name
    add_rollouts(config)
    config.most_at_once = 4096  # trajectories in a batch, at least those of a state; the same on all machines
    add_market(config, is_noise=False, trade_width=64 if chosen.mode == "realism" else 32)
    return config
