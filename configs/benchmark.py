"""Speed of the parts of marsjax on this machine's device.

    python -m marsjax.experiments.benchmark --config=configs/benchmark.py:book
    python -m marsjax.experiments.benchmark --config=configs/benchmark.py:book,stream=orders.csv.gz
    python -m marsjax.experiments.benchmark --config=configs/benchmark.py:rollout

Argument: what to measure first (book, or rollout), then `stream` (a CSV of orders; book only) and `output`. The sizes
are for a GPU; on a CPU set less: --config.books=16,64, or for rollouts --config.cases=2m:4 and --config.chunks=1.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg

IGNORED = {"rollout": ("stream",)}
"""Keys that have no effect, by what is measured."""


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a benchmark; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("book", "rollout"), IGNORED, stream="", output="")
    config = ConfigDict()
    config.what = chosen.mode  # book: order books alone, the same orders to every book; rollout: the complete step
    config.repeats = 5  # timed runs; the median counts
    config.output = chosen.output  # a new folder; empty: runs/benchmark_WHAT, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced
    return _book(config, chosen.stream) if chosen.mode == "book" else _rollout(config)


def _book(config: ConfigDict, stream: str) -> ConfigDict:
    config.stream = stream  # CSV of the orders; empty: 500 orders of the noise agent
    config.books = (1024, 16384)  # order books at once
    config.capacity = (128,)  # resting orders a side
    config.trade_width = 8  # transactions listed per order
    config.unroll = 1  # orders in one pass of the compiled loop
    config.returned = "all"  # all: transactions, accounts, status, best bid and ask of every order; best: the last two
    config.together = False  # whether all orders of a book go to it in one call, as given ones can
    config.exchange = ""  # xla, or kernel (a GPU's); empty: the device's
    return config


def _rollout(config: ConfigDict) -> ConfigDict:
    config.cases = ("2m:128", "2m:4096", "24x1024:128")  # MODEL:TRAJECTORIES; 2m, or layers x width in bfloat16
    config.repeats = 3  # timed stretches; the median counts
    config.chunks = 7  # chunks of a timed stretch; 7 of 64 steps hold one refresh of a deep model
    config.chunk_steps = 64  # decisions of a compiled call
    config.context_length = 1024  # tokens that the model sees at once
    config.attention = ""  # columns or sums (of a ring), or kernel (a GPU's, of the mode refresh); empty: the device's
    config.head = ""  # head and draw: xla, or kernel (a GPU's); empty: the device's
    config.encode = ""  # attention of a refresh in bfloat16: xla, or cudnn (a GPU's); empty: the device's
    config.loops = ""  # a chunk's loops on a GPU: host, or graph, by the device alone; empty: the device's
    config.exchange = ""  # books and cancels: xla, or kernel (a GPU's); empty: the device's
    config.cache_dtype = "model"  # of keys and values: model, in the model's own, or int8
    config.prefix = "auto"  # slots that trajectories share, in refresh: own, shared (read once); auto: as programs do
    config.capacity = 128  # resting orders a side
    config.minutes = 30  # of noise before the start
    config.seed = 0  # of the noise and of the rollouts
    config.parts = True  # whether the parts of a step are measured too, each compiled apart
    config.devices = 1  # that share the trajectories; 0 or all: all of this process
    config.bandwidth_gb_per_s = 0  # of device memory; 0: by the device's name where it is known, else null
    return config
