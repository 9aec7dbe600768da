"""What leads controlled futures: the models of a checkpoint, and the minutes before a start."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax import load_order_model
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.sessions import continuous_session
from marsjax.data import sources
from marsjax.sim import replay_day
from marsjax.studies import control_models, order_model
from marsjax.studies.order_model import PreparedModel
from tests.experiments.synthetic_day import write_traded_day

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def prepared() -> PreparedModel:
    return order_model.loaded("default", jax.devices()[0])


def test_the_default_checkpoint_has_models_that_fit_it_and_another_order_model_is_refused(prepared: PreparedModel
                                                                                         ) -> None:
    models, about = control_models.load("default", prepared)
    models.check(60, 8)
    assert set(about) == {"order_batch", "ensemble"} and models.before is None
    half = order_model.prepare(load_order_model("default", dtype="bfloat16"))
    control_models.load("default", half)[0].check(60, 8)
    weights = jax.tree.map(lambda x: x + 1e-3, prepared.model.model)
    other = dataclasses.replace(prepared, model=dataclasses.replace(prepared.model, model=weights))
    with pytest.raises(InputError, match=r"trained_with\.order_model: expected .* train the ensemble anew"):
        control_models.load("default", other)


def test_the_minutes_before_a_start_have_its_orders(prepared: PreparedModel, tmp_path: Path) -> None:
    write_traded_day(tmp_path, minutes=6)
    (feed,) = sources.open_days("csv", str(tmp_path / "orders.csv"))
    session = continuous_session(times.of_clock("09:30:00"), times.of_clock("15:00:00"))
    market = feed.venue.market(capacity=128, session=session)
    models, _ = control_models.load("default", prepared)
    spec = models.batches.tokenizer.spec.images
    found = control_models.with_past(models, market, feed, times.of_clock("09:33:20")).before
    # Every accepted order counts twice, in its minute: those of 09:30:20, 09:31:20 and 09:32:20.
    orders = replay_day(feed, market).orders()
    seconds = (orders["time_ns"].to_numpy()[orders["status"] == "ACCEPTED"] - times.of_clock("09:30:20")) / 1e9
    assert np.asarray(found).shape == (3, *spec.shape) and np.asarray(found).dtype == np.uint8
    assert np.asarray(found).sum(axis=(1, 2, 3), dtype=int).tolist() == [
        2 * int(((seconds >= 60 * k) & (seconds < 60 * (k + 1))).sum()) for k in range(3)]
    assert control_models.with_past(models, market, feed, times.of_clock("09:30:30")).before.shape == (0, *spec.shape)
