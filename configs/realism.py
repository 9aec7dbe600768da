"""How alike rollouts of an order model and real minutes are, quantity by quantity (paper, Table 7).

    python -m marsjax.experiments.realism --config=configs/realism.py:folder=data/sse
    python -m marsjax.experiments.realism --config=configs/realism.py:folder=data/sse,symbol=600519,trajectories=64
    python -m marsjax.experiments.realism --config=configs/realism.py:lobster,folder=data/lobster,symbol=all

Starts every 5 minutes of the days that the model was trained on, from 14:00 on, which the default model never saw; the
rollouts are compared with the minutes that really followed. Similarity is 1 - total variation over bins that each
market's orders before the first start fix (their 2% quantiles); the distance is Wasserstein-1 in interquartile ranges
of history; accuracy is how often most trajectories fall into the third of past values that came. Beside each stand its
ceiling (history of the same hour against itself, samples as small), its floor (history against the noise agent; of
accuracy, the class that was most common before), and the paper's. Figures of several markets are means of theirs.

With `lob_bench` the same orders are measured as LOB-Bench does it (Nagy et al. 2025, arXiv 2502.09172): its 21
statistics (spread, imbalance, times between orders and to cancels, volumes, depths, levels, order flow) and three given
another, each by L1 of histograms and Wasserstein-1 in standard deviations, 0 for equal; their interquartile mean; how
far the price responses of six kinds of events are apart; L1 minute by minute; and how well a small network tells
windows of generated orders from real ones (area under the ROC curve of windows that it never saw; .5: it cannot). The
ceiling, earlier hours, another day of the symbol and the noise agent stand beside each. One order is one message, and
intervals are over starts: figures are to be read by what stands beside them, not by the paper's tables. A sample that
says nothing (one start, too few values, one value) gives words in place of a figure.

Writes realism.csv (every market, quantity and minute), lob_bench.csv, realism.png and metrics.json. Argument: the kind
of feed first (sse unless given), `folder`, `file`, `symbol` (trained, all, or symbols joined by +), `date`, `model`,
`trajectories`, `minutes`, `seed`, `output`. Exit code 3: written, but trajectories or orders were lost.
"""

from ml_collections import ConfigDict

from marsjax.data import sources
from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import (
    FEED_ARGUMENTS,
    add_adaptation,
    add_feed,
    add_market,
    add_noise,
    add_order_model,
    add_rollouts,
)


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a comparison; see the top of the file for `arg`."""
    kinds = ("sse", *(name for name in sources.names() if name != "sse"))
    chosen = parse_arg(arg, kinds, **FEED_ARGUMENTS | {"symbol": "trained"}, model="default", trajectories=16,
                       minutes=5, seed=0, output="")
    config = ConfigDict()
    add_feed(config, chosen, chosen.mode)
    config.symbol = chosen.symbol  # trained (days that the checkpoint names), all, or symbols joined by +
    config.first_time = "14:00:00"  # of the first start; orders before it fix the bins
    config.last_time = ""  # of the last start; empty: as long as its minutes end in the period of trading
    config.every_minutes = 5  # between two starts
    config.trajectories = chosen.trajectories  # futures of each start
    config.minutes = chosen.minutes  # length of a future
    config.seed = chosen.seed  # of the futures and the bootstrap
    config.resamples = 200  # of the bootstrap
    config.output = chosen.output  # a new folder; empty: runs/realism, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    config.lob_bench = True  # the statistics of LOB-Bench too, lob_bench.csv
    config.picture = True  # realism.png
    config.card = ""  # a checkpoint's README.md whose section on realism is written anew, or none

    add_order_model(config, chosen.model)
    add_adaptation(config)
    add_rollouts(config, most_at_once=4096)

    add_market(config, is_noise=False, trade_width=64)
    add_noise(config)  # for the floor
    return config
