"""The trace of a rollout as files that grow from chunk to chunk."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd

from marsjax.observers import trace_tables
from marsjax.observers.trace import Log


class TraceFiles:
    """Writes trace_orders.csv.gz and trace_trades.csv.gz; columns as in `observers.trace_tables`.

    Chunks come one after the other, and within a chunk the orders of one trajectory after those of another. Each chunk
    is a gzip member of its own, so that what was written can be read whatever happens next.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {"orders": folder / "trace_orders.csv.gz", "trades": folder / "trace_trades.csv.gz"}

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        """Adds a chunk of trajectories `numbers`."""
        tables = {"orders": trace_tables.orders(log, numbers), "trades": trace_tables.trades(log, numbers)}
        for name, path in self._paths.items():
            text = io.StringIO()
            pd.DataFrame(tables[name]).to_csv(text, index=False, header=not path.exists())
            with gzip.open(path, "ab", compresslevel=1) as file:
                file.write(text.getvalue().encode())
