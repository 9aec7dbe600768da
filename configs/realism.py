"""How alike rollouts of an order model and real minutes are, quantity by quantity (paper, Table 7).

    python -m marsjax.experiments.realism --config=configs/realism.py:folder=data/sse
    python -m marsjax.experiments.realism --config=configs/realism.py:folder=data/sse,symbol=600519,trajectories=64

Starts every 5 minutes of the days that the model was trained on, from 14:00 on, which the default model never saw; the
rollouts are compared with the minutes that really followed. Similarity is 1 - total variation over bins that each
market's orders before the first start fix (their 2% quantiles); the distance is Wasserstein-1 in interquartile ranges
of history; accuracy is how often most trajectories fall into the third of past values that came. Beside each stand its
ceiling (history of the same hour against itself, samples as small), its floor (history against the noise agent; of
accuracy, the class that was most common before), and the paper's. Figures of several markets are means of theirs.

Writes realism.csv (every market, quantity and minute), realism.png and metrics.json. Argument: `folder`, `symbol`
(trained, all, or symbols joined by +), `date`, `model`, `trajectories`, `minutes`, `seed`, `output`. Exit code 3:
written, but trajectories or orders were lost.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a comparison; see the top of the file for `arg`."""
    chosen = parse_arg(arg, folder="data/sse", symbol="trained", date="", model="default", trajectories=16, minutes=5,
                       seed=0, output="runs/realism")
    config = ConfigDict()
    config.source = "sse"  # kind of the days
    config.folder = chosen.folder  # where their files are
    config.symbol = chosen.symbol  # trained (days that the checkpoint names), all, or symbols joined by +
    config.date = chosen.date  # as in the file names; empty: all
    config.first_time = "14:00:00"  # of the first start; orders before it fix the bins
    config.last_time = ""  # of the last start; empty: as long as its minutes end in the period of trading
    config.every_minutes = 5  # between two starts
    config.trajectories = chosen.trajectories  # futures of each start
    config.minutes = chosen.minutes  # length of a future
    config.seed = chosen.seed  # of the futures and the bootstrap
    config.resamples = 200  # of the bootstrap
    config.temperature = 1.0  # of the model's sampling
    config.output = chosen.output  # a new folder
    config.overwrite = False  # whether an existing output folder is replaced
    config.picture = True  # realism.png
    config.card = ""  # a checkpoint's README.md whose section on realism is written anew, or none

    config.model = chosen.model  # default, a folder, or owner/name on the hub
    config.revision = ""  # commit, branch or tag on the hub
    config.converters = ""  # folder of bin converters, if they are not beside the model
    config.dtype = "float32"  # of the model: float32 or bfloat16
    config.context = "auto"  # rolling (one layer), hop or recompute; auto: rolling for one layer, else hop
    config.hop = 448  # steps between two cuts of a context, in hop
    config.margin = 64  # tokens beyond one a step that fit between two cuts, in hop
    config.rows = 0  # trajectories decoded together, which fixes the bits; 0: 64 on a CPU, all of them elsewhere
    config.chunk_steps = 64  # decisions in one compiled call; no result depends on it
    config.most_at_once = 4096  # trajectories in one batch, at least those of one start

    config.tick = 100  # smallest price step, 1e-4 of the currency
    config.capacity = 4096  # resting orders a side in the orders before a start
    config.rollout_capacity = 0  # the same in the futures; 0: 600 to 727 more than at the fullest start
    config.trade_width = 64  # orders that one cancel of the model may hit and still be listed whole
    config.session = "chinese"  # chinese (call auctions) or continuous
    config.start_time = "09:30:00"  # of a continuous session
    config.end_time = "16:00:00"  # of a continuous session, included

    config.noise_minutes = 30  # floor: of the noise agent before its first stretch
    config.noise_seed = 0  # floor: of the noise agent
    config.interval_s = 1.0  # floor: mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # floor: around which the noise agent starts, 1e-4 of the currency
    return config
