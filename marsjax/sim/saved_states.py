"""States of a run on disk (Orbax): whole or not there, with a checksum of every file, and locked against a second run.

    <folder>/.lock              held by the process that uses the folder, whose id it holds
    <folder>/<number>/          a state, as Orbax writes it
    <folder>/<number>.sha256    JSON, the SHA-256 of each of its files; written last, so a state without it is not whole
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from marsjax.core import files, locks
from marsjax.core.errors import InputError, brief
from marsjax.core.unfinished import undone_by, write_whole

KEPT = 2
"""States on disk at a time: the one before the last outlives a write that breaks off."""
_ARRAYS, _ABOUT, _LOCK, _SUMS = "arrays", "about", ".lock", ".sha256"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class DamagedError(InputError):
    """A saved state, or what was written beside it, is not as it was written."""


class SavedState(NamedTuple):
    """A state as it was saved."""

    number: int
    record: dict[str, Any]
    """What was saved beside the arrays, JSON values."""
    arrays: Any
    """Arrays in the tree that was asked for, placed as it says."""


class SavedStates:
    """The states of one run, in a folder that no other process uses meanwhile; a context manager.

    Entering makes the folder. Raises InputError where another process uses it, and OSError where it is no folder or
    cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: Mapping[str, Any] | None = None) -> None:
        self.folder = pathlib.Path(folder)
        self.belong_to(identity or {})
        self._held = contextlib.ExitStack()
        self._good: list[int] = []

    def __enter__(self) -> "SavedStates":
        with contextlib.ExitStack() as held:
            self._lock(held)
            self._check_writable()
            self._manager = held.enter_context(_opened(self.folder))
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._held.close()

    def belong_to(self, identity: Mapping[str, Any]) -> None:
        """Sets what the states belong to, JSON values: those of anything else are not taken up."""
        self._identity = json.loads(json.dumps(dict(identity)))

    def save(self, number: int, record: Mapping[str, Any], arrays: Any) -> None:
        """Writes a pytree of arrays and JSON values as state `number`; keeps it and the good one before it.

        Raises OSError that names the folder; the states before are then still there.
        """
        import orbax.checkpoint as ocp

        named = _named(arrays)
        about = {"identity": self._identity, "record": dict(record), "arrays": _shapes(named)}
        with undone_by(lambda: self._remove(number)), contextlib.ExitStack() as undo:
            self._remove(number)  # a damaged one of the same number
            undo.callback(self._remove, number)
            try:
                with _quiet():
                    self._manager.reload()
                    self._manager.save(number, args=ocp.args.Composite(**{
                        _ARRAYS: ocp.args.StandardSave(named), _ABOUT: ocp.args.JsonSave(about)}), force=True)
                    self._manager.wait_until_finished()
                write_whole(self._sums(number), json.dumps(_checksums(self.folder / str(number))).encode())
            except OSError as error:
                self._fail(error)
            except (ValueError, RuntimeError) as error:  # which of them TensorStore raises for a full disk, too
                code = next((full for full in _NO_ROOM if os.strerror(full) in str(error)), None)
                if code is None:
                    raise
                self._fail(OSError(code, os.strerror(code)))
            undo.pop_all()
        self._good = [*(kept for kept in self._good if kept != number), number][-KEPT:]
        for other in set(self.numbers()) - set(self._good):
            self._remove(other)

    def numbers(self) -> list[int]:
        """Of the states in the folder, damaged ones among them, rising."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isascii() and path.name.isdigit())

    def check_whole(self, number: int) -> None:
        """DamagedError where a file of a state is not as it was written, is missing, or is too many."""
        path = self._sums(number)
        if not path.is_file():
            raise DamagedError("was not written to its end")
        try:
            wanted = files.read_json(path)
        except InputError:
            raise DamagedError(f"{path.name} is damaged") from None
        found = _checksums(self.folder / str(number))
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise DamagedError(f"{name} does not fit its checksum")

    def newest(self, like: Any, accept: Callable[[dict[str, Any]], None] = lambda record: None) -> SavedState | None:
        """The newest state that is whole, or None where nothing was saved yet.

        Args:
          like: a tree of the arrays' shapes, dtypes and shardings.
          accept: called with the record of a state; raises DamagedError where what belongs to it is damaged.

        A damaged state is passed over with a warning. Raises InputError where none is whole, and where one is of
        another identity, naming the first difference.
        """
        reasons: list[str] = []
        for number in reversed(self.numbers()):
            try:
                self.check_whole(number)
                about = self._about(number)
                self._check_identity(about["identity"])
                accept(about["record"])
            except DamagedError as error:
                reasons.append(f"{number}: {error}")
                continue
            self._good = [number]
            for reason in reasons:
                logging.getLogger(__name__).warning("%s: damaged saved state %s; taking up %d", self.folder, reason,
                                                    number)
            return SavedState(number, about["record"], self._arrays(number, about["arrays"], like))
        if reasons:
            raise InputError(f"{self.folder}: no saved state is whole ({reasons[0]}); remove the folder to begin anew, "
                             "or name another")
        return None

    def _lock(self, held: contextlib.ExitStack) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((self.folder / _LOCK).open("a+", encoding="utf-8"))
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "expected a folder for saved states, found a file",
                                     str(self.folder)) from None
        except OSError as error:
            self._fail(error)
        if (other := locks.taken_by(file)) is not None:
            raise InputError(f"{self.folder}: another run uses these saved states, process {other}; wait for its end, "
                             "or name another folder")

    def _check_writable(self) -> None:
        """By a file as of a save, before anything takes time."""
        probe = self.folder / f".probe{_SUMS}"
        try:
            probe.write_bytes(b"\n" * 4096)
        except OSError as error:
            self._fail(error)
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _sums(self, number: int) -> pathlib.Path:
        return self.folder / f"{number}{_SUMS}"

    def _remove(self, number: int) -> None:
        """Takes a state away, and what is left of one that was being written."""
        self._sums(number).unlink(missing_ok=True)
        for folder in (self.folder / str(number), *self.folder.glob(f"{number}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)

    def _about(self, number: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        with _quiet():
            found = self._manager.restore(number, args=ocp.args.Composite(**{_ABOUT: ocp.args.JsonRestore()}))
        return dict(found[_ABOUT])

    def _arrays(self, number: int, listed: dict[str, Any], like: Any) -> Any:
        import orbax.checkpoint as ocp

        wanted = _named(like)
        if listed != json.loads(json.dumps(_shapes(wanted))):
            names = sorted(key for key in listed.keys() | wanted.keys() if listed.get(key) != _shapes(wanted).get(key))
            raise InputError(f"{self.folder}: the saved arrays have other shapes or types than this run's "
                             f"({', '.join(names[:3])}): they are of another version of marsjax; name another folder")
        with _quiet():
            found = self._manager.restore(number, args=ocp.args.Composite(**{
                _ARRAYS: ocp.args.StandardRestore(wanted)}))[_ARRAYS]
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: found[_name(path)] if _size(leaf) else np.zeros(leaf.shape, leaf.dtype), like)

    def _check_identity(self, found: Mapping[str, Any]) -> None:
        for key in [*self._identity, *(key for key in found if key not in self._identity)]:
            if self._identity.get(key) != found.get(key):
                expected, other = _differing(self._identity.get(key), found.get(key))
                raise InputError(f"resume: {self.folder}: was saved by another run: {key}: expected {expected}, found "
                                 f"{other}; name another folder, or remove this one")

    def _fail(self, error: OSError) -> NoReturn:
        why = error.strerror or brief(error)
        raise OSError(error.errno or errno.EIO, f"cannot keep saved states: {why}", str(self.folder)) from error


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[Any]:
    import orbax.checkpoint as ocp

    # Which states are kept is decided here: Orbax would count damaged ones too.
    options = ocp.CheckpointManagerOptions(max_to_keep=None, create=True, enable_async_checkpointing=False,
                                           cleanup_tmp_directories=True)
    with _quiet():
        manager = ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs what it raises too, in many lines."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their paths: Orbax reads dictionaries, whatever the records are that they come from.

    Those without an element, which Orbax does not write, are left out.
    """
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _size(leaf)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _size(leaf: Any) -> int:
    return int(np.prod(leaf.shape, dtype=np.int64))


def _shapes(named: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [str(leaf.dtype), *leaf.shape] for name, leaf in named.items()}


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, by its name; DamagedError where one cannot be read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        try:
            files.check_regular(path)
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, InputError) as error:
            raise DamagedError(f"{path.relative_to(folder)} cannot be read: {type(error).__name__}") from error
    return found


def _differing(expected: Any, found: Any) -> tuple[str, str]:
    """Two values as texts; of long ones the part where they begin to differ."""
    texts = [repr(expected), repr(found)]
    if max(map(len, texts)) <= 100:
        return texts[0], texts[1]
    first = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    begin = max(first - 30, 0)
    return f"...{texts[0][begin : first + 50]}...", f"...{texts[1][begin : first + 50]}..."
