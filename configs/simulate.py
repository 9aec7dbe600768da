"""Simulates markets without an order model: noise agents alone, thousands of books at once.

    python -m marsjax.experiments.simulate --config=configs/simulate.py
    python -m marsjax.experiments.simulate --config=configs/simulate.py:books=4096,minutes=25

Writes the minute bars of every book (bars.csv.gz, in the form that the report of stylized facts reads), summary.json
and a picture of some mid prices. Argument: `books`, `minutes`, `seed`, `output`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of noise markets; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (), books=0, minutes=30, seed=0, output="")
    config = ConfigDict()
    config.books = chosen.books  # markets at once; 0: 64 on a CPU, 1000 elsewhere
    config.minutes = chosen.minutes  # of each
    config.seed = chosen.seed  # book b is the same whatever the number of books
    config.output = chosen.output  # a new folder; empty: runs/simulate, numbered where that is taken
    config.overwrite = False  # whether an earlier output of marsjax is replaced

    config.tick = 100  # smallest price step, 1e-4 of the currency
    config.capacity = 256  # resting orders a side
    config.trade_width = 32  # transactions listed per order; none is written
    config.session = "continuous"  # chinese (call auctions) or continuous
    config.start_time = "09:30:00"  # of the session and of the agents
    config.end_time = "16:00:00"  # of a continuous session, included
    config.interval_s = 1.0  # mean time between two wake-ups of an agent
    config.init_price = 100_000  # around which prices start, 1e-4 of the currency
    config.chunk_steps = 512  # wake-ups in one compiled call; no result depends on it

    config.date = "2024-01-02"  # that the bars are given
    config.symbol = "noise"  # likewise
    config.source = "Simulation"  # likewise: whose markets these are, in the report of stylized facts
    config.picture = True  # mids.png
    config.pictured = 12  # books in it
    return config
