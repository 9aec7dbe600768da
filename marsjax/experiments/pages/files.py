"""Figures and tables as the bytes of files."""

import gzip
import io
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

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


def archive(folder: Path) -> bytes:
    """All files of a folder as a ZIP, by their paths in it; the bytes depend on these and on the files alone."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as into:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            into.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes(),
                          zipfile.ZIP_DEFLATED)
    return found.getvalue()
