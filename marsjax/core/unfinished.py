"""What is being written on disk and is not whole yet: how to take it away, should a signal end the process.

The main thread may then be inside a compilation and reach none of its `finally` blocks, so the thread that heard the
signal does it: the list of what is to do is therefore one for the process, as the signals are.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_UNDO: dict[object, Callable[[], None]] = {}


@contextlib.contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `undo` is what takes its unfinished files away; other errors are the block's own matter.

    `undo` is called at most once, from another thread, and may find the files at any point of their making.
    """
    key = object()
    _UNDO[key] = undo
    try:
        yield
    finally:
        _UNDO.pop(key, None)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file; it is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with undone_by(lambda: fresh.unlink(missing_ok=True)):
        try:
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def undo_all() -> None:
    """Takes away what is not whole, the newest first; what cannot be taken away stays."""
    while _UNDO:
        _, undo = _UNDO.popitem()
        with contextlib.suppress(OSError):
            undo()
