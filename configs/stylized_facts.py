"""Cont's eleven stylized facts of returns, from minute bars of historical and simulated rollouts.

    python -m marsjax.experiments.stylized_facts --config=configs/stylized_facts.py:bars,file=bars.csv.gz
    python -m marsjax.experiments.stylized_facts --config=configs/stylized_facts.py:bars,file=real.csv.gz+mine.csv.gz
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:rollout_info,file=rollout_info_25_minutes.zstd
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:sse,folder=data/sse
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:sse,folder=data/sse,trajectories=4
    python -m marsjax.experiments.stylized_facts --config=stylized_facts:noise,model=default

Argument: where the bars come from first. `bars`: CSV files with the columns symbol, rollout, source, time, price_last,
price_mean, price_mid, price_mid_last, volume. `rollout_info`: the archive of the reference. `sse`: stretches of real
days, and with `trajectories` so many futures of an order model from where each of them begins. `noise`: rollouts of an
order model from noise markets. Then `file`, `folder`, `symbol`, `date`, `model`, `trajectories`, `markets`, `seed`,
`output`. Bars made here are written, so that two runs can be put into one report.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import add_market, add_noise, add_order_model, add_rollouts


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a report; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("bars", "rollout_info", "sse", "noise"), file="", folder="data/sse", symbol="all", date="",
                       model="default", trajectories=0, markets=20, seed=0, output="")
    is_noise = chosen.mode == "noise"
    config = ConfigDict()
    config.source = chosen.mode  # bars, rollout_info, sse or noise
    config.file = chosen.file  # bars, rollout_info: one path, or several joined by +
    config.pickle_module = ""  # rollout_info: another module that the archive's classes are named by
    config.folder = chosen.folder  # sse: where the files are
    config.symbol = chosen.symbol  # sse: one symbol, several joined by +, or all
    config.date = chosen.date  # sse: one date as in the file names; empty: all
    config.output = chosen.output or f"runs/stylized_facts_{chosen.mode}"  # a new folder for the results
    config.overwrite = False  # whether an existing output folder is replaced
    config.pictures = True  # fact_01.png to fact_11.png

    config.minutes = 26  # bars of a rollout
    config.seed = chosen.seed  # of the bootstrap, the Gaussian comparison and the rollouts
    config.resamples = 200  # of the bootstrap

    add_market(config, capacity=256 if is_noise else 4096, trade_width=32 if is_noise else 128,
               session="continuous" if is_noise else "chinese")
    config.accounts = 1  # sse: accounts in the replay
    config.chunk_orders = 8192  # sse: orders of each market in one compiled call

    config.markets = chosen.markets  # noise: markets to start from, each a symbol of the report
    # Rollouts of an order model, of each market of noise, or from the beginning of each stretch of real days; 0: none.
    config.trajectories = chosen.trajectories or (8 if is_noise else 0)
    add_noise(config)
    add_order_model(config, chosen.model)
    add_rollouts(config, most_at_once=1024)
    return config
