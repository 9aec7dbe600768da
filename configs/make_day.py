"""Makes a day that an order model has written, for others to start from: no order of an exchange is left in it.

    python -m marsjax.experiments.make_day --config=configs/make_day.py:sse,folder=FOLDER,symbol=600761,name=default

The model goes on from a real state (of `symbol`, at `time`) for `settle_minutes`; what then rests that is not its own
is left out, and it writes `minutes` more, which is the day. Several are written, and the one is kept that is nearest to
the middle of them in the range of the mid and in the shares at both best prices. It ends at a minute of its last third
at which the mid is near its mean of five minutes and these shares are near their medians. Writes NAME.csv.gz,
NAME_book.csv.gz and NAME.json to `days` in `output`, and fails unless every order in them is the model's. In the folder
of a checkpoint, `forecast:NAME` and other programs start from them.

Argument: the kind of feed first, then `folder`, `file`, `symbol`, `date`, `time`, `name`, `model`, `seed`, `output`.
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
    """The config of a day to make; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("sse", *(name for name in sources.names() if name != "sse")), IGNORED, **FEED_ARGUMENTS,
                       time="10:30:00", name="default", model="default", seed=0, output="")
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.time = chosen.time  # of the real state
    config.name = chosen.name  # of the day
    config.settle_minutes = 60  # that the model goes on before the day begins
    config.minutes = 30  # of the day at most, up to the time at which others start from it
    config.candidates = 8  # days that are written; the one nearest to the middle of them is kept
    config.day_begins = "09:30:00"  # its clock
    config.seed = chosen.seed  # of the model's draws
    config.output = chosen.output  # a new folder; empty: runs/make_day_NAME, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced

    add_order_model(config, chosen.model)
    add_market(config, is_noise=False, trade_width=64)
    return config
