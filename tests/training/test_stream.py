"""Streamed days: the same windows as of days on the device, whatever the calls, the stops and the files."""

import dataclasses
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.training import fit, loop, stored
from marsjax.training.fit import FitPlan
from marsjax.training.state import StateFolder, digest
from marsjax.training.stored import StoredDay, StreamedDays
from tests.training.test_loop import KEY, START, TRAIN, as_split, same, squared

PARTS = dataclasses.replace(TRAIN, accumulate=2)


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.cumsum(rng.integers(-1, 2, (count, 15)), axis=0).astype(np.int32) % 5 for count in (60, 30, 9)]


@pytest.fixture(scope="module")
def files(arrays: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[StoredDay]:
    folder = tmp_path_factory.mktemp("tokens")
    return [stored.opened(folder / f"{i}.npy", stored.write(folder / f"{i}.npy", day)) for i, day in enumerate(arrays)]


def steps(train: loop.TrainSpec, days: object, every: int = 6, begin: object = None) -> list[tuple[object, float]]:
    fresh = begin or loop.begin(train, START)
    return [(jax.tree.map(np.array, now), loss) for now, loss in loop.run(train, squared, fresh, days, KEY, every)]


@pytest.mark.parametrize("train", [TRAIN, PARTS])
def test_streamed_days_teach_what_days_on_the_device_do(arrays: list[np.ndarray], files: list[StoredDay],
                                                        train: loop.TrainSpec) -> None:
    expected = steps(train, arrays)
    for together, ahead in ((2, 1), (99, 3)):
        found = steps(train, StreamedDays(files, "", together, ahead))
        assert [loss for _, loss in found] == [loss for _, loss in expected]
        same([now for now, _ in found], [now for now, _ in expected])


def test_a_stream_begins_at_any_step(arrays: list[np.ndarray], files: list[StoredDay]) -> None:
    whole = steps(TRAIN, StreamedDays(files, "", 2), 3)
    again = steps(TRAIN, StreamedDays(files, "", 5), 9, jax.tree.map(jnp.array, whole[0][0]))
    assert int(whole[0][0].step) == 3 and len(again) == 1
    same(again[0][0], whole[-1][0])


def test_windows_are_drawn_evenly_and_by_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numbers of windows, by the rule that JAX's `choice` has."""
    every = np.concatenate([np.concatenate(list(loop._calls(PARTS, KEY, 82, range(at, at + 4), 3, 4))).reshape(4, -1)
                            for at in (0, 4, 8)])
    np.testing.assert_array_equal(every, jax.vmap(lambda step: jax.random.choice(
        jax.random.fold_in(KEY, step), jnp.arange(82), (4,)))(jnp.arange(12)))
    monkeypatch.setattr(loop, "_DRAWN", 1)  # then the numbers of one look are drawn at a time
    few = list(loop._calls(PARTS, KEY, 82, range(12), 3, 6))
    assert [len(call) for call in few] == [3] * 4
    np.testing.assert_array_equal(np.concatenate(few).reshape(12, -1), every)
    many = np.asarray(loop.drawn(KEY, np.arange(500), 64, 82))
    assert np.bincount(many.reshape(-1), minlength=82).min() > 300  # of 390 in the mean


def test_a_stored_day_is_the_array(arrays: list[np.ndarray], files: list[StoredDay]) -> None:
    day, file = arrays[0], files[0]
    for key in (slice(3, 12), slice(None), (slice(None), 0), (slice(2, 5), slice(1, 3)), -1):
        found = file[key]
        np.testing.assert_array_equal(found, day[key])
        assert found.dtype == np.int32 and not isinstance(found, np.memmap)
    cut = file.until(20)
    np.testing.assert_array_equal(cut[:], day[:20])
    assert (len(cut), len(file)) == (20, 60) and cut[15:40].shape == (5, 15)


def test_a_damaged_file_is_named(tmp_path: pathlib.Path, arrays: list[np.ndarray]) -> None:
    path = tmp_path / "day.npy"
    written = stored.write(path, arrays[0])
    whole = path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["day.npy"]
    for damaged in (whole[:-1], whole[:50], b"", whole + b"0", whole[:-4] + b"\1\0\0\0",
                    whole.replace(b"<i4", b"<f4")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"day.npy: .*; remove it and prepare again"):
            stored.opened(path, written)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"day\.npy"):
        stored.opened(path, written)


def test_an_error_of_reading_ends_the_training_and_its_threads(arrays: list[np.ndarray], tmp_path: pathlib.Path
                                                               ) -> None:
    day = stored.opened(tmp_path / "0.npy", stored.write(tmp_path / "0.npy", arrays[0]))
    before = threading.active_count()
    run = loop.run(TRAIN, squared, loop.begin(TRAIN, START), StreamedDays([day], "", 1, 1), KEY, 2)
    next(run)
    day.path.unlink()
    with pytest.raises(FileNotFoundError):
        list(run)
    assert threading.active_count() == before
    with pytest.raises(ValueError, match=r"window of 60 \+ 1 tokens does not fit in a day of 60"):
        next(loop.run(dataclasses.replace(TRAIN, length=60), squared, loop.begin(TRAIN, START),
                      StreamedDays([day], ""), KEY))


def test_rows_tell_the_wait_and_a_state_knows_its_days(arrays: list[np.ndarray], files: list[StoredDay],
                                                       tmp_path: pathlib.Path) -> None:
    def run(days: StreamedDays, name: str, stop_at: int) -> list[dict[str, float]]:
        split = dataclasses.replace(as_split(arrays), training=days)
        with StateFolder(tmp_path / name, {"data": digest(split.training)}) as states:
            return fit.fit(fit.Recipe(TRAIN, FitPlan(4, 0, stop_at), squared, KEY), START, split, states)[0].curve

    days = StreamedDays(files, "abc")
    whole = run(days, "whole", 0)
    assert sum(row["steps_s"] for row in whole) == pytest.approx(days.steps_s)
    assert all(0 <= row["waited_s"] <= row["steps_s"] for row in whole) and days.steps_s > 0
    run(StreamedDays(files, "abc"), "halves", 4)
    with pytest.raises(ValueError, match="data: expected 'other', found 'abc'"):
        run(StreamedDays(files, "other"), "halves", 0)
    again = run(StreamedDays(files, "abc"), "halves", 0)
    for key in ("step", "loss", "validation_loss"):
        assert [row[key] for row in again] == [row[key] for row in whole]
