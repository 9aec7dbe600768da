"""Whole runs of the reference's background agent under given tokens: every decision, order, trade, view and token."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import bins, book, clock, exchange, model, orders, simulate, tokens
from marsjax.specs import DAY_NS, CacheSpec, MarketSpec, ModelSpec, TokenSpec, continuous_session
from marsjax.types import Kind, Market, Order, Report, Status
from marsjax.watchers.base import Event
from marsjax.watchers.trace import Trace
from tests.helpers import KINDS, golden_folder, read_columns, read_orders, replay, snapshot_rows

MARKET = MarketSpec(capacity=1024, trade_width=64, owners=2, session=continuous_session(0, DAY_NS - 1))
MODEL = ModelSpec(width=4, heads=1)
PADDED = 4096
EVENTS = 2048
"""Room in the trace of a run."""
RUNS = sorted(path for path in golden_folder().glob("loop_*.json")
              if json.loads(path.read_text(encoding="utf-8"))["twap"] is None)


class Run(NamedTuple):
    """One run of the reference and what came of its tokens here."""

    info: dict[str, Any]
    path: Path
    noise: Order
    first_window: np.ndarray
    decisions: simulate.Decision
    events: Event
    end: simulate.Simulation


@functools.cache
def tables() -> tuple[tokens.TokenTables, tokens.DrawTables]:
    converters = bins.read_folder(golden_folder() / "converters")
    return tokens.tables(TokenSpec(), converters), tokens.draw_tables(TokenSpec(), converters)


@jax.jit
def warm_up(stream: Order) -> tuple[Market, tokens.TokenState, tokens.Encoded]:
    def one(carry: tuple[Market, tokens.TokenState], order: Order
            ) -> tuple[tuple[Market, tokens.TokenState], tokens.Encoded]:
        market, state = carry
        before = book.view(MARKET, market.book)
        market, report = exchange.submit(MARKET, market, order)
        state, encoded = tokens.encode(MARKET, tables()[0], state, order, report.trades, before,
                                       book.view(MARKET, market.book), report.status == Status.ACCEPTED)
        return (market, state), encoded

    first = exchange.open_market(MARKET, first_id=10**9), tokens.start()
    (market, state), encoded = jax.lax.scan(one, first, stream)
    return market, state, encoded


@functools.partial(jax.jit, static_argnums=0)
def simulate_all(spec: simulate.SimulationSpec, params: model.Params, state: simulate.Simulation,
                 words: simulate.Draws) -> tuple[simulate.Simulation, simulate.Decision]:
    return jax.lax.scan(lambda s, w: simulate.step(params, spec, *tables(), s, w), state, words)


@functools.cache
def run(path: Path) -> Run:
    info = json.loads(path.read_text(encoding="utf-8"))
    stem = str(path).removesuffix(".json")
    stream = read_orders(Path(f"{stem}_orders.csv.gz"))
    noise = jax.tree.map(lambda x: x[np.asarray(stream.owner) == 0], stream)
    market, state, encoded = warm_up(noise)
    made, _ = tokens.collect(jax.tree.map(np.asarray, encoded))
    last = jax.tree.map(lambda x: jnp.asarray(x)[None, -MODEL.max_orders:], made)
    start = simulate.Start(*jax.tree.map(lambda x: x[None], (market, state)), last,
                           jnp.full(1, last.kind.shape[1], jnp.int32),
                           jax.tree.map(lambda x: jnp.asarray(x)[None], clock.time_from_ns(info["init_end_ns"])))
    # No weights are needed where the tokens are given.
    params = model.init(MODEL, jax.random.key(0))
    spec = simulate.SimulationSpec(MARKET, MODEL, CacheSpec(mode="rolling", append=1), end_ns=info["end_ns"],
                                   watchers=(Trace(MARKET, EVENTS),))
    given = read_columns(Path(f"{stem}_predictions.csv.gz"))["token"].astype(np.int32)
    words = simulate.Draws(jnp.zeros((len(given), 1, 2), jnp.uint32), jnp.zeros((len(given), 1, 3), jnp.uint32),
                           jnp.zeros((len(given), 1), jnp.uint32), jnp.asarray(given)[:, None])
    end, decisions = simulate_all(spec, params, simulate.begin(params, spec, start, jnp.zeros(1, jnp.int32)), words)
    window = np.asarray(tokens.to_array(TokenSpec(), jax.tree.map(lambda x: x[0], last)))
    log = jax.tree.map(lambda x: np.asarray(x)[0], end.watched[0])
    assert not log.dropped
    return Run(info, Path(stem), noise, window, jax.tree.map(lambda x: np.asarray(x)[:, 0], decisions),
               jax.tree.map(lambda x: x[: log.count], log.events), end)


def sent_rows(events: Event) -> list[tuple[Any, ...]]:
    """The orders of agents as rows of a golden file."""
    rows: list[tuple[Any, ...]] = []
    letters = {number: letter for letter, number in KINDS.items()}
    times = clock.time_to_ns(events.order.time)
    for i in range(len(times)):
        kind = int(events.order.kind[i])
        if kind != Kind.CANCEL:
            rows.append((times[i], letters[kind], events.order.price[i], events.order.volume[i],
                         events.report.order_id[i], "None", -1))
            continue
        taken: Report = jax.tree.map(lambda x, i=i: x[i], events.cancelled)
        rows += [(times[i], "C", taken.trades.price[side, k], taken.trades.volume_each[side, k],
                  taken.order_id[side] + k, letters[side], taken.trades.resting_id[side, k])
                 for side in range(2) for k in range(int(taken.trades.count[side]))]
    return rows


def test_the_golden_folder_has_background_runs() -> None:
    assert RUNS, f"no loop_*.json of the background agent alone in {golden_folder()}"


@pytest.mark.parametrize("path", RUNS, ids=[path.stem for path in RUNS])
class TestBackgroundRun:
    def test_every_prediction_and_planned_order_is_equal(self, path: Path) -> None:
        got, expected = run(path).decisions, read_columns(path.with_name(f"{path.stem}_predictions.csv.gz"))
        assert got.active.all()
        np.testing.assert_array_equal(clock.time_to_ns(got.time), expected["time_ns"])
        np.testing.assert_array_equal(got.mid_price, expected["mid_price"])
        np.testing.assert_array_equal(got.planned.kind, [KINDS[letter] for letter in expected["type"]])
        np.testing.assert_array_equal(got.planned.price, expected["price"])
        np.testing.assert_array_equal(got.planned.volume, expected["volume"])
        np.testing.assert_array_equal(clock.time_to_ns(got.planned.time), expected["submit_time_ns"])

    def test_every_order_is_equal(self, path: Path) -> None:
        x = read_columns(path.with_name(f"{path.stem}_orders.csv.gz"))
        mine = x["agent_id"] == 1
        columns = ("time_ns", "type", "price", "volume", "order_id", "cancel_type", "cancel_id")
        assert sent_rows(run(path).events) == list(zip(*(x[name][mine] for name in columns), strict=True))

    def test_every_transaction_and_snapshot_is_equal(self, path: Path) -> None:
        """The orders are equal, so replaying them gives what the rollout did, cancels of one decision one by one."""
        stream = read_orders(path.with_name(f"{path.stem}_orders.csv.gz"))
        count = len(stream.kind)
        _, steps = replay(MARKET, book.empty(MARKET), orders.pad(stream, PADDED), np.ones(PADDED, bool),
                          keep_books=False)
        golden = read_columns(path.with_name(f"{path.stem}_snapshots.csv.gz"))
        table = np.column_stack([column for name, column in golden.items() if name != "i"])
        np.testing.assert_array_equal(snapshot_rows(steps.view)[:count], table)
        # The rollout's own views, after the last cancel of a decision each.
        rows = snapshot_rows(run(path).events.view)
        last = np.flatnonzero(np.diff(clock.time_to_ns(stream.time), append=-1))
        assert set(map(bytes, rows)) <= set(map(bytes, table))
        assert bytes(rows[-1]) == bytes(table[last[-1]])

    def test_token_windows_are_equal(self, path: Path) -> None:
        result, expected = run(path), np.load(path.with_name(f"{path.stem}_features.npz"))
        np.testing.assert_array_equal(result.first_window, expected["first_prediction"])
        features = np.asarray(tokens.to_array(TokenSpec(), result.events.encoded.token))
        window, middle = list(result.first_window), len(result.decisions.token) // 2
        decided = -1
        for i, row in enumerate(features):
            decided += result.events.source[i] == 0
            if result.events.source[i] == 0 and decided == middle:
                np.testing.assert_array_equal(np.array(window[-1024:]), expected["mid_prediction"])
            if result.events.encoded.replaces[i]:
                window[-1] = row
            elif result.events.encoded.is_new[i]:
                window.append(row)
        np.testing.assert_array_equal(np.array(window[-1024:]), expected["final"])

    def test_accounts_are_equal_and_conserved(self, path: Path) -> None:
        result = run(path)
        market = jax.tree.map(lambda x: x[0], result.end.market)
        cash, shares = (clock.wide_to_numpy(x) for x in (market.ledgers.cash, market.ledgers.holdings))
        golden = result.info["holdings_and_cash"]
        for account, name in enumerate(("noise", "background")):
            assert golden[name][1] == cash[account] + result.info["initial_cash"][name]
            assert golden[name][0] == shares[:2].sum()
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(exchange.conservation(market)))
        assert int(result.end.end[0]) == simulate.End.TIME

