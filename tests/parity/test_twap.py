"""Single decisions of the reference's TWAP agent."""

import json
from typing import Any

import jax
import numpy as np

from marsjax.agents.base import Account, Observation, Resting
from marsjax.agents.twap import Twap
from marsjax.core import int64
from marsjax.core.records import Kind, Order, Side, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import book
from tests.helpers import golden_folder

PATH = golden_folder() / "twap_decisions.json"
CAPACITY = 16
START_S = 36_000
SPEC = MarketSpec(capacity=CAPACITY, levels=1)
SETTINGS = ("total_seconds", "passive_seconds", "idle_seconds", "max_passive_volume_ratio",
            "max_aggressive_volume_ratio", "aggressive_price_change")


def seen(case: dict[str, Any]) -> Observation:
    side = Side.BID if case["direction"] == "B" else Side.ASK
    rows = [(price, volume, number) for number, (price, volume) in enumerate(case["resting"])]
    rows.sort(key=lambda row: (-row[0] if side == Side.BID else row[0], row[2]))
    table = np.zeros((3, 2, CAPACITY), np.int32)
    for slot, row in enumerate(rows):
        table[:, side, slot] = row
    view = jax.tree.map(np.asarray, book.view(SPEC, book.empty(SPEC)))
    values = {"last_price": np.int32(case["last_price"])}
    for name in ("ask", "bid"):
        price = case[f"best_{name}"] or 0
        values |= {f"{name}_price": np.array([price], np.int32),
                   f"{name}_volume": int64.from_numpy(np.array([100 if price else 0]))}
    view = type(view)(**{**vars(view), **values})
    nothing = int64.from_numpy(0)
    time = Time(np.int32(START_S + case["elapsed_seconds"]), np.int32(0))
    return Observation(time, view, Account(*[nothing] * 4), Resting(*table), np.int32(SPEC.tick))


def answer(case: dict[str, Any], orders: Order) -> list[list[Any]]:
    """Orders as the golden file lists them: the cancels at one price as one."""
    got: list[list[Any]] = []
    for kind, price, volume, number in zip(orders.kind, orders.price, orders.volume, orders.cancel_id, strict=True):
        if kind == Kind.CANCEL:
            price = case["resting"][number][0]
            if got and got[-1][:2] == ["C", price]:
                got[-1][2] += int(volume)
            else:
                got.append(["C", price, int(volume)])
        elif kind != Kind.NONE:
            got.append(["B" if kind == Kind.BUY else "S", int(price), int(volume)])
    return got


def test_every_decision_is_equal() -> None:
    cases = json.loads(PATH.read_text(encoding="utf-8"))
    states = []
    for case in cases:
        settings = {name: case[name] for name in SETTINGS}
        agent = Twap(target=case["target_volume"], start_ns=START_S * 10**9, most_orders=CAPACITY, **settings)
        states.append(agent.starts(case["target_volume"], case["direction"] == "B")[0]._replace(
            completed=np.int32(case["completed_volume"]), passive_next=np.bool_(case["stage"] == "passive")))
    state, observed = (jax.tree.map(lambda *x: np.stack(x), *rows) for rows in (states, [seen(c) for c in cases]))
    action = jax.jit(jax.vmap(lambda s, o: agent.act(s, o, jax.random.key(0))))(state, observed)
    action = jax.tree.map(np.asarray, action)
    for i, case in enumerate(cases):
        assert answer(case, jax.tree.map(lambda x, i=i: x[i], action.orders)) == case["orders"], case
        wake = None if action.stops[i] else int(action.wake.s[i] - observed.time.s[i])
        assert wake == case["wake_after_seconds"], case
    assert len(cases) > 100
