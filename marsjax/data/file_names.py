"""Names of market data files: what a feed is called after them, and the files of a folder that fit a form."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

ENDING = r"\.(?:csv|txt)(?:\.gz)?"
"""Of the files that are read, in capitals or not; whether one is packed is seen in it, not in its name."""


def stem(path: Path) -> str:
    """The name without the ending of a CSV: dots, spaces and any letters of it stay."""
    found = re.search(f"{ENDING}$", path.name, re.IGNORECASE)
    return path.name[: found.start()] if found and found.start() else path.name


def is_csv(path: Path) -> bool:
    """Whether a file is named as those that are read."""
    return stem(path) != path.name and not path.name.startswith(".")


def matching(folder: Path, wanted: str) -> Iterator[tuple[re.Match[str], Path]]:
    """The files of a folder whose names without ending fit a regular expression, sorted.

    Raises FileNotFoundError where there is no such folder, NotADirectoryError where it is none.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder of files, got a file")
    for path in sorted(folder.iterdir()):
        found = re.fullmatch(wanted, stem(path))
        if found and is_csv(path):
            yield found, path


def form(*names: str) -> str:
    """SYMBOL_DATE_<one of the names>, as a regular expression."""
    return rf"(.+)_(\d+(?:-\d+)*)_({'|'.join(names)})"


def pairs(folder: Path, symbols: Sequence[str], date: str, names: tuple[str, str]
          ) -> dict[tuple[str, str], tuple[Path, Path]]:
    """Files SYMBOL_DATE_<name> of two names that belong together, by symbol and date.

    Raises FileNotFoundError where one of the symbols and the date asked for (none: all) lacks its other file, besides
    the errors of `matching`.
    """
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for match, path in matching(folder, form(*names)):
        found.setdefault((match[1], match[2]), {}).setdefault(match[3], path)
    for (symbol, day), there in found.items():
        lacking = [name for name in names if name not in there]
        if lacking and (not symbols or symbol in symbols) and date in ("", day):
            raise FileNotFoundError(f"{next(iter(there.values()))}: no {symbol}_{day}_{lacking[0]}.csv[.gz] beside it; "
                                    "add it, or name the symbols to read")
    return {day: (there[names[0]], there[names[1]]) for day, there in found.items() if len(there) == len(names)}


def others(folder: Path, wanted: str) -> str:
    """What to add to an error about files that were looked for: up to five of those there that do not fit."""
    names = [path.name for path in sorted(folder.iterdir()) if not re.fullmatch(wanted, stem(path)) or not is_csv(path)]
    return f" (not named so: {', '.join(names[:5])}{', ...' * (len(names) > 5)})" if names else ""
