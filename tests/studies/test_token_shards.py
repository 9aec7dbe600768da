"""Days prepared into files are those that are prepared in memory, wherever the preparation was ended."""

import dataclasses
import itertools
import os
import pathlib
import shutil
from typing import Any

import chex
import jax
import numpy as np
import pytest

from marsjax.core import unfinished
from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.studies import token_shards
from marsjax.training import converters, day_shard, prepare
from marsjax.training.day_shard import ShardSpec
from marsjax.training.prepare import Feed, Prepared
from marsjax.training.split import Span, bounded
from tests.training import short_day

SPEC = ShardSpec(short_day.MARKET, short_day.TOKENS, 8, 34_380 * SECOND_NS, 34_425 * SECOND_NS, 32, True)


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> list[DayFeed]:
    """Three days, of which the last is held out whole."""
    folder, found = tmp_path_factory.mktemp("days"), []
    lines = short_day.write(folder).read_text().splitlines(keepends=True)
    for name, rows in (("a", 1200), ("b", 1100), ("c", 900)):
        file = folder / f"{name}.csv"
        file.write_text("".join(lines[: rows + 1]))
        found += neutral.days(file)
    return found


@pytest.fixture(scope="module")
def in_memory(feeds: list[DayFeed]) -> Prepared:
    given = [Feed(feed.name, feed.read(), feed.read(), feed.symbol == "c") for feed in feeds]
    return prepare.prepare(SPEC.market, SPEC.tokens, given, level_bins=8, length=32,
                           validation_from_ns=SPEC.validation_from_ns, held_from_ns=SPEC.held_from_ns)


@pytest.fixture(scope="module")
def folder(feeds: list[DayFeed], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Ended twice: while days were looked at, and while their tokens were made."""
    path = tmp_path_factory.mktemp("shards") / "shards"

    def ended(name: str, after: int) -> None:
        real, calls = getattr(day_shard, name), []

        def call(*arguments: Any) -> None:
            calls.append(arguments)
            if len(calls) > after:
                raise KeyboardInterrupt
            real(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(day_shard, name, call)
            with pytest.raises(KeyboardInterrupt):
                token_shards.prepare(path, SPEC, feeds, ["c"])
        with pytest.raises(ValueError, match="was not prepared to the end: start the preparation again"):
            token_shards.opened(path)

    ended("write_values", 1)
    ended("write_tokens", 2)
    made = {file.name: file.stat().st_mtime_ns for file in (path / "tokens").iterdir()}
    assert sorted(made) == ["a.npy", "b.npy"]
    token_shards.prepare(path, SPEC, feeds, ["c"])
    assert all((path / "tokens" / name).stat().st_mtime_ns == at for name, at in made.items())
    return path


def equal(found: Prepared, expected: Prepared) -> None:
    assert sorted(found.converters) == sorted(expected.converters) and found.names == expected.names
    for name, converter in expected.converters.items():
        chex.assert_trees_all_equal(dataclasses.astuple(found.converters[name]), dataclasses.astuple(converter))
    for part in ("training", "refit"):
        days = getattr(found.split, part), getattr(expected.split, part)
        assert len(days[0]) == len(days[1])
        for day, other in zip(*days, strict=True):
            np.testing.assert_array_equal(day[:], other[:])
    for part in ("validation", "held_out", "held_out_symbols"):
        for span, other in zip(getattr(found.split, part), getattr(expected.split, part), strict=True):
            assert (span.name, span.first, span.last) == (other.name, other.first, other.last)
            np.testing.assert_array_equal(span.features[:], other.features[:])


def test_files_hold_what_is_prepared_in_memory(folder: pathlib.Path, in_memory: Prepared, feeds: list[DayFeed]) -> None:
    equal(token_shards.opened(folder), in_memory)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "converters", "images", "index.json", "preparation.json", "tokens"]
    again = token_shards.prepare(folder, SPEC, feeds, ["c"])
    assert again == token_shards.read(folder)
    assert [day["refused"] for day in again.days] == [each.record() for each in in_memory.refused.values()]


@pytest.mark.slow
def test_processes_make_the_same_files(folder: pathlib.Path, feeds: list[DayFeed], tmp_path: pathlib.Path) -> None:
    """A day that is held out whole has no part in the others'."""
    token_shards.prepare(tmp_path / "shards", SPEC, feeds[:2], workers=2)
    files = sorted(path.relative_to(tmp_path / "shards") for path in (tmp_path / "shards").rglob("*.npy"))
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "shards" / name).read_bytes() == (folder / name).read_bytes()


