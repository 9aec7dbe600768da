"""Which codes the real orders of an ensemble's training are told, and what its predictions are made of."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.times import SECOND_NS
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.studies import ensemble_training
from marsjax.training.days import DayTokens
from marsjax.training.ensemble import ToldSpan
from marsjax.training.order_batch.data import SeenOrders

pytestmark = pytest.mark.quick

IMAGES = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500), every_s=10)
COUNTS = (3, 1, 4, 2, 6, 5)
"""Orders of the day's intervals, each another number."""
KEEP = 2
"""Intervals that the batch model sees."""


class CountBook:
    """A tokenizer whose only code is the number of orders in an image."""

    spec = TokenizerSpec(IMAGES)

    def encode(self, images: Any) -> jax.Array:
        return jnp.asarray(images, jnp.int32).sum(axis=(-3, -2, -1))[..., None] // 2


class LastAgain:
    """A batch model that returns the last batch that it knows, and -1 where it knows none."""

    spec = BatchModelSpec(batches=KEEP)

    def sample(self, history: Any, known: Any, keys: jax.Array, count: int) -> np.ndarray:
        assert len({bytes(x) for x in np.asarray(jax.random.key_data(keys))}) == len(known) and count == 1
        return np.where(np.asarray(known)[:, None, None] > 0, np.asarray(history)[:, -1:], -1)


@dataclasses.dataclass(frozen=True)
class Batches:
    """An order-batch model of these parts."""

    tokenizer: CountBook = dataclasses.field(default_factory=CountBook)
    model: LastAgain = dataclasses.field(default_factory=LastAgain)


def day() -> tuple[SeenOrders, DayTokens]:
    """Orders of COUNTS, evenly in their intervals, at one price, from second 0 on."""
    at = np.concatenate([10 * k + 10 * np.arange(n) / n for k, n in enumerate(COUNTS)])
    time_ns, one = (at * SECOND_NS).astype(np.int64), np.ones(len(at), np.int64)
    seen = SeenOrders(time_ns, 0 * one, 10_000 * one, 200 * one, 0 * one, 20_000 * one, 20_000 * one, 100 * one, one)
    return seen, DayTokens("day", np.zeros((len(at), 15), np.int32), time_ns)


def told(low_s: int, high_s: int) -> tuple[ToldSpan, np.ndarray]:
    hours = ensemble_training._Hours(0, low_s * SECOND_NS, high_s * SECOND_NS)
    found = ensemble_training._told(hours, *day(), 100, Batches())  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(("low_s", "high_s"), [(0, 60), (10, 45), (30, 60)])
def test_every_order_is_told_the_codes_of_its_own_interval(low_s: int, high_s: int) -> None:
    span, before = told(low_s, high_s)
    first, last = low_s // 10, high_s // 10
    assert span.codes[:, 0].tolist() == list(COUNTS[first:last]), "whole intervals alone"
    assert before[:, 0].tolist() == list(COUNTS[max(first - KEEP, 0) : first])
    assert span.codes[span.batch, 0].tolist() == [n for n in COUNTS[first:last] for _ in range(n)]
    assert (span.span.first, span.span.last) == (sum(COUNTS[:first]), sum(COUNTS[:last]))
    short = ensemble_training._Hours(0, 0, 9 * SECOND_NS)
    assert ensemble_training._told(short, *day(), 100, Batches()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("low_s", [0, 10, 30])
def test_a_prediction_is_of_the_intervals_before_alone(low_s: int) -> None:
    first = low_s // 10
    found = ensemble_training._predicted(Batches(), *told(low_s, 60), jax.random.key(0))  # type: ignore[arg-type]
    assert found[:, 0].tolist() == [COUNTS[k - 1] if k else -1 for k in range(first, len(COUNTS))]


def test_what_is_known_of_the_time_before_is_all_that_is_read() -> None:
    class Known(LastAgain):
        def sample(self, history: Any, known: Any, keys: jax.Array, count: int) -> np.ndarray:
            read = [row[KEEP - n :, 0].tolist() for row, n in zip(np.asarray(history), np.asarray(known), strict=True)]
            assert read == [list(COUNTS[max(k - KEEP, 0) : k]) for k in range(len(COUNTS))]
            return np.zeros((len(known), 1, 1), np.int32)

    ensemble_training._predicted(Batches(model=Known()), *told(0, 60), jax.random.key(0))  # type: ignore[arg-type]


def test_every_span_has_draws_of_its_own_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, ...]] = []

    def predicted(batches: Any, span: ToldSpan, before: np.ndarray, key: jax.Array) -> np.ndarray:
        used.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return span.codes

    seen, tokens = day()
    period = types.SimpleNamespace(start_ns=0, end_ns=60 * SECOND_NS - 1)
    replaced = {"_predicted": predicted, "days.replay_days": lambda *_: [None] * 2, "data.of_day": lambda _: seen,
                "days.day_tokens": lambda *_: tokens, "session_times.hours": lambda *_: None,
                "session_times.continuous": lambda _: [period], "ensemble.told": lambda _, spans: spans}
    for name, value in replaced.items():
        monkeypatch.setattr(f"marsjax.studies.ensemble_training.{name}", value)
    anything: Any = types.SimpleNamespace(
        tick=100, session=None, table=None, name="day", read=list,
        model=types.SimpleNamespace(model=None, spec=types.SimpleNamespace(tokens=None)))
    for seed in (0, 1):
        study = ensemble_training.EnsembleStudy(10 * SECOND_NS, 20 * SECOND_NS, seed=seed)
        found = ensemble_training.real_orders(study, anything, anything, [anything, anything], Batches())  # type: ignore
        assert found.predicted[:, 0].tolist() == [*COUNTS[2:]] * 2
    assert len(set(used)) == len(used) == 4
