"""Readers of files that are no feeds, each with a whole file, and what other programs say that a damaged one holds.

    python -m tests.damaged_readers COUNT FOLDER [READER ...]

reads COUNT damaged files by each reader (all by default) and prints what came of it as JSON; the laws stand in
tests/test_damaged_files.py.
"""

import csv
import dataclasses
import functools
import gzip
import io
import json
import pickle
import shutil
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import safetensors.numpy
import zstandard

from marsjax.analysis import bars, rollout_info
from marsjax.checkpoint import converter_files, validation
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.core.errors import InputError
from marsjax.tokens import bins, encoding
from marsjax.tokens.bins import Converter
from tests import published
from tests.damage import KINDS, damaged
from tests.helpers import fixture_folder
from tests.peak_memory import peak_bytes

MODULE = "market_simulation.examples.report_stylized_facts"


class Case(NamedTuple):
    """One reader."""

    make: Callable[[Path], Path]
    """Writes whole files into a folder, and says which is to be damaged; a folder stands for any file in it."""
    read: Callable[[Path], Any]
    """From that file, or what it lies in, to values that can be compared."""
    says: Callable[[bytes], Any] | None
    """What a damaged file holds as another program reads it; None: the same as the whole one, if it is read at all."""


class RolloutInfo(NamedTuple):
    """A record of an archive."""

    symbol: str
    start_time: Any
    simulation_minutes: Any
    replay_minutes: Any


class MinuteInfo(NamedTuple):
    """A record of an archive."""

    time: Any
    price_last: float
    price_mean: float
    price_mid: float
    price_mid_last: float
    volume: float
    num_orders: int


class BinConverter:
    """Of the publishers."""


class Admitted(pickle.Unpickler):
    """Python's own, with the few names that the files are known to hold."""

    def find_class(self, module: str, name: str) -> Any:
        """Everything else is refused."""
        known = {"RolloutInfo": RolloutInfo, "MinuteInfo": MinuteInfo, "BinConverter": BinConverter}
        if name in known and module.startswith("market_simulation"):
            return known[name]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
                              ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp")} or (
                module in ("numpy._core.multiarray", "numpy._core.numeric", "numpy.core.multiarray")
                and name in ("_reconstruct", "scalar", "_frombuffer")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(name)


def unpickled(data: bytes) -> Any:
    return Admitted(io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(data))).load()


