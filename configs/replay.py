"""Replays orders through the exchange: of the noise agent, of real days, or of a CSV file.

    python -m marsjax.experiments.replay --config=configs/replay.py:noise
    python -m marsjax.experiments.replay --config=configs/replay.py:sse,folder=data/sse,symbol=600519
    python -m marsjax.experiments.replay --config=configs/replay.py:lobster,folder=data/lobster
    python -m marsjax.experiments.replay --config=configs/replay.py:csv,file=orders.csv.gz

Argument: the source first (noise, sse, lobster or csv), then key=value pairs: `folder` of the data, `symbol` and
`date` (several symbols: 600519+600536; all that the folder holds: all), `file` for csv, `output`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a replay; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("noise", "sse", "lobster", "csv"), folder="", symbol="all", date="", file="", output="")
    source = chosen.mode
    config = ConfigDict()
    config.source = source  # noise, sse, lobster or csv
    config.folder = chosen.folder or f"data/{source}"  # where the files of sse and lobster are
    config.symbol = chosen.symbol  # one symbol, several joined by +, or all
    config.date = chosen.date  # one date as in the file names; empty: all
    config.file = chosen.file  # the orders, for source csv
    config.output = chosen.output or f"runs/replay_{source}"  # a new folder for the results
    config.overwrite = False  # whether an existing output folder is replaced

    config.tick = 100  # smallest price step, 1e-4 of the currency
    config.capacity = {"noise": 256, "csv": 1024}.get(source, 4096)  # resting orders a side
    config.trade_width = {"noise": 32, "csv": 64}.get(source, 128)  # transactions listed per order
    config.accounts = 16 if source == "csv" else 1  # accounts; a CSV's agent ids are 0 to accounts - 1
    config.session = "chinese" if source == "sse" else "continuous"  # chinese (call auctions) or continuous
    config.start_time = "00:00:00" if source == "csv" else "09:30:00"  # of a continuous session
    config.end_time = "23:59:59" if source == "csv" else "16:00:00"  # of a continuous session, included

    config.seed = 0  # of the noise agent
    config.markets = 1  # noise markets to make
    config.minutes = 30  # of noise
    config.interval_s = 1.0  # mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # around which the noise agent starts, 1e-4 of the currency

    config.grouped = True  # lobster: executions of one aggressor become one order (else one order a message)
    config.chunk_orders = 8192  # orders of each market in one compiled call
    config.write_orders = True  # orders.csv.gz
    config.write_snapshots = True  # snapshots.csv.gz, ten levels after every order
    config.picture = True  # day.png
    return config
