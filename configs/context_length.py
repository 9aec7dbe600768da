"""How much an order model's predictions depend on the length of its context, on real days that it has not seen.

    python -m marsjax.experiments.context_length --config=configs/context_length.py:folder=data/sse

Trains a small model on the first part of every Shanghai day in the folder, then compares, on the rest, predictions
from shorter contexts with those from a full window of 1,024 orders: loss, and total variation of the sampling law;
then the same for the decode cache that shortens its contexts now and then (`refresh`).
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of the study; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (), folder="data/sse", output="runs/context_length")
    config = ConfigDict()
    config.folder = chosen.folder  # of the days, as for replay:sse
    config.output = chosen.output  # a new folder for metrics.json
    config.overwrite = False  # whether an existing output folder is replaced
    config.capacity = 4096  # resting orders a side in the replay
    config.held_out = 0.2  # last part of every day, for the comparison only

    config.embed_dim = 64  # of the model
    config.layers = 3
    config.heads = 4
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
