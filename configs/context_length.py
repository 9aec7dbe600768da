"""How much an order model's predictions depend on the length of its context, on real days that it has not seen.

    python -m marsjax.experiments.context_length --config=configs/context_length.py:folder=data/sse

Trains a small model on the first part of every day in the folder, of any kind of feed, then compares, on the rest,
predictions from shorter contexts with those from a full window of 1,024 orders: loss, and total variation of the
sampling law; then the same for the decode cache that shortens its contexts now and then (`refresh`).

Argument: the kind of feed first (sse unless given), then `folder`, `file`, `symbol`, `date`, `output`.
"""

from ml_collections import ConfigDict

from marsjax.data import sources
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import FEED_ARGUMENTS, add_feed, add_market


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of the study; see the top of the file for `arg`."""
    kinds = ("sse", *(name for name in sources.names() if name != "sse"))
    chosen = parse_arg(arg, kinds, **FEED_ARGUMENTS, output="")
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.output = chosen.output  # a new folder; empty: runs/context_length, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    add_market(config, is_noise=False)
    config.held_out = 0.2  # last part of every day, for the comparison only

    config.embed_dim = 64  # of the model
    config.layers = 3
    config.heads = 4
    config.context_length = 1024  # its window, a multiple of 128
    config.steps = 600  # of training; the best on held-out windows is taken
    config.batch = 16  # windows a step
    config.peak_rate = 1e-3  # learning rate
    config.dtype = "bfloat16"  # of the training's matrix products; the comparison is float32
    config.seed = 0

    config.lengths = (64, 128, 256, 512, 640, 768, 896, 960, 1024)  # contexts compared
    config.windows = 512  # held-out windows for each of them
    config.trajectories = 32  # held-out stretches decoded with the cache
    config.decoded = 928  # orders decoded of each
    config.every = 8  # predictions between two comparisons with the full window
    config.refresh_every = 448  # of the cache
    config.margin = 64  # of the cache
    return config
