"""Figures and tables as the bytes of files."""

import gzip
import io
import threading
from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.figure import Figure

_ONE_AT_A_TIME = threading.Lock()
"""Matplotlib is not made for several threads that draw."""


def png(make: Callable[[], Figure | None], dpi: int = 150) -> bytes | None:
    """A figure as a picture, made and drawn while no other is; None where there is none."""
    found = io.BytesIO()
    with _ONE_AT_A_TIME:
        figure = make()
        if figure is None:
            return None
        figure.savefig(found, format="png", dpi=dpi)
    return found.getvalue()


def pngs(figures: Mapping[str, Callable[[], Figure]], dpi: int = 150) -> dict[str, bytes]:
    """Figures as pictures, by their names."""
    return {name: picture for name, make in figures.items() if (picture := png(make, dpi)) is not None}


def csv(table: pd.DataFrame) -> bytes:
    """A table as a CSV file."""
    return table.to_csv(index=False).encode()


def zipped(table: pd.DataFrame) -> bytes:
    """A table as a gzipped CSV file, whose bytes depend on the table alone."""
    return gzip.compress(csv(table), mtime=0)
