"""The SHA-256 of every file of a folder, in one file of it: a flipped bit anywhere is found before anything is read."""

import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

from marsjax.core import files
from marsjax.core.errors import InputError, brief

NAME = "manifest.json"
_FORMAT = "marsjax manifest 1"
_HASH = re.compile(r"[0-9a-f]{64}")


def write(folder: pathlib.Path, parts: Iterable[str]) -> None:
    """Writes the manifest of the files in `parts`, names of files and folders in `folder`; others are left out."""
    found: list[pathlib.Path] = []
    for part in parts:
        path = folder / part
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(found)}
    text = json.dumps({"format": _FORMAT, "sha256": hashes}, indent=2, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def check(folder: pathlib.Path) -> list[str]:
    """Names of the files that the manifest of a folder lists, once each has been read and is what it was.

    Raises FileNotFoundError for a file that is missing, InputError that names the file that is damaged: the manifest
    itself, or one whose hash is another.
    """
    path = folder / NAME
    record = files.read_json(path)
    hashes = record.get("sha256")
    if record.get("format") != _FORMAT or set(record) != {"format", "sha256"} or not isinstance(hashes, dict):
        raise InputError(f"{path}: expected format {_FORMAT!r} and sha256, the hash of each file, got format "
                         f"{brief(record.get('format'))} and sha256 {brief(hashes)}")
    for name, expected in hashes.items():
        inside = pathlib.PurePosixPath(name)
        if not isinstance(expected, str) or not _HASH.fullmatch(expected) or inside.is_absolute() or (
                ".." in inside.parts) or "\0" in name:
            raise InputError(f"{path}: sha256: expected names of files in the folder with their hashes, got "
                             f"{brief(name)}: {brief(expected)}")
    for name, expected in hashes.items():
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder}: incomplete: {name} is missing, which {NAME} names")
        found = sha256(folder / name)
        if found != expected:
            with (folder / name).open("rb") as file:
                files.refuse_stand_in(folder / name, file.read(64))
            raise InputError(f"{folder / name}: cut off or changed: its SHA-256 begins with {found[:12]}, that in "
                             f"{NAME} with {expected[:12]}; copy or download the folder again")
    return list(hashes)


def sha256(path: pathlib.Path) -> str:
    """Of a plain file, in hexadecimal; errors of `files.check_regular`."""
    files.check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
