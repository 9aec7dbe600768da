"""Days prepared into files are those that are prepared in memory, wherever the preparation was ended."""

import dataclasses
import pathlib
import shutil
from typing import Any

import chex
import numpy as np
import pytest

from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.data.feed import DayFeed
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
        "converters", "images", "index.json", "preparation.json", "tokens"]
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
