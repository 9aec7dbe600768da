"""Whole runs of the reference under given tokens: every decision, order, trade, view and token."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import bins, book, clock, exchange, model, orders, simulate, tokens
from marsjax.agents.twap import Twap
from marsjax.specs import DAY_NS, CacheSpec, MarketSpec, ModelSpec, TokenSpec, continuous_session
from marsjax.types import Kind, Market, Order, Report, Status
from marsjax.watchers.base import Event
from marsjax.watchers.trace import Trace
from tests.helpers import KINDS, golden_folder, read_columns, read_orders, replay, snapshot_rows

MARKET = MarketSpec(capacity=512, trade_width=64, owners=3, session=continuous_session(0, DAY_NS - 1))
MODEL = ModelSpec(width=4, heads=1)
REPLAYED = MarketSpec(capacity=1024, trade_width=128)
PADDED = 4096
"""That book and that length are test_book's, whose compilation is taken where it is there."""
NOISE = 2048
EVENTS = 4096
"""Room in the trace of a run."""
ALL = sorted(golden_folder().glob("loop_*.json"))
HAS_TWAP = {path: json.loads(path.read_text(encoding="utf-8"))["twap"] is not None for path in ALL}


class Run(NamedTuple):
    """One run of the reference and what came of its tokens here."""

    info: dict[str, Any]
    path: Path
    first_window: np.ndarray
    decisions: simulate.Decision
    events: Event
    market: Market
    end: int


conservation = jax.jit(exchange.conservation)


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
                 given: jax.Array) -> tuple[simulate.Simulation, simulate.Decision]:
    batch = given.shape[1]
    keys = jnp.broadcast_to(jax.random.key(0), (batch,))
    zero = simulate.Draws(jnp.zeros((batch, 2), jnp.uint32), jnp.zeros((batch, 3), jnp.uint32),
                          jnp.zeros(batch, jnp.uint32), given[0], keys)
    return jax.lax.scan(lambda s, t: simulate.step(params, spec, *tables(), s, zero._replace(given_token=t)), state,
                        given)


def columns(path: Path, name: str) -> dict[str, np.ndarray]:
    return read_columns(path.with_name(f"{path.stem}_{name}.csv.gz"))


def start_of(path: Path, info: dict[str, Any]) -> simulate.Start:
    stream = read_orders(path.with_name(f"{path.stem}_orders.csv.gz"))
    noise = jax.tree.map(lambda x: x[np.asarray(stream.owner) == 0], stream)
    market, state, encoded = warm_up(orders.pad(noise, NOISE))
    made, _ = tokens.collect(jax.tree.map(np.asarray, encoded))
    last = jax.tree.map(lambda x: np.asarray(x)[-MODEL.max_orders:], made)
    count = len(last.kind)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, MODEL.max_orders - count)] + [(0, 0)] * (x.ndim - 1)), last)
    return simulate.Start(market, state, padded, np.int32(count), clock.time_from_ns(info["init_end_ns"]))


def twap(info: dict[str, Any]) -> Twap:
    seconds = (info["end_ns"] - info["init_end_ns"]) // 10**9
    given = dict(info["twap"]) | {"direction": {"B": "buy", "S": "sell"}[info["twap"]["direction"]]}
    return Twap(target=given.pop("target_volume"), start_ns=info["init_end_ns"], total_seconds=seconds, **given)


@functools.cache
def runs() -> dict[Path, Run]:
    """All runs: one batch of trajectories with a start each; in those without a TWAP agent it never wakes up."""
    infos = [json.loads(path.read_text(encoding="utf-8")) for path in ALL]
    starts = [start_of(path, info) for path, info in zip(ALL, infos, strict=True)]
    given = [columns(path, "predictions")["token"].astype(np.int32) for path in ALL]
    most = max(map(len, given))
    (end_ns,) = {info["end_ns"] for info in infos}
    agents = [twap(info if HAS_TWAP[path] else next(x for x in infos if x["twap"])) for path, info in zip(
        ALL, infos, strict=True)]
    spec = simulate.SimulationSpec(MARKET, MODEL, CacheSpec(mode="rolling", append=1), end_ns=end_ns,
                                   agents=tuple(agents[:1]), watchers=(Trace(MARKET, EVENTS),), burst=2)
    # What differs between the agents is all in their states.
    first = [agent.init() for agent in agents]
    never = clock.static_time(end_ns + 10**9)
    states = [jax.tree.map(lambda *x: jnp.stack(x), *(
        (state, wake if HAS_TWAP[path] else never) for path, (state, wake) in zip(ALL, first, strict=True)))]
    params = model.init(MODEL, jax.random.key(0))  # no weights are needed where the tokens are given
    batch = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    state = simulate.begin(params, spec, batch, jnp.zeros(len(ALL), jnp.int32), states)
    end, decisions = simulate_all(spec, params, state, jnp.stack([np.pad(x, (0, most - len(x))) for x in given], 1))
    end, decisions = jax.tree.map(np.asarray, ((end.market, end.end, end.watched[0]), decisions))
    result = {}
    for i, path in enumerate(ALL):
        log = jax.tree.map(lambda x, i=i: x[i], end[2])
        assert not log.dropped
        count = len(given[i])
        window = np.asarray(tokens.to_array(TokenSpec(), starts[i].window))[: int(starts[i].count)]
        result[path] = Run(infos[i], path, window, jax.tree.map(lambda x, i=i, n=count: x[:n, i], decisions),
                           jax.tree.map(lambda x, n=log.count: x[:n], log.events),
                           jax.tree.map(lambda x, i=i: x[i], end[0]), int(end[1][i]))
        assert not decisions.active[count:, i].any()
    return result


