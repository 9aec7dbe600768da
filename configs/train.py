"""Trains an order model on real days: replay, bins, token windows, Optax, checkpoint.

    python -m marsjax.experiments.train --config=configs/train.py:default,folder=data/sse

makes the checkpoint that comes with marsjax (`checkpoints/default`) from three Shanghai days, order by order; see
experiments/default_model for the days, the time that it needs and what comes out; on a CPU, where its own futures take
most of a day, `--config.futures_rounds=0` leaves them out. `joint` trains a plain model with one
row of the head a class instead, for data a hundred times as many.

    python -m marsjax.experiments.train --config=configs/train.py:default,shards=runs/shards

streams days that `prepare` made ready (configs/prepare.py), as many as there are, in place of a feed.

Argument: `default` or `joint`, then `source` (sse unless given, or another kind of feed), `folder` of the data, `file`,
`symbol` (several: 600536+600761; all), `date`, `shards` (a folder of `prepare`, instead of a feed), `output`,
`checkpoint` (a second place to write the checkpoint to), `resume`, `overwrite`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import UsageError, parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    FEED_IGNORED,
    MARKET_KEYS,
    READER_KEYS,
    add_feed,
    add_market,
    add_tokens,
)

MODE = "source"
SHARDS = "shards"
IGNORED = FEED_IGNORED | {SHARDS: (*FEED_ARGUMENTS, *READER_KEYS, *MARKET_KEYS)}
"""Keys by the source with which they have no effect."""

MADE_BY = ("`python -m marsjax.experiments.train --config=configs/train.py:default,folder=data/sse`; its output is in "
           "`experiments/default_model`")
LIMITS = (
    "Anything about single stocks, or about money: three stocks on one day in July 2023 taught it, a day is no sample "
    "of days, and it knows no news, no opening and no close.",
    "Stocks whose spread is many ticks wide, prices far from 5 to 50 CNY, ticks other than 0.01, and call auctions.",
    "Patterns longer than its 1,024 orders (a few minutes of a busy stock), and whatever one layer cannot tell.",
    "How calm the last hour was: from any state its prices soon move somewhat as in the mean of the hours that it "
    "learnt from, where they should be calmer, and orders come at a pace that goes with that.",
    "Means of many futures: they are biased by some basis points in five minutes (those of the day `default` by -7).",
    "Thin books, such as the noise agent leaves: of 320 five-minute runs from ten such books 25 moved more than 1% "
    "(before its own futures).",
    "Rare orders: a bin's far prices and large volumes are drawn from 100 values that those days had.",
)
"""Of the default checkpoint, for its card."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a training; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("default", "joint"), source="sse", **FEED_ARGUMENTS | {"symbol": ""}, shards="",
                       output="runs/train", checkpoint="", resume=False, overwrite=False)
    source = SHARDS if chosen.shards else chosen.source
    given = [key for key in FEED_ARGUMENTS if key in IGNORED.get(source, ()) and chosen[key]]
    if given:
        raise UsageError(f"config argument {given[0]}={chosen[given[0]]!r} has no effect with source={source}")
    small = chosen.mode == "default"
    config = ConfigDict()
    add_feed(config, chosen, source)
    # All, or some joined by +. The default leaves out 600519: at 1,800 CNY its spread is 31 ticks, theirs is 1.
    config.symbol = chosen.symbol or ("600536+600761+601825" if small and source == "sse" else "all")
    config.shards = chosen.shards  # a folder that `prepare` made: its days are streamed; empty: a feed's are replayed
    config.most_scored = 200_000  # orders, at most, that validate, and that are held out: of each day the first ones
    config.output = chosen.output  # a new folder for metrics, curve, report and checkpoint
    config.checkpoint = chosen.checkpoint  # a new folder for the checkpoint and its card alone, or none
    config.overwrite = chosen.overwrite  # whether earlier outputs of marsjax are replaced
    config.resume = chosen.resume  # whether to go on from the state in <output>.state
    config.stop_at = 0  # step to break off at, leaving the state to resume from; 0: none
    add_market(config, is_noise=False, trade_width=1)  # of the lists of transactions tokens need no more

    add_tokens(config, small)
    # An order model (a folder, default, or owner/name on the hub) whose law is learnt beside the orders; its bins are
    # taken, but with shards, which must have its bins. Empty: none.
    config.teacher = ""
    config.teacher_weight = 0.5  # share of the teacher's law in what a step makes small; the rest: orders that came
    config.teacher_temperature = 1.0  # of both laws, above 1: rare orders count more
    config.refit = True  # whether to train once more, as long, on the orders up to held_from

    config.embed_dim = 32  # of the model
    config.layers = 1
    config.heads = 4
    config.mixer = "attention"  # how a token reads those before it: attention, or linear (a memory of one size)
    config.context_length = 1024  # tokens that the model sees, and that a window predicts
    config.head = "structured" if small else "joint"  # rows for bins and pairs of bins, or one for each class
    config.pair_width = 4  # coordinates that the rows of pairs see, for a structured head
    config.whole_cancels = small  # whether the model's cancels take back one whole order each, not shares of the oldest

    _training(config, small)
    _own_futures(config, small and not chosen.shards)

    is_default = small and not chosen.shards
    config.title = "The default order model" if is_default else "An order model"  # of the checkpoint's card
    config.made_by = MADE_BY if is_default else "marsjax.experiments.train"  # for the card
    config.limits = LIMITS if is_default else ()  # what the card says it is not good for
    return config


def _training(config: ConfigDict, small: bool) -> None:
    """Sizes and rates."""
    config.steps = 1000 if small else 2000
    config.batch = 16  # windows a step, shared out among the devices
    config.accumulate = 1  # parts a step's windows are taken in
    config.devices = 0  # to train on; 0: all
    config.peak_rate = 5e-3 if small else 1e-3  # learning rate after the warm-up; falls to 0 along half a cosine
    config.warmup = 100  # steps
    config.decay = 1.0 if small else 0.1  # of weights (AdamW)
    config.dropout = 0.1 if small else 0.0  # share of coordinates that a step leaves out, for a structured head
    config.flow_weight = 1.0 if small else 0.0  # of shares by kind and price beside the orders, for a structured head
    config.clip = 1.0  # largest norm of a gradient
    config.average = 0.99  # share of the running average of weights that a step keeps; 0: no average
    config.every = 100 if small else 50  # steps between two looks at the validation part, each kept on disk
    config.patience = 10  # looks without a new best after which to stop; 0: none
    config.dtype = "auto"  # of matrix products: float32, bfloat16, or auto: bfloat16 but on a CPU
    config.seed = 0


def _own_futures(config: ConfigDict, small: bool) -> None:
    """Of futures that the model writes from states of the days, by which it is taught after all else."""
    # Of rollouts and updates; 0: none, as with shards. On a CPU a round takes minutes.
    config.futures_rounds = 260 if small else 0
    config.futures_every = 5  # minutes of each day between two states that they start from
    config.futures_starts = 48  # states of a round, shared out evenly among the stocks
    config.futures_trajectories = 16  # futures of each
    config.futures_orders = 1024  # decisions of a future
    config.futures_scored = 256  # last orders of a window, at most, that a gradient is of
    config.futures_weight = 8.0  # of the gradient of what futures have in the mean, beside that of real orders
