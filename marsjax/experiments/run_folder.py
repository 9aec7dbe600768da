"""Files of a run: a folder that appears only when it is complete, and JSON."""

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

import marsjax
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.unfinished import undone_by

MARKER = ".marsjax-run"
"""In every folder that a run wrote: JSON with marsjax's version and the names of the files that it wrote there."""
RUNS = pathlib.Path("runs")
"""Where the folders of runs are that name none."""
OVERWRITE = "--config.overwrite=true"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Errors of writing, which Python raises without the name of the file."""
_LONGEST_NAME = 200


def of_config(config: ConfigDict, name: str) -> "OutputFolder":
    """The folder that `config.output` names; if empty, a new one beside those of earlier runs: runs/NAME, runs/NAME_2.

    With `config.overwrite` the folder is replaced, if marsjax wrote it.
    """
    return OutputFolder(config.output or RUNS / name, config.overwrite, is_numbered=not config.output)


def output_folder(path: str | os.PathLike[str], overwrite: bool = False, key: str = "config.output") -> "OutputFolder":
    """A new folder, or, with `overwrite`, one that an earlier run wrote; errors name it by the `key` of the config."""
    return OutputFolder(path, overwrite, key)


def told(folder: "OutputFolder", first: str = "", is_there: bool = True) -> str:
    """Where the results are, and the file to look at first if there is one, as the end of a program's last line."""
    return f"results in {folder.path}" + (f"; look at {first} first" if first and is_there else "")


class OutputFolder:
    """Gives a folder to write into, which becomes `path` when the block ends without an exception.

    Until then it is a hidden sibling, so that a run that broke off leaves nothing that could be taken for a result; one
    that was killed leaves the sibling, which the next run of this path takes away. An error of writing in the block
    names the path that was asked for. Raises InputError where `path` is there already and may not be replaced: what is
    replaced, with `overwrite` alone, is a folder that marsjax wrote and that holds nothing else, or an empty one.
    OSError where it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False, key: str = "config.output", *,
                 is_numbered: bool = False) -> None:
        self.path = pathlib.Path(path)
        """Where the results are when the block has ended; of a numbered folder, that of this run."""
        self._first, self._overwrite, self._key = self.path, overwrite, key
        self._is_numbered = is_numbered and not overwrite
        self._held = contextlib.ExitStack()

    def check(self) -> None:
        """Raises what entering would: for programs that enter after their work."""
        self._take_number()
        self._clear_up()
        self._take_number()
        self._check_target()
        place = next(folder for folder in self._target.parents if folder.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{self._key}: cannot write into {place}", str(self.path))

    def __enter__(self) -> pathlib.Path:
        self.check()
        target = self._target
        self._made = [folder for folder in target.parents if not folder.exists()]
        self._hidden = target.with_name(f".{self._stem}.{uuid.uuid4().hex[:8]}")
        self._old = target.with_name(f"{self._hidden.name}.old")
        self._held.enter_context(undone_by(self._undo))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._hidden.mkdir()
            self._marker = self._held.enter_context(_held_marker(self._hidden))
        except OSError as error:
            self._undo()
            self._held.close()
            raise self._named(error) from error
        return self._hidden

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        with self._held:
            if error is None:
                try:
                    self._publish()
                    return
                except (OSError, InputError) as failed:
                    error = failed
            self._undo()
            named = self._named(error)
            if named is not error:
                raise named from error
            if kind is None:
                raise error

    @property
    def _target(self) -> pathlib.Path:
        return pathlib.Path(os.path.abspath(self.path))

    @property
    def _stem(self) -> str:
        return self._first.absolute().name[:_LONGEST_NAME]

    def _take_number(self) -> None:
        """Of a numbered folder, the first path that is free."""
        number = 1
        while self._is_numbered and os.path.lexists(self._target):
            number += 1
            self.path = self._first.with_name(f"{self._first.name}_{number}")

    def _check_target(self) -> None:
        target = self._target
        for parent in target.parents:
            if parent.exists() and not parent.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{self._key}: expected a folder where the file {parent} is",
                                         str(self.path))
        if not os.path.lexists(target):
            return
        what = f"{self._key}: {self.path} exists"
        if target.is_symlink() or not target.is_dir():
            raise InputError(f"{what} and is no folder, which {OVERWRITE} does not overwrite; name another")
        for keep in (pathlib.Path.cwd(), pathlib.Path.home()):
            if keep.is_relative_to(target):
                raise InputError(f"{what} and holds {keep}: will not overwrite it; name another folder")
        found = _files(target)
        foreign = [name for name in found if name not in _written(target)]
        if foreign:
            raise InputError(f"{what} and holds what marsjax did not write there ({_some(foreign)}), which {OVERWRITE} "
                             "does not overwrite; name another folder, or remove it yourself")
        if found and not self._overwrite:
            raise InputError(f"{what} and holds the {len(found)} files of an earlier run ({_some(found)}); replace it "
                             f"by {OVERWRITE}, or name another folder")

    def _publish(self) -> None:
        self._take_number()
        self._check_target()  # once more: another run may have written it meanwhile
        record = {"written_by": "marsjax", "version": marsjax.__version__, "files": _files(self._hidden)}
        self._marker.write(json.dumps(record, indent=1) + "\n")
        self._marker.flush()
        while self._is_numbered:
            try:
                self._hidden.rename(self._target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self._take_number()
        if self._target.exists():
            self._target.rename(self._old)
        try:
            self._hidden.rename(self._target)
        except OSError:
            if self._old.exists():
                self._old.rename(self._target)
            raise
        shutil.rmtree(self._old, ignore_errors=True)

    def _undo(self) -> None:
        """Leaves all as it was before the run; if it has just put its folder in place, that is whole and stays."""
        if self._old.exists() and not self._target.exists():
            self._old.rename(self._target)
        for folder in (self._hidden, self._old):
            _remove(folder)
        with contextlib.suppress(OSError):  # a parent that someone else uses by now stays
            for folder in self._made:
                folder.rmdir()

    def _clear_up(self) -> None:
        """Takes away the hidden folders of earlier runs of this path that were killed, and puts an old result back."""
        name = re.compile(rf"\.{re.escape(self._stem)}\.[0-9a-f]{{8}}(\.old)?")
        for path in sorted(self._target.parent.glob(f".{glob_safe(self._stem)}.*")):
            matched = name.fullmatch(path.name)
            hidden = path.with_name(path.name.removesuffix(".old"))
            if not matched or not path.is_dir() or not _is_left(path) or (hidden.exists() and not _is_left(hidden)):
                continue
            if matched[1] and not os.path.lexists(self._target):
                path.rename(self._target)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def _named(self, error: BaseException) -> BaseException:
        """An error of the block by the user's path, not by the hidden one."""
        hidden, shown = str(self._hidden), str(self.path)
        if isinstance(error, OSError):
            if error.errno is None or (error.filename is None and error.errno not in _NO_ROOM):
                return error
            name = shown if error.filename is None else str(error.filename)
            if hidden in name or name == shown or pathlib.Path(name) in self._target.parents:
                return OSError(error.errno, f"{self._key}: cannot write: {error.strerror}", name.replace(hidden, shown))
            return error
        if isinstance(error, InputError) and hidden in str(error):
            return InputError(str(error).replace(hidden, shown))
        if isinstance(error, Exception) and os.strerror(errno.ENOSPC) in str(error):
            return OSError(errno.ENOSPC, f"{self._key}: cannot write: {os.strerror(errno.ENOSPC)}", shown)
        return error


