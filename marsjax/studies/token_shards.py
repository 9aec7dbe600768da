"""Days of any feed, prepared once into a folder of token files with an index, and opened again to train on.

    preparation.json   what it is of: market, tokens, hours, days
    index.json         written last: the days, each with the size, hash and parts of its files
    converters/        the bins
    tokens/, images/   a file of each day, and of its mirror image
    unfinished/        what is there while it is being made

A preparation that was ended goes on when it is started again: days that are done are not made again.
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
from marsjax.core import files
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.data.feed import DayFeed
from marsjax.studies import worker_processes
from marsjax.tokens.bins import Converter
from marsjax.training import converters, day_shard, stored
from marsjax.training.day_shard import DayPlaces, ShardSpec
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span, Split
from marsjax.training.stored import StoredDay, StoredFile, StreamedDays

_FORMAT = 1
_MOST_BYTES = 2**30
"""Of an index."""


class ShardFolder(NamedTuple):
    """A folder that was prepared."""

    about: dict[str, Any]
    """Its preparation.json."""
    days: list[dict[str, Any]]
    """Records of `day_shard.write_tokens`."""


def prepare(folder: Path, spec: ShardSpec, feeds: Sequence[DayFeed], held_out: Sequence[str] = (), workers: int = 1,
            names: Mapping[str, str] | None = None) -> ShardFolder:
    """Makes the files of all days, or what is missing of them.

    Args:
      folder: new, or of the same preparation.
      spec: how.
      feeds: the days, of one market.
      held_out: symbols whose days are held out whole.
      workers: processes, each with a day at a time; 1: this one.
      names: of what would have let refused orders in, as of `Refusals.problems`.

    Raises InputError where a day has too few orders, or the folder holds something else.
    """
    own = [feed for feed in feeds if feed.symbol not in held_out]
    if not own:
        raise InputError(f"shards: every day is held out whole ({len(feeds)} of {', '.join(held_out)}), none is left "
                         "to train on")
    about = _about(spec, feeds, held_out)
    _check_folder(folder, about)
    if (folder / "index.json").exists():
        return read(folder)
    unfinished = folder / "unfinished"
    for place in (folder / "tokens", folder / "images", folder / "converters", unfinished):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "preparation.json").write_text(json_text_of(about), encoding="utf-8")
    places = {feed.name: DayPlaces(unfinished / f"{feed.name}.npz", folder / "tokens" / f"{feed.name}.npy",
                                   folder / "images" / f"{feed.name}.npy", unfinished / f"{feed.name}.json")
              for feed in feeds}
    count = min(spec.bins_days or len(own), len(own))
    to_fit = [own[place * len(own) // count] for place in range(count)]
    valued = [feed for feed in to_fit if not places[feed.name].values.exists()]
    _each("bins", workers, [functools.partial(day_shard.write_values, spec, feed, places[feed.name])
                            for feed in valued])
    fitted = _fitted(spec, [places[feed.name] for feed in to_fit])
    for name, converter in fitted.items():
        converter_files.save(folder / "converters" / f"{name}.npz", converter)
    missing = [feed for feed in feeds if not places[feed.name].record.exists()]
    _each("tokens", workers, [functools.partial(day_shard.write_tokens, spec, fitted, feed, feed.symbol in held_out,
                                                places[feed.name], names) for feed in missing])
    days = [files.read_json(places[feed.name].record) for feed in feeds]
    fresh = folder / ".index.json.new"
    fresh.write_text(json_text_of({"days": days}), encoding="utf-8")
    fresh.replace(folder / "index.json")
    shutil.rmtree(unfinished)
    return ShardFolder(about, days)


def read(folder: Path) -> ShardFolder:
    """The index of a folder; InputError where there is none, or only the beginning of one."""
    if not (folder / "index.json").is_file():
        why = ("was not prepared to the end: start the preparation again" if (folder / "preparation.json").exists() else
               "holds no token shards: make them with marsjax prepare")
        raise InputError(f"{folder}: {why}")
    shutil.rmtree(folder / "unfinished", ignore_errors=True)  # of a preparation that was ended at the very end
    return ShardFolder(files.read_json(folder / "preparation.json", _MOST_BYTES),
                       files.read_json(folder / "index.json", _MOST_BYTES)["days"])


def opened(folder: Path, check: bool = True) -> Prepared:
    """The days of a folder as `training.prepare.prepare` gives them, but streamed.

    `refused` is empty: the records of the index say what was refused. InputError where a file is damaged; with `check`
    all bytes are read once.
    """
    _, days = read(folder)
    own = [day for day in days if not day["held_out"]]
    whole = {day["name"]: _file(folder / "tokens" / f"{day['name']}.npy", day["tokens"], check) for day in days}
    images = [(_file(folder / "images" / f"{day['name']}.npy", day["image"], check), day["image"])
              for day in own if day["image"]]
    every = [(whole[day["name"]], day["tokens"]) for day in own] + images

    def until(part: str) -> StreamedDays:
        known = hashlib.sha256(json.dumps([[record["sha256"], record[part]] for _, record in every]).encode())
        return StreamedDays([day.until(record[part]) for day, record in every], known.hexdigest()[:16])

    def spans(part: str, end: Callable[[dict[str, Any]], int]) -> list[Span]:
        return [Span(day["name"], whole[day["name"]], day["tokens"][part], end(day["tokens"])) for day in own]

    unseen = [Span(day["name"], whole[day["name"]], 1, day["tokens"]["rows"]) for day in days if day["held_out"]]
    parts = Split(until("validation"), until("held"), spans("validation", lambda of: int(of["held"])),
                  spans("held", lambda of: int(of["rows"])), unseen)
    names = sorted(path.stem for path in (folder / "converters").glob("*.npz"))
    return Prepared(parts, {name: converter_files.load(folder / "converters" / f"{name}.npz") for name in names}, {},
                    tuple(day["name"] for day in own))


def _file(path: Path, record: Mapping[str, Any], check: bool) -> StoredDay:
    return stored.opened(path, StoredFile(*(record[field] for field in StoredFile._fields)), check)


def _fitted(spec: ShardSpec, places: Sequence[DayPlaces]) -> dict[str, Converter]:
    count = len(places) * (2 if spec.mirror else 1)
    return converters.fit_summaries(lambda name: (values for place in places
                                                  for values in day_shard.read_values(place.values, name)),
                                    count, spec.tokens, spec.level_bins)


def _each(what: str, workers: int, calls: Sequence[Callable[[], None]]) -> None:
    """Makes the calls, in so many processes, with a bar of progress; the first error ends it."""
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


def _about(spec: ShardSpec, feeds: Iterable[DayFeed], held_out: Sequence[str]) -> dict[str, Any]:
    """What a preparation is of; as it is read again from JSON."""
    market = {name: value for name, value in dataclasses.asdict(spec.market).items() if name != "kernels"}
    own = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.name != "market"}
    record = {"format": _FORMAT, **own, "tokens": dataclasses.asdict(spec.tokens), "market": market,
              "held_out": sorted(held_out), "days": [feed.name for feed in feeds]}
    found: dict[str, Any] = json.loads(json_text_of(record))
    return found


def _check_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """InputError unless a folder is new, empty, or of this preparation."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file")
    if not (folder / "preparation.json").is_file():
        if any(folder.iterdir()):
            raise InputError(f"{folder}: holds something else; name a new folder")
        return
    found = files.read_json(folder / "preparation.json", _MOST_BYTES)
    for key in about:
        if about[key] != found.get(key):
            raise InputError(f"{folder}: holds another preparation: {key}: expected {_shown(about[key])}, found "
                             f"{_shown(found.get(key))}; name another folder, or remove this one")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
