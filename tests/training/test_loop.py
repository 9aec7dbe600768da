"""The loop on a toy: a law of steps, whatever the calls, parts and stops that they come in."""

import dataclasses
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.training import fit, loop
from marsjax.training.fit import FitPlan
from marsjax.training.loop import TrainSpec
from marsjax.training.split import Span, Split
from marsjax.training.state import Saved, StateFolder, digest

TRAIN = TrainSpec(steps=12, batch=4, length=8, peak_rate=0.05, warmup=3, average=0.8, undecayed=("shift",))
START = {"scale": jnp.zeros(15), "shift": jnp.ones(())}
KEY = jax.random.key(5)


def squared(weights: dict[str, jax.Array], features: jax.Array, key: jax.Array | None) -> jax.Array:
    """Error of a linear guess at the next token's first column, [B, T]."""
    guess = features[:, :-1] @ weights["scale"] + weights["shift"]
    return (guess - features[:, 1:, 0]) ** 2


def never(weights: dict[str, jax.Array], features: jax.Array, key: jax.Array | None) -> jax.Array:
    return squared(weights, features, key) * jnp.where(weights["shift"] == 1, 1.0, jnp.nan)


@pytest.fixture(scope="module")
def days() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.cumsum(rng.integers(-1, 2, (count, 15)), axis=0).astype(np.int32) % 5 for count in (60, 30)]


def last(train: TrainSpec, days: list[np.ndarray], every: int = 100) -> loop.TrainingProgress:
    return list(loop.run(train, squared, loop.begin(train, START), days, KEY, every))[-1][0]


def same(a: object, b: object) -> None:
    chex.assert_trees_all_equal(a, b)


def test_it_learns(days: list[np.ndarray]) -> None:
    train = dataclasses.replace(TRAIN, steps=300)
    losses = [value for _, value in loop.run(train, squared, loop.begin(train, START), days, KEY, 100)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_number_of_steps_a_call_changes_nothing(days: list[np.ndarray]) -> None:
    same(last(TRAIN, days), last(TRAIN, days, every=5))


def test_parts_of_a_batch_give_its_gradient(days: list[np.ndarray]) -> None:
    trains = (TRAIN, dataclasses.replace(TRAIN, accumulate=2))
    (whole, loss), (parts, loss_of_parts) = (
        list(loop.run(train, squared, loop.begin(train, START), days, KEY))[-1] for train in trains)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), parts, whole)


def test_the_average_follows_the_weights(days: list[np.ndarray]) -> None:
    average = START
    for step, (progress, _) in enumerate(loop.run(TRAIN, squared, loop.begin(TRAIN, START), days, KEY, 1)):
        keep = min(0.8, (1 + step) / (10 + step))
        weights = jax.tree.map(np.array, progress.params)
        average = jax.tree.map(lambda old, new, keep=keep: keep * old + (1 - keep) * new, average, weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), progress.average, average)


def test_a_loss_that_is_no_number_ends_the_training(days: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"the loss of step [1-9]\d? is nan, no finite number; lower the rate"):
        list(loop.run(TRAIN, never, loop.begin(TRAIN, START), days, KEY, 12))


def test_decay_pulls_what_it_may() -> None:
    still = np.zeros((20, 15), np.int32)  # after START's guess of 1, the shift alone has a gradient
    train = dataclasses.replace(TRAIN, decay=5.0, average=0.0)
    start = {"scale": jnp.ones(15), "shift": jnp.zeros(()), "free": jnp.ones(())}
    for undecayed, expected in (((), 0), (("free",), 1)):
        plan = dataclasses.replace(train, undecayed=undecayed)
        *_, (progress, _) = loop.run(plan, squared, loop.begin(plan, start), [still], KEY)
        assert float(progress.params["scale"][0]) < 0.9
        assert (float(progress.params["free"]) == 1.0) == expected


@pytest.mark.parametrize(("change", "expected"), [
    ({"length": 30}, r"window of 30 \+ 1 tokens does not fit in a day of 30"),
    ({"batch": 5, "accumulate": 2}, "multiple of accumulate=2, got 5"),
    ({"average": 1.0}, "below 1, got 1.0"), ({"steps": 0}, "steps: expected a positive number, got 0")])
