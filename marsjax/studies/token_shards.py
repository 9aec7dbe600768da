"""Days of any feed, prepared once into a folder of token files with an index, and opened again to train on.

    preparation.json   written first: what it is of: version, market, tokens, hours, days
    index.json         written last: the days, each with the size, hash and parts of its files; hashes of the bins
    converters/        the bins
    tokens/, images/   a file of each day, and of its mirror image
    unfinished/        what is there while it is being made
    .lock              held by the process that prepares, whose id it holds

A preparation that was ended goes on when it is started again. Days that are done are not made again, but their orders
are read, and must be those of then. Of a folder that has an index only files that were removed are made again.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from marsjax.checkpoint import converter_files
from marsjax.core import files, locks
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.unfinished import write_whole
from marsjax.data.feed import DayFeed
from marsjax.studies import worker_processes
from marsjax.tokens.bins import Converter
from marsjax.training import converters, day_shard, stored
from marsjax.training.day_shard import DayPlaces, ShardSpec
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span, Split
from marsjax.training.stored import StoredDay, StoredFile, StreamedDays

_FORMAT = 2
_ABOUT, _INDEX, _UNFINISHED, _LOCK = "preparation.json", "index.json", "unfinished", ".lock"
_MOST_BYTES = 2**30
"""Of an index."""


class ShardFolder(NamedTuple):
    """A folder that was prepared."""

    about: dict[str, Any]
    """Its preparation.json."""
    days: list[dict[str, Any]]
    """Records of `day_shard.write_tokens`."""
    bins: dict[str, str]
    """SHA-256 of each file of bins, by its name."""


def prepare(folder: Path, spec: ShardSpec, feeds: Sequence[DayFeed], held_out: Sequence[str] = (), workers: int = 1,
            names: Mapping[str, str] | None = None, version: str = "") -> ShardFolder:
    """Makes the files of all days, or what is missing of them.

    Args:
      folder: new, or of the same preparation.
      spec: how.
      feeds: the days, of one market.
      held_out: symbols whose days are held out whole.
      workers: processes, each with a day at a time; 1: this one.
      names: of what would have let refused orders in, as of `Refusals.problems`.
      version: of the program; what another one began is not gone on with.

    Raises InputError where a day has too few orders, the folder holds something else or is used by another process, or
    the orders of a day are not those that were prepared before.
    """
    own = [feed for feed in feeds if feed.symbol not in held_out]
    if not own:
        raise InputError(f"shards: every day is held out whole ({len(feeds)} of {', '.join(held_out)}), none is left "
                         "to train on")
    about = _about(spec, feeds, held_out, version)
    _check_folder(folder, about)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        if (other := locks.taken_by(file)) is not None:
            raise InputError(f"{folder}: another preparation uses this folder, process {other}; wait for its end, or "
                             "name another folder")
        _check_folder(folder, about)  # what came in between
        if not (folder / _ABOUT).exists():
            write_whole(folder / _ABOUT, json_text_of(about).encode())
        work = _Work(folder, spec, feeds, held_out, workers, names)
        if (folder / _INDEX).exists():
            work.complete()
        else:
            work.make(own)
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    return read(folder)


def read(folder: Path) -> ShardFolder:
    """The index of a folder; InputError where there is none, or only the beginning of one."""
    if not (folder / _INDEX).is_file():
        why = ("was not prepared to the end: start the preparation again" if (folder / _ABOUT).exists() else
               "holds no token shards: make them with marsjax prepare")
        raise InputError(f"{folder}: {why}")
    about, index = (files.read_json(folder / name, _MOST_BYTES) for name in (_ABOUT, _INDEX))
    if about.get("format") != _FORMAT:
        raise InputError(f"{folder}: was prepared in format {about.get('format')}, expected {_FORMAT}: remove it and "
                         "prepare again")
    return ShardFolder(about, index["days"], index["bins"])


@dataclasses.dataclass(frozen=True)
class _Work:
    """What `prepare` was given; the folder is locked."""

    folder: Path
    spec: ShardSpec
    feeds: Sequence[DayFeed]
    held_out: Sequence[str]
    workers: int
    names: Mapping[str, str] | None

    def make(self, own: Sequence[DayFeed]) -> None:
        """Makes all that is not there yet, the index last; `own` are the days that are trained on."""
        spec, places = self.spec, self._places(self.folder)
        _each("days read again", self.workers, [
            functools.partial(day_shard.check_day, feed, places[feed.name]) for feed in self.feeds
            if self._is_done(feed, places[feed.name])])
        count = min(spec.bins_days or len(own), len(own))
        to_fit = [own[place * len(own) // count] for place in range(count)]
        _each("bins", self.workers, [functools.partial(day_shard.write_values, spec, feed, places[feed.name])
                                     for feed in to_fit if not places[feed.name].values.exists()])
        fitted, bins = _fitted(spec, [places[feed.name] for feed in to_fit]), {}
        for name, converter in fitted.items():
            file = self.folder / "converters" / f"{name}.npz"
            converter_files.save(file, converter)
            bins[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        self._write_tokens(fitted, [feed for feed in self.feeds if not self._is_done(feed, places[feed.name])], places)
        days = [files.read_json(places[feed.name].record) for feed in self.feeds]
        write_whole(self.folder / _INDEX, json_text_of({"days": days, "bins": bins}).encode())

    def complete(self) -> None:
        """Makes the files again that are missing although there is an index; the bins are kept.

        Raises InputError where one does not come out as the index says; then none is put in its place.
        """
        index = read(self.folder)
        missing = [(feed, day) for feed, day in zip(self.feeds, index.days, strict=True)
                   if not all(path.exists() for path, _ in _files(self.folder, day))]
        if not missing:
            return
        shutil.rmtree(self.folder / _UNFINISHED, ignore_errors=True)
        places = self._places(self.folder / _UNFINISHED)
        self._write_tokens(_bins(self.folder, index), [feed for feed, _ in missing], places)
        for feed, day in missing:
            found = files.read_json(places[feed.name].record)
            differ = [key for key in ("orders", "tokens", "image") if found[key] != day[key]]
            if differ:
                raise InputError(f"{self.folder}: {feed.name}: made again it is not what {_INDEX} says "
                                 f"({', '.join(differ)}): put the day's files of then back, or remove the whole folder "
                                 "and prepare again")
        for _, day in missing:
            for (path, _), (fresh, _) in zip(_files(self.folder, day), _files(self.folder / _UNFINISHED, day),
                                             strict=True):
                if not path.exists():
                    path.parent.mkdir(exist_ok=True)
                    fresh.replace(path)

    def _write_tokens(self, fitted: Mapping[str, Converter], feeds: Sequence[DayFeed],
                      places: Mapping[str, DayPlaces]) -> None:
        _each("tokens", self.workers, [
            functools.partial(day_shard.write_tokens, self.spec, fitted, feed, feed.symbol in self.held_out,
                              places[feed.name], self.names) for feed in feeds])

    def _places(self, folder: Path) -> dict[str, DayPlaces]:
        """By day; files of tokens in this folder, whose sub-folders are made."""
        unfinished = self.folder / _UNFINISHED
        for place in (folder / "tokens", folder / "images", self.folder / "converters", unfinished):
            place.mkdir(parents=True, exist_ok=True)
        return {feed.name: DayPlaces(unfinished / f"{feed.name}.npz", folder / "tokens" / f"{feed.name}.npy",
                                     folder / "images" / f"{feed.name}.npy", unfinished / f"{feed.name}.json")
                for feed in self.feeds}

    def _is_done(self, feed: DayFeed, places: DayPlaces) -> bool:
        has_image = self.spec.mirror and feed.symbol not in self.held_out
        return places.record.exists() and places.tokens.exists() and (not has_image or places.image.exists())


def opened(folder: Path, check: bool = True) -> Prepared:
    """The days of a folder as `training.prepare.prepare` gives them, but streamed.

    `refused` is empty: the records of the index say what was refused. InputError where a file is damaged; with `check`
    all bytes are read once.
    """
    index = read(folder)
    days = index.days
    of_day = {day["name"]: [(_file(path, record, check), record) for path, record in _files(folder, day)]
              for day in days}
    whole = {name: found[0][0] for name, found in of_day.items()}
    own = [day for day in days if not day["held_out"]]
    every = [of_day[day["name"]][0] for day in own] + [image for day in own for image in of_day[day["name"]][1:]]

    def until(part: str) -> StreamedDays:
        known = hashlib.sha256(json.dumps([[record["sha256"], record[part]] for _, record in every]).encode())
        return StreamedDays([day.until(record[part]) for day, record in every], known.hexdigest()[:16])

    def spans(part: str, end: Callable[[dict[str, Any]], int]) -> list[Span]:
        return [Span(day["name"], whole[day["name"]], day["tokens"][part], end(day["tokens"])) for day in own]

    unseen = [Span(day["name"], whole[day["name"]], 1, day["tokens"]["rows"]) for day in days if day["held_out"]]
    parts = Split(until("validation"), until("held"), spans("validation", lambda of: int(of["held"])),
                  spans("held", lambda of: int(of["rows"])), unseen)
    return Prepared(parts, _bins(folder, index), {}, tuple(day["name"] for day in own))


def _files(folder: Path, day: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Where the tokens of a day lie, then those of its image if it has one, each with what the index says of it."""
    found = [(folder / "tokens" / f"{day['name']}.npy", day["tokens"])]
    return [*found, (folder / "images" / f"{day['name']}.npy", day["image"])] if day["image"] else found


