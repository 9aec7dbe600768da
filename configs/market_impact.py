"""Market impact: the same simulated markets with and without an execution of a given size.

    python -m marsjax.experiments.market_impact --config=configs/market_impact.py
    python -m marsjax.experiments.market_impact --config=configs/market_impact.py:vwap,trajectories=32
    python -m marsjax.experiments.market_impact --config=configs/market_impact.py:after=5 --config.ratios=0.1,0.2,0.4

    python -m marsjax.experiments.market_impact --config=market_impact:twap,source=busy
    python -m marsjax.experiments.market_impact --config=market_impact:twap,source=sse,folder=data/sse,time=10:30:00

A day that comes with the order model (source default, quiet or busy) makes one starting state, real days of any
feed one each, and half an hour of the noise agent (source=noise) `seeds` of them. Each has `trajectories` futures
without the execution, and for every side and ratio as many with it, of the same random numbers; the target is the ratio
times the mean volume without it. Argument: the strategy first (twap, vwap, participation or immediate), then `source`,
`trajectories`, `seeds`, `minutes`, `after`, `seed`, `model`, `output`; of real days `folder`, `file`, `symbol`, `date`,
`time`.
"""

from ml_collections import ConfigDict

from marsjax.data import made_days
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    add_feed,
    add_market,
    add_noise,
    add_order_model,
    add_rollouts,
    add_strategy,
)


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a study of market impact; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("twap", "vwap", "participation", "immediate"), trajectories=0, seeds=10, minutes=5,
                       after=0, seed=0, model="default", output="", source="default", **FEED_ARGUMENTS, time="10:30:00")
    config = ConfigDict()
    add_feed(config, chosen, chosen.source)
    config.time = chosen.time  # of the starts in real days
    config.strategy = chosen.mode  # twap, vwap, participation or immediate
    config.sides = ("buy",)  # buy, sell or both
    config.ratios = (0.1, 0.3, 0.5)  # target over the mean volume without the execution
    config.targets = (0,)  # shares, multiples of 100, instead of the ratios; 0: as the ratios say
    config.seeds = chosen.seeds  # starting states, of noise; days of orders make one each
    # Futures of each, for each side and ratio.
    config.trajectories = chosen.trajectories or (100 if chosen.source in made_days.NAMES else 16)
    config.minutes = chosen.minutes  # of the execution, from the start of the futures on
    config.after_minutes = chosen.after  # that the futures go on after it, to see the impact decay
    config.seed = chosen.seed  # of the futures
    config.output = chosen.output  # a new folder; empty: runs/market_impact_STRATEGY, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.picture = True  # volume.png, price.png, impact.png
    config.bootstrap = 1000  # resamplings of rollouts, for the intervals

    add_strategy(config)

    add_order_model(config, chosen.model)
    add_rollouts(config)
    config.slots = 0  # futures that run at a time; 0: 64 on a CPU, 2 x seeds x trajectories elsewhere

    add_market(config, chosen.source == "noise", trade_width=32)
    add_noise(config)
    return config
