"""Tables of a run as files that grow: CSV, compressed, or Parquet."""

import contextlib
import gzip
from pathlib import Path
from typing import Any

import pandas as pd

from marsjax.core.errors import InputError
from marsjax.experiments.csv_text import csv_text
from marsjax.observers.market_tables import Table
from marsjax.sim import frames

CSV, PARQUET = "csv", "parquet"
_FAST = 1
"""gzip level: much faster than the default, for twice the bytes."""


class TableFiles:
    """Files `<name>.csv.gz` or `<name>.parquet` in a folder, one a table, written part by part."""

    def __init__(self, folder: Path, form: str = CSV) -> None:
        check_form(form)
        self._folder, self._form = folder, form
        self._files: dict[str, Any] = {}
        self._open = contextlib.ExitStack()

    def write(self, name: str, table: Table) -> None:
        """Adds rows to a table, columns as `market_tables.presented` makes them; all parts of one have the same."""
        if self._form == PARQUET:
            self.write_frame(name, frames.frame(table))
            return
        is_new = name not in self._files
        if is_new:
            file = gzip.GzipFile(self._folder / f"{name}.csv.gz", "wb", compresslevel=_FAST, mtime=0)
            self._files[name] = self._open.enter_context(file)
        self._files[name].write(csv_text(table, header=is_new).encode())

    def write_frame(self, name: str, table: pd.DataFrame) -> None:
        """Adds rows to a Parquet file."""
        import pyarrow
        import pyarrow.parquet

        if name not in self._files:
            rows = pyarrow.Table.from_pandas(table, preserve_index=False)
            file = pyarrow.parquet.ParquetWriter(self._folder / f"{name}.parquet", rows.schema)
            self._files[name] = self._open.enter_context(file)
        file = self._files[name]
        file.write_table(pyarrow.Table.from_pandas(table, schema=file.schema, preserve_index=False))

    def close(self) -> None:
        """Closes the files; nothing more can be written."""
        self._open.close()


def check_form(form: str) -> None:
    """InputError for a form that there is not, or that lacks its package."""
    if form not in (CSV, PARQUET):
        raise InputError(f"config.tables: expected {CSV} or {PARQUET}, got {form!r}")
    if form == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError("config.tables: parquet needs pyarrow: pip install 'marsjax[parquet]'") from error


def write_table(folder: Path, name: str, table: pd.DataFrame, form: str = CSV, suffix: str = ".csv") -> None:
    """A whole table: `<name><suffix>`, where `.csv.gz` is compressed, or `<name>.parquet`."""
    check_form(form)
    if form == PARQUET:
        table.to_parquet(folder / f"{name}.parquet", index=False)
    else:
        compression: Any = {"method": "gzip", "mtime": 0} if suffix.endswith(".gz") else None
        table.to_csv(folder / f"{name}{suffix}", index=False, compression=compression)


def as_parquet(folder: Path, name: str, rows: int = 500_000) -> None:
    """Makes `<name>.parquet` of `<name>.csv.gz`, some rows at a time, and takes that away; nothing where it is not."""
    path = folder / f"{name}.csv.gz"
    if not path.exists():
        return
    names = list(pd.read_csv(path, nrows=0).columns)
    kinds: Any = {column: "float64" if _is_price(column) else "str" if column in _WORDS else "int64"
                  for column in names}
    files = TableFiles(folder, PARQUET)
    with contextlib.closing(files), pd.read_csv(path, dtype=kinds, chunksize=rows, keep_default_na=False,
                                                na_values={column: [""] for column in names if _is_price(column)}
                                                ) as parts:
        for part in parts:
            files.write_frame(name, part)
    path.unlink()


_WORDS = ("clock", "phase", "type", "cancel_type", "status", "price_unit", "volume_unit")


def _is_price(name: str) -> bool:
    return name not in _WORDS and (name in ("ask", "bid", "spread") or "price" in name)
