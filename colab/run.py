"""Runs the notebooks of this folder and keeps what they show: python colab/run.py [NAME ...]

Each runs from its first cell to its last in a kernel of this Python with this checkout's marsjax, in an empty folder
that is deleted afterwards. What is kept is the same from run to run on one machine: no times of cells, no progress
(standard error), no versions. A cell with the tag `sampled` shows figures of draws of a model, which may differ on
another kind of processor; `tests/test_colab.py` compares the others word for word. Needs
`pip install -e '.[notebooks]'`.
"""

import argparse
import hashlib
import os
import pathlib
import tempfile
import time

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
MOST_S = 3600
"""Of a notebook; on two idle cores each takes under five minutes, which the tests ask for."""


def execute(path: pathlib.Path, folder: pathlib.Path, most_s: float = MOST_S) -> NotebookNode:
    """The notebook with the outputs of a new kernel in `folder`.

    Raises nbclient's CellExecutionError where a cell fails, and CellTimeoutError where all take over `most_s` seconds.
    """
    ends = time.monotonic() + most_s
    notebook = nbformat.read(path, as_version=4)
    # The checkout comes first, whatever marsjax is installed; the kernel is of this Python.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    client = NotebookClient(notebook, timeout_func=lambda _: max(round(ends - time.monotonic()), 1),
                            kernel_name="python3", coalesce_streams=True,
                            resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    return tidy(notebook)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs between two runs of it, and with the hash of its code; the same record."""
    notebook.metadata = NotebookNode({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}, "marsjax": {"sha256": code_hash(notebook)}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def code_hash(notebook: NotebookNode) -> str:
    """Of all code cells: tells whether the outputs are those of the code that stands there."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\0".join(code).encode()).hexdigest()


def main() -> None:
    """Runs the notebooks that are named, or all, and writes them."""
    known = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all by default")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no notebook {', '.join(unknown)}: expected {', '.join(known)}")
    for name in names:
        began, path = time.perf_counter(), FOLDER / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, pathlib.Path(folder))
        nbformat.write(notebook, path)
        print(f"{name}: {time.perf_counter() - began:.1f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
