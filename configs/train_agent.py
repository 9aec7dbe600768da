"""Trains agents that execute an order or make a market, by reinforcement, and compares them with rules.

    python -m marsjax.experiments.train_agent --config=configs/train_agent.py
    python -m marsjax.experiments.train_agent --config=train_agent:execution,background=model --config.envs=64
    python -m marsjax.experiments.train_agent --config=train_agent:execution,source=busy,seeds=8
    python -m marsjax.experiments.train_agent --config=train_agent:execution,source=sse,folder=data/sse,symbol=600761
    python -m marsjax.experiments.train_agent --config=train_agent:sliced
    python -m marsjax.experiments.train_agent --config=train_agent:market_making,source=noise

An episode has `steps` steps of `step_s` seconds. `execution` buys or sells `target` shares in it, with one of 13
actions a step; `sliced` buys them as MarS's paper does, in ten slices of 30 s with 66 actions each; `market_making`
quotes both sides and is to earn without a large inventory. The market around it is replayed (background=replay: it does
not answer), written by the order model (model: it answers) or that of the noise agent (noise). Episodes of the training
start in the first part of each day; the comparison is on starts in the rest of it, in each background of `compare`.
Writes curves.csv, curves.png, comparison.csv, comparison.png, results.json and the folder `agent` (`agent_2` ... of
more seeds).

Argument: the task first, then `background`, `source` (default, quiet or busy: days that come with the order model;
noise; a kind of feed), `steps` (of the training, in millions), `seeds`, `seed`, `model`, `output`; of real days
`folder`, `file`, `symbol`, `date`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import FEED_ARGUMENTS, add_feed, add_market, add_noise, add_order_model

MODE = "task"


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a training; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("execution", "sliced", "market_making"), background="", source="default", steps=2.0,
                       seeds=4, seed=0, model="default", output="", **FEED_ARGUMENTS)
    config = ConfigDict()
    config.task = chosen.mode  # execution, sliced or market_making
    # The market around the agents that are trained: replay, model or noise.
    config.background = chosen.background or ("noise" if chosen.source == "noise" else "replay")
    config.compare = ("",)  # backgrounds to compare in, of the same kinds; empty: that of the training
    add_feed(config, chosen, chosen.source)
    config.train_from = ""  # of each day, HH:MM:SS: the first start; empty: from its first continuous trading
    config.held_from = ""  # of each day: the first start of the comparison; empty: as train_share says
    config.train_share = 0.65  # of the time of each day, whose starts are trained on
    config.until = ""  # of each day: no order after it is read; empty: the end of its first continuous trading
    config.starts = 256  # of each day (of noise: books) that are trained on
    config.held_starts = 64  # of each day that are held out

    config.steps, config.step_s = 60, 5.0  # of an episode; seconds between two of them
    config.lot = 100  # shares: an action sends 1, 2 or 5 lots (market_making: 1 or 3 on a side; sliced: whole lots)
    {"execution": _add_execution, "sliced": _add_sliced, "market_making": _add_making}[chosen.mode](config)

    config.train_steps = round(chosen.steps * 1e6)  # of all environments of a seed together
    config.seeds = chosen.seeds  # agents that are trained side by side
    config.seed = chosen.seed  # of the training
    config.envs = 256  # of each seed
    config.length = 60  # steps of a rollout between two updates
    config.epochs = 4  # passes over a rollout
    config.minibatches = 8  # parts of a pass
    config.rate = 5e-4  # of Adam, at first
    config.anneal = True  # whether the rate falls to 0
    config.discount = 1.0  # of rewards, by step
    config.trace = 0.95  # lambda of the advantages
    config.clip = 0.2  # of the ratio of probabilities
    config.entropy = 0.01  # its weight
    config.width = 64  # of the network's layers
    config.layers = 2
    config.memory = 0  # numbers that a recurrent agent remembers; 0: feed-forward
    config.looks = 20  # times at most that it is told how far the training is

    config.episodes = 1024  # of each contender in the comparison
    config.greedy = False  # whether the agents take their likeliest action in the comparison
    config.bootstrap = 1000  # resamplings of seeds and blocks of time, for the intervals
    config.picture = True  # curves.png, comparison.png
    config.output = chosen.output  # a new folder; empty: runs/train_agent_TASK, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced

    add_order_model(config, chosen.model)
    add_market(config, chosen.source == "noise", trade_width=16)
    add_noise(config)
    return config


def _add_execution(config: ConfigDict) -> None:
    config.target = 6000  # shares
    config.side = "random"  # buy, sell or random
    config.drift_weight = 1.0  # of the reward; 1: against the price at the start, 0: against others in each step
    config.penalty_ticks = 5  # beyond the mid, at which shares that were not traded are charged
    config.reward_unit = 6000.0  # ticks x shares that are a reward of 1
    _add_rules(config, patience=6)


def _add_sliced(config: ConfigDict) -> None:
    config.steps, config.step_s = 10, 30.0  # of the paper
    config.target = 6000  # shares
    config.side = "buy"  # buy, sell or random
    config.alpha = 20.0  # basis points that a fulfilled target is worth, at first
    config.alpha_factor = 0.9  # alpha is multiplied by it at a look, where 95% were fulfilled since the one before
    _add_rules(config, patience=2)


def _add_rules(config: ConfigDict, patience: int) -> None:
    config.rules = ("twap", "patient_twap", "vwap", "participation", "immediate")  # to compare with
    config.patience = patience  # of patient_twap: steps that a part waits before it trades


def _add_making(config: ConfigDict) -> None:
    config.most_lots = 10  # largest inventory, long or short
    config.inventory_penalty = 0.01  # ticks a step for a share of the first lot held; n lots cost n times as much
    config.fee_bp = 0.0  # of the value of all trades, basis points; below 0: a rebate
    config.close_ticks = 1  # beyond the mid, at which what is held at the end counts as traded
    config.reward_unit = 1000.0  # ticks x shares that are a reward of 1
    config.rules = ("avellaneda_stoikov", "fixed")  # to compare with; fixed: a lot at the best price of each side
    config.risk_aversion = 0.05  # gamma of avellaneda_stoikov, per tick and lot
    config.fill_decay = 0.5  # k of avellaneda_stoikov, per tick
