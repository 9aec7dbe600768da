"""The trace of a rollout as files that grow from chunk to chunk, and can be taken back to a saved state."""

import gzip
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.experiments.csv_text import csv_text
from marsjax.observers import trace_tables
from marsjax.observers.market_tables import INTEGER, Table, presented
from marsjax.observers.trace import Log
from marsjax.sim.saved_states import DamagedError


def _orders(log: Log, numbers: np.ndarray) -> Table:
    return trace_tables.shown(trace_tables.orders(log, numbers))


_TABLES = {"orders": _orders, "trades": trace_tables.trades}
_PIECE = 2**20
_PRICES = "prices"


class TraceFiles:
    """Writes trace_orders.csv.gz and trace_trades.csv.gz; columns as in `observers.trace_tables`, presented.

    Chunks come one after the other, and within a chunk the orders of one trajectory after those of another. Each chunk
    is a gzip member of its own, so that what was written can be read whatever happens next; its bytes depend on its
    orders alone. With `mark` and `go_back` the files belong to the saved states of a rollout (`Saving.beside`): they
    then lie with these, and `copy_to` puts them where they are wanted at the end.
    """

    def __init__(self, folder: Path, market: MarketSpec, prices: str = INTEGER) -> None:
        self._paths = {name: folder / f"trace_{name}.csv.gz" for name in _TABLES}
        self._market, self._prices = market, prices
        self._begin()

    def names(self) -> list[str]:
        """The tables, as their files are named."""
        return [f"trace_{name}" for name in _TABLES]

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        """Adds a chunk of trajectories `numbers`."""
        for name, path in self._paths.items():
            table = presented(self._market, _TABLES[name](log, numbers), self._prices)
            text = csv_text(table, header=not self._sizes[name])
            member = gzip.compress(text.encode(), compresslevel=1, mtime=0)
            try:
                with open(path, "ab") as file:
                    file.write(member)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
            self._sizes[name] += len(member)
            self._hashes[name].update(member)

    def mark(self) -> dict[str, Any]:
        """Puts the files on disk for good; how prices are written, and the files' sizes in bytes and hashes by name."""
        for path in self._paths.values():
            if path.exists():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        return {_PRICES: self._prices,
                **{name: [self._sizes[name], self._hashes[name].hexdigest()] for name in self._paths}}

    def go_back(self, mark: dict[str, Any] | None) -> None:
        """Cuts off what came after a mark, or all.

        Raises DamagedError where what came before is not what was written, InputError where its prices are of another
        form.
        """
        if mark is None:
            for path in self._paths.values():
                path.unlink(missing_ok=True)
            self._begin()
            return
        if mark[_PRICES] != self._prices:
            raise InputError(f"config.prices: the trace beside the saved states was begun with {mark[_PRICES]!r}, got "
                             f"{self._prices!r}; go on with that, or name another save_folder")
        found = {name: _hash_of(path, mark[name][0]) for name, path in self._paths.items()}
        for name, path in self._paths.items():
            if found[name].hexdigest() != mark[name][1]:
                raise DamagedError(f"{path.name} is not what was written beside it")
        for name, path in self._paths.items():
            if mark[name][0] < path.stat().st_size:
                os.truncate(path, mark[name][0])
            self._sizes[name], self._hashes[name] = mark[name][0], found[name]

    def copy_to(self, folder: Path) -> None:
        """Copies the files into another folder."""
        for path in self._paths.values():
            if path.exists():  # not where no trajectory had anything to do
                shutil.copyfile(path, folder / path.name)

    def _begin(self) -> None:
        self._sizes = dict.fromkeys(self._paths, 0)
        self._hashes = {name: hashlib.sha256() for name in self._paths}


def _hash_of(path: Path, size: int) -> Any:
    """The SHA-256 so far of the first `size` bytes of a plain file; DamagedError if there are fewer."""
    total, left = hashlib.sha256(), size
    if not path.is_file():
        raise DamagedError(f"the file {path.name} beside it is missing")
    with open(path, "rb") as file:
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise DamagedError(f"{path.name} is shorter than what was written beside it")
            total.update(piece)
            left -= len(piece)
    return total
