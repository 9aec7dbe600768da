"""Trains an order-batch model beside an order model: images of minutes, codes, batch model.

    python -m marsjax.experiments.train_control --config=configs/train_control.py:sse,folder=data/sse

learns from the minutes of the three Shanghai days of the default order model, and from futures that it writes from
states of them; see experiments/order_batch for the time that it needs and how good it is. The output has the folder
`checkpoint`, the order model's with `control/` added, which other programs take by its name.

Argument: the kind of feed first, then `folder`, `file`, `symbol` (several: 600536+600761; all), `date`, `model`,
`output`, `overwrite`.
"""

from ml_collections import ConfigDict

from marsjax.data import sources
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    FEED_IGNORED,
    add_feed,
    add_market,
    add_order_model,
)

MODE = "source"
IGNORED = FEED_IGNORED
"""Keys that have no effect, by the source."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a training; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("sse", *(name for name in sources.names() if name != "sse")), IGNORED,
                       **FEED_ARGUMENTS | {"symbol": ""}, model="default", output="", overwrite=False)
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    # One symbol, some joined by +, or all. The default leaves out 600519, as the default order model does.
    config.symbol = chosen.symbol or ("600536+600761+601825" if chosen.mode == "sse" else "all")
    config.output = chosen.output  # a new folder; empty: runs/train_control, numbered where that is taken
    config.overwrite = chosen.overwrite  # whether an earlier output of marsjax is replaced
    add_order_model(config, chosen.model)
    add_market(config, is_noise=False, trade_width=16)

    config.validation_from = "13:45:00"  # of each day: orders from here decide when to stop, and none trains
    config.held_from = "14:00:00"  # of each day: orders from here are for the report alone
    config.phases = 6  # places of the first minute at which the runs of a day's minutes begin that are trained on
    config.own_trajectories = 8  # futures that are learnt from too, of each state; 0: none
    config.own_minutes = 20  # of each future
    config.own_every_minutes = 20  # of each day between two states that futures start from

    config.price_slots = 16  # columns of an image
    config.volume_slots = 8  # bins of volume, fitted; an image has two rows for each
    config.price_ticks_per_slot = 1
    config.every_s = 60  # seconds that an image is of
    config.compress = 4  # rows, and columns, of the part of an image that a code stands for
    config.codes = 256  # in the book
    config.code_dim = 8  # numbers of a code's vector
    config.tokenizer_width = 64
    config.tokenizer_blocks = 2  # on each side
    config.tokenizer_steps = 3000
    config.tokenizer_rate = 2e-3  # peak of the learning rate

    config.batches = 16  # minutes that the batch model sees
    config.layers = 2
    config.width = 64
    config.heads = 4
    config.batch_steps = 1200
    config.batch_rate = 2e-3  # peak of the learning rate
    config.seed = 0
    return config