def test_what_was_removed_is_made_again(folder: pathlib.Path, feeds: list[DayFeed], tmp_path: pathlib.Path) -> None:
    """As the error of a damaged file advises; other orders than those of then are found, and change nothing."""
    path = tmp_path / "shards"
    shutil.copytree(folder, path)
    damaged, image = path / "tokens" / "a.npy", path / "images" / "b.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy: its bytes are not those that were written; remove it and prepare"):
        token_shards.opened(path)
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.npy: no such file; prepare again, which makes it"):
        token_shards.opened(path)
    image.unlink()
    left = {file: file.stat().st_mtime_ns for file in path.rglob("*.np[yz]")}
    others = [dataclasses.replace(feeds[0], read=feeds[1].read), *feeds[1:]]
    with pytest.raises(ValueError, match=r"a: made again it is not what index.json says \(orders, tokens, image\)"):
        token_shards.prepare(path, SPEC, others, ["c"])
    assert not damaged.exists() and not image.exists()
    token_shards.prepare(path, SPEC, feeds, ["c"])
    equal(token_shards.opened(path), token_shards.opened(folder))
    assert {file: file.stat().st_mtime_ns for file in left} == left and not (path / "unfinished").exists()
    bins = path / "converters" / "lob-volume.npz"
    for change in (lambda: shutil.copy(path / "converters" / "price-level.npz", bins), bins.unlink):
        change()
        with pytest.raises(ValueError, match=r"lob-volume.npz: is not the file of bins that was written: put it back"):
            token_shards.opened(path)