def run(path: Path) -> Run:
    return runs()[path]


def sent_rows(events: Event) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The orders of agents as rows of a golden file, and how many there were after each event."""
    rows: list[tuple[Any, ...]] = []
    after = []
    letters = {number: letter for letter, number in KINDS.items()}
    times = clock.time_to_ns(events.order.time)
    for i in range(len(times)):
        kind, owner = int(events.order.kind[i]), int(events.order.owner[i])
        single = jax.tree.map(lambda x, i=i: x[i], events.report)
        taken: Report = jax.tree.map(lambda x, i=i: x[i], events.cancelled)
        if kind != Kind.CANCEL:
            rows.append((times[i], letters[kind], events.order.price[i], events.order.volume[i], single.order_id,
                         "None", -1, owner))
        elif not events.is_bulk[i]:
            rows.append((times[i], "C", single.trades.price[0], events.order.volume[i], single.order_id,
                         letters[int(events.order.cancel_side[i])], events.order.cancel_id[i], owner))
        rows += [(times[i], "C", taken.trades.price[side, k], taken.trades.volume_each[side, k],
                  taken.order_id[side] + k, letters[side], taken.trades.resting_id[side, k], owner)
                 for side in range(2) for k in range(int(taken.trades.count[side]))]
        after.append(len(rows))
    return rows, after


def test_the_golden_folder_has_runs_of_both_kinds() -> None:
    assert set(HAS_TWAP.values()) == {False, True}, f"loop_*.json in {golden_folder()}"


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
class TestRun:
    def test_every_prediction_and_planned_order_is_equal(self, path: Path) -> None:
        got, expected = run(path).decisions, columns(path, "predictions")
        assert got.active.all()
        np.testing.assert_array_equal(clock.time_to_ns(got.time), expected["time_ns"])
        np.testing.assert_array_equal(got.mid_price, expected["mid_price"])
        np.testing.assert_array_equal(got.planned.kind, [KINDS[letter] for letter in expected["type"]])
        np.testing.assert_array_equal(got.planned.price, expected["price"])
        np.testing.assert_array_equal(got.planned.volume, expected["volume"])
        np.testing.assert_array_equal(clock.time_to_ns(got.planned.time), expected["submit_time_ns"])

    def test_every_order_is_equal(self, path: Path) -> None:
        x = columns(path, "orders")
        mine = x["agent_id"] > 0
        names = ("time_ns", "type", "price", "volume", "order_id", "cancel_type", "cancel_id", "agent_id")
        assert sent_rows(run(path).events)[0] == list(zip(*(x[name][mine] for name in names), strict=True))

    def test_every_transaction_and_snapshot_is_equal(self, path: Path) -> None:
        """The orders are equal, so replaying them gives what the rollout did, cancels of one decision one by one."""
        stream = read_orders(path.with_name(f"{path.stem}_orders.csv.gz"))
        count = len(stream.kind)
        _, steps = replay(REPLAYED, book.empty(REPLAYED), orders.pad(stream, PADDED), np.ones(PADDED, bool),
                          keep_books=False)
        golden = columns(path, "snapshots")
        table = np.column_stack([column for name, column in golden.items() if name != "i"])
        np.testing.assert_array_equal(snapshot_rows(steps.view)[:count], table)
        # The rollout's own views, after the last cancel of a decision each.
        rows, after = sent_rows(run(path).events)
        at = count - len(rows) + np.array(after) - 1
        np.testing.assert_array_equal(snapshot_rows(run(path).events.view), table[at])

    def test_token_windows_are_equal(self, path: Path) -> None:
        result = run(path)
        expected = np.load(path.with_name(f"{path.stem}_features.npz"))
        features = np.asarray(tokens.to_array(TokenSpec(), result.events.encoded.token))
        is_own, encoded = result.events.source == 0, result.events.encoded
        decision_time = clock.time_to_ns(result.decisions.time)
        event_time = clock.time_to_ns(result.events.order.time)
        window, decided, middle, seen = list(result.first_window), 0, len(decision_time) // 2, 0
        np.testing.assert_array_equal(result.first_window, expected["first_prediction"])
        for i, row in enumerate(features):
            # What agents do at the time of a decision comes before it: they had asked for it before.
            if not seen and decided == middle and (is_own[i] or event_time[i] > decision_time[middle]):
                np.testing.assert_array_equal(np.array(window[-1024:]), expected["mid_prediction"])
                seen += 1
            decided += is_own[i]
            if encoded.replaces[i]:
                window[-1] = row
            elif encoded.is_new[i]:
                window.append(row)
        assert seen
        np.testing.assert_array_equal(np.array(window[-1024:]), expected["final"])

    def test_accounts_are_equal_and_conserved(self, path: Path) -> None:
        result = run(path)
        cash, shares = (clock.wide_to_numpy(x) for x in (result.market.ledgers.cash, result.market.ledgers.holdings))
        golden, market = result.info["holdings_and_cash"], jax.tree.map(jnp.asarray, result.market)
        for account, name in enumerate(golden):
            assert golden[name][1] == cash[account] + result.info["initial_cash"][name]
            assert golden[name][0] == (shares[2] if name == "twap" else shares[:2].sum())
        if HAS_TWAP[path]:
            assert abs(int(shares[2])) == result.info["completed"]
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(conservation(market)))
        assert result.end == simulate.End.TIME
