"""Laws of rollouts: a trajectory is the same alone, in any batch and in any chunks; nothing is lost or made."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import bins, book, clock, exchange, model, rollout, simulate, start, tokens
from marsjax.agents.noise import NoiseSpec
from marsjax.data.feed import AUCTION, FeedChunk, Fills
from marsjax.model import Params
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, CacheSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.start import Start
from marsjax.types import Order, Status
from marsjax.watchers.trace import Log, Trace
from tests.helpers import fixture_folder

MARKET = MarketSpec(capacity=128, trade_width=32, owners=2)
MODEL = ModelSpec(width=8, heads=2, max_orders=64)
WARM_NS = 34_200 * SECOND_NS
START_NS = WARM_NS + 300 * SECOND_NS
SPEC = SimulationSpec(MARKET, MODEL, CacheSpec(mode="rolling", append=1), end_ns=START_NS + 10 * SECOND_NS)
BATCH = 64


@functools.cache
def tables() -> tuple[tokens.TokenTables, tokens.DrawTables]:
    converters = bins.read_folder(fixture_folder() / "converters")
    return tokens.tables(TokenSpec(), converters), tokens.draw_tables(TokenSpec(), converters)


@functools.cache
def noise_orders() -> Order:
    warmup = start.Warmup(start_ns=WARM_NS, duration_ns=START_NS - WARM_NS)
    return start.noise(MARKET, NoiseSpec(), warmup, seed=0)[1][0]


def feed(*parts: Order) -> Any:
    none = np.zeros(0, np.int32)
    fills = Fills(none.astype(np.int64), none, none, none, none, none + AUCTION, none.astype(np.int64))
    return iter([FeedChunk(part, fills, np.arange(len(part.kind))) for part in parts])


@functools.cache
def begin() -> Start:
    return start.from_feed(MARKET, tables()[0], feed(noise_orders()), START_NS, MODEL.max_orders, chunk_orders=256)


@functools.cache
def params() -> Params:
    return model.init(MODEL, jax.random.key(0))


def run(**changes: Any) -> rollout.Rollout:
    options = {"trajectories": BATCH, "minutes": 1, "seed": 3, "chunk_steps": 16, "spec": SPEC,
               "start": begin()} | changes
    return rollout.rollout(params(), options.pop("spec"), *tables(), options.pop("start"), **options)


def states(result: rollout.Rollout) -> list[np.ndarray]:
    simulation = result.simulation
    kept = (result.bars, simulation.market, simulation.token_state, simulation.time, simulation.end)
    return [np.asarray(x) for x in jax.tree.leaves(kept)]


@functools.cache
def whole() -> rollout.Rollout:
    return run()


def test_a_trajectory_alone_and_in_other_chunks_equals_itself_in_a_batch() -> None:
    for number in (0, 45):
        alone = run(trajectories=1, first=number, chunk_steps=512)
        jax.tree.map(np.testing.assert_array_equal, states(alone), [x[number : number + 1] for x in states(whole())])


def test_trajectories_and_seeds_differ() -> None:
    books = np.asarray(whole().simulation.market.book.volume)
    assert len({x.tobytes() for x in books}) == BATCH
    assert not np.array_equal(np.asarray(run(seed=4).simulation.market.book.volume), books)


def test_shares_and_cash_are_conserved_and_every_trajectory_ends() -> None:
    result = whole()
    lost = jax.tree.leaves(jax.vmap(exchange.conservation)(result.simulation.market))
    assert not any(np.asarray(x).any() for x in lost)
    assert result.ended == {"TIME": BATCH}
    assert (np.asarray(clock.time_to_ns(result.simulation.time)) <= SPEC.end_ns).all()


TRACED = dataclasses.replace(SPEC, watchers=(Trace(MARKET, 1),))


@jax.jit
def one_step(state: simulate.Simulation) -> tuple[simulate.Simulation, simulate.Decision]:
    words = simulate.draw(3, state.trajectory, state.step)
    return simulate.step(params(), TRACED, *tables(), state, words)


def test_a_trajectory_whose_logits_are_no_numbers_stops_and_the_others_go_on() -> None:
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), begin())
    first = simulate.begin(params(), TRACED, every, jnp.arange(8))
    newest = first.cache.newest.at[5].set(jnp.nan)
    broken, decision = one_step(dataclasses.replace(first, cache=dataclasses.replace(first.cache, newest=newest)))
    expected, _ = one_step(first)
    assert broken.end.tolist() == [0] * 5 + [simulate.End.NOT_FINITE] + [0] * 2
    assert decision.active.tolist() == [True] * 5 + [False] + [True] * 2
    others = np.array([0, 1, 2, 3, 4, 6, 7])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[others], b[others]), broken.market, expected.market)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[5], b[5]), broken.market, first.market)


def test_bars_are_those_of_the_decisions() -> None:
    """The minute's sums against a trace of single steps."""
    result = whole()
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), begin())
    now = simulate.begin(params(), TRACED, every, jnp.arange(8))
    orders, mids, volume = np.zeros(8, int), np.zeros(8, int), np.zeros(8, int)
    mid = np.asarray(jax.vmap(lambda m: book.view(MARKET, m.book).mid_price_twice)(every.market))
    while (np.asarray(now.end) == simulate.End.RUNNING).any():
        now, _ = one_step(now)
        log = jax.tree.map(np.asarray, now.watched[0])
        now = dataclasses.replace(now, watched=(TRACED.watchers[0].emptied(now.watched[0]),))
        made = jax.tree.map(lambda x: x[:, 0], log.events)
        cancels = made.cancelled.trades.count.sum(axis=1)
        # An order at the very start is not part of the first minute.
        later = (clock.time_to_ns(made.order.time) > START_NS) & (log.count > 0)
        count = np.where(later, cancels + (made.report.status == 0), 0)
        orders += count
        mids += np.where(count > 0, (count - 1) * mid + made.view.mid_price_twice, 0)
        volume += np.where(later & (made.report.status == 0), clock.wide_to_numpy(made.report.trades.volume), 0)
        mid = np.where(log.count > 0, made.view.mid_price_twice, mid)
    assert orders.sum() > 100
    np.testing.assert_array_equal(result.bars.orders[:8, 0], orders)
    np.testing.assert_array_equal(clock.wide_to_numpy(result.bars.mid_twice_sum)[:8, 0], mids)
    np.testing.assert_array_equal(clock.wide_to_numpy(result.bars.volume)[:8, 0], volume)
    np.testing.assert_array_equal(result.bars.mid_twice_last[:8, 0], mid)