def test_the_first_steps_may_be_ended_anywhere(feeds: list[DayFeed], tmp_path: pathlib.Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """By turns each call that makes, writes or renames something is the last one; of a text half is there then."""
    steps: list[int] = []
    last = 0

    def ending(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            steps.append(1)
            if len(steps) == last:
                if name == "write_text":
                    real(arguments[0], arguments[1][:40])
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, step)

    for name in ("mkdir", "write_text", "replace"):
        ending(pathlib.Path, name)
    ending(unfinished.os, "fsync")
    monkeypatch.setattr(day_shard, "write_values", lambda *_: (_ for _ in ()).throw(EOFError))
    reached = False
    while not reached:
        last, path = last + 1, tmp_path / str(last)
        steps.clear()
        try:
            token_shards.prepare(path, SPEC, feeds, ["c"])
        except KeyboardInterrupt:
            pass
        except EOFError:
            reached = True
        about = path / "preparation.json"
        written = about.stat() if about.exists() else None
        steps.extend([1] * 1000)
        with pytest.raises(EOFError):
            token_shards.prepare(path, SPEC, feeds, ["c"])
        assert written is None or (about.stat().st_ino, about.stat().st_mtime_ns) == (written.st_ino,
                                                                                     written.st_mtime_ns)
    assert last > 5


@pytest.mark.parametrize("after", ["write_values", "write_tokens"])
def test_a_day_that_was_replaced_is_named(feeds: list[DayFeed], tmp_path: pathlib.Path, after: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was done, or its bins were fitted; so is another version. In a new folder all goes well."""
    calls: list[Any] = []
    real = getattr(day_shard, after)

    def call(*arguments: Any) -> None:
        if calls and after == "write_tokens":
            raise KeyboardInterrupt
        calls.append(arguments)
        real(*arguments)

    monkeypatch.setattr(day_shard, after, call)
    if after == "write_values":
        monkeypatch.setattr(day_shard, "write_tokens", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    spec, path = dataclasses.replace(SPEC, mirror=False), tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        token_shards.prepare(path, spec, feeds[:2], version="1")
    monkeypatch.undo()
    with pytest.raises(ValueError, match='version: expected "2", found "1"'):
        token_shards.prepare(path, spec, feeds[:2], version="2")
    others = [dataclasses.replace(feeds[0], read=feeds[1].read), feeds[1]]
    made = "npz" if after == "write_values" else "json"
    with pytest.raises(ValueError, match=rf"^a: its orders are not those that .*a\.{made} was made of: put its files"):
        token_shards.prepare(path, spec, others, version="1")
    if after == "write_tokens":
        shutil.rmtree(path)
        found = token_shards.prepare(path, spec, others, version="1")
    else:
        found = token_shards.prepare(path, spec, feeds[:2], version="1")
    assert [day["name"] for day in found.days] == ["a", "b"]


def test_one_preparation_at_a_time_uses_a_folder(feeds: list[DayFeed], tmp_path: pathlib.Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: Any) -> None:
        token_shards.prepare(tmp_path / "shards", SPEC, feeds)

    monkeypatch.setattr(day_shard, "write_values", second)
    with pytest.raises(ValueError, match=f"another preparation uses this folder, process {os.getpid()} on "):
        second()


def test_a_hash_of_orders_does_not_depend_on_chunks(feeds: list[DayFeed]) -> None:
    whole, parts = day_shard._OrdersRead(feeds[0].read()), day_shard._OrdersRead(itertools.chain.from_iterable(
        (_rows(chunk, slice(500)), _rows(chunk, slice(500, 500)), _rows(chunk, slice(500, None)))
        for chunk in feeds[0].read()))
    assert len(list(whole)) + 2 == len(list(parts)) and whole.digest() == parts.digest()
    other = day_shard._OrdersRead(feeds[1].read())
    assert list(other) and other.digest() != whole.digest()


def _rows(chunk: FeedChunk, rows: slice) -> FeedChunk:
    return FeedChunk(jax.tree.map(lambda column: column[rows], chunk.orders), chunk.fills, chunk.sequence[rows])


def test_another_preparation_is_refused(folder: pathlib.Path, feeds: list[DayFeed], tmp_path: pathlib.Path) -> None:
    for spec, given, held, expected in (
            (dataclasses.replace(SPEC, level_bins=9), feeds, ["c"], "level_bins: expected 9, found 8"),
            (SPEC, feeds[1:], ["c"], r'days: expected \["b", "c"\], found'), (SPEC, feeds, ["b"], "held_out: expected"),
            (SPEC, feeds, ["a", "b", "c"], "every day is held out whole")):
        with pytest.raises(ValueError, match=expected):
            token_shards.prepare(folder, spec, given, held)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="holds something else; name a new folder"):
        token_shards.prepare(tmp_path, SPEC, feeds)
    with pytest.raises(ValueError, match="holds no token shards: make them with marsjax prepare"):
        token_shards.opened(tmp_path)


def test_a_day_with_too_few_orders_is_named(feeds: list[DayFeed], tmp_path: pathlib.Path) -> None:
    for change, expected in (({"length": 1500}, r"^a: \d+ orders before the held-out part are too few"),
                             ({"held_from_ns": 36_000 * SECOND_NS}, "^a: no orders in the held-out part")):
        with pytest.raises(ValueError, match=expected):
            token_shards.prepare(tmp_path / str(len(change)), dataclasses.replace(SPEC, mirror=False, **change),
                                 feeds[:1])
        shutil.rmtree(tmp_path / "1")


def test_many_days_are_fitted_by_fewer_values_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    days = [converters.summary("day", {name: np.round(rng.exponential(mean, 5000), 2) for name in (
        "price-level", "order-volume", "order-interval", "lob-volume")}) for mean in (1.0, 2.0, 3.0, 4.0)]
    whole = converters.fit_summaries(lambda name: (day[name] for day in days), 4, short_day.TOKENS, 8)
    seen: list[int] = []
    real = converters.bins.fit
    monkeypatch.setattr(converters, "MOST", 8000)
    monkeypatch.setattr(converters.bins, "fit", lambda values, count: seen.append(len(values)) or real(values, count))
    few = converters.fit_summaries(lambda name: (day[name] for day in days), 4, short_day.TOKENS, 8)
    assert seen == [8000] * 4
    for name, converter in whole.items():
        np.testing.assert_allclose(few[name].edges[1:-1], converter.edges[1:-1], rtol=0.03)


def test_spans_are_bounded_evenly() -> None:
    def spans(*counts: int) -> list[Span]:
        return [Span(str(i), np.zeros((9, 1)), 5, 5 + count) for i, count in enumerate(counts)]

    def kept(found: list[Span]) -> list[tuple[str, int]]:
        assert all(span.first == 5 for span in found)
        return [(span.name, span.count) for span in found]

    assert kept(bounded(spans(10, 30, 20), 60, 5)) == [("0", 10), ("1", 30), ("2", 20)]
    assert kept(bounded(spans(10, 30, 20), 45, 5)) == [("0", 10), ("1", 15), ("2", 15)]
    assert kept(bounded(spans(*[100] * 10), 50, 25)) == [("0", 25), ("5", 25)]
    assert kept(bounded(spans(100, 100), 50, 80)) == [("0", 50)]
