"""The folder of a fleet's results: one Parquet file a state, and `fleet.json`, which says of what they are."""

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.json_text import json_text_of
from marsjax.core.unfinished import undone_by

MANIFEST = "fleet.json"
STATES = "states"
"""Folder of the states' files, a thousand to a folder in it."""
_A_FOLDER = 1000
_KEY, _PROBLEMS = b"marsjax.fleet", b"marsjax.problems"
"""In the footer of a state's file."""

Columns = Mapping[str, np.ndarray | Sequence[Any]]
"""Arrays [N] or [N, M] (each row a list), or N lists or texts, by name."""


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Results of one identity in a folder."""

    folder: Path
    identity: str
    """SHA-256 of what the results are of."""

    def path(self, number: int) -> Path:
        """Of a state's file."""
        return self.folder / STATES / f"{number // _A_FOLDER:06d}" / f"{number:09d}.parquet"

    def is_done(self, number: int) -> bool:
        """Whether a state's file is there, whole and of this identity; InputError where it is of another."""
        return self.problems(number) is not None

    def problems(self, number: int) -> tuple[str, ...] | None:
        """Why a state is not complete; None where it is not done."""
        import pyarrow
        import pyarrow.parquet

        path = self.path(number)
        if not path.exists():
            return None
        try:
            found = pyarrow.parquet.read_metadata(path).metadata or {}
        except (pyarrow.ArrowInvalid, EOFError):  # cut off, as a machine without power leaves it
            return None
        if found.get(_KEY, b"").decode() != self.identity:
            raise InputError(f"{path}: is a state of another fleet than {self.folder / MANIFEST}: take it away, or "
                             "name another folder")
        return tuple(json.loads(found.get(_PROBLEMS, b"[]")))

    def write(self, number: int, columns: Columns, problems: Sequence[str] = ()) -> None:
        """Writes a state's file, whole or not at all."""
        import pyarrow
        import pyarrow.parquet

        path = self.path(number)
        table = pyarrow.table({name: _array(column) for name, column in columns.items()})
        table = table.replace_schema_metadata({_KEY: self.identity.encode(), _PROBLEMS: json.dumps(problems).encode()})
        whole = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, whole, compression="zstd")
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        with undone_by(lambda: part.unlink(missing_ok=True)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(whole.getvalue())
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def done(self, count: int, tell: Callable[[int, tuple[str, ...]], None] = lambda number, problems: None
             ) -> np.ndarray:
        """Which of `count` states are done, bool [count]; InputError as `is_done`.

        `tell` is called with the number of each and its problems.
        """
        found = np.zeros(count, bool)
        for number in self.numbers():
            problems = self.problems(number) if number < count else None
            if problems is not None:
                found[number] = True
                tell(number, problems)
        return found

    def numbers(self) -> list[int]:
        """Numbers of the files that are there, rising."""
        return sorted(int(path.stem) for path in (self.folder / STATES).glob("*/[0-9]*.parquet"))


def open_ledger(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> Ledger:
    """The results of what a record says (plain values), in a folder that is new or holds results of the same.

    InputError where it holds others, which names what differs. Several processes may open one at once.
    """
    text = json_text_of(record)
    ledger = Ledger(Path(folder).absolute(), hashlib.sha256(text.encode()).hexdigest())
    manifest = ledger.folder / MANIFEST
    if not manifest.exists():
        # Another process may make the manifest between these two looks, and later results: so there is a third.
        if _is_of_others(ledger.folder) and not manifest.exists():
            raise InputError(f"{folder}: expected a new or empty folder, or one of a fleet ({MANIFEST} in it): name "
                             "another")
        _create(manifest, json_text_of({"written_by": "marsjax", "identity": ledger.identity, "of": record}))
    found = files.read_json(manifest)
    if found.get("identity") != ledger.identity:
        changed = _changes(found.get("of"), json.loads(text))
        raise InputError(f"{folder}: holds results of another fleet: {'; '.join(changed[:4])}: name another folder, or "
                         f"run what {MANIFEST} says")
    return ledger


def known_ledger(folder: str | os.PathLike[str]) -> Ledger:
    """The results that are in a folder; InputError where it is no fleet's."""
    manifest = Path(folder).absolute() / MANIFEST
    if not manifest.exists():
        raise InputError(f"{folder}: expected the folder of a fleet, found no {MANIFEST} in it")
    identity = files.read_json(manifest).get("identity")
    if not isinstance(identity, str):
        raise InputError(f"{manifest}: expected an identity, got {brief(identity)}")
    return Ledger(manifest.parent, identity)


def _is_of_others(folder: Path) -> bool:
    """Whether something is there, but for manifests that processes are writing."""
    if not folder.is_dir():
        return folder.exists()
    return any(not path.name.startswith(f".{MANIFEST}.") for path in folder.iterdir())


def _create(path: Path, text: str) -> None:
    """Writes a file that is not there, whole; one that another process has made meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with undone_by(lambda: part.unlink(missing_ok=True)):
        try:
            part.write_text(text, encoding="utf-8")
            _link(part, path)
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)


def _link(part: Path, path: Path) -> None:
    """Gives a file its name if nothing has it (FileExistsError); on a file system without links the last one stays."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        if not path.exists():
            part.replace(path)


def _changes(old: Any, new: Any, key: str = "") -> list[str]:
    """Where two records differ, by dotted keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [change for name in sorted({*old, *new})
                for change in _changes(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))]
    return [] if old == new else [f"{key} was {brief(old)}, is {brief(new)}"]


def _array(column: np.ndarray | Sequence[Any]) -> Any:
    """A column for Parquet; rows of a matrix are lists."""
    import pyarrow

    if isinstance(column, np.ndarray) and column.ndim == 2:
        offsets = np.arange(len(column) + 1, dtype=np.int32) * column.shape[1]
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(np.ascontiguousarray(column).reshape(-1)))
    return pyarrow.array(column)
