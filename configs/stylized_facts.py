"""Cont's eleven stylized facts of returns, from minute bars of historical and simulated rollouts.

    python -m marsjax.experiments.stylized_facts --config=configs/stylized_facts.py
    python -m marsjax.experiments.stylized_facts --config=configs/stylized_facts.py:bars,file=bars.csv.gz
    python -m marsjax.experiments.stylized_facts --config=configs/stylized_facts.py:bars,file=real.csv.gz+mine.csv.gz
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:rollout_info,file=rollout_info_25_minutes.zstd
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:sse,folder=data/sse
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:sse,folder=data/sse,trajectories=4
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:noise,model=default

Argument: where the bars come from first. `default`: futures of the order model from the days that come with it, each a
symbol. `bars`: CSV files with the columns symbol, rollout, source, time, price_last, price_mean, price_mid,
price_mid_last, volume. `rollout_info`: the archive of the reference. `noise`: rollouts of an order model from noise
markets. `sse`, `csv` or another kind of feed: stretches of real days, and with `trajectories` so many futures of an
order model from where each of them begins. Then `file`, `folder`, `symbol`, `date`, `model`, `trajectories`, `markets`,
`seed`, `output`. Bars made here are written, so that two runs can be put into one report.
"""

from ml_collections import ConfigDict

from marsjax.data import sources
from marsjax.experiments.config import UsageError, parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    FEED_IGNORED,
    add_feed,
    add_market,
    add_noise,
    add_order_model,
    add_rollouts,
)

MODE = "source"
_MADE = ("folder", "symbol", "date", "model", "trajectories", "markets")
IGNORED = {source: (*FEED_IGNORED.get(source, ()), "markets") for source in sources.names()} | {
    "bars": _MADE, "rollout_info": _MADE, "noise": FEED_IGNORED["noise"], "default": (*FEED_ARGUMENTS, "markets")}
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a report; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("default", "bars", "rollout_info", "noise", *sources.names()), IGNORED, **FEED_ARGUMENTS,
                       model="default", trajectories=0, markets=20, seed=0, output="")
    if chosen.mode in sources.names() and chosen.model != "default" and not chosen.trajectories:
        raise UsageError(f"config argument 'model={chosen.model}' has no effect without trajectories")
    is_noise = chosen.mode == "noise"
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.file = chosen.file  # bars, rollout_info: one path, or several joined by +; csv: that of the orders
    config.pickle_module = ""  # rollout_info: another module that the archive's classes are named by
    config.output = chosen.output  # a new folder; empty: runs/stylized_facts_SOURCE, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.pictures = True  # facts.png with all of them, fact_01.png to fact_11.png

    config.minutes = 0 if chosen.mode == "bars" else 26  # bars of a rollout; 0, of bars only: as most have
    config.seed = chosen.seed  # of the bootstrap, the Gaussian comparison and the rollouts
    config.resamples = 200  # of the bootstrap

    add_market(config, is_noise, trade_width=32 if is_noise else 0)
    config.chunk_orders = 8192  # of real days: orders of each market in one compiled call

    config.markets = chosen.markets  # noise: markets to start from, each a symbol of the report
    # Rollouts of an order model, of each market of noise or day made, or from each stretch of real days; 0: none.
    config.trajectories = chosen.trajectories or {"noise": 8, "default": 32}.get(chosen.mode, 0)
    add_noise(config)
    add_order_model(config, chosen.model)
    add_rollouts(config, most_at_once=1024)
    return config