def test_sizes_are_checked(days: list[np.ndarray], change: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        last(dataclasses.replace(TRAIN, **change), days)


def as_split(days: list[np.ndarray]) -> Split:
    return Split([day[:20] for day in days], [day[:40] for day in days], [Span("a", days[0], 20, 40)],
                 [Span("a", days[0], 40, 60)], [])


def run(days: list[np.ndarray], folder: Path, plan: FitPlan, train: TrainSpec = TRAIN, **identity: object
        ) -> tuple[Saved, bool]:
    split = as_split(days)
    with StateFolder(folder, {"data": digest(split.training), **identity}) as states:
        return fit.fit(fit.Recipe(train, plan, squared, KEY), START, split, states)


def test_a_training_that_was_broken_off_comes_out_the_same_bit_by_bit(days: list[np.ndarray], tmp_path: Path) -> None:
    whole, done = run(days, tmp_path / "whole", FitPlan(every=2, patience=0, stop_at=0))
    assert done and [row["step"] for row in whole.curve] == [2, 4, 6, 8, 10, 12]
    halves = [run(days, tmp_path / "halves", FitPlan(2, 0, stop_at)) for stop_at in (3, 8, 0)]
    assert [(int(saved.progress.step), done) for saved, done in halves] == [(4, False), (8, False), (12, True)]
    again = halves[-1][0]
    same((whole.progress, whole.best), (again.progress, again.best))
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in saved.curve] for saved in (whole, again)]
    assert strip[0] == strip[1]
    assert again.curve[-1]["seconds"] > again.curve[0]["seconds"]


def test_a_refit_takes_the_same_steps_on_the_validation_part_too(days: list[np.ndarray], tmp_path: Path) -> None:
    split = as_split(days)

    def refit(folder: str, stop_at: int) -> tuple[Saved, bool]:
        with StateFolder(tmp_path / folder, {}) as states:
            return fit.refit(fit.Recipe(TRAIN, FitPlan(2, 1, stop_at), squared, KEY), 6, START, split, states)

    whole, done = refit("whole", 0)
    assert done and [sorted(row) for row in whole.curve] == [["loss", "rate", "seconds", "step"]] * 3
    expected = next(progress for progress, _ in loop.run(TRAIN, squared, loop.begin(TRAIN, START), split.refit, KEY, 6))
    assert int(expected.step) == 6
    same(whole.progress, expected)
    same(whole.best, expected.average)
    assert not refit("halves", 3)[1]
    again, done = refit("halves", 0)
    assert done
    same((again.progress, again.best), (whole.progress, whole.best))
    assert refit("halves", 0)[0].curve == again.curve  # over is over


def test_the_best_weights_are_kept_and_patience_ends_a_training(days: list[np.ndarray], tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, steps=400, peak_rate=3.0, average=0.0, warmup=0)  # far too fast
    saved, done = run(days, tmp_path / "s", FitPlan(every=2, patience=3, stop_at=0), train)
    losses = [row["validation_loss"] for row in saved.curve]
    assert done and len(losses) == int(np.argmin(losses)) + 4 < 200
    spans = as_split(days).validation[0]
    windows = np.stack([spans.features[i - 8 : i + 1] for i in range(20, 40)])
    of_best = float(np.mean(np.asarray(squared(saved.best, jnp.asarray(windows, jnp.float32), None))[:, -1]))
    assert of_best == pytest.approx(min(losses), rel=1e-4)
    assert run(days, tmp_path / "s", FitPlan(2, 3, 0), train)[0].curve == saved.curve  # over is over


def test_a_state_of_another_config_or_of_other_data_is_refused(days: list[np.ndarray], tmp_path: Path) -> None:
    run(days, tmp_path, FitPlan(2, 0, 2), width=8)
    with pytest.raises(ValueError, match="width: expected 16, found 8"):
        run(days, tmp_path, FitPlan(2, 0, 0), width=16)
    with pytest.raises(ValueError, match="data: expected"):
        run([day + 1 for day in days], tmp_path, FitPlan(2, 0, 0), width=8)


def test_a_state_whose_write_was_cut_off_is_never_taken_up(days: list[np.ndarray], tmp_path: Path) -> None:
    """A write goes to a folder of another name first, and its checksums come last."""
    run(days, tmp_path / "cut", FitPlan(2, 0, stop_at=4))
    whole = tmp_path / "cut" / "4"
    shutil.copytree(whole, tmp_path / "cut" / "6.orbax-checkpoint-tmp-0")
    (tmp_path / "cut" / "6.orbax-checkpoint-tmp-0" / "_CHECKPOINT_METADATA").unlink()
    shutil.copytree(whole, tmp_path / "cut" / "8")  # its checksums, which are written last, are missing
    split = as_split(days)
    with StateFolder(tmp_path / "cut", {"data": digest(split.training)}) as states:
        fresh = loop.begin(TRAIN, START)
        found = states.restore(Saved(fresh, START, []))
    assert found is not None and int(found.progress.step) == 4
    saved, done = run(days, tmp_path / "cut", FitPlan(2, 0, 0))
    same(saved.best, run(days, tmp_path / "whole", FitPlan(2, 0, 0))[0].best)
    assert done
