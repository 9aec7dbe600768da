"""Speed of the parts of marsjax on this machine's device.

    python -m marsjax.experiments.benchmark --config=configs/benchmark.py:book
    python -m marsjax.experiments.benchmark --config=configs/benchmark.py:book,stream=orders.csv.gz

Argument: what to measure first (book), then `stream` (a CSV of orders) and `output`. Takes a minute on a GPU; on a CPU
set fewer books: --config.books=16,64.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a benchmark; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("book",), stream="", output="")
    config = ConfigDict()
    config.what = chosen.mode  # book: order books alone, the same orders to every book
    config.stream = chosen.stream  # CSV of the orders; empty: 500 orders of the noise agent
    config.books = (1024, 16384)  # order books at once
    config.capacity = (128,)  # resting orders a side
    config.trade_width = 8  # transactions listed per order
    config.unroll = 1  # orders in one pass of the compiled loop: 4 is faster for few books, 1 for many
    config.returned = "all"  # all: transactions, owners, status, best bid and ask of every order; best: the last two
    config.repeats = 5  # timed runs; the median counts
    config.output = chosen.output or f"runs/benchmark_{chosen.mode}"  # a new folder for results.json
    config.overwrite = False  # whether an existing output folder is replaced
    return config