def test_a_start_does_not_depend_on_how_its_orders_come() -> None:
    sent = noise_orders()
    parts = [jax.tree.map(lambda x, part=part: x[part], sent) for part in (slice(70), slice(70, None))]
    other = start.from_feed(MARKET, tables()[0], feed(*parts), START_NS, MODEL.max_orders, chunk_orders=100)
    jax.tree.map(np.testing.assert_array_equal, other, begin())


def test_a_start_reads_no_order_after_its_time() -> None:
    sent = noise_orders()
    half_ns = WARM_NS + 150 * SECOND_NS
    early = jax.tree.map(lambda x: x[clock.time_to_ns(sent.time) <= half_ns], sent)
    got = start.from_feed(MARKET, tables()[0], feed(sent), half_ns, MODEL.max_orders, chunk_orders=256)
    expected = start.from_feed(MARKET, tables()[0], feed(early), half_ns, MODEL.max_orders, chunk_orders=256)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


class KilledError(Exception):
    """Stands for a run that was killed."""


def test_a_rollout_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    seen: list[rollout.Progress] = []

    def kill(progress: rollout.Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KilledError

    saving = rollout.Saving(tmp_path / "state", every_s=0)
    with pytest.raises(KilledError):
        run(on_chunk=kill, saving=saving)
    resumed = run(saving=saving, on_chunk=seen.append)
    # The third chunk was not saved: it is made again.
    assert [progress.steps for progress in seen[:4]] == [16, 32, 48, 48]
    assert seen[3].orders == seen[2].orders
    jax.tree.map(np.testing.assert_array_equal, states(resumed), states(whole()))
    assert (resumed.orders, resumed.rejected, resumed.ended) == (whole().orders, whole().rejected, whole().ended)
    with pytest.raises(ValueError, match="saved by another run: seed: expected 4, found 3"):
        run(saving=saving, seed=4)


def test_trajectories_with_a_start_each_equal_those_of_one_start() -> None:
    half_ns = WARM_NS + 290 * SECOND_NS
    early = start.from_feed(MARKET, tables()[0], feed(noise_orders()), half_ns, MODEL.max_orders, chunk_orders=256)
    half = BATCH // 2
    both = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), *[early] * half, *[begin()] * half)
    got = states(run(start=both))
    jax.tree.map(np.testing.assert_array_equal, [x[half:] for x in got], [x[half:] for x in states(whole())])
    jax.tree.map(np.testing.assert_array_equal, [x[:half] for x in got], [x[:half] for x in states(run(start=early))])


@pytest.mark.slow
def test_every_start_has_its_own_end_in_one_compilation() -> None:
    """Without a common end each trajectory runs for as many minutes from its start."""
    half_ns = WARM_NS + 290 * SECOND_NS
    early = start.from_feed(MARKET, tables()[0], feed(noise_orders()), half_ns, MODEL.max_orders, chunk_orders=256)
    both = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), early, begin())
    got = run(spec=dataclasses.replace(SPEC, end_ns=None), start=both, trajectories=2, chunk_steps=128)
    last = clock.time_to_ns(got.simulation.time) - np.array([half_ns, START_NS])
    assert ((last > 50 * SECOND_NS) & (last <= 60 * SECOND_NS)).all()
    assert got.bars.orders[:, 0].sum() == got.orders