def _bins(folder: Path, index: ShardFolder) -> dict[str, Converter]:
    """The bins of a folder; InputError where one is not what was written."""
    found = {}
    for name, expected in index.bins.items():
        path = folder / "converters" / f"{name}.npz"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise InputError(f"{path}: is not the file of bins that was written: put it back, or remove all of "
                             f"{folder} and prepare again")
        found[name] = converter_files.load(path)
    return found


def _file(path: Path, record: Mapping[str, Any], check: bool) -> StoredDay:
    try:
        return stored.opened(path, StoredFile(*(record[field] for field in StoredFile._fields)), check)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; prepare again, which makes it") from None


def _fitted(spec: ShardSpec, places: Sequence[DayPlaces]) -> dict[str, Converter]:
    count = len(places) * (2 if spec.mirror else 1)
    return converters.fit_summaries(lambda name: (values for place in places
                                                  for values in day_shard.read_values(place.values, name)),
                                    count, spec.tokens, spec.level_bins)


def _each(what: str, workers: int, calls: Sequence[Callable[[], None]]) -> None:
    """Makes the calls, in so many processes, with a bar of progress; the first error ends it."""
    if not calls:
        return
    with tqdm(total=len(calls), desc=what, unit="day", disable=None) as bar:
        if workers == 1:
            for call in calls:
                call()
                bar.update()
            return
        try:
            for _ in worker_processes.results(calls, workers):
                bar.update()
        except BrokenProcessPool as error:
            raise OSError(f"a process that prepared {what} was ended, perhaps as memory ran out: start again with "
                          f"fewer than workers={workers}; days that are done stay") from error


def _about(spec: ShardSpec, feeds: Iterable[DayFeed], held_out: Sequence[str], version: str) -> dict[str, Any]:
    """What a preparation is of; as it is read again from JSON."""
    market = {name: value for name, value in dataclasses.asdict(spec.market).items() if name != "kernels"}
    own = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.name != "market"}
    record = {"format": _FORMAT, "version": version, **own, "tokens": dataclasses.asdict(spec.tokens), "market": market,
              "held_out": sorted(held_out), "days": [feed.name for feed in feeds]}
    found: dict[str, Any] = json.loads(json_text_of(record))
    return found


def _check_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """InputError unless a folder is new, empty, or of this preparation."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file")
    if not (folder / _ABOUT).is_file():
        if {path.name for path in folder.iterdir()} - {_LOCK, f".{_ABOUT}.new"}:
            raise InputError(f"{folder}: holds something else; name a new folder")
        return
    found = files.read_json(folder / _ABOUT, _MOST_BYTES)
    for key in about:
        if about[key] != found.get(key):
            raise InputError(f"{folder}: holds another preparation: {key}: expected {_shown(about[key])}, found "
                             f"{_shown(found.get(key))}; name another folder, or remove this one")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
