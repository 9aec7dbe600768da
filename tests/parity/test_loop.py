"""Whole runs of the reference under given tokens: every decision, order, trade, view and token."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.twap import Twap
from marsjax.checkpoint import converter_files
from marsjax.core import int64, times
from marsjax.core.records import Kind, Market, Order, Status, Trades
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import CacheSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.core.times import DAY_NS
from marsjax.market import book, exchange, orders
from marsjax.model import llama
from marsjax.observers.base import Event
from marsjax.observers.trace import TraceObserver
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import End, SimState
from marsjax.tokens import encoding
from tests.helpers import KINDS, golden_folder, read_columns, read_orders, replay, snapshot_rows

pytestmark = pytest.mark.optimised

MARKET = MarketSpec(capacity=512, trade_width=64, accounts=3, session=continuous_session(0, DAY_NS - 1))
MODEL = ModelSpec(embed_dim=4, heads=1)
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
    decisions: sim_step.Decision
    events: Event
    market: Market
    end: int


conservation = jax.jit(exchange.conservation)


@functools.cache
def tables() -> tuple[encoding.TokenTables, encoding.DrawTables]:
    converters = converter_files.read_folder(golden_folder() / "converters")
    return encoding.tables(TokenSpec(), converters), encoding.draw_tables(TokenSpec(), converters)


@jax.jit
def warm_up(stream: Order) -> tuple[Market, encoding.TokenState, encoding.Encoded]:
    def one(carry: tuple[Market, encoding.TokenState], order: Order
            ) -> tuple[tuple[Market, encoding.TokenState], encoding.Encoded]:
        market, state = carry
        before = book.view(MARKET, market.book)
        market, report = exchange.submit(MARKET, market, order)
        state, encoded = encoding.encode(MARKET, tables()[0], state, order, report.trades, before,
                                       book.view(MARKET, market.book), report.status == Status.ACCEPTED)
        return (market, state), encoded

    first = exchange.open_market(MARKET, first_id=10**9), encoding.start()
    (market, state), encoded = jax.lax.scan(one, first, stream)
    return market, state, encoded


@jax.jit
def simulate_all(simulator: Simulator, state: SimState, given: jax.Array) -> tuple[SimState, sim_step.Decision]:
    batch = given.shape[1]
    keys = jnp.broadcast_to(jax.random.key(0), (batch,))
    zero = sim_step.Draws(jnp.zeros((batch, 2), jnp.uint32), jnp.zeros((batch, 3), jnp.uint32),
                          jnp.zeros(batch, jnp.uint32), given[0], keys)
    return jax.lax.scan(lambda s, t: sim_step.step(simulator, s, zero._replace(given_token=t)), state, given)


def columns(path: Path, name: str) -> dict[str, np.ndarray]:
    return read_columns(path.with_name(f"{path.stem}_{name}.csv.gz"))


def start_of(path: Path, info: dict[str, Any]) -> Start:
    stream = read_orders(path.with_name(f"{path.stem}_orders.csv.gz"))
    noise = jax.tree.map(lambda x: x[np.asarray(stream.account) == 0], stream)
    market, state, encoded = warm_up(orders.pad(noise, NOISE))
    made, _ = encoding.collect(jax.tree.map(np.asarray, encoded))
    last = jax.tree.map(lambda x: np.asarray(x)[-MODEL.context_length:], made)
    count = len(last.kind)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, MODEL.context_length - count)] + [(0, 0)] * (x.ndim - 1)), last)
    return Start(market, state, padded, np.int32(count), times.from_ns(info["init_end_ns"]))


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
    spec = SimulationSpec(MARKET, CacheSpec(mode="rolling", append=1), end_ns=end_ns,
                                   agents=tuple(agents[:1]), observers=(TraceObserver(MARKET, EVENTS),), burst=2)
    # What differs between the agents is all in their states.
    first = [agent.init() for agent in agents]
    never = times.of_ns(end_ns + 10**9)
    states = [jax.tree.map(lambda *x: jnp.stack(x), *(
        (state, wake if HAS_TWAP[path] else never) for path, (state, wake) in zip(ALL, first, strict=True)))]
    params = llama.init(MODEL, jax.random.key(0))  # no weights are needed where the tokens are given
    batch = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    simulator = Simulator(params, *tables(), spec)
    state = sim_step.begin(simulator, batch, jnp.zeros(len(ALL), jnp.int32), states)
    end, decisions = simulate_all(simulator, state, jnp.stack([np.pad(x, (0, most - len(x))) for x in given], 1))
    end, decisions = jax.tree.map(np.asarray, ((end.market, end.end, end.observed[0]), decisions))
    result = {}
    for i, path in enumerate(ALL):
        log = jax.tree.map(lambda x, i=i: x[i], end[2])
        assert not log.dropped
        count = len(given[i])
        window = np.asarray(encoding.to_array(TokenSpec(), starts[i].window))[: int(starts[i].count)]
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
    times_ns = times.to_ns(events.order.time)
    for i in range(len(times_ns)):
        kind, account = int(events.order.kind[i]), int(events.order.account[i])
        trades: Trades = jax.tree.map(lambda x, i=i: x[i], events.trades)
        order_id, side = events.order_id[i], int(events.order.cancel_side[i])
        if kind != Kind.CANCEL:
            rows.append((times_ns[i], letters[kind], events.order.price[i], events.order.volume[i], order_id,
                         "None", -1, account))
        elif not events.is_by_price[i]:
            rows.append((times_ns[i], "C", trades.price[0], events.order.volume[i], order_id, letters[side],
                         events.order.cancel_id[i], account))
        else:
            rows += [(times_ns[i], "C", trades.price[k], trades.volume_each[k], order_id + k, letters[side],
                      trades.resting_id[k], account) for k in range(int(trades.count))]
        after.append(len(rows))
    return rows, after


def test_the_golden_folder_has_runs_of_both_kinds() -> None:
    assert set(HAS_TWAP.values()) == {False, True}, f"loop_*.json in {golden_folder()}"


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
class TestRun:
    def test_every_prediction_and_planned_order_is_equal(self, path: Path) -> None:
        got, expected = run(path).decisions, columns(path, "predictions")
        assert got.active.all()
        np.testing.assert_array_equal(times.to_ns(got.time), expected["time_ns"])
        np.testing.assert_array_equal(got.mid_price, expected["mid_price"])
        np.testing.assert_array_equal(got.planned.kind, [KINDS[letter] for letter in expected["type"]])
        np.testing.assert_array_equal(got.planned.price, expected["price"])
        np.testing.assert_array_equal(got.planned.volume, expected["volume"])
        np.testing.assert_array_equal(times.to_ns(got.planned.time), expected["submit_time_ns"])

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
        features = np.asarray(encoding.to_array(TokenSpec(), result.events.encoded.token))
        is_own, encoded = result.events.source == 0, result.events.encoded
        decision_time = times.to_ns(result.decisions.time)
        event_time = times.to_ns(result.events.order.time)
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
        cash, shares = (int64.to_numpy(x) for x in (result.market.ledgers.cash, result.market.ledgers.holdings))
        golden, market = result.info["holdings_and_cash"], jax.tree.map(jnp.asarray, result.market)
        for account, name in enumerate(golden):
            assert golden[name][1] == cash[account] + result.info["initial_cash"][name]
            assert golden[name][0] == (shares[2] if name == "twap" else shares[:2].sum())
        if HAS_TWAP[path]:
            assert abs(int(shares[2])) == result.info["completed"]
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(conservation(market)))
        assert result.end == End.TIME