def test_trajectories_of_one_number_are_the_same() -> None:
    got = states(run(numbers=np.arange(BATCH) // 2))
    for part in (slice(0, None, 2), slice(1, None, 2)):
        jax.tree.map(np.testing.assert_array_equal, [x[part] for x in got], [x[: BATCH // 2] for x in states(whole())])


@pytest.mark.slow
def test_recomputing_the_whole_window_gives_the_same_market() -> None:
    """One layer: the rolling cache is the window, so every token is the same, far beyond the window's 64 orders."""
    spec = dataclasses.replace(SPEC, cache=CacheSpec(mode="recompute", append=1))
    got = run(spec=spec, trajectories=16, chunk_steps=64)
    assert int(np.asarray(got.simulation.token_state.count).min()) > 3 * MODEL.max_orders
    jax.tree.map(np.testing.assert_array_equal, states(got), [x[:16] for x in states(whole())])


def test_in_slots_where_others_ended_and_traced_trajectories_are_the_same() -> None:
    """Some at a time, in a number that is no multiple of a block's rows, and with a trace: nothing changes."""
    logs: list[tuple[np.ndarray, Log]] = []
    seen: list[rollout.Progress] = []
    result = run(slots=24, on_trace=lambda who, log: logs.append((who, log)), on_chunk=seen.append)
    jax.tree.map(np.testing.assert_array_equal, states(result), states(whole()))
    assert result.ended == {"TIME": BATCH} and (result.mid_twice_start == whole().mid_twice_start).all()
    orders = np.zeros(BATCH, int)
    for who, log in logs:
        assert (log.count[who < 0] == 0).all()
        for b in np.flatnonzero(who >= 0):
            orders[who[b]] += log.events.orders[b, : log.count[b]].sum()
    np.testing.assert_array_equal(orders, whole().status[:, Status.ACCEPTED])
    assert result.counters == {"cut_lists": 0, "clipped_seconds": 0, "early_cuts": 0, "trace_dropped": 0}
    shares = [progress.passed for progress in seen]
    assert shares == sorted(shares) and shares[-1] == 1 and seen[-1].ended == BATCH
    # The last order of each came too late to be sent.
    assert seen[-1].orders == BATCH + sum(log.count.sum() for _, log in logs) and 0 < seen[0].ended < BATCH
    jax.tree.map(np.testing.assert_array_equal, states(result.part(slice(3, 9))), [x[3:9] for x in states(whole())])


@pytest.mark.slow
def test_contexts_are_cut_at_a_trajectory_s_own_steps_whenever_it_began() -> None:
    spec = dataclasses.replace(SPEC, cache=CacheSpec(mode="hop", hop=16, margin=8, append=1))
    together, in_turns = run(spec=spec, trajectories=12), run(spec=spec, trajectories=12, slots=5)
    jax.tree.map(np.testing.assert_array_equal, states(in_turns), states(together))
    np.testing.assert_array_equal(in_turns.simulation.cache.length, together.simulation.cache.length)
    assert (np.asarray(together.simulation.step) > 2 * 16).all() and together.counters["early_cuts"] == 0


def test_trajectories_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_memory", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"64 trajectories need .* GiB and the device has 0.0 GiB: about \d+ would"):
        run()


def test_a_compiled_chunk_serves_any_seed_and_start() -> None:
    run()
    before = rollout._chunk._cache_size()
    traces = []
    real = simulate.step
    try:
        simulate.step = lambda *x: (traces.append(1), real(*x))[1]
        run(seed=11)
    finally:
        simulate.step = real
    assert not traces and rollout._chunk._cache_size() == before


@pytest.mark.parametrize(("changes", "message"), [
    ({"minutes": 1, "start": "empty"}, "expected at least one token of history"),
    ({"start": "late"}, "expected one not after the end"),
    ({"spec": dataclasses.replace(SPEC, end_ns=START_NS + 90 * SECOND_NS)}, r"enough for the 1\.5 minutes"),
    ({"spec": dataclasses.replace(SPEC, end_ns=57_700 * SECOND_NS)}, "one period of continuous trading"),
    ({"start": "seven"}, "one for each of 64 trajectories, got 7"),
])
def test_a_start_or_horizon_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    first = begin()
    starts = {"empty": dataclasses.replace(first, count=np.int32(0)),
              "late": dataclasses.replace(first, time=clock.time_from_ns(START_NS + 11 * SECOND_NS)),
              "seven": jax.tree.map(lambda x: jnp.broadcast_to(x, (7, *jnp.shape(x))), first)}
    if "start" in changes:
        changes = changes | {"start": starts[changes["start"]]}
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    broken = dataclasses.replace(params(), norm=params().norm.at[2].set(jnp.nan))
    with pytest.raises(ValueError, match=r"weights\.norm: expected finite numbers"):
        rollout.rollout(broken, SPEC, *tables(), begin(), trajectories=1, minutes=1, seed=0)


@pytest.mark.parametrize(("name", "value"), [
    ("trajectories", 0), ("minutes", 0), ("seed", -1), ("chunk_steps", 0), ("slots", 0)])
def test_numbers_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"expected {name} of"):
        run(**{name: value})


def test_a_start_without_tokens_is_refused() -> None:
    one = jax.tree.map(lambda x: x[:1], noise_orders())
    with pytest.raises(ValueError, match="make no token"):
        start.from_feed(MARKET, tables()[0], feed(one), START_NS, MODEL.max_orders, chunk_orders=256)
