"""The self-test is right here, in every way of the exchange, and sees an exchange or a model that is not."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from marsjax.checkpoint import load
from marsjax.core import kernels
from marsjax.core.records import Order, Status
from marsjax.core.specs import MarketSpec
from marsjax.studies import self_test


def test_all_is_right_here() -> None:
    checks = self_test.run()
    assert [check.name for check in checks] == ["exchange", "order model"]
    assert all(check.is_right for check in checks), checks


def test_its_orders_meet_all_kinds_of_ends_alike_in_every_way() -> None:
    specs = [MarketSpec(capacity=64, trade_width=8, kernels=ways) for ways in (kernels.CPU, kernels.ACCELERATOR)]
    found = [jax.device_get(self_test._matched(spec, self_test._orders())) for spec in specs]
    jax.tree.map(np.testing.assert_array_equal, *found)
    statuses = {Status(value).name for value in np.unique(found[0][2])}
    assert {"ACCEPTED", "SIDE_FULL", "UNKNOWN_ID"} <= statuses
    assert (found[0][1].count > 1).any()


def test_one_share_more_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true = self_test._orders

    def changed() -> Order:
        found = true()
        volume = np.array(found.volume)
        volume[100] += 1
        return dataclasses.replace(found, volume=volume)

    monkeypatch.setattr(self_test, "_orders", changed)
    exchange, _ = self_test.run()
    assert not exchange.is_right and self_test.DIGEST in exchange.said


def test_a_damaged_model_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise FileNotFoundError("no checkpoint 'default' comes with this copy of marsjax")

    monkeypatch.setattr(load, "load_order_model", missing)
    _, model = self_test.run()
    assert not model.is_right and model.said.startswith("no checkpoint 'default'") and "\n" not in model.said


def test_predictions_that_depend_on_others_or_are_no_numbers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true = load.load_order_model()
    for wrong in (lambda x: x + len(x), lambda x: np.full_like(x, np.nan)):
        broken = types.SimpleNamespace(spec=true.spec, model=true.model, logits=lambda features, wrong=wrong: wrong(
            np.asarray(true.logits(features))))
        monkeypatch.setattr(load, "load_order_model", lambda broken=broken: broken)
        _, model = self_test.run()
        assert not model.is_right
