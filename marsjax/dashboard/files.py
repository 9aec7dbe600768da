"""Figures and tables as the bytes of files."""

import gzip
import io

import pandas as pd
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as a picture."""
    found = io.BytesIO()
    figure.savefig(found, format="png", dpi=dpi)
    return found.getvalue()


def csv(table: pd.DataFrame) -> bytes:
    """A table as a CSV file."""
    return table.to_csv(index=False).encode()


def zipped(table: pd.DataFrame) -> bytes:
    """A table as a gzipped CSV file, whose bytes depend on the table alone."""
    return gzip.compress(csv(table), mtime=0)