def plain(value: Any) -> Any:
    """Arrays as type, shape and bytes; what has NaN is then equal to itself."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(x) for x in value)
    return value


def floats(values: Any) -> np.ndarray:
    return np.asarray(values).astype(np.float64)


def of_converter(converter: Converter) -> Any:
    return plain([floats(converter.edges), [floats(x) for x in converter.values],
                  [floats(x) for x in converter.probabilities]])


def npz(data: bytes) -> Any:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        ends = np.cumsum(file["counts"])[:-1]
        return plain([floats(file["edges"]), *([floats(x) for x in np.split(file[name], ends)]
                                               for name in ("values", "probabilities"))])


def converter_record(data: bytes) -> Any:
    found = unpickled(data)
    return plain([floats(found.bins), *([floats(x) for x in y] for y in (found.bin_values, found.bin_probs))])


def make_npz(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    counts = [3, 0, 5, 1]
    values = [rng.integers(0, 99, n).astype(float) for n in counts]
    chances = [np.full(n, 1 / max(n, 1)) for n in counts]
    converter_files.save(folder / "price.npz", Converter(np.arange(5.0), tuple(values), tuple(chances)))
    return folder / "price.npz"


def make_zstd(folder: Path) -> Path:
    return Path(shutil.copy(fixture_folder() / "converters_small" / "lob-spread.zstd", folder))


def make_samples(folder: Path) -> Path:
    features, labels = published.random_features(count=5), np.arange(5)
    published.write_samples(folder, features, labels, labels + 1)
    return folder / "valid-00.zstd"


def make_table(folder: Path) -> Path:
    return make_samples(folder).with_name("valid-00.output.csv")


def read_samples(path: Path) -> Any:
    found = validation.read(path.parent, published.SPEC, 8)
    return plain([found.features, found.labels]) if path.suffix == ".zstd" else plain([found.published])


def sample_record(data: bytes) -> Any:
    features, labels = zip(*unpickled(data), strict=True)
    found = np.stack([np.reshape(x, (-1, encoding.COLUMNS)) for x in features]).astype(np.int64)
    found[..., 3] = found[..., 3].clip(-encoding.CHANGE_LIMIT, encoding.CHANGE_LIMIT)
    return plain([found.astype(np.int32), np.array([np.reshape(x, -1)[-1] for x in labels], np.int32)])


def table_rows(data: bytes) -> list[list[str]]:
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def predictions(data: bytes) -> Any:
    rows = table_rows(data)
    names = rows.pop(0) if rows and not rows[0][0].strip().isdigit() else ["label", "prediction"]
    at = [i for i, name in enumerate(names) if "pred" in name.lower() or "greedy" in name.lower()]
    column = at[0] if at else next((i for i, name in enumerate(names) if "label" in name.lower()), 0) + 1
    found = np.full(5, -1, np.int32)
    rows = rows[:5]
    found[: len(rows)] = [int(row[column]) for row in rows]
    return plain([found])


@functools.cache
def golden() -> bars.MinuteBars:
    return bars.read(fixture_folder() / "stylized_facts" / "minutes.csv.gz")


@functools.cache
def archive(rows: int = 40) -> bytes:
    """As the publishers pickle it: their module is there while it is made."""
    table = golden().frame()[:rows]
    minutes = [MinuteInfo(pd.Timestamp(x.time), x.price_last, x.price_mean, x.price_mid, x.price_mid_last, x.volume, 9)
               for x in table.itertuples()]
    record = [RolloutInfo("600000", minutes[0].time, minutes[:9], minutes[9:20]),
              None, RolloutInfo("600000", minutes[20].time, minutes[20:30], minutes[30:])]
    parts = MODULE.split(".")
    names = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    kinds: tuple[type, ...] = (RolloutInfo, MinuteInfo)
    own = kinds[0].__module__
    sys.modules.update({name: types.ModuleType(name) for name in names})
    for kind in kinds:
        kind.__module__ = MODULE
        setattr(sys.modules[MODULE], kind.__name__, kind)
    data = zstandard.compress(pickle.dumps(record, 4))
    for kind in kinds:
        kind.__module__ = own
    for name in names:
        del sys.modules[name]
    return data


def make_archive(folder: Path) -> Path:
    (folder / "rollouts.zstd").write_bytes(archive())
    return folder / "rollouts.zstd"


def of_bars(table: bars.MinuteBars) -> Any:
    return plain([table.symbol.tolist(), table.rollout, table.source.tolist(), table.time.astype(np.int64),
                  *(floats(getattr(table, name)) for name in bars.NUMBERS)])


def archive_record(data: bytes) -> Any:
    rows: list[tuple[Any, ...]] = []
    seen: dict[str, int] = {}
    for entry in unpickled(data):
        if entry is None or entry == []:
            continue
        for source, minutes in ((bars.SIMULATED, entry.simulation_minutes), (bars.HISTORICAL, entry.replay_minutes)):
            rows += [(entry.symbol, seen.get(entry.symbol, 0), source, np.datetime64(x.time.to_datetime64(), "s"),
                      *x[1:6]) for x in minutes]
        seen[entry.symbol] = seen.get(entry.symbol, 0) + 1
    return of_rows(rows)


def of_rows(rows: list[tuple[Any, ...]]) -> Any:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(bars.COLUMNS)
    return plain([list(columns[0]), np.array(columns[1], np.int64), list(columns[2]),
                  np.array(columns[3], "datetime64[s]").astype(np.int64), *map(floats, columns[4:])])


def make_bars(folder: Path, name: str = "bars.csv") -> Path:
    bars.write(folder / name, golden().where(np.arange(60)))
    return folder / name


def bar_rows(data: bytes) -> Any:
    header, *rows = table_rows(data)
    order = [header.index(name) for name in bars.COLUMNS]
    found = []
    for row in rows:
        symbol, rollout, source, moment, *numbers = (row[i] for i in order)
        found.append((symbol, int(float(rollout)), source, np.datetime64(moment.replace(" ", "T"), "s"),
                      *(float(x.strip() or "nan") for x in numbers)))
    return of_rows(found)


def read_config(path: Path) -> Any:
    spec, dropout, _ = safetensors_layout.read_config(path)
    return (*dataclasses.astuple(spec)[:4], *dataclasses.astuple(spec.tokens)[:3], dropout)


def config_record(data: bytes) -> Any:
    found = json.loads(data)
    return tuple(found[name] for name in (
        "emb_dim", "num_layers", "num_heads", "num_max_orders", "num_bins_price_level", "num_bins_pred_order_volume",
        "num_bins_order_interval", "dropout"))


def read_weights(path: Path) -> Any:
    model = safetensors_layout.read(path.parent).model
    return plain({name: np.asarray(x) for name, x in safetensors_layout.tensors(model.spec, model.weights())})


USED = frozenset(name for name, _ in safetensors_layout.tensors(published.SPEC, published.random_params().weights()))


def weight_record(data: bytes) -> Any:
    return plain({name: x.astype(np.float32) for name, x in safetensors.numpy.load(data).items() if name in USED})


def make_own(folder: Path) -> Path:
    found = converter_files.read_folder(fixture_folder() / "converters_small")
    checkpoint_folder.save(folder / "own", published.random_params(), found, {"source": "test"})
    return folder / "own"


def read_own(path: Path) -> Any:
    while not (path / "params").is_dir():  # from the file that is damaged up to the folder
        path = path.parent
    found = checkpoint_folder.restore(path)
    weights = {name: np.asarray(x) for name, x in found.model.weights().items()}
    return plain([weights, [of_converter(found.converters[name]) for name in bins.NAMES],
                  json.dumps(found.about)])


CASES = {
    "npz": Case(make_npz, lambda path: of_converter(converter_files.load(path)), npz),
    "zstd": Case(make_zstd, lambda path: of_converter(converter_files.read_zstd(path)), converter_record),
    "samples": Case(make_samples, read_samples, sample_record),
    "predictions": Case(make_table, read_samples, predictions),
    "archive": Case(make_archive, lambda path: of_bars(rollout_info.read(path)[0]), archive_record),
    "bars": Case(make_bars, lambda path: of_bars(bars.read(path)), bar_rows),
    "bars.gz": Case(lambda folder: make_bars(folder, "bars.csv.gz"), lambda path: of_bars(bars.read(path)), bar_rows),
    "config": Case(lambda folder: published.make(folder) / "config.json", read_config, config_record),
    "weights": Case(lambda folder: published.make(folder) / "model.safetensors", read_weights, weight_record),
    "index": Case(lambda folder: published.split(published.make(folder)) / "model.safetensors.index.json", read_weights,
                  None),
    "own": Case(make_own, read_own, None),
}


def study(name: str, count: int, folder: Path) -> dict[str, Any]:
    """Reads `count` damaged files: numbers of those refused and read, the faults, and the longest time in seconds."""
    case, rng = CASES[name], np.random.default_rng(0)
    folder.mkdir(parents=True)
    target = case.make(folder)
    paths = sorted(x for x in target.rglob("*") if x.is_file()) if target.is_dir() else [target]
    whole = {path: path.read_bytes() for path in paths}
    expected = case.read(paths[-1])
    refused, longest, faults = 0, 0.0, []
    for i in range(count):
        path, kind = paths[i % len(paths)], KINDS[i % len(KINDS)]
        data = damaged(whole[path], kind, rng)
        path.write_bytes(data)
        began = time.process_time()
        try:
            found = case.read(path)
            if found != (expected if case.says is None or data == whole[path] else case.says(data)):
                faults.append(f"{i} {kind} {path.name}: read as something else")
        except (InputError, OSError) as error:
            refused += 1
            text = str(error)
            if str(folder) not in text or "\n" in text or len(text.replace(str(folder), "")) > 350:
                faults.append(f"{i} {kind} {path.name}: {type(error).__name__}: {text[:300]}")
        except Exception as error:  # noqa: BLE001 - what else there may be is the question
            faults.append(f"{i} {kind} {path.name}: {type(error).__name__}: {str(error)[:200]}")
        longest = max(longest, time.process_time() - began)
        path.write_bytes(whole[path])
    return {"refused": refused, "read": count - refused - len(faults), "faults": faults, "longest_s": longest,
            "most_bytes": peak_bytes()}


if __name__ == "__main__":
    each, place = int(sys.argv[1]), Path(sys.argv[2])
    print(json.dumps({one: study(one, each, place / one) for one in sys.argv[3:] or CASES}))