def glob_safe(text: str) -> str:
    """A name as a pattern of `glob` that matches it alone."""
    return re.sub(r"([*?[])", r"[\1]", text)


@contextlib.contextmanager
def _held_marker(folder: pathlib.Path) -> Iterator[Any]:
    """The marker of a folder, open and locked: as long as it is, the folder's run lives."""
    import fcntl

    fresh = folder / f"{MARKER}.new"
    file = open(fresh, "w", encoding="utf-8")  # noqa: SIM115 - closed below, where a full disk is no news any more
    try:
        with contextlib.suppress(OSError):  # no locks here: then nobody can tell that the run is dead, and it is left
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(folder / MARKER)  # under its name it is always locked
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def _is_left(folder: pathlib.Path) -> bool:
    """Whether a hidden folder is of a run of marsjax that has died."""
    import fcntl

    try:
        with open(folder / MARKER, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _files(folder: pathlib.Path) -> list[str]:
    """Names of all files under a folder, and of links, but for the marker."""
    found = [pathlib.Path(place, name).relative_to(folder).as_posix() for place, folders, names in os.walk(folder)
             for name in [*names, *(one for one in folders if os.path.islink(os.path.join(place, one)))]]
    return sorted(name for name in found if name != MARKER)


def _written(folder: pathlib.Path) -> set[str]:
    """The files that a folder's marker names; none if it has no marker."""
    path = folder / MARKER
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not path.is_symlink() else {}
        return set(found["files"]) if found["written_by"] == "marsjax" else set()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder that another thread may still write a last file into."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file by a text, whole or not at all."""
    target = pathlib.Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with undone_by(lambda: part.unlink(missing_ok=True)):
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error


def write_gzipped(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Writes a table as a gzipped CSV, whose bytes depend on the table alone."""
    table.to_csv(path, index=False, compression={"method": "gzip", "mtime": 0})


def write_json(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Writes `record` as JSON; arrays become lists, numbers that are not finite (JSON has none) become null.

    Raises TypeError with the key of a value that has no form in JSON.
    """
    pathlib.Path(path).write_text(json_text(record), encoding="utf-8")


def json_text(record: Mapping[str, Any]) -> str:
    """What `write_json` writes; raises what it does."""
    return json_text_of(record, lambda value: value.to_dict() if isinstance(value, ConfigDict) else value)
